//! The PNGs that ComfyUI writes, quickly: 8 bits, RGB or RGBA, not interlaced, with texts and nothing else.
//!
//! For all others, and for whatever is not plainly right, `None`: then [`super::decode`] asks the png crate, whose word on
//! damage, limits and rare kinds so stays the only one. What is decoded here was compared in full: the checksum of each
//! chunk, and that of the pixels, which png does not look at by default, but which vouches for [`super::deflate`].

use super::{LONGEST_SIDE, PNG, Pixels, deflate, unfilter};
use crate::buffers::Buffer;

/// Longest text that is passed over, in bytes.
const LONGEST_TEXT: usize = 1024 * 1024;
/// Bytes of a chunk that are checked and passed on at a time, while they are in the nearest cache.
const PIECE: usize = 16 * 1024;

/// Decodes within a number of bytes for the pixels.
pub(super) fn png(bytes: &[u8], memory: usize) -> Option<Pixels> {
    let (header, mut rest) = chunk(bytes.strip_prefix(PNG)?)?;
    let (b"IHDR", &[w0, w1, w2, w3, h0, h1, h2, h3, 8, color, 0, 0, 0]) = (header.kind, header.data) else {
        return None;
    };
    header.sound()?;
    let [width, height] = [[w0, w1, w2, w3], [h0, h1, h2, h3]].map(u32::from_be_bytes);
    let channels: usize = match color {
        2 => 3,
        6 => 4,
        _ => return None,
    };
    // No more than 2^28 pixels.
    if width == 0 || height == 0 || width.max(height) > LONGEST_SIDE {
        return None;
    }
    let stride = width as usize * channels;
    let size = stride * height as usize;
    if size > memory {
        return None;
    }
    loop {
        let (next, after) = chunk(rest)?;
        match next.kind {
            b"IDAT" => break,
            b"tEXt" | b"zTXt" | b"iTXt" if next.data.len() <= LONGEST_TEXT => next.sound()?,
            _ => return None,
        }
        rest = after;
    }
    let mut rows = Rows { samples: Buffer::of(size), done: 0, stride, channels };
    let mut data = Data { rest, chunk: Chunk::NONE, sum: crc32fast::Hasher::new() };
    deflate::inflate(|room| data.read(room), 1 + stride, |bytes| rows.take(bytes))?;
    (rows.done == size).then_some(Pixels { width, height, alpha: channels == 4, samples: rows.samples })
}

/// A piece of a PNG.
#[derive(Clone, Copy)]
struct Chunk<'a> {
    kind: &'a [u8; 4],
    data: &'a [u8],
    sum: u32,
}

/// The first chunk, whose checksum is yet to be compared, and what is behind it.
fn chunk(bytes: &[u8]) -> Option<(Chunk<'_>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (kind, rest) = rest.split_first_chunk()?;
    let (data, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    let (sum, rest) = rest.split_first_chunk()?;
    Some((Chunk { kind, data, sum: u32::from_be_bytes(*sum) }, rest))
}

impl Chunk<'_> {
    const NONE: Chunk<'static> = Chunk { kind: b"IDAT", data: &[], sum: 0 };

    fn sound(&self) -> Option<()> {
        let mut sum = crc32fast::Hasher::new();
        sum.update(self.kind);
        sum.update(self.data);
        (sum.finalize() == self.sum).then_some(())
    }
}

/// The data of the picture, which may be in many chunks.
struct Data<'a> {
    rest: &'a [u8],
    chunk: Chunk<'a>,
    /// Of what was read of the chunk.
    sum: crc32fast::Hasher,
}

impl Data<'_> {
    /// Reads some; 0 when the next chunk is another, which must be there.
    fn read(&mut self, room: &mut [u8]) -> Option<usize> {
        while self.chunk.data.is_empty() {
            let (next, after) = chunk(self.rest)?;
            if next.kind != b"IDAT" {
                return Some(0);
            }
            (self.chunk, self.rest) = (next, after);
            self.sum = crc32fast::Hasher::new();
            self.sum.update(next.kind);
            self.compare()?;
        }
        let (piece, left) = self.chunk.data.split_at(room.len().min(PIECE).min(self.chunk.data.len()));
        room[..piece.len()].copy_from_slice(piece);
        self.sum.update(piece);
        self.chunk.data = left;
        self.compare()?;
        Some(piece.len())
    }

    /// At the end of a chunk.
    fn compare(&self) -> Option<()> {
        (!self.chunk.data.is_empty() || self.sum.clone().finalize() == self.chunk.sum).then_some(())
    }
}

/// Where the pixels go.
struct Rows {
    /// Room for all.
    samples: Buffer,
    /// How many are there.
    done: usize,
    stride: usize,
    channels: usize,
}

impl Rows {
    /// Takes whole rows, each with its filter in front; how many bytes those are. None when there are more than rows.
    fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        let stride = self.stride;
        let mut rows = bytes.chunks_exact(1 + stride);
        for row in &mut rows {
            let (filter, row) = row.split_first()?;
            let done = self.done;
            let (before, rest) = self.samples.split_at_mut(done);
            let out = rest.get_mut(..stride)?;
            let none;
            let above = match done.checked_sub(stride) {
                Some(from) => &before[from..],
                None => {
                    none = vec![0; stride];
                    &none
                }
            };
            match self.channels {
                3 => unfilter::row::<3>(*filter, row, above, out)?,
                _ => unfilter::row::<4>(*filter, row, above, out)?,
            }
            self.done += stride;
        }
        let left = rows.remainder().len();
        // What is left must become a row.
        (left == 0 || self.done < self.samples.len()).then_some(bytes.len() - left)
    }
}

#[cfg(test)]
mod tests;
