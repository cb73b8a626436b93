//! Buffers for parts, used again.
//!
//! A fresh one costs a page fault for every 4 KiB and is filled with zeros before it is filled with bytes. And an allocator
//! keeps what threads gave back, a pile for each thread: together those can hold several times what is in use.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most bytes that are kept for later, in buffers that nobody uses: a part for each of two cores.
const KEPT: usize = 32 << 20;

/// A kept buffer serves a part that fills four fifths of it or more. Small parts in large buffers would hold memory that
/// nobody counts.
const FILLED: (usize, usize) = (4, 5);

/// What nobody uses now.
static FREE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

fn free() -> MutexGuard<'static, Vec<Vec<u8>>> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut free = free();
        let fits = |kept: &Vec<u8>| kept.len() >= len && len >= kept.len() / FILLED.1 * FILLED.0;
        let found = (0..free.len()).filter(|&n| fits(&free[n])).min_by_key(|&n| free[n].len());
        let kept = found.map(|n| free.swap_remove(n));
        if kept.is_none() {
            // Parts have another size by now.
            free.pop();
        }
        drop(free);
        Buffer { bytes: kept.unwrap_or_else(|| vec![0; len]), len }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut free = free();
        if free.iter().map(Vec::len).sum::<usize>() + bytes.len() <= KEPT {
            free.push(bytes);
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
        assert!(free().iter().map(Vec::len).sum::<usize>() <= KEPT);
    }
}
