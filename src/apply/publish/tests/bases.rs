//! What there is to copy from: gone, another object, one of many, or not to be reached.

use super::*;
use crate::cloud::fake::service;
use crate::error::Kind;

/// What a run says in notes and warnings.
#[derive(Default)]
struct Said(std::sync::Mutex<Vec<String>>);

impl Said {
    fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }
}

impl Reporter for Said {
    fn report(&self, event: Event) {
        if let Event::Note(text) | Event::Warning(text) = event {
            self.0.lock().unwrap().push(text);
        }
    }
}

fn index_of(key: &str) -> String {
    key.replace("model.tar.gz", "index.json")
}

#[tokio::test]
async fn without_an_index_or_with_another_object_all_is_sent_and_said_so() {
    type Change = fn(&Fake, &str);
    let change: [(Change, &str); 4] = [
        (|fake, key| drop(fake.state().objects.remove(&index_of(key))), "1 have no index to copy by"),
        (|fake, key| drop(fake.state().objects.remove(key)), "1 are gone, or were never finished"),
        (
            |fake, key| drop(fake.state().objects.insert(key.into(), ("other".into(), sum(b"other")))),
            "it is not the archive that its index describes",
        ),
        (
            |fake, key| {
                let body = Bytes::from_static(b"not an index");
                let crc = sum(&body);
                fake.state().objects.insert(index_of(key), (body, crc));
            },
            "or one of another version of comfy-deploy",
        ),
    ];
    for (change, why) in change {
        let dir = models();
        let fake = Fake::with(|s| s.strict = true);
        let (key, ..) = push(&fake, dir.path(), Packaging::Tar).await;
        change(&fake, &key);
        write(dir.path(), "loras/new.safetensors", &noise(1000, 3));
        let said = Said::default();
        let new = artifact(dir.path(), Packaging::Tar);
        let (key, _, uploaded) = push_telling(&fake, new, &said).await.unwrap();
        assert_eq!(uploaded.spared, 0);
        assert!(said.text().contains(why), "{}", said.text());
        assert!(fake.state().objects[&key].0 == whole(dir.path()));
    }
}

/// As of one that was encrypted with a key that is not there any more.
#[tokio::test]
async fn an_artifact_that_cannot_be_read_does_not_hide_the_others() {
    for packaging in [Packaging::Tar, Packaging::Uncompressed] {
        let dir = models();
        let fake = Fake::with(|_| ());
        let (key, ..) = push(&fake, dir.path(), packaging).await;
        let description = key.replace("model.tar.gz", "index.json").replace("files/", "manifest.json");
        let denied = || service("AccessDenied", Some(403)).kind_is(Kind::Access);
        write(dir.path(), "loras/new.safetensors", &noise(2 * MIB, 3));
        fake.state().faults.insert(format!("get {description}"), vec![denied(), denied()]);

        let said = Said::default();
        let (.., uploaded) = push_telling(&fake, artifact(dir.path(), packaging), &said).await.unwrap();
        assert_eq!(uploaded.spared, 0);
        assert!(said.text().contains("cannot be read: ") && said.text().contains("AccessDenied"), "{}", said.text());

        write(dir.path(), "loras/newer.safetensors", &noise(2 * MIB, 4));
        let said = Said::default();
        let (.., uploaded) = push_telling(&fake, artifact(dir.path(), packaging), &said).await.unwrap();
        assert!(uploaded.spared > 40 * MIB as u64, "{uploaded:?}");
        assert_eq!(said.text(), "");
        assert!(fake.state().faults[&format!("get {description}")].is_empty());
    }
}

/// Keys say nothing of age, and nobody removes old artifacts.
#[tokio::test]
async fn of_many_older_artifacts_the_newest_are_looked_at() {
    for packaging in [Packaging::Tar, Packaging::Uncompressed] {
        let dir = models();
        let fake = Fake::with(|_| ());
        let (key, ..) = push(&fake, dir.path(), packaging).await;
        {
            let mut state = fake.state();
            let written: Vec<String> = state.objects.keys().cloned().collect();
            state.modified.extend(written.into_iter().map(|key| (key, 1_000)));
            // Older ones, more than are looked at in front of it and behind.
            let place = |name: &str| key.split_inclusive('/').take(1).collect::<String>() + name;
            for n in 0..2 * CANDIDATES + 2 {
                let name = format!("{}{n:023x}/", if n % 2 == 0 { '0' } else { 'f' });
                for file in ["model.tar.gz", "index.json", "manifest.json"] {
                    state.objects.insert(place(&name) + file, (Bytes::from_static(b"x"), sum(b"x")));
                    state.modified.insert(place(&name) + file, n as i64);
                }
            }
        }
        write(dir.path(), "loras/new.safetensors", &noise(1000, 3));
        let (_, planned, uploaded) = push(&fake, dir.path(), packaging).await;
        assert!(planned < 10 * MIB as u64 && uploaded.spared > 40 * MIB as u64, "{planned} {uploaded:?}");
    }
}

/// The archive's content is damaged where its index cannot know: what was copied does not add up, so all is sent.
#[tokio::test]
async fn a_copy_of_damaged_bytes_is_noticed() {
    let dir = models();
    let fake = Fake::with(|s| s.strict = true);
    let (key, ..) = push(&fake, dir.path(), Packaging::Tar).await;
    {
        let mut state = fake.state();
        let (body, _) = state.objects.get_mut(&key).unwrap();
        let mut damaged = body.to_vec();
        damaged[20 * MIB] ^= 1;
        *body = damaged.into();
    }
    write(dir.path(), "loras/new.safetensors", &noise(1000, 3));
    let (key, ..) = push(&fake, dir.path(), Packaging::Tar).await;
    assert!(fake.state().objects[&key].0 == whole(dir.path()));
    assert!(fake.state().uploads.is_empty());
}

#[tokio::test]
async fn files_are_copied_one_by_one() {
    let dir = models();
    let fake = Fake::with(|s| s.strict = true);
    push(&fake, dir.path(), Packaging::Uncompressed).await;
    // Renamed, so the content is what counts.
    std::fs::rename(dir.path().join("vae/vae.safetensors"), dir.path().join("vae/other.safetensors")).unwrap();
    write(dir.path(), "loras/new.safetensors", &noise(2 * MIB, 3));
    let (prefix, planned, uploaded) = push(&fake, dir.path(), Packaging::Uncompressed).await;
    assert_eq!(uploaded.bytes - uploaded.spared, planned);
    assert!(planned < 3 * MIB as u64, "{planned}");
    let state = fake.state();
    for file in &artifact(dir.path(), Packaging::Uncompressed).tree.files {
        let Origin::Disk(disk) = &file.origin else { panic!("all is on disk") };
        assert!(state.objects[&format!("{prefix}{}", file.path)].0 == std::fs::read(&disk.source).unwrap());
    }
}

/// A source that is not as it was is a reason to send a file; an S3 that does not answer, or does not know us any more, is
/// none: the file would not arrive either.
#[tokio::test]
async fn a_file_that_cannot_be_copied_is_sent_unless_nothing_would_arrive() {
    let denied = || service("AccessDenied", Some(403)).kind_is(Kind::Access);
    let expired = || service("ExpiredToken", Some(400)).kind_is(Kind::Access);
    let busy = || service("SlowDown", Some(503));
    for (fault, sent) in [
        (vec![service("PreconditionFailed", Some(412))], true),
        (vec![service("NoSuchKey", Some(404))], true),
        (vec![denied()], true),
        (vec![busy()], false),
        (vec![expired()], false),
        (vec![], false),
    ] {
        let lasting = fault.iter().any(|e| e.is_aws("ExpiredToken"));
        let dir = models();
        let fake = Fake::with(|s| s.strict = true);
        push(&fake, dir.path(), Packaging::Uncompressed).await;
        write(dir.path(), "loras/new.safetensors", &noise(1000, 3));
        let new = artifact(dir.path(), Packaging::Uncompressed);
        let prefix = new.manifest().key(Packaging::Uncompressed).unwrap();
        let key = format!("{prefix}checkpoints/base.safetensors");
        fake.state().faults.insert(format!("copy {key}"), fault);
        let said = Said::default();
        let outcome = push_telling(&fake, new, &said).await;
        if lasting {
            let e = outcome.unwrap_err();
            assert!(e.is_aws("ExpiredToken") && e.hint().is_some(), "{e}");
            assert_eq!(said.text(), "", "nothing is sent as a whole");
            continue;
        }
        let (_, _, uploaded) = outcome.unwrap();
        assert_eq!(uploaded.spared < 40 * MIB as u64, sent, "{uploaded:?}");
        assert_eq!(said.text().contains("base.safetensors is sent as a whole"), sent, "{}", said.text());
        assert!(
            fake.state().objects[&key].0 == std::fs::read(dir.path().join("checkpoints/base.safetensors")).unwrap()
        );
    }
}

/// A copy of something else is noticed, removed, and the file is sent.
#[tokio::test]
async fn a_file_that_is_copied_wrongly_is_sent() {
    let dir = models();
    let fake = Fake::with(|s| s.strict = true);
    let (prefix, ..) = push(&fake, dir.path(), Packaging::Uncompressed).await;
    let old = format!("{prefix}vae/vae.safetensors");
    // Of the same size, and S3 says the sum of what was there before.
    let right = fake.state().objects[&old].clone();
    fake.state().objects.insert(old.clone(), (noise(9 * MIB, 99).into(), right.1));
    write(dir.path(), "loras/new.safetensors", &noise(1000, 3));
    let said = Said::default();
    let new = artifact(dir.path(), Packaging::Uncompressed);
    let (prefix, ..) = push_telling(&fake, new, &said).await.unwrap();
    assert!(said.text().contains("vae.safetensors is sent as a whole"), "{}", said.text());
    assert!(fake.state().objects[&format!("{prefix}vae/vae.safetensors")].0 == right.0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 30, ..ProptestConfig::default() })]

    /// Whatever happens to the files between two versions, each is there in the end.
    #[test]
    fn copied_files_are_what_is_on_disk(rounds in prop::collection::vec(prop::collection::vec(edit(), 1..5), 2..5)) {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..6 {
            apply(dir.path(), &Edit::Write(n, 700_000 * n as usize, u64::from(n)));
        }
        let fake = Fake::with(|s| s.strict = true);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for edits in rounds {
            edits.iter().for_each(|edit| apply(dir.path(), edit));
            let new = artifact(dir.path(), Packaging::Uncompressed);
            let files = new.tree.files.clone();
            let (prefix, planned, uploaded) = runtime.block_on(push_artifact(&fake, new));
            prop_assert!(uploaded.already || planned == uploaded.bytes - uploaded.spared);
            let state = fake.state();
            let there: Vec<&String> = state.objects.keys().filter(|key| key.starts_with(&prefix)).collect();
            prop_assert_eq!(there.len(), files.len());
            for file in &files {
                let on_disk = std::fs::read(dir.path().join(&file.path)).unwrap();
                let key = prefix.clone() + &file.path;
                prop_assert!(state.objects[&key].0 == on_disk);
            }
            prop_assert!(state.uploads.is_empty());
        }
    }
}
