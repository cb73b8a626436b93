//! Where everything is in an archive, computed from names, digests, and how long each content is there.
//!
//! An archive is a row of segments, and each begins at a whole byte with a deflate block of its own: the bytes of a
//! segment depend on what it holds and not on where it is. So what two archives share is byte ranges of both.

use std::ops::Range;

use crc_fast::{CrcAlgorithm, checksum, checksum_combine};

use super::contents::Contents;
use super::{gzip, tar};
use crate::error::Result;
use crate::local::models::{ModelFile, ModelTree};

/// The positions of an archive's segments.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Bytes of the whole `model.tar.gz`.
    pub total: u64,
    /// In order, without gaps.
    segments: Vec<Segment>,
    /// Bytes of the tar file.
    plain: u64,
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its bytes in the archive.
    pub range: Range<u64>,
    /// What it holds.
    pub kind: Kind,
}

/// What a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The header of the gzip member.
    Magic,
    /// The tar header of file `n`.
    Header(usize),
    /// The bytes of file `n`, and the zeros that fill its last block. An empty file has none.
    Content(usize),
    /// The two zero blocks, the last deflate block, and the end of the member.
    End,
}

impl Layout {
    /// The layout of an archive; of the longest one there can be, where lengths are not known exactly.
    pub fn new(contents: &Contents) -> Self {
        let mut row = Row::default();
        let mut plain = 0;
        row.push(gzip::HEADER.len() as u64, Kind::Magic);
        for (n, file) in contents.tree.files.iter().enumerate() {
            let header = tar_header(file);
            let (size, padding) = (file.size, tar::padding(file.size));
            row.push(gzip::framed(header.len() as u64), Kind::Header(n));
            row.push(contents.content_len(n), Kind::Content(n));
            plain += header.len() as u64 + size + padding;
        }
        row.push(end_len(), Kind::End);
        Layout { total: row.at, segments: row.segments, plain: plain + tar::END }
    }

    /// The byte range of every part of `part_size` bytes; the last may be shorter.
    pub fn parts(&self, part_size: u64) -> Vec<Range<u64>> {
        let size = part_size.max(1);
        (0..self.total.div_ceil(size)).map(|n| n * size..self.total.min((n + 1) * size)).collect()
    }

    /// All segments, in order.
    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The segments that a range touches.
    pub(super) fn touched(&self, range: &Range<u64>) -> &[Segment] {
        let first = self.segments.partition_point(|s| s.range.end <= range.start);
        let end = self.segments.partition_point(|s| s.range.start < range.end);
        &self.segments[first.min(end)..end]
    }

    /// All bytes of the last segment, of a tar file with this CRC-32.
    pub(super) fn end(&self, crc32: u32) -> Vec<u8> {
        end(crc32, self.plain)
    }
}

/// Segments, one behind the other.
#[derive(Default)]
struct Row {
    segments: Vec<Segment>,
    at: u64,
}

impl Row {
    fn push(&mut self, len: u64, kind: Kind) {
        if len > 0 {
            self.segments.push(Segment { range: self.at..self.at + len, kind });
            self.at += len;
        }
    }
}

/// CRC-32 of the tar file, from those of the contents.
///
/// # Errors
/// Of `content`.
pub(super) fn crc32(tree: &ModelTree, content: impl Fn(usize) -> Result<u32>) -> Result<u32> {
    let mut crc32 = 0;
    for (n, file) in tree.files.iter().enumerate() {
        crc32 = with_file(crc32, &tar_header(file), content(n)?, file.size);
    }
    Ok(with_end(crc32))
}

/// The CRC-32 of the beginning of a tar file, and one more file behind it.
pub(super) fn with_file(before: u64, header: &[u8], content: u32, size: u64) -> u64 {
    let padding = tar::padding(size);
    let crc32 = combine(before, checksum(CrcAlgorithm::Crc32IsoHdlc, header), header.len() as u64);
    combine(combine(crc32, u64::from(content), size), zeros_crc(padding), padding)
}

/// The CRC-32 of a tar file, from that of all its files.
pub(super) fn with_end(files: u64) -> u32 {
    // A CRC-32 in a u64.
    combine(files, zeros_crc(tar::END), tar::END) as u32
}

/// All bytes of the last segment, of a tar file of so many bytes with this CRC-32.
pub(super) fn end(crc32: u32, plain: u64) -> Vec<u8> {
    // 1,024 bytes fit into a block.
    let mut out = gzip::stored_header(tar::END as u16, true).to_vec();
    out.resize(out.len() + tar::END as usize, 0);
    out.extend(gzip::trailer(crc32, plain));
    out
}

/// The tar header of a file.
pub(super) fn tar_header(file: &ModelFile) -> Vec<u8> {
    tar::header(&file.path, file.mode, file.size)
}

/// All bytes of the segment of a file's header.
pub(super) fn header_segment(path: &str, mode: u32, size: u64) -> Vec<u8> {
    gzip::stored(&tar::header(path, mode, size))
}

/// Bytes of the segment of a file's content, as it is kept when it is stored.
pub(super) fn content_len(size: u64) -> u64 {
    gzip::framed(size + tar::padding(size))
}

/// Bytes of the last segment.
pub(super) fn end_len() -> u64 {
    gzip::framed(tar::END) + gzip::TRAILER
}

fn combine(first: u64, second: u64, second_len: u64) -> u64 {
    // Combining with nothing is the identity, which the formula does not promise.
    if second_len == 0 { first } else { checksum_combine(CrcAlgorithm::Crc32IsoHdlc, first, second, second_len) }
}

fn zeros_crc(len: u64) -> u64 {
    checksum(CrcAlgorithm::Crc32IsoHdlc, &[0; tar::END as usize][..len as usize])
}
