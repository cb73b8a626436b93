//! Pictures without their texts: ComfyUI writes the whole workflow, and with it the prompt, into text chunks of PNG and
//! into the EXIF data of WebP; other nodes use EXIF and XMP in any format.
//!
//! Only parts of known kinds stay, as nodes have kinds of their own for texts: ComfyUI's SaveAnimatedPNG writes the
//! workflow into chunks `comf`. They are copied, byte for byte, but only from where one is left out. What follows damage
//! is dropped, for nobody can tell whether it is text.

use bytes::Bytes;

use super::PNG;
use crate::buffers::Buffer;

/// The picture without texts, EXIF and XMP: PNG, WebP and JPEG, recognised by their first bytes. Anything else, and
/// a picture that has no such parts, is returned as it is. A damaged picture ends at the damage.
pub fn without_texts(bytes: &Bytes) -> Bytes {
    let kept = Kept { of: bytes, read: 0, same: 0, own: None };
    if bytes.starts_with(PNG) {
        png(kept)
    } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        webp(kept)
    } else if bytes.starts_with(&[0xFF, 0xD8, 0xFF]) {
        jpeg(kept)
    } else {
        bytes.clone()
    }
}

/// What is kept of a picture that is read from its beginning on.
struct Kept<'a> {
    of: &'a Bytes,
    read: usize,
    /// So many bytes from the beginning are kept; all that is, as long as there is no copy.
    same: usize,
    own: Option<Buffer>,
}

impl Kept<'_> {
    /// So many bytes stay.
    fn keep(&mut self, length: usize) {
        if self.own.is_none() && self.read == self.same {
            self.same += length;
        } else {
            let (of, from) = (self.of, self.read);
            self.own().extend_from_slice(&of[from..from + length]);
        }
        self.read += length;
    }

    /// So many go.
    fn drop(&mut self, length: usize) {
        self.read += length;
    }

    /// A copy of what is kept so far.
    fn own(&mut self) -> &mut Buffer {
        self.own.get_or_insert_with(|| {
            let mut own = Buffer::with_room(self.of.len());
            own.extend_from_slice(&self.of[..self.same]);
            own
        })
    }

    fn done(self) -> Bytes {
        self.own.map_or_else(|| self.of.slice(..self.same), Bytes::from)
    }
}

/// A chunk of a PNG: length of its data (u32), type, data, checksum (u32).
pub(super) struct Chunk {
    pub(super) kind: [u8; 4],
    /// Of all four, in bytes.
    length: usize,
}

/// The chunks up to the end or the first that is cut off.
pub(super) fn png_chunks(bytes: &[u8]) -> impl Iterator<Item = Chunk> {
    let mut rest = bytes.get(PNG.len()..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (&[a, b, c, d, kind @ ..], _) = rest.split_first_chunk::<8>()?;
        let length = (u32::from_be_bytes([a, b, c, d]) as usize).checked_add(12)?;
        (_, rest) = rest.split_at_checked(length)?;
        Some(Chunk { kind, length })
    })
}

/// What a PNG may consist of that is no text: the picture itself, its colours, size and animation. PNG, third edition,
/// and its extensions.
const PNG_KINDS: [&[u8; 4]; 25] = [
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"cHRM", b"gAMA", b"iCCP", b"sBIT",
    b"sRGB", b"cICP", b"mDCV", b"cLLI", b"bKGD", b"hIST", b"pHYs", b"sPLT", b"tIME", b"oFFs", b"pCAL", b"sCAL",
    b"sTER",
];

fn png(mut kept: Kept<'_>) -> Bytes {
    kept.keep(PNG.len());
    for chunk in png_chunks(kept.of) {
        match PNG_KINDS.contains(&&chunk.kind) {
            true => kept.keep(chunk.length),
            false => kept.drop(chunk.length),
        }
        // Anything may stand behind the end.
        if chunk.kind == *b"IEND" {
            break;
        }
    }
    kept.done()
}

/// The same for WebP.
const WEBP_KINDS: [&[u8; 4]; 7] = [b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"];
/// The bits of VP8X that say that there are EXIF data, and XMP.
const WEBP_EXIF: u8 = 0x08;
const WEBP_XMP: u8 = 0x04;

fn webp(mut kept: Kept<'_>) -> Bytes {
    kept.keep(12);
    let mut rest = &kept.of[12..];
    // A chunk: type, length of its data (u32, little endian), data, a byte of padding after an odd length.
    while let Some((&[kind @ .., a, b, c, d], _)) = rest.split_first_chunk::<8>() {
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let padded = length.checked_add(8 + length % 2);
        let Some((chunk, behind)) = padded.and_then(|end| rest.split_at_checked(end)) else { break };
        rest = behind;
        let kind: [u8; 4] = kind;
        match &kind {
            other if !WEBP_KINDS.contains(&other) => kept.drop(chunk.len()),
            b"VP8X" if length > 0 && chunk[8] & (WEBP_EXIF | WEBP_XMP) != 0 => {
                kept.keep(chunk.len());
                let own = kept.own();
                let flags = own.len() - chunk.len() + 8;
                own[flags] &= !(WEBP_EXIF | WEBP_XMP);
            }
            _ => kept.keep(chunk.len()),
        }
    }
    if kept.own.is_some() || kept.same < kept.of.len() {
        let own = kept.own();
        let size = u32::try_from(own.len() - 8).unwrap_or(u32::MAX);
        own[4..8].copy_from_slice(&size.to_le_bytes());
    }
    kept.done()
}

fn jpeg(mut kept: Kept<'_>) -> Bytes {
    kept.keep(2);
    let mut rest = &kept.of[2..];
    // A segment: 0xFF, marker, length with its own two bytes (u16), data. The entropy-coded data follow the start of
    // scan, and up to the end nothing behind it is a text.
    while let [0xFF, marker, a, b, ..] = *rest {
        // Fill bytes may precede a marker.
        if marker == 0xFF {
            kept.drop(1);
            rest = &rest[1..];
            continue;
        }
        if marker == 0xDA {
            kept.keep(rest.len());
            break;
        }
        let length = usize::from(u16::from_be_bytes([a, b]));
        let Some((segment, behind)) = rest.split_at_checked(length.max(2) + 2) else { break };
        rest = behind;
        // EXIF and XMP are in APP1, Photoshop's texts in APP13; COM is a comment.
        match marker {
            0xE1 | 0xED | 0xFE => kept.drop(segment.len()),
            _ => kept.keep(segment.len()),
        }
    }
    kept.done()
}

#[cfg(test)]
mod tests {
    use png::{BitDepth, ColorType};

    use super::super::samples::{chunk, png, soft, with_chunks};
    use super::*;

    fn clean(bytes: &[u8]) -> Bytes {
        without_texts(&Bytes::copy_from_slice(bytes))
    }

    /// Whether it is returned, and no copy.
    fn stays(bytes: &[u8]) -> bool {
        let bytes = Bytes::copy_from_slice(bytes);
        let clean = without_texts(&bytes);
        (clean.as_ptr(), clean.len()) == (bytes.as_ptr(), bytes.len())
    }

    fn plain() -> Vec<u8> {
        png(16, 8, ColorType::Rgb, BitDepth::Eight, &soft(16, 8, 3))
    }

    #[test]
    fn png_loses_texts_and_nothing_else() {
        let plain = plain();
        let profile = chunk(b"iCCP", b"x\0\0data");
        let kinds = [b"tEXt", b"zTXt", b"iTXt", b"eXIf"];
        let texts = kinds.map(|kind| chunk(kind, b"prompt\0my secret"));
        let with = with_chunks(&plain, &[&texts[..2], std::slice::from_ref(&profile), &texts[2..]].concat());
        assert_eq!(clean(&with), with_chunks(&plain, &[profile]));
        // Texts may stand behind the picture, too, and anything behind the end.
        let (picture, end) = plain.split_at(plain.len() - 12);
        let behind = [picture, &texts[0], end, b"my secret"].concat();
        assert_eq!(clean(&behind), plain);
        assert!(stays(&plain));
        assert_eq!(clean(&with[..50]), &plain[..33]);
    }

    #[test]
    fn png_loses_what_nobody_knows() {
        // As ComfyUI's SaveAnimatedPNG writes them, in front of and behind the frames.
        let plain = plain();
        let private = [b"comf", b"prVt", b"CgBI", b"gIFx"].map(|kind| chunk(kind, b"prompt\0my secret"));
        let with = with_chunks(&plain, &private);
        assert_eq!(clean(&with), plain);
        let (picture, end) = plain.split_at(plain.len() - 12);
        assert_eq!(clean(&[picture, &private.concat(), end].concat()), plain);
        // An animation stays one.
        let frames = [chunk(b"acTL", &[0; 8]), chunk(b"fcTL", &[0; 26]), chunk(b"fdAT", &[0; 9])];
        assert!(stays(&with_chunks(&plain, &frames)));
    }

    #[test]
    fn other_bytes_stay() {
        for bytes in [&b""[..], b"RIFF", b"RIFF\0\0\0\0AVI prompt", b"GIF89a", b"\xFF\xD8", b"ftyp"] {
            assert!(stays(bytes));
        }
    }

    fn riff(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
        let mut body = b"WEBP".to_vec();
        for (kind, data) in chunks {
            body.extend_from_slice(*kind);
            body.extend_from_slice(&(data.len() as u32).to_le_bytes());
            body.extend_from_slice(data);
            body.resize(body.len().next_multiple_of(2), 0);
        }
        [b"RIFF", &(body.len() as u32).to_le_bytes()[..], &body].concat()
    }

    #[test]
    fn webp_loses_exif_and_xmp_and_their_flags() {
        // Animation (2), XMP (4), EXIF (8), alpha (16), profile (32).
        let header = |flags: u8| [flags, 0, 0, 0, 15, 0, 0, 7, 0, 0];
        let (all, kept) = (header(2 | 4 | 8 | 16 | 32), header(2 | 16 | 32));
        let with = riff(&[
            (b"VP8X", &all),
            (b"ICCP", b"profile"),
            (b"ANIM", b"123456"),
            (b"ANMF", b"frame"),
            (b"EXIF", b"my secret"),
            (b"XMP ", b"<my secret>"),
            (b"prmt", b"my secret"),
        ]);
        let without = riff(&[(b"VP8X", &kept), (b"ICCP", b"profile"), (b"ANIM", b"123456"), (b"ANMF", b"frame")]);
        assert_eq!(clean(&with), without);
        assert!(stays(&without));
        // Cut off inside of EXIF.
        assert_eq!(clean(&with[..with.len() - 42]), without);
    }

    #[test]
    fn a_webp_that_was_cleaned_decodes() {
        let webp = super::super::convert(&plain(), super::super::Format::Webp, super::super::Options::default())
            .expect("converts");
        let picture = [(b"VP8X", &[8u8, 0, 0, 0, 15, 0, 0, 7, 0, 0][..]), (b"EXIF", b"MM\0*my secret")];
        let mut with = riff(&picture);
        with.extend_from_slice(&webp[12..]);
        let size = (with.len() - 8) as u32;
        with[4..8].copy_from_slice(&size.to_le_bytes());
        let cleaned = clean(&with);
        assert!(!cleaned.windows(9).any(|window| window == b"my secret"));
        let decode = |bytes: &[u8]| {
            image::load_from_memory_with_format(bytes, image::ImageFormat::WebP).expect("decodes").into_rgb8()
        };
        assert_eq!(decode(&cleaned), decode(&webp));
    }

    #[test]
    fn jpeg_loses_exif_xmp_and_comments() {
        let jpeg = super::super::convert(&plain(), super::super::Format::Jpeg, super::super::Options::default())
            .expect("converts");
        assert!(stays(&jpeg));
        // Behind JFIF's segment; a fill byte in front of one.
        let (head, rest) = jpeg.split_at(20);
        let with = [head, b"\xFF\xE1\0\x0BExif\0\0abc", b"\xFF\xFE\0\x06text", b"\xFF\xFF\xED\0\x04ab", rest].concat();
        let cleaned = clean(&with);
        assert_eq!(cleaned, jpeg);
        // A length of less than its own two bytes.
        assert_eq!(clean(b"\xFF\xD8\xFF\xE1\0\0"), &b"\xFF\xD8"[..]);
        assert_eq!(clean(&with[..28]), &jpeg[..20]);
    }
}
