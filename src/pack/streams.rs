//! Remote files of an object: hashed in order, while parts of them are made side by side and in any order.
//!
//! A CRC of the whole can be put together from those of its parts, a sha256 cannot. So whoever has made a range of a file
//! waits until all of the file before that range was hashed, and hashes its own. Nobody waits for ever:
//! - Parts are begun in order, and each takes its memory before the next one does. Whoever waits has its memory, so
//!   whatever it waits for has too, and is being made; the lowest range that is being made waits for nobody.
//! - When a range cannot be made, no other one will ever be of use: [`Streams::fail`] tells all who wait.
//! - When nobody wants parts any more (the upload was dropped), [`Streams::abandon`] ends both waiting and reading.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard};

use crc_fast::CrcAlgorithm;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Kind, Result};
use crate::local::models::{ModelFile, ModelTree, Origin, Stop, Unread};

/// What is known of the remote files of one object.
pub(super) struct Streams {
    state: Mutex<State>,
    changed: Condvar,
    stop: Stop,
}

#[derive(Default)]
struct State {
    /// By number: the remote files that are read as a whole.
    files: BTreeMap<usize, Hashing>,
    /// Why there will be no object.
    failed: Option<Error>,
    /// Whether the same bytes may be there another time.
    again: bool,
}

/// How far a file is hashed.
struct Hashing {
    at: u64,
    /// Taken out by whoever hashes; none at the end.
    sums: Option<Box<Sums>>,
    /// CRC-32, once all was hashed and is what was locked.
    crc32: Option<u32>,
    /// What was hashed: where it begins -> its length and the checksum that its maker gave.
    ranges: BTreeMap<u64, (u64, u64)>,
}

struct Sums {
    sha256: Sha256,
    crc32: crc_fast::Digest,
}

impl Streams {
    /// Of a tree, in which `whole` says of each remote file whether all of it is read.
    pub(super) fn new(tree: &ModelTree, whole: impl Fn(usize) -> bool) -> Self {
        let hashing = || Hashing {
            at: 0,
            sums: Some(Box::new(Sums {
                sha256: Sha256::new(),
                crc32: crc_fast::Digest::new(CrcAlgorithm::Crc32IsoHdlc),
            })),
            crc32: None,
            ranges: BTreeMap::new(),
        };
        let remote = tree.files.iter().enumerate().filter(|(n, file)| file.is_remote() && whole(*n));
        let state = State { files: remote.map(|(n, _)| (n, hashing())).collect(), ..State::default() };
        Streams { state: Mutex::new(state), changed: Condvar::new(), stop: Stop::default() }
    }

    /// Ends what is being read.
    pub(super) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Nobody waits for parts any more.
    pub(super) fn abandon(&self) {
        self.stop.set();
        // Taken, so that nobody is between looking at the signal and waiting.
        drop(self.state());
        self.changed.notify_all();
    }

    /// A range could not be made.
    pub(super) fn fail(&self, error: &Error, again: bool) {
        let mut state = self.state();
        if state.failed.is_none() && !self.stop.is_set() {
            state.failed = Some(copy(error));
            state.again = again;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Bytes of a remote file did not come.
    pub(super) fn unread(&self, unread: Unread) -> Error {
        self.fail(&unread.error, unread.again);
        unread.error
    }

    /// Whether what failed may succeed another time.
    pub(super) fn again(&self) -> bool {
        self.state().again
    }

    /// Hashes `pieces`, which are file `n` from `start` on, once all before them was hashed. `sum` is whatever tells them from
    /// other bytes; a range that was hashed already must be the same again. Blocking.
    ///
    /// # Errors
    /// The file is not what was locked; another part failed; nobody wants it any more.
    pub(super) fn hash<'b>(
        &self,
        n: usize,
        file: &ModelFile,
        start: u64,
        pieces: impl Iterator<Item = &'b [u8]>,
        sum: u64,
    ) -> Result<()> {
        let mut state = self.state();
        let mut sums = loop {
            if let Some(failed) = &state.failed {
                return Err(copy(failed));
            }
            if self.stop.is_set() {
                return Err(Error::new(Kind::Interrupted, "interrupted"));
            }
            let Some(hashing) = state.files.get_mut(&n) else { return Ok(()) };
            if let Some((_, before)) = hashing.ranges.get(&start) {
                // Made once more, because the upload had to begin again.
                return if *before == sum { Ok(()) } else { Err(changed(file)) };
            }
            if hashing.at > start {
                return Err(Error::failed(format!("{} was read in other parts before", file.path)));
            }
            if hashing.at == start
                && let Some(sums) = hashing.sums.take()
            {
                break sums;
            }
            state = self.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        };
        drop(state);
        let mut len = 0;
        for piece in pieces {
            sums.sha256.update(piece);
            sums.crc32.update(piece);
            len += piece.len() as u64;
        }
        let end = start + len;
        let found = (end == file.size).then(|| {
            let sha256: [u8; 32] = sums.sha256.clone().finalize().into();
            // A CRC-32 in a u64.
            (sha256, sums.crc32.finalize() as u32)
        });
        let verdict = match found {
            Some((sha256, _)) if sha256 != file.sha256 => Err(differs(file, &sha256)),
            _ => Ok(()),
        };
        let mut state = self.state();
        if let Some(hashing) = state.files.get_mut(&n) {
            hashing.ranges.insert(start, (len, sum));
            hashing.at = end;
            hashing.crc32 = found.filter(|_| verdict.is_ok()).map(|(_, crc32)| crc32);
            hashing.sums = Some(sums);
        }
        drop(state);
        match &verdict {
            Ok(()) => self.changed.notify_all(),
            Err(e) => self.fail(e, false),
        }
        verdict
    }

    /// CRC-32 of file `n`, if all of it is read: what it is by now, or, if it is waited for, what it will be. Blocking.
    ///
    /// # Errors
    /// As of [`Streams::hash`].
    pub(super) fn crc32(&self, n: usize, wait: bool) -> Result<Option<u32>> {
        let mut state = self.state();
        loop {
            let Some(hashing) = state.files.get(&n) else { return Ok(None) };
            if hashing.crc32.is_some() || !wait {
                return Ok(hashing.crc32);
            }
            if let Some(failed) = &state.failed {
                return Err(copy(failed));
            }
            if self.stop.is_set() {
                return Err(Error::new(Kind::Interrupted, "interrupted"));
            }
            state = self.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    /// Whether every file that is read as a whole was, and was what is locked.
    pub(super) fn verify(&self, tree: &ModelTree) -> Result<()> {
        let state = self.state();
        if let Some(failed) = &state.failed {
            return Err(copy(failed));
        }
        match state.files.iter().find(|(_, hashing)| hashing.crc32.is_none()) {
            Some((&n, _)) => Err(Error::failed(format!("{} was read in part only", tree.files[n].path))),
            None => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The same for another thread; what one part died of, the others die of too, and any of them may be the first to say so.
fn copy(error: &Error) -> Error {
    let mut same = Error::new(error.kind(), error.what());
    for why in error.reasons() {
        same = same.why(why);
    }
    match error.hint() {
        Some(next) => same.next(next),
        None => same,
    }
}

fn differs(file: &ModelFile, found: &[u8; 32]) -> Error {
    Error::failed(format!("{} is not what comfy-deploy.lock says", named(file)))
        .why(format!("expected is sha256 {}, found was {}", hex::encode(file.sha256), hex::encode(found)))
        .next("find out why; to take the new content: comfy-deploy model lock --upgrade")
}

fn changed(file: &ModelFile) -> Error {
    Error::failed(format!("{} changed while it was read", named(file)))
        .next("find out why; to take the new content: comfy-deploy model lock --upgrade")
}

fn named(file: &ModelFile) -> String {
    match &file.origin {
        Origin::Remote(remote) => format!("{} ({})", file.path, remote.source()),
        Origin::Disk(_) => file.path.clone(),
    }
}

#[cfg(test)]
mod tests;
