//! Parts made from the files: of the archive, or of one file that is published as it is.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum, checksum_combine};

use super::gzip;
use super::layout::{Layout, Piece, tar_header};
use crate::error::{Error, Result};
use crate::local::cache::Stamp;
use crate::local::models::{ModelFile, ModelTree, changed};
use crate::transfer::{Part, PartSource};

/// A `model.tar.gz` that exists only as parts made on demand.
pub struct Archive {
    tree: Arc<ModelTree>,
    layout: Layout,
    parts: Vec<Range<u64>>,
    read: Read,
}

impl Archive {
    /// The archive of a tree, in parts of `part_size` bytes.
    pub fn new(tree: Arc<ModelTree>, part_size: u64) -> Self {
        let layout = Layout::new(&tree);
        let parts = layout.parts(part_size);
        Archive { tree, layout, parts, read: Read::default() }
    }

    /// The positions of its pieces.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The bytes of a range of the archive, which must be inside it.
    pub fn range(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let end = self.layout.total;
        if range.start > range.end || range.end > end {
            return Err(Error::failed(format!("bytes {range:?} are not in an archive of {end}")));
        }
        let mut out = vec![0; (range.end - range.start) as usize];
        let mut open = Open { tree: &self.tree, read: &self.read, current: None };
        let mut at = range.start;
        while at < range.end {
            let rest = &mut out[(at - range.start) as usize..];
            at += self.fill(at, rest, &mut open)?;
        }
        open.close()?;
        Ok(out)
    }

    /// Writes what is at offset `at`, up to the next seam at most; returns how many bytes that was, at least one.
    fn fill(&self, at: u64, out: &mut [u8], open: &mut Open<'_>) -> Result<u64> {
        let content = self.layout.content();
        let body = gzip::HEADER.len() as u64;
        if at < body {
            return Ok(copy(&gzip::HEADER, at, out));
        }
        let trailer = self.layout.total - gzip::TRAILER;
        if at >= trailer {
            return Ok(copy(&gzip::trailer(self.layout.crc32(), content), at - trailer, out));
        }
        let (block, inside) =
            ((at - body) / (gzip::STORED + gzip::STORED_HEADER), (at - body) % (gzip::STORED + gzip::STORED_HEADER));
        let start = block * gzip::STORED;
        let len = gzip::STORED.min(content - start);
        if inside < gzip::STORED_HEADER {
            // `len` is at most 65,535.
            return Ok(copy(&gzip::stored_header(len as u16, start + len == content), inside, out));
        }
        let from = start + inside - gzip::STORED_HEADER;
        let wanted = (start + len - from).min(out.len() as u64);
        let mut done = 0;
        for piece in self.layout.pieces(from..from + wanted, &self.tree) {
            let out = &mut out[done as usize..];
            done += match piece {
                Piece::Header(n, range) => {
                    copy(&tar_header(&self.tree.files[n])[..range.end as usize], range.start, out)
                }
                Piece::Content(n, range) => {
                    let len = range.end - range.start;
                    open.read(n, range.start, &mut out[..len as usize])?;
                    len
                }
                Piece::Zeros(len) => {
                    out[..len as usize].fill(0);
                    len
                }
            };
        }
        Ok(done)
    }
}

/// Copies from `source[at..]` as much as fits.
fn copy(source: &[u8], at: u64, out: &mut [u8]) -> u64 {
    let source = &source[at as usize..];
    let n = source.len().min(out.len());
    out[..n].copy_from_slice(&source[..n]);
    n as u64
}

impl PartSource for Archive {
    fn count(&self) -> u32 {
        self.parts.len() as u32
    }

    fn size(&self, number: u32) -> u64 {
        part(&self.parts, number).map_or(0, |r| r.end - r.start)
    }

    fn produce(&self, number: u32) -> Result<Part> {
        let range = part(&self.parts, number).ok_or_else(|| no_part(number))?;
        Ok(finished(self.range(range)?))
    }

    fn verify(&self, _: u64) -> Result<()> {
        self.read.verify(&self.tree)
    }
}

/// One file, published as it is.
pub struct FileParts {
    tree: Arc<ModelTree>,
    file: usize,
    parts: Vec<Range<u64>>,
    read: Read,
}

impl FileParts {
    /// File number `file` of a tree, in parts of `part_size` bytes. `None` if there is no such file.
    pub fn new(tree: Arc<ModelTree>, file: usize, part_size: u64) -> Option<Self> {
        let size = tree.files.get(file)?.stamp.size;
        let step = part_size.max(1);
        // An empty file is one empty part.
        let parts = (0..size.div_ceil(step).max(1)).map(|n| n * step..size.min((n + 1) * step)).collect();
        Some(FileParts { tree, file, parts, read: Read::default() })
    }

    fn file(&self) -> &ModelFile {
        &self.tree.files[self.file]
    }
}

impl PartSource for FileParts {
    fn count(&self) -> u32 {
        self.parts.len() as u32
    }

    fn size(&self, number: u32) -> u64 {
        part(&self.parts, number).map_or(0, |r| r.end - r.start)
    }

    fn produce(&self, number: u32) -> Result<Part> {
        let range = part(&self.parts, number).ok_or_else(|| no_part(number))?;
        let mut out = vec![0; (range.end - range.start) as usize];
        let mut open = Open { tree: &self.tree, read: &self.read, current: None };
        open.read(self.file, range.start, &mut out)?;
        open.close()?;
        Ok(finished(out))
    }

    fn verify(&self, crc64nvme: u64) -> Result<()> {
        if crc64nvme == self.file().digest.crc64nvme { Ok(()) } else { Err(differs(self.file())) }
    }

    fn crc64nvme(&self) -> Option<u64> {
        Some(self.file().digest.crc64nvme)
    }
}

fn part(parts: &[Range<u64>], number: u32) -> Option<Range<u64>> {
    parts.get((number as usize).checked_sub(1)?).cloned()
}

fn no_part(number: u32) -> Error {
    Error::failed(format!("there is no part {number}"))
}

fn finished(bytes: Vec<u8>) -> Part {
    Part { crc64nvme: checksum(CrcAlgorithm::Crc64Nvme, &bytes), body: Bytes::from(bytes) }
}

/// What was read of each file, to compare with what was scanned.
#[derive(Default)]
struct Read(Mutex<BTreeMap<(usize, u64), (u64, u64)>>);

impl Read {
    /// File and offset -> length and CRC-32.
    fn ranges(&self) -> MutexGuard<'_, BTreeMap<(usize, u64), (u64, u64)>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether every file that was read in whole has the content it was scanned with. A file's stamp says that nobody
    /// wrote to it; this says that the stamp, and the cache, told the truth.
    fn verify(&self, tree: &ModelTree) -> Result<()> {
        let mut sums: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        for (&(n, start), &(len, crc)) in self.ranges().iter() {
            let (end, sum) = sums.entry(n).or_default();
            if start == *end {
                *sum = if start == 0 { crc } else { checksum_combine(CrcAlgorithm::Crc32IsoHdlc, *sum, crc, len) };
                *end += len;
            }
        }
        for (n, (end, sum)) in sums {
            let file = &tree.files[n];
            if end == file.stamp.size && sum != u64::from(file.digest.crc32) {
                return Err(differs(file));
            }
        }
        Ok(())
    }
}

fn differs(file: &ModelFile) -> Error {
    Error::failed(format!("{} is not what it was when its digest was taken", file.source.display()))
        .why("its size and times are the same, its bytes are not")
        .next("run the same command again with --rehash")
}

/// The file that is being read. Neighbouring ranges mostly come from the same one.
struct Open<'a> {
    tree: &'a ModelTree,
    read: &'a Read,
    current: Option<Current>,
}

struct Current {
    n: usize,
    file: File,
    start: u64,
    crc: crc_fast::Digest,
}

impl Open<'_> {
    /// Reads `out.len()` bytes of file `n` from `at`. Ranges of one file come in order.
    fn read(&mut self, n: usize, at: u64, out: &mut [u8]) -> Result<()> {
        let model = &self.tree.files[n];
        let unreadable = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::UnexpectedEof => changed(&model.source),
            _ => Error::io("read", &model.source, &e).next("make it readable again, then run the same command"),
        };
        if self.current.as_ref().is_none_or(|c| c.n != n) {
            self.close()?;
            let file = File::open(&model.source).map_err(unreadable)?;
            unchanged(model, &file)?;
            let crc = crc_fast::Digest::new(CrcAlgorithm::Crc32IsoHdlc);
            self.current = Some(Current { n, file, start: at, crc });
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        current.file.read_exact_at(out, at).map_err(unreadable)?;
        current.crc.update(out);
        Ok(())
    }

    /// Ends with the current file: it must still be what it was when it was opened.
    fn close(&mut self) -> Result<()> {
        let Some(done) = self.current.take() else { return Ok(()) };
        unchanged(&self.tree.files[done.n], &done.file)?;
        self.read.ranges().insert((done.n, done.start), (done.crc.get_amount(), done.crc.finalize()));
        Ok(())
    }
}

fn unchanged(model: &ModelFile, file: &File) -> Result<()> {
    let meta = file.metadata().map_err(|e| Error::io("read", &model.source, &e))?;
    if Stamp::of(&meta) == model.stamp { Ok(()) } else { Err(changed(&model.source)) }
}
