use image::{DynamicImage, ImageFormat};
use png::{BitDepth, ColorType};
use proptest::prelude::*;

use super::samples::{chunk, has_codes_from_a_sample, png, png_with, soft, with_chunks};
use super::*;

fn decoded(bytes: &[u8], format: ImageFormat) -> DynamicImage {
    image::load_from_memory_with_format(bytes, format).expect("decodes")
}

fn to(png: &[u8], format: Format, quality: u8) -> Vec<u8> {
    convert(png, format, Options { quality, ..Options::default() }).expect("converts").to_vec()
}

/// The decoded JPEG's RGB samples.
fn jpeg_samples(png: &[u8], quality: u8) -> Vec<u8> {
    decoded(&to(png, Format::Jpeg, quality), ImageFormat::Jpeg).into_rgb8().into_raw()
}

/// The mean of the differences.
fn distance(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
}

#[test]
fn every_kind_of_png_becomes_the_same_jpeg_as_its_pixels() {
    // One grey picture of 16x16 in all depths; depth by depth its samples spread over the range.
    for (depth, bits) in [(BitDepth::One, 1), (BitDepth::Two, 2), (BitDepth::Four, 4), (BitDepth::Eight, 8)] {
        let most = (1u32 << bits) - 1;
        let samples = (0..256u32).map(|at| (at / 16 + at % 16) * most / 30).collect::<Vec<_>>();
        let packed = samples
            .chunks(8 / bits)
            .map(|chunk| chunk.iter().fold(0, |byte, sample| byte << bits | sample) as u8)
            .collect::<Vec<_>>();
        let expected = samples.iter().flat_map(|sample| [(sample * 255 / most) as u8; 3]).collect::<Vec<_>>();
        let grey = png(16, 16, ColorType::Grayscale, depth, &packed);
        let palette = (0..=most).flat_map(|index| [(index * 255 / most) as u8; 3]).collect::<Vec<_>>();
        let indexed = png_with(16, 16, ColorType::Indexed, depth, &packed, |encoder| encoder.set_palette(palette));
        for png in [grey, indexed] {
            assert_eq!(decode::png(&png, MEMORY).expect("decodes").samples[..], expected, "{bits}");
            assert!(distance(&jpeg_samples(&png, 95), &expected) < 3.0, "{bits}");
        }
    }
    for (color, channels) in [(ColorType::Grayscale, 1), (ColorType::Rgb, 3)] {
        let eight = soft(16, 16, channels);
        let sixteen = eight.iter().flat_map(|sample| [*sample, 77]).collect::<Vec<_>>();
        assert_eq!(
            to(&png(16, 16, color, BitDepth::Sixteen, &sixteen), Format::Jpeg, 90),
            to(&png(16, 16, color, BitDepth::Eight, &eight), Format::Jpeg, 90)
        );
    }
}

#[test]
fn transparency_is_laid_on_white() {
    let rows = [[10, 20, 30, 0], [10, 20, 30, 255], [0, 0, 0, 128], [100, 200, 50, 51]].concat();
    let pixels = decode::png(&png(4, 1, ColorType::Rgba, BitDepth::Eight, &rows), MEMORY).expect("decodes").on_white();
    assert_eq!(pixels.samples[..], [[255, 255, 255], [10, 20, 30], [127, 127, 127], [224, 244, 214]].concat());
    assert!(!pixels.alpha);
    let grey = png(2, 1, ColorType::GrayscaleAlpha, BitDepth::Eight, &[9, 255, 9, 0]);
    assert_eq!(decode::png(&grey, MEMORY).expect("decodes").on_white().samples[..], [9, 9, 9, 255, 255, 255]);
    // By the palette, and by a colour that is said to be transparent.
    let palette = png_with(2, 1, ColorType::Indexed, BitDepth::Eight, &[0, 1], |encoder| {
        encoder.set_palette(vec![1, 2, 3, 4, 5, 6]);
        encoder.set_trns(vec![0]);
    });
    assert_eq!(decode::png(&palette, MEMORY).expect("decodes").on_white().samples[..], [255, 255, 255, 4, 5, 6]);
    let key = png_with(2, 1, ColorType::Rgb, BitDepth::Eight, &[1, 2, 3, 4, 5, 6], |encoder| {
        encoder.set_trns(vec![0, 1, 0, 2, 0, 3]);
    });
    assert_eq!(decode::png(&key, MEMORY).expect("decodes").on_white().samples[..], [255, 255, 255, 4, 5, 6]);
}

#[test]
fn webp_keeps_transparency() {
    let rows = [[200, 20, 30, 0], [200, 20, 30, 255]].concat().repeat(128);
    let webp = to(&png(16, 16, ColorType::Rgba, BitDepth::Eight, &rows), Format::Webp, 90);
    let back = decoded(&webp, ImageFormat::WebP).into_rgba8();
    assert_eq!((back.width(), back.height()), (16, 16));
    assert!(back.pixels().enumerate().all(|(at, pixel)| pixel.0[3] == if at % 2 == 0 { 0 } else { 255 }));
    let opaque = soft(40, 30, 3);
    let webp = to(&png(40, 30, ColorType::Rgb, BitDepth::Eight, &opaque), Format::Webp, 90);
    assert!(distance(&decoded(&webp, ImageFormat::WebP).into_rgb8().into_raw(), &opaque) < 6.0);
}

#[test]
fn quality_0_is_1_and_less_is_smaller() {
    let png = png(64, 64, ColorType::Rgb, BitDepth::Eight, &soft(64, 64, 3));
    assert_eq!(to(&png, Format::Jpeg, 0), to(&png, Format::Jpeg, 1));
    let sizes = [0, 20, 50, 75, 90, 95].map(|quality| to(&png, Format::Jpeg, quality).len());
    assert!(sizes.is_sorted() && sizes[0] < sizes[5], "{sizes:?}");
}

#[test]
fn an_animated_png_is_not_converted() {
    let still = png(4, 4, ColorType::Rgb, BitDepth::Eight, &soft(4, 4, 3));
    let animated = with_chunks(&still, &[chunk(b"acTL", &[0, 0, 0, 1, 0, 0, 0, 0])]);
    assert!(is_still_png(&still) && is_png(&still));
    assert!(!is_still_png(&animated) && is_png(&animated));
    assert!(!is_png(b"GIF89a") && !is_still_png(b"GIF89a"));
    let error = convert(&animated, Format::Webp, Options::default()).expect_err("animated");
    assert!(error.to_string().contains("animated, which image/webp cannot be"), "{error}");
}

#[test]
fn what_is_no_sound_png_is_an_error() {
    let png = png(64, 64, ColorType::Rgb, BitDepth::Eight, &soft(64, 64, 3));
    let failure = |bytes: &[u8]| convert(bytes, Format::Jpeg, Options::default()).expect_err("fails").to_string();
    assert_eq!(failure(b"GIF89a"), "the picture is no PNG");
    for cut in [8, 20, 33, 45, png.len() / 2] {
        assert!(failure(&png[..cut]).starts_with("the PNG is damaged: "), "{cut}");
    }
    let mut broken = png.clone();
    broken[60] ^= 0x55;
    assert!(failure(&broken).starts_with("the PNG is damaged: "));
}

#[test]
fn bombs_are_refused_before_memory_is_taken() {
    let bomb = |width: u32, height: u32| {
        let small = png(1, 1, ColorType::Rgb, BitDepth::Eight, &[1, 2, 3]);
        let header = chunk(b"IHDR", &[&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat());
        let bytes = [&small[..8], &header, &small[33..]].concat();
        convert(&bytes, Format::Jpeg, Options::default()).expect_err("too large").to_string()
    };
    assert!(bomb(16_385, 1).contains("16385x1 pixels is larger than 16384x16384"));
    assert!(bomb(1, u32::MAX >> 1).contains("larger than 16384x16384"));
    assert!(bomb(16_384, 16_384).contains("larger than 256 MiB in memory"));
    // Grey takes three samples when it is converted.
    let grey = png(100, 100, ColorType::Grayscale, BitDepth::Eight, &[7; 10_000]);
    assert!(convert(&grey, Format::Jpeg, Options { quality: 90, memory: 29_999 }).is_err());
    assert!(convert(&grey, Format::Jpeg, Options { quality: 90, memory: 30_000 }).is_ok());
}

/// Large pictures get codes from a sample: what is only outside it must have a word, too, and little may be lost.
#[test]
fn what_is_not_in_the_sample_is_coded() {
    const SIDE: u32 = 800;
    let mut state = 1u64;
    let grey = (0..SIDE * SIDE).map(|at| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Grain everywhere, and extremes in one unit of the second group of the first row.
        let (x, y) = (at % SIDE, at / SIDE);
        match (x, y) {
            (160..176, 0..16) => {
                if state & 1 == 0 {
                    0
                } else {
                    255
                }
            }
            _ => 100 + (state >> 8 & 63) as u8,
        }
    });
    let rows = grey.flat_map(|grey| [grey; 3]).collect::<Vec<_>>();
    let png = png(SIDE, SIDE, ColorType::Rgb, BitDepth::Eight, &rows);
    // A word read wrongly shifts all that follows, by far more than this.
    for (quality, most) in [(75, 9.0), (95, 2.5)] {
        assert!(has_codes_from_a_sample(&to(&png, Format::Jpeg, quality)), "{quality}");
        let distance = distance(&jpeg_samples(&png, quality), &rows);
        assert!(distance < most, "{quality}: {distance}");
    }
}

/// Pictures that are small, or compress well, are counted in full.
#[test]
fn little_is_not_sampled() {
    let small = png(128, 128, ColorType::Rgb, BitDepth::Eight, &soft(128, 128, 3));
    let flat = png(1024, 1024, ColorType::Grayscale, BitDepth::Eight, &vec![90; 1024 * 1024]);
    for png in [small, flat] {
        assert!(!has_codes_from_a_sample(&to(&png, Format::Jpeg, 90)));
    }
}

#[test]
fn sides_around_whole_units_come_out_whole() {
    let sides = [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49];
    for (width, height) in sides.iter().flat_map(|&width| sides.map(|height| (width, height))) {
        // Soft to the last column and row, so that a wrong one is seen.
        let rows = (0..height)
            .flat_map(|y| (0..width).flat_map(move |x| [40 + 3 * x as u8, 30 + 4 * y as u8, 200 - 2 * (x + y) as u8]))
            .collect::<Vec<_>>();
        let jpeg = to(&png(width, height, ColorType::Rgb, BitDepth::Eight, &rows), Format::Jpeg, 95);
        let back = decoded(&jpeg, ImageFormat::Jpeg).into_rgb8();
        assert_eq!((back.width(), back.height()), (width, height));
        let worst = back.as_raw().iter().zip(&rows).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst.is_some_and(|worst| worst <= 12), "{width}x{height}: {worst:?}");
    }
}

#[test]
fn the_jpeg_says_what_it_is() {
    let jpeg = to(&png(33, 17, ColorType::Rgb, BitDepth::Eight, &soft(33, 17, 3)), Format::Jpeg, 90);
    assert_eq!(jpeg[..20], *b"\xFF\xD8\xFF\xE0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0");
    assert_eq!(jpeg[jpeg.len() - 2..], [0xFF, 0xD9]);
    // Baseline, 8 bits, 17 rows of 33, luma twice as fine both ways.
    let frame = [0xFF, 0xC0, 0, 17, 8, 0, 17, 0, 33, 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1];
    assert!(jpeg.windows(frame.len()).any(|window| window == frame));
}

/// RGBA pictures of any size that blocks can be cut off at, soft enough for chroma at half the resolution.
fn rgba() -> impl Strategy<Value = (u32, u32, Vec<u8>)> {
    (1u32..50, 1u32..50, any::<[u8; 4]>(), any::<[u8; 4]>(), any::<[u8; 4]>()).prop_map(|(width, height, a, b, c)| {
        let mix = |x: u32, y: u32, channel: usize| {
            let (across, down) = (x * 60 / 50, y * 60 / 50);
            let [a, b, c] = [a, b, c].map(|corner| u32::from(corner[channel]));
            ((a * (120 - across - down) + b * across + c * down) / 120) as u8
        };
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        (width, height, pixels.flat_map(|(x, y)| (0..4).map(move |channel| mix(x, y, channel))).collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_jpeg_is_the_picture_on_white((width, height, rows) in rgba()) {
        let png = png(width, height, ColorType::Rgba, BitDepth::Eight, &rows);
        let jpeg = decoded(&to(&png, Format::Jpeg, 95), ImageFormat::Jpeg).into_rgb8();
        prop_assert_eq!((jpeg.width(), jpeg.height()), (width, height));
        let white = rows.as_chunks::<4>().0.iter().flat_map(|&[r, g, b, a]| {
            [r, g, b].map(|c| ((f64::from(c) * f64::from(a) + 255.0 * (255.0 - f64::from(a))) / 255.0).round() as u8)
        }).collect::<Vec<_>>();
        let distance = distance(jpeg.as_raw(), &white);
        prop_assert!(distance < 4.0, "{}", distance);
    }

    #[test]
    fn noise_of_any_quality_is_a_sound_jpeg(seed in any::<u64>(), quality in 0u8..=95, side in 1u32..40) {
        let mut state = seed | 1;
        let rows = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Black or white, so that coefficients are as large as they get.
            if state & 1 == 0 { 0 } else { 255 }
        }).take((side * side * 3) as usize).collect::<Vec<u8>>();
        let png = png(side, side, ColorType::Rgb, BitDepth::Eight, &rows);
        let jpeg = decoded(&to(&png, Format::Jpeg, quality), ImageFormat::Jpeg);
        prop_assert_eq!((jpeg.width(), jpeg.height()), (side, side));
    }

    #[test]
    fn damage_never_causes_a_panic(at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = png(20, 20, ColorType::Rgba, BitDepth::Eight, &soft(20, 20, 4));
        let at = at.index(bytes.len());
        bytes[at] = with;
        let _ = convert(&bytes, Format::Jpeg, Options::default());
        let _ = convert(&bytes[..cut.index(bytes.len())], Format::Webp, Options::default());
        let _ = without_texts(&Bytes::copy_from_slice(&bytes[..cut.index(bytes.len())]));
    }
}
