//! PNG to pixels, and why by these libraries.
//!
//! CPU time for a photo-like PNG of 1024x1024 and 2.5 MB, by `benches/pictures/run` on 2026-11-23, two virtual cores
//! of an AMD EPYC (Zen 5). Rows in C but Pillow's are from another run on that day (`--c`), in which Pillow took 10.9
//! to optimize. PSNR is 31.46 dB, also as Pillow's, but for image and where noted:
//!
//! | what | with | ms | bytes |
//! | --- | --- | --- | --- |
//! | decode | Pillow 13 | 14.5 | |
//! | | **png (fdeflate)** | 5.8 | |
//! | | png, no checksums | 5.7 | |
//! | | zune-png | 9.3 | |
//! | | image (on png) | 5.7 | |
//! | JPEG q90 | Pillow, optimize | 11.5 | 437,967 |
//! | | Pillow | 3.4 | 452,019 |
//! | | turbojpeg, mozjpeg, optimized (C, cmake or nasm) | 11.2 | 437,967 |
//! | | turbojpeg, not optimized | 3.1 | 452,019 |
//! | | jpeg-encoder, optimized (not interleaved: some decoders fail) | 17.8 | 438,074 |
//! | | jpeg-encoder, not optimized | 11.2 | 452,009 |
//! | | image (4:4:4) | 31.0 | 598,995 |
//! | PNG to JPEG q90 | Pillow, optimize | 26.7 | 437,967 |
//! | | **png and own** | 9.8 | 438,045 |
//! | WebP q90 | Pillow | 131 | 488,202 |
//! | | **libwebp** (decoding included) | 138 | 488,202 |
//! | lossless | image-webp | 5 | 2,344,482 |

use std::io::Cursor;

use png::{ColorType, DecodeOptions, Decoder, DecodingError, Limits, Transformations};

use super::{LONGEST_SIDE, PictureError, Pixels};

/// Room for what the decoder allocates beside the pixels: chunks and a few rows.
const OVERHEAD: usize = 16 * 1024 * 1024;

/// Decodes within a number of bytes for the pixels.
pub(super) fn png(bytes: &[u8], memory: usize) -> Result<Pixels, PictureError> {
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
    let mut samples = vec![0; size];
    let frame = reader.next_frame(&mut samples).map_err(damaged)?;
    samples.truncate(frame.buffer_size());
    let samples = match color {
        ColorType::Rgb | ColorType::Rgba => samples,
        ColorType::Grayscale => samples.iter().flat_map(|&grey| [grey; 3]).collect(),
        ColorType::GrayscaleAlpha => {
            samples.as_chunks().0.iter().flat_map(|&[grey, a]| [grey, grey, grey, a]).collect()
        }
        // The decoder expands palettes.
        ColorType::Indexed => return Err(PictureError::Damaged("its palette is missing".to_owned())),
    };
    Ok(Pixels { width, height, alpha: channels(color) == 4, samples })
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
