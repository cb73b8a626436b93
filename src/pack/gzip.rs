//! One gzip member (RFC 1952) of stored deflate blocks (RFC 1951), so that offsets are arithmetic.

/// ID, deflate, no flags, no time, no level, unknown system: nothing that differs between machines.
pub(super) const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// CRC-32 and length.
pub(super) const TRAILER: u64 = 8;

/// Most bytes of a stored block; its length field has 16 bits.
pub(super) const STORED: u64 = 65_535;

/// One byte of flags (the rest of it is padding), the length and its complement.
pub(super) const STORED_HEADER: u64 = 5;

/// Bytes of a full stored block with its header.
pub(super) const STEP: u64 = STORED + STORED_HEADER;

/// Bytes that `plain` bytes take in stored blocks.
pub(super) fn framed(plain: u64) -> u64 {
    plain + plain.div_ceil(STORED) * STORED_HEADER
}

/// Bytes in stored blocks, none of them the last one of the member.
pub(super) fn stored(plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(framed(plain.len() as u64) as usize);
    for block in plain.chunks(STORED as usize) {
        // At most 65,535.
        out.extend(stored_header(block.len() as u16, false));
        out.extend(block);
    }
    out
}

/// The header of a stored block of `len` bytes.
pub(super) fn stored_header(len: u16, last: bool) -> [u8; STORED_HEADER as usize] {
    let [low, high] = len.to_le_bytes();
    [u8::from(last), low, high, !low, !high]
}

/// How many of the bytes in stored blocks are before offset `at` of their row.
pub(super) fn plain(at: u64) -> u64 {
    at / STEP * STORED + (at % STEP).saturating_sub(STORED_HEADER)
}

/// The bytes in stored blocks of which `framed`, from offset `at` of their row on, is a stretch; at most those before
/// number `size`.
pub(super) fn unframed(framed: &[u8], at: u64, size: u64) -> impl Iterator<Item = &[u8]> {
    let end = at + framed.len() as u64;
    let mut next = at;
    std::iter::from_fn(move || {
        next += STORED_HEADER.saturating_sub(next % STEP);
        let from = next;
        next = (from - from % STEP + STEP).min(end);
        let len = size.saturating_sub(plain(from)).min(next.saturating_sub(from));
        (from < end && len > 0).then(|| &framed[(from - at) as usize..(from - at + len) as usize])
    })
}

/// The end of the member. The length is modulo 2^32 by definition.
pub(super) fn trailer(crc32: u32, content: u64) -> [u8; TRAILER as usize] {
    let mut out = [0; TRAILER as usize];
    out[..4].copy_from_slice(&crc32.to_le_bytes());
    out[4..].copy_from_slice(&(content as u32).to_le_bytes());
    out
}
