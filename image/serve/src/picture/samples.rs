//! Pictures for the tests, made by rule.

use png::{BitDepth, ColorType, Encoder};

/// A PNG of raw rows, packed as the format wants them.
pub(super) fn png(width: u32, height: u32, color: ColorType, depth: BitDepth, rows: &[u8]) -> Vec<u8> {
    png_with(width, height, color, depth, rows, |_| {})
}

/// The same, after more was set.
pub(super) fn png_with(
    width: u32,
    height: u32,
    color: ColorType,
    depth: BitDepth,
    rows: &[u8],
    set: impl FnOnce(&mut Encoder<'_, &mut Vec<u8>>),
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    set(&mut encoder);
    let mut writer = encoder.write_header().expect("a header");
    writer.write_image_data(rows).expect("rows of that size");
    writer.finish().expect("writes");
    bytes
}

/// Soft samples, `channels` a pixel.
pub(super) fn soft(width: u32, height: u32, channels: u32) -> Vec<u8> {
    let sample = |x: u32, y: u32, channel: u32| (x * (3 + channel) + y * 5 + channel * 40) as u8 / 2 + 40;
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    pixels.flat_map(|(x, y)| (0..channels).map(move |channel| sample(x, y, channel))).collect()
}

/// A chunk with a checksum that is right.
pub(super) fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = u32::MAX;
    for byte in kind.iter().chain(data) {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    [&(data.len() as u32).to_be_bytes()[..], kind, data, &(!crc).to_be_bytes()].concat()
}

/// The PNG with chunks behind its header, which takes 33 bytes with the signature.
pub(super) fn with_chunks(png: &[u8], chunks: &[Vec<u8>]) -> Vec<u8> {
    [&png[..33], &chunks.concat(), &png[33..]].concat()
}

/// Whether a JPEG's codes come from a sample: then, and only then, they have words for coefficients of 11 bits, which no
/// picture has.
pub(super) fn has_codes_from_a_sample(jpeg: &[u8]) -> bool {
    // Luma's table: its length, its id, how many words there are of each length, 16 x 11 + 2 symbols.
    jpeg.windows(5).any(|window| window == [0xFF, 0xC4, 0, 2 + 1 + 16 + 178, 0x10])
}
