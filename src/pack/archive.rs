//! The archive as parts: made from the files, or copied from an older archive.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum, checksum_combine};

use super::changes::{PlannedPart, Stretch, parts};
use super::gzip;
use super::index::{Holds, Index, IndexFile};
use super::layout::{Kind, Layout, Segment, header_segment, tar_header};
use super::manifest::{Codec, FORMAT, Manifest};
use super::read::{Open, Read};
use crate::error::{Error, Result};
use crate::local::models::{ModelFile, ModelTree, Origin};
use crate::transfer::{Companion, CopySource, Part, PartSource, crc64_text};

/// A `model.tar.gz` that exists only as parts made on demand.
pub struct Archive {
    tree: Arc<ModelTree>,
    layout: Arc<Layout>,
    part_size: u64,
    parts: Vec<PlannedPart>,
    /// What parts are copied from.
    base: Option<Base>,
    read: Read,
    sums: Sums,
}

/// An older archive.
struct Base {
    source: CopySource,
    index: Index,
}

impl Archive {
    /// The archive of a tree, in parts of `part_size` bytes.
    pub fn new(tree: Arc<ModelTree>, part_size: u64) -> Self {
        let layout = Arc::new(Layout::new(&tree));
        Archive::whole(tree, layout, part_size)
    }

    fn whole(tree: Arc<ModelTree>, layout: Arc<Layout>, part_size: u64) -> Self {
        let parts = layout.parts(part_size).into_iter().map(|range| PlannedPart { range, copy: None }).collect();
        Archive { tree, layout, part_size, parts, base: None, read: Read::default(), sums: Sums::default() }
    }

    /// The same archive, of which everything that the older one has too is copied from there. `None` if that is too
    /// little to be worth it, so that the whole has to be sent.
    pub fn copying(&self, source: CopySource, index: Index) -> Option<Self> {
        if self.layout.total <= self.part_size {
            // One request sends it all, and one cannot both copy and send.
            return None;
        }
        let new: Vec<_> = self.layout.segments().iter().map(|s| self.stretch(s)).collect();
        let parts = parts(&new, &index.stretches()?, self.part_size)?;
        let base = Some(Base { source, index });
        let whole = Archive::whole(self.tree.clone(), self.layout.clone(), self.part_size);
        Some(Archive { parts, base, ..whole })
    }

    /// The positions of its segments.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Its parts, in order.
    pub fn parts(&self) -> &[PlannedPart] {
        &self.parts
    }

    /// Bytes that are copied, and not sent.
    pub fn copied(&self) -> u64 {
        self.parts.iter().filter(|p| p.copy.is_some()).map(PlannedPart::len).sum()
    }

    /// The bytes of a range of the archive, which must be inside it.
    pub fn range(&self, range: Range<u64>) -> Result<Vec<u8>> {
        Ok(self.made(range)?.0)
    }

    /// The bytes of a range, and their CRC-64/NVME.
    fn made(&self, range: Range<u64>) -> Result<(Vec<u8>, u64)> {
        let end = self.layout.total;
        if range.start > range.end || range.end > end {
            return Err(Error::failed(format!("bytes {range:?} are not in an archive of {end}")));
        }
        let mut out = vec![0; (range.end - range.start) as usize];
        let mut crc = Joined::default();
        let mut open = Open::new(&self.tree, &self.read);
        for segment in self.layout.touched(&range) {
            let from = segment.range.start.max(range.start);
            let to = segment.range.end.min(range.end);
            let out = &mut out[(from - range.start) as usize..(to - range.start) as usize];
            let inside = from - segment.range.start;
            match segment.kind {
                Kind::Magic => put(&gzip::HEADER, inside, out),
                Kind::Header(n) => put(&header_bytes(&self.tree.files[n]), inside, out),
                Kind::Content(n) => self.content(n, inside, segment, out, &mut open)?,
                Kind::End => put(&self.layout.end(), inside, out),
            }
            let sum = checksum(CrcAlgorithm::Crc64Nvme, out);
            crc.add(sum, to - from);
            if let Kind::Content(n) = segment.kind {
                self.sums.ranges().insert((n, inside), (to - from, sum));
            }
        }
        open.close()?;
        Ok((out, crc.sum))
    }

    /// What is at offset `inside` of the segment of file `n`: blocks, and in them the file and zeros behind it.
    fn content(&self, n: usize, inside: u64, segment: &Segment, out: &mut [u8], open: &mut Open<'_>) -> Result<()> {
        const STEP: u64 = gzip::STORED + gzip::STORED_HEADER;
        let size = self.tree.files[n].size;
        let len = segment.range.end - segment.range.start;
        let plain = len - len.div_ceil(STEP) * gzip::STORED_HEADER;
        let mut at = inside;
        let mut done = 0;
        while done < out.len() {
            let (block, offset) = (at / STEP, at % STEP);
            let start = block * gzip::STORED;
            let filled = gzip::STORED.min(plain - start);
            let rest = &mut out[done..];
            let wrote = if offset < gzip::STORED_HEADER {
                // `filled` is at most 65,535.
                let header = &gzip::stored_header(filled as u16, false)[offset as usize..];
                let wrote = header.len().min(rest.len());
                rest[..wrote].copy_from_slice(&header[..wrote]);
                wrote
            } else {
                let from = start + offset - gzip::STORED_HEADER;
                let wrote = ((start + filled - from) as usize).min(rest.len());
                let bytes = size.saturating_sub(from).min(wrote as u64) as usize;
                if bytes > 0 {
                    open.read(n, from, &mut rest[..bytes])?;
                }
                rest[bytes..wrote].fill(0);
                wrote
            };
            done += wrote;
            at += wrote as u64;
        }
        Ok(())
    }

    /// What a segment holds, and where.
    fn stretch(&self, segment: &Segment) -> Stretch<Holds> {
        let key = match segment.kind {
            Kind::Magic => Holds::Magic,
            Kind::Header(n) => {
                let file = &self.tree.files[n];
                Holds::Header { path: file.path.clone(), mode: file.mode, size: file.size }
            }
            Kind::Content(n) => {
                let file = &self.tree.files[n];
                let sha256 = hex::encode(file.sha256);
                Holds::Content { sha256, size: file.size, codec: Codec::Stored }
            }
            // Two archives that differ anywhere differ in their end.
            Kind::End => Holds::End { size: u64::MAX },
        };
        Stretch { key, range: segment.range.clone() }
    }

    /// The checksum of a file's segment: of what was made here, or as the older archive's index has it.
    fn content_crc(&self, n: usize, segment: &Segment) -> Option<u64> {
        self.sums.whole(n, segment.range.end - segment.range.start).or_else(|| {
            let file = &self.tree.files[n];
            self.base.as_ref()?.index.content_crc(&hex::encode(file.sha256), file.size, Codec::Stored)
        })
    }

    /// The index of this archive, and its checksum as it must be; known once every part that is not copied was made.
    ///
    /// # Errors
    /// A part was never made.
    pub fn index(&self) -> Result<(Index, u64)> {
        let mut crc = Joined::default();
        let mut contents: BTreeMap<usize, (&Segment, u64)> = BTreeMap::new();
        for segment in self.layout.segments() {
            let sum = match segment.kind {
                Kind::Magic => sum(&gzip::HEADER),
                Kind::Header(n) => sum(&header_bytes(&self.tree.files[n])),
                Kind::End => sum(&self.layout.end()),
                Kind::Content(n) => {
                    let sum = self
                        .content_crc(n, segment)
                        .ok_or_else(|| Error::failed(format!("{} was packed in part only", self.tree.files[n].path)))?;
                    contents.insert(n, (segment, sum));
                    sum
                }
            };
            crc.add(sum, segment.range.end - segment.range.start);
        }
        let mut at = gzip::HEADER.len() as u64;
        let mut files = Vec::with_capacity(self.tree.files.len());
        for (n, file) in self.tree.files.iter().enumerate() {
            at += gzip::framed(tar_header(file).len() as u64);
            let (length, crc) = contents.get(&n).map_or((0, 0), |(s, crc)| (s.range.end - s.range.start, *crc));
            let Origin::Disk(disk) = &file.origin;
            files.push(IndexFile {
                path: file.path.clone(),
                mode: format!("{:04o}", file.mode),
                size: file.size,
                sha256: hex::encode(file.sha256),
                codec: Codec::Stored,
                start: at,
                length,
                crc32: format!("{:08x}", disk.crc32),
                crc64nvme: format!("{crc:016x}"),
            });
            at += length;
        }
        let index = Index { format: FORMAT, size: self.layout.total, crc64nvme: crc64_text(crc.sum), files };
        Ok((index, crc.sum))
    }

    fn part(&self, number: u32) -> Option<&PlannedPart> {
        self.parts.get((number as usize).checked_sub(1)?)
    }
}

impl PartSource for Archive {
    fn count(&self) -> u32 {
        self.parts.len() as u32
    }

    fn size(&self, number: u32) -> u64 {
        self.part(number).map_or(0, PlannedPart::len)
    }

    fn produce(&self, number: u32) -> Result<Part> {
        let part = self.part(number).ok_or_else(|| no_part(number))?;
        let (body, crc64nvme) = self.made(part.range.clone())?;
        Ok(Part { body: Bytes::from(body), crc64nvme })
    }

    fn copy(&self, number: u32) -> Option<(CopySource, Range<u64>)> {
        let part = self.part(number)?;
        let from = part.copy?;
        Some((self.base.as_ref()?.source.clone(), from..from + part.len()))
    }

    fn whole(&self) -> Option<Arc<dyn PartSource>> {
        self.base.as_ref()?;
        Some(Arc::new(Archive::whole(self.tree.clone(), self.layout.clone(), self.part_size)))
    }

    fn verify(&self, crc64nvme: u64) -> Result<()> {
        self.read.verify(&self.tree)?;
        if self.index()?.1 == crc64nvme {
            return Ok(());
        }
        Err(match &self.base {
            Some(base) => Error::failed(format!("{} is not what its index says", base.source.key)),
            None => Error::failed("the archive's parts do not add up to the archive"),
        }
        .why("the CRC-64/NVME of all parts differs from that of the files")
        .next("run the same command again with --rehash"))
    }

    fn companion(&self) -> Result<Option<Companion>> {
        let key = Manifest::of(&self.tree).index_key()?;
        Ok(Some(Companion { key, body: Bytes::from(self.index()?.0.text()?) }))
    }
}

fn header_bytes(file: &ModelFile) -> Vec<u8> {
    header_segment(&file.path, file.mode, file.size)
}

/// Copies from `source[at..]` as much as fits.
fn put(source: &[u8], at: u64, out: &mut [u8]) {
    let at = at as usize;
    out.copy_from_slice(&source[at..at + out.len()]);
}

fn sum(bytes: &[u8]) -> u64 {
    checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

pub(super) fn no_part(number: u32) -> Error {
    Error::failed(format!("there is no part {number}"))
}

pub(super) fn finished(bytes: Vec<u8>) -> Part {
    Part { crc64nvme: sum(&bytes), body: Bytes::from(bytes) }
}

/// A CRC-64/NVME put together from those of neighbouring pieces.
#[derive(Default)]
struct Joined {
    sum: u64,
    len: u64,
}

impl Joined {
    fn add(&mut self, sum: u64, len: u64) {
        if len > 0 {
            let first = self.len == 0;
            self.sum = if first { sum } else { checksum_combine(CrcAlgorithm::Crc64Nvme, self.sum, sum, len) };
            self.len += len;
        }
    }
}

/// Checksums of the pieces of segments that were made: file and offset in its segment -> length and CRC-64/NVME.
#[derive(Default)]
struct Sums(Mutex<BTreeMap<(usize, u64), (u64, u64)>>);

impl Sums {
    fn ranges(&self) -> MutexGuard<'_, BTreeMap<(usize, u64), (u64, u64)>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The checksum of all `len` bytes of the segment of file `n`, if all were made.
    fn whole(&self, n: usize, len: u64) -> Option<u64> {
        let mut joined = Joined::default();
        for (&(_, at), &(len, sum)) in self.ranges().range((n, 0)..=(n, u64::MAX)) {
            if at == joined.len {
                joined.add(sum, len);
            }
        }
        (joined.len == len).then_some(joined.sum)
    }
}
