//! `model pack` and `model push` as a process against the sandbox: what is sent, what is copied, and that no kill at any
//! moment leaves anything but the right object.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::probe::{BUCKET, Bucket};
use crate::support::{App, Sandbox};

const MIB: usize = 1 << 20;

/// Numbers that look random and are the same in every run.
pub struct Dice(pub u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend(self.next().to_le_bytes());
        }
        out.truncate(len);
        out
    }

    /// Numbers of which one byte in two is nearly always the same, so that they compress.
    fn weights(&mut self, len: usize) -> Vec<u8> {
        let mut out = self.bytes(len);
        out.iter_mut().skip(1).step_by(2).for_each(|byte| *byte = 60 | *byte & 1);
        out
    }
}

/// A file of the models.
pub fn model(app: &App<'_>, name: &str, bytes: &[u8]) {
    let path = app.path("models").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::File::create(path).unwrap().write_all(bytes).unwrap();
}

/// An app whose foundation stands, with some 50 MiB of models in the bucket.
pub fn deployed<'a>(sandbox: &'a Sandbox, dice: &mut Dice) -> (App<'a>, Bucket) {
    deployed_with(sandbox, dice, "")
}

fn deployed_with<'a>(sandbox: &'a Sandbox, dice: &mut Dice, config: &str) -> (App<'a>, Bucket) {
    let app = App::with_image(sandbox, config);
    model(&app, "checkpoints/base.safetensors", &dice.bytes(40 * MIB + 3));
    model(&app, "vae/vae.safetensors", &dice.bytes(9 * MIB));
    app.run(&["up", "--yes"]).exits(0);
    (app, Bucket::of(sandbox))
}

/// The object under the key of `uri` is what `model pack` writes.
pub fn is_what_pack_writes(app: &App<'_>, bucket: &Bucket, uri: &str) {
    let out = app.path("packed.tar.gz");
    app.run(&["model", "pack", "-o", out.to_str().unwrap()]).exits(0);
    let key = uri.strip_prefix(&format!("s3://{BUCKET}/")).unwrap();
    assert!(bucket.bytes(key) == std::fs::read(&out).unwrap(), "{key} is not the archive");
}

#[test]
fn only_what_is_new_is_sent() {
    let sandbox = Sandbox::with_time_scale(0.001);
    let mut dice = Dice(11);
    let (app, bucket) = deployed(&sandbox, &mut dice);
    model(&app, "loras/new.safetensors", &dice.bytes(MIB));

    let planned = app.run(&["model", "push", "--dry-run", "--output", "json"]).exits(0).data();
    assert!(planned["copied_bytes"].as_u64().unwrap() > 40 * MIB as u64, "{planned}");
    sandbox.forget_calls();
    let done = app.run(&["model", "push", "--output", "json"]).exits(0).data();
    assert_eq!(done["sent_bytes"], planned["sent_bytes"]);
    assert!(done["sent_bytes"].as_u64().unwrap() < 8 * MIB as u64, "{done}");
    let calls = sandbox.calls();
    assert!(calls.contains_key("s3:UploadPartCopy"), "{calls:?}");
    is_what_pack_writes(&app, &bucket, done["uri"].as_str().unwrap());
    assert!(bucket.open().is_empty());

    let again = app.run(&["model", "push", "--output", "json"]).exits(0).data();
    assert_eq!((&again["already"], &again["sent_bytes"]), (&json!(true), &json!(0)));
    // What was pushed is what `up` deploys.
    sandbox.forget_calls();
    app.run(&["up", "--yes"]).exits(0);
    assert!(!sandbox.calls().contains_key("s3:UploadPart"));
}

#[test]
fn when_the_old_object_cannot_be_copied_all_is_sent_and_said_so() {
    let sandbox = Sandbox::with_time_scale(0.001);
    let mut dice = Dice(12);
    let (app, bucket) = deployed(&sandbox, &mut dice);
    model(&app, "loras/new.safetensors", &dice.bytes(MIB));
    sandbox.break_things(json!([{"kind": "error", "service": "s3", "operation": "UploadPartCopy", "code": "PreconditionFailed",
        "message": "At least one of the pre-conditions you specified did not hold", "status": 412, "times": 1_000_000}]));
    let ran = app.run(&["model", "push", "--output", "json"]).exits(0);
    assert!(ran.stderr.contains("sent as a whole"), "{}", ran.stderr);
    let done = ran.data();
    is_what_pack_writes(&app, &bucket, done["uri"].as_str().unwrap());
    assert!(bucket.open().is_empty());
}

#[test]
fn a_service_that_asks_to_slow_down_gets_the_whole_all_the_same() {
    let sandbox = Sandbox::with_time_scale(0.001);
    let mut dice = Dice(13);
    let (app, bucket) = deployed(&sandbox, &mut dice);
    model(&app, "checkpoints/base.safetensors", &dice.bytes(90 * MIB));
    sandbox.break_things(json!([{"kind": "error", "service": "s3", "operation": "UploadPart", "code": "SlowDown",
        "message": "Please reduce your request rate.", "status": 503, "times": 9}]));
    let done = app.run(&["model", "push", "--output", "json"]).exits(0).data();
    is_what_pack_writes(&app, &bucket, done["uri"].as_str().unwrap());
}

#[test]
fn killed_at_any_moment_the_next_run_ends_with_the_right_object() {
    killed_again_and_again("", 20, Dice::bytes);
}

/// The same while files are compressed to know their lengths, and compressed again to be sent.
#[test]
fn killed_while_it_compresses_the_next_run_ends_with_the_right_object() {
    killed_again_and_again("models: {compression: fast}", 10, Dice::weights);
}

/// Killed at many moments, with files that change in between: the same command again always ends with the right
/// object, its index, and no upload that is left over.
fn killed_again_and_again(config: &str, rounds: usize, numbers: fn(&mut Dice, usize) -> Vec<u8>) {
    let sandbox = Sandbox::with_time_scale(0.001);
    let mut dice = Dice(14);
    let (app, bucket) = deployed_with(&sandbox, &mut dice, config);
    let begun = Instant::now();
    model(&app, "checkpoints/base.safetensors", &numbers(&mut dice, 30 * MIB));
    app.run(&["model", "push"]).exits(0);
    let usual = begun.elapsed();
    let parts = || sandbox.count("s3:UploadPart") + sandbox.count("s3:UploadPartCopy");
    let mut met = 0;
    for round in 0..rounds {
        // Every other time nearly all is copied.
        let (name, size) = [("checkpoints/base.safetensors", 30 * MIB), ("loras/one.safetensors", 2 * MIB)][round % 2];
        model(&app, name, &numbers(&mut dice, size));
        let mut command = app.command(&["model", "push"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        if round % 3 == 2 {
            // In the middle of the upload, however long it takes to get there.
            let before = parts();
            while parts() == before && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
        } else {
            std::thread::sleep(Duration::from_micros(dice.next() % usual.as_micros() as u64));
        }
        let _ = child.kill();
        child.wait().unwrap();
        met += usize::from(!bucket.open().is_empty());
        let done = app.run(&["model", "push", "--output", "json"]).exits(0).data();
        let uri = done["uri"].as_str().unwrap();
        is_what_pack_writes(&app, &bucket, uri);
        assert!(bucket.open().is_empty(), "round {round} left {:?}", bucket.open());
        let index = uri.strip_prefix(&format!("s3://{BUCKET}/")).unwrap().replace("model.tar.gz", "index.json");
        assert_eq!(bucket.read(&index)["size"], json!(std::fs::metadata(app.path("packed.tar.gz")).unwrap().len()));
    }
    assert!(met > 0, "no upload was ever killed");
}

#[test]
fn a_pack_is_what_tar_reads() {
    let sandbox = Sandbox::new();
    let app = App::new(&sandbox);
    model(&app, "vae/a", &Dice(15).bytes(200_000));
    model(&app, "empty", b"");
    let out = app.path("out");
    std::fs::create_dir(&out).unwrap();
    app.run(&["model", "pack", "-o", out.join("m.tar.gz").to_str().unwrap()]).exits(0);
    let mut to_tar = app.command(&["model", "pack", "-o", "-"]);
    let packed = to_tar.output().unwrap();
    assert!(packed.status.success());
    assert!(packed.stdout == std::fs::read(out.join("m.tar.gz")).unwrap());
    let tar = std::process::Command::new("tar").arg("xzf").arg(out.join("m.tar.gz")).arg("-C").arg(&out).status();
    assert!(tar.unwrap().success());
    assert!(std::fs::read(out.join("vae/a")).unwrap() == Dice(15).bytes(200_000));
    assert!(Path::new(&out.join("empty")).exists());
    // Anybody may read it who may read other files; nothing else is left beside it.
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
    std::fs::write(out.join("other"), "").unwrap();
    assert_eq!(mode(&out.join("m.tar.gz")), mode(&out.join("other")));
    // What is known of files is not believed when that is asked for.
    let big = app.path("models/vae/a");
    let before = std::fs::metadata(&big).unwrap().modified().unwrap();
    std::fs::write(&big, Dice(16).bytes(200_000)).unwrap();
    std::fs::File::options().write(true).open(&big).unwrap().set_modified(before).unwrap();
    app.run(&["model", "pack", "--rehash", "-o", out.join("m.tar.gz").to_str().unwrap()]).exits(0);
    // Both results cannot go to one stream.
    app.run(&["model", "pack", "-o", "-", "--output", "json"]).exits(2);
}

#[test]
fn files_that_are_published_one_by_one_are_deployed_and_copied() {
    let sandbox = Sandbox::with_time_scale(0.001);
    let mut dice = Dice(18);
    let (app, bucket) = deployed_with(&sandbox, &mut dice, "models: {packaging: uncompressed}");
    let source = || {
        // Model and endpoint config of a version have one name.
        let endpoint = sandbox.call("sagemaker", "DescribeEndpoint", json!({"EndpointName": "comfy"})).unwrap();
        let name = endpoint["EndpointConfigName"].clone();
        let model = sandbox.call("sagemaker", "DescribeModel", json!({"ModelName": name})).unwrap();
        model["PrimaryContainer"]["ModelDataSource"]["S3DataSource"].clone()
    };
    let first = source();
    assert_eq!((&first["S3DataType"], &first["CompressionType"]), (&json!("S3Prefix"), &json!("None")));
    let again = app.run(&["up", "--yes", "--output", "json"]).exits(0).data();
    assert_eq!(again["changed"], json!(false), "{again}");

    model(&app, "loras/new.safetensors", &dice.bytes(2 * MIB));
    sandbox.forget_calls();
    app.run(&["update-model", "--yes"]).exits(0);
    assert_eq!((sandbox.count("s3:CopyObject"), sandbox.count("s3:UploadPart")), (2, 0));
    let second = source();
    assert_ne!(first["S3Uri"], second["S3Uri"]);
    let prefix = second["S3Uri"].as_str().unwrap().strip_prefix(&format!("s3://{BUCKET}/")).unwrap().to_owned();
    for name in ["checkpoints/base.safetensors", "vae/vae.safetensors", "loras/new.safetensors"] {
        assert!(bucket.bytes(&format!("{prefix}{name}")) == std::fs::read(app.path("models").join(name)).unwrap());
    }
}

#[test]
fn an_interrupted_pack_leaves_nothing() {
    let sandbox = Sandbox::new();
    let app = App::new(&sandbox);
    model(&app, "vae/a", &Dice(17).bytes(40 * MIB));
    let out = app.path("out");
    std::fs::create_dir(&out).unwrap();
    let beside = || std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    let file = out.join("m.tar.gz");
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let mut child = app.command(&["model", "pack", "-o", file.to_str().unwrap()]).spawn().unwrap();
        // As soon as it writes.
        while beside().is_empty() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        match child.wait().unwrap().code() {
            Some(130) => assert_eq!(beside(), Vec::<std::ffi::OsString>::new()),
            code => assert_eq!((code, beside()), (Some(0), vec!["m.tar.gz".into()]), "it was faster"),
        }
        let _ = std::fs::remove_file(&file);
    }
}

#[test]
fn what_is_compressed_is_told_and_extracts_to_the_same_files() {
    let sandbox = Sandbox::with_time_scale(0.001);
    let mut dice = Dice(16);
    let (app, bucket) = deployed_with(&sandbox, &mut dice, "models: {compression: best}");
    model(&app, "loras/style.safetensors", &dice.weights(3 * MIB));
    let text: String = (0..100_000_u64).map(|n| format!("layer.{n}.weight = {}\n", n * n)).collect();
    model(&app, "configs/layers.json", text.as_bytes());
    let planned = app.run(&["plan", "--output", "json"]).exits(0).data();
    assert_eq!(planned["model"]["at_most"], json!(true), "{planned}");

    let dry = app.run(&["model", "push", "--dry-run", "--output", "json"]).exits(0).data();
    let done = app.run(&["model", "push", "--output", "json"]).exits(0).data();
    assert_eq!(done["compressed_files"], json!({"deflate-6": 1, "deflate-9": 2}), "{done}");
    assert_eq!((&dry["sent_bytes"], &dry["compressed_files"]), (&done["sent_bytes"], &done["compressed_files"]));
    let (uri, bytes) = (done["uri"].as_str().unwrap(), done["bytes"].as_u64().unwrap());
    assert!(bytes < planned["model"]["bytes"].as_u64().unwrap());
    is_what_pack_writes(&app, &bucket, uri);
    let out = app.path("out");
    std::fs::create_dir(&out).unwrap();
    let tar = std::process::Command::new("tar").arg("xzf").arg(app.path("packed.tar.gz")).arg("-C").arg(&out).status();
    assert!(tar.unwrap().success());
    let diff = std::process::Command::new("diff").arg("-r").arg(app.path("models")).arg(&out).output().unwrap();
    assert!(String::from_utf8_lossy(&diff.stdout).lines().all(|line| line.contains("Only in")), "{diff:?}");

    // What was found out is known to the next plan.
    let planned = app.run(&["plan", "--output", "json"]).exits(0).data();
    assert_eq!((&planned["model"]["at_most"], &planned["model"]["bytes"]), (&json!(false), &json!(bytes)));
}

#[test]
fn an_adaptive_upload_says_what_it_decided_and_is_found_again() {
    let sandbox = Sandbox::with_time_scale(0.001);
    let mut dice = Dice(17);
    let app = App::with_image(&sandbox, "models: {compression: adaptive}");
    model(&app, "checkpoints/base.safetensors", &dice.weights(20 * MIB));
    model(&app, "diffusion_models/second.safetensors", &dice.weights(50 * MIB));
    app.run(&["up", "--yes"]).exits(0);
    let again = app.run(&["model", "push", "--output", "json"]).exits(0).data();
    assert_eq!(again["already"], json!(true), "{again}");

    model(&app, "vae/third.safetensors", &dice.weights(80 * MIB));
    let dry = app.run(&["model", "push", "--dry-run"]).exits(0);
    assert!(dry.stdout.contains("at most"), "{}", dry.stdout);
    let ran = app.run(&["model", "push", "--output", "json"]).exits(0);
    assert!(ran.stderr.contains("compression: ") && ran.stderr.contains("MB/s"), "{}", ran.stderr);
    let done = ran.data();
    assert!(done["adaptive"]["uplink_bytes_per_second"].as_f64().unwrap() > 0.0, "{done}");
    let bucket = Bucket::of(&sandbox);
    let key = done["uri"].as_str().unwrap().strip_prefix(&format!("s3://{BUCKET}/")).unwrap();
    let out = app.path("out");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(app.path("object.tar.gz"), bucket.bytes(key)).unwrap();
    let tar = std::process::Command::new("tar").arg("xzf").arg(app.path("object.tar.gz")).arg("-C").arg(&out).status();
    assert!(tar.unwrap().success());
    let third = "vae/third.safetensors";
    assert!(std::fs::read(out.join(third)).unwrap() == std::fs::read(app.path("models").join(third)).unwrap());
    assert!(bucket.open().is_empty());
    let packed = app.run(&["model", "pack", "-o", app.path("packed.tar.gz").to_str().unwrap()]).exits(0);
    assert!(packed.stderr.contains("as with auto"), "{}", packed.stderr);
}
