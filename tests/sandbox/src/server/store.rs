//! The state directory: one JSON file, replaced atomically, and a lock so that two sandboxes never share it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::world::{Shared, World};

/// What can be wrong with the state directory.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the lock.
    #[error("another sandbox uses the state directory {}; stop it, or choose another one with --state", .0.display())]
    Locked(PathBuf),
    /// A file cannot be made, read or replaced.
    #[error("cannot use {}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Not a state of this version.
    #[error(
        "{} is not a sandbox state that this version reads ({error}); move the directory away or choose another one with --state",
        path.display()
    )]
    Format {
        /// Which.
        path: PathBuf,
        /// Why.
        error: serde_json::Error,
    },
}

/// An open, locked state directory.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// Held as long as the store lives; the system gives it free when the process dies.
    _lock: File,
    /// One save at a time: a slower older one must not replace a newer one.
    saving: Mutex<()>,
}

impl Store {
    /// Makes and locks the directory.
    pub fn open(dir: &Path) -> Result<Store, StoreError> {
        fs::create_dir_all(dir).map_err(|error| StoreError::Io { path: dir.to_owned(), error })?;
        let path = dir.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| StoreError::Io { path: path.clone(), error })?;
        match lock.try_lock() {
            Ok(()) => {
                // For `stop`, which believes it only while the lock is held.
                let written =
                    lock.set_len(0).and_then(|()| (&lock).write_all(std::process::id().to_string().as_bytes()));
                written.map_err(|error| StoreError::Io { path, error })?;
                Ok(Store { dir: dir.to_owned(), _lock: lock, saving: Mutex::new(()) })
            }
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked(dir.to_owned())),
            Err(TryLockError::Error(error)) => Err(StoreError::Io { path, error }),
        }
    }

    /// The process that holds the directory; none when nobody does.
    pub fn holder(dir: &Path) -> Result<Option<i32>, StoreError> {
        let path = dir.join("lock");
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::Io { path, error }),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => {
                let text = fs::read_to_string(&path).map_err(|error| StoreError::Io { path, error })?;
                Ok(text.trim().parse().ok())
            }
            Err(TryLockError::Error(error)) => Err(StoreError::Io { path, error }),
        }
    }

    /// What was saved last; an empty world if nothing was.
    pub fn load(&self) -> Result<World, StoreError> {
        let path = self.dir.join("state.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| StoreError::Format { path, error }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(World::default()),
            Err(error) => Err(StoreError::Io { path, error }),
        }
    }

    /// Replaces the saved state. After a crash there is the old one or the new one, never half of one.
    pub fn save(&self, shared: &Shared) -> Result<(), StoreError> {
        let _one = self.saving.lock();
        let (tmp, path) = (self.dir.join("state.json.tmp"), self.dir.join("state.json"));
        let bytes = serde_json::to_vec(&*shared.world.lock())
            .map_err(|error| StoreError::Format { path: path.clone(), error })?;
        let write = || -> io::Result<()> {
            let mut file = File::create(&tmp)?;
            file.write_all(&bytes)?;
            drop(file);
            fs::rename(&tmp, &path)
        };
        write().map_err(|error| StoreError::Io { path: path.clone(), error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_world_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.load().unwrap().url, "");
        let world = World { url: "http://x".into(), ..World::default() };
        store.save(&Shared::new(world, dir.path().to_owned())).unwrap();
        assert_eq!(store.load().unwrap().url, "http://x");
        assert!(!dir.path().join("state.json.tmp").exists());
    }

    #[test]
    fn a_second_sandbox_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = Store::open(dir.path()).unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StoreError::Locked(_))));
        assert_eq!(Store::holder(dir.path()).unwrap(), Some(std::process::id() as i32));
        drop(first);
        assert_eq!(Store::holder(dir.path()).unwrap(), None);
        assert!(Store::open(dir.path()).is_ok());
    }

    #[test]
    fn a_damaged_state_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("state.json"), "{").unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert!(matches!(store.load(), Err(StoreError::Format { .. })));
        assert_eq!(fs::read(dir.path().join("state.json")).unwrap(), b"{");
    }
}
