//! PNG decoders.

use std::io::Cursor;

use zune_core::bytestream::ZCursor;
use zune_core::options::DecoderOptions;

use crate::{Failure, Rgb};

/// A decoder of a PNG of 8-bit RGB.
pub(crate) type Decode = fn(&[u8]) -> Result<Rgb, Failure>;

/// By name.
pub(crate) const ALL: &[(&str, Decode)] =
    &[("png (fdeflate)", png), ("png, no checksums", png_unchecked), ("zune-png", zune), ("image", image)];

fn png(bytes: &[u8]) -> Result<Rgb, Failure> {
    with_png(png::Decoder::new(Cursor::new(bytes)))
}

fn png_unchecked(bytes: &[u8]) -> Result<Rgb, Failure> {
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.ignore_checksums(true);
    with_png(decoder)
}

fn with_png(decoder: png::Decoder<Cursor<&[u8]>>) -> Result<Rgb, Failure> {
    let mut reader = decoder.read_info()?;
    let mut samples = vec![0; reader.output_buffer_size().ok_or("too large")?];
    let frame = reader.next_frame(&mut samples)?;
    Ok(Rgb(frame.width as usize, frame.height as usize, samples))
}

fn zune(bytes: &[u8]) -> Result<Rgb, Failure> {
    let mut decoder = zune_png::PngDecoder::new_with_options(ZCursor::new(bytes), DecoderOptions::new_fast());
    let samples = decoder.decode_raw().map_err(|cause| format!("{cause:?}"))?;
    let (width, height) = decoder.dimensions().ok_or("no size")?;
    Ok(Rgb(width, height, samples))
}

fn image(bytes: &[u8]) -> Result<Rgb, Failure> {
    let picture = image::load_from_memory_with_format(bytes, image::ImageFormat::Png)?.into_rgb8();
    Ok(Rgb(picture.width() as usize, picture.height() as usize, picture.into_raw()))
}
