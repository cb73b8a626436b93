//! Files that stay where they are.

use super::*;
use crate::local::models::{Origin, Stop, Unread};

const MIB: usize = 1 << 20;

/// Reads ranges of a locked file where it is.
pub(super) struct Reader {
    runtime: tokio::runtime::Runtime,
    file: crate::local::models::ModelFile,
}

impl Reader {
    fn of(app: &App, access: Access, wanted: &Wanted, locked: Locked) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
        let streams = Streams::new(access, runtime.handle().clone());
        let path = wanted.path(&app.lock()).expect("path");
        let file = streams.file(&Streamable { path, wanted: wanted.clone(), locked }).expect("file");
        Reader { runtime, file }
    }

    /// Of the app's only file, which holds `content`, and whose hub tells its sha256 or not.
    pub(super) fn new(app: &App, content: &[u8]) -> Self {
        let wanted = &wanted(&app.config.models.files)[0];
        let commit = matches!(wanted.source, Source::HuggingFace { .. }).then(|| COMMIT.to_owned());
        let (source, size) = (wanted.source.to_string(), content.len() as u64);
        let locked = Locked { source, commit, size, sha256: sha256(content), etag: None };
        Reader::of(app, app.access(), wanted, locked)
    }

    /// Reads a range in steps that are as uneven as those of an archive.
    pub(super) fn read(&self, range: std::ops::Range<u64>, stop: &Stop) -> Result<Vec<u8>, Unread> {
        let Origin::Remote(remote) = &self.file.origin else { panic!("it is elsewhere") };
        let mut out = vec![0; (range.end - range.start) as usize];
        let mut bytes = remote.open(range, stop);
        for piece in out.chunks_mut(65_535) {
            let (first, rest) = piece.split_at_mut(piece.len() / 3);
            bytes.read(first)?;
            bytes.read(rest)?;
        }
        Ok(out)
    }

    pub(super) fn all(&self) -> Result<Vec<u8>, Unread> {
        self.read(0..self.file.size, &Stop::default())
    }
}

fn web(app: &App) -> Vec<ModelEntry> {
    vec![entry(&format!("{}/web/x.safetensors", app.hub.url), "loras/")]
}

#[test]
fn what_breaks_is_asked_for_again_from_there() {
    let weights = content(400_000, 21);
    let cases: [(&str, Vec<Fault>); 6] = [
        ("nothing", vec![]),
        ("cut off", vec![Fault::Cut(100_000), Fault::Cut(1), Fault::Cut(0)]),
        ("throttled", vec![Fault::Status(429, "retry-after", "2"), Fault::Status(429, "ratelimit", "\"x\";r=0;t=3")]),
        ("overloaded", vec![Fault::Status(503, "retry-after", "1"), Fault::Status(502, "x", "y")]),
        ("expired", vec![Fault::Cut(50_000), Fault::Expire]),
        ("refused", vec![Fault::Cut(10), Fault::Status(403, "x", "y"), Fault::Cut(200_000)]),
    ];
    for (name, faults) in cases {
        let app = App::with(&weights);
        app.hub.state().faults = faults.into();
        let came = Reader::new(&app, &weights).all().unwrap_or_else(|e| panic!("{name}: {}", text(&e.error)));
        assert!(came == weights, "{name}");
        assert_eq!(app.hub.state().faults.len(), 0, "{name}");
    }
}

#[test]
fn the_place_is_asked_for_once_and_the_token_goes_to_the_hub_alone() {
    let weights = content(300_000, 22);
    let mut app = App::with(&weights);
    app.token = Some(TOKEN);
    app.hub.state().gated = true;
    let reader = Reader::new(&app, &weights);
    for range in [200_000..300_000u64, 0..1, 5..123_456] {
        assert!(
            reader
                .read(range.clone(), &Stop::default())
                .is_ok_and(|b| b == weights[range.start as usize..range.end as usize])
        );
    }
    let state = app.hub.state();
    let asked = |what: &str| state.log.iter().filter(|(_, path, ..)| path.starts_with(what)).count();
    assert_eq!((asked("/maker"), asked("/store")), (2, 3), "one to look, one to be redirected");
    assert!(state.log.iter().all(|(_, path, token, _)| path.starts_with("/maker") == *token));
}

#[test]
fn a_break_that_does_not_end_may_end_another_time() {
    let weights = content(100_000, 23);
    let app = App::with(&weights);
    app.hub.state().faults = (0..20).map(|_| Fault::Cut(0)).collect();
    let unread = Reader::new(&app, &weights).all().expect_err("broken");
    assert!(unread.again && text(&unread.error).contains("continues"), "{}", text(&unread.error));
}

#[test]
fn other_content_than_the_locked_is_an_error() {
    let (old, new) = (content(100_000, 24), content(100_000, 25));
    // Before anything was read, and in between; at a hub that tells the sha256, and at one that does not.
    let hugging_face = |app: &App| app.config.models.files.clone();
    for (files, begun) in [(hugging_face as fn(&App) -> Vec<ModelEntry>, true), (hugging_face, false), (web, true)] {
        let mut app = App::with(&old);
        app.hub.put("x.safetensors", &old);
        app.config.models.files = files(&app);
        let reader = Reader::new(&app, &old);
        match begun {
            true => app.hub.state().faults = [Fault::Cut(60_000), Fault::Change(new.clone())].into(),
            false => app.hub.put("flux1.safetensors", &new),
        }
        let unread = reader.all().expect_err("changed");
        assert!(!unread.again, "{}", text(&unread.error));
        for word in ["comfy-deploy.lock", "--upgrade"] {
            assert!(text(&unread.error).contains(word), "{}", text(&unread.error));
        }
    }
}

#[test]
fn a_server_without_ranges_is_told_to_the_user() {
    let weights = content(100_000, 26);
    let mut app = App::new(&[]);
    app.config.models.files = web(&app);
    app.hub.put("x.safetensors", &weights);
    app.hub.state().no_ranges = true;
    let unread = Reader::new(&app, &weights).all().expect_err("no ranges");
    assert!(text(&unread.error).contains("whole files") && text(&unread.error).contains("model fetch"));
    // Known before anything is locked, if it is large.
    app.hub.put("x.safetensors", &content(33 * MIB, 27));
    app.streaming = Streaming::Always;
    assert!(text(&app.refused()).contains("whole files"));
    app.hub.put("x.safetensors", &weights);
    app.fetch().expect("a small one is fetched");
    assert_eq!(app.read("loras/x.safetensors"), Some(weights));
}

#[test]
fn a_reader_that_waits_ends_when_it_is_stopped() {
    let weights = content(100_000, 28);
    let app = App::with(&weights);
    app.hub.state().faults = [Fault::Status(429, "retry-after", "300")].into();
    let wanted = &wanted(&app.config.models.files)[0];
    let (source, sha256) = (wanted.source.to_string(), sha256(&weights));
    let locked = Locked { source, commit: Some(COMMIT.into()), size: 100_000, sha256, etag: None };
    let reader = Reader::of(&app, Access { pause: Duration::from_secs(1), ..app.access() }, wanted, locked);
    let (stop, begun) = (Stop::default(), std::time::Instant::now());
    std::thread::scope(|scope| {
        let read = scope.spawn(|| reader.read(0..100_000, &stop));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!read.is_finished());
        stop.set();
        assert!(read.join().expect("no panic").is_err());
    });
    assert!(begun.elapsed() < Duration::from_secs(20));
    drop(reader.runtime);
}

#[test]
fn large_files_are_locked_only_and_small_ones_fetched() {
    let (large, style, small) = (content(33 * MIB, 29), content(34 * MIB, 30), content(5000, 31));
    let mut app = App::new(&[
        entry(MODEL, "checkpoints/"),
        entry("civitai:7", "loras/"),
        entry("hf://maker/model/small.safetensors", "vae/"),
    ]);
    app.token = Some(TOKEN);
    app.streaming = Streaming::Always;
    app.config.models.stream = true;
    for (name, content) in [("flux1.safetensors", &large), ("style.safetensors", &style), ("small.safetensors", &small)]
    {
        app.hub.put(name, content);
    }
    let select = |app: &App, stream| selection(app.dir.path(), &app.config.models, stream);
    assert!(text(&select(&app, true).expect_err("not locked")).contains("model lock"));
    let done = app.fetch().expect("done");
    assert_eq!(done.fetched, [("vae/small.safetensors".to_owned(), 5000)]);
    let streamed: Vec<&str> = done.streamed.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(streamed, ["checkpoints/flux1.safetensors", "loras/style.safetensors"]);
    assert!(
        app.hub.ranges().iter().all(|range| ["bytes=0-0", "bytes=0-4999"].contains(&range.as_str())),
        "{:?}",
        app.hub.ranges()
    );
    assert!(!app.dir.path().join("models/checkpoints").exists() && app.left("vae") == ["small.safetensors"]);
    assert_eq!(app.lock().files["loras/style.safetensors"].sha256, sha256(&style));
    let words: Vec<&str> =
        status(app.dir.path(), &app.config).expect("status").iter().map(|one| one.state.word()).collect();
    assert_eq!(words, ["streamed", "streamed", "locked"]);
    let selected = select(&app, true).expect("all there or locked");
    assert_eq!((selected.globs.len(), selected.streamed.len()), (3, 2));
    assert!(text(&select(&app, false).expect_err("not here")).contains("models.stream"));

    app.hub.state().log.clear();
    let again = app.fetch().expect("nothing to do");
    assert_eq!((again.fetched.len(), again.kept.len(), again.streamed.len(), again.lock_changed), (0, 1, 2, false));
    assert_eq!(app.hub.state().log.len(), 0, "an unchanged run asks nobody");
}

#[test]
fn what_no_hub_tells_the_sum_of_is_read_once_and_not_kept() {
    let weights = content(33 * MIB + 1, 32);
    let mut app = App::new(&[]);
    app.config.models.files = web(&app);
    app.streaming = Streaming::Always;
    app.hub.put("x.safetensors", &weights);
    app.hub.state().faults = [Fault::Cut(100_000), Fault::Status(503, "retry-after", "1")].into();
    let done = app.run(async |job| lock(job, None).await).expect("locked");
    assert_eq!(done.streamed, [("loras/x.safetensors".to_owned(), 33 * MIB as u64 + 1)]);
    assert_eq!(app.lock().files["loras/x.safetensors"].sha256, sha256(&weights));
    assert!(!app.dir.path().join("models").exists());
    // With a sum in the config nothing need be read to lock it.
    let ModelEntry::File(mut file) = app.config.models.files[0].clone() else { panic!("a file") };
    file.sha256 = Some(sha256(&weights));
    app.config.models.files = vec![ModelEntry::File(file)];
    std::fs::remove_file(Lock::file(app.dir.path())).expect("removed");
    app.hub.state().log.clear();
    app.fetch().expect("locked");
    assert_eq!(app.lock().files["loras/x.safetensors"].sha256, sha256(&weights));
    assert!(app.hub.state().log.iter().all(|(.., range)| range == "bytes=0-0"));
}

/// Most of its ranges are asked for before the first answer says what the content is called.
#[test]
fn ranges_of_two_contents_are_never_locked_as_one() {
    let mut app = App::new(&[]);
    app.config.models.files = web(&app);
    app.streaming = Streaming::Always;
    app.hub.put("x.safetensors", &content(33 * MIB, 35));
    app.hub.state().faults = [Fault::Cut(usize::MAX), Fault::Change(content(33 * MIB, 36))].into();
    let error = text(&app.refused());
    assert!(error.contains("changed while it was read") && app.lock().files.is_empty(), "{error}");
}

#[test]
fn without_room_large_files_are_streamed_and_fetching_says_both_numbers() {
    let mut app = App::new(&[entry(MODEL, "checkpoints/"), entry("hf://maker/model/small.safetensors", "vae/")]);
    let (large, small) = (content(40 * MIB, 33), content(5 * MIB, 34));
    app.hub.put("flux1.safetensors", &large);
    app.hub.put("small.safetensors", &small);
    app.free = |_| Some(80 << 20);
    let error = app.refused();
    assert!(text(&error).contains("47.2 MB") && text(&error).contains("83.9 MB"), "{}", text(&error));
    app.streaming = Streaming::IfNeeded;
    let done = app.fetch().expect("streamed");
    assert_eq!((done.fetched.len(), done.streamed.len()), (1, 1));
    // A plan knows it from the lock.
    let note = |app: &App| without_room(app.dir.path(), &app.config, app.free).expect("lock");
    assert!(note(&app).is_some_and(|note| note.contains("need 41.9 MB") && note.contains("83.9 MB free")));
    app.config.models.stream = true;
    assert_eq!(note(&app), None, "nothing that need be said");
    app.config.models.stream = false;
    assert_eq!(app.left("vae"), ["small.safetensors"]);
    assert!(!app.dir.path().join("models/checkpoints").exists());
    // Not even the small ones fit.
    std::fs::remove_file(app.dir.path().join("models/vae/small.safetensors")).expect("removed");
    app.free = |_| Some(66 << 20);
    assert!(text(&app.refused()).contains("5.2 MB"));
    // With room all is fetched.
    app.free = free;
    let done = app.fetch().expect("fetched");
    assert_eq!((done.fetched.len(), done.streamed.len()), (2, 0));
    assert_eq!(app.read("checkpoints/flux1.safetensors"), Some(large));
}
