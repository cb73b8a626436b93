//! Names of the files that pictures are written to.

use std::path::{Path, PathBuf};

/// Where pictures go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `--output FILE`, or a directory that is there.
    given: Option<PathBuf>,
    directory: bool,
    /// Name of the workflow, without `.json`.
    stem: String,
    count: u32,
}

impl Place {
    /// `given` as the user wrote it, a `directory` if there is one of this name; `count` pictures come.
    pub fn new(given: Option<PathBuf>, directory: bool, workflow: &str, count: u32) -> Self {
        let stem = workflow.strip_suffix(".json").unwrap_or(workflow).to_owned();
        Place { given, directory, stem, count }
    }

    /// The format that the given name asks for.
    pub fn format(&self) -> Option<&'static str> {
        let file = self.given.as_ref().filter(|_| !self.directory)?;
        match file.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "jpg" | "jpeg" => Some("jpeg"),
            "png" => Some("png"),
            "webp" => Some("webp"),
            _ => None,
        }
    }

    /// The file of picture `index` (from 0) with a seed and a content type.
    pub fn file(&self, index: u32, seed: Option<u64>, content_type: &str) -> PathBuf {
        let named = match seed {
            Some(seed) => format!("{}-{seed}.{}", self.stem, extension(content_type)),
            None => format!("{}-{}.{}", self.stem, index + 1, extension(content_type)),
        };
        match &self.given {
            None => PathBuf::from(named),
            Some(directory) if self.directory => directory.join(named),
            Some(file) if self.count == 1 => file.clone(),
            Some(file) => numbered(file, index + 1),
        }
    }

    /// The file of picture `index` if it is known before the picture is.
    pub fn known(&self, index: u32, seed: Option<u64>, format: Option<&str>) -> Option<PathBuf> {
        let by_user = self.given.is_some() && !self.directory;
        // Without a format the function makes JPEG.
        let content_type = format!("image/{}", format.unwrap_or("jpeg"));
        (by_user || seed.is_some()).then(|| self.file(index, seed, &content_type))
    }
}

/// `out.jpg` as `out-2.jpg`.
fn numbered(file: &Path, number: u32) -> PathBuf {
    let mut name = file.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{number}"));
    if let Some(extension) = file.extension() {
        name.push(".");
        name.push(extension);
    }
    file.with_file_name(name)
}

/// What files of a type are called.
fn extension(content_type: &str) -> &'static str {
    match content_type.split(';').next().unwrap_or_default().trim() {
        "image/jpeg" => "jpg",
        "image/png" => "png",
        "image/webp" => "webp",
        "image/gif" => "gif",
        "video/mp4" => "mp4",
        "video/webm" => "webm",
        _ => "bin",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_a_name_has_workflow_seed_and_type() {
        let place = Place::new(None, false, "workflow_api.json", 1);
        assert_eq!(place.file(0, Some(7), "image/jpeg"), Path::new("workflow_api-7.jpg"));
        assert_eq!(place.file(2, None, "image/webp; q=1"), Path::new("workflow_api-3.webp"));
        assert_eq!(place.known(0, Some(7), None), Some("workflow_api-7.jpg".into()));
        assert_eq!(place.known(0, None, None), None);
        let place = Place::new(Some("out".into()), true, "flux", 3);
        assert_eq!(place.file(1, Some(8), "image/png"), Path::new("out/flux-8.png"));
        assert_eq!(place.format(), None);
    }

    #[test]
    fn a_given_name_is_kept_and_numbered_for_several() {
        let place = Place::new(Some("a/out.PNG".into()), false, "w", 1);
        assert_eq!(place.file(0, Some(7), "image/jpeg"), Path::new("a/out.PNG"));
        assert_eq!(place.format(), Some("png"));
        let place = Place::new(Some("a/out.x.jpg".into()), false, "w", 2);
        assert_eq!(place.known(1, None, None), Some("a/out.x-2.jpg".into()));
        assert_eq!(Place::new(Some("out".into()), false, "w", 2).file(0, None, ""), Path::new("out-1"));
    }
}
