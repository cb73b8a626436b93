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
}

/// A file of the models.
pub fn model(app: &App<'_>, name: &str, bytes: &[u8]) {
    let path = app.path("models").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::File::create(path).unwrap().write_all(bytes).unwrap();
}

/// An app whose foundation stands, with some 50 MiB of models in the bucket.
pub fn deployed<'a>(sandbox: &'a Sandbox, dice: &mut Dice) -> (App<'a>, Bucket) {
    let app = App::with_image(sandbox, "");
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

/// Killed at twenty moments, with files that change in between: the same command again always ends with the right
/// object, its index, and no upload that is left over.
#[test]
fn killed_at_any_moment_the_next_run_ends_with_the_right_object() {
    let sandbox = Sandbox::with_time_scale(0.001);
    let mut dice = Dice(14);
    let (app, bucket) = deployed(&sandbox, &mut dice);
    let begun = Instant::now();
    model(&app, "checkpoints/base.safetensors", &dice.bytes(30 * MIB));
    app.run(&["model", "push"]).exits(0);
    let usual = begun.elapsed();
    for round in 0..20 {
        // Every other time nearly all is copied.
        let (name, size) = [("checkpoints/base.safetensors", 30 * MIB), ("loras/one.safetensors", 2 * MIB)][round % 2];
        model(&app, name, &dice.bytes(size));
        let mut command = app.command(&["model", "push"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(dice.next() % usual.as_micros() as u64));
        let _ = child.kill();
        child.wait().unwrap();
        let done = app.run(&["model", "push", "--output", "json"]).exits(0).data();
        let uri = done["uri"].as_str().unwrap();
        is_what_pack_writes(&app, &bucket, uri);
        assert!(bucket.open().is_empty(), "round {round} left {:?}", bucket.open());
        let index = uri.strip_prefix(&format!("s3://{BUCKET}/")).unwrap().replace("model.tar.gz", "index.json");
        assert_eq!(bucket.read(&index)["size"], json!(std::fs::metadata(app.path("packed.tar.gz")).unwrap().len()));
    }
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
    // Both results cannot go to one stream.
    app.run(&["model", "pack", "-o", "-", "--output", "json"]).exits(2);
}
