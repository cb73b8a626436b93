//! One file, published as it is.

use std::ops::Range;
use std::sync::Arc;

use super::archive::{finished, no_part};
use super::read::{Open, Read, differs};
use crate::error::Result;
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
}

impl FileParts {
    /// File number `file` of a tree, in parts of `part_size` bytes. `None` if there is no such file.
    pub fn new(tree: Arc<ModelTree>, file: usize, part_size: u64) -> Option<Self> {
        let size = tree.files.get(file)?.size;
        let parts = cut(size, part_size);
        Some(FileParts { tree, file, part_size, parts, from: None, read: Read::default() })
    }

    /// The same file, copied from an object with the same content.
    pub fn copying(self, from: CopySource) -> Self {
        let size = self.file().size;
        let parts = cut(size, if size <= COPY_MAX { size } else { COPY });
        FileParts { parts, from: Some(from), ..self }
    }

    fn file(&self) -> &ModelFile {
        &self.tree.files[self.file]
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
        let mut out = vec![0; (range.end - range.start) as usize];
        let mut open = Open::new(&self.tree, &self.read);
        open.read(self.file, range.start, &mut out)?;
        open.close()?;
        Ok(finished(out))
    }

    fn copy(&self, number: u32) -> Option<(CopySource, Range<u64>)> {
        Some((self.from.clone()?, self.part(number)?))
    }

    fn whole(&self) -> Option<Arc<dyn PartSource>> {
        self.from.as_ref()?;
        Some(Arc::new(FileParts::new(self.tree.clone(), self.file, self.part_size)?))
    }

    fn verify(&self, crc64nvme: u64) -> Result<()> {
        let Origin::Disk(disk) = &self.file().origin;
        if crc64nvme == disk.crc64nvme { Ok(()) } else { Err(differs(disk)) }
    }

    fn crc64nvme(&self) -> Option<u64> {
        let Origin::Disk(disk) = &self.file().origin;
        Some(disk.crc64nvme)
    }
}
