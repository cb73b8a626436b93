use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crc_fast::{CrcAlgorithm, checksum};
use proptest::prelude::*;

use super::*;
use crate::config::{Compression, Packaging};
use crate::local::cache::{DigestCache, Stamp};
use crate::local::models::{ModelFile, ModelTree, OnDisk, Origin, scan};
use crate::progress::Silent;
use crate::transfer::PartSource;

mod compressed;

fn directory(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    dir
}

fn tree(dir: &Path) -> Arc<ModelTree> {
    Arc::new(scan(dir, &[], &mut DigestCache::in_memory(), false, &Silent).unwrap())
}

/// Nothing is compressed.
fn stored(tree: Arc<ModelTree>) -> Contents {
    Contents::new(tree, Compression::None)
}

fn whole(tree: &Arc<ModelTree>) -> Vec<u8> {
    let archive = Archive::new(stored(tree.clone()), 1 << 20);
    archive.range(0..archive.layout().total).unwrap()
}

/// Bytes that no two offsets share, so that a shifted copy is noticed.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        })
        .collect()
}

fn sample() -> tempfile::TempDir {
    directory(&[
        ("checkpoints/a.safetensors", noise(200_000, 1)),
        ("loras/empty", Vec::new()),
        ("loras/block", noise(512, 2)),
        ("vae/ü.pt", noise(65_535, 3)),
        ("z", noise(1, 4)),
    ])
}

/// One file of any name, whose bytes are the name.
fn named(dir: &Path, n: usize, path: &str) -> ModelFile {
    let source = dir.join(n.to_string());
    std::fs::write(&source, path).unwrap();
    let stamp = Stamp::of(&std::fs::metadata(&source).unwrap());
    let crc32 = checksum(CrcAlgorithm::Crc32IsoHdlc, path.as_bytes()) as u32;
    let crc64nvme = checksum(CrcAlgorithm::Crc64Nvme, path.as_bytes());
    let origin = Origin::Disk(OnDisk { source, stamp, crc32, crc64nvme, gain: 0 });
    ModelFile { path: path.into(), mode: 0o644, size: stamp.size, sha256: [0; 32], origin }
}

/// What Python makes of an archive, one line per entry.
fn python(script: &str, input: &[u8]) -> String {
    let mut child =
        Command::new("python3").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn flate2_checks_the_sum_and_finds_nothing_behind() {
    let dir = sample();
    let bytes = whole(&tree(dir.path()));
    let mut decoder = flate2::bufread::GzDecoder::new(&bytes[..]);
    let mut content = Vec::new();
    decoder.read_to_end(&mut content).unwrap();
    assert!(decoder.into_inner().is_empty());
    assert_eq!(content.len() % 512, 0);
    assert!(content.ends_with(&[0; 1024]));
}

#[test]
fn tar_extracts_the_same_files() {
    let dir = sample();
    let out = tempfile::tempdir().unwrap();
    let archive = out.path().join("model.tar.gz");
    std::fs::write(&archive, whole(&tree(dir.path()))).unwrap();
    let to = out.path().join("x");
    std::fs::create_dir(&to).unwrap();
    let run = Command::new("tar").arg("xzf").arg(&archive).arg("-C").arg(&to).output().unwrap();
    assert!(run.status.success() && run.stderr.is_empty(), "{}", String::from_utf8_lossy(&run.stderr));
    let diff = Command::new("diff").arg("-r").arg(dir.path()).arg(&to).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
}

#[test]
fn python_sees_names_of_every_length_and_nothing_of_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let long = |n: usize| "d".repeat(n);
    let mut paths: Vec<String> = [99, 100, 101, 155, 255, 256].iter().map(|&n| long(n)).collect();
    // A slash where ustar can split, and where it can just not.
    paths.extend([
        format!("{}/{}", long(155), long(100)),
        format!("{}/{}", long(156), long(100)),
        format!("{}/{}", long(155), long(101)),
        format!("{}/{}/{}", long(60), long(60), long(60)),
        "ü".repeat(3),
        format!("{}/{}", "ü".repeat(80), "x".repeat(60)),
    ]);
    paths.sort();
    let files = paths.iter().enumerate().map(|(n, path)| named(dir.path(), n, path)).collect();
    let tree = Arc::new(ModelTree { files, hashed: 0 });
    let script = "import sys, io, tarfile\n\
        t = tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read()))\n\
        for m in t:\n    \
            assert m.isreg() and t.extractfile(m).read().decode() == m.name, m.name\n    \
            sys.stdout.buffer.write(f'{m.name} {m.mode:o} {m.uid} {m.gid} {m.uname!r} {m.gname!r} {m.mtime}\\n'.encode())";
    let expected: String = paths.iter().map(|p| format!("{p} 644 0 0 '' '' 315532800\n")).collect();
    assert_eq!(python(script, &whole(&tree)), expected);
}

#[test]
fn a_file_over_eight_gibibytes_has_a_pax_size() {
    let dir = tempfile::tempdir().unwrap();
    let size = (9u64 << 30) + 7;
    let mut model = named(dir.path(), 0, "big");
    let disk = model.disk();
    std::fs::File::create(&disk.source).unwrap().set_len(size).unwrap();
    disk.stamp = Stamp::of(&std::fs::metadata(&disk.source).unwrap());
    model.size = size;
    let archive = Archive::new(stored(Arc::new(ModelTree { files: vec![model], hashed: 0 })), 16 << 20);
    let total = archive.layout().total;

    let mut head = vec![0; 4096];
    flate2::read::GzDecoder::new(&archive.range(0..8192).unwrap()[..]).read_exact(&mut head).unwrap();
    let script = "import sys, tarfile\n\
        m = tarfile.open(fileobj=sys.stdin.buffer, mode='r|').next()\n\
        print(m.name, m.size, m.pax_headers)";
    assert_eq!(python(script, &head), format!("big {size} {{'size': '{size}'}}\n"));

    // One pax header, its records, the header, the file in whole blocks, the end.
    let (header, content) = (3 * 512, size.next_multiple_of(512));
    assert_eq!(total, 10 + (5 + header) + content + 5 * content.div_ceil(65_535) + (5 + 1024) + 8);
    let content = header + content + 1024;
    assert_eq!(archive.range(total - 4..total).unwrap(), (content as u32).to_le_bytes());
    assert_eq!(archive.total(), total);
}

#[test]
fn the_same_files_elsewhere_give_the_same_bytes_and_identity() {
    let (one, two) = (sample(), sample());
    let old = std::time::SystemTime::UNIX_EPOCH;
    std::fs::File::options().write(true).open(two.path().join("z")).unwrap().set_modified(old).unwrap();
    let (a, b) = (tree(one.path()), tree(two.path()));
    assert_eq!(whole(&a), whole(&b));
    assert_eq!(
        Manifest::of(&a, Compression::Auto).identity().unwrap(),
        Manifest::of(&b, Compression::Auto).identity().unwrap()
    );
}

#[test]
fn whatever_changes_the_archive_changes_the_identity() {
    let base = tree(sample().path());
    let identity = |change: &dyn Fn(&mut ModelFile)| {
        let mut tree = (*base).clone();
        change(&mut tree.files[0]);
        Manifest::of(&tree, Compression::Auto).identity().unwrap()
    };
    let same = identity(&|_| ());
    assert_eq!(same, identity(&|f| f.disk().source = PathBuf::from("/elsewhere")));
    assert_eq!(same, identity(&|f| f.disk().stamp.mtime_ns += 1));
    assert_ne!(same, identity(&|f| f.path.push('x')));
    assert_ne!(same, identity(&|f| f.mode = 0o755));
    assert_ne!(same, identity(&|f| f.size += 1));
    assert_ne!(same, identity(&|f| f.sha256[0] ^= 1));
}

#[test]
fn the_canonical_manifest_and_the_keys_stay_as_they_are() {
    let dir = directory(&[("a", b"123456789".to_vec())]);
    let manifest = Manifest::of(&tree(dir.path()), Compression::Auto);
    assert_eq!(
        manifest.canonical().unwrap(),
        r#"{"format":2,"files":[{"path":"a","mode":"0644","size":9,"sha256":"15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225","codec":"stored"}]}"#
    );
    let hex = &manifest.identity().unwrap()[..24];
    assert_eq!(manifest.key(Packaging::Tar).unwrap(), format!("models/{hex}/model.tar.gz"));
    assert_eq!(manifest.key(Packaging::Uncompressed).unwrap(), format!("models/{hex}/files/"));
    assert_eq!(manifest.manifest_key().unwrap(), format!("models/{hex}/manifest.json"));
}

#[test]
fn a_file_that_changes_while_it_is_packed_is_an_error() {
    let dir = sample();
    let tree = tree(dir.path());
    let archive = Archive::new(stored(tree.clone()), 16 << 20);
    archive.verify(archive.produce(1).unwrap().crc64nvme).unwrap();
    let path = dir.path().join("loras/block");
    std::fs::write(&path, noise(512, 9)).unwrap();
    let e = archive.produce(1).unwrap_err();
    assert!(e.to_string().contains("loras/block") && e.to_string().contains("changed"), "{e}");
    std::fs::write(&path, b"short").unwrap();
    assert!(archive.produce(1).unwrap_err().to_string().contains("changed"));
    std::fs::remove_file(&path).unwrap();
    assert!(archive.produce(1).unwrap_err().to_string().contains("changed"));
}

/// As on a network file system that is gone for a while: what was sent is worth keeping.
#[test]
fn a_file_that_cannot_be_read_may_be_read_again() {
    let dir = sample();
    let archive = Archive::new(stored(tree(dir.path())), 16 << 20);
    let path = dir.path().join("loras/block");
    std::fs::remove_file(&path).unwrap();
    assert!(archive.produce(1).is_err() && !archive.again(), "one that is gone has changed");
    // A name that leads to itself: nothing is said of the file.
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let e = archive.produce(1).unwrap_err();
    assert!(e.to_string().contains("cannot read") && archive.again(), "{e}");
}

#[test]
fn a_digest_that_is_not_the_files_is_noticed_once_all_was_read() {
    let dir = sample();
    let mut lying = (*tree(dir.path())).clone();
    lying.files[0].disk().crc32 ^= 1;
    let archive = Archive::new(stored(Arc::new(lying.clone())), 70_000);
    for n in 1..archive.count() {
        archive.produce(n).unwrap();
    }
    let e = {
        archive.produce(archive.count()).unwrap();
        archive.verify(0).unwrap_err()
    };
    assert!(e.to_string().contains("a.safetensors"), "{e}");
    assert!(e.hint().unwrap_or_default().contains("--rehash"));

    lying.files[0].disk().crc64nvme ^= 1;
    let file = FileParts::new(Arc::new(lying), 0, 1 << 20).unwrap();
    assert!(file.verify(file.produce(1).unwrap().crc64nvme).is_err());
}

#[test]
fn single_files_come_in_parts_too() {
    let dir = sample();
    let tree = tree(dir.path());
    let file = FileParts::new(tree.clone(), 0, 65_536).unwrap();
    let parts: Vec<_> = (1..=file.count()).map(|n| file.produce(n).unwrap().body).collect();
    assert_eq!((parts.len(), parts.concat()), (4, noise(200_000, 1)));
    let empty = FileParts::new(tree.clone(), 2, 65_536).unwrap();
    assert_eq!((empty.count(), empty.size(1)), (1, 0));
    let part = empty.produce(1).unwrap();
    assert!(part.body.is_empty());
    empty.verify(part.crc64nvme).unwrap();
    assert!(FileParts::new(tree, 99, 1).is_none());
    assert!(file.produce(0).is_err() && file.produce(5).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Cut anywhere, the parts are the archive; and any one range is what the whole has there.
    #[test]
    fn parts_of_any_size_are_the_archive(
        sizes in prop::collection::vec(prop_oneof![0usize..3, 500usize..520, 65_000usize..140_000], 1..6),
        part_size in prop_oneof![1u64..40, 4_000u64..200_000],
        cut in (0.0f64..1.0, 0.0f64..1.0),
    ) {
        let names: Vec<String> = (0..sizes.len()).map(|n| format!("{n}/{}", "n".repeat(n * 40))).collect();
        let files: Vec<(&str, Vec<u8>)> =
            names.iter().map(|n| n.trim_end_matches('/')).zip(sizes.iter().map(|&s| noise(s, s as u64))).collect();
        let dir = directory(&files);
        let tree = tree(dir.path());
        let bytes = whole(&tree);
        // Tiny parts of a large archive would only repeat the same seams.
        let part_size = part_size.max(bytes.len() as u64 / 500);
        let archive = Archive::new(stored(tree), part_size);
        prop_assert_eq!(archive.total(), bytes.len() as u64);
        let mut joined = Vec::new();
        for n in (1..=archive.count()).rev() {
            let part = archive.produce(n).unwrap();
            prop_assert_eq!(part.body.len() as u64, archive.size(n));
            prop_assert_eq!(part.crc64nvme, checksum(CrcAlgorithm::Crc64Nvme, &part.body));
            joined.splice(0..0, part.body.iter().copied());
        }
        prop_assert!(joined == bytes);
        archive.verify(checksum(CrcAlgorithm::Crc64Nvme, &bytes)).unwrap();
        prop_assert!(archive.verify(0).is_err());
        let end = bytes.len() as f64;
        let (a, b) = ((cut.0 * end) as usize, (cut.1 * end) as usize);
        let (a, b) = (a.min(b), a.max(b));
        prop_assert!(archive.range(a as u64..b as u64).unwrap() == bytes[a..b]);
    }
}

#[test]
fn a_file_has_the_same_bytes_wherever_it_is() {
    let file = noise(150_000, 5);
    let segment = |files: &[(&str, Vec<u8>)], n: usize| {
        let dir = directory(files);
        let archive = Archive::new(stored(tree(dir.path())), 16 << 20);
        archive.produce(1).unwrap();
        let file = &archive.index().unwrap().0.files[n];
        archive.range(file.start..file.start + file.length).unwrap()
    };
    let alone = segment(&[("m", file.clone())], 0);
    let behind = segment(&[("a", noise(70_001, 6)), ("b/another-name", file.clone())], 1);
    assert!(alone == behind);
    assert!(alone.len() > file.len());
}

#[test]
fn an_index_that_contradicts_itself_is_of_no_use() {
    let dir = sample();
    let archive = Archive::new(stored(tree(dir.path())), 16 << 20);
    archive.produce(1).unwrap();
    let (index, _) = archive.index().unwrap();
    let read = |change: &dyn Fn(&mut Index)| {
        let mut index = index.clone();
        change(&mut index);
        Index::parse(index.text().unwrap().as_bytes())
    };
    assert_eq!(read(&|_| ()), Some(index.clone()));
    assert_eq!(read(&|i| i.format += 1), None);
    assert_eq!(read(&|i| i.size = 100), None);
    assert_eq!(read(&|i| i.files[1].start += 1), None);
    assert_eq!(read(&|i| i.files[0].length -= 1), None);
    assert_eq!(read(&|i| i.files[0].size += 1_000_000), None);
    assert_eq!(read(&|i| i.files[0].mode = "rwx".into()), None);
    assert_eq!(read(&|i| drop(i.files.pop())), None);
    assert_eq!(Index::parse(b"{}"), None);
}

#[test]
fn written_in_order_it_is_the_archive() {
    let dir = sample();
    let tree = tree(dir.path());
    let mut out = Vec::new();
    write(&Archive::new(stored(tree.clone()), 10_000), &mut out, &AtomicBool::new(false)).unwrap();
    assert!(out == whole(&tree));
    std::fs::write(dir.path().join("loras/block"), b"other").unwrap();
    let e = write(&Archive::new(stored(tree), 10_000), &mut Vec::new(), &AtomicBool::new(false)).unwrap_err();
    assert!(e.to_string().contains("loras/block"), "{e}");
}
