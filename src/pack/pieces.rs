//! The content of deflated files, made piece by piece wherever a part needs it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::contents::{Contents, Length, plain};
use super::deflate::{PIECE, count, piece};
use super::read::{Open, misfit};
use crate::error::Result;
use crate::local::models::ModelFile;

/// The deflated files of an archive.
pub(super) struct Pieces {
    files: Vec<Option<Deflated>>,
    /// Whether a file is not as long in the archive as the index of another one said.
    misled: AtomicBool,
}

struct Deflated {
    level: u32,
    /// Bytes of the segment.
    length: u64,
    /// Lengths of the pieces as far as they are known, from the first on.
    lens: Mutex<Vec<u32>>,
}

impl Deflated {
    fn lens(&self) -> MutexGuard<'_, Vec<u32>> {
        self.lens.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Pieces {
    pub(super) fn new(contents: &Contents) -> Self {
        let file = |n: usize| {
            let lens = match contents.length(n) {
                Length::Pieces(pieces) => pieces.to_vec(),
                Length::Bound | Length::Told(_) => Vec::new(),
            };
            let level = contents.codec(n).level()?;
            Some(Deflated { level, length: contents.content_len(n), lens: Mutex::new(lens) })
        };
        let files = (0..contents.tree.files.len()).map(file).collect();
        Pieces { files, misled: AtomicBool::new(false) }
    }

    /// Whether file `n` is deflated.
    pub(super) fn has(&self, n: usize) -> bool {
        self.files[n].is_some()
    }

    /// Whether a length was wrong that another archive's index told, so that what was made is not the archive.
    pub(super) fn misled(&self) -> bool {
        self.misled.load(Ordering::Relaxed)
    }

    /// What is at offset `inside` of the segment of file `n`. Pieces before it whose lengths are not known are made
    /// too, which is little where mostly the beginnings of files are asked for.
    pub(super) fn content(&self, n: usize, inside: u64, out: &mut [u8], open: &mut Open<'_>) -> Result<()> {
        let Some(file) = &self.files[n] else { return Ok(()) };
        let model = open.model(n);
        let end = inside + out.len() as u64;
        let (mut number, mut at) = (0, 0);
        while at < end && number < count(plain(model)) {
            let known = file.lens().get(number as usize).copied().map(u64::from);
            if let Some(len) = known.filter(|len| at + len <= inside) {
                at += len;
                number += 1;
                continue;
            }
            let made = make(n, number, file.level, open)?;
            let len = made.len() as u64;
            match known {
                Some(known) if known != len => return Err(misfit(model)),
                Some(_) => {}
                None => remember(file, number, len),
            }
            let (from, to) = (at.max(inside), (at + len).min(end));
            if from < to {
                out[(from - inside) as usize..(to - inside) as usize]
                    .copy_from_slice(&made[(from - at) as usize..(to - at) as usize]);
            }
            at += len;
            number += 1;
        }
        // The last piece ends where the segment does, and no other one.
        let done = number == count(plain(model));
        if (done && at != file.length) || (!done && at >= file.length) {
            self.misled.store(true, Ordering::Relaxed);
            out[at.clamp(inside, end).saturating_sub(inside) as usize..].fill(0);
        }
        Ok(())
    }
}

fn remember(file: &Deflated, number: u64, len: u64) {
    let mut lens = file.lens();
    if lens.len() as u64 == number {
        // Less than 2 MiB.
        lens.push(len as u32);
    }
}

/// Piece `number` of file `n`.
pub(super) fn make(n: usize, number: u64, level: u32, open: &mut Open<'_>) -> Result<Vec<u8>> {
    let model: &ModelFile = open.model(n);
    let (start, size) = (number * PIECE, model.size);
    let mut bytes = vec![0; PIECE.min(plain(model) - start) as usize];
    let filled = size.saturating_sub(start).min(bytes.len() as u64) as usize;
    if filled > 0 {
        open.read(n, start, &mut bytes[..filled])?;
        open.cut();
    }
    piece(&bytes, level)
}
