//! The pictures that the stand-in draws, and how a test reads from one what went into it.
//!
//! A drawn picture has, from its top left corner, 16 x 16 square cells, light for 1 and dark for 0, written row by row:
//! the seed (64 bits), digests of the positive and the negative text (32 each), the steps (16), a digest of the picture
//! that it was made from (32, or 0), its place in the batch (16), zeros, and in the last two rows a check sum (32). A cell is a 16th of the shorter
//! side, at least 4 and at most 32 pixels, so the cells survive JPEG at quality 90 and a change of colours, not of size.
//! The rest is colour bands that follow from the same values, over the original if there is one. Pictures under 64
//! pixels have bands only.

use sha2::{Digest, Sha256};

/// An 8-bit picture, RGB or RGBA, rows from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Whether there are four bytes per pixel.
    pub alpha: bool,
    /// The bytes.
    pub pixels: Vec<u8>,
}

/// What can be read from a drawn picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// The sampler's seed.
    pub seed: u64,
    /// [`text_digest`] of the positive text.
    pub positive: u32,
    /// [`text_digest`] of the negative text.
    pub negative: u32,
    /// The sampler's steps, up to 65,535.
    pub steps: u16,
    /// [`picture_digest`] of the picture that it was made from; 0 when it was made from nothing.
    pub original: u32,
    /// Its place in the batch, from 0.
    pub index: u16,
}

impl Shown {
    /// What the first picture of a batch shows that is made from nothing but these.
    pub fn of(positive: &str, negative: &str, seed: u64, steps: u16) -> Self {
        Shown { seed, positive: text_digest(positive), negative: text_digest(negative), steps, original: 0, index: 0 }
    }

    fn bytes(&self) -> [u8; 28] {
        let mut out = [0; 28];
        out[..8].copy_from_slice(&self.seed.to_be_bytes());
        out[8..12].copy_from_slice(&self.positive.to_be_bytes());
        out[12..16].copy_from_slice(&self.negative.to_be_bytes());
        out[16..18].copy_from_slice(&self.steps.to_be_bytes());
        out[18..22].copy_from_slice(&self.original.to_be_bytes());
        out[22..24].copy_from_slice(&self.index.to_be_bytes());
        out
    }
}

/// The digest of a text in a picture: the first four bytes of its SHA-256.
pub fn text_digest(text: &str) -> u32 {
    first_four(text.as_bytes())
}

/// The digest of a picture in one that is made from it.
pub fn picture_digest(picture: &Picture) -> u32 {
    first_four(&picture.pixels).max(1)
}

fn first_four(bytes: &[u8]) -> u32 {
    let hash = Sha256::digest(bytes);
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

/// Cells per row and rows of cells.
const CELLS: u32 = 16;

/// The side of a cell in pixels; `None` when the picture is too small for cells.
fn cell(width: u32, height: u32) -> Option<u32> {
    let side = (width.min(height) / CELLS).min(32);
    (side >= 4).then_some(side)
}

impl Picture {
    /// A picture of one colour.
    pub fn flat(width: u32, height: u32, colour: [u8; 3]) -> Self {
        let count = width as usize * height as usize;
        Picture { width, height, alpha: false, pixels: colour.repeat(count) }
    }

    fn channels(&self) -> usize {
        if self.alpha { 4 } else { 3 }
    }

    /// The colour at a place, without alpha.
    pub fn at(&self, x: u32, y: u32) -> [u8; 3] {
        let from = (y as usize * self.width as usize + x as usize) * self.channels();
        [self.pixels[from], self.pixels[from + 1], self.pixels[from + 2]]
    }

    /// The picture that a sampler and a decoder would make of `shown`.
    pub fn drawn(width: u32, height: u32, shown: &Shown, original: Option<&Picture>) -> Self {
        let hash = Sha256::digest(shown.bytes());
        let side = cell(width, height);
        let check = first_four(&shown.bytes());
        let mut bits = [0u8; 32];
        bits[..28].copy_from_slice(&shown.bytes());
        bits[28..].copy_from_slice(&check.to_be_bytes());
        let mut pixels = Vec::with_capacity(width as usize * height as usize * 3);
        for y in 0..height {
            let band = &hash[(y as usize * 8 / height.max(1) as usize) * 3..][..3];
            for x in 0..width {
                if let Some(side) = side.filter(|side| x < side * CELLS && y < side * CELLS) {
                    let index = (y / side * CELLS + x / side) as usize;
                    let light = bits[index / 8] >> (7 - index % 8) & 1 == 1;
                    pixels.extend(band.iter().map(|part| if light { 176 + part / 4 } else { part / 4 }));
                    continue;
                }
                // A ramp across, so that neither file is trivially small nor every row alike.
                let ramp = (u64::from(x) * 48 / u64::from(width.max(1))) as u8;
                match original.filter(|picture| x < picture.width && y < picture.height) {
                    Some(picture) => {
                        let mix = |(a, b): (&u8, u8)| (u16::from(*a) / 3 + u16::from(b) * 2 / 3) as u8;
                        pixels.extend(band.iter().zip(picture.at(x, y)).map(mix));
                    }
                    None => pixels.extend(band.iter().map(|part| part.saturating_add(ramp))),
                }
            }
        }
        Picture { width, height, alpha: false, pixels }
    }

    /// A picture like a photograph: smooth shapes with noise, which PNG compresses to about 2.5 MB at 1024 x 1024.
    pub fn photo(width: u32, height: u32, alpha: bool, seed: u64) -> Self {
        let mut noise = seed ^ 0x9e37_79b9_7f4a_7c15;
        let mut pixels = Vec::with_capacity(width as usize * height as usize * 4);
        let phase = (seed % 628) as f32 / 100.0;
        let wave = |at: u32, of: u32, times: f32| (at as f32 / of.max(1) as f32 * times + phase).sin();
        let across: Vec<[f32; 3]> = (0..width).map(|x| [3.0, 5.0, 7.0].map(|times| wave(x, width, times))).collect();
        for y in 0..height {
            let down = [4.0, 2.0, 6.0].map(|times| wave(y, height, times));
            for across in &across {
                // xorshift64*: deterministic, and fast enough to be nothing beside the compression.
                noise ^= noise >> 12;
                noise ^= noise << 25;
                noise ^= noise >> 27;
                let random = noise.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes();
                for part in 0..3 {
                    // Two uniform numbers make a triangle, closer to a sensor's noise than one.
                    let grain = (u16::from(random[part] % GRAIN) + u16::from(random[part + 3] % GRAIN)) as f32;
                    let value = 128.0 + 50.0 * across[part] * down[part] + 30.0 * down[2 - part];
                    pixels.push((value + grain - f32::from(GRAIN)) as u8);
                }
                if alpha {
                    pixels.push(random[7] | 0x80);
                }
            }
        }
        Picture { width, height, alpha, pixels }
    }

    /// The negative, as ImageInvert makes it.
    pub fn inverted(&self) -> Self {
        Picture { pixels: self.pixels.iter().map(|part| 255 - part).collect(), ..self.clone() }
    }

    /// The same picture in another size; each pixel is the nearest one of the original.
    pub fn scaled(&self, width: u32, height: u32) -> Self {
        let channels = self.channels();
        let mut pixels = Vec::with_capacity(width as usize * height as usize * channels);
        for y in 0..height {
            let row = (u64::from(y) * u64::from(self.height) / u64::from(height.max(1))) as usize;
            for x in 0..width {
                let column = (u64::from(x) * u64::from(self.width) / u64::from(width.max(1))) as usize;
                let from = (row * self.width as usize + column) * channels;
                pixels.extend_from_slice(&self.pixels[from..from + channels]);
            }
        }
        Picture { width, height, alpha: self.alpha, pixels }
    }

    /// Decodes a file of any format that LoadImage reads here, without its alpha.
    ///
    /// # Errors
    /// Why the bytes are no picture.
    pub fn decode(bytes: &[u8]) -> Result<Self, image::ImageError> {
        let picture = image::load_from_memory(bytes)?.into_rgb8();
        Ok(Picture { width: picture.width(), height: picture.height(), alpha: false, pixels: picture.into_raw() })
    }

    /// The picture as a JPEG file; alpha is dropped.
    pub(crate) fn jpeg(&self, quality: u8) -> Result<Vec<u8>, image::ImageError> {
        let mut out = Vec::new();
        let rgb = self.rgb();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut out, quality.max(1)).encode(
            &rgb,
            self.width,
            self.height,
            image::ExtendedColorType::Rgb8,
        )?;
        Ok(out)
    }

    /// The picture as a WebP file, without loss: the only kind that can be written here.
    pub(crate) fn webp(&self) -> Result<Vec<u8>, image::ImageError> {
        let mut out = Vec::new();
        let kind = if self.alpha { image::ExtendedColorType::Rgba8 } else { image::ExtendedColorType::Rgb8 };
        image::codecs::webp::WebPEncoder::new_lossless(&mut out).encode(&self.pixels, self.width, self.height, kind)?;
        Ok(out)
    }

    /// The bytes without alpha.
    pub(crate) fn rgb(&self) -> Vec<u8> {
        match self.alpha {
            true => self.pixels.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
            false => self.pixels.clone(),
        }
    }
}

/// Half the width of the noise, chosen so that a photo of 1024 x 1024 is a PNG of about 2.5 MB.
const GRAIN: u8 = 40;

/// What went into a picture, when it is one that [`Picture::drawn`] made, perhaps sent through JPEG or WebP since.
pub fn read(picture: &Picture) -> Option<Shown> {
    let side = cell(picture.width, picture.height)?;
    let mut bits = [0u8; 32];
    for index in 0..CELLS * CELLS {
        let (left, top) = (index % CELLS * side, index / CELLS * side);
        let (mut sum, mut count) = (0u32, 0u32);
        // Without the rim, where lossy formats blur.
        for y in top + 1..top + side - 1 {
            for x in left + 1..left + side - 1 {
                sum += picture.at(x, y).iter().map(|part| u32::from(*part)).sum::<u32>();
                count += 3;
            }
        }
        if sum / count.max(1) >= 120 {
            bits[index as usize / 8] |= 1 << (7 - index % 8);
        }
    }
    let number = |from: usize, length: usize| {
        bits[from..from + length].iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let shown = Shown {
        seed: number(0, 8),
        positive: number(8, 4) as u32,
        negative: number(12, 4) as u32,
        steps: number(16, 2) as u16,
        original: number(18, 4) as u32,
        index: number(22, 2) as u16,
    };
    (number(28, 4) as u32 == first_four(&shown.bytes())).then_some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_can_be_read_in_every_size_and_after_jpeg() {
        for (width, height) in [(64, 64), (512, 768), (1024, 1024), (100, 300)] {
            let shown = Shown::of("a fox \u{1f98a}", "blurry", u64::MAX - 7, 20);
            let picture = Picture::drawn(width, height, &shown, None);
            assert_eq!(read(&picture), Some(shown));
            let jpeg = Picture::decode(&picture.jpeg(90).unwrap()).unwrap();
            assert_eq!(read(&jpeg), Some(shown), "{width}x{height}");
            let webp = Picture::decode(&picture.webp().unwrap()).unwrap();
            assert_eq!(webp, picture);
        }
    }

    #[test]
    fn other_pictures_cannot_be_read() {
        assert_eq!(read(&Picture::flat(64, 64, [9, 9, 9])), None);
        assert_eq!(read(&Picture::photo(256, 256, false, 1)), None);
        assert_eq!(read(&Picture::flat(32, 32, [0; 3])), None);
    }

    #[test]
    fn an_original_shows_through_and_changes_the_code() {
        let original = Picture::photo(512, 512, false, 3);
        let plain = Shown::of("p", "n", 1, 4);
        let shown = Shown { original: picture_digest(&original), ..plain };
        let from = Picture::drawn(512, 512, &shown, Some(&original));
        assert_eq!(read(&from), Some(shown));
        assert_ne!(from, Picture::drawn(512, 512, &plain, None));
        assert_ne!(from, original);
    }

    #[test]
    fn a_photo_has_the_size_of_one() {
        let png = crate::files::png(&Picture::photo(1024, 1024, false, 1), &[], 4).unwrap();
        assert!((2_300_000..2_700_000).contains(&png.len()), "{}", png.len());
        let again = crate::files::png(&Picture::photo(1024, 1024, false, 1), &[], 4).unwrap();
        assert_eq!(png, again);
    }

    #[test]
    fn scaling_and_inverting() {
        let picture = Picture::photo(64, 48, true, 2);
        assert_eq!(picture.inverted().inverted(), picture);
        let scaled = picture.scaled(80, 60);
        assert_eq!((scaled.width, scaled.height, scaled.pixels.len()), (80, 60, 80 * 60 * 4));
        assert_eq!(picture.scaled(64, 48), picture);
    }
}
