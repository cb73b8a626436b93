//! Which files of the models directory this program put there, on this machine. What is not among them belongs to
//! somebody else and is never replaced.
//!
//! A file is known by its device, its inode and the time of its birth, not by its content: one that was damaged since is
//! still ours. One that somebody moved there is another file. A list that is missing or damaged is an empty one.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::local::cache;

/// Format of the list. Another number is ignored.
const VERSION: u32 = 1;

/// What tells one file from another, whatever is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Birth {
    device: u64,
    inode: u64,
    /// Nanoseconds since 1970, where the file system knows: an inode is used again as soon as it is free.
    born_ns: Option<u128>,
}

impl Birth {
    fn of(meta: &Metadata) -> Self {
        let born = meta.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Birth { device: meta.dev(), inode: meta.ino(), born_ns: born.map(|time| time.as_nanos()) }
    }
}

#[derive(Serialize, Deserialize)]
struct List {
    version: u32,
    files: BTreeMap<PathBuf, Birth>,
}

/// The files of one project, by absolute path.
#[derive(Debug)]
pub struct Placed {
    file: PathBuf,
    files: BTreeMap<PathBuf, Birth>,
    dirty: bool,
}

impl Placed {
    /// The list of the project at `root`: `.comfy-deploy/fetched.json` in it.
    pub fn load(root: &Path) -> Self {
        let file = root.join(".comfy-deploy").join("fetched.json");
        Placed { files: read(&file), file, dirty: false }
    }

    /// Whether the file at `path` is one that this program put there.
    pub fn has(&self, path: &Path) -> bool {
        let Ok(path) = path.canonicalize() else { return false };
        let born = std::fs::metadata(&path).ok().map(|meta| Birth::of(&meta));
        born.is_some() && self.files.get(&path).copied() == born
    }

    /// Remembers the file at `path`.
    pub fn put(&mut self, path: &Path) {
        let Ok(path) = path.canonicalize() else { return };
        // JSON has no way to write a name that is not UTF-8.
        if let Some(meta) = std::fs::metadata(&path).ok().filter(|_| path.to_str().is_some()) {
            self.files.insert(path, Birth::of(&meta));
            self.dirty = true;
        }
    }

    /// Writes what is new, atomically, beside what another run wrote meanwhile; does nothing when nothing is.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&mut self) -> Result<()> {
        if !self.dirty {
            return Ok(());
        }
        let mut files = read(&self.file);
        files.extend(self.files.iter().map(|(path, birth)| (path.clone(), *birth)));
        files.retain(|path, birth| std::fs::metadata(path).is_ok_and(|meta| Birth::of(&meta) == *birth));
        let text = serde_json::to_vec(&List { version: VERSION, files })
            .map_err(|e| Error::failed("cannot write the list of fetched files").why(e.to_string()))?;
        cache::replace(&self.file, &text)?;
        self.dirty = false;
        Ok(())
    }
}

fn read(file: &Path) -> BTreeMap<PathBuf, Birth> {
    let parse = || -> Option<List> { serde_json::from_slice(&std::fs::read(file).ok()?).ok() };
    parse().filter(|list| list.version == VERSION).map(|list| list.files).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_itself_and_not_by_its_content() {
        let dir = tempfile::tempdir().expect("directory");
        let (ours, other) = (dir.path().join("ours"), dir.path().join("other"));
        std::fs::write(&ours, "fetched").expect("written");
        std::fs::write(&other, "fetched").expect("written");
        let mut placed = Placed::load(dir.path());
        placed.put(&ours);
        placed.save().expect("saved");

        let placed = Placed::load(dir.path());
        assert!(placed.has(&ours) && !placed.has(&other) && !placed.has(&dir.path().join("nothing")));
        std::fs::write(&ours, "damaged").expect("written");
        assert!(placed.has(&ours), "the same file with other content");
        std::fs::rename(&other, &ours).expect("renamed");
        assert!(!placed.has(&ours), "another file under the same name");
        std::fs::write(dir.path().join(".comfy-deploy/fetched.json"), "{").expect("written");
        assert!(!Placed::load(dir.path()).has(&ours));
    }

    #[test]
    fn two_runs_keep_what_both_put_there() {
        let dir = tempfile::tempdir().expect("directory");
        let paths = ["a", "b"].map(|name| dir.path().join(name));
        let mut runs = paths.each_ref().map(|path| {
            std::fs::write(path, "x").expect("written");
            (Placed::load(dir.path()), path)
        });
        for (placed, path) in &mut runs {
            placed.put(path);
            placed.save().expect("saved");
        }
        assert!(paths.iter().all(|path| Placed::load(dir.path()).has(path)));
    }
}
