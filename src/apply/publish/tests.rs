use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::cloud::fake::{Fake, sum};
use crate::local::cache::DigestCache;
use crate::local::models::scan;
use crate::progress::Silent;

mod bases;
mod compressed;

const MIB: usize = 1 << 20;

/// Bytes that no two seeds share.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend(x.to_le_bytes());
    }
    out.truncate(len);
    out
}

fn write(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn artifact(dir: &Path, packaging: Packaging) -> Artifact {
    let tree = Arc::new(scan(dir, &[], &mut DigestCache::in_memory(), false, &Silent).unwrap());
    let (compression, lengths) = (Compression::None, Lengths::default());
    Artifact { bucket: "b".into(), tree, packaging, compression, lengths, kms_key_arn: None, now: 2 * STALE }
}

async fn push(fake: &Arc<Fake>, dir: &Path, packaging: Packaging) -> (String, u64, Uploaded) {
    push_artifact(fake, artifact(dir, packaging)).await
}

async fn push_artifact(fake: &Arc<Fake>, artifact: Artifact) -> (String, u64, Uploaded) {
    push_telling(fake, artifact, &Silent).await.unwrap()
}

async fn push_telling(
    fake: &Arc<Fake>,
    artifact: Artifact,
    reporter: &dyn Reporter,
) -> Result<(String, u64, Uploaded)> {
    let prepared = prepare(fake.clone(), artifact, reporter).await?;
    let (key, planned) = (prepared.key.clone(), prepared.sent());
    let uploaded = publish(fake.clone(), prepared, reporter).await?.uploaded;
    Ok((key, planned, uploaded))
}

/// What a whole upload makes.
fn whole(dir: &Path) -> Vec<u8> {
    whole_compressed(dir, Compression::None)
}

fn whole_compressed(dir: &Path, compression: Compression) -> Vec<u8> {
    let contents = Contents::new(artifact(dir, Packaging::Tar).tree, compression);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let contents = crate::pack::measure(&contents, &mut LengthCache::in_memory(), &Silent, &stop).unwrap();
    let archive = Archive::new(contents, 16 << 20);
    archive.range(0..archive.layout().total).unwrap()
}

fn models() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "checkpoints/base.safetensors", &noise(40 * MIB + 13, 1));
    write(dir.path(), "vae/vae.safetensors", &noise(9 * MIB, 2));
    for n in 0..20 {
        write(dir.path(), &format!("configs/{n}.json"), &noise(1000 + n, n as u64 + 50));
    }
    dir
}

#[tokio::test]
async fn a_new_small_model_sends_little_and_gives_the_same_object() {
    let dir = models();
    let fake = Fake::with(|s| s.strict = true);
    let (first, _, all) = push(&fake, dir.path(), Packaging::Tar).await;
    assert_eq!(all.spared, 0);
    write(dir.path(), "loras/new.safetensors", &noise(MIB, 3));
    let (key, planned, uploaded) = push(&fake, dir.path(), Packaging::Tar).await;
    assert_ne!(key, first);
    assert_eq!(uploaded.bytes - uploaded.spared, planned);
    assert!(planned < 7 * MIB as u64, "{planned} bytes for one more MiB");
    let state = fake.state();
    assert!(state.objects[&key].0 == whole(dir.path()));
    assert!(state.uploads.is_empty());
    // The new index is as good as one of a whole upload: it does not come from the old one alone.
    let index = Index::parse(&state.objects[&key.replace("model.tar.gz", "index.json")].0).unwrap();
    for file in &index.files {
        let bytes = &state.objects[&key].0[file.start as usize..(file.start + file.length) as usize];
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes);
        assert_eq!(file.crc64nvme, format!("{crc:016x}"), "{}", file.path);
    }
    assert_eq!(index.crc64nvme, sum(&state.objects[&key].0));
}

#[tokio::test]
async fn old_uploads_of_other_models_are_aborted_and_of_nothing_else() {
    let dir = models();
    let fake = Fake::with(|s| {
        for (id, key, at) in [
            ("old", "models/ffffffffffffffffffffffff/model.tar.gz", STALE - 1),
            ("young", "models/eeeeeeeeeeeeeeeeeeeeeeee/model.tar.gz", STALE + 1),
            ("foreign", "elsewhere/model.tar.gz", 0),
            ("another program's", "models/another/model.tar.gz", 0),
        ] {
            s.uploads.insert(id.into(), (key.into(), BTreeMap::new()));
            s.initiated.insert(id.into(), at);
        }
    });
    push(&fake, dir.path(), Packaging::Tar).await;
    assert_eq!(fake.state().uploads.keys().collect::<Vec<_>>(), ["another program's", "foreign", "young"]);
}

/// One change of a tree.
#[derive(Debug, Clone)]
enum Edit {
    Write(u8, usize, u64),
    Remove(u8),
    Rename(u8, u8),
    Append(u8, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let size = prop_oneof![0usize..3000, 5 * MIB - 700..5 * MIB + 700, 0usize..9 * MIB];
    prop_oneof![
        (0u8..8, size, any::<u64>()).prop_map(|(n, len, seed)| Edit::Write(n, len, seed)),
        (0u8..8).prop_map(Edit::Remove),
        (0u8..8, 0u8..8).prop_map(|(a, b)| Edit::Rename(a, b)),
        (0u8..8, 1usize..70_000).prop_map(|(n, len)| Edit::Append(n, len)),
    ]
}

fn apply(dir: &Path, edit: &Edit) {
    let name = |n: u8| dir.join(format!("d{}/{n}", n % 3));
    match *edit {
        Edit::Write(n, len, seed) => write(dir, &format!("d{}/{n}", n % 3), &noise(len, seed)),
        Edit::Remove(n) => drop(std::fs::remove_file(name(n))),
        Edit::Rename(a, b) => {
            std::fs::create_dir_all(name(b).parent().unwrap()).unwrap();
            drop(std::fs::rename(name(a), name(b)));
        }
        Edit::Append(n, len) => {
            if let Ok(mut bytes) = std::fs::read(name(n)) {
                bytes.extend(noise(len, 7));
                std::fs::write(name(n), bytes).unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 30, ..ProptestConfig::default() })]

    /// Whatever happens to the files between two versions, copies and what is sent give the object that a whole upload
    /// gives.
    #[test]
    fn copies_give_what_a_whole_upload_gives(
        rounds in prop::collection::vec(prop::collection::vec(edit(), 1..5), 2..4),
        seed in any::<u64>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "base", &noise(18 * MIB, seed));
        for n in 0..4 {
            apply(dir.path(), &Edit::Write(n, 3 * MIB * n as usize, seed ^ u64::from(n)));
        }
        let fake = Fake::with(|s| s.strict = true);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for edits in rounds {
            let (key, planned, uploaded) = runtime.block_on(push(&fake, dir.path(), Packaging::Tar));
            prop_assert!(fake.state().objects[&key].0 == whole(dir.path()));
            prop_assert!(uploaded.already || planned == uploaded.bytes - uploaded.spared);
            prop_assert!(fake.state().uploads.is_empty());
            edits.iter().for_each(|edit| apply(dir.path(), edit));
        }
        let (key, ..) = runtime.block_on(push(&fake, dir.path(), Packaging::Tar));
        prop_assert!(fake.state().objects[&key].0 == whole(dir.path()));
    }
}
