//! An account that is not as it should be: credentials, permissions, quotas, buckets and artifacts of others. The same rules
//! as for bad input.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::probe::{self, BUCKET, Going, deployed_once, nothing_made, refused, stack, status};
use crate::support::{App, Sandbox, run};

/// The program as against AWS, which is the sandbox here: the SDK's own chain finds the credentials.
pub fn as_on_aws(app: &App<'_>, args: &[&str], key: Option<&str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_comfy-deploy"));
    command
        .args(args)
        .current_dir(app.dir.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", app.dir.path())
        .env("AWS_ENDPOINT_URL", &app.sandbox.url)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .stdin(std::process::Stdio::null());
    if let Some(key) = key {
        command.env("AWS_ACCESS_KEY_ID", key).env("AWS_SECRET_ACCESS_KEY", key);
    }
    command
}

#[test]
fn a_region_is_never_guessed() {
    let sandbox = Sandbox::new();
    let app = App::new(&sandbox);
    app.write("comfy-deploy.yaml", "version: 1\napp: comfy\n");
    let ran = run(as_on_aws(&app, &["up", "--yes"], Some("sandbox")));
    refused(ran, 2, &["no region", "AWS_REGION"]);
    nothing_made(&sandbox);
}

#[test]
fn credentials_that_are_absent_expired_denied_or_unknown() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    let up = |key| run(as_on_aws(&app, &["up", "--yes"], key));
    let ran = refused(up(None), 7, &["no AWS credentials found", "--profile", "--sandbox"]);
    assert!(ran.took < Duration::from_secs(10), "{:?}", ran.took);
    refused(up(Some("expired")), 7, &["expired", "aws sso login", "ExpiredToken"]);
    refused(up(Some("denied")), 7, &["not authorized", "AccessDenied", "allow `"]);
    refused(up(Some("AKIAIOSFODNN7EXAMPLE")), 7, &["does not know these credentials", "aws sts get-caller-identity"]);
    let mut command = as_on_aws(&app, &["up", "--yes", "--profile", "nowhere"], None);
    command.env("AWS_MAX_ATTEMPTS", "1");
    refused(run(command), 7, &["nowhere"]);
    nothing_made(&sandbox);
    up(Some("sandbox")).exits(0);
    deployed_once(&app);
}

#[test]
fn nobody_answers() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = as_on_aws(&app, &["up", "--yes"], Some("sandbox"));
    command.env("AWS_ENDPOINT_URL", format!("http://{free}"));
    let ran = refused(run(command), 1, &["no answer from", "network"]);
    assert!(ran.took < Duration::from_secs(30), "{:?}", ran.took);
}

#[test]
fn credentials_that_expire_in_the_middle_leave_the_operation_going_and_the_same_command_resumes() {
    let sandbox = Sandbox::with_time_scale(0.01);
    let app = App::with_image(&sandbox, "");
    let mut going = Going::start(as_on_aws(&app, &["up", "--yes"], Some("sandbox")));
    going.until("the stack is being made", || (status(&sandbox, "comfy") == "CREATE_IN_PROGRESS").then_some(()));
    sandbox.break_things(json!([{"kind": "error", "service": "cloudformation", "operation": "DescribeStacks",
        "code": "ExpiredTokenException", "message": "The security token included in the request is expired", "status": 403, "times": 100}]));
    refused(going.end(), 7, &["expired", "goes on", "comfy-deploy up --yes"]);
    assert_eq!(status(&sandbox, "comfy"), "CREATE_IN_PROGRESS");
    sandbox.break_things(json!([]));
    app.run(&["up", "--yes"]).exits(0);
    deployed_once(&app);
}

#[test]
fn a_bucket_that_is_somebody_elses_absent_or_elsewhere() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    let foreign = |name: &str| {
        let body = json!({"name": name}).to_string();
        let answer = sandbox.http().post(format!("{}/_sandbox/foreign-bucket", sandbox.url)).body(body).send().unwrap();
        assert!(answer.status().is_success());
    };
    let configure = |more: &str| {
        let config = fs::read_to_string(app.path("comfy-deploy.yaml")).unwrap();
        let kept: String = config.lines().filter(|l| !l.starts_with("storage")).map(|l| format!("{l}\n")).collect();
        app.write("comfy-deploy.yaml", &format!("{kept}{more}"));
    };
    configure("storage: {bucket: nobody-has-this-one}\n");
    refused(app.run(&["up", "--yes"]), 2, &["nobody-has-this-one", "does not exist"]);
    foreign("theirs");
    configure("storage: {bucket: theirs}\n");
    refused(app.run(&["up", "--yes"]), 7, &["theirs", "belongs to somebody else"]);
    foreign(BUCKET);
    configure("");
    refused(app.run(&["up", "--yes"]), 7, &[BUCKET, "belongs to somebody else", "storage.bucket"]);
    assert_eq!((status(&sandbox, "comfy"), status(&sandbox, "comfy-foundation")), (String::new(), String::new()));
}

#[test]
fn a_model_archive_that_does_not_exist() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    let config = fs::read_to_string(app.path("comfy-deploy.yaml")).unwrap();
    app.write("comfy-deploy.yaml", &format!("{config}models: {{uri: 's3://{BUCKET}/models/none.tar.gz'}}\n"));
    // Before there is a foundation, and after.
    refused(app.run(&["up", "--yes"]), 2, &["models/none.tar.gz", "models.uri"]);
    nothing_made(&sandbox);
    app.write("comfy-deploy.yaml", &config);
    app.run(&["up", "--yes"]).exits(0);
    let gone = format!("s3://{BUCKET}/models/none.tar.gz");
    refused(app.run(&["update-model", "--yes", "--model-data", &gone]), 2, &["models/none.tar.gz"]);
    deployed_once(&app);
}

#[test]
fn a_prebuilt_image_that_sagemaker_would_refuse() {
    let sandbox = Sandbox::new();
    let app = App::new(&sandbox);
    let with = |uri: &str| app.configure(&format!("image: {{uri: '{uri}'}}\n"));
    with("comfy:v1");
    refused(app.run(&["up", "--yes"]), 2, &["no image comfy:v1 in ECR", "image.uri"]);
    sandbox.call("ecr", "CreateRepository", json!({"repositoryName": "comfy"})).unwrap();
    with(&format!("comfy@sha256:{}", "0".repeat(64)));
    refused(app.run(&["up", "--yes"]), 2, &["no image comfy@sha256:0000"]);
    let oci = sandbox.push_image("comfy", "oci", "one", true);
    with(&format!("comfy@{oci}"));
    refused(app.run(&["up", "--yes"]), 2, &[&oci, "SageMaker would refuse", "vnd.oci.image.manifest", "v2s2"]);
    nothing_made(&sandbox);
    let good = sandbox.push_image("comfy", "good", "one", false);
    with(&format!("comfy@{good}"));
    app.run(&["up", "--yes"]).exits(0);
    with(&format!("comfy@{oci}"));
    refused(app.run(&["up", "--yes"]), 2, &[&oci]);
    with(&format!("comfy@{good}"));
    deployed_once(&app);
}

#[test]
fn a_protected_stack_is_not_destroyed() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "protect: true\n");
    app.run(&["up", "--yes"]).exits(0);
    refused(app.run(&["destroy", "--confirm", "comfy"]), 3, &["protected", "protect: false"]);
    assert_eq!(status(&sandbox, "comfy"), "CREATE_COMPLETE");
    let config = fs::read_to_string(app.path("comfy-deploy.yaml")).unwrap().replace("protect: true", "protect: false");
    app.write("comfy-deploy.yaml", &config);
    app.run(&["up", "--yes"]).exits(0);
    app.run(&["destroy", "--confirm", "comfy"]).exits(0);
    assert_eq!(stack(&sandbox, "comfy"), None);
}

#[test]
fn a_stack_that_only_a_person_can_mend_is_named_with_the_command() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    for (args, words) in [
        (&["update-model", "--yes"][..], ["no stack comfy", "comfy-deploy up"]),
        (&["scale", "set", "--min", "1", "--max", "2", "--yes"], ["no stack comfy", "comfy-deploy up"]),
    ] {
        refused(app.run(args), 2, &words);
    }
    nothing_made(&sandbox);
}

#[test]
fn a_quota_that_is_too_low_and_instances_that_are_not_to_be_had() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    let quota = |number: u32| {
        let body = json!({"region": crate::support::REGION, "quotas": {"ml.g5.xlarge": number}}).to_string();
        let answer = sandbox.http().post(format!("{}/_sandbox/quotas", sandbox.url)).body(body).send().unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().unwrap());
    };
    quota(0);
    refused(app.run(&["up", "--yes"]), 8, &["ml.g5.xlarge for endpoint usage", "request-service-quota-increase"]);
    nothing_made(&sandbox);
    quota(1);
    app.run(&["up", "--yes"]).exits(0);
    // Blue beside green needs a second one.
    app.write("models/more.safetensors", "more");
    refused(app.run(&["up", "--yes"]), 8, &["1 in use", "side by side"]);
    quota(2);
    sandbox.break_things(json!([{"kind": "resource_fails", "logical_id": "ComfyUIEndpoint",
        "message": "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error."}]));
    refused(app.run(&["up", "--yes"]), 8, &["InsufficientInstanceCapacity", "another endpoint.instance_type"]);
    app.run(&["up", "--yes"]).exits(0);
    app.run(&["plan", "--detailed-exitcode"]).exits(0);
    assert_eq!(probe::models_and_configs(&sandbox).0.len(), 1);
}

#[test]
fn a_permission_that_is_missing_half_way_is_named_and_nothing_is_left() {
    for (service, operation) in [
        ("cloudformation", "CreateChangeSet"),
        ("cloudformation", "DescribeChangeSet"),
        ("cloudformation", "DescribeStackEvents"),
        ("cloudformation", "ExecuteChangeSet"),
        ("s3", "PutObject"),
        ("s3", "ListObjectsV2"),
        ("sagemaker", "ListEndpoints"),
    ] {
        let sandbox = Sandbox::with_time_scale(0.001);
        let app = App::with_image(&sandbox, "");
        sandbox.break_things(json!([{"kind": "error", "service": service, "operation": operation, "code": "AccessDenied",
            "message": format!("User: arn:aws:iam::123456789012:user/ci is not authorized to perform: {service}:{operation}"), "status": 403}]));
        let ran = app.run(&["up", "--yes"]);
        let action = format!("{service}:{operation}");
        // S3's permissions are not named as its operations are, and an empty bucket needs no listing.
        if ran.code == 0 {
            assert!(
                matches!(operation, "ListObjectsV2" | "ListEndpoints"),
                "{operation} was not refused:\n{}",
                ran.stderr
            );
        } else {
            refused(ran, 7, &["not authorized", &action, "allow `"]);
            for name in ["comfy", "comfy-foundation"] {
                assert_ne!(status(&sandbox, name), "REVIEW_IN_PROGRESS", "{operation}");
            }
        }
        sandbox.break_things(json!([]));
        app.run(&["up", "--yes"]).exits(0);
        deployed_once(&app);
    }
}
