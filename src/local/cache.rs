//! Digests of files that did not change since they were read last, so that an unchanged tree costs one `stat` per file.
//!
//! A file is taken as unchanged when device, inode, size, mtime and ctime are all as they were, which is how git's
//! index decides. A digest is not kept when the file was touched less than two seconds before it was read: a second
//! write inside the clock's granularity would leave no trace.
//!
//! The cache is a convenience and never an authority: a file that is missing, damaged or of another version is an
//! empty cache, and whatever packs a file checks its bytes again.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Format of the cache file. Another number is ignored.
const VERSION: u32 = 2;

/// Nanoseconds that must lie between a file's last change and the moment it is read.
const SETTLED_NS: i128 = 2_000_000_000;

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Device.
    pub device: u64,
    /// Inode.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since 1970 of the last write.
    pub mtime_ns: i128,
    /// Nanoseconds since 1970 of the last change of content or inode; no program can set it.
    pub ctime_ns: i128,
}

impl Stamp {
    /// The stamp in a `stat` result.
    pub fn of(meta: &Metadata) -> Self {
        let ns = |seconds: i64, nanoseconds: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        Stamp {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            mtime_ns: ns(meta.mtime(), meta.mtime_nsec()),
            ctime_ns: ns(meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Whether the file was at rest at `now`. An mtime in the future says nothing, for anybody can set one; a ctime in
    /// the future means another clock (a network file system), which is never trusted.
    fn settled(&self, now_ns: i128) -> bool {
        let young = |t: i128| now_ns - t < SETTLED_NS;
        !young(self.ctime_ns) && (self.mtime_ns > now_ns || !young(self.mtime_ns))
    }
}

/// Everything that is known of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// Identity.
    #[serde(with = "hex32")]
    pub sha256: [u8; 32],
    /// CRC-32 of gzip. With it any part of an archive can be made without the parts before it.
    pub crc32: u32,
    /// CRC-64/NVME, S3's checksum. With it the archive's own is known before it is packed.
    pub crc64nvme: u64,
    /// Whole percent that samples of it shrink by when they are deflated; see [`super::models::gain`].
    pub gain: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    stamp: Stamp,
    digest: FileDigest,
}

#[derive(Serialize, Deserialize)]
struct CacheFile {
    version: u32,
    files: HashMap<PathBuf, Entry>,
}

/// The digests of one project, by absolute path.
#[derive(Debug, Default)]
pub struct DigestCache {
    file: Option<PathBuf>,
    entries: HashMap<PathBuf, Entry>,
    dirty: bool,
}

impl DigestCache {
    /// The cache of the project at `root`: `.comfy-deploy/digests.json` in it. Never fails: what cannot be read is empty.
    pub fn load(root: &Path) -> Self {
        let file = root.join(".comfy-deploy").join("digests.json");
        DigestCache { entries: read(&file), file: Some(file), dirty: false }
    }

    /// A cache that is kept nowhere.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// The digest of `path`, if its state is the one that was read.
    pub fn get(&self, path: &Path, stamp: &Stamp) -> Option<FileDigest> {
        self.entries.get(path).filter(|e| e.stamp == *stamp).map(|e| e.digest)
    }

    /// Keeps a digest of `path`, unless the file had been touched just before `read_at_ns`, when reading began.
    pub fn put(&mut self, path: &Path, stamp: Stamp, digest: FileDigest, read_at_ns: i128) {
        // JSON has no way to write a name that is not UTF-8.
        if stamp.settled(read_at_ns) && path.to_str().is_some() {
            self.entries.insert(path.to_owned(), Entry { stamp, digest });
            self.dirty = true;
        }
    }

    /// Keeps the digest of a file that this program wrote, hashed and put in its place, without waiting until it is old:
    /// nobody else writes to a file before it has its name. Sees to it that the clock of the file system moved on since,
    /// so that any later write shows. Blocking, for some hundredths of a second.
    ///
    /// # Errors
    /// The file is not there.
    pub fn put_own(&mut self, path: &Path, digest: FileDigest) -> std::io::Result<()> {
        let stamp = Stamp::of(&std::fs::metadata(path)?);
        // Ticks of the kernel are at most a hundredth of a second apart.
        std::thread::sleep(std::time::Duration::from_millis(25));
        let after = Stamp::of(&std::fs::metadata(path)?);
        // Whole seconds only: a file system that counts in seconds, to which this does not apply.
        let coarse = stamp.mtime_ns % 1_000_000_000 == 0 && stamp.ctime_ns % 1_000_000_000 == 0;
        if after == stamp && !coarse && path.to_str().is_some() {
            self.entries.insert(path.to_owned(), Entry { stamp, digest });
            self.dirty = true;
        }
        Ok(())
    }

    /// Writes what is new, atomically; does nothing when nothing is. What another run wrote meanwhile is kept as far as
    /// it is still true, and entries of files that changed or went away are dropped.
    pub fn save(&mut self) -> Result<()> {
        let Some(file) = self.file.as_deref().filter(|_| self.dirty) else { return Ok(()) };
        let mut files = read(file);
        files.extend(self.entries.iter().map(|(path, entry)| (path.clone(), entry.clone())));
        files.retain(|path, entry| std::fs::metadata(path).is_ok_and(|meta| Stamp::of(&meta) == entry.stamp));
        let text = serde_json::to_vec(&CacheFile { version: VERSION, files })
            .map_err(|e| Error::failed("cannot write the file digests").why(e.to_string()))?;
        replace(file, &text)?;
        self.dirty = false;
        Ok(())
    }
}

/// Writes a file of the project's cache directory, atomically.
pub(super) fn replace(file: &Path, text: &[u8]) -> Result<()> {
    let dir = file.parent().unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(dir)?;
        // Nothing in this directory belongs into the user's repository.
        let ignore = dir.join(".gitignore");
        if !ignore.exists() {
            std::fs::write(&ignore, "*\n")?;
        }
        let mut temporary = tempfile::NamedTempFile::new_in(dir)?;
        temporary.write_all(text)?;
        temporary.persist(file)?;
        Ok(())
    };
    write().map_err(|e| {
        Error::io("write", file, &e).next(format!("make {} writable, or free some disk space", dir.display()))
    })
}

fn read(file: &Path) -> HashMap<PathBuf, Entry> {
    let parse = || -> Option<CacheFile> { serde_json::from_slice(&std::fs::read(file).ok()?).ok() };
    parse().filter(|cache| cache.version == VERSION).map(|cache| cache.files).unwrap_or_default()
}

/// A sha256 as 64 hex digits.
mod hex32 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(String::deserialize(deserializer)?, &mut bytes).map_err(D::Error::custom)?;
        Ok(bytes)
    }
}

/// The clock that file systems use, in nanoseconds since 1970.
pub(crate) fn now_ns() -> i128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i128)
}

#[cfg(test)]
mod tests;
