//! Archives and files whose bytes come from elsewhere: late, in any order, wrong, or not at all.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::config::Compression;
use crate::local::cache::DigestCache;
use crate::local::models::{RemoteBytes, RemoteFile, scan};
use crate::pack::{Archive, Contents, FileParts, Index, write};
use crate::progress::Silent;
use crate::transfer::{CopySource, PartSource};

fn stored(tree: Arc<ModelTree>) -> Contents {
    Contents::new(tree, Compression::None)
}

/// How a range of a file goes wrong.
#[derive(Debug, Clone, Copy)]
enum Wrong {
    /// It does not come; whether it may another time.
    Broken(bool),
    /// It comes only when the reader is stopped.
    Silent,
}

/// A file that is elsewhere.
#[derive(Debug, Default)]
struct Elsewhere {
    content: Mutex<Vec<u8>>,
    /// What happens to the range in which this offset is.
    wrong: Mutex<BTreeMap<u64, Wrong>>,
    /// Milliseconds that a range takes, by its beginning.
    slow: Option<fn(u64) -> u64>,
    read: AtomicU64,
}

#[derive(Debug)]
struct Shared(Arc<Elsewhere>);

struct Reading {
    file: Arc<Elsewhere>,
    range: Range<u64>,
    stop: Stop,
}

impl RemoteFile for Shared {
    fn source(&self) -> String {
        "hf://a/b/c".into()
    }

    fn open(&self, range: Range<u64>, stop: &Stop) -> Box<dyn RemoteBytes> {
        Box::new(Reading { file: self.0.clone(), range, stop: stop.clone() })
    }
}

impl RemoteBytes for Reading {
    fn read(&mut self, out: &mut [u8]) -> Result<(), Unread> {
        let wrong = self.file.wrong.lock().unwrap().range(self.range.clone()).next().map(|(_, wrong)| *wrong);
        match wrong {
            Some(Wrong::Broken(again)) => return Err(Unread { error: Error::failed("the hub is gone"), again }),
            Some(Wrong::Silent) => {
                while !self.stop.is_set() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                return Err(Unread { error: Error::failed("stopped"), again: true });
            }
            None => {}
        }
        if let Some(slow) = self.file.slow {
            std::thread::sleep(Duration::from_millis(slow(self.range.start)));
        }
        let to = self.range.start + out.len() as u64;
        assert!(to <= self.range.end, "more is asked for than was said");
        out.copy_from_slice(&self.file.content.lock().unwrap()[self.range.start as usize..to as usize]);
        self.range.start = to;
        self.file.read.fetch_add(out.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut byte = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    (0..len).map(|_| byte()).collect()
}

/// A tree of files on disk, and the same with some of them elsewhere.
struct Case {
    _dir: tempfile::TempDir,
    disk: Arc<ModelTree>,
    remote: Arc<ModelTree>,
    files: Vec<Arc<Elsewhere>>,
}

fn case(files: &[(&str, Vec<u8>)], elsewhere: &[&str], slow: Option<fn(u64) -> u64>) -> Case {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let disk = Arc::new(tree(dir.path()));
    let (mut remote, mut made) = ((*disk).clone(), Vec::new());
    for file in remote.files.iter_mut().filter(|file| elsewhere.contains(&file.path.as_str())) {
        let content = Mutex::new(std::fs::read(dir.path().join(&file.path)).unwrap());
        let there = Arc::new(Elsewhere { content, slow, ..Elsewhere::default() });
        *file = ModelFile::remote(file.path.clone(), file.size, file.sha256, Arc::new(Shared(there.clone())));
        made.push(there);
    }
    Case { _dir: dir, disk, remote: Arc::new(remote), files: made }
}

fn tree(dir: &Path) -> ModelTree {
    scan(dir, &[], &mut DigestCache::in_memory(), false, &Silent).unwrap()
}

/// Two large files elsewhere, small ones here.
fn mixed(slow: Option<fn(u64) -> u64>) -> Case {
    let files = [
        ("a.json", noise(700, 1)),
        ("checkpoints/a.safetensors", noise(400_000, 2)),
        ("loras/b.safetensors", noise(130_001, 3)),
        ("vae/c.pt", noise(90_000, 4)),
    ];
    case(&files, &["checkpoints/a.safetensors", "loras/b.safetensors"], slow)
}

const PART: u64 = 50_000;

/// All parts, each made by a thread of its own.
fn all(source: &dyn PartSource) -> Vec<Result<Vec<u8>>> {
    std::thread::scope(|scope| {
        let part = |number| scope.spawn(move || source.produce(number).map(|part| part.body.to_vec()));
        // The highest first: the order in which they are begun is not what makes them right.
        let mut parts: Vec<_> = (1..=source.count()).rev().map(part).collect();
        parts.reverse();
        parts.into_iter().map(|part| part.join().unwrap()).collect()
    })
}

fn crc(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

fn whole(tree: &Arc<ModelTree>) -> (Vec<u8>, Index) {
    let archive = Archive::new(stored(tree.clone()), PART);
    let bytes: Vec<u8> = all(&archive).into_iter().flat_map(Result::unwrap).collect();
    archive.verify(crc(&bytes)).unwrap();
    let index = archive.index().unwrap().0;
    (bytes, index)
}

#[test]
fn an_archive_is_the_same_wherever_its_files_are() {
    // Later ranges come sooner.
    let case = mixed(Some(|start| 20u64.saturating_sub(start / 20_000)));
    let (here, there) = (whole(&case.disk), whole(&case.remote));
    assert!(here.0 == there.0);
    assert_eq!(here.1, there.1);
    let read: Vec<u64> = case.files.iter().map(|file| file.read.load(Ordering::Relaxed)).collect();
    assert_eq!(read, [400_000, 130_001], "every byte comes once");
    let mut out = Vec::new();
    write(&Archive::new(stored(case.remote.clone()), PART), &mut out, &AtomicBool::new(false)).unwrap();
    assert!(out == here.0);
}

#[test]
fn other_content_than_the_locked_is_an_error_with_both_sums() {
    for at in [0, 200_000, 399_999] {
        let case = mixed(None);
        case.files[0].content.lock().unwrap()[at] ^= 1;
        let archive = Archive::new(stored(case.remote.clone()), PART);
        let parts = all(&archive);
        // Nobody hangs, and the last part, for which all is waited, is never made.
        let e = parts.last().unwrap().as_ref().unwrap_err().to_string();
        let found = hex::encode(Sha256::digest(&*case.files[0].content.lock().unwrap()));
        for word in ["checkpoints/a.safetensors", &found, &hex::encode(case.remote.files[1].sha256)] {
            assert!(e.contains(word), "{word} is not in {e}");
        }
        assert!(!archive.again() && archive.verify(0).is_err());
    }
}

#[test]
fn what_one_part_dies_of_the_others_die_of_too() {
    for again in [true, false] {
        let case = mixed(Some(|_| 5));
        case.files[0].wrong.lock().unwrap().insert(60_000, Wrong::Broken(again));
        let archive = Archive::new(stored(case.remote.clone()), PART);
        let parts = all(&archive);
        // The first may have been done before that.
        for part in &parts[1..8] {
            assert!(part.as_ref().is_err_and(|e| e.to_string().contains("the hub is gone")), "{part:?}");
        }
        assert_eq!(archive.again(), again);
        // The same when one thread after the other writes.
        let e = write(&Archive::new(stored(case.remote.clone()), PART), &mut Vec::new(), &AtomicBool::new(false))
            .unwrap_err();
        assert!(e.to_string().contains("the hub is gone"), "{e}");
    }
}

#[test]
fn a_file_here_that_changes_ends_those_who_wait_for_one_elsewhere() {
    let case = mixed(None);
    std::fs::write(case._dir.path().join("a.json"), "other").unwrap();
    let begun = Instant::now();
    let e = write(&Archive::new(stored(case.remote), PART), &mut Vec::new(), &AtomicBool::new(false)).unwrap_err();
    assert!(e.to_string().contains("a.json"), "{e}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn readers_and_those_who_wait_end_when_nobody_wants_the_parts() {
    let case = mixed(None);
    case.files[0].wrong.lock().unwrap().insert(60_000, Wrong::Silent);
    let archive = Archive::new(stored(case.remote), PART);
    std::thread::scope(|scope| {
        let work = scope.spawn(|| all(&archive));
        std::thread::sleep(Duration::from_millis(200));
        assert!(!work.is_finished());
        archive.abandon();
        let parts = work.join().unwrap();
        assert!(parts[0].is_ok() && parts[1..8].iter().all(Result::is_err));
    });
}

#[test]
fn a_part_that_is_made_again_must_be_the_same() {
    let case = mixed(None);
    let archive = Archive::new(stored(case.remote.clone()), PART);
    let first: Vec<_> = all(&archive).into_iter().map(Result::unwrap).collect();
    assert!(archive.produce(3).unwrap().body == first[2]);
    let bytes = first.concat();
    archive.verify(crc(&bytes)).unwrap();
    case.files[0].content.lock().unwrap()[120_000] ^= 1;
    let e = archive.produce(3).unwrap_err();
    assert!(e.to_string().contains("checkpoints/a.safetensors") && e.to_string().contains("changed"), "{e}");
}

/// With an older archive only what is new is read, and boundary bytes of what is copied.
#[test]
fn what_is_copied_is_not_read() {
    const MIB: usize = 1 << 20;
    let old = [("checkpoints/a.safetensors", noise(21 * MIB + 7, 5)), ("z.json", noise(50, 6))];
    let new = [old.as_slice(), &[("loras/new.safetensors", noise(11 * MIB, 7))]].concat();
    let (before, after) =
        (case(&old, &[], None), case(&new, &["checkpoints/a.safetensors", "loras/new.safetensors"], None));
    let part = 16 * MIB as u64;
    let old = Archive::new(stored(before.disk.clone()), part);
    let old_bytes: Vec<u8> = all(&old).into_iter().flat_map(Result::unwrap).collect();
    let index = old.index().unwrap().0;
    let source = CopySource { key: "old".into(), etag: "e".into(), version_id: None };

    let archive = Archive::new(stored(after.remote.clone()), part).copying(source.clone(), index.clone()).unwrap();
    let (mut bytes, mut sum) = (Vec::new(), super::super::archive::Joined::default());
    for number in 1..=archive.count() {
        let part = match archive.copy(number) {
            Some((_, range)) => old_bytes[range.start as usize..range.end as usize].to_vec(),
            None => archive.produce(number).unwrap().body.to_vec(),
        };
        sum.add(crc(&part), part.len() as u64);
        bytes.extend(part);
    }
    archive.verify(sum.sum).unwrap();
    assert!(archive.verify(sum.sum ^ 1).is_err());
    let fresh = Archive::new(stored(after.disk.clone()), part);
    assert!(bytes == all(&fresh).into_iter().flat_map(Result::unwrap).collect::<Vec<u8>>());
    assert_eq!(archive.index().unwrap(), fresh.index().unwrap());
    let read: Vec<u64> = after.files.iter().map(|file| file.read.load(Ordering::Relaxed)).collect();
    assert!(read[0] < 6 * MIB as u64, "{read:?}");
    assert_eq!(read[1], 11 * MIB as u64);

    // The CRC-32 of what is copied comes from the index: one that cannot be right is of no use.
    let mut lying = index;
    lying.files[0].crc32 = "00000000".into();
    assert!(Archive::new(stored(after.remote), part).copying(source.clone(), lying.clone()).is_none());
    assert!(Archive::new(stored(after.disk), part).copying(source, lying).is_some());
}

/// Parts that begin or end in the header of a block, and such as have nothing of the file but that or the zeros behind it.
#[test]
fn a_part_may_end_at_any_byte() {
    let size = 65_535 + 100;
    let case = case(&[("a.safetensors", noise(size, 8))], &["a.safetensors"], None);
    let expected = whole(&case.disk);
    // Behind the gzip header and one block with the tar header; then a full block, and one with zeros at its end.
    let (first, second) = (10 + 517, 10 + 517 + 65_540);
    let zeros = second + 5 + 100;
    for part in (first - 1..first + 7).chain(second - 1..second + 7).chain(zeros - 2..zeros + 414) {
        let archive = Archive::new(stored(case.remote.clone()), part);
        let bytes: Vec<u8> = (1..=archive.count()).flat_map(|n| archive.produce(n).unwrap().body).collect();
        assert!(bytes == expected.0, "parts of {part}");
        archive.verify(crc(&bytes)).unwrap();
    }
}

#[test]
fn a_file_by_itself_is_hashed_too() {
    let case = mixed(Some(|start| 10u64.saturating_sub(start / 40_000)));
    let file = FileParts::new(case.remote.clone(), 1, PART).unwrap();
    assert_eq!(file.crc64nvme(), None);
    let bytes: Vec<u8> = all(&file).into_iter().flat_map(Result::unwrap).collect();
    assert!(bytes == *case.files[0].content.lock().unwrap());
    file.verify(crc(&bytes)).unwrap();
    assert!(file.verify(0).is_err());
    let unread = FileParts::new(case.remote.clone(), 1, PART).unwrap();
    unread.produce(1).unwrap();
    assert!(unread.verify(crc(&bytes)).is_err());
    case.files[0].content.lock().unwrap()[399_999] ^= 1;
    let wrong = FileParts::new(case.remote, 1, PART).unwrap();
    assert!(all(&wrong).last().unwrap().as_ref().is_err_and(|e| e.to_string().contains("expected is sha256")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any part size, any sizes of files: the same bytes, whoever reads them from where.
    #[test]
    fn parts_of_any_size_are_the_archive(
        sizes in prop::collection::vec(prop_oneof![1usize..3, 500usize..520, 65_000usize..140_000], 1..5),
        part in 3_000u64..200_000,
        elsewhere in prop::collection::vec(any::<bool>(), 5),
    ) {
        let names: Vec<String> = (0..sizes.len()).map(|n| format!("{n}.safetensors")).collect();
        let files: Vec<(&str, Vec<u8>)> =
            names.iter().map(String::as_str).zip(sizes.iter().map(|&s| noise(s, s as u64))).collect();
        let remote: Vec<&str> = names.iter().zip(&elsewhere).filter(|(_, there)| **there).map(|(n, _)| n.as_str()).collect();
        let case = case(&files, &remote, None);
        let expected = whole(&case.disk);
        let archive = Archive::new(stored(case.remote.clone()), part);
        let bytes: Vec<u8> = all(&archive).into_iter().flat_map(Result::unwrap).collect();
        prop_assert!(bytes == expected.0);
        archive.verify(crc(&bytes)).unwrap();
        prop_assert_eq!(archive.index().unwrap().0, expected.1);
    }
}
