//! Deflated contents: pieces that depend on nothing before them, so that any of them can be made alone.
//!
//! A piece is raw deflate (RFC 1951) with an empty window at its start, ended by an empty stored block (zlib's sync
//! flush), which fills up to a whole byte. Pieces in a row are one stretch of blocks as every reader of gzip knows them.
//! The bytes are zlib-rs's: the same on every processor, for its vector code only compares and slides faster than the
//! plain code, and finds the same. Another version of it may choose other matches; a test pins the bytes, see there.

use flate2::{Compress, Compression, FlushCompress, Status};

use super::gzip;
use crate::error::{Error, Result};

/// Plain bytes of a piece: 1 MiB in whole stored blocks. A piece that does not shrink is stored, so no piece is longer than
/// the same bytes in a stored segment.
pub(super) const PIECE: u64 = 16 * gzip::STORED;

/// Plain bytes for one byte of deflate, at most: a match of 258 bytes in two bits.
pub(super) const RATIO_MAX: u64 = 1032;

/// One piece of at most [`PIECE`] bytes.
///
/// # Errors
/// None that bytes can cause.
pub(super) fn piece(plain: &[u8], level: u32) -> Result<Vec<u8>> {
    let mut compress = Compress::new(Compression::new(level), false);
    // Room for all of it, so that nothing depends on how the room is handed out: fixed codes have nine bits at most.
    let mut out = Vec::with_capacity(plain.len() + plain.len() / 8 + 1024);
    let status = compress
        .compress_vec(plain, &mut out, FlushCompress::Sync)
        .map_err(|e| Error::failed("cannot compress").why(e.to_string()))?;
    if status != Status::Ok || compress.total_in() != plain.len() as u64 || out.len() == out.capacity() {
        return Err(Error::failed("cannot compress").why("the compressor did not take all"));
    }
    Ok(if out.len() as u64 >= gzip::framed(plain.len() as u64) { gzip::stored(plain) } else { out })
}

/// The numbers of pieces that `plain` bytes have.
pub(super) fn count(plain: u64) -> u64 {
    plain.div_ceil(PIECE)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn text(len: usize) -> Vec<u8> {
        (0..).flat_map(|n: u64| format!("layer.{n}.weight = {}\n", n * n).into_bytes()).take(len).collect()
    }

    #[test]
    fn pieces_in_a_row_are_one_stream() {
        let plain = text(PIECE as usize * 2 + 12_345);
        for level in [2, 6, 9] {
            let mut stream = Vec::new();
            for plain in plain.chunks(PIECE as usize) {
                let piece = piece(plain, level).unwrap();
                assert!(piece.len() * 2 < plain.len() && piece.ends_with(&[0, 0, 0xff, 0xff]));
                stream.extend(piece);
            }
            stream.extend([1, 0, 0, 0xff, 0xff]);
            let mut back = Vec::new();
            flate2::read::DeflateDecoder::new(&stream[..]).read_to_end(&mut back).unwrap();
            assert!(back == plain);
        }
    }

    #[test]
    fn what_does_not_shrink_is_as_long_as_stored() {
        let mut x = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        })
        .take(PIECE as usize)
        .collect();
        for len in [1, 512, 65_535, 65_536, PIECE as usize] {
            for level in [2, 6, 9] {
                assert!(piece(&noise[..len], level).unwrap() == gzip::stored(&noise[..len]));
            }
        }
    }

    #[test]
    fn zeros_shrink_as_far_as_the_bound_says() {
        let piece = piece(&vec![0; PIECE as usize], 9).unwrap();
        assert!(piece.len() as u64 * RATIO_MAX >= PIECE && (piece.len() as u64) < PIECE / 500, "{}", piece.len());
    }
}
