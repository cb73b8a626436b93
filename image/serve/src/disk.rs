//! Removing what a job left on the disk. ComfyUI itself never removes an output.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use crate::outputs::File;

/// ComfyUI's directories, where they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Directories {
    pub(crate) output: Option<PathBuf>,
    pub(crate) temp: Option<PathBuf>,
    pub(crate) input: Option<PathBuf>,
}

impl Directories {
    /// Where a file is; none when its directory is not known, or when it would be outside of it.
    pub(crate) fn path(&self, file: &File) -> Option<PathBuf> {
        let directory = match file.kind.as_str() {
            "output" => self.output.as_deref(),
            "temp" => self.temp.as_deref(),
            "input" => self.input.as_deref(),
            _ => None,
        }?;
        let inside = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
        let (subfolder, filename) = (Path::new(&file.subfolder), Path::new(&file.filename));
        let plain = inside(subfolder) && inside(filename) && filename.components().count() == 1;
        plain.then(|| directory.join(subfolder).join(filename))
    }

    /// Whether files of this kind are removed after use.
    pub(crate) fn removes(&self, file: &File) -> bool {
        self.path(file).is_some()
    }

    /// What is in a file; none when that cannot be found out here.
    pub(crate) async fn read(&self, file: &File) -> Option<Bytes> {
        let path = self.path(file)?;
        tokio::fs::read(path).await.ok().map(Bytes::from)
    }

    /// Removes files, and subfolders that are empty then: a prompt with a prefix like `today/x` makes one each.
    pub(crate) async fn remove(&self, files: Vec<File>) {
        let paths: Vec<(PathBuf, bool)> =
            files.iter().filter_map(|file| Some((self.path(file)?, !file.subfolder.is_empty()))).collect();
        if paths.is_empty() {
            return;
        }
        let removing = tokio::task::spawn_blocking(move || {
            for (path, in_subfolder) in paths {
                match std::fs::remove_file(&path) {
                    Ok(()) => {}
                    Err(cause) if cause.kind() == ErrorKind::NotFound => {}
                    Err(cause) => tracing::warn!(path = %path.display(), %cause, "cannot remove an output"),
                }
                if in_subfolder && let Some(parent) = path.parent() {
                    // Fails when something else is in it, which is fine.
                    let _ = std::fs::remove_dir(parent);
                }
            }
        });
        if removing.await.is_err() {
            tracing::warn!("removing outputs crashed");
        }
    }
}

/// Makes a directory, or empties it.
pub(crate) fn empty(directory: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(directory) {
        Ok(()) => {}
        Err(cause) if cause.kind() == ErrorKind::NotFound => {}
        Err(cause) => return Err(cause),
    }
    std::fs::create_dir_all(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(subfolder: &str, filename: &str, kind: &str) -> File {
        File { filename: filename.into(), subfolder: subfolder.into(), kind: kind.into() }
    }

    #[test]
    fn paths_stay_inside() {
        let directories = Directories { output: Some("/o".into()), temp: Some("/t".into()), input: None };
        let path = |s, f, k| directories.path(&file(s, f, k)).map(|path| path.display().to_string());
        assert_eq!(path("", "a.png", "output").as_deref(), Some("/o/a.png"));
        assert_eq!(path("a/b", "c.png", "temp").as_deref(), Some("/t/a/b/c.png"));
        for (subfolder, filename, kind) in [
            ("..", "a", "output"),
            ("/etc", "a", "output"),
            ("", "../a", "output"),
            ("", "/etc/passwd", "output"),
            ("", "b/a", "output"),
            ("", "", "output"),
            ("", ".", "output"),
            ("", "a", "input"),
            ("", "a", "other"),
        ] {
            assert_eq!(path(subfolder, filename, kind), None, "{subfolder} {filename} {kind}");
        }
    }

    #[tokio::test]
    async fn files_and_their_empty_subfolders_are_removed() {
        let root = tempfile::tempdir().expect("a directory");
        let output = root.path().join("output");
        empty(&output).expect("made");
        std::fs::create_dir_all(output.join("a/b")).expect("made");
        for name in ["x.png", "a/b/y.png", "a/z.png"] {
            std::fs::write(output.join(name), "x").expect("written");
        }
        let directories = Directories { output: Some(output.clone()), ..Directories::default() };
        let gone = file("", "never-there.png", "output");
        directories.remove(vec![file("", "x.png", "output"), file("a/b", "y.png", "output"), gone]).await;
        assert!(!output.join("x.png").exists() && !output.join("a/b").exists());
        assert!(output.join("a/z.png").exists());
        empty(&output).expect("emptied");
        assert_eq!(std::fs::read_dir(&output).expect("there").count(), 0);
    }
}
