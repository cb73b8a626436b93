//! One file, published as it is.

use std::ops::Range;
use std::sync::Arc;

use super::archive::{Sums, finished, no_part};
use super::buffers::Buffer;
use super::read::{Open, Read, differs};
use super::streams::Streams;
use crate::error::{Error, Result};
use crate::local::models::{ModelFile, ModelTree, Origin};
use crate::transfer::{CopySource, Part, PartSource};

/// Most bytes that one request copies ("Amazon S3 multipart upload limits", and CopyObject).
const COPY_MAX: u64 = 5 << 30;

/// What is copied at a time of a larger file.
const COPY: u64 = 1 << 30;

/// One file of a tree.
pub struct FileParts {
    tree: Arc<ModelTree>,
    file: usize,
    part_size: u64,
    parts: Vec<Range<u64>>,
    from: Option<CopySource>,
    read: Read,
    sums: Sums,
    streams: Streams,
    /// CRC-64/NVME of the file, if it is known before it is read.
    crc64nvme: Option<u64>,
}

impl FileParts {
    /// File number `file` of a tree, in parts of `part_size` bytes. `None` if there is no such file.
    pub fn new(tree: Arc<ModelTree>, file: usize, part_size: u64) -> Option<Self> {
        let model = tree.files.get(file)?;
        let crc64nvme = match &model.origin {
            Origin::Disk(disk) => Some(disk.crc64nvme),
            Origin::Remote(_) => None,
        };
        let (parts, streams) = (cut(model.size, part_size), Streams::new(&tree, |n| n == file));
        let (read, sums) = (Read::default(), Sums::default());
        Some(FileParts { tree, file, part_size, parts, from: None, read, sums, streams, crc64nvme })
    }

    /// The same file, copied from an object with the same content, whose CRC-64/NVME this is, if it is known.
    pub fn copying(self, from: CopySource, crc64nvme: Option<u64>) -> Self {
        let size = self.file().size;
        let parts = cut(size, if size <= COPY_MAX { size } else { COPY });
        FileParts { parts, from: Some(from), crc64nvme: self.crc64nvme.or(crc64nvme), ..self }
    }

    fn file(&self) -> &ModelFile {
        &self.tree.files[self.file]
    }

    fn made(&self, range: Range<u64>) -> Result<Part> {
        let (n, start) = (self.file, range.start);
        let mut out = Buffer::new((range.end - range.start) as usize);
        let mut open = Open::new(&self.tree, &self.read, &self.streams);
        open.begin(n, range);
        open.read(n, start, &mut out)?;
        open.end();
        open.close()?;
        let part = finished(out);
        if self.file().is_remote() {
            self.streams.hash(n, self.file(), start, std::iter::once(&*part.body), part.crc64nvme)?;
            self.sums.ranges().entry((n, start)).or_insert((part.body.len() as u64, part.crc64nvme));
        }
        Ok(part)
    }

    fn part(&self, number: u32) -> Option<Range<u64>> {
        self.parts.get((number as usize).checked_sub(1)?).cloned()
    }
}

/// An empty file is one empty part.
fn cut(size: u64, step: u64) -> Vec<Range<u64>> {
    let step = step.max(1);
    (0..size.div_ceil(step).max(1)).map(|n| n * step..size.min((n + 1) * step)).collect()
}

impl PartSource for FileParts {
    fn count(&self) -> u32 {
        self.parts.len() as u32
    }

    fn size(&self, number: u32) -> u64 {
        self.part(number).map_or(0, |r| r.end - r.start)
    }

    fn produce(&self, number: u32) -> Result<Part> {
        let range = self.part(number).ok_or_else(|| no_part(number))?;
        // Whoever waits for this part will wait in vain.
        self.made(range).inspect_err(|e| self.streams.fail(e, false))
    }

    fn copy(&self, number: u32) -> Option<(CopySource, Range<u64>)> {
        Some((self.from.clone()?, self.part(number)?))
    }

    fn copies(&self) -> bool {
        self.from.is_some()
    }

    fn whole(&self) -> Result<Option<Arc<dyn PartSource>>> {
        let whole = self.from.as_ref().and_then(|_| FileParts::new(self.tree.clone(), self.file, self.part_size));
        Ok(whole.map(|whole| Arc::new(whole) as Arc<dyn PartSource>))
    }

    fn verify(&self, crc64nvme: u64) -> Result<()> {
        let file = self.file();
        match &file.origin {
            Origin::Disk(disk) if crc64nvme != disk.crc64nvme => Err(differs(disk)),
            Origin::Disk(_) => Ok(()),
            Origin::Remote(_) if self.from.is_some() => match self.crc64nvme {
                Some(known) if known != crc64nvme => Err(Error::failed(format!("{} was copied wrongly", file.path))),
                _ => Ok(()),
            },
            Origin::Remote(_) => {
                self.streams.verify(&self.tree)?;
                match self.sums.whole(self.file, file.size) {
                    Some(hashed) if hashed == crc64nvme => Ok(()),
                    _ => Err(Error::failed(format!("the parts of {} do not add up to it", file.path))),
                }
            }
        }
    }

    fn again(&self) -> bool {
        self.streams.again() || self.read.again()
    }

    fn abandon(&self) {
        self.streams.abandon();
    }

    fn crc64nvme(&self) -> Option<u64> {
        self.crc64nvme
    }
}
