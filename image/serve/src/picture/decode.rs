//! PNG to pixels, and why by these libraries.
//!
//! CPU time for a photo-like PNG of 1024x1024 and 2.5 MB, by `benches/pictures/run` on 2026-11-23, two virtual cores
//! of an AMD EPYC (Zen 5). Rows in C but Pillow's are from another run on that day (`--c`), in which Pillow took 10.9
//! to optimize. PSNR is 31.46 dB, also as Pillow's, but for image and where noted:
//!
//! | what | with | ms | bytes |
//! | --- | --- | --- | --- |
//! | decode | Pillow 13 | 15.2 | |
//! | | png (fdeflate) | 5.7 | |
//! | | png, no checksums | 5.5 | |
//! | | zune-png | 9.2 | |
//! | | image (on png) | 5.4 | |
//! | JPEG q90 | Pillow, optimize | 11.8 | 437,967 |
//! | | Pillow | 3.8 | 452,019 |
//! | | turbojpeg, mozjpeg, optimized (C, cmake or nasm) | 11.2 | 437,967 |
//! | | turbojpeg, not optimized | 3.1 | 452,019 |
//! | | jpeg-encoder, optimized (the decoder of image reads 5.84 dB) | 17.5 | 438,074 |
//! | | jpeg-encoder, not optimized | 11.0 | 452,009 |
//! | | image (4:4:4) | 30.2 | 598,995 |
//! | PNG to JPEG q90 | Pillow, optimize | 26.0 | 437,967 |
//! | | png and own | 8.4 | 438,008 |
//! | WebP q90 | Pillow | 142 | 488,202 |
//! | | **libwebp** (decoding included) | 137 | 488,202 |
//! | lossless | image-webp | 5 | 2,344,482 |
//!
//! libdeflate 1.26 is no faster here: inflating alone, measured apart, took it 6.8 ms where fdeflate took 5.0. With
//! less grain it is (2.9 and 3.9), but most of what png then takes goes to rows filtered by Paeth, 9.8 in all.
//!
//! So what ComfyUI writes is decoded by [`super::plain`], on 2026-11-28 on another machine (Zen 4, two cores that others
//! used too), 1024x1024, both in one run:
//!
//! | PNG by | content | png, ms | own, ms |
//! | --- | --- | --- | --- |
//! | Pillow | photo | 6.1 | 3.6 |
//! | | without grain, rows by Paeth | 8.5 | 5.3 |
//! | | photo with alpha | 7.8 | 5.3 |
//! | | soft, many copies | 10.3 | 10.2 |
//! | | noise | 8.8 | 9.5 |
//! | | text | 1.9 | 2.6 |
//! | the png crate, rows by Avg | photo | 7.8 | 5.2 |
//!
//! Of the photo's 3.6 some 2.2 are the race of [`super::deflate`]; all of fdeflate takes 5.0. With six runners instead of four,
//! and small coefficients coded by one look, PNG to JPEG took 8.1 ms instead of 8.9 (2026-11-29, Zen 3).
//!
//! PNG to JPEG q90 by content, Pillow (optimized) and ours in the same run, of 2026-11-30 (two cores of an Intel Xeon):
//!
//! | content | ms | ms | bytes | bytes | PSNR dB | PSNR dB |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | flat | 18.9 | 5.6 | 6,431 | 6,431 | inf | inf |
//! | gradient | 17.5 | 8.6 | 33,946 | 34,002 | 51.12 | 51.12 |
//! | half text, half photo | 38.3 | 12.3 | 533,465 | 533,537 | 33.75 | 33.75 |
//! | little grain | 44.2 | 18.2 | 119,204 | 119,175 | 41.21 | 41.21 |
//! | no grain | 35.6 | 20.1 | 43,749 | 43,930 | 50.20 | 50.20 |
//! | noise | 56.1 | 10.1 | 668,510 | 668,710 | 18.57 | 18.57 |
//! | text | 29.5 | 8.0 | 578,635 | 579,129 | 38.94 | 38.95 |
//!
//! A PNG of 8192x8192 without alpha takes the process to 203 MiB at most, of which its pixels are 192.

use std::io::Cursor;

use png::{ColorType, DecodeOptions, Decoder, DecodingError, Limits, Transformations};

use super::{LONGEST_SIDE, PictureError, Pixels, plain};
use crate::buffers::Buffer;

/// Room for what the decoder allocates beside the pixels: chunks and a few rows.
const OVERHEAD: usize = 16 * 1024 * 1024;

/// Decodes within a number of bytes for the pixels.
pub(super) fn png(bytes: &[u8], memory: usize) -> Result<Pixels, PictureError> {
    plain::png(bytes, memory).map_or_else(|| any(bytes, memory), Ok)
}

/// The same for all kinds, with a verdict on what is none.
pub(super) fn any(bytes: &[u8], memory: usize) -> Result<Pixels, PictureError> {
    let mut options = DecodeOptions::default();
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    let mut decoder = Decoder::new_with_options(Cursor::new(bytes), options);
    decoder.set_limits(Limits { bytes: OVERHEAD });
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let (width, height) = decoder.read_header_info().map_err(damaged)?.size();
    let too_large = |limit| PictureError::TooLarge { width, height, limit };
    if width.max(height) > LONGEST_SIDE {
        return Err(too_large(format!("{LONGEST_SIDE}x{LONGEST_SIDE}")));
    }
    let mut reader = decoder.read_info().map_err(damaged)?;
    // Grey is widened to three samples, so those count too.
    let (color, _) = reader.output_color_type();
    let widened = (width as usize).checked_mul(height as usize).and_then(|area| area.checked_mul(channels(color)));
    let size = reader.output_buffer_size().filter(|_| widened.is_some_and(|bytes| bytes <= memory));
    let Some(size) = size else { return Err(too_large(format!("{} MiB in memory", memory / (1024 * 1024)))) };
    let mut samples = Buffer::of(size);
    let frame = reader.next_frame(&mut samples).map_err(damaged)?;
    samples.truncate(frame.buffer_size());
    let samples = match color {
        ColorType::Rgb | ColorType::Rgba => samples,
        ColorType::Grayscale => widen(&samples, |&[grey]| [grey; 3]),
        ColorType::GrayscaleAlpha => widen(&samples, |&[grey, alpha]| [grey, grey, grey, alpha]),
        // The decoder expands palettes.
        ColorType::Indexed => return Err(PictureError::Damaged("its palette is missing".to_owned())),
    };
    Ok(Pixels { width, height, alpha: channels(color) == 4, samples })
}

/// More samples for each pixel.
fn widen<const FROM: usize, const TO: usize>(samples: &[u8], pixel: impl Fn(&[u8; FROM]) -> [u8; TO]) -> Buffer {
    let from = samples.as_chunks().0;
    let mut wide = Buffer::of(from.len() * TO);
    for (to, from) in wide.as_chunks_mut().0.iter_mut().zip(from) {
        *to = pixel(from);
    }
    wide
}

fn channels(color: ColorType) -> usize {
    match color {
        ColorType::GrayscaleAlpha | ColorType::Rgba => 4,
        ColorType::Grayscale | ColorType::Rgb | ColorType::Indexed => 3,
    }
}

fn damaged(cause: DecodingError) -> PictureError {
    PictureError::Damaged(cause.to_string())
}
