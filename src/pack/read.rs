//! Reading the files, and proof that they are what was scanned.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard};

use crc_fast::{CrcAlgorithm, checksum_combine};

use super::streams::Streams;
use crate::error::{Error, Result};
use crate::local::cache::Stamp;
use crate::local::models::{ModelFile, ModelTree, OnDisk, Origin, RemoteBytes, changed};

/// What was read of each file, to compare with what was scanned.
#[derive(Default)]
pub(super) struct Read(Mutex<BTreeMap<(usize, u64), (u64, u64)>>);

impl Read {
    /// File and offset -> length and CRC-32.
    fn ranges(&self) -> MutexGuard<'_, BTreeMap<(usize, u64), (u64, u64)>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether every file that was read in whole has the content it was scanned with. A file's stamp says that nobody
    /// wrote to it; this says that the stamp, and the cache, told the truth.
    pub(super) fn verify(&self, tree: &ModelTree) -> Result<()> {
        let mut sums: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        for (&(n, start), &(len, crc)) in self.ranges().iter() {
            let (end, sum) = sums.entry(n).or_default();
            if start == *end {
                *sum = if start == 0 { crc } else { checksum_combine(CrcAlgorithm::Crc32IsoHdlc, *sum, crc, len) };
                *end += len;
            }
        }
        for (n, (end, sum)) in sums {
            let file = &tree.files[n];
            if let Origin::Disk(disk) = &file.origin
                && end == file.size
                && sum != u64::from(disk.crc32)
            {
                return Err(differs(disk));
            }
        }
        Ok(())
    }
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
            _ => Error::io("read", &model.source, &e).next("make it readable again, then run the same command"),
        };
        if self.current.as_ref().is_none_or(|c| c.n != n) {
            self.close()?;
            let file = File::open(&model.source).map_err(unreadable)?;
            unchanged(model, &file)?;
            let crc = crc_fast::Digest::new(CrcAlgorithm::Crc32IsoHdlc);
            self.current = Some(Current { n, file, start: at, crc });
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        current.file.read_exact_at(out, at).map_err(unreadable)?;
        current.crc.update(out);
        Ok(())
    }

    /// Ends with the current file: it must still be what it was when it was opened.
    pub(super) fn close(&mut self) -> Result<()> {
        let Some(done) = self.current.take() else { return Ok(()) };
        if let Origin::Disk(model) = &self.tree.files[done.n].origin {
            unchanged(model, &done.file)?;
        }
        self.read.ranges().insert((done.n, done.start), (done.crc.get_amount(), done.crc.finalize()));
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
