//! Buffers for parts, used again.
//!
//! A fresh one costs a page fault for every 4 KiB and is filled with zeros before it is filled with bytes. And an allocator
//! keeps what threads gave back, a pile for each thread: those grow for as long as anything is given back to it now and
//! then, so that twenty gigabytes took 100 MiB more than two. What is kept here is counted together with what is in use.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes in use and kept for later, up to which a buffer that is given back is kept: as many as an upload has in use at
/// most, so that none of them goes while it lasts.
const KEPT: usize = 128 << 20;

/// A kept buffer serves a part that fills four fifths of it or more. Small parts in large buffers would hold memory that
/// nobody counts.
const FILLED: (usize, usize) = (4, 5);

/// All buffers.
struct Pool {
    /// What nobody uses now.
    free: Vec<Vec<u8>>,
    /// Bytes of these and of those in use.
    total: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { free: Vec::new(), total: 0 });

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of a part. What is in them at first is anything: the caller writes every one.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
}

impl Buffer {
    /// One of `len` bytes.
    pub(super) fn new(len: usize) -> Self {
        let mut pool = pool();
        let fits = |kept: &Vec<u8>| kept.len() >= len && len >= kept.len() / FILLED.1 * FILLED.0;
        let found = (0..pool.free.len()).filter(|&n| fits(&pool.free[n])).min_by_key(|&n| pool.free[n].len());
        if let Some(n) = found {
            return Buffer { bytes: pool.free.swap_remove(n), len };
        }
        pool.total += len;
        // Parts have another size by now.
        while pool.total > KEPT
            && let Some(other) = pool.free.pop()
        {
            pool.total -= other.len();
        }
        drop(pool);
        Buffer { bytes: vec![0; len], len }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut pool = pool();
        if pool.total <= KEPT {
            pool.free.push(bytes);
        } else {
            pool.total -= bytes.len();
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_ref()
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_has_its_length_whatever_it_was_before() {
        for len in [3_000_000, 2_900_000, 3_000_000, 10, 0, 3_000_001, 40 << 20, 5_000_000] {
            let mut buffer = Buffer::new(len);
            assert_eq!((buffer.len(), buffer.as_ref().len()), (len, len));
            // Held by small parts, a large one would be memory that nobody counts.
            assert!(buffer.bytes.len() <= len + len / 4 + 5, "{} for {len}", buffer.bytes.len());
            buffer.fill(7);
        }
        assert!(pool().free.iter().map(Vec::len).sum::<usize>() <= KEPT);
    }
}
