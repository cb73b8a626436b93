//! How well a file compresses, judged by a little of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use flate2::{Compress, Compression, FlushCompress};

/// Bytes of a sample.
const WINDOW: u64 = 64 << 10;

/// Samples of a file: its beginning, its middle and its end. A smaller file is one sample.
const WINDOWS: u64 = 3;

/// The quickest level that makes codes of its own for each block, without which weights do not shrink at all; the gain
/// is that of the slower ones to within a percent (see `pack::choice`).
const LEVEL: u32 = 2;

/// Whole percent that samples of a file of `size` bytes shrink by when they are deflated. It depends on the bytes alone,
/// and the choice of a codec on it, so it is part of what the identity of an artifact is made from.
///
/// # Errors
/// Of reading; also if the file is shorter than `size`.
pub fn gain(file: &File, size: u64) -> io::Result<u8> {
    let (windows, len) = if size <= WINDOWS * WINDOW {
        (vec![0], size)
    } else {
        // The middle one on a whole KiB, as everything else in such a file is on whole elements.
        let middle = ((size - WINDOW) / 2) & !1023;
        (vec![0, middle, size - WINDOW], WINDOW)
    };
    let (mut plain, mut deflated) = (0, 0);
    for at in windows {
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, at)?;
        plain += bytes.len();
        deflated += shrunk(&bytes)?;
    }
    let saved = plain.saturating_sub(deflated);
    // At most 100.
    Ok((100 * saved / plain.max(1)) as u8)
}

/// Bytes that are left of `bytes`.
fn shrunk(bytes: &[u8]) -> io::Result<usize> {
    let mut compress = Compress::new(Compression::new(LEVEL), false);
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 4 + 1024);
    compress.compress_vec(bytes, &mut out, FlushCompress::Finish).map_err(io::Error::other)?;
    Ok(out.len())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gain_of(bytes: &[u8]) -> u8 {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        gain(&file, bytes.len() as u64).unwrap()
    }

    /// Numbers that do not compress.
    fn noise(len: usize) -> Vec<u8> {
        let mut x = 88_172_645_463_325_252_u64;
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            out.extend(x.to_le_bytes());
        }
        out.truncate(len);
        out
    }

    #[test]
    fn text_gains_noise_does_not_and_nothing_is_no_error() {
        let text: String = (0..9000).map(|n| format!("layer.{n}.weight = {}\n", n * n)).collect();
        assert!(gain_of(text.as_bytes()) >= 50, "{}", gain_of(text.as_bytes()));
        assert_eq!(gain_of(&noise(1_000_000)), 0);
        assert_eq!(gain_of(&noise(3)), 0);
        assert_eq!(gain_of(b""), 0);
    }

    #[test]
    fn beginning_middle_and_end_count() {
        let window = WINDOW as usize;
        let mut bytes = noise(10 * window);
        bytes[..window].fill(0);
        assert_eq!(gain_of(&bytes), 33);
        bytes[9 * window..].fill(0);
        assert_eq!(gain_of(&bytes), 66);
        bytes[4 * window..6 * window].fill(0);
        assert_eq!(gain_of(&bytes), 99);
        // What is between does not.
        bytes[2 * window..4 * window].fill(0);
        assert_eq!(gain_of(&bytes), 99);
    }

    #[test]
    fn a_file_that_is_shorter_than_it_was_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        assert!(gain(&file, 10).is_err());
    }
}
