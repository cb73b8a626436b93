//! Bad input and a hostile world: each gives one clear error with what to do and the right exit code, and leaves nothing
//! behind that the same command, once the cause is mended, does not continue from.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::{Value, json};

use crate::builder::{Builder, app_with_context};
use crate::probe::{self, Bucket, Going, deployed_once, nothing_made, refused, stack};
use crate::support::{App, Sandbox, run};

#[test]
fn a_config_that_is_wrong_or_missing() {
    let sandbox = Sandbox::new();
    let app = App::new(&sandbox);
    let up = || app.run(&["up", "--yes"]);
    let head = "version: 1\napp: comfy\nregion: eu-west-1\n";
    let cases: [(&str, &[&str]); 16] = [
        ("endpoint: {instnce_type: ml.g5.xlarge}\n", &["instnce_type", "instance_type", "^", ":4:"]),
        ("endpoint: {instance_type: g5.xlarge}\n", &["endpoint.instance_type", "g5.xlarge", "ml."]),
        ("endpoint: {instance_type: [ml.g5.xlarge]}\n", &["endpoint.instance_type"]),
        ("endpoint: {instances: 0}\n", &["endpoint.instances", "0"]),
        ("autoscaling: {enabled: true, min: 3, max: 2}\n", &["autoscaling", "min", "3", "2"]),
        (
            "autoscaling: {enabled: true, schedule: [{name: night, when: 'cron(0 25 * * ? *)', max: 1}]}\n",
            &["when", "cron(0 25 * * ? *)", "25"],
        ),
        (
            "autoscaling: {enabled: true, schedule: [{name: night, when: '0 20 * * *', max: 1}]}\n",
            &["when", "0 20 * * *", "cron("],
        ),
        ("autoscaling: {schedule: [{name: night, when: 'cron(0 20 * * ? *)', max: 1}]}\n", &["autoscaling", "enabled"]),
        (
            "endpoint: {vpc: {subnets: [subnet-0123456789abcdef0], security_groups: [sg-0123456789abcdef0]}}\n",
            &["subnets"],
        ),
        ("expected_account: 012345678901\n", &["expected_account", "uote"]),
        ("models: {version: 1.10}\n", &["models.version", "uote"]),
        (
            "models: {version: a-label-that-goes-on-and-on-and-on-and-on-and-on-and-on-and-on}\n",
            &["models.version", "63"],
        ),
        ("models: {dir: [}\n", &["comfy-deploy.yaml"]),
        ("lambda: {url: maybe}\n", &["lambda.url", "maybe", "aws_iam"]),
        ("models: {uri: 'https://example.com/m.tar.gz'}\n", &["models.uri", "s3://"]),
        ("storage: {bucket: Not_A_Bucket}\n", &["storage.bucket", "Not_A_Bucket"]),
    ];
    sandbox.forget_calls();
    for (text, words) in cases {
        app.write("comfy-deploy.yaml", &format!("{head}{text}"));
        refused(up(), 2, words);
    }
    app.write("comfy-deploy.yaml", "version: 1\napp: comfy\nregion: no\n");
    refused(up(), 2, &["region", "uote"]);
    app.write("comfy-deploy.yaml", "");
    refused(up(), 2, &["comfy-deploy.yaml"]);
    fs::remove_file(app.path("comfy-deploy.yaml")).unwrap();
    refused(up(), 2, &["comfy-deploy.yaml"]);
    refused(app.run(&["up", "--config", "elsewhere.yaml"]), 2, &["elsewhere.yaml"]);
    fs::create_dir(app.path("comfy-deploy.yaml")).unwrap();
    refused(app.run(&["up", "--config", "comfy-deploy.yaml"]), 2, &["comfy-deploy.yaml", "directory"]);
    fs::write(app.path("latin.yaml"), b"version: 1\napp: caf\xe9\n").unwrap();
    refused(app.run(&["up", "--config", "latin.yaml"]), 2, &["latin.yaml", "UTF-8"]);
    assert_eq!(sandbox.calls().len(), 0, "{:?}", sandbox.calls());
}

#[test]
fn an_error_is_one_envelope_when_the_output_is_json() {
    let sandbox = Sandbox::new();
    let app = App::new(&sandbox);
    app.configure("endpoint: {instnce_type: ml.g5.xlarge}\n");
    let ran = app.run(&["up", "--yes", "--output", "json"]).exits(2);
    let envelope: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&envelope["ok"], &envelope["command"]), (&json!(false), &json!("up")));
    assert_eq!(envelope["error"]["code"], "usage");
    assert!(envelope["error"].to_string().contains("instnce_type"), "{envelope}");
}

#[test]
fn models_that_cannot_be_published() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    let up = || app.run(&["up", "--yes"]);
    let model = app.path("models/checkpoints/tiny.safetensors");
    let stray = app.path("models/checkpoints/stray");

    symlink("nowhere", &stray).unwrap();
    refused(up(), 2, &["stray", "leads nowhere"]);
    fs::remove_file(&stray).unwrap();

    symlink("/etc/hostname", &stray).unwrap();
    refused(up(), 2, &["stray", "leaves the models directory"]);
    fs::remove_file(&stray).unwrap();

    symlink("..", &stray).unwrap();
    refused(up(), 2, &["stray", "it is in"]);
    fs::remove_file(&stray).unwrap();

    assert!(Command::new("mkfifo").arg(&stray).status().unwrap().success());
    refused(up(), 2, &["stray", "a named pipe"]);
    fs::remove_file(&stray).unwrap();

    // No file system here allows more than 255 bytes in one name, but a path can be too long for an S3 key.
    let deep: Vec<String> = (0..5).map(|n| format!("{n}").repeat(200)).collect();
    app.write(&format!("models/{}/x", deep.join("/")), "x");
    refused(up(), 2, &["900", "rename"]);
    fs::remove_dir_all(app.path(&format!("models/{}", deep[0]))).unwrap();

    app.write("models/checkpoints/a\nb", "x");
    refused(up(), 2, &["cannot be published"]);
    fs::remove_file(app.path("models/checkpoints/a\nb")).unwrap();

    fs::remove_file(&model).unwrap();
    refused(up(), 2, &["no files", "models.dir"]);

    fs::remove_dir_all(app.path("models")).unwrap();
    refused(up(), 2, &["models", "models.uri"]);

    app.write("models", "a file");
    refused(up(), 2, &["not a directory"]);
    fs::remove_file(app.path("models")).unwrap();
    nothing_made(&sandbox);

    app.write("models/checkpoints/tiny.safetensors", "weights");
    up().exits(0);
    deployed_once(&app);
}

#[test]
fn a_file_that_cannot_be_read() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    app.write("models/secret.safetensors", "weights");
    let secret = app.path("models/secret.safetensors");
    // Root reads everything, so that the refusal can only be seen as somebody else.
    let mut command = app.command(&["up", "--yes"]);
    if rustix::process::geteuid().is_root() {
        use std::os::unix::fs::PermissionsExt;
        use std::os::unix::process::CommandExt;
        for path in [app.path(""), app.path("models"), app.path("models/checkpoints")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        // The binary may lie where nobody else gets to; a copy beside the app does not.
        let program = app.path("comfy-deploy");
        fs::copy(env!("CARGO_BIN_EXE_comfy-deploy"), &program).unwrap();
        let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let home = app.path("home");
        fs::create_dir(&home).unwrap();
        let mut other = Command::new(program);
        other.args(args).current_dir(app.dir.path()).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        other.env("HOME", home).stdin(std::process::Stdio::null()).uid(65534).gid(65534);
        command = other;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    } else {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    }
    refused(run(command), 1, &["secret.safetensors", "Permission denied", "make it readable"]);
    nothing_made(&sandbox);
    app.run(&["plan"]).exits(0);
}

#[test]
fn a_file_that_changes_while_it_is_sent_is_never_published_in_part() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    // Fifteen parts, of which eight are made at a time.
    probe::large_model(&app, 240 << 20);
    let model = app.path("models/checkpoints/large.safetensors");
    let bucket = Bucket::of(&sandbox);
    // Three parts pass; the others wait until the file has changed.
    sandbox.break_things(json!([stuck_after(3)]));
    let mut going = Going::start(app.command(&["up", "--yes"]));
    going.until("three parts", || {
        let open = bucket.open();
        (bucket.parts(open.first()?).len() == 3).then_some(())
    });
    let file = fs::OpenOptions::new().write(true).open(&model).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"changed", 239 << 20).unwrap();
    sandbox.break_things(json!([]));
    refused(going.end(), 1, &["large.safetensors", "changed while it was read", "run the same command again"]);
    assert!(bucket.open().is_empty(), "parts of a content that exists no more are kept");
    assert!(bucket.keys("models/").is_empty());
    assert_eq!(stack(&sandbox, "comfy"), None);
    app.run(&["up", "--yes"]).exits(0);
    deployed_once(&app);
}

/// The fault that lets so many parts pass and makes all others wait.
fn stuck_after(parts: u32) -> Value {
    json!({"kind": "error", "service": "s3", "operation": "UploadPart", "code": "SlowDown", "message": "Please reduce your request rate.",
           "status": 503, "after": parts, "times": 1_000_000})
}

#[test]
fn no_container_tool_and_none_needed() {
    let sandbox = Sandbox::new();
    let app = app_with_context(&sandbox);
    let config = fs::read_to_string(app.path("comfy-deploy.yaml")).unwrap();
    app.write("comfy-deploy.yaml", &config.replace(", builder: buildah", ""));
    let without = |args: &[&str]| {
        let mut command = app.command(args);
        command.env("PATH", app.path("empty"));
        command
    };
    let ran = run(without(&["up", "--yes"]));
    refused(
        ran,
        1,
        &["no container tool", "buildah: not installed", "docker: not installed", "apt-get install buildah"],
    );
    assert_eq!(stack(&sandbox, "comfy"), None);
    app.write("comfy-deploy.yaml", &config);
    Builder::new().run(&app, &["up", "--yes"]).exits(0);
    // The tag is in ECR now, so that nothing is built and nothing is missed.
    run(without(&["up", "--yes"])).exits(0);
    deployed_once(&app);
}

#[test]
fn a_build_context_that_is_missing_or_wrong() {
    let sandbox = Sandbox::new();
    let app = App::new(&sandbox);
    refused(app.run(&["up", "--yes"]), 2, &["build context", "image.context", "image.uri"]);
    fs::create_dir(app.path("image")).unwrap();
    refused(app.run(&["up", "--yes"]), 2, &["Dockerfile", "image.dockerfile"]);
    nothing_made(&sandbox);
}

#[test]
fn a_builder_that_fails_shows_its_last_lines_and_the_next_run_goes_on() {
    let sandbox = Sandbox::new();
    let app = app_with_context(&sandbox);
    let builder = Builder::new();
    builder.tell("fail", "Error: building at STEP \"RUN make\": exit status 2\n");
    let ran =
        refused(builder.run(&app, &["up", "--yes"]), 1, &["RUN make", "buildah build", "run the same command again"]);
    assert!(ran.stderr.contains("STEP 1/2: FROM scratch"), "{}", ran.stderr);
    assert!(builder.logins().is_empty(), "{:?}", builder.logins());
    assert_eq!(stack(&sandbox, "comfy"), None);

    builder.tell("fail", "Error: writing blob: write /var/tmp/x: no space left on device\n");
    refused(builder.run(&app, &["up", "--yes"]), 1, &["the disk is full", "buildah rmi --prune"]);

    builder.forget("fail");
    builder.tell("refuse", "Error: trying to reuse blob: requested access to the resource is denied\n");
    refused(builder.run(&app, &["up", "--yes"]), 7, &["push", "denied", "ecr:PutImage"]);
    assert!(builder.logins().is_empty(), "{:?}", builder.logins());

    builder.forget("refuse");
    let before = Bucket::of(&sandbox).keys("models/");
    sandbox.forget_calls();
    builder.run(&app, &["up", "--yes"]).exits(0);
    // The model was sent beside the first build, if it was quicker than the failure; never twice.
    assert!(
        before.is_empty()
            || !sandbox.calls().contains_key("s3:PutObject")
            || Bucket::of(&sandbox).keys("models/") == before
    );
    deployed_once(&app);
}

#[test]
fn a_disk_that_cannot_be_written_to() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    // Digests cannot be kept where a file stands in the place of their directory: told, and no reason to stop.
    // (The program's own templates serve as models: digests of files that were just written are not kept anyway.)
    app.write(".comfy-deploy", "a file");
    let old = concat!(env!("CARGO_MANIFEST_DIR"), "/templates");
    let config = fs::read_to_string(app.path("comfy-deploy.yaml")).unwrap();
    app.write("comfy-deploy.yaml", &format!("{config}models: {{dir: '{old}'}}\n"));
    let ran = app.run(&["up", "--yes"]).exits(0);
    assert!(ran.stderr.contains("the file digests are not kept"), "{}", ran.stderr);
    deployed_once(&app);
    // Where the login for a push would be kept.
    let sandbox = Sandbox::new();
    let other = app_with_context(&sandbox);
    let builder = Builder::new();
    let mut command = builder.command(&other, &["up", "--yes"]);
    command.env("XDG_RUNTIME_DIR", "/proc");
    refused(run(command), 1, &["cannot create /proc/comfy-deploy-login-", "XDG_RUNTIME_DIR"]);
    builder.run(&other, &["up", "--yes"]).exits(0);
    deployed_once(&other);
    // Where the result goes.
    let mut command = app.command(&["status"]);
    command.stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    refused(run(command), 1, &["cannot write to stdout", "No space left on device"]);
}

#[test]
fn without_a_terminal_nothing_is_confirmed_and_nothing_made() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    refused(app.run(&["up"]), 3, &["nobody can be asked", "--yes"]);
    refused(app.run(&["destroy"]), 3, &["nobody can be asked", "--confirm comfy"]);
    nothing_made(&sandbox);
}

#[test]
fn a_function_that_cannot_be_packed() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "lambda: {url: aws_iam}\n");
    let up = |handler: &str| app.run(&["up", "--yes", "--handler", handler]);
    app.write("workflows/workflow_api.json", "{}");
    refused(up("nowhere"), 2, &["nowhere"]);
    app.write("handler", "#!/bin/sh\n");
    refused(up("handler"), 2, &["handler", "ELF"]);
    app.write("workflows/workflow_api.json", "{");
    refused(up(env!("CARGO_BIN_EXE_comfy-deploy")), 2, &["workflow_api.json"]);
    fs::remove_dir_all(app.path("workflows")).unwrap();
    refused(up(env!("CARGO_BIN_EXE_comfy-deploy")), 2, &["workflows"]);
    nothing_made(&sandbox);
}

#[test]
fn workflows_that_will_not_run_are_told_before_the_question() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "lambda: {url: aws_iam}\n");
    // The smallest thing that passes for a handler: the header of a static executable for x86-64.
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(64, 0);
    (elf[16], elf[18], elf[20], elf[24]) = (2, 62, 1, 1);
    fs::write(app.path("handler"), elf).unwrap();
    let workflow = |target: &str| {
        format!(
            r#"{{"1":{{"class_type":"EmptyImage","inputs":{{"width":64,"height":64,"batch_size":1,"color":0}}}},
            "2":{{"class_type":"SaveImage","inputs":{{"images":["{target}",0],"filename_prefix":"POSITIVE_PROMPT_PLACEHOLDER"}}}}}}"#
        )
    };
    app.write("workflows/workflow_api.json", &workflow("77"));
    let plan = app.run(&["plan", "--handler", "handler"]).exits(0);
    let told = "workflow workflows/workflow_api.json: 1 error, such as error: node 2 (SaveImage), images: \
                it is linked to node \"77\", which is not there";
    assert!(plan.stderr.contains(told), "{}", plan.stderr);
    let check = app.run(&["workflow", "check", "--output", "json"]).exits(2);
    let data = check.data();
    assert_eq!(data["errors"], 1, "{data}");
    let finding = &data["workflows"][0]["findings"][0];
    assert_eq!(
        (&finding["severity"], &finding["kind"], &finding["node"], &finding["input"]),
        (&"error".into(), &"dangling_link".into(), &"2".into(), &"images".into())
    );
    app.write("workflows/workflow_api.json", &workflow("1"));
    let plan = app.run(&["plan", "--handler", "handler"]).exits(0);
    assert!(!plan.stderr.contains("workflow "), "{}", plan.stderr);
}
