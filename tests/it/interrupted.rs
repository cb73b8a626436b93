//! Interruption at every stage, by kill, signal, refusal, deadline or another run: nothing is half-made for long, for the
//! same command continues from what is there, and nothing is made twice.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::builder::{Builder, app_with_context};
use crate::probe::{Bucket, Going, deployed_once, endpoint_status, large_model, stack, status, wait_for};
use crate::support::{App, Ran, Sandbox};

/// Slow enough to be met on the way: an endpoint takes some three seconds.
const SLOW: f64 = 0.01;

/// For tests that deploy many times: an endpoint takes a third of a second.
const FAST: f64 = 0.001;

/// Slower still, for a deletion takes a tenth of the time.
const DELETION: f64 = 0.1;

/// Lets so many parts of an upload pass and makes all others wait.
fn stuck_after(parts: u32) -> Value {
    json!([{"kind": "error", "service": "s3", "operation": "UploadPart", "code": "SlowDown", "message": "Please reduce your request rate.",
            "status": 503, "after": parts, "times": 1_000_000}])
}

/// An app with a model of seven parts, whose upload stops after three.
fn half_uploaded(sandbox: &Sandbox) -> (App<'_>, Going, Bucket) {
    let app = App::with_image(sandbox, "");
    large_model(&app, 100 << 20);
    sandbox.break_things(stuck_after(3));
    let mut going = Going::start(app.command(&["up", "--yes"]));
    let bucket = Bucket::of(sandbox);
    going.until("three parts", || {
        let open = bucket.open();
        (bucket.parts(open.first()?).len() == 3).then_some(())
    });
    (app, going, bucket)
}

/// The same command again sends the parts that are missing, and no more.
fn finishes_the_upload(app: &App<'_>, bucket: &Bucket) {
    let kept = bucket.parts(&bucket.open()[0]).len();
    app.sandbox.break_things(json!([]));
    app.sandbox.forget_calls();
    app.run(&["up", "--yes"]).exits(0);
    let calls = app.sandbox.calls();
    assert_eq!(calls["s3:UploadPart"], 7 - kept, "{calls:?}");
    assert!(!calls.contains_key("s3:CreateMultipartUpload"), "{calls:?}");
    deployed_once(app);
}

/// Waits until the service stack is being made.
fn creating(going: &mut Going, sandbox: &Sandbox) {
    going.until("the stack is being made", || (status(sandbox, "comfy") == "CREATE_IN_PROGRESS").then_some(()));
}

#[track_caller]
fn says(ran: &Ran, words: &[&str]) {
    for word in words {
        assert!(ran.stderr.contains(word), "`{word}` is missing in:\n{}", ran.stderr);
    }
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
}

#[test]
fn killed_in_the_upload_the_same_command_sends_only_what_is_missing() {
    let sandbox = Sandbox::new();
    let (app, going, bucket) = half_uploaded(&sandbox);
    going.kill();
    assert_eq!(bucket.parts(&bucket.open()[0]).len(), 3);
    finishes_the_upload(&app, &bucket);
}

#[test]
fn interrupted_in_the_upload_the_parts_are_kept() {
    for signal in [Signal::INT, Signal::TERM] {
        let sandbox = Sandbox::new();
        let (app, going, bucket) = half_uploaded(&sandbox);
        going.signal(signal);
        let ran = going.end().exits(130);
        says(&ran, &["what was uploaded so far is kept", "comfy-deploy up --yes"]);
        assert!(ran.took < Duration::from_secs(30));
        finishes_the_upload(&app, &bucket);
    }
}

#[test]
fn interrupted_while_files_are_hashed_it_ends_at_once() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    // Takes longer to hash than anybody waits.
    let file = std::fs::File::create(app.path("models/large.safetensors")).unwrap();
    file.set_len(64 << 30).unwrap();
    let mut going = Going::start(app.command(&["up", "--yes"]));
    going.until_said("hashing");
    going.signal(Signal::INT);
    says(&going.end().exits(130), &["interrupted"]);
    assert_eq!(stack(&sandbox, "comfy-foundation"), None);
}

#[test]
fn interrupted_while_the_stack_is_made_it_goes_on_and_the_same_command_attaches() {
    for signal in [Signal::INT, Signal::TERM] {
        let sandbox = Sandbox::with_time_scale(SLOW);
        let app = App::with_image(&sandbox, "");
        let mut going = Going::start(app.command(&["up", "--yes"]));
        creating(&mut going, &sandbox);
        going.signal(signal);
        says(&going.end().exits(130), &["the operation on", "goes on in AWS", "continue with: comfy-deploy up --yes"]);
        assert_eq!(status(&sandbox, "comfy"), "CREATE_IN_PROGRESS");
        sandbox.forget_calls();
        let ran = app.run(&["up", "--yes"]).exits(0);
        says(&ran, &["already under way"]);
        assert!(!sandbox.calls().contains_key("cloudformation:CreateChangeSet"));
        deployed_once(&app);
    }
}

#[test]
fn a_deadline_ends_the_wait_and_not_the_operation() {
    let sandbox = Sandbox::with_time_scale(SLOW);
    let app = App::with_image(&sandbox, "");
    let ran = app.run(&["up", "--yes", "--timeout", "1s"]).exits(1);
    says(&ran, &["not done after 1s", "goes on in AWS", "continue with: comfy-deploy up --yes --timeout 1s"]);
    assert_eq!(status(&sandbox, "comfy"), "CREATE_IN_PROGRESS");
    app.run(&["up", "--yes"]).exits(0);
    deployed_once(&app);
}

#[test]
fn killed_in_the_build_the_next_run_builds_and_clears_the_login_away() {
    let sandbox = Sandbox::new();
    let app = app_with_context(&sandbox);
    let builder = Builder::new();
    builder.tell("hang", "");
    let mut going = Going::start(builder.command(&app, &["up", "--yes"]));
    let pid = going.until("the build", || builder.hanging());
    assert_eq!(builder.logins().len(), 1);
    going.kill();
    assert_eq!(builder.logins().len(), 1, "SIGKILL leaves it");
    // Nobody stops the builder of a run that was killed; here it would only be in the way.
    let _ = rustix::process::kill_process(pid, Signal::KILL);

    builder.forget("hang");
    builder.run(&app, &["up", "--yes"]).exits(0);
    assert!(builder.logins().is_empty(), "{:?}", builder.logins());
    assert_eq!(builder.builds(), 2);
    deployed_once(&app);
    builder.run(&app, &["up", "--yes", "--rehash"]).exits(0);
    assert_eq!(builder.builds(), 2);
}

#[test]
fn interrupted_in_the_build_the_builder_is_asked_to_end_and_the_login_is_gone() {
    for signal in [Signal::INT, Signal::TERM] {
        let sandbox = Sandbox::new();
        let app = app_with_context(&sandbox);
        let builder = Builder::new();
        builder.tell("hang", "");
        let mut going = Going::start(builder.command(&app, &["up", "--yes"]));
        let pid = going.until("the build", || builder.hanging());
        going.signal(signal);
        says(&going.end().exits(130), &["interrupted", "continue with: comfy-deploy up --yes"]);
        wait_for("the builder's end", || rustix::process::test_kill_process(pid).is_err().then_some(()));
        assert!(builder.asked_to_end(), "it was killed before it could clean up");
        assert!(builder.logins().is_empty(), "{:?}", builder.logins());
        builder.forget("hang");
        builder.run(&app, &["up", "--yes"]).exits(0);
        deployed_once(&app);
    }
}

/// The program on a terminal of its own (util-linux' `script`), what is typed comes from the test.
fn on_a_terminal(app: &App<'_>, args: &[&str]) -> Going {
    let words: Vec<String> = std::iter::once(env!("CARGO_BIN_EXE_comfy-deploy").to_owned())
        .chain(args.iter().map(|a| (*a).to_owned()))
        .chain([format!("--sandbox={}", app.sandbox.url)])
        .collect();
    let mut command = Command::new("script");
    command
        .args(["--quiet", "--return", "--flush", "--command", &format!("exec {}", words.join(" ")), "/dev/null"])
        .current_dir(app.dir.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", app.dir.path())
        .env("SHELL", "/bin/sh")
        .env("TERM", "xterm")
        .stdin(Stdio::piped());
    Going::start(command)
}

/// Asserts that there is no stack, not even an empty shell, no bucket and no record.
#[track_caller]
fn untouched(sandbox: &Sandbox) {
    for name in ["comfy", "comfy-foundation"] {
        assert_eq!(stack(sandbox, name), None);
    }
    assert!(Bucket::of(sandbox).keys("").is_empty());
}

#[test]
fn a_no_at_the_prompt_changes_nothing() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    for answer in ["n\n", "\n"] {
        let mut going = on_a_terminal(&app, &["up"]);
        going.until_said("[y/N]");
        going.type_in(answer);
        says(&going.end().exits(3), &["not confirmed; nothing was changed"]);
        untouched(&sandbox);
    }
    let mut going = on_a_terminal(&app, &["up"]);
    going.until_said("[y/N]");
    going.type_in("y\n");
    going.end().exits(0);
    deployed_once(&app);
}

#[test]
fn ctrl_c_at_the_prompt_changes_nothing() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    for verb in ["up", "destroy"] {
        let mut going = on_a_terminal(&app, &[verb]);
        going.until_said(if verb == "up" { "[y/N]" } else { "to go on:" });
        going.type_in("\x03");
        going.until_said("interrupted");
        says(&going.end().exits(130), &["interrupted", "nothing was changed"]);
        untouched(&sandbox);
    }
}

#[test]
fn what_a_killed_run_left_of_a_change_set_is_used_or_replaced() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    let template = |kind: &str| {
        json!({"Resources": {"Topic": {"Type": kind, "Properties": {"AssumeRolePolicyDocument": {
        "Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}]}}}}})
    };
    for name in ["comfy", "comfy-foundation"] {
        sandbox
            .call(
                "cloudformation",
                "CreateChangeSet",
                json!({"StackName": name, "ChangeSetName": "left-over", "ChangeSetType": "CREATE",
                "TemplateBody": template("AWS::IAM::Role").to_string(), "Capabilities": ["CAPABILITY_IAM"]}),
            )
            .unwrap();
        assert_eq!(status(&sandbox, name), "REVIEW_IN_PROGRESS");
    }
    app.run(&["plan", "--detailed-exitcode"]).exits(2);
    app.run(&["up", "--yes"]).exits(0);
    deployed_once(&app);
    // And one on a stack that is there.
    sandbox
        .call(
            "cloudformation",
            "CreateChangeSet",
            json!({"StackName": "comfy", "ChangeSetName": "left-over-too", "ChangeSetType": "UPDATE",
            "TemplateBody": template("AWS::IAM::Role").to_string(), "Capabilities": ["CAPABILITY_IAM"]}),
        )
        .unwrap();
    app.write("models/more.safetensors", "more");
    app.run(&["up", "--yes"]).exits(0);
    assert_eq!(endpoint_status(&sandbox), "InService");
    app.run(&["plan", "--detailed-exitcode"]).exits(0);
}

#[test]
fn of_two_runs_at_once_one_deploys_and_the_other_attaches_or_stops() {
    for round in 0..3 {
        let sandbox = Sandbox::with_time_scale(SLOW);
        let app = App::with_image(&sandbox, "");
        let first = Going::start(app.command(&["up", "--yes"]));
        std::thread::sleep(Duration::from_millis(round * 40));
        let second = Going::start(app.command(&["up", "--yes"]));
        let (first, second) = (first.end(), second.end());
        let codes = [first.code, second.code];
        assert!(
            codes.contains(&0) && codes.iter().all(|c| [0, 6].contains(c)),
            "{codes:?}\n--- first\n{}\n--- second\n{}",
            first.stderr,
            second.stderr
        );
        deployed_once(&app);
    }
}

#[test]
fn of_two_runs_at_once_that_wait_for_each_other_both_succeed() {
    let sandbox = Sandbox::with_time_scale(SLOW);
    let app = App::with_image(&sandbox, "");
    let run = || Going::start(app.command(&["up", "--yes", "--wait-lock", "5m"]));
    let (first, second) = (run(), run());
    first.end().exits(0);
    second.end().exits(0);
    deployed_once(&app);
}

#[test]
fn killed_before_it_wrote_the_outcome_the_next_run_does() {
    let sandbox = Sandbox::with_time_scale(SLOW);
    let app = App::with_image(&sandbox, "");
    app.run(&["up", "--yes"]).exits(0);
    app.write("models/more.safetensors", "more");
    let mut going = Going::start(app.command(&["up", "--yes"]));
    going.until("the update", || (status(&sandbox, "comfy") == "UPDATE_IN_PROGRESS").then_some(()));
    going.kill();
    // It ends while nobody looks.
    wait_for("the end of the update", || (status(&sandbox, "comfy") == "UPDATE_COMPLETE").then_some(()));
    let bucket = Bucket::of(&sandbox);
    assert_eq!(bucket.keys("deployments/comfy/").len(), 3);
    app.run(&["status"]).exits(0);
    assert_eq!(bucket.keys("deployments/comfy/").len(), 3, "status changes nothing");

    let ran = app.run(&["up", "--yes", "--output", "json"]).exits(0);
    assert_eq!(ran.data()["endpoint"]["status"], "InService");
    let records = bucket.keys("deployments/comfy/");
    assert_eq!(records.len(), 4, "{records:?}");
    assert_eq!(bucket.read("deployments/comfy/000002.outcome.json")["state"], "succeeded");
    // What the killed run had no time for is done as well: the superseded model is cleared away.
    assert_eq!(crate::probe::models_and_configs(&sandbox).0.len(), 1);
}

#[test]
fn a_failed_creation_that_was_kept_is_shown_and_made_anew_by_the_next_run() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    sandbox.break_things(json!([{"kind": "unhealthy", "endpoint": "*"}]));
    let ran = app.run(&["up", "--yes", "--keep-on-failure"]).exits(1);
    says(&ran, &["ping health check", "the container did not answer"]);
    assert_eq!(status(&sandbox, "comfy"), "CREATE_FAILED");
    assert_eq!(endpoint_status(&sandbox), "Failed", "left standing, to be looked at");
    let ran = app.run(&["up", "--yes"]).exits(0);
    says(&ran, &["The first creation of comfy failed", "ping health check"]);
    deployed_once(&app);
}

#[test]
fn while_it_is_destroyed_nothing_is_deployed_and_wait_lock_waits() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    app.run(&["up", "--yes"]).exits(0);
    sandbox.set_time_scale(DELETION);
    let mut going = Going::start(app.command(&["destroy", "--confirm", "comfy"]));
    going.until("the deletion", || (status(&sandbox, "comfy") == "DELETE_IN_PROGRESS").then_some(()));
    going.signal(Signal::INT);
    says(&going.end().exits(130), &["goes on in AWS", "comfy-deploy destroy --confirm comfy"]);
    sandbox.set_time_scale(SLOW);
    let ran = app.run(&["up", "--yes"]).exits(6);
    says(&ran, &["DELETE_IN_PROGRESS", "--wait-lock"]);
    app.run(&["up", "--yes", "--wait-lock", "5m"]).exits(0);
    deployed_once(&app);
}

#[test]
fn killed_after_any_call_the_same_command_ends_the_same() {
    // The calls of one whole run, foundation and upload included; each seventh of them is the last of a run here.
    let sandbox = Sandbox::with_time_scale(FAST);
    let app = App::with_image(&sandbox, "");
    sandbox.forget_calls();
    app.run(&["up", "--yes"]).exits(0);
    let all = count(&sandbox);
    deployed_once(&app);
    for last in (1..all).step_by(7) {
        let sandbox = Sandbox::with_time_scale(FAST);
        let app = App::with_image(&sandbox, "");
        sandbox.forget_calls();
        let going = Going::start(app.command(&["up", "--yes"]));
        let going = going.killed_when(|| count(&sandbox) >= last);
        let ran = app.run(&["up", "--yes"]);
        assert_eq!(ran.code, 0, "killed after call {last} of {all}:\n{}\n--- then\n{}", going, ran.stderr);
        deployed_once(&app);
    }
}

fn count(sandbox: &Sandbox) -> u64 {
    sandbox.calls().values().filter_map(Value::as_u64).sum()
}

#[test]
fn killed_after_any_call_of_an_update_the_same_command_ends_the_same() {
    let deployed = || {
        let sandbox = Sandbox::with_time_scale(FAST);
        let dir = {
            let app = App::with_image(&sandbox, "");
            app.run(&["up", "--yes"]).exits(0);
            app.write("models/more.safetensors", "more");
            sandbox.forget_calls();
            app.dir
        };
        (sandbox, dir)
    };
    let (sandbox, dir) = deployed();
    App { sandbox: &sandbox, dir }.run(&["up", "--yes"]).exits(0);
    let all = count(&sandbox);
    for last in (8..all).step_by(9) {
        let (sandbox, dir) = deployed();
        let app = App { sandbox: &sandbox, dir };
        let going = Going::start(app.command(&["up", "--yes"]));
        let said = going.killed_when(|| count(&sandbox) >= last);
        let ran = app.run(&["up", "--yes"]);
        assert_eq!(ran.code, 0, "killed after call {last} of {all}:\n{said}\n--- then\n{}", ran.stderr);
        assert_eq!(endpoint_status(&sandbox), "InService");
        let (models, configs) = crate::probe::models_and_configs(&sandbox);
        assert_eq!((models.len(), configs.len()), (1, 1), "killed after call {last}: {models:?} {configs:?}");
        app.run(&["plan", "--detailed-exitcode"]).exits(0);
        let records = Bucket::of(&sandbox).keys("deployments/comfy/");
        let ended = records.iter().filter(|k| k.ends_with(".outcome.json")).count();
        assert_eq!(ended * 2, records.len(), "killed after call {last}: {records:?}");
    }
}

#[test]
fn interrupted_while_scaling_or_destroying_the_same_command_attaches() {
    let sandbox = Sandbox::with_time_scale(SLOW);
    let app = App::with_image(&sandbox, "");
    app.run(&["up", "--yes"]).exits(0);
    app.write("models/more.safetensors", "more");
    let update = ["update-model", "--yes", "--version", "v2"];
    let mut going = Going::start(app.command(&update));
    going.until("the update", || (status(&sandbox, "comfy") == "UPDATE_IN_PROGRESS").then_some(()));
    going.signal(Signal::TERM);
    says(&going.end().exits(130), &["continue with: comfy-deploy update-model --yes --version v2"]);
    says(&app.run(&update).exits(0), &["already under way"]);
    assert_eq!(status(&sandbox, "comfy"), "UPDATE_COMPLETE");

    sandbox.set_time_scale(DELETION);
    let destroy = ["destroy", "--confirm", "comfy"];
    let mut going = Going::start(app.command(&destroy));
    going.until("the deletion", || (status(&sandbox, "comfy") == "DELETE_IN_PROGRESS").then_some(()));
    going.signal(Signal::INT);
    going.end().exits(130);
    app.run(&destroy).exits(0);
    assert_eq!((status(&sandbox, "comfy"), endpoint_status(&sandbox)), (String::new(), String::new()));
    let (models, configs) = crate::probe::models_and_configs(&sandbox);
    assert!(models.is_empty() && configs.is_empty(), "{models:?} {configs:?}");
}

#[test]
fn credentials_that_expire_in_the_upload_leave_the_parts() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    large_model(&app, 100 << 20);
    sandbox.break_things(json!([{"kind": "error", "service": "s3", "operation": "UploadPart", "code": "ExpiredToken",
        "message": "The provided token has expired.", "status": 400, "after": 3, "times": 1000}]));
    let ran = app.run(&["up", "--yes"]).exits(7);
    says(&ran, &["the credentials have expired", "aws sso login", "the same command again"]);
    finishes_the_upload(&app, &Bucket::of(&sandbox));
}

#[test]
fn a_second_ctrl_c_waits_for_nothing_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let app = app_with_context(&sandbox);
    let builder = Builder::new();
    builder.tell("hang", "");
    builder.tell("deaf", "");
    let mut going = Going::start(builder.command(&app, &["up", "--yes"]));
    let pid = going.until("the build", || builder.hanging());
    going.signal(Signal::INT);
    going.until("the first Ctrl-C", || builder.asked_to_end().then_some(()));
    going.signal(Signal::INT);
    assert!(going.end().exits(130).took < Duration::from_secs(8), "it waited for the builder");
    wait_for("the builder's end", || rustix::process::test_kill_process(pid).is_err().then_some(()));
    assert!(builder.logins().is_empty(), "{:?}", builder.logins());
}
