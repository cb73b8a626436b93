//! Where everything is in an archive that was sent: the small object beside it, by which a later archive finds what it
//! can copy. It says nothing that its archive does not determine, so writing it twice is writing the same.

use serde::{Deserialize, Serialize};

use super::archive::{Joined, sum};
use super::changes::Stretch;
use super::choice::Codec;
use super::deflate::RATIO_MAX;
use super::layout::{self, content_len, end_len, header_segment};
use super::manifest::FORMAT;
use super::{gzip, tar};
use crate::error::{Error, Result};

/// What is in an archive, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Version of the archive's format.
    pub format: u32,
    /// Bytes of the archive.
    pub size: u64,
    /// CRC-64/NVME of the archive, as S3 writes it.
    pub crc64nvme: String,
    /// The files, in the order of the archive.
    pub files: Vec<IndexFile>,
}

/// One file of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexFile {
    /// Path in the artifact.
    pub path: String,
    /// `0644` or `0755`.
    pub mode: String,
    /// Bytes of the file.
    pub size: u64,
    /// Of the file, in hex.
    pub sha256: String,
    /// How it is kept.
    pub codec: Codec,
    /// Where the segment of its content begins in the archive.
    pub start: u64,
    /// Bytes of that segment in the archive.
    pub length: u64,
    /// CRC-32 of the file, in hex.
    pub crc32: String,
    /// CRC-64/NVME of that segment as it is in the archive, in hex.
    pub crc64nvme: String,
}

/// What a segment holds: equal ones are equal bytes, in every archive of one format.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Holds {
    Magic,
    Header {
        path: String,
        mode: u32,
        size: u64,
    },
    Content {
        sha256: String,
        size: u64,
        codec: Codec,
    },
    /// The end holds sums of everything before it: it is never equal.
    End {
        size: u64,
    },
}

impl Index {
    /// Reads an index. `None` if it is not one of this format, or does not describe an archive of its size: then it is
    /// of no use, and nothing is copied.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let index: Index = serde_json::from_slice(text).ok()?;
        let end = index.stretches()?.last()?.range.clone();
        (index.format == FORMAT && end.end - end.start == end_len()).then_some(index)
    }

    /// The text to keep.
    ///
    /// # Errors
    /// None that this type can cause.
    pub fn text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::failed("cannot write the archive's index").why(e.to_string()))
    }

    /// The file with this content, kept in this way.
    pub(super) fn content(&self, sha256: &str, size: u64, codec: Codec) -> Option<&IndexFile> {
        self.files.iter().find(|f| f.sha256 == sha256 && f.size == size && f.codec == codec)
    }

    /// The CRC-64/NVME of the content of a file that this archive holds.
    pub(super) fn content_crc(&self, sha256: &str, size: u64, codec: Codec) -> Option<u64> {
        u64::from_str_radix(&self.content(sha256, size, codec)?.crc64nvme, 16).ok()
    }

    /// The CRC-32 of a file that this archive holds.
    pub(super) fn content_crc32(&self, sha256: &str, size: u64, codec: Codec) -> Option<u32> {
        let file = self.files.iter().find(|f| f.sha256 == sha256 && f.size == size && f.codec == codec)?;
        u32::from_str_radix(&file.crc32, 16).ok()
    }

    /// The CRC-64/NVME of the archive as it follows from all that is said of the files: their CRC-32 is in the bytes of
    /// the end. `None` if something cannot be read.
    pub(super) fn archive_crc(&self) -> Option<u64> {
        let (mut crc, mut plain, mut crc32) = (Joined::default(), 0, 0);
        crc.add(sum(&gzip::HEADER), gzip::HEADER.len() as u64);
        for file in &self.files {
            let mode = u32::from_str_radix(&file.mode, 8).ok()?;
            let segment = header_segment(&file.path, mode, file.size);
            crc.add(sum(&segment), segment.len() as u64);
            crc.add(u64::from_str_radix(&file.crc64nvme, 16).ok()?, file.length);
            let header = tar::header(&file.path, mode, file.size);
            let content = u32::from_str_radix(&file.crc32, 16).ok()?;
            crc32 = layout::with_file(crc32, &header, content, file.size);
            plain += header.len() as u64 + file.size + tar::padding(file.size);
        }
        let end = layout::end(layout::with_end(crc32), plain + tar::END);
        crc.add(sum(&end), end.len() as u64);
        Some(crc.sum)
    }

    /// The segments of the archive; `None` if the index contradicts itself.
    pub(super) fn stretches(&self) -> Option<Vec<Stretch<Holds>>> {
        let mut row = vec![Stretch { key: Holds::Magic, range: 0..gzip::HEADER.len() as u64 }];
        let mut at = gzip::HEADER.len() as u64;
        for file in &self.files {
            let mode = u32::from_str_radix(&file.mode, 8).ok()?;
            let header = header_segment(&file.path, mode, file.size).len() as u64;
            row.push(Stretch {
                key: Holds::Header { path: file.path.clone(), mode, size: file.size },
                range: at..at.checked_add(header)?,
            });
            at += header;
            // No file is larger than any object can be; beyond that the arithmetic would end.
            if file.size > 1 << 50 {
                return None;
            }
            if file.start != at || !fits(file) {
                return None;
            }
            let end = at.checked_add(file.length)?;
            row.push(Stretch {
                key: Holds::Content { sha256: file.sha256.clone(), size: file.size, codec: file.codec },
                range: at..end,
            });
            at = end;
        }
        (at < self.size).then(|| row.push(Stretch { key: Holds::End { size: self.size }, range: at..self.size }))?;
        Some(row)
    }
}

/// Whether the content of a file can have that length in an archive.
fn fits(file: &IndexFile) -> bool {
    let most = content_len(file.size);
    match file.codec {
        Codec::Stored => file.length == most,
        // How long exactly, only those know who made it.
        _ => (file.size + tar::padding(file.size)).div_ceil(RATIO_MAX) <= file.length && file.length <= most,
    }
}
