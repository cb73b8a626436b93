use png::{BitDepth, ColorType, Compression, DeflateCompression, Filter};
use proptest::prelude::*;

use super::*;
use crate::picture::samples::{chunk as made, png as encoded, png_with, soft, with_chunks};
use crate::picture::{MEMORY, decode};

const FILTERS: [Filter; 6] = [Filter::NoFilter, Filter::Sub, Filter::Up, Filter::Avg, Filter::Paeth, Filter::Adaptive];

/// Rows of some content: 0 noise, 1 soft with grain, 2 a few values, 3 flat.
fn rows(length: usize, kind: u8, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let sample = |at: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match kind {
            0 => state as u8,
            1 => (at / 40) as u8 / 2 + (state % 29 + state / 64 % 29) as u8,
            2 => (state % 3 * 100) as u8,
            _ => 77,
        }
    };
    (0..length).map(sample).collect()
}

fn any_png() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let size = prop_oneof![(1u32..40, 1u32..40), (100u32..200, 60u32..150)];
    (size, any::<bool>(), 0u8..4, any::<u64>(), 0..FILTERS.len(), 0u8..11).prop_map(
        |((width, height), alpha, kind, seed, filter, level)| {
            let (color, channels) = if alpha { (ColorType::Rgba, 4) } else { (ColorType::Rgb, 3) };
            let rows = rows((width * height * channels) as usize, kind, seed);
            let file = png_with(width, height, color, BitDepth::Eight, &rows, |encoder| {
                match level {
                    10 => encoder.set_compression(Compression::Fastest),
                    level => encoder.set_deflate_compression(DeflateCompression::Level(level)),
                }
                encoder.set_filter(FILTERS[filter]);
            });
            (file, rows)
        },
    )
}

/// The same data in chunks of a length.
fn cut_up(file: &[u8], length: usize) -> Vec<u8> {
    let (mut out, mut rest) = (PNG.to_vec(), &file[PNG.len()..]);
    while let Some((chunk, after)) = chunk(rest) {
        match chunk.kind {
            b"IDAT" => chunk.data.chunks(length).for_each(|data| out.extend(made(b"IDAT", data))),
            kind => out.extend(made(kind, chunk.data)),
        }
        rest = after;
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn all_filters_and_levels_have_the_pixels_of_the_png_crate((file, rows) in any_png(), cut in 1usize..5000) {
        let ours = png(&file, MEMORY).expect("plain");
        prop_assert!(ours == decode::any(&file, MEMORY).expect("sound"));
        prop_assert!(ours.samples[..] == rows);
        let cut_up = cut_up(&file, cut);
        prop_assert!(png(&cut_up, MEMORY).is_some_and(|pixels| pixels.samples[..] == rows));
    }

    /// As strict as the png crate: what it refuses is refused, and what is taken has the same pixels.
    #[test]
    fn damage_is_found(
        (file, _) in any_png(),
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        mend: bool,
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = file.clone();
        for (place, value) in &places {
            bytes[place.index(file.len())] = *value;
        }
        if mend {
            // So that the damage is not found by the checksums of chunks.
            let mut mended = PNG.to_vec();
            let mut rest = &bytes[PNG.len()..];
            while let Some((chunk, after)) = chunk(rest) {
                mended.extend(made(chunk.kind, chunk.data));
                rest = after;
            }
            bytes = mended;
        }
        if let Some(pixels) = png(&bytes, MEMORY) {
            let theirs = decode::any(&bytes, MEMORY);
            prop_assert!(theirs.is_ok_and(|theirs| theirs == pixels));
        }
        // Without the last chunk, of 12 bytes, nothing says that there is no more data.
        let cut = cut.index(file.len() - 12);
        prop_assert!(png(&file[..cut], MEMORY).is_none());
    }
}

#[test]
fn every_bit_of_a_picture_counts() {
    let file = encoded(24, 9, ColorType::Rgb, BitDepth::Eight, &rows(24 * 9 * 3, 1, 5));
    let whole = png(&file, MEMORY).expect("plain");
    for bit in 0..8 * (file.len() - 12) {
        let mut bytes = file.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(png(&bytes, MEMORY).is_none(), "bit {bit}");
    }
    assert_eq!(whole, decode::any(&file, MEMORY).expect("sound"));
}

#[test]
fn other_kinds_are_somebody_elses() {
    let is_plain = |file: &[u8]| png(file, MEMORY).is_some();
    let rgb = encoded(8, 8, ColorType::Rgb, BitDepth::Eight, &soft(8, 8, 3));
    assert!(is_plain(&rgb));
    assert!(is_plain(&with_chunks(&rgb, &[made(b"tEXt", b"prompt\0{}"), made(b"iTXt", b"x")])));
    for (color, depth, length) in [
        (ColorType::Grayscale, BitDepth::Eight, 64),
        (ColorType::GrayscaleAlpha, BitDepth::Eight, 128),
        (ColorType::Grayscale, BitDepth::One, 8),
        (ColorType::Rgb, BitDepth::Sixteen, 384),
    ] {
        assert!(!is_plain(&encoded(8, 8, color, depth, &vec![1; length])), "{color:?} {depth:?}");
    }
    // A colour that is transparent, an animation, a profile, a text that is too long.
    for (kind, length) in [(b"tRNS", 6), (b"acTL", 8), (b"iCCP", 9), (b"tEXt", LONGEST_TEXT + 1)] {
        assert!(!is_plain(&with_chunks(&rgb, &[made(kind, &vec![0; length])])), "{kind:?}");
    }
    // Interlaced, of unknown methods, of no size, too large.
    let header = |header: [u8; 13]| [PNG, &made(b"IHDR", &header), &rgb[33..]].concat();
    assert!(is_plain(&header([0, 0, 0, 8, 0, 0, 0, 8, 8, 2, 0, 0, 0])));
    for other in [
        [0, 0, 0, 8, 0, 0, 0, 8, 8, 2, 0, 0, 1],
        [0, 0, 0, 8, 0, 0, 0, 8, 8, 2, 0, 1, 0],
        [0, 0, 0, 8, 0, 0, 0, 8, 8, 2, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 8, 8, 2, 0, 0, 0],
        [0, 0, 0, 8, 0, 0, 0, 0, 8, 2, 0, 0, 0],
        [0, 0, 0, 8, 0, 0, 0, 7, 8, 2, 0, 0, 0],
        [0, 0, 0, 8, 0, 0, 0, 9, 8, 2, 0, 0, 0],
        [0, 0, 0x40, 1, 0, 0, 0, 8, 8, 2, 0, 0, 0],
        [255, 255, 255, 255, 255, 255, 255, 255, 8, 6, 0, 0, 0],
    ] {
        assert!(!is_plain(&header(other)), "{other:?}");
    }
    assert!(png(&rgb, 8 * 8 * 3).is_some() && png(&rgb, 8 * 8 * 3 - 1).is_none());
}
