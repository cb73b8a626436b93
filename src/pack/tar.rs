//! Headers of a tar file: ustar, with pax records where ustar has no room (POSIX.1-2001, pax interchange format).

/// Bytes of a block; headers are one, and contents fill whole ones.
pub(super) const BLOCK: u64 = 512;

/// Two zero blocks end an archive.
pub(super) const END: u64 = 2 * BLOCK;

/// Largest size in eleven octal digits: 8 GiB - 1.
const USTAR_SIZE_MAX: u64 = 0o77_777_777_777;

/// 1980-01-01T00:00:00Z: the earliest moment that tar and zip can both write.
const MTIME: u64 = 315_532_800;

/// Everything before the bytes of a file: the ustar header, after a pax header if it needs one.
pub(super) fn header(path: &str, mode: u32, size: u64) -> Vec<u8> {
    let split = split(path);
    let mut records = Vec::new();
    if split.is_none() {
        records.extend(record("path", path));
    }
    if size > USTAR_SIZE_MAX {
        records.extend(record("size", &size.to_string()));
    }
    let mut out = Vec::with_capacity(3 * BLOCK as usize);
    if !records.is_empty() {
        out.extend(block("", "././@PaxHeader", 0o644, records.len() as u64, b'x'));
        out.extend(&records);
        out.resize(out.len() + padding(records.len() as u64) as usize, 0);
    }
    let (prefix, name) = split.unwrap_or(("", truncated(path)));
    // A size that a pax record overrides is zero here, as other writers have it.
    out.extend(block(prefix, name, mode, if size > USTAR_SIZE_MAX { 0 } else { size }, b'0'));
    out
}

/// Zero bytes that fill the last block of `size` bytes.
pub(super) fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}

/// The prefix and the name, if they fit in 155 and 100 bytes. ustar says nothing of characters beyond ASCII, pax does:
/// they are UTF-8.
fn split(path: &str) -> Option<(&str, &str)> {
    if !path.is_ascii() {
        None
    } else if path.len() <= 100 {
        Some(("", path))
    } else {
        path.match_indices('/').map(|(i, _)| (&path[..i], &path[i + 1..])).find(|(prefix, name)| {
            // The first slash that leaves a short enough name; a longer prefix can only be worse.
            (1..=100).contains(&name.len()) && (1..=155).contains(&prefix.len())
        })
    }
}

/// What fits of a path whose pax record says it all.
fn truncated(path: &str) -> &str {
    let end = (0..=path.len().min(100)).rev().find(|&i| path.is_char_boundary(i)).unwrap_or(0);
    &path[..end]
}

/// `length key=value\n`, where the length counts its own digits.
fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}").into_bytes()
}

fn block(prefix: &str, name: &str, mode: u32, size: u64, kind: u8) -> [u8; BLOCK as usize] {
    let mut b = [0; BLOCK as usize];
    let mut put = |at: usize, bytes: &[u8]| b[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000"); // uid
    put(116, b"0000000"); // gid
    put(124, format!("{size:011o}").as_bytes());
    put(136, format!("{MTIME:011o}").as_bytes());
    put(148, b"        "); // The checksum counts its own field as spaces.
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    put(329, b"0000000"); // device numbers
    put(337, b"0000000");
    put(345, prefix.as_bytes());
    let sum: u32 = b.iter().map(|&byte| u32::from(byte)).sum();
    b[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    b
}
