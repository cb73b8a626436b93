//! Pixels to JPEG, as Pillow's `save(f, "JPEG", quality=q, optimize=True)` makes it: baseline, one interleaved scan, the
//! tables of the standard's annex K on the IJG's scale of quality, 4:2:0 with averaged chroma, Huffman codes made for
//! the picture.
//!
//! The project's own, because of those measured (the table in [`super::decode`]) none that builds with cargo and gcc
//! alone is as fast, and jpeg-encoder's optimized files are not read rightly by every decoder. turbojpeg is about as fast,
//! but only when everybody who builds has cmake and nasm, and with codes that are not optimized, which make that photo
//! 3.2 % larger.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod huffman;
mod scan;
mod unit;

use huffman::Code;
use scan::Picture;
use unit::Steps;

use super::{PictureError, Pixels};
use crate::buffers::Buffer;

/// The standard's example tables for luma and chroma (annex K.1), by row.
const TABLES: [[u8; 64]; 2] = [
    [
        16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29,
        51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121,
        120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
    ],
    [
        17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99,
        99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
        99, 99, 99, 99, 99, 99, 99, 99,
    ],
];

/// The order in which coefficients are written: the place of each, by row.
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// The tables at a quality from 0 to 100, where 0 means 1, on the IJG's scale.
fn quantization(quality: u8) -> [[u8; 64]; 2] {
    let quality = u32::from(quality.clamp(1, 100));
    let percent = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
    TABLES.map(|table| table.map(|step| ((u32::from(step) * percent + 50) / 100).clamp(1, 255) as u8))
}

/// Encodes pixels without alpha.
pub(super) fn encode(pixels: &Pixels, quality: u8) -> Result<Buffer, PictureError> {
    let Pixels { width, height, alpha, ref samples } = *pixels;
    let too_large = || PictureError::TooLarge { width, height, limit: "65535x65535".to_owned() };
    let columns = u16::try_from(width).map_err(|_| too_large())?;
    let rows = u16::try_from(height).map_err(|_| too_large())?;
    let size = usize::from(columns) * usize::from(rows) * 3;
    if alpha || size == 0 || samples.len() != size {
        let why = "the pixels do not fill the picture".to_owned();
        return Err(PictureError::Encoder { to: super::Format::Jpeg, why });
    }
    let tables = quantization(quality);
    let head = |codes: &[Code; 4]| head(columns, rows, &tables, codes);
    let picture = Picture { samples, width: columns.into(), height: rows.into() };
    let mut jpeg = coded(picture, &Steps::new(&tables), head);
    jpeg.extend_from_slice(&[0xFF, 0xD9]);
    Ok(jpeg)
}

/// By the fastest path that this processor has; all have the same result.
fn coded(picture: Picture<'_>, steps: &Steps, head: impl FnOnce(&[Code; 4]) -> Vec<u8>) -> Buffer {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        #[allow(unsafe_code, reason = "a function for certain processors can be called no other way")]
        // SAFETY: the processor has what the function is built for.
        return unsafe { coded_with_avx2(picture, steps, head) };
    }
    coded_anywhere(picture, steps, head)
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
fn coded_with_avx2(picture: Picture<'_>, steps: &Steps, head: impl FnOnce(&[Code; 4]) -> Vec<u8>) -> Buffer {
    let divisors = avx2::Divisors::new(steps);
    scan::code(picture, |pixels, stride, unit| avx2::fill(pixels, stride, &divisors, unit), head)
}

fn coded_anywhere(picture: Picture<'_>, steps: &Steps, head: impl FnOnce(&[Code; 4]) -> Vec<u8>) -> Buffer {
    scan::code(picture, |pixels, stride, unit| unit::fill(pixels, stride, steps, unit), head)
}

/// Everything in front of the coded data.
fn head(columns: u16, rows: u16, tables: &[[u8; 64]; 2], codes: &[Code; 4]) -> Vec<u8> {
    let mut bytes = vec![0xFF, 0xD8];
    let jpeg = &mut bytes;
    // JFIF 1.1, square pixels, no thumbnail.
    segment(jpeg, 0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0");
    for (id, table) in (0u8..).zip(tables) {
        let mut data = vec![id];
        data.extend(ZIGZAG.iter().map(|&place| table[usize::from(place)]));
        segment(jpeg, 0xDB, &data);
    }
    let ([high, low], [wide, narrow]) = (rows.to_be_bytes(), columns.to_be_bytes());
    // Three components: id, sampling (luma twice as often both ways), table.
    segment(jpeg, 0xC0, &[8, high, low, wide, narrow, 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1]);
    for (id, code) in [0x00, 0x10, 0x01, 0x11].into_iter().zip(codes) {
        let mut data = vec![id];
        data.extend_from_slice(&code.lengths);
        data.extend_from_slice(&code.values);
        segment(jpeg, 0xC4, &data);
    }
    segment(jpeg, 0xDA, &[3, 1, 0x00, 2, 0x11, 3, 0x11, 0, 63, 0]);
    bytes
}

fn segment(jpeg: &mut Vec<u8>, marker: u8, data: &[u8]) {
    // None is longer than a Huffman table's 19 + 256 bytes.
    let length = (data.len() + 2) as u16;
    jpeg.extend_from_slice(&[0xFF, marker]);
    jpeg.extend_from_slice(&length.to_be_bytes());
    jpeg.extend_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_of_quality_is_the_ijgs() {
        assert_eq!(quantization(50), TABLES);
        // As Pillow writes them.
        assert_eq!(quantization(90)[0][..8], [3, 2, 2, 3, 5, 8, 10, 12]);
        assert_eq!(quantization(90)[1][..8], [3, 4, 5, 9, 20, 20, 20, 20]);
        assert_eq!(quantization(75)[0][..8], [8, 6, 5, 8, 12, 20, 26, 31]);
        assert_eq!(quantization(95)[0][..8], [2, 1, 1, 2, 2, 4, 5, 6]);
        assert_eq!(quantization(0), quantization(1));
        assert_eq!(quantization(1), [[255; 64]; 2]);
        assert_ne!(quantization(2), quantization(1));
        assert_eq!(quantization(100), [[1; 64]; 2]);
    }

    /// Reproducible numbers.
    fn random(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed | 1;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        }
    }

    /// By the fastest path that this processor has, and by the one for all.
    fn by_both_paths(samples: &[u8], width: usize, height: usize, quality: u8) -> [Buffer; 2] {
        let steps = Steps::new(&quantization(quality));
        let picture = Picture { samples, width, height };
        let head = |codes: &[Code; 4]| head(1, 1, &[[1; 64]; 2], codes);
        [coded(picture, &steps, head), coded_anywhere(picture, &steps, head)]
    }

    proptest::proptest! {
        #[test]
        fn both_paths_have_the_same_result(seed: u64, quality in 0u8..=100, width in 1usize..70, height in 1usize..70, kind in 0u8..4) {
            let mut random = random(seed);
            let samples = (0..width * height * 3).map(|at| {
                let state = random();
                match kind {
                    0 => state as u8,
                    1 => if state & 1 == 0 { 0 } else { 255 },
                    // Large saturated areas, and soft ones.
                    2 => if (at / 24) as u64 & seed == 0 { 255 } else { 0 },
                    _ => (at / 7) as u8 / 2 + (state & 15) as u8,
                }
            }).collect::<Vec<_>>();
            let [fast, portable] = by_both_paths(&samples, width, height, quality);
            proptest::prop_assert!(fast[..] == portable[..]);
        }
    }

    #[test]
    fn both_paths_have_the_same_result_from_a_sample() {
        // Neither side a multiple of 16, and noise enough for a sample.
        let (width, height) = (523, 487);
        let mut random = random(7);
        let samples = (0..width * height * 3).map(|_| random() as u8).collect::<Vec<_>>();
        let [fast, portable] = by_both_paths(&samples, width, height, 90);
        assert!(super::super::samples::has_codes_from_a_sample(&portable));
        assert!(fast[..] == portable[..]);
    }

    #[test]
    fn the_zigzag_visits_every_place() {
        let mut places = ZIGZAG;
        places.sort_unstable();
        assert!(places.iter().copied().eq(0..64));
    }
}
