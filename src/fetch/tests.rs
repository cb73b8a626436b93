//! Fetching from a hub on loopback, with everything that goes wrong there.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use reqwest::Url;
use tempfile::TempDir;

use super::*;
use crate::cloud::Objects;
use crate::config::{Config, ModelEntry, ModelFile};
use crate::error::{Error, Kind};
use crate::local::cache::{DigestCache, Stamp};
use crate::local::lockfile::{Lock, Locked};
use crate::progress::{Reporter, Silent};
use hub::{COMMIT, Fault, Hub, TOKEN, sha256};

#[path = "../../tests/it/hub.rs"]
mod hub;
mod places;
mod refusals;
mod room;
mod s3;
mod streaming;

/// Whether sizes are allowed.
type Check = Box<dyn Fn(&[u64]) -> crate::error::Result<()> + Sync>;

/// An app whose models come from the hub.
struct App {
    hub: Hub,
    dir: TempDir,
    config: Config,
    token: Option<&'static str>,
    streaming: Streaming,
    free: fn(&Path) -> Option<u64>,
    fits: Check,
    objects: Option<Arc<dyn Objects>>,
    reporter: Arc<dyn Reporter>,
}

const MODEL: &str = "hf://maker/model/flux1.safetensors@main";

fn entry(source: &str, to: &str) -> ModelEntry {
    ModelEntry::File(ModelFile { source: source.into(), to: Some(to.into()), sha256: None })
}

/// Content that is the same nowhere twice.
fn content(bytes: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..bytes)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

impl App {
    fn new(files: &[ModelEntry]) -> Self {
        let mut config: Config = serde_json::from_str(r#"{"version": 1, "app": "comfy"}"#).expect("config");
        config.models.files = files.to_vec();
        App {
            hub: Hub::start(),
            dir: TempDir::new().expect("directory"),
            config,
            token: None,
            streaming: Streaming::Never,
            free,
            fits: Box::new(|_| Ok(())),
            objects: None,
            reporter: Arc::new(Silent),
        }
    }

    /// One model of Hugging Face with this content.
    fn with(content: &[u8]) -> Self {
        let app = App::new(&[entry(MODEL, "checkpoints/")]);
        app.hub.put("flux1.safetensors", content);
        app
    }

    fn access(&self) -> Access {
        let url = Url::parse(&self.hub.url).expect("url");
        let token = self.token.map(str::to_owned);
        let hubs = Hubs { hugging_face: url.clone(), hf_token: token.clone(), civitai: url, civitai_token: token };
        Access {
            pause: Duration::from_millis(1),
            ..Access::new(Arc::new(http::Web::new().expect("client")), self.objects.clone(), hubs)
        }
    }

    fn run<R>(&self, work: impl AsyncFnOnce(&Job<'_>) -> crate::error::Result<R>) -> crate::error::Result<R> {
        self.run_at(self.dir.path(), work)
    }

    /// The same with another directory of the config file.
    fn run_at<R>(
        &self,
        root: &Path,
        work: impl AsyncFnOnce(&Job<'_>) -> crate::error::Result<R>,
    ) -> crate::error::Result<R> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let (access, config, reporter) = (self.access(), &self.config, &self.reporter);
        let (streaming, free, fits) = (self.streaming, self.free, &*self.fits);
        runtime.block_on(work(&Job { root, config, access: &access, reporter, streaming, free, fits }))
    }

    fn fetch(&self) -> crate::error::Result<Fetched> {
        self.run(async |job| fetch(job).await)
    }

    #[track_caller]
    fn refused(&self) -> Error {
        self.fetch().expect_err("refused")
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        std::fs::read(self.dir.path().join("models").join(path)).ok()
    }

    fn lock(&self) -> Lock {
        Lock::load(self.dir.path()).expect("lock")
    }

    /// Files that are neither finished nor hidden, and hidden ones that were left.
    fn left(&self, folder: &str) -> Vec<String> {
        let names = std::fs::read_dir(self.dir.path().join("models").join(folder)).expect("directory");
        let mut names: Vec<String> =
            names.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn text(error: &Error) -> String {
    format!("{error} -> {}", error.hint().unwrap_or_default())
}

#[test]
fn a_file_comes_whole_is_locked_and_is_not_fetched_or_hashed_again() {
    let weights = content(300_000, 1);
    let app = App::with(&weights);
    let done = app.fetch().expect("fetched");
    assert_eq!(done.fetched, [("checkpoints/flux1.safetensors".to_owned(), 300_000)]);
    assert!(done.lock_changed);
    assert_eq!(app.read("checkpoints/flux1.safetensors"), Some(weights.clone()));
    assert_eq!(app.left("checkpoints"), ["flux1.safetensors"]);
    let locked = app.lock().files["checkpoints/flux1.safetensors"].clone();
    assert_eq!((locked.commit.as_deref(), locked.size, locked.sha256), (Some(COMMIT), 300_000, sha256(&weights)));

    let file = app.dir.path().join("models/checkpoints/flux1.safetensors").canonicalize().expect("path");
    let stamp = Stamp::of(&std::fs::metadata(&file).expect("there"));
    assert!(DigestCache::load(app.dir.path()).get(&file, &stamp).is_some(), "its digest is known");

    app.hub.state().log.clear();
    let again = app.fetch().expect("nothing to do");
    assert_eq!((again.fetched.len(), again.kept.len(), again.lock_changed), (0, 1, false));
    assert_eq!(app.hub.state().log.len(), 0, "an unchanged run asks nobody");
}

#[test]
fn a_token_goes_to_the_hub_alone() {
    let mut app = App::with(&content(1000, 2));
    app.token = Some(TOKEN);
    app.hub.state().gated = true;
    app.fetch().expect("fetched");
    let state = app.hub.state();
    assert!(state.log.iter().any(|(_, path, token, _)| path.starts_with("/maker") && *token));
    let stored: Vec<bool> =
        state.log.iter().filter(|(_, p, ..)| p.starts_with("/store")).map(|(_, _, t, _)| *t).collect();
    assert!(!stored.is_empty() && stored.iter().all(|token| !token));
}

#[test]
fn what_breaks_is_continued() {
    type Case = (&'static str, Vec<Fault>);
    let cases: [Case; 7] = [
        ("cut off three times", vec![Fault::Cut(100_000), Fault::Cut(1), Fault::Cut(0)]),
        (
            "too many requests",
            vec![Fault::Status(429, "retry-after", "2"), Fault::Status(429, "ratelimit", "\"resolvers\";r=0;t=3")],
        ),
        ("an overloaded server", vec![Fault::Status(503, "retry-after", "1"), Fault::Status(502, "x", "y")]),
        ("a signed address that expires", vec![Fault::Cut(50_000), Fault::Expire]),
        ("a signed address that is refused", vec![Fault::Status(403, "x", "y")]),
        ("a cut before the limit", vec![Fault::Cut(10), Fault::Status(429, "retry-after", "1"), Fault::Cut(200_000)]),
        ("a silent end", vec![Fault::Cut(0)]),
    ];
    let weights = content(400_000, 3);
    for (name, faults) in cases {
        let app = App::with(&weights);
        app.hub.state().faults = faults.into();
        app.fetch().unwrap_or_else(|e| panic!("{name}: {}", text(&e)));
        assert_eq!(app.read("checkpoints/flux1.safetensors").as_deref(), Some(&*weights), "{name}");
        assert_eq!(app.hub.state().faults.len(), 0, "{name}");
    }
}

#[test]
fn a_break_that_does_not_end_is_an_error_and_the_next_run_continues() {
    let weights = content(400_000, 4);
    let app = App::with(&weights);
    app.hub.state().faults = [Fault::Cut(150_000)].into_iter().chain((0..20).map(|_| Fault::Cut(0))).collect();
    let error = app.refused();
    assert!(text(&error).contains("tried") && text(&error).contains("continues"), "{}", text(&error));
    assert_eq!(app.left("checkpoints"), [".flux1.safetensors.part", ".flux1.safetensors.part.json"]);
    {
        let mut state = app.hub.state();
        state.faults.clear();
        state.log.clear();
    }
    app.fetch().expect("continued");
    assert_eq!(app.read("checkpoints/flux1.safetensors"), Some(weights));
    assert_eq!(app.hub.ranges(), ["bytes=150000-399999"]);
}

#[test]
fn a_part_that_lies_is_found_out() {
    let weights = content(200_000, 5);
    let app = App::with(&weights);
    app.hub.state().faults = [Fault::Cut(100_000)].into_iter().chain((0..20).map(|_| Fault::Cut(0))).collect();
    app.refused();
    app.hub.state().faults.clear();
    let part = app.dir.path().join("models/checkpoints/.flux1.safetensors.part");
    let mut bytes = std::fs::read(&part).expect("part");
    bytes[5] ^= 1;
    std::fs::write(&part, bytes).expect("part");
    app.fetch().expect("begun anew");
    assert_eq!(app.read("checkpoints/flux1.safetensors"), Some(weights));
}

#[test]
fn content_that_changes_midway_is_begun_anew_unless_it_is_locked() {
    let (old, new) = (content(300_000, 6), content(300_000, 7));
    let app = App::new(&[]);
    let mut app = App { config: app.config.clone(), ..app };
    app.config.models.files = vec![entry(&format!("{}/web/x.safetensors", app.hub.url), "loras/")];
    app.hub.put("x.safetensors", &old);
    app.hub.state().faults = [Fault::Cut(100_000), Fault::Change(new.clone())].into();
    app.fetch().expect("fetched");
    assert_eq!(app.read("loras/x.safetensors"), Some(new));

    // Gone here, and other than locked there: no new model.
    std::fs::remove_file(app.dir.path().join("models/loras/x.safetensors")).expect("removed");
    app.hub.put("x.safetensors", &old);
    let error = app.refused();
    assert!(text(&error).contains("comfy-deploy.lock") && text(&error).contains("--upgrade"), "{}", text(&error));
    assert_eq!(app.read("loras/x.safetensors"), None);
    app.run(async |job| lock(job, Some(&["x.safetensors".to_owned()])).await).expect("upgraded");
    assert_eq!(app.lock().files["loras/x.safetensors"].sha256, sha256(&old));
    assert_eq!(app.read("loras/x.safetensors"), Some(old));
}

#[test]
fn the_locked_commit_is_asked_for_and_upgrading_moves_it() {
    let (old, new) = (content(1000, 8), content(2000, 9));
    let app = App::with(&old);
    app.fetch().expect("fetched");
    std::fs::remove_file(app.dir.path().join("models/checkpoints/flux1.safetensors")).expect("removed");
    app.hub.state().commit = "2222222222222222222222222222222222222222".into();
    app.hub.put("flux1.safetensors", &new);
    let error = app.refused();
    assert!(text(&error).contains("commit in comfy-deploy.lock is not there"), "{}", text(&error));

    let done = app.run(async |job| lock(job, Some(&[])).await).expect("upgraded");
    assert!(done.lock_changed && done.fetched.is_empty(), "the hub tells the sha256");
    let locked = app.lock().files["checkpoints/flux1.safetensors"].clone();
    assert_eq!((locked.size, locked.sha256, locked.commit), (2000, sha256(&new), Some("2".repeat(40))));
    app.fetch().expect("fetched");
    assert_eq!(app.read("checkpoints/flux1.safetensors"), Some(new));
    let unknown = app.run(async |job| lock(job, Some(&["nothing".to_owned()])).await).expect_err("unknown");
    assert!(text(&unknown).contains("checkpoints/flux1.safetensors"), "{}", text(&unknown));
}

#[test]
fn servers_without_ranges_and_small_files_work_too() {
    let mut app = App::new(&[]);
    app.config.models.files = vec![
        entry(&format!("{}/web/plain.bin", app.hub.url), "vae/"),
        entry("hf://maker/model/configs/model.json", "configs/"),
        entry(&format!("{}/web/empty.bin", app.hub.url), "embeddings/"),
    ];
    app.hub.put("plain.bin", &content(50_000, 10));
    app.hub.put("configs/model.json", b"{}");
    app.hub.put("empty.bin", b"");
    {
        let mut state = app.hub.state();
        state.no_ranges = true;
        state.faults = [Fault::Cut(1)].into();
    }
    let done = app.fetch().unwrap_or_else(|e| panic!("{}", text(&e)));
    assert_eq!(done.fetched.len(), 3);
    assert_eq!(app.read("vae/plain.bin"), Some(content(50_000, 10)));
    assert_eq!(app.read("configs/model.json").as_deref(), Some(&b"{}"[..]));
    assert_eq!(app.read("embeddings/empty.bin").as_deref(), Some(&b""[..]));
    assert_eq!(app.lock().files["configs/model.json"].sha256, sha256(b"{}"));
}

#[test]
fn civitai_names_the_file_and_wants_its_token() {
    let mut app = App::new(&[entry("civitai:7", "loras/")]);
    app.hub.put("style.safetensors", &content(70_000, 11));
    let error = app.refused();
    assert!(error.kind() == Kind::Access && text(&error).contains("CIVITAI_API_TOKEN"), "{}", text(&error));
    app.token = Some(TOKEN);
    app.fetch().unwrap_or_else(|e| panic!("{}", text(&e)));
    assert_eq!(app.read("loras/style.safetensors"), Some(content(70_000, 11)));
    assert_eq!(
        selection(app.dir.path(), &app.config.models, false).expect("all here").globs,
        ["/loras/style.safetensors"]
    );
    app.config.models.files = vec![entry("civitai:7?format=GGUF", "loras/")];
    assert!(text(&app.refused()).contains("style.safetensors"));
}

#[test]
fn two_files_that_a_hub_calls_the_same_need_a_name() {
    let mut app = App::new(&[entry("civitai:7", "loras/"), entry("civitai:8", "loras/")]);
    app.token = Some(TOKEN);
    app.hub.put("style.safetensors", &content(70_000, 11));
    let says = |error: Error| {
        let said = text(&error);
        for word in ["civitai:7", "civitai:8", "loras/style.safetensors", "to: loras/NAME"] {
            assert!(error.kind() == Kind::Usage && said.contains(word), "{word} is not in {said}");
        }
    };
    says(app.refused());
    says(app.run(async |job| lock(job, None).await).expect_err("refused"));
    // The same when the first is here already, which nothing happens to.
    app.config.models.files.truncate(1);
    app.fetch().expect("fetched");
    app.config.models.files.push(entry("civitai:8", "loras/"));
    says(app.refused());
    says(app.run(async |job| lock(job, None).await).expect_err("refused"));
    assert_eq!(app.lock().files["loras/style.safetensors"].source, "civitai:7");
    app.config.models.files[1] = entry("civitai:8", "loras/style-8.safetensors");
    app.fetch().expect("fetched");
    assert_eq!(app.left("loras"), ["style-8.safetensors", "style.safetensors"]);
}

/// A weak ETag promises the same meaning, not the same bytes.
#[test]
fn by_a_weak_etag_nothing_is_put_together() {
    let app = App::new(&[]);
    let (old, new) = (content(400_000, 20), content(400_000, 21));
    app.hub.put("x.bin", &old);
    app.hub.state().weak = true;
    app.hub.state().faults = [Fault::Cut(100_000), Fault::Change(new.clone())].into();
    let mut app = app;
    app.config.models.files = vec![entry(&format!("{}/web/x.bin", app.hub.url), "vae/")];
    app.fetch().unwrap_or_else(|e| panic!("{}", text(&e)));
    assert_eq!(app.read("vae/x.bin"), Some(new));
}

/// A copy of a file that may only be read is not one when the run dies: the next run begins it anew.
#[test]
fn a_copy_of_a_read_only_file_can_be_begun_anew() {
    use std::os::unix::fs::PermissionsExt;
    let mut app = App::new(&[]);
    let source = app.dir.path().join("mine.bin");
    std::fs::write(&source, content(50_000, 22)).expect("written");
    std::fs::set_permissions(&source, std::fs::Permissions::from_mode(0o444)).expect("read-only");
    app.config.models.files = vec![entry(source.to_str().expect("text"), "vae/")];
    app.fetch().unwrap_or_else(|e| panic!("{}", text(&e)));
    assert_eq!(app.read("vae/mine.bin"), Some(content(50_000, 22)));
    let mode = std::fs::metadata(app.dir.path().join("models/vae/mine.bin")).expect("there").permissions().mode();
    assert_eq!(mode & 0o200, 0o200, "{mode:o}");
}

#[test]
fn refusals_say_what_to_do() {
    let mut app = App::with(&content(10, 12));
    let with = |app: &mut App, source: &str| {
        app.config.models.files = vec![entry(source, "vae/x.safetensors")];
        let error = app.refused();
        (error.kind(), text(&error))
    };
    let (kind, said) = with(&mut app, "hf://maker/model/flux1_.safetensors");
    assert!(kind == Kind::Usage && said.contains("nearest: flux1.safetensors"), "{said}");
    let (kind, said) = with(&mut app, "hf://maker/model/flux1.safetensors@v9");
    assert!(kind == Kind::Usage && said.contains("no revision v9"), "{said}");
    let (kind, said) = with(&mut app, "hf://nobody/model/x.safetensors");
    assert!(kind == Kind::Access && said.contains("private"), "{said}");
    app.hub.state().gated = true;
    let (kind, said) = with(&mut app, MODEL);
    assert!(kind == Kind::Access && said.contains(&format!("{}/maker/model", app.hub.url)), "{said}");
    app.token = Some("another-token");
    let (kind, said) = with(&mut app, MODEL);
    assert!(kind == Kind::Access && said.contains("terms") && !said.contains("another-token"), "{said}");
    let endless = format!("{}/loop", app.hub.url);
    let (_, said) = with(&mut app, &endless);
    assert!(said.contains("never end"), "{said}");
}

#[test]
fn a_sha256_in_the_config_is_the_last_word() {
    let mut app = App::with(&content(1000, 14));
    let with = |sha: String| {
        vec![ModelEntry::File(ModelFile { source: MODEL.into(), to: Some("vae/".into()), sha256: Some(sha) })]
    };
    app.config.models.files = with("0".repeat(64));
    let error = app.refused();
    assert!(text(&error).contains("models.files says") && app.hub.ranges().is_empty(), "{}", text(&error));
    app.config.models.files = with(sha256(&content(1000, 14)));
    app.fetch().expect("fetched");
}

#[test]
fn a_file_of_this_machine_is_copied_and_locked() {
    let app = App::new(&[entry("../shared/x.safetensors", "loras/")]);
    let dir = app.dir.path().join("app");
    std::fs::create_dir_all(app.dir.path().join("shared")).expect("directory");
    std::fs::create_dir_all(&dir).expect("directory");
    std::fs::write(app.dir.path().join("shared/x.safetensors"), b"weights").expect("written");
    let at = |dir: &Path| app.run_at(dir, async |job| fetch(job).await);
    at(&dir).expect("copied");
    assert_eq!(std::fs::read(dir.join("models/loras/x.safetensors")).expect("there"), b"weights");
    assert_eq!(Lock::load(&dir).expect("lock").files["loras/x.safetensors"].sha256, sha256(b"weights"));
    std::fs::remove_file(app.dir.path().join("shared/x.safetensors")).expect("removed");
    at(&dir).expect("it is here and locked");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever breaks where, and in however many runs, the file is the same in the end.
    #[test]
    fn a_file_resumed_at_any_byte_is_the_same_file(size in 1usize..200_000, cuts in prop::collection::vec(0usize..200_000, 0..6)) {
        let weights = content(size, size as u32);
        let app = App::with(&weights);
        for cut in cuts {
            // Each run breaks once at this byte of its answer and then for good.
            app.hub.state().faults = [Fault::Cut(cut)].into_iter().chain((0..8).map(|_| Fault::Cut(0))).collect();
            if app.fetch().is_ok() {
                break;
            }
        }
        app.hub.state().faults.clear();
        app.fetch().expect("finished");
        prop_assert_eq!(app.read("checkpoints/flux1.safetensors"), Some(weights));
    }
}
