//! Uploads that meet what a long upload meets: sessions that end, networks that go, a machine that sleeps, bytes that are
//! damaged, files that change. What was sent is kept, and the same command ends with the right object.

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::bad_account::as_on_aws;
use crate::line::Line;
use crate::probe::{Bucket, Going, large_model, refused};
use crate::push::{Dice, deployed, is_what_pack_writes, model};
use crate::support::{App, Sandbox, run};

const MIB: u64 = 1 << 20;

/// Bytes of the large file.
const LARGE: u64 = 240 * MIB;

/// Parts of the archive: 15 of the file, and one of what is around it.
const PARTS: u64 = 16;

/// An app whose foundation stands, and a large model that is not there yet, with nothing that it could be copied from.
fn large(sandbox: &Sandbox) -> (App<'_>, Bucket) {
    let app = App::with_image(sandbox, "");
    app.run(&["up", "--yes"]).exits(0);
    large_model(&app, LARGE);
    (app, Bucket::of(sandbox))
}

/// `model push` through a line.
fn push(app: &App<'_>, line: &Line) -> Command {
    app.command_at(&line.url, &["model", "push"])
}

/// A push in the middle of its way: so many bytes went, and no more do until the line is released.
fn stopped_after(sandbox: &Sandbox, bytes: u64) -> (App<'_>, Bucket, Line, Going) {
    let (app, bucket) = large(sandbox);
    let line = Line::holding_after(sandbox, bytes);
    let going = Going::start(push(&app, &line));
    line.until_held();
    (app, bucket, line, going)
}

/// The same command again, over a good line: how many parts it sent. What is there in the end is right.
#[track_caller]
fn finishes(app: &App<'_>, bucket: &Bucket) -> u64 {
    app.sandbox.forget_calls();
    let done = app.run(&["model", "push", "--output", "json"]).exits(0).data();
    is_what_pack_writes(app, bucket, done["uri"].as_str().unwrap());
    assert!(bucket.open().is_empty(), "{:?}", bucket.open());
    app.sandbox.count("s3:UploadPart")
}

/// What went through is the whole, so the same command has nothing to send.
#[track_caller]
fn is_there(app: &App<'_>, bucket: &Bucket) {
    assert_eq!(finishes(app, bucket), 0, "it was not there");
}

/// Credentials as a company hands them out: a process prints them, they end, and it prints others then.
struct Sessions<'a> {
    app: &'a App<'a>,
    role: String,
}

impl<'a> Sessions<'a> {
    /// A role, and a first session.
    fn new(app: &'a App<'a>) -> Self {
        let trust = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
            "Principal": {"AWS": "arn:aws:iam::123456789012:root"}, "Action": "sts:AssumeRole"}]});
        let call = |operation: &str, input: Value| app.sandbox.call("iam", operation, input).unwrap();
        let role = call("CreateRole", json!({"RoleName": "ci", "AssumeRolePolicyDocument": trust.to_string()}));
        call("AttachRolePolicy", json!({"RoleName": "ci", "PolicyArn": "arn:aws:iam::aws:policy/AdministratorAccess"}));
        let sessions = Sessions { app, role: role["Role"]["Arn"].as_str().unwrap().to_owned() };
        sessions.renew();
        sessions
    }

    fn session(&self) -> Value {
        let input = json!({"RoleArn": self.role, "RoleSessionName": "build"});
        self.app.sandbox.call("sts", "AssumeRole", input).unwrap()["Credentials"].clone()
    }

    /// From now on the process prints another session. It does not say when that ends, so nobody renews it in time.
    fn renew(&self) {
        let mut printed = self.session();
        printed["Version"] = json!(1);
        printed.as_object_mut().unwrap().remove("Expiration");
        self.app.write("session.json", &printed.to_string());
        let file = self.app.path("session.json");
        self.app.write(".aws/config", &format!("[default]\ncredential_process = cat {}\n", file.display()));
    }

    /// The same, as keys in the file that another program rewrites.
    fn renew_file(&self) {
        let keys = self.session();
        let line = |name: &str, member: &str| format!("{name} = {}\n", keys[member].as_str().unwrap());
        let text = line("aws_access_key_id", "AccessKeyId")
            + &line("aws_secret_access_key", "SecretAccessKey")
            + &line("aws_session_token", "SessionToken");
        self.app.write(".aws/credentials", &format!("[default]\n{text}"));
        self.app.write(".aws/config", "");
    }

    /// All sessions so far are over.
    fn end(&self) {
        let sandbox = self.app.sandbox;
        let answer = sandbox.http().delete(format!("{}/_sandbox/sessions", sandbox.url)).send().unwrap();
        assert!(answer.status().is_success());
    }

    /// `model push` with these credentials.
    fn push(&self, line: &Line) -> Command {
        let mut command = as_on_aws(self.app, &["model", "push"], None);
        command.env("AWS_ENDPOINT_URL", &line.url).env("AWS_CONFIG_FILE", self.app.path(".aws/config"));
        command
    }
}

#[test]
fn credentials_that_end_in_the_upload_are_renewed() {
    for keys_in_a_file in [false, true] {
        let sandbox = Sandbox::with_time_scale(0.001);
        let (app, bucket) = large(&sandbox);
        let sessions = Sessions::new(&app);
        let renew = || if keys_in_a_file { sessions.renew_file() } else { sessions.renew() };
        renew();
        let line = Line::holding_after(&sandbox, 100 * MIB);
        let going = Going::start(sessions.push(&line));
        line.until_held();
        sessions.end();
        renew();
        line.release();
        going.end().exits(0);
        is_there(&app, &bucket);
    }
}

#[test]
fn credentials_that_end_among_copies_are_renewed() {
    let sandbox = Sandbox::with_time_scale(0.001);
    let (app, bucket) = deployed(&sandbox, &mut Dice(22));
    model(&app, "loras/new.safetensors", &Dice(23).bytes(1 << 20));
    let sessions = Sessions::new(&app);
    let line = Line::holding_after(&sandbox, 2 * MIB);
    let going = Going::start(sessions.push(&line));
    line.until_held();
    sessions.end();
    sessions.renew();
    sandbox.forget_calls();
    line.release();
    going.end().exits(0);
    assert!(line.sent() < 9 * MIB, "{} bytes were sent", line.sent());
    is_there(&app, &bucket);
}

#[test]
fn credentials_that_end_and_cannot_be_renewed_end_the_run_and_keep_the_parts() {
    let sandbox = Sandbox::with_time_scale(0.001);
    let (app, bucket) = large(&sandbox);
    let sessions = Sessions::new(&app);
    let line = Line::holding_after(&sandbox, 200 * MIB);
    let going = Going::start(sessions.push(&line));
    line.until_held();
    sessions.end();
    line.release();
    let ran = refused(going.end(), 7, &["credentials have expired", "aws sso login", "the same command again"]);
    assert!(ran.took < Duration::from_secs(60), "{:?}", ran.took);
    let kept = bucket.parts(&bucket.open()[0]).len() as u64;
    assert!(kept > 0);
    sessions.renew();
    sandbox.forget_calls();
    run(sessions.push(&line)).exits(0);
    assert_eq!(sandbox.count("s3:UploadPart"), PARTS - kept);
    is_there(&app, &bucket);
}

#[test]
fn a_network_that_is_gone_for_a_while_is_waited_for() {
    let sandbox = Sandbox::with_time_scale(0.001);
    let (app, bucket, line, going) = stopped_after(&sandbox, 200 * MIB);
    line.cut();
    std::thread::sleep(Duration::from_secs(3));
    line.mend();
    going.end().exits(0);
    // At most the parts that were under way went twice.
    assert!(line.sent() < LARGE + 9 * 16 * MIB + 60 * MIB, "{} bytes were sent", line.sent());
    is_there(&app, &bucket);
}

#[test]
fn a_network_that_is_gone_for_good_ends_the_run_and_keeps_the_parts() {
    let sandbox = Sandbox::with_time_scale(0.001);
    let (app, bucket, line, going) = stopped_after(&sandbox, 200 * MIB);
    line.cut();
    refused(going.end(), 1, &["no answer from", "127.0.0.1"]);
    let kept = bucket.parts(&bucket.open()[0]).len() as u64;
    assert!(kept > 0);
    assert_eq!(finishes(&app, &bucket), PARTS - kept);
}

#[test]
fn a_machine_that_slept_goes_on() {
    let sandbox = Sandbox::with_time_scale(0.001);
    let (app, bucket, line, going) = stopped_after(&sandbox, 200 * MIB);
    going.signal(Signal::STOP);
    // The other side gave up long before it wakes, and what was signed before is too old by then.
    line.cut();
    std::thread::sleep(Duration::from_millis(500));
    line.mend();
    sandbox.break_things(json!([{"kind": "error", "service": "s3", "operation": "UploadPart", "code": "RequestTimeTooSkewed",
        "message": "The difference between the request time and the current time is too large.", "status": 403, "times": 3}]));
    going.signal(Signal::CONT);
    going.end().exits(0);
    is_there(&app, &bucket);
}

#[test]
fn a_clock_that_stays_wrong_is_told() {
    let sandbox = Sandbox::with_time_scale(0.001);
    let (app, _) = large(&sandbox);
    sandbox.break_things(json!([{"kind": "error", "service": "s3", "operation": "UploadPart", "code": "RequestTimeTooSkewed",
        "message": "The difference between the request time and the current time is too large.", "status": 403, "times": 1_000_000}]));
    refused(app.run(&["model", "push"]), 7, &["RequestTimeTooSkewed", "this machine's clock"]);
}

#[test]
fn parts_that_arrive_damaged_are_sent_again() {
    let sandbox = Sandbox::with_time_scale(0.001);
    let (app, bucket, line, going) = stopped_after(&sandbox, 60 * MIB);
    sandbox.forget_calls();
    line.damage(3);
    line.release();
    going.end().exits(0);
    // What began before the hold is not counted.
    assert!(sandbox.calls()["s3:UploadPart"].as_u64().unwrap() > PARTS - 8, "nothing was sent again");
    is_there(&app, &bucket);
}

#[test]
fn a_checksum_that_the_service_finds_wrong_is_sent_again() {
    let sandbox = Sandbox::with_time_scale(0.001);
    let (app, bucket) = large(&sandbox);
    sandbox.break_things(json!([{"kind": "error", "service": "s3", "operation": "UploadPart", "code": "BadDigest",
        "message": "The CRC64NVME you specified did not match the calculated checksum.", "status": 400, "after": 2, "times": 3}]));
    sandbox.forget_calls();
    app.run(&["model", "push"]).exits(0);
    assert_eq!(sandbox.count("s3:UploadPart"), PARTS + 3);
    is_there(&app, &bucket);
}

#[test]
fn an_upload_that_somebody_aborts_is_begun_anew() {
    let sandbox = Sandbox::with_time_scale(0.001);
    let (app, bucket, line, going) = stopped_after(&sandbox, 200 * MIB);
    bucket.abort(&bucket.open()[0]);
    line.release();
    going.end().exits(0);
    is_there(&app, &bucket);
}

#[test]
fn a_file_that_changes_under_the_packer_is_named_and_leaves_nothing() {
    for (copies, packaging) in [(false, "tar"), (true, "tar"), (false, "uncompressed")] {
        let sandbox = Sandbox::with_time_scale(0.001);
        let (app, bucket) = if copies { deployed(&sandbox, &mut Dice(32)) } else { large(&sandbox) };
        large_model(&app, LARGE);
        let text = std::fs::read_to_string(app.path("comfy-deploy.yaml")).unwrap();
        app.write("comfy-deploy.yaml", &format!("{text}models: {{packaging: {packaging}}}\n"));
        let line = Line::holding_after(&sandbox, 60 * MIB);
        sandbox.forget_calls();
        let going = Going::start(push(&app, &line));
        line.until_held();
        let file = app.path("models/checkpoints/large.safetensors");
        std::fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(b"more").unwrap();
        line.release();
        refused(going.end(), 1, &["large.safetensors changed while it was read", "the same command again"]);
        assert_eq!(sandbox.calls().contains_key("s3:UploadPartCopy"), copies);
        assert!(bucket.open().is_empty(), "{packaging}, {copies}: {:?}", bucket.open());
        app.run(&["model", "push"]).exits(0);
        assert!(bucket.open().is_empty());
    }
}
