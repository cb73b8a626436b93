//! Where everything is in an archive, computed from names and sizes alone.

use std::ops::Range;

use crc_fast::{CrcAlgorithm, checksum, checksum_combine};

use super::{gzip, tar};
use crate::local::models::{ModelFile, ModelTree};

/// The positions of an archive's pieces.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Bytes of the whole `model.tar.gz`.
    pub total: u64,
    /// Bytes of the tar file in it.
    content: u64,
    /// Of each file: where its header begins in the tar file, and where its bytes do.
    starts: Vec<(u64, u64)>,
    /// CRC-32 of the tar file.
    crc32: u32,
}

/// A piece of the tar file: what a range of it consists of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Bytes of the header of file `n`.
    Header(usize, Range<u64>),
    /// Bytes of file `n`.
    Content(usize, Range<u64>),
    /// So many zero bytes.
    Zeros(u64),
}

impl Layout {
    /// The layout of a tree's archive.
    pub fn new(tree: &ModelTree) -> Self {
        let mut at = 0;
        let mut crc32 = 0;
        let mut starts = Vec::with_capacity(tree.files.len());
        for file in &tree.files {
            let header = tar_header(file);
            let (size, padding) = (file.stamp.size, tar::padding(file.stamp.size));
            starts.push((at, at + header.len() as u64));
            at += header.len() as u64 + size + padding;
            let header_crc = checksum(CrcAlgorithm::Crc32IsoHdlc, &header);
            crc32 = combine(crc32, header_crc, header.len() as u64);
            crc32 = combine(crc32, u64::from(file.digest.crc32), size);
            crc32 = combine(crc32, zeros_crc(padding), padding);
        }
        crc32 = combine(crc32, zeros_crc(tar::END), tar::END);
        let content = at + tar::END;
        // A CRC-32 in a u64.
        Layout { total: gzip::total(content), content, starts, crc32: crc32 as u32 }
    }

    /// The byte range of every part of `part_size` bytes; the last may be shorter.
    pub fn parts(&self, part_size: u64) -> Vec<Range<u64>> {
        let size = part_size.max(1);
        (0..self.total.div_ceil(size)).map(|n| n * size..self.total.min((n + 1) * size)).collect()
    }

    /// Bytes of the tar file.
    pub(super) fn content(&self) -> u64 {
        self.content
    }

    /// CRC-32 of the tar file.
    pub(super) fn crc32(&self) -> u32 {
        self.crc32
    }

    /// What a range of the tar file consists of, in order.
    pub(super) fn pieces(&self, range: Range<u64>, tree: &ModelTree) -> Vec<Piece> {
        let mut out = Vec::new();
        let mut at = range.start;
        let mut n = self.starts.partition_point(|&(header, _)| header <= at).saturating_sub(1);
        while at < range.end {
            let Some(&(header, bytes)) = self.starts.get(n) else {
                out.push(Piece::Zeros(range.end - at));
                break;
            };
            let end = bytes + tree.files[n].stamp.size;
            let next = self.starts.get(n + 1).map_or(self.content, |&(header, _)| header);
            let until = |limit: u64| limit.min(range.end);
            if at < bytes {
                out.push(Piece::Header(n, at - header..until(bytes) - header));
                at = until(bytes);
            }
            if (bytes..end).contains(&at) && at < range.end {
                out.push(Piece::Content(n, at - bytes..until(end) - bytes));
                at = until(end);
            }
            if (end..next).contains(&at) && at < range.end {
                out.push(Piece::Zeros(until(next) - at));
                at = until(next);
            }
            n += 1;
        }
        out
    }
}

/// The tar header of a file.
pub(super) fn tar_header(file: &ModelFile) -> Vec<u8> {
    tar::header(&file.path, file.mode, file.stamp.size)
}

fn combine(first: u64, second: u64, second_len: u64) -> u64 {
    // Combining with nothing is the identity, which the formula does not promise.
    if second_len == 0 { first } else { checksum_combine(CrcAlgorithm::Crc32IsoHdlc, first, second, second_len) }
}

fn zeros_crc(len: u64) -> u64 {
    checksum(CrcAlgorithm::Crc32IsoHdlc, &[0; tar::END as usize][..len as usize])
}
