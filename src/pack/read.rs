//! Reading the files, and proof that they are what was scanned.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use crc_fast::{CrcAlgorithm, checksum_combine};

use super::streams::Streams;
use crate::error::{Error, Result};
use crate::local::cache::Stamp;
use crate::local::models::{ModelFile, ModelTree, OnDisk, Origin, RemoteBytes, changed};

/// What was read of each file, to compare with what was scanned.
#[derive(Default)]
pub(super) struct Read {
    /// File and offset -> length and CRC-32.
    ranges: Mutex<BTreeMap<(usize, u64), (u64, u64)>>,
    /// Whether a file could not be read, though nothing says that it changed.
    unreadable: AtomicBool,
}

impl Read {
    /// Whether a file could not be read that may be read again as it was: a network file system that is gone, say.
    pub(super) fn again(&self) -> bool {
        self.unreadable.load(Ordering::Relaxed)
    }

    fn ranges(&self) -> MutexGuard<'_, BTreeMap<(usize, u64), (u64, u64)>> {
        self.ranges.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether every file that was read in whole has the content it was scanned with. A file's stamp says that nobody
    /// wrote to it; this says that the stamp, and the cache, told the truth.
    pub(super) fn verify(&self, tree: &ModelTree) -> Result<()> {
        (0..tree.files.len()).try_for_each(|n| self.verify_one(tree, n))
    }

    /// The same of one file.
    pub(super) fn verify_one(&self, tree: &ModelTree, n: usize) -> Result<()> {
        let (mut end, mut sum) = (0, 0);
        for (&(_, start), &(len, crc)) in self.ranges().range((n, 0)..=(n, u64::MAX)) {
            if start == end {
                sum = if start == 0 { crc } else { checksum_combine(CrcAlgorithm::Crc32IsoHdlc, sum, crc, len) };
                end += len;
            }
        }
        let file = &tree.files[n];
        match &file.origin {
            Origin::Disk(disk) if end > 0 && end == file.size && sum != u64::from(disk.crc32) => Err(differs(disk)),
            _ => Ok(()),
        }
    }
}

/// Its pieces are not as long as they were when the archive was laid out.
pub(super) fn misfit(file: &ModelFile) -> Error {
    Error::failed(format!("{} does not compress to what it did when it was measured", file.path))
        .why("the file is another one, or what is kept of an earlier run is wrong")
        .next("run the same command again with --rehash")
}

pub(super) fn differs(file: &OnDisk) -> Error {
    Error::failed(format!("{} is not what it was when its digest was taken", file.source.display()))
        .why("its size and times are the same, its bytes are not")
        .next("run the same command again with --rehash")
}

/// The file that is being read. Neighbouring ranges mostly come from the same one.
pub(super) struct Open<'a> {
    tree: &'a ModelTree,
    read: &'a Read,
    current: Option<Current>,
    streams: &'a Streams,
    /// The range of a remote file that is being read.
    remote: Option<Box<dyn RemoteBytes>>,
}

struct Current {
    n: usize,
    file: File,
    start: u64,
    crc: crc_fast::Digest,
}

impl<'a> Open<'a> {
    pub(super) fn new(tree: &'a ModelTree, read: &'a Read, streams: &'a Streams) -> Self {
        Open { tree, read, current: None, streams, remote: None }
    }

    /// Begins to read a range of a file that is elsewhere; of one that is here nothing need be said before.
    pub(super) fn begin(&mut self, n: usize, range: Range<u64>) {
        if let Origin::Remote(remote) = &self.tree.files[n].origin {
            self.remote = Some(remote.open(range, self.streams.stop()));
        }
    }

    /// Ends with it, so that no connection is held while others are waited for.
    pub(super) fn end(&mut self) {
        self.remote = None;
    }

    /// Reads `out.len()` bytes of file `n` from `at`. Ranges of one file come in order.
    pub(super) fn read(&mut self, n: usize, at: u64, out: &mut [u8]) -> Result<()> {
        let model = match &self.tree.files[n].origin {
            Origin::Disk(model) => model,
            Origin::Remote(_) => {
                let Some(remote) = &mut self.remote else { return Err(misplaced(&self.tree.files[n])) };
                return remote.read(out).map_err(|unread| self.streams.unread(unread));
            }
        };
        let unreadable = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::UnexpectedEof => changed(&model.source),
            _ => {
                self.read.unreadable.store(true, Ordering::Relaxed);
                Error::io("read", &model.source, &e).next("make it readable again, then run the same command")
            }
        };
        if self.current.as_ref().is_none_or(|c| c.n != n) {
            self.close()?;
            let file = File::open(&model.source).map_err(unreadable)?;
            unchanged(model, &file)?;
            let crc = crc_fast::Digest::new(CrcAlgorithm::Crc32IsoHdlc);
            self.current = Some(Current { n, file, start: at, crc });
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        if current.crc.get_amount() == 0 {
            current.start = at;
        }
        current.file.read_exact_at(out, at).map_err(unreadable)?;
        current.crc.update(out);
        Ok(())
    }

    /// File `n` of the tree.
    pub(super) fn model(&self, n: usize) -> &'a ModelFile {
        &self.tree.files[n]
    }

    /// What is read next is checked for itself: ranges that are read twice, in whole pieces, still add up.
    pub(super) fn cut(&mut self) {
        if let Some(current) = &mut self.current {
            let crc = std::mem::replace(&mut current.crc, crc_fast::Digest::new(CrcAlgorithm::Crc32IsoHdlc));
            self.read.ranges().insert((current.n, current.start), (crc.get_amount(), crc.finalize()));
            current.start += crc.get_amount();
        }
    }

    /// Ends with the current file: it must still be what it was when it was opened.
    pub(super) fn close(&mut self) -> Result<()> {
        let Some(done) = self.current.take() else { return Ok(()) };
        if let Origin::Disk(model) = &self.tree.files[done.n].origin {
            unchanged(model, &done.file)?;
        }
        if done.crc.get_amount() > 0 {
            self.read.ranges().insert((done.n, done.start), (done.crc.get_amount(), done.crc.finalize()));
        }
        Ok(())
    }
}

fn misplaced(file: &ModelFile) -> Error {
    Error::failed(format!("{} is not on this machine", file.path)).next("please report this")
}

fn unchanged(model: &OnDisk, file: &File) -> Result<()> {
    let meta = file.metadata().map_err(|e| Error::io("read", &model.source, &e))?;
    if Stamp::of(&meta) == model.stamp { Ok(()) } else { Err(changed(&model.source)) }
}
