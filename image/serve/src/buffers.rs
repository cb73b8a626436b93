//! Buffers for pictures, used again.
//!
//! An allocator gives large ones back to the kernel, which was measured to take as long as decoding a third of a photo:
//! each page has to be fetched and cleared anew. Told to keep them it mixes them with small things that live long, and
//! grows. So they are kept here, within a limit, each a mapping of its own.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Most bytes that are kept for later in buffers that nobody uses: two photos of 1024x1024, as PNG, pixels and JPEG.
const KEPT: usize = 16 * 1024 * 1024;
/// Smaller ones are left to the allocator.
const LARGE: usize = 256 * 1024;
/// Large ones are multiples of this, so that the next picture, which is a little larger, fits.
const STEP: usize = 256 * 1024;
/// A kept buffer serves what fills this share of it or more; what is not filled is memory that does nothing.
const FILLED: usize = 3;

/// What nobody uses now, the longest unused first.
static FREE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

fn free() -> MutexGuard<'static, Vec<Vec<u8>>> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    /// All of it was written once, by this picture or another.
    room: Vec<u8>,
    len: usize,
}

impl Buffer {
    /// An empty one, with room for so many bytes.
    pub(crate) fn with_room(bytes: usize) -> Self {
        if bytes < LARGE {
            return Buffer { room: vec![0; bytes], len: 0 };
        }
        let mut free = free();
        let fits = |kept: &Vec<u8>| kept.len() >= bytes && kept.len() / FILLED <= bytes;
        let found = (0..free.len()).filter(|&at| fits(&free[at])).min_by_key(|&at| free[at].len());
        let kept = found.map(|at| free.remove(at));
        drop(free);
        Buffer { room: kept.unwrap_or_else(|| vec![0; bytes.next_multiple_of(STEP)]), len: 0 }
    }

    /// One of so many bytes, of which each may have any value: they are the caller's to write.
    pub(crate) fn of(bytes: usize) -> Self {
        let mut buffer = Buffer::with_room(bytes);
        buffer.len = bytes;
        buffer
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    pub(crate) fn push(&mut self, byte: u8) {
        self.extend_from_slice(&[byte]);
    }

    pub(crate) fn extend_from_slice(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if end > self.room.len() {
            let mut larger = Buffer::with_room(end.max(2 * self.len));
            larger.room[..self.len].copy_from_slice(self);
            larger.len = self.len;
            *self = larger;
        }
        self.room[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let room = std::mem::take(&mut self.room);
        if room.len() < LARGE || room.len() > KEPT {
            return;
        }
        let mut free = free();
        free.push(room);
        while free.iter().map(Vec::len).sum::<usize>() > KEPT {
            free.remove(0);
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.room[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.room[..self.len]
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Buffer> for Bytes {
    fn from(buffer: Buffer) -> Bytes {
        Bytes::from_owner(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_hold_what_was_written_whatever_they_held_before() {
        for (round, len) in
            [3_000_000, 2_900_000, 10, 0, 3_100_001, 400_000, 20 << 20, 3_000_000].into_iter().enumerate()
        {
            let mut buffer = Buffer::of(len);
            assert_eq!(buffer.len(), len);
            buffer.fill(round as u8);
            let mut grown = Buffer::with_room(len / 2);
            for piece in buffer.chunks(100_000) {
                grown.extend_from_slice(piece);
            }
            grown.push(99);
            assert!(grown[..len] == buffer[..] && grown[len..] == [99]);
            grown.truncate(len);
            assert!(grown.room.len() <= 3 * len.max(2 * LARGE), "{} for {len}", grown.room.len());
            assert!(Bytes::from(grown) == buffer[..]);
        }
        assert!(free().iter().map(Vec::len).sum::<usize>() <= KEPT);
    }
}
