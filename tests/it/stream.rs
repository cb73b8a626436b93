//! Large models that go from the hub into the bucket without touching the disk.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::hub::{Fault, Hub, TOKEN, sha256};
use crate::probe::{BUCKET, Bucket, Going};
use crate::support::{App, Ran, Sandbox, run};

const MIB: usize = 1 << 20;

/// Files that are streamed have more.
const LEAST: u64 = 32 << 20;

const ONE: &str = "{source: 'hf://maker/model/flux1.safetensors', to: checkpoints/}";
const TWO: &str = "{source: 'hf://maker/model/lora.safetensors', to: loras/}";
const SMALL: &str = "{source: 'hf://maker/model/ae.safetensors', to: vae/}";

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

fn config(more: &str, files: &[&str]) -> String {
    format!("models: {{stream: true, {more}files: [{}]}}\n", files.join(", "))
}

/// An app whose foundation stands, with a large and a small model at the hub and none here.
struct Case<'a> {
    app: App<'a>,
    hub: Hub,
    bucket: Bucket,
    image: String,
}

impl<'a> Case<'a> {
    fn new(sandbox: &'a Sandbox, more: &str) -> Self {
        let hub = Hub::start();
        hub.put("flux1.safetensors", &noise(40 * MIB + 3, 1));
        hub.put("ae.safetensors", &noise(MIB, 2));
        let app = App::with_image(sandbox, "");
        // The foundation, with the tiny model that every app of the tests has.
        app.run(&["up", "--yes"]).exits(0);
        std::fs::remove_dir_all(app.path("models")).unwrap();
        let text = std::fs::read_to_string(app.path("comfy-deploy.yaml")).unwrap();
        let image = text.lines().find(|line| line.starts_with("image:")).unwrap().to_owned();
        let case = Case { bucket: Bucket::of(sandbox), app, hub, image };
        case.declare(more, &[ONE, SMALL]);
        case
    }

    fn declare(&self, more: &str, files: &[&str]) {
        self.app.configure(&format!("{}\n{}", self.image, config(more, files)));
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.app.command(args);
        command.env("HF_ENDPOINT", &self.hub.url).env("HF_TOKEN", TOKEN).env("TMPDIR", self.app.dir.path());
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        run(self.command(args))
    }

    fn push(&self) -> Value {
        self.run(&["model", "push", "--output", "json"]).exits(0).data()
    }

    /// The object under the key of `uri` is what `model pack` writes of the same files when they are here.
    fn is_what_pack_writes(&self, uri: &Value) {
        let key = uri.as_str().unwrap().strip_prefix(&format!("s3://{BUCKET}/")).unwrap();
        let copy = tempfile::TempDir::new().unwrap();
        for name in ["comfy-deploy.yaml", "comfy-deploy.lock"] {
            std::fs::copy(self.app.path(name), copy.path().join(name)).unwrap();
        }
        std::fs::create_dir(copy.path().join("workflows")).unwrap();
        for args in [["model", "fetch"].as_slice(), &["model", "pack", "-o", "packed.tar.gz"]] {
            let mut command = self.command(args);
            run({
                command.current_dir(copy.path());
                command
            })
            .exits(0);
        }
        assert!(self.bucket.bytes(key) == std::fs::read(copy.path().join("packed.tar.gz")).unwrap(), "{key}");
        assert!(self.bucket.open().is_empty());
    }

    /// Bytes of a file that the hub was asked for since its log was cleared.
    fn asked(&self, name: &str) -> u64 {
        let state = self.hub.state();
        let ranges = state.log.iter().filter(|(_, path, ..)| path.starts_with("/store") && path.contains(name));
        ranges
            .filter_map(|(.., range)| {
                let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
                Some(to.parse::<u64>().ok()? + 1 - from.parse::<u64>().ok()?)
            })
            .sum()
    }
}

/// Bytes of the largest file below a directory.
fn largest(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let one = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => largest(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(one).max().unwrap_or(0)
}

/// Looks at a directory as long as it lives.
struct Watch {
    most: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    fn start(dir: PathBuf) -> Self {
        let (most, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, end) = (most.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                seen.fetch_max(largest(&dir), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        Watch { most, over, thread: Some(thread) }
    }

    /// The largest file that was ever seen.
    fn end(mut self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.most.load(Ordering::Relaxed)
    }
}

#[test]
fn up_streams_what_is_large_and_keeps_none_of_it() {
    let sandbox = Sandbox::new();
    let case = Case::new(&sandbox, "");
    let planned = case.run(&["plan"]).exits(2);
    assert!(planned.stderr.contains("comfy-deploy model lock"), "{}", planned.stderr);

    let watch = Watch::start(case.app.dir.path().to_owned());
    let data = case.run(&["up", "--yes", "--output", "json"]).exits(0).data();
    let most = watch.end();
    assert!(most < LEAST, "a file of {most} bytes was here");
    assert_eq!(data["model"]["uploaded"], data["model"]["bytes"], "{data}");
    assert!(case.app.path("models/vae/ae.safetensors").is_file());
    assert!(!case.app.path("models/checkpoints").exists());
    let lock = std::fs::read_to_string(case.app.path("comfy-deploy.lock")).unwrap();
    assert!(lock.contains(&sha256(&noise(40 * MIB + 3, 1))), "{lock}");

    let states = case.run(&["model", "ls", "--output", "json"]).exits(0).data();
    let states: Vec<&Value> = states["files"].as_array().unwrap().iter().map(|file| &file["state"]).collect();
    assert_eq!(states, ["streamed", "locked"]);
    let verified = case.run(&["model", "verify"]).exits(0);
    assert!(verified.stdout.contains("flux1.safetensors: streamed"), "{}", verified.stdout);

    case.hub.state().log.clear();
    let again = case.run(&["up", "--yes", "--output", "json"]).exits(0).data();
    assert_eq!(again["changed"], json!(false), "{again}");
    assert_eq!(case.hub.state().log.len(), 0, "an unchanged run asks the hub nothing");
    case.is_what_pack_writes(&json!(format!("s3://{BUCKET}/{}", data["model"]["key"].as_str().unwrap())));

    // Once it is here it is read here, and nothing changes by that.
    case.run(&["model", "fetch"]).exits(0);
    let again = case.run(&["up", "--yes", "--output", "json"]).exits(0).data();
    assert_eq!(again["changed"], json!(false), "{again}");
    // What is here and is something else is not taken for the locked.
    let file = case.app.path("models/checkpoints/flux1.safetensors");
    std::fs::write(&file, noise(40 * MIB + 3, 9)).unwrap();
    let again = case.run(&["up", "--yes", "--output", "json"]).exits(0).data();
    assert_eq!(again["changed"], json!(false), "{again}");
}

/// `command` where `models` is a disk of its own, of so many MiB, for this one command.
fn on_a_small_disk(command: &Command, mib: usize) -> Command {
    let mut small = Command::new("unshare");
    small.arg("--mount");
    if !rustix::process::geteuid().is_root() {
        small.arg("--map-root-user");
    }
    let script = format!("mount -t tmpfs -o size={mib}m none models && exec \"$0\" \"$@\"");
    small.args(["sh", "-c", &script]).arg(command.get_program()).args(command.get_args());
    small.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    small.current_dir(command.get_current_dir().unwrap()).stdin(Stdio::null());
    small
}

#[test]
fn where_the_disk_is_too_small_it_streams_without_being_told_to() {
    let sandbox = Sandbox::with_time_scale(0.001);
    let case = Case::new(&sandbox, "");
    let text = std::fs::read_to_string(case.app.path("comfy-deploy.yaml")).unwrap();
    case.app.write("comfy-deploy.yaml", &text.replace("stream: true, ", ""));
    std::fs::create_dir_all(case.app.path("models")).unwrap();
    // 64 MiB stay free: there is room for the small file, and not for the large one.
    let ran = run(on_a_small_disk(&case.command(&["up", "--yes", "--output", "json"]), 80)).exits(0);
    for word in ["models has 83.9 MB free", "1 file (41.9 MB)", "streamed into the upload and not kept here"] {
        assert!(ran.stderr.contains(word), "{word} is not in {}", ran.stderr);
    }
    let key = ran.data()["model"]["key"].as_str().unwrap().to_owned();
    let uri = json!(format!("s3://{BUCKET}/{key}"));
    case.is_what_pack_writes(&uri);
    // Where there is room the same files are fetched, and are the same artifact.
    let again = case.run(&["up", "--yes", "--output", "json"]).exits(0).data();
    assert!(case.app.path("models/checkpoints/flux1.safetensors").is_file());
    assert_eq!(again["changed"], json!(false), "{again}");

    // To fetch a file means to have it here.
    case.hub.state().log.clear();
    let ran = run(on_a_small_disk(&case.command(&["model", "fetch"]), 80)).exits(1);
    assert!(ran.stderr.contains("free some space"), "{}", ran.stderr);
    assert_eq!(case.hub.state().log.iter().filter(|(_, path, ..)| path.starts_with("/store")).count(), 0);
}

#[test]
fn of_a_second_version_only_the_new_file_is_read() {
    let sandbox = Sandbox::with_time_scale(0.001);
    let case = Case::new(&sandbox, "");
    case.push();
    case.hub.put("lora.safetensors", &noise(35 * MIB, 3));
    case.declare("", &[ONE, SMALL, TWO]);
    case.run(&["model", "lock"]).exits(0);
    case.hub.state().log.clear();
    let planned = case.run(&["model", "push", "--dry-run", "--output", "json"]).exits(0).data();
    assert_eq!(case.hub.state().log.len(), 0, "a dry run reads nothing");
    let done = case.push();
    assert_eq!(done["sent_bytes"], planned["sent_bytes"]);
    assert!(done["copied_bytes"].as_u64().unwrap() > 34 * MIB as u64, "{done}");
    assert_eq!(case.asked("lora"), 35 * MIB as u64);
    assert!(case.asked("flux1") < 6 * MIB as u64, "{}", case.asked("flux1"));
    case.is_what_pack_writes(&done["uri"]);
}

#[test]
fn a_hub_that_breaks_off_and_throttles_gives_the_same_object() {
    let sandbox = Sandbox::with_time_scale(0.001);
    let case = Case::new(&sandbox, "");
    // The small one is fetched, so that the faults are those of the stream.
    case.run(&["model", "lock"]).exits(0);
    case.declare("", &[SMALL]);
    case.run(&["model", "fetch"]).exits(0);
    case.declare("", &[ONE, SMALL]);
    case.run(&["model", "lock"]).exits(0);
    case.hub.state().faults = [
        Fault::Cut(5 * MIB),
        Fault::Status(429, "retry-after", "1"),
        Fault::Expire,
        Fault::Cut(0),
        Fault::Status(503, "x", "y"),
    ]
    .into();
    let done = case.push();
    assert!(case.hub.state().faults.is_empty());
    case.is_what_pack_writes(&done["uri"]);
}

#[test]
fn other_content_than_the_locked_ends_the_upload() {
    let sandbox = Sandbox::with_time_scale(0.001);
    let case = Case::new(&sandbox, "");
    case.run(&["model", "fetch"]).exits(0);
    std::fs::remove_dir_all(case.app.path("models/checkpoints")).unwrap();
    // Midway; the hub notices it.
    case.hub.state().faults = [Fault::Cut(MIB), Fault::Change(noise(40 * MIB + 3, 8))].into();
    let error = case.run(&["model", "push", "--output", "json"]).exits(1).error();
    assert!(error.to_string().contains("comfy-deploy.lock"), "{error}");
    assert!(case.bucket.open().is_empty(), "its parts are of no use");

    // A server that tells nothing of its content: only the sha256 of all that came shows it.
    let source = format!("{{source: '{}/web/flux1.safetensors', to: checkpoints/}}", case.hub.url);
    case.hub.put("flux1.safetensors", &noise(40 * MIB + 3, 1));
    case.declare("", &[&source]);
    case.run(&["model", "lock"]).exits(0);
    let other = noise(40 * MIB + 3, 7);
    case.hub.put("flux1.safetensors", &other);
    let error = case.run(&["model", "push", "--output", "json"]).exits(1).error().to_string();
    for word in ["checkpoints/flux1.safetensors", &sha256(&noise(40 * MIB + 3, 1)), &sha256(&other)] {
        assert!(error.contains(word), "{word} is not in {error}");
    }
    assert!(case.bucket.open().is_empty());
    assert_eq!(case.bucket.keys("models/").iter().filter(|key| key.ends_with("tar.gz")).count(), 1);
    case.hub.put("flux1.safetensors", &noise(40 * MIB + 3, 1));
    case.is_what_pack_writes(&case.push()["uri"]);
}

#[test]
fn a_hub_that_is_gone_costs_no_parts_that_were_sent() {
    let sandbox = Sandbox::with_time_scale(0.001);
    let case = Case::new(&sandbox, "");
    case.run(&["model", "fetch"]).exits(0);
    std::fs::remove_dir_all(case.app.path("models/checkpoints")).unwrap();
    // The first part comes, and then nothing any more.
    case.hub.state().faults =
        std::iter::once(Fault::Cut(usize::MAX)).chain((0..200).map(|_| Fault::Status(404, "x", "y"))).collect();
    case.run(&["model", "push"]).exits(2);
    assert_eq!(case.bucket.open().len(), 1, "the upload is kept");
    case.hub.state().faults.clear();
    case.is_what_pack_writes(&case.push()["uri"]);
}

#[test]
fn killed_or_interrupted_the_next_run_ends_with_the_right_object() {
    let sandbox = Sandbox::with_time_scale(0.001);
    let case = Case::new(&sandbox, "");
    let begun = Instant::now();
    case.push();
    let usual = begun.elapsed();
    for round in 0..6u32 {
        let content = noise(40 * MIB + 3, 100 + u64::from(round));
        case.hub.put("flux1.safetensors", &content);
        case.run(&["model", "lock", "--upgrade"]).exits(0);
        let wait = usual * (round + 1) / 7;
        if round % 2 == 0 {
            let mut command = case.command(&["model", "push"]);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(wait);
            let _ = child.kill();
            child.wait().unwrap();
        } else {
            let going = Going::start(case.command(&["model", "push"]));
            std::thread::sleep(wait);
            going.signal(rustix::process::Signal::INT);
            let asked = Instant::now();
            let ran = going.end();
            assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
            assert!([0, 130].contains(&ran.code), "{} {}", ran.code, ran.stderr);
            assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        }
        case.is_what_pack_writes(&case.push()["uri"]);
    }
}

#[test]
fn files_are_streamed_one_by_one_too() {
    let sandbox = Sandbox::with_time_scale(0.001);
    let case = Case::new(&sandbox, "packaging: uncompressed, ");
    let watch = Watch::start(case.app.dir.path().to_owned());
    let done = case.push();
    assert!(watch.end() < LEAST);
    let key = |done: &Value, path: &str| {
        format!("{}{path}", done["uri"].as_str().unwrap().strip_prefix(&format!("s3://{BUCKET}/")).unwrap())
    };
    assert!(case.bucket.bytes(&key(&done, "checkpoints/flux1.safetensors")) == noise(40 * MIB + 3, 1));

    case.hub.put("lora.safetensors", &noise(35 * MIB, 3));
    case.declare("packaging: uncompressed, ", &[ONE, SMALL, TWO]);
    case.hub.state().log.clear();
    let done = case.push();
    assert_eq!(done["sent_bytes"], json!(35 * MIB), "{done}");
    assert_eq!((case.asked("flux1"), case.asked("lora")), (0, 35 * MIB as u64));
    assert!(case.bucket.bytes(&key(&done, "checkpoints/flux1.safetensors")) == noise(40 * MIB + 3, 1));
    assert!(case.bucket.bytes(&key(&done, "loras/lora.safetensors")) == noise(35 * MIB, 3));

    // A wrong one is never visible.
    case.hub.put("lora.safetensors", &noise(35 * MIB, 4));
    case.run(&["model", "lock", "--upgrade"]).exits(0);
    case.hub.state().faults = [Fault::Cut(MIB), Fault::Change(noise(35 * MIB, 5))].into();
    let before = case.bucket.keys("models/");
    case.run(&["model", "push"]).exits(1);
    let new: Vec<String> = case.bucket.keys("models/").into_iter().filter(|key| !before.contains(key)).collect();
    assert!(new.iter().all(|key| !key.ends_with("lora.safetensors") && !key.ends_with("manifest.json")), "{new:?}");
    assert!(case.bucket.open().is_empty());
}
