//! The same with files that are compressed, settings that change from version to version, and `adaptive`.

use std::io::Read;

use super::*;
use crate::cloud::fake::Fake;

/// Text that deflates to about a fourth, and is another one for each seed.
fn text(len: usize, seed: u64) -> Vec<u8> {
    let lines: String = (seed..seed + 9000).map(|n| format!("layer_{}.weight = {}\n", n % 7, n * n)).collect();
    let mut out = Vec::with_capacity(len + lines.len());
    for n in 0.. {
        if out.len() >= len {
            break;
        }
        out.extend(format!("{seed} {n}\n").as_bytes());
        out.extend(lines.as_bytes());
    }
    out.truncate(len);
    out
}

/// Noise in one byte of two, as in weights: it shrinks by a third or more, and slowly.
fn weights(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = noise(len.next_multiple_of(8), seed);
    for number in bytes.chunks_exact_mut(8) {
        let x = u64::from_le_bytes(number.try_into().unwrap());
        number.copy_from_slice(&(x & 0x01ff_01ff_01ff_01ff | 0x3c00_3c00_3c00_3c00).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Bytes per second of a line that is slower than any compressing: one part measures it.
const SLOW: f64 = 4e6;

fn with(dir: &Path, compression: Compression) -> Artifact {
    Artifact { compression, ..artifact(dir, Packaging::Tar) }
}

/// The files in an archive.
fn extracted(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(archive).read_to_end(&mut plain).unwrap();
    let mut out = BTreeMap::new();
    let mut at = 0;
    while plain[at] != 0 {
        let field = |from: usize, len: usize| {
            let field = &plain[at + from..at + from + len];
            String::from_utf8(field.iter().copied().take_while(|&b| b != 0).collect()).unwrap()
        };
        let size = usize::from_str_radix(&field(124, 11), 8).unwrap();
        out.insert(field(0, 100), plain[at + 512..at + 512 + size].to_vec());
        at += 512 + size.next_multiple_of(512);
    }
    out
}

fn on_disk(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let tree = artifact(dir, Packaging::Tar).tree;
    tree.files.iter().map(|f| (f.path.clone(), std::fs::read(dir.join(&f.path)).unwrap())).collect()
}

#[tokio::test]
async fn what_is_copied_is_not_compressed_here() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a/text", &text(40 * MIB, 1));
    write(dir.path(), "b/weights", &weights(20 * MIB, 2));
    let fake = Fake::with(|s| s.strict = true);
    push_artifact(&fake, with(dir.path(), Compression::Fast)).await;
    write(dir.path(), "b/more", &weights(MIB, 3));
    let said = Said::default();
    // No lengths are kept: those of the large files come from the older archive's index.
    let prepared = prepare(fake.clone(), with(dir.path(), Compression::Fast), &said).await.unwrap();
    assert!(said.0.lock().unwrap().is_empty(), "{:?}", said.0);
    assert!(prepared.sent() < 7 * MIB as u64, "{}", prepared.sent());
    let key = prepared.key.clone();
    publish(fake.clone(), prepared, &Silent).await.unwrap();
    let object = fake.state().objects[&key].0.clone();
    assert!(object == whole_compressed(dir.path(), Compression::Fast));
    assert_eq!(extracted(&object), on_disk(dir.path()));
}

#[derive(Default)]
struct Said(std::sync::Mutex<Vec<Event>>);

impl Reporter for Said {
    fn report(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

/// An index that lies about the length of a compressed file spoils nothing: what was copied does not add up, so all is
/// sent.
#[tokio::test]
async fn an_index_with_a_wrong_length_costs_only_time() {
    for by in [-7, 7] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a/text", &text(48 * MIB, 1));
        write(dir.path(), "b/weights", &noise(8 * MIB, 2));
        let fake = Fake::with(|s| s.strict = true);
        let (key, ..) = push_artifact(&fake, with(dir.path(), Compression::Fast)).await;
        {
            let mut state = fake.state();
            let (body, crc) = state.objects.get_mut(&key.replace(ARCHIVE, INDEX)).unwrap();
            let mut index = Index::parse(body).unwrap();
            index.files[0].length = index.files[0].length.checked_add_signed(by).unwrap();
            index.files[1].start = index.files[1].start.checked_add_signed(by).unwrap();
            index.size = index.size.checked_add_signed(by).unwrap();
            *body = index.text().unwrap().into();
            *crc = sum(body);
            let (archive, crc) = state.objects.get_mut(&key).unwrap();
            // Of the same length, so that the lie is not found before it is used.
            let mut longer = archive.to_vec();
            longer.resize(longer.len().checked_add_signed(by as isize).unwrap(), 0);
            *archive = longer.into();
            *crc = sum(archive);
            let sum = crc.clone();
            let (body, crc) = state.objects.get_mut(&key.replace(ARCHIVE, INDEX)).unwrap();
            let index = Index { crc64nvme: sum, ..Index::parse(body).unwrap() };
            *body = index.text().unwrap().into();
            *crc = crate::cloud::fake::sum(body);
        }
        write(dir.path(), "a/another", &noise(1000, 3));
        let (key, ..) = push_artifact(&fake, with(dir.path(), Compression::Fast)).await;
        assert!(fake.state().objects[&key].0 == whole_compressed(dir.path(), Compression::Fast), "{by}");
        assert!(fake.state().uploads.is_empty());
    }
}

/// Lengths that an earlier run kept spare the compressing, and are not believed when the file says otherwise.
#[tokio::test]
async fn kept_lengths_are_used_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let root = tempfile::tempdir().unwrap();
    write(dir.path(), "a/text", &text(40 * MIB, 1));
    let kept = |rehash| Artifact {
        lengths: Lengths { root: Some(root.path().to_owned()), rehash },
        ..with(dir.path(), Compression::Fast)
    };
    let first = Said::default();
    prepare(Fake::with(|_| ()), kept(false), &first).await.unwrap();
    assert!(matches!(&first.0.lock().unwrap()[0], Event::Begin { label, .. } if label.contains("compressing 1 file")));
    let second = Said::default();
    prepare(Fake::with(|_| ()), kept(false), &second).await.unwrap();
    assert!(second.0.lock().unwrap().is_empty());

    // As if the file had other lengths.
    let mut cache = LengthCache::load(root.path());
    let sha256 = kept(false).tree.files[0].sha256;
    let mut lengths = cache.get(&sha256, Codec::Deflate2).unwrap().to_vec();
    lengths[3] += 1;
    cache.put(&sha256, Codec::Deflate2, lengths.into());
    cache.save().unwrap();
    let fake = Fake::with(|_| ());
    let prepared = prepare(fake.clone(), kept(false), &Silent).await.unwrap();
    let e = publish(fake.clone(), prepared, &Silent).await.unwrap_err();
    assert!(e.to_string().contains("a/text") && e.hint().unwrap_or_default().contains("--rehash"), "{e}");
    let (key, ..) = push_artifact(&fake, kept(true)).await;
    assert!(fake.state().objects[&key].0 == whole_compressed(dir.path(), Compression::Fast));
}

/// Models of which the first parts hold the first file.
fn large() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "checkpoints/first.safetensors", &weights(20 * MIB, 1));
    write(dir.path(), "diffusion_models/second.safetensors", &weights(40 * MIB, 2));
    write(dir.path(), "vae/third.safetensors", &weights(8 * MIB, 3));
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_uplink_compresses_and_a_fast_one_does_not() {
    let dir = large();
    let mut seen = Vec::new();
    for (rate, compresses) in [(None, false), (Some(SLOW), true)] {
        let fake = Fake::with(|s| (s.strict, s.rate) = (true, rate));
        let prepared = prepare(fake.clone(), with(dir.path(), Compression::Adaptive), &Silent).await.unwrap();
        assert!(prepared.at_most && prepared.summary().starts_with("at most"), "{}", prepared.summary());
        let (key, most) = (prepared.key.clone(), prepared.bytes);
        let said = Said::default();
        let published = publish(fake.clone(), prepared, &said).await.unwrap();
        let decision = published.decision.unwrap();
        assert_eq!(!decision.compressed.is_empty(), compresses, "{}", decision.text);
        assert_eq!(published.uploaded.bytes < most, compresses);
        let notes: Vec<Event> = said.0.into_inner().unwrap();
        assert!(
            notes.contains(&Event::Note(decision.text.clone())) && decision.text.contains("MB/s"),
            "{}",
            decision.text
        );
        let state = fake.state();
        assert!(extracted(&state.objects[&key].0) == on_disk(dir.path()));
        assert!(state.uploads.is_empty());
        // The parts that measured were sent once, and are the first ones of the object.
        assert_eq!(state.calls.iter().filter(|c| *c == "part 1").count(), 1);
        let index = Index::parse(&state.objects[&key.replace(ARCHIVE, INDEX)].0).unwrap();
        assert_eq!(index.files[0].codec, Codec::Stored, "it begins in what was sent already");
        assert_eq!(index.size, published.uploaded.bytes);
        seen.push(key);
    }
    assert_eq!(seen[0], seen[1], "one key, whatever was decided");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_at_an_adaptive_key_is_taken_whatever_it_is() {
    let dir = large();
    let slow = Fake::with(|s| s.rate = Some(SLOW));
    let (key, _, first) = push_artifact(&slow, with(dir.path(), Compression::Adaptive)).await;
    slow.state().rate = None;
    let prepared = prepare(slow.clone(), with(dir.path(), Compression::Adaptive), &Silent).await.unwrap();
    let again = publish(slow.clone(), prepared, &Silent).await.unwrap();
    assert!(again.uploaded.already && again.decision.is_none());
    assert_eq!(again.uploaded.bytes, first.bytes);
    // A new file beside it: the others are copied as they are there.
    write(dir.path(), "loras/new", &weights(MIB, 9));
    let (new, planned, uploaded) = push_artifact(&slow, with(dir.path(), Compression::Adaptive)).await;
    assert_ne!(new, key);
    assert!(planned < 12 * MIB as u64 && uploaded.bytes - uploaded.spared <= planned, "{planned}");
    assert!(extracted(&slow.state().objects[&new].0) == on_disk(dir.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adaptive_upload_that_broke_off_is_continued_as_it_was_decided() {
    let dir = large();
    let root = tempfile::tempdir().unwrap();
    let kept = || Artifact {
        lengths: Lengths { root: Some(root.path().to_owned()), rehash: false },
        ..with(dir.path(), Compression::Adaptive)
    };
    let denied = || crate::cloud::fake::service("AccessDenied", Some(403)).kind_is(crate::error::Kind::Access);
    let fake = Fake::with(|s| {
        (s.strict, s.rate) = (true, Some(SLOW));
        s.faults.insert("complete".into(), vec![denied()]);
    });
    let prepared = prepare(fake.clone(), kept(), &Silent).await.unwrap();
    publish(fake.clone(), prepared, &Silent).await.unwrap_err();
    // A run of other bytes that got as far as its index.
    let index = kept().manifest().index_key().unwrap();
    fake.state().objects.insert(index.clone(), ("{}".into(), sum(b"{}")));
    // The uplink is another one now, which changes nothing.
    fake.state().rate = None;
    fake.state().calls.clear();
    let prepared = prepare(fake.clone(), kept(), &Silent).await.unwrap();
    let key = prepared.key.clone();
    let published = publish(fake.clone(), prepared, &Silent).await.unwrap();
    assert!(fake.sent().is_empty(), "{:?}", fake.sent());
    assert!(published.decision.unwrap().text.contains("continued"));
    let state = fake.state();
    assert!(extracted(&state.objects[&key].0) == on_disk(dir.path()));
    assert!(state.uploads.is_empty());
    assert_eq!(Index::parse(&state.objects[&index].0).unwrap().crc64nvme, state.objects[&key].1);
    drop(state);
    assert_eq!(LengthCache::load(root.path()).choice(&kept().manifest().identity().unwrap()), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 10, ..ProptestConfig::default() })]

    /// Whatever happens to the files and the setting between two versions, copies and what is sent give the object that
    /// a whole upload gives.
    #[test]
    fn copies_give_what_a_whole_upload_gives_under_any_setting(
        rounds in prop::collection::vec((prop::collection::vec(edit(), 1..4), 0usize..4, any::<bool>()), 2..4),
        seed in any::<u64>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        write(dir.path(), "base/text", &text(8 * MIB, seed % 1000));
        write(dir.path(), "base/weights", &weights(8 * MIB, seed));
        write(dir.path(), "base/noise", &noise(12 * MIB, seed));
        let fake = Fake::with(|s| s.strict = true);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for (edits, setting, keep) in rounds {
            let compression = [Compression::None, Compression::Auto, Compression::Fast, Compression::Best][setting];
            let lengths = Lengths { root: keep.then(|| root.path().to_owned()), rehash: false };
            let artifact = Artifact { lengths, ..with(dir.path(), compression) };
            let (key, planned, uploaded) = runtime.block_on(push_artifact(&fake, artifact));
            let object = fake.state().objects[&key].0.clone();
            prop_assert!(object == whole_compressed(dir.path(), compression));
            prop_assert!(extracted(&object) == on_disk(dir.path()));
            prop_assert!(uploaded.already || planned == uploaded.bytes - uploaded.spared);
            prop_assert!(fake.state().uploads.is_empty());
            for (n, edit) in edits.iter().enumerate() {
                apply(dir.path(), edit);
                write(dir.path(), &format!("d{n}/text"), &text(3 * MIB * n + 1000, seed % 77 + n as u64));
            }
        }
    }
}
