//! Reading files once, for all three digests, on several threads.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crc_fast::CrcAlgorithm;
use sha2::{Digest as _, Sha256};

use super::sample::gain;
use super::walk::Found;
use super::{ModelFile, ModelTree, OnDisk, Origin};
use crate::error::{Error, Result};
use crate::local::cache::{DigestCache, FileDigest, Stamp, now_ns};
use crate::progress::{Event, Reporter, Task};

/// Bytes per read: enough that the system calls cost nothing, little enough to stay in the cache of a core.
const READ: usize = 1 << 20;

/// Most threads. Beyond these the disk is the limit, and every thread holds a buffer.
const THREADS: usize = 8;

/// Gives every file its digest, from the cache where that is allowed.
pub(super) fn digest(
    found: Vec<Found>,
    cache: &mut DigestCache,
    rehash: bool,
    reporter: &dyn Reporter,
) -> Result<ModelTree> {
    let mut known: Vec<Option<FileDigest>> =
        found.iter().map(|f| if rehash { None } else { cache.get(&f.source, &f.stamp) }).collect();
    // Largest first, so that no thread begins a large file when the others are done.
    let mut unknown: Vec<usize> = (0..found.len()).filter(|&i| known[i].is_none()).collect();
    unknown.sort_by_key(|&i| std::cmp::Reverse(found[i].stamp.size));
    let total: u64 = unknown.iter().map(|&i| found[i].stamp.size).sum();
    if !unknown.is_empty() {
        let label = format!("hashing {} of {} files", unknown.len(), found.len());
        reporter.report(Event::Begin { task: Task::Scan, label, total: Some(total) });
        for (i, digest, read_at) in read_all(&found, &unknown, reporter)? {
            cache.put(&found[i].source, found[i].stamp, digest, read_at);
            known[i] = Some(digest);
        }
        reporter.report(Event::End { task: Task::Scan, summary: format!("hashed {} files", unknown.len()) });
    }
    let files = found
        .into_iter()
        .zip(known)
        .filter_map(|(f, digest)| {
            let FileDigest { sha256, crc32, crc64nvme, gain } = digest?;
            let origin = Origin::Disk(OnDisk { source: f.source, stamp: f.stamp, crc32, crc64nvme, gain });
            Some(ModelFile { path: f.path, mode: f.mode, size: f.stamp.size, sha256, origin })
        })
        .collect();
    Ok(ModelTree { files, hashed: total })
}

/// Index, digest and the moment reading began, of each file; or the first error.
fn read_all(found: &[Found], wanted: &[usize], reporter: &dyn Reporter) -> Result<Vec<(usize, FileDigest, i128)>> {
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get()).clamp(2, THREADS).min(wanted.len());
    let (next, done, stop) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let results = Mutex::new(Ok(Vec::with_capacity(wanted.len())));
    let work = || {
        let mut buffer = vec![0; READ];
        while let Some(&i) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let progress = |bytes: u64| {
                let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
                reporter.report(Event::Bytes { task: Task::Scan, done });
                !stop.load(Ordering::Relaxed)
            };
            let read_at = now_ns();
            let outcome = read_one(&found[i].source, &found[i].stamp, &mut buffer, progress);
            let mut results = results.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            match (&mut *results, outcome) {
                (Ok(list), Ok(Some(digest))) => list.push((i, digest, read_at)),
                (Ok(_), Err(e)) => {
                    *results = Err(e);
                    stop.store(true, Ordering::Relaxed);
                }
                // Stopped by another thread's error, which is the one to tell.
                _ => return,
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    results.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// All digests of a file; `None` when `progress` said to stop.
pub(crate) fn read_one(
    path: &Path,
    stamp: &Stamp,
    buffer: &mut [u8],
    progress: impl Fn(u64) -> bool,
) -> Result<Option<FileDigest>> {
    let unreadable = |e: std::io::Error| {
        Error::io("read", path, &e).next("make it readable for this user, or move it out of the models directory")
    };
    let mut file = File::open(path).map_err(unreadable)?;
    if Stamp::of(&file.metadata().map_err(unreadable)?) != *stamp {
        return Err(changed(path));
    }
    let mut sha256 = Sha256::new();
    let mut crc32 = crc_fast::Digest::new(CrcAlgorithm::Crc32IsoHdlc);
    let mut crc64 = crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme);
    loop {
        let n = match file.read(buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(unreadable(e)),
        };
        sha256.update(&buffer[..n]);
        crc32.update(&buffer[..n]);
        crc64.update(&buffer[..n]);
        if !progress(n as u64) {
            return Ok(None);
        }
    }
    let gain = gain(&file, stamp.size).map_err(unreadable)?;
    if Stamp::of(&file.metadata().map_err(unreadable)?) != *stamp || crc32.get_amount() != stamp.size {
        return Err(changed(path));
    }
    Ok(Some(FileDigest {
        sha256: sha256.finalize().into(),
        // A CRC-32 in a u64.
        crc32: crc32.finalize() as u32,
        crc64nvme: crc64.finalize(),
        gain,
    }))
}

/// The error for a file that is not what it was when the run began.
pub(crate) fn changed(path: &Path) -> Error {
    Error::failed(format!("{} changed while it was read", path.display()))
        .why("something is still writing to the models directory")
        .next("wait until it is finished (a download, a copy), then run the same command again")
}
