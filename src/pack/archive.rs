//! The archive as parts: made from the files, or copied from an older archive.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum, checksum_combine};

use super::buffers::Buffer;
use super::changes::{PlannedPart, Stretch, parts};
use super::contents::Contents;
use super::gzip;
use super::index::{Holds, Index, IndexFile};
use super::layout::{self, Kind, Layout, Segment, header_segment, tar_header};
use super::manifest::FORMAT;
use super::measure::measure;
use super::pieces::Pieces;
use super::read::{Open, Read};
use super::streams::Streams;
use crate::error::{Error, Result};
use crate::local::lengths::LengthCache;
use crate::local::models::{ModelFile, ModelTree, Origin};
use crate::progress::Silent;
use crate::transfer::{Companion, CopySource, Part, PartSource, crc64_text, crc64_value};

/// A `model.tar.gz` that exists only as parts made on demand.
pub struct Archive {
    contents: Contents,
    pieces: Pieces,
    layout: Arc<Layout>,
    part_size: u64,
    parts: Vec<PlannedPart>,
    /// What parts are copied from.
    base: Option<Base>,
    read: Read,
    sums: Sums,
    /// The files that are not on this machine.
    streams: Streams,
}

/// An older archive.
struct Base {
    source: CopySource,
    index: Index,
}

impl Archive {
    /// The archive of these contents, in parts of `part_size` bytes. Only where all lengths are known ([`measure`]), or
    /// told by the index of what is copied from, are its bytes to be had.
    pub fn new(contents: Contents, part_size: u64) -> Self {
        let layout = Arc::new(Layout::new(&contents));
        Archive::whole(contents, layout, part_size)
    }

    fn whole(contents: Contents, layout: Arc<Layout>, part_size: u64) -> Self {
        let parts: Vec<PlannedPart> =
            layout.parts(part_size).into_iter().map(|range| PlannedPart { range, copy: None }).collect();
        let (streams, pieces) = (streams(&contents.tree, &layout, &parts), Pieces::new(&contents));
        let (read, sums) = (Read::default(), Sums::default());
        Archive { contents, pieces, layout, part_size, parts, base: None, read, sums, streams }
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
        let remote = self.tree().files.iter().any(ModelFile::is_remote);
        if remote && index.archive_crc() != crc64_value(&index.crc64nvme) {
            // The CRC-32 of what is copied and never read can only come from there.
            return None;
        }
        let base = Some(Base { source, index });
        let whole = Archive::whole(self.contents.clone(), self.layout.clone(), self.part_size);
        let streams = streams(self.tree(), &self.layout, &parts);
        Some(Archive { parts, base, streams, ..whole })
    }

    /// What is in it.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Bytes of a part, the last and copied ones excepted.
    pub fn part_size(&self) -> u64 {
        self.part_size
    }

    /// Where a part ends in the archive.
    pub fn end_of(&self, number: u32) -> u64 {
        self.part(number).map_or(0, |part| part.range.end)
    }

    /// Of each file, whether the older archive has it in the same way, so that it can be copied.
    pub fn copied_files(&self) -> Vec<bool> {
        let Some(base) = &self.base else { return vec![false; self.tree().files.len()] };
        let there = |(n, file): (usize, &ModelFile)| {
            base.index.content(&hex::encode(file.sha256), file.size, self.contents.codec(n)).is_some()
        };
        self.tree().files.iter().enumerate().map(there).collect()
    }

    /// Where the content of each file begins; the end for an empty file.
    pub fn starts(&self) -> Vec<u64> {
        let mut starts = vec![self.layout.total; self.tree().files.len()];
        for segment in self.layout.segments() {
            if let Kind::Content(n) = segment.kind {
                starts[n] = segment.range.start;
            }
        }
        starts
    }

    fn tree(&self) -> &ModelTree {
        &self.contents.tree
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
        Ok(self.made(range, false)?.0.to_vec())
    }

    /// The bytes of a range, and their CRC-64/NVME. As a part of the archive, of remote files they are hashed, which waits
    /// for all parts before it; and the end waits for all of those files.
    fn made(&self, range: Range<u64>, part: bool) -> Result<(Buffer, u64)> {
        let end = self.layout.total;
        if range.start > range.end || range.end > end {
            return Err(Error::failed(format!("bytes {range:?} are not in an archive of {end}")));
        }
        let mut out = Buffer::new((range.end - range.start) as usize);
        let mut crc = Joined::default();
        let mut open = Open::new(self.tree(), &self.read, &self.streams);
        for segment in self.layout.touched(&range) {
            let from = segment.range.start.max(range.start);
            let to = segment.range.end.min(range.end);
            let out = &mut out[(from - range.start) as usize..(to - range.start) as usize];
            let inside = from - segment.range.start;
            match segment.kind {
                Kind::Magic => put(&gzip::HEADER, inside, out),
                Kind::Header(n) => put(&header_bytes(&self.tree().files[n]), inside, out),
                Kind::Content(n) => self.content(n, inside, segment, out, &mut open)?,
                Kind::End => put(&self.end(part)?, inside, out),
            }
            let sum = checksum(CrcAlgorithm::Crc64Nvme, out);
            crc.add(sum, to - from);
            if let Kind::Content(n) = segment.kind {
                let file = &self.tree().files[n];
                if !file.is_remote() {
                    self.sums.ranges().insert((n, inside), (to - from, sum));
                } else if part {
                    // What is sent must be what was hashed. Headers of blocks and zeros behind the file are ours.
                    let plain = remote_range(inside, out, file.size);
                    if !plain.is_empty() {
                        let bytes = gzip::unframed(out, inside, file.size);
                        self.streams.hash(n, file, plain.start, bytes, sum)?;
                    }
                    self.sums.ranges().entry((n, inside)).or_insert((to - from, sum));
                }
            }
        }
        open.close()?;
        Ok((out, crc.sum))
    }

    /// What is at offset `inside` of the segment of file `n`: if it is stored, blocks, and in them the file and zeros
    /// behind it.
    fn content(&self, n: usize, inside: u64, segment: &Segment, out: &mut [u8], open: &mut Open<'_>) -> Result<()> {
        const STEP: u64 = gzip::STEP;
        if self.pieces.has(n) {
            return self.pieces.content(n, inside, out, open);
        }
        let size = self.tree().files[n].size;
        let len = segment.range.end - segment.range.start;
        let plain = len - len.div_ceil(STEP) * gzip::STORED_HEADER;
        open.begin(n, remote_range(inside, out, size));
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
        open.end();
        Ok(())
    }

    /// All bytes of the last segment.
    fn end(&self, wait: bool) -> Result<Vec<u8>> {
        Ok(self.layout.end(layout::crc32(self.tree(), |n| self.crc32(n, wait))?))
    }

    /// CRC-32 of a file: taken before, while it was read, or as the older archive's index has it.
    fn crc32(&self, n: usize, wait: bool) -> Result<u32> {
        let file = &self.tree().files[n];
        if let Origin::Disk(disk) = &file.origin {
            return Ok(disk.crc32);
        }
        if let Some(crc32) = self.streams.crc32(n, wait)? {
            return Ok(crc32);
        }
        let sha256 = hex::encode(file.sha256);
        let there =
            self.base.as_ref().and_then(|base| base.index.content_crc32(&sha256, file.size, self.contents.codec(n)));
        there.ok_or_else(|| Error::failed(format!("{} was read in part only", file.path)))
    }

    /// What a segment holds, and where.
    fn stretch(&self, segment: &Segment) -> Stretch<Holds> {
        let key = match segment.kind {
            Kind::Magic => Holds::Magic,
            Kind::Header(n) => {
                let file = &self.tree().files[n];
                Holds::Header { path: file.path.clone(), mode: file.mode, size: file.size }
            }
            Kind::Content(n) => {
                let file = &self.tree().files[n];
                let sha256 = hex::encode(file.sha256);
                Holds::Content { sha256, size: file.size, codec: self.contents.codec(n) }
            }
            // Two archives that differ anywhere differ in their end.
            Kind::End => Holds::End { size: u64::MAX },
        };
        Stretch { key, range: segment.range.clone() }
    }

    /// The checksum of a file's segment: of what was made here, or as the older archive's index has it.
    fn content_crc(&self, n: usize, segment: &Segment) -> Option<u64> {
        self.sums.whole(n, segment.range.end - segment.range.start).or_else(|| {
            let file = &self.tree().files[n];
            self.base.as_ref()?.index.content_crc(&hex::encode(file.sha256), file.size, self.contents.codec(n))
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
                Kind::Header(n) => sum(&header_bytes(&self.tree().files[n])),
                Kind::End => sum(&self.end(false)?),
                Kind::Content(n) => {
                    let sum = self.content_crc(n, segment).ok_or_else(|| {
                        Error::failed(format!("{} was packed in part only", self.tree().files[n].path))
                    })?;
                    contents.insert(n, (segment, sum));
                    sum
                }
            };
            crc.add(sum, segment.range.end - segment.range.start);
        }
        let mut at = gzip::HEADER.len() as u64;
        let mut files = Vec::with_capacity(self.tree().files.len());
        for (n, file) in self.tree().files.iter().enumerate() {
            at += gzip::framed(tar_header(file).len() as u64);
            let (length, crc) = contents.get(&n).map_or((0, 0), |(s, crc)| (s.range.end - s.range.start, *crc));
            files.push(IndexFile {
                path: file.path.clone(),
                mode: format!("{:04o}", file.mode),
                size: file.size,
                sha256: hex::encode(file.sha256),
                codec: self.contents.codec(n),
                start: at,
                length,
                crc32: format!("{:08x}", self.crc32(n, false)?),
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
        // Whoever waits for this part will wait in vain.
        let (body, crc64nvme) = self.made(part.range.clone(), true).inspect_err(|e| self.streams.fail(e, false))?;
        Ok(Part { body: Bytes::from_owner(body), crc64nvme })
    }

    fn copy(&self, number: u32) -> Option<(CopySource, Range<u64>)> {
        let part = self.part(number)?;
        let from = part.copy?;
        Some((self.base.as_ref()?.source.clone(), from..from + part.len()))
    }

    fn copies(&self) -> bool {
        self.base.is_some()
    }

    fn whole(&self) -> Result<Option<Arc<dyn PartSource>>> {
        if self.base.is_none() {
            return Ok(None);
        }
        // What the older archive told need not be true, nor is it enough to make all of it.
        let contents = self.contents.untold();
        let contents = measure(&contents, &mut LengthCache::in_memory(), &Silent, &AtomicBool::new(false))?;
        Ok(Some(Arc::new(Archive::new(contents, self.part_size))))
    }

    fn fixed(&self) -> bool {
        !self.contents.open()
    }

    fn verify(&self, crc64nvme: u64) -> Result<()> {
        self.read.verify(self.tree())?;
        self.streams.verify(self.tree())?;
        if self.index()?.1 == crc64nvme && !self.pieces.misled() {
            return Ok(());
        }
        Err(match &self.base {
            Some(base) => Error::failed(format!("{} is not what its index says", base.source.key)),
            None => Error::failed("the archive's parts do not add up to the archive"),
        }
        .why("the CRC-64/NVME of all parts differs from that of the files")
        .next("run the same command again with --rehash"))
    }

    fn again(&self) -> bool {
        self.streams.again() || self.read.again()
    }

    fn abandon(&self) {
        self.streams.abandon();
    }

    fn companion(&self) -> Result<Option<Companion>> {
        let key = self.contents.manifest().index_key()?;
        Ok(Some(Companion { key, body: Bytes::from(self.index()?.0.text()?) }))
    }
}

/// Of a file of `size` bytes those that are in `out`, which begins at offset `inside` of its segment.
fn remote_range(inside: u64, out: &[u8], size: u64) -> Range<u64> {
    gzip::plain(inside).min(size)..gzip::plain(inside + out.len() as u64).min(size)
}

/// The remote files, hashed where no byte of them is copied.
fn streams(tree: &ModelTree, layout: &Layout, parts: &[PlannedPart]) -> Streams {
    let contents = |segments: &[Segment]| -> Vec<usize> {
        segments.iter().filter_map(|s| if let Kind::Content(n) = s.kind { Some(n) } else { None }).collect()
    };
    let mut whole: BTreeSet<usize> = contents(layout.segments()).into_iter().collect();
    for part in parts.iter().filter(|part| part.copy.is_some()) {
        for n in contents(layout.touched(&part.range)) {
            whole.remove(&n);
        }
    }
    Streams::new(tree, |n| whole.contains(&n))
}

fn header_bytes(file: &ModelFile) -> Vec<u8> {
    header_segment(&file.path, file.mode, file.size)
}

/// Copies from `source[at..]` as much as fits.
fn put(source: &[u8], at: u64, out: &mut [u8]) {
    let at = at as usize;
    out.copy_from_slice(&source[at..at + out.len()]);
}

pub(super) fn sum(bytes: &[u8]) -> u64 {
    checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

pub(super) fn no_part(number: u32) -> Error {
    Error::failed(format!("there is no part {number}"))
}

pub(super) fn finished(bytes: Buffer) -> Part {
    Part { crc64nvme: sum(&bytes), body: Bytes::from_owner(bytes) }
}

/// A CRC-64/NVME put together from those of neighbouring pieces.
#[derive(Default)]
pub(super) struct Joined {
    pub(super) sum: u64,
    len: u64,
}

impl Joined {
    pub(super) fn add(&mut self, sum: u64, len: u64) {
        if len > 0 {
            let first = self.len == 0;
            self.sum = if first { sum } else { checksum_combine(CrcAlgorithm::Crc64Nvme, self.sum, sum, len) };
            self.len += len;
        }
    }
}

/// Checksums of the pieces of segments that were made: file and offset in its segment -> length and CRC-64/NVME.
#[derive(Default)]
pub(super) struct Sums(Mutex<BTreeMap<(usize, u64), (u64, u64)>>);

impl Sums {
    pub(super) fn ranges(&self) -> MutexGuard<'_, BTreeMap<(usize, u64), (u64, u64)>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The checksum of all `len` bytes of the segment of file `n`, if all were made.
    pub(super) fn whole(&self, n: usize, len: u64) -> Option<u64> {
        let mut joined = Joined::default();
        for (&(_, at), &(len, sum)) in self.ranges().range((n, 0)..=(n, u64::MAX)) {
            if at == joined.len {
                joined.add(sum, len);
            }
        }
        (joined.len == len).then_some(joined.sum)
    }
}
