//! Pixels to JPEG, as Pillow's `save(f, "JPEG", quality=q, optimize=True)` makes it: baseline, the IJG's tables,
//! 4:2:0 with averaged chroma, Huffman tables made for the picture.

use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, SamplingFactor};

use super::{Format, PictureError, Pixels};

/// Encodes pixels without alpha.
pub(super) fn encode(pixels: Pixels, quality: u8) -> Result<Vec<u8>, PictureError> {
    let Pixels { width, height, samples, .. } = pixels;
    let too_large = || PictureError::TooLarge { width, height, limit: "65535x65535".to_owned() };
    let (columns, rows) =
        (u16::try_from(width).map_err(|_| too_large())?, u16::try_from(height).map_err(|_| too_large())?);
    let mut jpeg = Vec::with_capacity(samples.len() / 4);
    // The library takes 1 to 100; libjpeg reads 0 as 1.
    let mut encoder = Encoder::new(&mut jpeg, quality.clamp(1, 100));
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    encoder.set_optimized_huffman_tables(true);
    encoder
        .encode(&samples, columns, rows, ColorType::Rgb)
        .map_err(|cause| PictureError::Encoder { to: Format::Jpeg, why: cause.to_string() })?;
    Ok(jpeg)
}
