//! JPEG encoders at quality 90 with chroma at half the resolution, and WebP encoders.

use std::io::Cursor;

use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, SamplingFactor};

use crate::{Failure, Rgb};

/// An encoder of 8-bit RGB.
pub(crate) type Encode = fn(&Rgb) -> Result<Vec<u8>, Failure>;

/// By name.
pub(crate) const JPEG: &[(&str, Encode)] = &[
    ("jpeg-encoder, averaged, optimized", |picture| jpeg_encoder(picture, ChromaSubsamplingMethod::Average, true)),
    ("jpeg-encoder, averaged", |picture| jpeg_encoder(picture, ChromaSubsamplingMethod::Average, false)),
    ("jpeg-encoder, nearest, optimized", |picture| jpeg_encoder(picture, ChromaSubsamplingMethod::Nearest, true)),
    ("image (4:4:4)", image_jpeg),
    #[cfg(feature = "c")]
    ("mozjpeg, optimized (C)", |picture| c::mozjpeg(picture, false)),
    #[cfg(feature = "c")]
    ("mozjpeg, its defaults (C)", |picture| c::mozjpeg(picture, true)),
    #[cfg(feature = "c")]
    ("turbojpeg, optimized (C)", |picture| c::turbojpeg(picture, true)),
    #[cfg(feature = "c")]
    ("turbojpeg (C)", |picture| c::turbojpeg(picture, false)),
];

/// By name.
pub(crate) const WEBP: &[(&str, Encode)] = &[("image-webp, lossless", image_webp)];

fn jpeg_encoder(picture: &Rgb, chroma: ChromaSubsamplingMethod, optimized: bool) -> Result<Vec<u8>, Failure> {
    let Rgb(width, height, samples) = picture;
    let mut jpeg = Vec::with_capacity(samples.len() / 4);
    let mut encoder = jpeg_encoder::Encoder::new(&mut jpeg, 90);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.set_chroma_subsampling_method(chroma);
    encoder.set_optimized_huffman_tables(optimized);
    encoder.encode(samples, u16::try_from(*width)?, u16::try_from(*height)?, ColorType::Rgb)?;
    Ok(jpeg)
}

fn image_jpeg(picture: &Rgb) -> Result<Vec<u8>, Failure> {
    let mut jpeg = Cursor::new(Vec::new());
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 90).encode(
        &picture.2,
        u32::try_from(picture.0)?,
        u32::try_from(picture.1)?,
        image::ExtendedColorType::Rgb8,
    )?;
    Ok(jpeg.into_inner())
}

fn image_webp(picture: &Rgb) -> Result<Vec<u8>, Failure> {
    let mut webp = Vec::new();
    let (width, height) = (u32::try_from(picture.0)?, u32::try_from(picture.1)?);
    image_webp::WebPEncoder::new(&mut webp).encode(&picture.2, width, height, image_webp::ColorType::Rgb8)?;
    Ok(webp)
}

#[cfg(feature = "c")]
mod c {
    use crate::{Failure, Rgb};

    pub(super) fn mozjpeg(picture: &Rgb, slow: bool) -> Result<Vec<u8>, Failure> {
        let mut encoder = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
        if !slow {
            encoder.set_fastest_defaults();
        }
        encoder.set_size(picture.0, picture.1);
        encoder.set_quality(90.0);
        encoder.set_chroma_sampling_pixel_sizes((2, 2), (2, 2));
        encoder.set_optimize_coding(true);
        let mut started = encoder.start_compress(Vec::new())?;
        started.write_scanlines(&picture.2)?;
        Ok(started.finish()?)
    }

    pub(super) fn turbojpeg(picture: &Rgb, optimized: bool) -> Result<Vec<u8>, Failure> {
        let mut encoder = turbojpeg::Compressor::new()?;
        encoder.set_quality(90)?;
        encoder.set_subsamp(turbojpeg::Subsamp::Sub2x2)?;
        encoder.set_optimize(optimized)?;
        let Rgb(width, height, samples) = picture;
        let (width, height) = (*width, *height);
        let image = turbojpeg::Image {
            pixels: samples.as_slice(),
            width,
            pitch: width * 3,
            height,
            format: turbojpeg::PixelFormat::RGB,
        };
        Ok(encoder.compress_to_vec(image)?)
    }
}
