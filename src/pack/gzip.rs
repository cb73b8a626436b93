//! One gzip member (RFC 1952) whose deflate blocks (RFC 1951) are all stored, so that offsets are arithmetic.

/// ID, deflate, no flags, no time, no level, unknown system: nothing that differs between machines.
pub(super) const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// CRC-32 and length.
pub(super) const TRAILER: u64 = 8;

/// Most bytes of a stored block; its length field has 16 bits.
pub(super) const STORED: u64 = 65_535;

/// One byte of flags (the rest of it is padding), the length and its complement.
pub(super) const STORED_HEADER: u64 = 5;

/// Bytes of the member around `content` bytes, which are not none.
pub(super) fn total(content: u64) -> u64 {
    HEADER.len() as u64 + content + content.div_ceil(STORED) * STORED_HEADER + TRAILER
}

/// The header of a stored block of `len` bytes.
pub(super) fn stored_header(len: u16, last: bool) -> [u8; STORED_HEADER as usize] {
    let [low, high] = len.to_le_bytes();
    [u8::from(last), low, high, !low, !high]
}

/// The end of the member. The length is modulo 2^32 by definition.
pub(super) fn trailer(crc32: u32, content: u64) -> [u8; TRAILER as usize] {
    let mut out = [0; TRAILER as usize];
    out[..4].copy_from_slice(&crc32.to_le_bytes());
    out[4..].copy_from_slice(&(content as u32).to_le_bytes());
    out
}
