//! How the declared files stand, by names and sizes alone.

use std::path::Path;

use super::disk;
use super::journal::left;
use super::run::{locked, no_room};
use super::stream::streamable;
use super::wanted::{Wanted, wanted};
use crate::config::Config;
use crate::error::Result;
use crate::local::cache::{DigestCache, Stamp};
use crate::local::lockfile::{Lock, Locked};

/// How a declared file stands, by lock and disk alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Here, and as locked as can be told without reading it.
    Locked,
    /// Here, but not in the lock.
    Local,
    /// In the lock, but not here.
    Missing,
    /// Neither in the lock nor here.
    New,
    /// Here with other content than the locked one.
    Changed,
    /// In the lock and not here, as it should be: it is read from its source whenever it is uploaded.
    Streamed,
}

impl State {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            State::Locked => "locked",
            State::Local => "not locked",
            State::Missing => "missing",
            State::New => "not fetched",
            State::Changed => "changed",
            State::Streamed => "streamed",
        }
    }
}

/// A declared file and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The declaration.
    pub wanted: Wanted,
    /// Path in the models directory, if it is known.
    pub path: Option<String>,
    /// Bytes, by the lock or the disk.
    pub size: Option<u64>,
    /// The lock's entry.
    pub locked: Option<Locked>,
    /// How it stands.
    pub state: State,
}

/// How every declared file stands. Reads names and sizes alone.
///
/// # Errors
/// The lock cannot be read.
pub fn status(root: &Path, config: &Config) -> Result<Vec<Status>> {
    let lock = Lock::load(root)?;
    let (dir, cache) = (root.join(&config.models.dir), DigestCache::load(root));
    let one = |wanted: Wanted| {
        let path = wanted.path(&lock);
        let locked = locked(&wanted, &lock).map(|(_, locked)| locked);
        let file = path.as_ref().map(|path| dir.join(path));
        let stamp = file.as_ref().and_then(|file| std::fs::metadata(file).ok()).map(|meta| Stamp::of(&meta));
        let known = file.and_then(|file| cache.get(&file.canonicalize().ok()?, stamp.as_ref()?));
        let state = match (&locked, &stamp) {
            (Some(locked), Some(stamp)) if stamp.size != locked.size => State::Changed,
            (Some(locked), Some(_)) if known.is_some_and(|d| hex::encode(d.sha256) != locked.sha256) => State::Changed,
            (Some(_), Some(_)) => State::Locked,
            (None, Some(_)) => State::Local,
            (Some(locked), None) if config.models.stream && streamable(&config.models, &wanted.source, locked.size) => {
                State::Streamed
            }
            (Some(_), None) => State::Missing,
            (None, None) => State::New,
        };
        let size = stamp.map(|stamp| stamp.size).or(locked.as_ref().map(|locked| locked.size));
        Status { path, size, locked, state, wanted }
    };
    Ok(wanted(&config.models.files).into_iter().map(one).collect())
}

/// Whether `up` would stream what is large, though the config does not ask for it, because the disk has no room for what is
/// missing: the note that says so. Told by lock and disk alone, so only of files that are all locked.
///
/// # Errors
/// The lock cannot be read.
pub fn without_room(root: &Path, config: &Config, free: fn(&Path) -> Option<u64>) -> Result<Option<String>> {
    if config.models.uri.is_some() || config.models.stream {
        return Ok(None);
    }
    let dir = root.join(&config.models.dir);
    let (mut needed, mut streamed) = (0u64, Vec::new());
    for one in status(root, config)? {
        match (one.state, one.path, one.locked) {
            (State::New, ..) => return Ok(None),
            (State::Missing, Some(path), Some(locked)) => {
                let have = left(&dir.join(path), Some(&format!("sha256:{}", locked.sha256)));
                needed = needed.saturating_add(locked.size.saturating_sub(have));
                if streamable(&config.models, &one.wanted.source, locked.size) {
                    streamed.push(locked.size);
                }
            }
            _ => {}
        }
    }
    let free = free(&dir);
    let streams = !streamed.is_empty() && !disk::fits(needed, free);
    Ok(streams.then(|| no_room(&dir, needed, free, &streamed)))
}
