//! Picture formats: a still PNG to JPEG or WebP, and any picture without the texts that ComfyUI writes into it. Pure.
//!
//! Colour profiles are not kept by a conversion, as Pillow does not keep them either unless told to, and ComfyUI writes
//! none; pixel values are taken as sRGB. Without a conversion everything but texts stays as it was.

use bytes::Bytes;
use thiserror::Error;

use crate::buffers::Buffer;

mod decode;
mod deflate;
mod jpeg;
mod plain;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
mod texts;
mod unfilter;
mod webp;

pub use texts::without_texts;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The longest side of a picture that is decoded, in pixels.
pub const LONGEST_SIDE: u32 = 16_384;
/// The memory that the pixels of one picture may take when decoded, in bytes: 8192x8192 with alpha.
pub const MEMORY: usize = 256 * 1024 * 1024;

/// What a PNG can be converted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Baseline JPEG with chroma at half the resolution; transparency is laid on white.
    Jpeg,
    /// Lossy WebP; transparency is kept.
    Webp,
}

impl Format {
    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Jpeg => "image/jpeg",
            Format::Webp => "image/webp",
        }
    }
}

/// How a picture is converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// From 0 to 95, on the scale of the IJG's library as Pillow's; 0 means the same as 1. WebP's scale is another,
    /// but the same number is about as good there, and smaller.
    pub quality: u8,
    /// The memory that the decoded pixels may take, in bytes.
    pub memory: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { quality: 90, memory: MEMORY }
    }
}

/// Why a picture cannot be converted.
#[derive(Debug, Error)]
pub enum PictureError {
    /// The bytes are no PNG.
    #[error("the picture is no PNG")]
    NotPng,
    /// An animation would lose all its frames but one.
    #[error("the PNG is animated, which {} cannot be; send `Accept: image/png` to get it as it is", .0.media_type())]
    Animated(Format),
    /// Its data are broken or cut off.
    #[error("the PNG is damaged: {0}")]
    Damaged(String),
    /// Its pixels exceed a limit.
    #[error(
        "the picture of {width}x{height} pixels is larger than {limit}; send `Accept: image/png` to get it as it is"
    )]
    TooLarge {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
        /// What it exceeds.
        limit: String,
    },
    /// The encoder refused, which no picture within the limits should cause.
    #[error("the {} encoder failed: {why}", to.media_type())]
    Encoder {
        /// The encoder's format.
        to: Format,
        /// In its words.
        why: String,
    },
}

/// Decoded pixels, 8 bits a sample, rows without padding.
#[derive(Debug, PartialEq)]
struct Pixels {
    width: u32,
    height: u32,
    /// Whether there are four samples a pixel (red, green, blue, alpha not multiplied in) and not three.
    alpha: bool,
    samples: Buffer,
}

/// Whether the bytes are a PNG, still or animated, whatever they are called.
pub fn is_png(bytes: &[u8]) -> bool {
    bytes.starts_with(PNG)
}

/// Whether the bytes are a PNG with one picture: only such can be converted. Not all of it is checked.
pub fn is_still_png(bytes: &[u8]) -> bool {
    // The animation control chunk must come before the image data.
    let control = |chunk: &texts::Chunk| chunk.kind == *b"acTL";
    is_png(bytes) && !texts::png_chunks(bytes).take_while(|chunk| chunk.kind != *b"IDAT").any(|chunk| control(&chunk))
}

/// Converts a still PNG of any kind: 1 to 16 bits, grey, palette, transparent, interlaced.
///
/// # Errors
/// No PNG, an animated, a damaged or too large one.
pub fn convert(png: &[u8], to: Format, options: Options) -> Result<Bytes, PictureError> {
    if !is_png(png) {
        return Err(PictureError::NotPng);
    }
    if !is_still_png(png) {
        return Err(PictureError::Animated(to));
    }
    let pixels = decode::png(png, options.memory)?;
    match to {
        Format::Jpeg => jpeg::encode(&pixels.on_white(), options.quality).map(Bytes::from),
        Format::Webp => webp::encode(&pixels, options.quality).map(Bytes::from),
    }
}

impl Pixels {
    /// Without alpha, as seen on a white page.
    fn on_white(mut self) -> Pixels {
        if !self.alpha {
            return self;
        }
        let count = self.samples.len() / 4;
        // In place: the pixel that is written never lies behind the one that is read.
        for at in 0..count {
            let [red, green, blue, alpha] = [0, 1, 2, 3].map(|sample| u32::from(self.samples[4 * at + sample]));
            for (sample, colour) in [red, green, blue].into_iter().enumerate() {
                let sum = colour * alpha + 255 * (255 - alpha);
                self.samples[3 * at + sample] = ((sum + 127) / 255) as u8;
            }
        }
        self.samples.truncate(3 * count);
        Pixels { alpha: false, ..self }
    }
}
