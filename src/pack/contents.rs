//! The files of an archive, how each is kept, and what is known of its length there.

use std::sync::Arc;

use super::choice;
use super::deflate::{PIECE, count};
use super::index::Index;
use super::layout::content_len;
use super::manifest::Manifest;
use super::{Codec, tar};
use crate::config::Compression;
use crate::local::lengths::LengthCache;
use crate::local::models::{ModelFile, ModelTree};

/// What is known of the length of a file's content in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Length {
    /// At most what it would be if it were stored.
    Bound,
    /// The whole, by the index of an archive that has it.
    Told(u64),
    /// Of every piece.
    Pieces(Arc<[u32]>),
}

/// A tree, and how each of its files is kept in the archive.
#[derive(Debug, Clone)]
pub struct Contents {
    pub(super) tree: Arc<ModelTree>,
    compression: Compression,
    kept: Vec<(Codec, Length)>,
}

impl Contents {
    /// As the setting has it. What is decided only when the archive is sent, is stored until [`Contents::recoded`].
    pub fn new(tree: Arc<ModelTree>, compression: Compression) -> Self {
        let codec = |f: &ModelFile| choice::of(compression, f.size, f.gain()).codec();
        let kept = tree.files.iter().map(|f| (codec(f).unwrap_or(Codec::Stored), Length::Bound)).collect();
        Contents { tree, compression, kept }
    }

    /// The same files, kept in other ways: one codec for each.
    pub fn recoded(&self, codecs: &[Codec]) -> Self {
        let mut new = self.clone();
        for (kept, &codec) in new.kept.iter_mut().zip(codecs) {
            if kept.0 != codec {
                *kept = (codec, Length::Bound);
            }
        }
        new
    }

    /// The files.
    pub fn tree(&self) -> &Arc<ModelTree> {
        &self.tree
    }

    /// What names the archive.
    pub fn manifest(&self) -> Manifest {
        Manifest::of(&self.tree, self.compression)
    }

    /// Whether the manifest leaves open how files are kept, so that more than one archive belongs to its key.
    pub fn open(&self) -> bool {
        self.compression == Compression::Adaptive
    }

    /// How each file is kept.
    pub fn codecs(&self) -> Vec<Codec> {
        self.kept.iter().map(|(codec, _)| *codec).collect()
    }

    pub(super) fn codec(&self, n: usize) -> Codec {
        self.kept[n].0
    }

    pub(super) fn length(&self, n: usize) -> &Length {
        &self.kept[n].1
    }

    pub(super) fn set(&mut self, n: usize, length: Length) {
        self.kept[n].1 = length;
    }

    /// Takes what an earlier run found out.
    pub fn known(&mut self, cache: &mut LengthCache) {
        for (file, (codec, length)) in self.tree.files.iter().zip(&mut self.kept) {
            if *codec != Codec::Stored
                && let Some(pieces) = cache.get(&file.sha256, *codec)
                && plausible(&pieces, plain(file))
            {
                *length = Length::Pieces(pieces);
            }
        }
    }

    /// The same, with lengths from the index of an archive that has the same files, where they are not known better.
    fn told(&self, index: &Index) -> Self {
        let mut new = self.clone();
        for n in new.unknown() {
            let file = &self.tree.files[n];
            if let Some(there) = index.content(&hex::encode(file.sha256), file.size, self.codec(n)) {
                new.set(n, Length::Told(there.length));
            }
        }
        new
    }

    /// The same, to be copied from that archive as far as possible: where it is open how files are kept, they are kept
    /// as there.
    pub fn beside(&self, index: &Index) -> Self {
        if self.open() { self.as_in(index).told(index) } else { self.told(index) }
    }

    /// The same without what was told: each of those lengths is a bound.
    pub fn untold(&self) -> Self {
        let mut new = self.clone();
        for (_, length) in &mut new.kept {
            if matches!(length, Length::Told(_)) {
                *length = Length::Bound;
            }
        }
        new
    }

    /// The same files, each kept as an archive has it that is described by an index, and as they are here where it does
    /// not have them.
    fn as_in(&self, index: &Index) -> Self {
        let files = self.tree.files.iter().zip(self.codecs());
        let there = |(file, codec): (&ModelFile, Codec)| {
            let sha256 = hex::encode(file.sha256);
            let there = index.files.iter().find(|f| f.sha256 == sha256 && f.size == file.size);
            // What is not here cannot be compressed here, not even at the edges of what is copied.
            there.filter(|_| !file.is_remote()).map_or(codec, |there| there.codec)
        };
        self.recoded(&files.map(there).collect::<Vec<_>>())
    }

    /// Numbers of the files whose length is only a bound.
    pub(super) fn unknown(&self) -> Vec<usize> {
        let unknown = |n: &usize| self.codec(*n) != Codec::Stored && *self.length(*n) == Length::Bound;
        (0..self.kept.len()).filter(unknown).collect()
    }

    /// Bytes of the files whose length is only a bound.
    pub fn unknown_bytes(&self) -> u64 {
        self.unknown().into_iter().map(|n| self.tree.files[n].size).sum()
    }

    /// Whether every length is known, so that the archive can be made.
    pub fn exact(&self) -> bool {
        self.unknown().is_empty()
    }

    /// Bytes that the content of file `n` takes in the archive, at most.
    pub(super) fn content_len(&self, n: usize) -> u64 {
        let file = &self.tree.files[n];
        match &self.kept[n] {
            (Codec::Stored, _) | (_, Length::Bound) => content_len(file.size),
            (_, Length::Told(length)) => *length,
            (_, Length::Pieces(pieces)) => pieces.iter().map(|&len| u64::from(len)).sum(),
        }
    }

    /// How many files are deflated, and their bytes before and in the archive, at most.
    pub fn deflated(&self) -> (usize, u64, u64) {
        let deflated = (0..self.kept.len()).filter(|&n| self.codec(n) != Codec::Stored);
        deflated.fold((0, 0, 0), |(files, plain, kept), n| {
            (files + 1, plain + self.tree.files[n].size, kept + self.content_len(n))
        })
    }
}

/// Bytes of a file with the zeros behind it.
pub(super) fn plain(file: &ModelFile) -> u64 {
    file.size + tar::padding(file.size)
}

/// Whether so many bytes can have pieces of these lengths.
fn plausible(pieces: &[u32], plain: u64) -> bool {
    let most = super::gzip::framed(PIECE);
    pieces.len() as u64 == count(plain) && pieces.iter().all(|&len| len > 0 && u64::from(len) <= most)
}
