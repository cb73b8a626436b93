//! What packing found out and would only find out again: the lengths of deflated pieces by content and codec, and what
//! `compression: adaptive` chose for an archive whose upload is not complete.
//!
//! A convenience, as the digests are: whatever is missing, damaged, too old or of another version is made anew, and
//! whoever makes a piece compares its length.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crc_fast::{CrcAlgorithm, checksum};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::cache::{now_ns, replace};
use crate::error::{Error, Result};
use crate::pack::{Codec, FORMAT};

/// Format of the file. Another number is ignored.
const VERSION: u32 = 1;

/// Pieces that are kept, those used last before others: 4 bytes each, and 1 MiB of a file each.
const PIECES_MAX: usize = 1 << 18;

/// Choices that are kept: more uploads of one app are not interrupted at a time.
const CHOICES_MAX: usize = 8;

/// Seconds after which what was not used is dropped.
const STALE: i64 = 90 * 24 * 60 * 60;

#[derive(Serialize, Deserialize)]
struct Kept<T> {
    /// Seconds since 1970.
    used: i64,
    what: T,
}

#[derive(Default, Serialize, Deserialize)]
struct Known {
    /// `<sha256>/<codec>` -> lengths.
    pieces: BTreeMap<String, Kept<Arc<[u32]>>>,
    /// Identity -> codecs in the order of the archive.
    choices: BTreeMap<String, Kept<Vec<Codec>>>,
}

#[derive(Serialize, Deserialize)]
struct LengthFile<'a> {
    version: u32,
    /// Of the archives that the lengths belong to.
    format: u32,
    /// CRC-32 of the text of `known`: a digit that is another one would otherwise go unnoticed until the upload.
    crc32: u64,
    #[serde(borrow)]
    known: &'a RawValue,
}

/// The lengths of one project.
#[derive(Default)]
pub struct LengthCache {
    file: Option<PathBuf>,
    known: Known,
    dirty: bool,
}

impl LengthCache {
    /// The cache of the project at `root`: `.comfy-deploy/lengths.json` in it. Never fails: what cannot be read is empty.
    pub fn load(root: &Path) -> Self {
        let cache = LengthCache::anew(root);
        let known = cache.file.as_deref().and_then(read).unwrap_or_default();
        LengthCache { known, ..cache }
    }

    /// The same, empty: what is there is replaced.
    pub fn anew(root: &Path) -> Self {
        let file = root.join(".comfy-deploy").join("lengths.json");
        LengthCache { file: Some(file), ..LengthCache::default() }
    }

    /// A cache that is kept nowhere.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// The lengths of the pieces of a file.
    pub fn get(&mut self, sha256: &[u8; 32], codec: Codec) -> Option<Arc<[u32]>> {
        let kept = self.known.pieces.get_mut(&key(sha256, codec))?;
        kept.used = now();
        Some(kept.what.clone())
    }

    /// Keeps the lengths of the pieces of a file.
    pub fn put(&mut self, sha256: &[u8; 32], codec: Codec, pieces: Arc<[u32]>) {
        self.known.pieces.insert(key(sha256, codec), Kept { used: now(), what: pieces });
        self.dirty = true;
    }

    /// What was chosen for the archive of this identity.
    pub fn choice(&self, identity: &str) -> Option<&[Codec]> {
        Some(&self.known.choices.get(identity)?.what)
    }

    /// Keeps what was chosen for the archive of this identity, until it is there.
    pub fn choose(&mut self, identity: &str, codecs: Option<Vec<Codec>>) {
        match codecs {
            Some(what) => drop(self.known.choices.insert(identity.to_owned(), Kept { used: now(), what })),
            None => drop(self.known.choices.remove(identity)),
        }
        self.dirty = true;
    }

    /// Writes what is new, atomically; does nothing when nothing is.
    pub fn save(&mut self) -> Result<()> {
        let Some(file) = self.file.as_deref().filter(|_| self.dirty) else { return Ok(()) };
        let since = now() - STALE;
        let mut room = PIECES_MAX;
        last_used(&mut self.known.pieces, since, |pieces| {
            room = room.saturating_sub(pieces.len().max(1));
            room > 0
        });
        let mut room = CHOICES_MAX;
        last_used(&mut self.known.choices, since, |_| {
            room = room.saturating_sub(1);
            room > 0
        });
        let bad = |e: serde_json::Error| Error::failed("cannot write the lengths").why(e.to_string());
        let known = serde_json::value::to_raw_value(&self.known).map_err(bad)?;
        let crc32 = checksum(CrcAlgorithm::Crc32IsoHdlc, known.get().as_bytes());
        let text = LengthFile { version: VERSION, format: FORMAT, crc32, known: &known };
        replace(file, &serde_json::to_vec(&text).map_err(bad)?)?;
        self.dirty = false;
        Ok(())
    }
}

/// Drops what was not used `since`, and of the rest what `fits` not, in the order of the last use.
fn last_used<T>(map: &mut BTreeMap<String, Kept<T>>, since: i64, mut fits: impl FnMut(&T) -> bool) {
    let mut entries: Vec<_> = std::mem::take(map).into_iter().filter(|(_, kept)| kept.used >= since).collect();
    entries.sort_by_key(|(_, kept)| std::cmp::Reverse(kept.used));
    map.extend(entries.into_iter().take_while(|(_, kept)| fits(&kept.what)));
}

fn read(file: &Path) -> Option<Known> {
    let text = std::fs::read(file).ok()?;
    let file: LengthFile<'_> = serde_json::from_slice(&text).ok()?;
    let whole = file.crc32 == checksum(CrcAlgorithm::Crc32IsoHdlc, file.known.get().as_bytes());
    let ours = (file.version, file.format) == (VERSION, FORMAT) && whole;
    ours.then(|| serde_json::from_str(file.known.get()).ok())?
}

fn key(sha256: &[u8; 32], codec: Codec) -> String {
    format!("{}/{}", hex::encode(sha256), codec.name())
}

fn now() -> i64 {
    // Seconds until the year 292 billion.
    (now_ns() / 1_000_000_000) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_out_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = LengthCache::load(dir.path());
        cache.put(&[1; 32], Codec::Deflate6, Arc::from([3, 4]));
        cache.choose("id", Some(vec![Codec::Stored, Codec::Deflate2]));
        cache.save().unwrap();
        let mut again = LengthCache::load(dir.path());
        assert_eq!(again.get(&[1; 32], Codec::Deflate6).as_deref(), Some(&[3, 4][..]));
        assert_eq!(again.get(&[1; 32], Codec::Deflate2), None);
        assert_eq!(again.get(&[2; 32], Codec::Deflate6), None);
        assert_eq!(again.choice("id"), Some(&[Codec::Stored, Codec::Deflate2][..]));
        again.choose("id", None);
        again.save().unwrap();
        assert_eq!(LengthCache::load(dir.path()).choice("id"), None);
        assert_eq!(LengthCache::anew(dir.path()).get(&[1; 32], Codec::Deflate6), None);
    }

    #[test]
    fn damage_is_an_empty_cache() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = LengthCache::load(dir.path());
        cache.put(&[1; 32], Codec::Deflate6, Arc::from([123_456]));
        cache.save().unwrap();
        let file = dir.path().join(".comfy-deploy/lengths.json");
        let good = std::fs::read_to_string(&file).unwrap();
        for damaged in [
            good.replace("123456", "123457"),
            good.replace("\"version\":1", "\"version\":0"),
            "{".into(),
            good[..60].into(),
        ] {
            assert_ne!(damaged, good);
            std::fs::write(&file, damaged).unwrap();
            assert_eq!(LengthCache::load(dir.path()).get(&[1; 32], Codec::Deflate6), None);
        }
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = LengthCache::load(dir.path());
        for n in 0..10 {
            cache.put(&[n; 32], Codec::Deflate6, vec![1; PIECES_MAX / 4].into());
            cache.choose(&n.to_string(), Some(Vec::new()));
        }
        for (n, (_, kept)) in cache.known.pieces.iter_mut().enumerate() {
            kept.used -= n as i64;
        }
        cache.known.pieces.get_mut(&key(&[0; 32], Codec::Deflate6)).unwrap().used -= STALE + 60;
        cache.save().unwrap();
        let left = LengthCache::load(dir.path()).known;
        assert!(left.pieces.keys().all(|k| !k.starts_with("00")), "stale");
        assert!(left.pieces.contains_key(&key(&[1; 32], Codec::Deflate6)), "used last");
        assert!(left.pieces.len() < 4 && left.choices.len() < CHOICES_MAX);
    }
}
