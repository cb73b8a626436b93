//! Image formats: PNG to JPEG, and PNG without the texts that ComfyUI writes into it. Pure.

use std::io::Cursor;

use ::image::codecs::jpeg::JpegEncoder;
use ::image::{ImageFormat, ImageReader};

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Whether the bytes are a PNG, whatever they are called.
pub(crate) fn is_png(bytes: &[u8]) -> bool {
    bytes.starts_with(SIGNATURE)
}

/// Encodes a PNG as JPEG; transparency is dropped, as every viewer of JPEG would.
pub(crate) fn to_jpeg(png: &[u8], quality: u8) -> Result<Vec<u8>, ::image::ImageError> {
    let picture = ImageReader::with_format(Cursor::new(png), ImageFormat::Png).decode()?.to_rgb8();
    let mut jpeg = Vec::with_capacity(png.len() / 4);
    JpegEncoder::new_with_quality(&mut jpeg, quality).encode_image(&picture)?;
    Ok(jpeg)
}

/// The PNG without its text chunks: they hold the workflow, and with it the prompt. A PNG that is damaged is
/// returned up to the damage.
pub(crate) fn without_texts(png: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(png.len());
    let Some(mut rest) = png.strip_prefix(SIGNATURE) else { return png.to_vec() };
    kept.extend_from_slice(SIGNATURE);
    // A chunk: length of its data (u32), type (4), data, checksum (4).
    while let Some((head, _)) = rest.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(chunk) = length.checked_add(12).and_then(|end| rest.get(..end)) else { break };
        if !matches!(&head[4..], b"tEXt" | b"zTXt" | b"iTXt") {
            kept.extend_from_slice(chunk);
        }
        rest = &rest[chunk.len()..];
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::image::{DynamicImage, Rgba, RgbaImage};

    fn png() -> Vec<u8> {
        let picture = RgbaImage::from_fn(16, 8, |x, y| Rgba([(x * 16) as u8, (y * 32) as u8, 128, 200]));
        let mut png = Cursor::new(Vec::new());
        DynamicImage::ImageRgba8(picture).write_to(&mut png, ImageFormat::Png).expect("encodes");
        png.into_inner()
    }

    fn with_text(png: &[u8]) -> Vec<u8> {
        let data = b"prompt\0my secret";
        // After the header chunk, which is 25 bytes.
        let mut all = png[..33].to_vec();
        all.extend((data.len() as u32).to_be_bytes());
        all.extend(b"tEXt");
        all.extend(data);
        all.extend([0; 4]);
        all.extend(&png[33..]);
        all
    }

    #[test]
    fn png_becomes_jpeg() {
        let jpeg = to_jpeg(&png(), 90).expect("encodes");
        let back = ImageReader::with_format(Cursor::new(&jpeg), ImageFormat::Jpeg).decode().expect("decodes");
        assert_eq!((back.width(), back.height()), (16, 8));
        assert!(to_jpeg(&png()[..50], 90).is_err());
        assert!(to_jpeg(b"GIF89a", 90).is_err());
    }

    #[test]
    fn texts_are_removed_and_nothing_else() {
        let png = png();
        assert!(is_png(&png) && !is_png(b"RIFF"));
        assert_eq!(without_texts(&with_text(&png)), png);
        assert_eq!(without_texts(&png), png);
        assert_eq!(without_texts(b"RIFF"), b"RIFF");
        let damaged = without_texts(&with_text(&png)[..40]);
        assert_eq!(damaged, png[..33]);
    }
}
