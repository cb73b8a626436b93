//! Numbered parts into objects: bounded memory, retries, checksums, and going on where an earlier run stopped. Knows no
//! file format: what the bytes are is the business of the [`PartSource`].
//!
//! Memory: at most [`Options::memory`] bytes of parts live at a time (128 MiB), each counted in whole MiB from before
//! it is made until it is sent. A part has at most as many bytes, which limits an object to 10,000 x 128 MiB = 1.2 TiB,
//! more than any volume SageMaker attaches (512 GB). The rest of the promised 256 MiB is for everything else.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;

pub use crate::cloud::CopySource;
use crate::cloud::PutOptions;
use crate::error::{Error, Result};
use crate::progress::Task;

mod files;
mod first;
mod pace;
mod patience;
mod retry;
mod stop;
mod upload;

pub use files::{FileUpload, upload_files};
pub use first::{First, first};
pub use upload::{Uploaded, upload};

const MIB: u64 = 1 << 20;

/// Most parts of an object in S3.
const PARTS_MAX: u64 = 10_000;

/// Bytes of parts that may live at a time: eight of the smallest, as many as are sent at a time. With more, parts that
/// wait to be sent would pile up whenever S3 is slower than the disk, and be none the sooner there.
const MEMORY: u64 = 128 * MIB;

/// Smallest part: large enough that a request's latency hardly counts, small enough for eight at a time.
const PART_MIN: u64 = 16 * MIB;

/// A router that was restarted drops connections without a word, and the kernel goes on sending for some fifteen minutes.
/// Over a line of 1 MB/s, shared by eight parts, each of them takes two.
const PATIENCE: Duration = Duration::from_secs(120);

/// One part, made.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its bytes.
    pub body: Bytes,
    /// Their CRC-64/NVME.
    pub crc64nvme: u64,
}

/// Something that can be sent in parts, in any order and more than once.
pub trait PartSource: Send + Sync + 'static {
    /// How many parts, at least 1. They are numbered from 1.
    fn count(&self) -> u32;

    /// Bytes of a part.
    fn size(&self, number: u32) -> u64;

    /// Makes a part. Blocking; called from several threads.
    fn produce(&self, number: u32) -> Result<Part>;

    /// Called once every part was made, with the checksum of all of them: an error if that is not what was meant.
    fn verify(&self, crc64nvme: u64) -> Result<()>;

    /// Where in S3 the bytes of a part are already, if they are: it is copied there then, and not made.
    fn copy(&self, _number: u32) -> Option<(CopySource, Range<u64>)> {
        None
    }

    /// Whether some parts are copied.
    fn copies(&self) -> bool {
        false
    }

    /// The same object with no part copied, if this one has copied parts: what is sent when the object they are copied
    /// from is gone or is another one. Blocking, and may take its time.
    fn whole(&self) -> Result<Option<Source>> {
        Ok(None)
    }

    /// Whether these are the only bytes that belong to the key. Otherwise whatever is there is as good.
    fn fixed(&self) -> bool {
        true
    }

    /// After an error of [`PartSource::produce`]: whether the same parts may be made another time, so that what was sent is
    /// kept. Otherwise it is of no use any more.
    fn again(&self) -> bool {
        false
    }

    /// Nobody waits for parts any more: those that are still being made end soon, with an error.
    fn abandon(&self) {}

    /// A small object that must be there before this one is. Asked for once every part was made.
    fn companion(&self) -> Result<Option<Companion>> {
        Ok(None)
    }

    /// The checksum of the whole, if it is known beforehand.
    fn crc64nvme(&self) -> Option<u64> {
        None
    }

    /// Bytes of all parts.
    fn total(&self) -> u64 {
        (1..=self.count()).map(|n| self.size(n)).sum()
    }
}

/// A small object that belongs to a large one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Companion {
    /// Its key.
    pub key: String,
    /// JSON.
    pub body: Bytes,
}

/// How to send.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the progress is reported as.
    pub task: Task,
    /// Content type, metadata, key. `if_absent` is always set.
    pub put: PutOptions,
    /// Bytes of parts that may live at a time.
    pub memory: u64,
    /// Parts under way at a time. More than eight connections gain little on one network interface.
    pub parallel: usize,
    /// Tries of one request, the first included.
    pub attempts: u32,
    /// Wait before the second try; doubled for each further one, up to 20 s, and of that a random part.
    pub back_off: Duration,
    /// What is waited at least for the answer to a request that sends bytes, once one such was answered. Slow lines get
    /// more.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            task: Task::Model,
            put: PutOptions::default(),
            memory: MEMORY,
            parallel: 8,
            attempts: 6,
            back_off: Duration::from_millis(250),
            patience: PATIENCE,
        }
    }
}

/// Bytes per part for an object of `total` bytes: `max(16 MiB, total / 10,000)`, in whole MiB.
///
/// # Errors
/// An object so large that a part would not fit into the memory.
pub fn part_size(total: u64) -> Result<u64> {
    let size = total.div_ceil(PARTS_MAX).max(PART_MIN).next_multiple_of(MIB);
    if size > MEMORY {
        return Err(Error::usage(format!("{} GiB are too much for one object", total >> 30))
            .why(format!("at most {} GiB can be sent in {PARTS_MAX} parts", (MEMORY * PARTS_MAX) >> 30))
            .next("leave out what the workflows do not use (models.files)"));
    }
    Ok(size)
}

/// A CRC-64/NVME as S3 writes it.
pub fn crc64_text(crc: u64) -> String {
    base64::engine::general_purpose::STANDARD.encode(crc.to_be_bytes())
}

/// The CRC-64/NVME that S3 wrote so.
pub(crate) fn crc64_value(text: &str) -> Option<u64> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// Shared by everything that is sent at the same time.
pub type Source = Arc<dyn PartSource>;

#[cfg(test)]
mod tests;
