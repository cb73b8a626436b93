//! Archives with compressed files: the same bytes every time, read by everybody.

use std::os::unix::fs::PermissionsExt as _;

use sha2::Digest;

use super::*;
use crate::error::Kind;
use crate::local::lengths::LengthCache;

fn measured(tree: Arc<ModelTree>, compression: Compression) -> Contents {
    let contents = Contents::new(tree, compression);
    measure(&contents, &mut LengthCache::in_memory(), &Silent, &AtomicBool::new(false)).unwrap()
}

fn bytes(contents: Contents) -> Vec<u8> {
    let archive = Archive::new(contents, 1 << 20);
    archive.range(0..archive.layout().total).unwrap()
}

/// Lines of numbers that go on from `seed`.
fn text(len: usize, seed: u64) -> Vec<u8> {
    (seed..).flat_map(|n| format!("layer_{}.weight = {n}\n", n % 7).into_bytes()).take(len).collect()
}

/// Noise in one byte of two.
fn weights(len: usize, seed: u64) -> Vec<u8> {
    noise(len, seed).into_iter().enumerate().map(|(n, byte)| if n % 2 == 0 { byte } else { 60 }).collect()
}

const SETTINGS: [Compression; 4] = [Compression::None, Compression::Auto, Compression::Fast, Compression::Best];

/// If this fails, the compressor chooses other matches than it did (a new version of zlib-rs), or samples are judged in
/// another way: artifacts that are in S3 are not what the same files give now. Raise FORMAT in manifest.rs and VERSION in
/// local/cache.rs, then write down the new sums.
#[test]
fn the_bytes_stay_as_they_are() {
    let dir = directory(&[
        ("configs/text.json", text(3_000_000, 17)),
        ("noise.png", noise(70_000, 5)),
        ("unet/weights.safetensors", weights(2_500_000, 6)),
        ("zeros", vec![0; 200_000]),
    ]);
    let tree = tree(dir.path());
    assert_eq!(tree.files.iter().map(|f| f.gain()).collect::<Vec<_>>(), [86, 0, 37, 99]);
    let made = SETTINGS.map(|compression| {
        let contents = measured(tree.clone(), compression);
        let codecs: Vec<_> = contents.codecs().into_iter().map(Codec::name).collect();
        format!("{} {}", codecs.join(" "), hex::encode(sha2::Sha256::digest(bytes(contents))))
    });
    let expected = [
        "stored stored stored stored ed7c07d62ec9a866902fc64479e2e23fe44020689b20e5e393a5829f9dd55f5c",
        "deflate-6 stored stored deflate-6 ca6abfd9f3eb1b18178f3198e08d79cc174fd428109d8b7e4ed7bd1b88cbf4f8",
        "deflate-2 stored deflate-2 deflate-2 f73e2f3edab1b718bada617e63fcf303bc3c13e120569988d0e812ce0a4c859a",
        "deflate-9 stored deflate-6 deflate-9 836c3eda10320a0e0aa9e9e4096694177f28b839004680718d289860d007539e",
    ];
    assert_eq!(made, expected);
}

#[test]
fn a_compressed_file_has_the_same_bytes_wherever_it_is() {
    let file = text(2_500_000, 5);
    let segment = |files: &[(&str, Vec<u8>)], n: usize| {
        let dir = directory(files);
        let archive = Archive::new(measured(tree(dir.path()), Compression::Auto), 64 << 20);
        archive.produce(1).unwrap();
        let (index, _) = archive.index().unwrap();
        assert_eq!(Index::parse(index.text().unwrap().as_bytes()), Some(index.clone()));
        let file = &index.files[n];
        archive.range(file.start..file.start + file.length).unwrap()
    };
    let alone = segment(&[("m", file.clone())], 0);
    let behind = segment(&[("a", noise(70_001, 6)), ("b/another-name", file.clone())], 1);
    assert!(alone == behind && alone.len() < file.len() / 2);
}

#[test]
fn lengths_of_compressed_files_in_an_index_are_possible_ones() {
    let dir = directory(&[("text", text(2_500_000, 5)), ("zeros", vec![0; 1 << 20])]);
    let archive = Archive::new(measured(tree(dir.path()), Compression::Auto), 64 << 20);
    archive.produce(1).unwrap();
    let (index, _) = archive.index().unwrap();
    let read = |length: u64| {
        let mut index = index.clone();
        let by = length as i64 - index.files[0].length as i64;
        index.files[0].length = length;
        index.files[1].start = index.files[1].start.checked_add_signed(by)?;
        index.size = index.size.checked_add_signed(by)?;
        Index::parse(index.text().unwrap().as_bytes())
    };
    // The longest is what is stored.
    let most = {
        let archive = Archive::new(stored(tree(dir.path())), 64 << 20);
        archive.produce(1).unwrap();
        archive.index().unwrap().0.files[0].length
    };
    for (length, good) in [(index.files[0].length, true), (most, true), (most + 1, false), (2_000, false), (0, false)] {
        assert_eq!(read(length).is_some(), good, "{length}");
    }
    assert_eq!(read(u64::MAX), None);
}

#[test]
fn a_run_that_is_stopped_keeps_what_it_found() {
    let dir = directory(&[("text", text(2_500_000, 5))]);
    let contents = Contents::new(tree(dir.path()), Compression::Auto);
    assert!(!contents.exact());
    let stopped = measure(&contents, &mut LengthCache::in_memory(), &Silent, &AtomicBool::new(true)).unwrap_err();
    assert_eq!(stopped.kind(), Kind::Interrupted);
    let mut cache = LengthCache::in_memory();
    let exact = measure(&contents, &mut cache, &Silent, &AtomicBool::new(false)).unwrap();
    assert!(exact.exact());
    let mut again = contents.clone();
    again.known(&mut cache);
    assert!(again.exact() && Layout::new(&again).total == Layout::new(&exact).total);
    assert!(Layout::new(&again).total < Layout::new(&contents).total);
}

#[test]
fn a_compressed_file_that_changes_is_an_error() {
    let dir = directory(&[("text", text(2_500_000, 5))]);
    let tree = tree(dir.path());
    let contents = measured(tree.clone(), Compression::Auto);
    let mut lying = (*tree).clone();
    lying.files[0].disk().crc32 ^= 1;
    let unmeasured = Contents::new(Arc::new(lying.clone()), Compression::Auto);
    let mut cache = LengthCache::in_memory();
    let e = measure(&unmeasured, &mut cache, &Silent, &AtomicBool::new(false)).unwrap_err();
    assert!(e.to_string().contains("text") && e.hint().unwrap_or_default().contains("--rehash"), "{e}");
    assert_eq!(cache.get(&lying.files[0].sha256, Codec::Deflate6), None, "nothing wrong is kept");

    std::fs::write(dir.path().join("text"), text(2_500_000, 6)).unwrap();
    let e = Archive::new(contents, 1 << 20).produce(1).unwrap_err();
    assert!(e.to_string().contains("changed"), "{e}");
}

/// Where the archive differs from what `tar` and Python make of it.
fn extracts(archive: &[u8], dir: &Path) -> Option<String> {
    let out = tempfile::tempdir().unwrap();
    let mut child = Command::new("tar")
        .args(["xz", "-C"])
        .arg(out.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(archive).unwrap();
    let run = child.wait_with_output().unwrap();
    if !run.status.success() || !run.stderr.is_empty() {
        return Some(String::from_utf8_lossy(&run.stderr).into());
    }
    let diff = Command::new("diff").arg("-rq").arg(dir).arg(out.path()).output().unwrap();
    if !diff.status.success() {
        return Some(String::from_utf8_lossy(&diff.stdout).into());
    }
    let executable = |file: &Path| std::fs::metadata(file).unwrap().permissions().mode() & 0o111 != 0;
    for file in &tree(dir).files {
        if executable(&dir.join(&file.path)) != executable(&out.path().join(&file.path)) {
            return Some(format!("{} is executable in one of both", file.path));
        }
    }
    let script = "import sys, io, tarfile, hashlib, zlib\n\
        data = sys.stdin.buffer.read()\n\
        one = zlib.decompressobj(31)\n\
        one.decompress(data)\n\
        assert one.eof and not one.unused_data\n\
        for m in tarfile.open(fileobj=io.BytesIO(data)):\n    \
            print(m.name, hashlib.sha256(tarfile.open(fileobj=io.BytesIO(data)).extractfile(m.name).read()).hexdigest())";
    let seen = python(script, archive);
    let expected: String = tree(dir).files.iter().map(|f| format!("{} {}\n", f.path, hex::encode(f.sha256))).collect();
    (seen != expected).then_some(seen)
}

/// A place in the tree: deep or not, also longer than a header's field, and with signs that are no letters.
fn name() -> impl Strategy<Value = String> {
    let part = prop_oneof!["[a-z]{1,8}", "[A-Za-z0-9 ._+@=-]{1,20}[a-z]", "[äöß中文é]{1,12}", "[a-z]{90,120}"];
    prop::collection::vec(part, 1..4)
        .prop_map(|parts| parts.iter().map(|part| part.trim_start_matches(['.', ' '])).collect::<Vec<_>>().join("/"))
}

fn content() -> impl Strategy<Value = (usize, u64, u8)> {
    let piece = deflate::PIECE as usize;
    let size = prop_oneof![0usize..3, 500usize..520, 60_000usize..140_000, piece - 600..piece + 600, piece..3 * piece];
    (size, any::<u64>(), 0u8..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Any tree packs to the same bytes twice, made anew at another time and in another place, and in parts of any size;
    /// it is never longer than if it were stored, and extracts to the same tree.
    #[test]
    fn any_tree_under_any_setting(
        files in prop::collection::vec((name(), content(), any::<bool>()), 1..5),
        setting in 0usize..4,
        part_size in prop_oneof![2_000u64..90_000, 500_000u64..3_000_000],
        cut in (0.0f64..1.0, 0.0f64..1.0),
    ) {
        let made: Vec<(String, Vec<u8>)> = files.iter().enumerate().map(|(n, &(ref name, (len, seed, kind), _))| {
            let bytes = match kind {
                0 => text(len, seed % 1_000_000),
                1 => weights(len, seed),
                2 => noise(len, seed),
                // Text first, and then what does not shrink: pieces of both kinds.
                _ => [text(len / 2, seed % 1_000_000), noise(len - len / 2, seed)].concat(),
            };
            (format!("{n}{name}"), bytes)
        }).collect();
        let made: Vec<(&str, Vec<u8>)> = made.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
        let [dir, again] = [(); 2].map(|()| {
            let dir = directory(&made);
            for ((name, _), (.., executable)) in made.iter().zip(&files) {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(if *executable { 0o755 } else { 0o600 });
                std::fs::set_permissions(dir.path().join(name), mode).unwrap();
            }
            dir
        });
        let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        std::fs::File::open(again.path().join(made[0].0)).unwrap().set_modified(old).unwrap();
        let tree = tree(dir.path());
        let whole = bytes(measured(tree.clone(), SETTINGS[setting]));
        prop_assert!(whole == bytes(measured(super::tree(again.path()), SETTINGS[setting])));
        prop_assert!(whole.len() <= bytes(stored(tree.clone())).len());
        prop_assert_eq!(extracts(&whole, dir.path()), None);

        let archive = Archive::new(measured(tree, SETTINGS[setting]), part_size.max(whole.len() as u64 / 200));
        let mut joined = Vec::new();
        for n in (1..=archive.count()).rev() {
            let part = archive.produce(n).unwrap();
            prop_assert_eq!(part.crc64nvme, checksum(CrcAlgorithm::Crc64Nvme, &part.body));
            joined.splice(0..0, part.body.iter().copied());
        }
        prop_assert!(joined == whole);
        archive.verify(checksum(CrcAlgorithm::Crc64Nvme, &whole)).unwrap();
        prop_assert!(archive.verify(0).is_err());
        let (a, b) = ((cut.0 * whole.len() as f64) as usize, (cut.1 * whole.len() as f64) as usize);
        let (a, b) = (a.min(b), a.max(b));
        prop_assert!(archive.range(a as u64..b as u64).unwrap() == whole[a..b]);
    }
}
