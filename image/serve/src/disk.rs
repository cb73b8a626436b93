//! Removing what a job left on the disk. ComfyUI itself never removes an output.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use crate::outputs::File;

/// A subfolder in which nothing changed for so long is no job's that is just about to write. Jobs make theirs a moment
/// before they write.
const OLD: Duration = Duration::from_secs(3600);

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
        let directory = self.root(&file.kind)?;
        let inside = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
        let (subfolder, filename) = (Path::new(&file.subfolder), Path::new(&file.filename));
        let plain = inside(subfolder) && inside(filename) && filename.components().count() == 1;
        plain.then(|| directory.join(subfolder).join(filename))
    }

    /// The directory in which a file's subfolder is.
    fn root(&self, kind: &str) -> Option<&Path> {
        match kind {
            "output" => self.output.as_deref(),
            "temp" => self.temp.as_deref(),
            "input" => self.input.as_deref(),
            _ => None,
        }
    }
}

/// The files that jobs leave there.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    directories: Directories,
    /// Subfolders out of which a file was removed, the directory that each is in, and since when.
    left: Mutex<HashMap<PathBuf, (PathBuf, Instant)>>,
}

impl Disk {
    pub(crate) fn new(directories: Directories) -> Self {
        Disk { directories, left: Mutex::default() }
    }

    /// Whether this file is removed after use. A node may name a file of the input directory as its output: that is
    /// somebody's, and stays.
    pub(crate) fn removes(&self, file: &File) -> bool {
        matches!(file.kind.as_str(), "output" | "temp") && self.directories.path(file).is_some()
    }

    /// What is in a file; none when that cannot be found out here.
    pub(crate) async fn read(&self, file: &File) -> Option<Bytes> {
        let path = self.directories.path(file)?;
        tokio::fs::read(path).await.ok().map(Bytes::from)
    }

    /// Removes what a job wrote. Its subfolders are left to [`Disk::sweep`]: the next job may be about to write there.
    pub(crate) async fn remove(&self, files: Vec<File>) {
        let files: Vec<File> = files.into_iter().filter(|file| self.removes(file)).collect();
        self.remove_any(&files).await;
        let now = Instant::now();
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        for file in files.iter().filter(|file| !file.subfolder.is_empty()) {
            if let Some(root) = self.directories.root(&file.kind) {
                left.insert(root.join(&file.subfolder), (root.to_owned(), now));
            }
        }
    }

    /// Removes pictures that came with a request, and that ComfyUI put into its input directory.
    pub(crate) async fn remove_uploads(&self, files: &[File]) {
        self.remove_any(files).await;
    }

    async fn remove_any(&self, files: &[File]) {
        let paths: Vec<PathBuf> = files.iter().filter_map(|file| self.directories.path(file)).collect();
        if paths.is_empty() {
            return;
        }
        let removing = tokio::task::spawn_blocking(move || {
            for path in paths {
                match std::fs::remove_file(&path) {
                    Ok(()) => {}
                    Err(cause) if cause.kind() == ErrorKind::NotFound => {}
                    Err(cause) => tracing::warn!(path = %path.display(), %cause, "cannot remove an output"),
                }
            }
        });
        if removing.await.is_err() {
            tracing::warn!("removing outputs crashed");
        }
    }

    /// Whether there may be subfolders to sweep.
    pub(crate) fn has_left(&self) -> bool {
        !self.left.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Removes the subfolders that jobs left, with those that they are in, where nothing is in them: a prompt with a
    /// prefix like `today/x` makes one. `alone` means that no job can write now; otherwise only old ones go.
    pub(crate) async fn sweep(&self, alone: bool) {
        let least = if alone { Duration::ZERO } else { OLD };
        let due: Vec<(PathBuf, PathBuf)> = {
            let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            left.extract_if(|_, (_, since)| since.elapsed() >= least)
                .map(|(folder, (root, _))| (folder, root))
                .collect()
        };
        if due.is_empty() {
            return;
        }
        let sweeping = tokio::task::spawn_blocking(move || {
            due.into_iter().filter_map(|(folder, root)| Some((remove_empty(folder, &root, least)?, root))).collect()
        });
        let young: Vec<(PathBuf, PathBuf)> = sweeping.await.unwrap_or_default();
        let now = Instant::now();
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        for (folder, root) in young {
            left.entry(folder).or_insert((root, now));
        }
    }
}

/// Removes a folder, and those that it is in up to a directory, as long as they are empty and were not changed for so
/// long. Returns the one that is too young.
fn remove_empty(mut folder: PathBuf, root: &Path, least: Duration) -> Option<PathBuf> {
    while folder != root && folder.starts_with(root) {
        let changed = std::fs::symlink_metadata(&folder).and_then(|found| found.modified());
        let young = |at: SystemTime| at.elapsed().unwrap_or_default() < least;
        if changed.is_ok_and(young) {
            return Some(folder);
        }
        match std::fs::remove_dir(&folder) {
            Ok(()) => {}
            Err(cause) if cause.kind() == ErrorKind::NotFound => {}
            // Something is in it. Whoever removes that comes here again.
            Err(_) => return None,
        }
        folder.pop();
    }
    None
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
    async fn files_are_removed_at_once_and_their_empty_subfolders_when_no_job_can_write() {
        let root = tempfile::tempdir().expect("a directory");
        let output = root.path().join("output");
        empty(&output).expect("made");
        std::fs::create_dir_all(output.join("a/b")).expect("made");
        std::fs::create_dir_all(output.join("c/d/e")).expect("made");
        std::fs::create_dir_all(output.join("theirs")).expect("made");
        for name in ["x.png", "a/b/y.png", "a/z.png", "c/d/e/y.png"] {
            std::fs::write(output.join(name), "x").expect("written");
        }
        let disk = Disk::new(Directories { output: Some(output.clone()), ..Directories::default() });
        let gone = file("", "never-there.png", "output");
        assert!(!disk.has_left());
        let files = vec![file("", "x.png", "output"), file("a/b", "y.png", "output"), gone];
        disk.remove([files, vec![file("c/d/e", "y.png", "output")]].concat()).await;
        assert!(!output.join("x.png").exists() && !output.join("a/b/y.png").exists());
        disk.sweep(false).await;
        assert!(output.join("a/b").exists() && output.join("c/d/e").exists() && disk.has_left());
        disk.sweep(true).await;
        assert!(!output.join("a/b").exists() && !output.join("c").exists() && !disk.has_left());
        // What is not empty stays, and what is not ours.
        assert!(output.join("a/z.png").exists() && output.join("theirs").exists());
        disk.remove(vec![file("a", "z.png", "output")]).await;
        disk.sweep(true).await;
        assert!(output.exists() && !output.join("a").exists());
        empty(&output).expect("emptied");
        assert_eq!(std::fs::read_dir(&output).expect("there").count(), 0);
    }

    #[test]
    fn a_folder_that_changed_lately_may_be_about_to_be_written_to() {
        let root = tempfile::tempdir().expect("a directory");
        let folder = root.path().join("a/b");
        std::fs::create_dir_all(&folder).expect("made");
        assert_eq!(remove_empty(folder.clone(), root.path(), OLD), Some(folder.clone()));
        // That it is removed changes the one that it is in.
        let old = SystemTime::now() - OLD - Duration::from_secs(1);
        std::fs::File::open(&folder).and_then(|folder| folder.set_modified(old)).expect("set");
        assert_eq!(remove_empty(folder.clone(), root.path(), OLD), Some(root.path().join("a")));
        assert!(!folder.exists() && root.path().join("a").exists());
    }

    #[tokio::test]
    async fn only_uploads_are_removed_from_the_input_directory() {
        let root = tempfile::tempdir().expect("a directory");
        let input = root.path().join("kept.png");
        std::fs::write(&input, "x").expect("written");
        let disk = Disk::new(Directories { input: Some(root.path().into()), ..Directories::default() });
        let named = file("", "kept.png", "input");
        assert!(!disk.removes(&named));
        disk.remove(vec![named.clone()]).await;
        assert!(input.exists());
        assert_eq!(disk.read(&named).await.as_deref(), Some(&b"x"[..]));
        disk.remove_uploads(&[named]).await;
        assert!(!input.exists());
    }
}
