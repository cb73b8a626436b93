//! ComfyUI's folders and the names of the files that it writes there.

use std::{
    io,
    path::{Component, Path, PathBuf},
};

use crate::picture::Picture;

/// Where files lie.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    /// What saving nodes write.
    pub output: PathBuf,
    /// Previews; deleted at every start and clean end.
    pub temp: PathBuf,
    /// What LoadImage reads and uploads go to.
    pub input: PathBuf,
}

impl Folders {
    /// The folder that goes by this name in requests.
    pub fn of(&self, kind: &str) -> Option<&Path> {
        match kind {
            "output" => Some(&self.output),
            "temp" => Some(&self.temp),
            "input" => Some(&self.input),
            _ => None,
        }
    }
}

/// A path without `.` and `..`, as far as text alone tells.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => match out.components().next_back() {
                Some(Component::Normal(_)) => {
                    out.pop();
                }
                Some(Component::RootDir) => {}
                _ => out.push(".."),
            },
            other => out.push(other),
        }
    }
    out
}

/// Where a saving node puts its files.
#[derive(Debug)]
pub(crate) struct Target {
    /// The folder, which exists.
    pub folder: PathBuf,
    /// The part of it under the output folder.
    pub subfolder: String,
    /// The start of the file names.
    pub name: String,
    /// The first number.
    pub counter: u64,
}

impl Target {
    /// The name of the file `index` of a batch.
    pub fn file(&self, index: u64, extension: &str) -> String {
        let name = self.name.replace("%batch_num%", &index.to_string());
        format!("{name}_{:05}_.{extension}", self.counter + index)
    }
}

/// A place outside the output folder was asked for; the text is ComfyUI's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    #[error(
        "**** ERROR: Saving image outside the output folder is not allowed.\n full_output_folder: {full}\n         \
         output_dir: {output}\n         commonpath: {common}"
    )]
    Outside { full: String, output: String, common: String },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The place for files with this prefix: the next number is one above the highest that is there.
pub(crate) fn target(prefix: &str, output: &Path, width: u32, height: u32) -> Result<Target, TargetError> {
    let prefix = prefix.replace("%width%", &width.to_string()).replace("%height%", &height.to_string());
    let plain = normal(Path::new(&prefix));
    let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let name = text(plain.file_name()).unwrap_or_default();
    let subfolder = plain.parent().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
    let full = normal(&output.join(&subfolder));
    if !full.starts_with(output) {
        let common: PathBuf =
            full.components().zip(output.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
        let show = |path: &Path| path.to_string_lossy().into_owned();
        return Err(TargetError::Outside { full: show(&full), output: show(output), common: show(&common) });
    }
    let mut counter = 0;
    match full.read_dir() {
        Ok(entries) => {
            for entry in entries.flatten() {
                if let Some(number) = number_of(&entry.file_name().to_string_lossy(), &name) {
                    counter = counter.max(number);
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::fs::create_dir_all(&full)?,
        Err(error) => return Err(error.into()),
    }
    Ok(Target { folder: full, subfolder, name, counter: counter + 1 })
}

/// The number in a file name `<prefix>_<number>_...`; 0 when there is none after the prefix.
fn number_of(file: &str, prefix: &str) -> Option<u64> {
    let rest = file.strip_prefix(prefix)?.strip_prefix('_')?;
    Some(rest.split('_').next().and_then(|digits| digits.parse().ok()).unwrap_or(0))
}

/// A picture as a PNG file with text chunks.
pub(crate) fn png(picture: &Picture, texts: &[(String, String)], level: u8) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(picture.pixels.len() / 2 + 1024);
    let mut encoder = png::Encoder::new(&mut out, picture.width, picture.height);
    encoder.set_color(if picture.alpha { png::ColorType::Rgba } else { png::ColorType::Rgb });
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_filter(png::Filter::Adaptive);
    encoder.set_deflate_compression(png::DeflateCompression::Level(level));
    for (key, text) in texts {
        encoder.add_text_chunk(key.clone(), text.clone()).map_err(io::Error::other)?;
    }
    let mut writer = encoder.write_header().map_err(io::Error::other)?;
    writer.write_image_data(&picture.pixels).map_err(io::Error::other)?;
    writer.finish().map_err(io::Error::other)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_on_from_the_highest_number() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a_00003_.png", "a_00010_.webp", "ab_00099_.png", "a_x_.png"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let at = target("a", dir.path(), 1, 1).unwrap();
        assert_eq!((at.file(0, "png"), at.file(1, "png")), ("a_00011_.png".into(), "a_00012_.png".into()));
        assert_eq!(target("new", dir.path(), 1, 1).unwrap().counter, 1);
    }

    #[test]
    fn makes_subfolders_and_stays_inside() {
        let dir = tempfile::tempdir().unwrap();
        let at = target("x/./y/%width%", dir.path(), 64, 1).unwrap();
        assert_eq!((at.subfolder.as_str(), at.name.as_str()), ("x/y", "64"));
        assert!(dir.path().join("x/y").is_dir());
        let error = target("../../evil", dir.path(), 1, 1).unwrap_err();
        assert!(error.to_string().starts_with("**** ERROR: Saving image outside"), "{error}");
    }

    #[test]
    fn normal_paths() {
        for (path, plain) in [("/a/../../b", "/b"), ("a/./b/..", "a"), ("../a", "../a"), ("", "")] {
            assert_eq!(normal(Path::new(path)), Path::new(plain), "{path}");
        }
    }
}
