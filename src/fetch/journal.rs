//! The `.part` file of a download and its journal: which content was begun, and which ranges of it arrived. What the
//! journal says only saves work: the sha256 of the whole decides in the end. Where no hub and no config says one, what the
//! journal says must be true, so it is not believed after the machine was started anew.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// Bytes that may arrive before the journal is written again: what a lost process costs at most.
const EVERY: u64 = 8 << 20;

/// What arrived, as sorted ranges that do not touch: first byte and the one past the last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds a range, which may overlap.
    pub(super) fn add(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let (mut from, mut to) = (from, to);
        self.0.retain(|&(start, end)| {
            let apart = end < from || start > to;
            if !apart {
                (from, to) = (from.min(start), to.max(end));
            }
            apart
        });
        let at = self.0.partition_point(|&(start, _)| start < from);
        self.0.insert(at, (from, to));
    }

    /// Bytes in them.
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|(from, to)| to - from).sum()
    }

    /// What is missing of `0..size`, in pieces of at most `most` bytes.
    pub(super) fn missing(&self, size: u64, most: u64) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut at = 0;
        for (from, to) in self.0.iter().copied().chain([(size, size)]) {
            while at < from.min(size) {
                let end = from.min(size).min(at + most);
                missing.push((at, end));
                at = end;
            }
            at = at.max(to);
        }
        missing
    }

    /// Whether they can be ranges of `0..size`.
    fn is_sound(&self, size: u64) -> bool {
        self.0.iter().all(|(from, to)| from < to && *to <= size) && self.0.windows(2).all(|two| two[0].1 < two[1].0)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Notes {
    version: u32,
    identity: String,
    size: u64,
    /// Of the place where the bytes are kept, which may have another than the hub; with its quotes.
    etag: Option<String>,
    /// Of which start of the machine it is, where that can be told.
    #[serde(default)]
    boot: Option<String>,
    done: Ranges,
}

const VERSION: u32 = 1;

/// A `.part` file, locked against other runs.
pub(super) struct Part {
    pub(super) file: Arc<File>,
    path: PathBuf,
    journal: PathBuf,
    notes: Notes,
    unsaved: u64,
    /// Whether it was begun by an earlier run.
    pub(super) resumed: bool,
}

/// Where the `.part` file of a model file is: hidden, so that it is never part of an artifact.
pub(super) fn part_path(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.part"))
}

/// Bytes that an earlier run left of a file with this identity.
pub(super) fn left(target: &Path, identity: Option<&str>) -> u64 {
    let journal = part_path(target).with_extension("part.json");
    read(&journal).filter(|notes| Some(notes.identity.as_str()) == identity).map_or(0, |notes| notes.done.bytes())
}

fn read(journal: &Path) -> Option<Notes> {
    let notes: Notes = serde_json::from_slice(&std::fs::read(journal).ok()?).ok()?;
    (notes.version == VERSION && notes.done.is_sound(notes.size)).then_some(notes)
}

/// Tells one start of the machine from another; none where it cannot be told.
fn boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

/// Whether this open file is the one that has the name.
fn is_at(file: &File, path: &Path) -> bool {
    let same = |a: std::fs::Metadata, b: std::fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    file.metadata().and_then(|open| Ok(same(open, std::fs::metadata(path)?))).unwrap_or(false)
}

impl Part {
    /// Opens the part of `target`, and keeps what is in it if it is of the same content. Blocking.
    ///
    /// # Errors
    /// [`Kind::Busy`] if another run has it; the file system's.
    pub(super) fn open(target: &Path, identity: Option<&str>, size: u64) -> Result<Self> {
        let path = part_path(target);
        let journal = path.with_extension("part.json");
        let cannot =
            |e: std::io::Error| Error::io("write", &path, &e).next("make its directory writable, or free disk space");
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(cannot)?;
        }
        let file = loop {
            let file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(cannot)?;
            if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
                return Err(Error::new(Kind::Busy, format!("{} is being fetched by another run", target.display()))
                    .next("wait until it is done, then run the same command again"));
            }
            // Between the two, the run that had it may have given it its name: it is the finished file then.
            if is_at(&file, &path) {
                break file;
            }
        };
        let kept = read(&journal).filter(|notes| Some(notes.identity.as_str()) == identity && notes.size == size);
        // What was written before a crash of the machine may not be on disk, whatever the journal says: of another boot
        // only what a sha256 decides about in the end.
        let kept = kept.filter(|notes| notes.boot == boot() || notes.identity.starts_with("sha256:"));
        // A part that was cut off behind the journal's back has holes that the journal does not know of.
        let kept = kept.filter(|_| file.metadata().is_ok_and(|meta| meta.len() == size));
        let resumed = kept.as_ref().is_some_and(|notes| notes.done.bytes() > 0);
        let notes = kept.unwrap_or_else(|| Notes {
            version: VERSION,
            identity: identity.unwrap_or_default().to_owned(),
            size,
            boot: boot(),
            ..Notes::default()
        });
        let mut part = Part { file: Arc::new(file), path, journal, notes, unsaved: 0, resumed };
        if !resumed {
            part.restart()?;
        }
        Ok(part)
    }

    /// Forgets what arrived.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.notes.done = Ranges::default();
        self.notes.etag = None;
        self.resumed = false;
        self.save();
        let clear = self.file.set_len(0).and_then(|()| self.file.set_len(self.notes.size));
        clear.map_err(|e| Error::io("write", &self.path, &e).next("free some disk space"))
    }

    pub(super) fn etag(&self) -> Option<String> {
        self.notes.etag.clone()
    }

    pub(super) fn set_etag(&mut self, etag: Option<String>) {
        self.notes.etag = etag;
    }

    pub(super) fn missing(&self, most: u64) -> Vec<(u64, u64)> {
        self.notes.done.missing(self.notes.size, most)
    }

    pub(super) fn done(&self) -> u64 {
        self.notes.done.bytes()
    }

    /// Notes bytes that were written.
    pub(super) fn arrived(&mut self, from: u64, to: u64) {
        self.notes.done.add(from, to);
        self.unsaved += to - from;
        if self.unsaved >= EVERY {
            self.save();
        }
    }

    /// Writes the journal. One that cannot be written costs a resumption, not the download.
    fn save(&mut self) {
        self.unsaved = 0;
        if self.notes.identity.is_empty() {
            return;
        }
        let write = || -> std::io::Result<()> {
            let dir = self.journal.parent().unwrap_or(Path::new("."));
            let mut temporary = tempfile::Builder::new().prefix(".journal").tempfile_in(dir)?;
            temporary.write_all(&serde_json::to_vec(&self.notes)?)?;
            temporary.persist(&self.journal)?;
            Ok(())
        };
        if let Err(e) = write() {
            tracing::debug!("cannot write {}: {e}", self.journal.display());
        }
    }

    /// Puts the finished file in its place.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn finish(mut self, target: &Path) -> Result<()> {
        let put = || -> std::io::Result<()> {
            self.file.sync_all()?;
            std::fs::rename(&self.path, target)?;
            // The name is on disk only when its directory is.
            File::open(target.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        put().map_err(|e| Error::io("write", target, &e).next("make its directory writable for this user"))?;
        self.forget();
        Ok(())
    }

    /// Removes it: its content is of no use.
    pub(super) fn discard(mut self) {
        let _ = std::fs::remove_file(&self.path);
        self.forget();
    }

    fn forget(&mut self) {
        self.unsaved = 0;
        let _ = std::fs::remove_file(&self.journal);
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// An interrupted run keeps what arrived since the journal was written.
impl Drop for Part {
    fn drop(&mut self) {
        if self.unsaved > 0 {
            self.save();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_hold_exactly_what_was_added(adds in prop::collection::vec((0u64..64, 0u64..64), 0..12), most in 1u64..20) {
            let mut ranges = Ranges::default();
            let mut model = [false; 64];
            for (from, to) in adds {
                ranges.add(from, to);
                (from..to).for_each(|at| model[at as usize] = true);
            }
            prop_assert!(ranges.is_sound(64));
            prop_assert_eq!(ranges.bytes(), model.iter().filter(|done| **done).count() as u64);
            let mut seen = model;
            for (from, to) in ranges.missing(64, most) {
                prop_assert!(from < to && to - from <= most);
                for at in from..to {
                    prop_assert!(!seen[at as usize]);
                    seen[at as usize] = true;
                }
            }
            prop_assert!(seen.iter().all(|done| *done));
        }
    }

    #[test]
    fn a_finished_file_is_not_taken_for_the_part_that_it_was() {
        let dir = tempfile::tempdir().expect("directory");
        let (path, target) = (dir.path().join(".x.part"), dir.path().join("x"));
        let file = File::create(&path).expect("made");
        assert!(is_at(&file, &path));
        std::fs::rename(&path, &target).expect("renamed");
        assert!(!is_at(&file, &path) && is_at(&file, &target));
        File::create(&path).expect("made");
        assert!(!is_at(&file, &path));
    }

    #[test]
    fn a_part_is_kept_for_the_same_content_only() {
        let dir = tempfile::tempdir().expect("directory");
        let target = dir.path().join("loras/x.safetensors");
        let mut part = Part::open(&target, Some("etag:1"), 100).expect("opened");
        part.arrived(10, 20);
        assert!(Part::open(&target, Some("etag:1"), 100).is_err_and(|e| e.kind() == Kind::Busy));
        drop(part);
        assert_eq!((left(&target, Some("etag:1")), left(&target, Some("etag:2"))), (10, 0));
        assert_eq!(Part::open(&target, Some("etag:1"), 100).expect("opened").missing(1000), [(0, 10), (20, 100)]);
        let other = Part::open(&target, Some("etag:2"), 100).expect("opened");
        assert_eq!((other.resumed, other.missing(1000)), (false, vec![(0, 100)]));
        drop(other);
        // The machine was started anew since: only what a sha256 decides about is kept.
        for (identity, kept) in [("etag:3", 0), ("sha256:3", 50)] {
            let mut part = Part::open(&target, Some(identity), 100).expect("opened");
            part.notes.boot = Some("another".into());
            part.arrived(0, 50);
            drop(part);
            assert_eq!(Part::open(&target, Some(identity), 100).expect("opened").done(), kept, "{identity}");
        }
        // Nothing that could be told apart: nothing is kept.
        let mut unknown = Part::open(&target, None, 100).expect("opened");
        unknown.arrived(0, 50);
        drop(unknown);
        assert_eq!(Part::open(&target, None, 100).expect("opened").done(), 0);
    }
}
