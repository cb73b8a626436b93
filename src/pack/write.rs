//! The archive into a stream: made on all cores, written in order.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;

use super::Archive;
use crate::error::{Error, Kind, Result};
use crate::transfer::PartSource;

/// More threads make no disk faster, and each holds a part.
const THREADS_MAX: usize = 8;

/// The stream and the number of the part that it waits for.
struct Turn<'a, W> {
    out: &'a mut W,
    next: u32,
    crc: u64,
    failed: Option<Error>,
}

/// Writes the whole archive and returns the stream. At most one part for each thread lives at a time.
///
/// # Errors
/// A file that cannot be read or that changed; a stream that takes no more; [`Kind::Interrupted`] once `given_up` is set.
pub fn write<'a, W: Write + Send>(archive: &Archive, out: &'a mut W, given_up: &AtomicBool) -> Result<&'a mut W> {
    let count = archive.count();
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get).clamp(1, THREADS_MAX);
    let turn = Mutex::new(Turn { out, next: 1, crc: 0, failed: None });
    let (changed, taken, stop) = (Condvar::new(), AtomicU32::new(1), AtomicBool::new(false));
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let number = taken.fetch_add(1, Ordering::Relaxed);
            if number > count {
                break;
            }
            let made = archive.produce(number);
            let mut mine = turn.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            while mine.next != number && mine.failed.is_none() {
                mine = changed.wait(mine).unwrap_or_else(|poisoned| poisoned.into_inner());
            }
            if mine.failed.is_none() && given_up.load(Ordering::Relaxed) {
                mine.failed = Some(Error::new(Kind::Interrupted, "interrupted"));
            }
            if mine.failed.is_none() {
                let written = made.and_then(|part| {
                    let size = part.body.len() as u64;
                    mine.crc = if number == 1 {
                        part.crc64nvme
                    } else {
                        crc_fast::checksum_combine(crc_fast::CrcAlgorithm::Crc64Nvme, mine.crc, part.crc64nvme, size)
                    };
                    mine.out.write_all(&part.body).map_err(|e| Error::io("write", Path::new("the archive"), &e))
                });
                match written {
                    Ok(()) => mine.next = number + 1,
                    Err(e) => mine.failed = Some(e),
                }
            }
            if mine.failed.is_some() {
                stop.store(true, Ordering::Relaxed);
            }
            changed.notify_all();
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let turn = turn.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(e) = turn.failed {
        return Err(e);
    }
    archive.verify(turn.crc)?;
    Ok(turn.out)
}
