//! Endpoints as processes.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Key, Reply, Sandbox, admin, alive, until};

/// An image of AWS's, which need not be in the sandbox's registry.
pub const IMAGE: &str = "763104351884.dkr.ecr.eu-west-1.amazonaws.com/app:1";
const LOGS: &str = "/aws/sagemaker/Endpoints/e";

/// An archive with one file.
fn archive(name: &str, link: bool) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut builder = tar::Builder::new(gzip);
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    if link {
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, name, "/etc/passwd").unwrap();
    } else {
        header.set_size(7);
        builder.append_data(&mut header, name, &b"weights"[..]).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

/// A model and an endpoint config of this name. `data` is the container's, and may have an instance type.
fn config(sandbox: &Sandbox, name: &str, mode: &str, data: Value) {
    if sandbox.call("iam", "GetRole", json!({"RoleName": "exec"})).is_err() {
        sandbox.role(
            "exec",
            "sagemaker.amazonaws.com",
            json!([{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]),
        );
    }
    sandbox.object("m.tar.gz", &archive("checkpoints/a.safetensors", false));
    let mut container = json!({"Image": IMAGE, "Environment": {"MODE": mode, "OWN": "value"}});
    let own = data.as_object().unwrap().iter().filter(|(name, _)| *name != "InstanceType");
    own.for_each(|(name, value)| container[name] = value.clone());
    let role = "arn:aws:iam::123456789012:role/exec";
    let model = json!({"ModelName": name, "ExecutionRoleArn": role, "PrimaryContainer": container});
    sandbox.call("sagemaker", "CreateModel", model).unwrap();
    let variant = json!({"VariantName": "V", "ModelName": name, "InitialInstanceCount": 1,
        "InstanceType": data["InstanceType"].as_str().unwrap_or("ml.g5.xlarge"),
        "ContainerStartupHealthCheckTimeoutInSeconds": 600});
    let config = json!({"EndpointConfigName": name, "ProductionVariants": [variant]});
    sandbox.call("sagemaker", "CreateEndpointConfig", config).unwrap();
}

pub fn archived() -> Value {
    json!({"ModelDataUrl": "s3://models/m.tar.gz"})
}

pub fn create(sandbox: &Sandbox, name: &str, mode: &str, data: Value) {
    config(sandbox, name, mode, data);
    sandbox.call("sagemaker", "CreateEndpoint", json!({"EndpointName": "e", "EndpointConfigName": name})).unwrap();
}

/// Waits until nothing goes on at the endpoint.
pub async fn settled(sandbox: &Sandbox) -> Value {
    until(|| {
        let shown = sandbox.call("sagemaker", "DescribeEndpoint", json!({"EndpointName": "e"})).unwrap();
        ["InService", "Failed"].iter().any(|s| shown["EndpointStatus"] == *s).then_some(shown)
    })
    .await
}

async fn serving() -> Sandbox {
    let sandbox = Sandbox::serving(|_| {}).await;
    create(&sandbox, "c1", "ok", archived());
    assert_eq!(settled(&sandbox).await["EndpointStatus"], "InService");
    sandbox
}

async fn ask_as(sandbox: &Sandbox, headers: &[(&str, &str)], body: &[u8], key: &Key) -> Reply {
    sandbox.send("/endpoints/e/invocations", headers, body, Some(key), "sagemaker").await
}

async fn ask(sandbox: &Sandbox, body: Value) -> Reply {
    ask_as(sandbox, &[("content-type", "application/json")], body.to_string().as_bytes(), &admin()).await
}

async fn pid(sandbox: &Sandbox) -> u64 {
    ask(sandbox, json!({})).await.json()["pid"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_its_model_and_its_environment() {
    let sandbox = serving().await;
    let told = ask(&sandbox, json!({})).await.json();
    assert_eq!(told["files"], json!(["weights", null]));
    // Nobody may write there.
    assert_eq!(told["modes"], json!([0o555, 0o444]));
    let environment = &told["environment"];
    assert_eq!(environment["OWN"], "value");
    assert!(environment["CARGO_MANIFEST_DIR"].is_null());
    let args = environment["CHILD_ARGS"].as_str().unwrap();
    let port = environment["COMFY_SERVE_COMFYUI_URL"].as_str().unwrap().rsplit(':').next().unwrap();
    let (start, paths) = args.split_once(" --extra-model-paths-config ").unwrap();
    assert_eq!(start, format!("serve -- comfyui --own --listen 127.0.0.1 --port {port}"));
    let paths = std::fs::read_to_string(paths).unwrap();
    assert!(paths.contains(&format!("base_path: {}", told["model"])), "{paths}");
    let lines = sandbox.lines(LOGS);
    assert!(lines.iter().any(|l| l.starts_with("the container starts with serve -- comfyui")), "{lines:?}");
    let streams = sandbox.call("logs", "DescribeLogStreams", json!({"logGroupName": LOGS})).unwrap();
    assert!(streams["logStreams"][0]["logStreamName"].as_str().unwrap().starts_with("V/i-"), "{streams}");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_under_a_prefix_are_files() {
    let sandbox = Sandbox::serving(|_| {}).await;
    sandbox.object("p/checkpoints/a.safetensors", b"one");
    sandbox.object("p/b.bin", b"two");
    sandbox.object("p/folder/", b"");
    let source = json!({"S3Uri": "s3://models/p/", "S3DataType": "S3Prefix", "CompressionType": "None"});
    create(&sandbox, "c1", "ok", json!({"ModelDataSource": {"S3DataSource": source}}));
    settled(&sandbox).await;
    assert_eq!(ask(&sandbox, json!({})).await.json()["files"], json!(["one", "two"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn most_headers_are_stripped_both_ways() {
    let sandbox = serving().await;
    let headers = [
        ("content-type", "application/json"),
        ("accept", "image/png"),
        ("x-amzn-sagemaker-custom-attributes", "there"),
        ("x-amzn-sagemaker-inference-id", "id"),
        ("x-own", "yes"),
    ];
    let reply = ask_as(&sandbox, &headers, b"{}", &admin()).await;
    let told = reply.json();
    let head: Vec<&str> = told["head"].as_str().unwrap().lines().skip(1).filter(|l| !l.starts_with("host: ")).collect();
    let wanted = [
        "content-type: application/json",
        "accept: image/png",
        "x-amzn-sagemaker-custom-attributes: there",
        "content-length: 2",
    ];
    assert_eq!(head, wanted);
    assert_eq!(reply.header("x-amzn-sagemaker-custom-attributes"), "back");
    assert_eq!(reply.header("x-amzn-invoked-production-variant"), "V");
    assert_eq!((reply.header("content-type"), reply.header("x-own")), ("application/json", ""));
    let long = "x".repeat(1025);
    let refused = ask_as(&sandbox, &[("x-amzn-sagemaker-custom-attributes", &long)], b"{}", &admin()).await;
    assert_eq!((refused.status(), refused.header("x-amzn-errortype")), (400, "ValidationError"));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_model_are_wrapped() {
    let sandbox = Sandbox::serving(|serving| serving.invocation = Some(Duration::from_millis(700))).await;
    let unknown = ask(&sandbox, json!({})).await;
    assert_eq!((unknown.status(), unknown.header("x-amzn-errortype")), (400, "ValidationError"));
    assert_eq!(unknown.json()["Message"], "Endpoint e of account 123456789012 not found.");
    create(&sandbox, "c1", "ok", archived());
    settled(&sandbox).await;
    let see = "See https://eu-west-1.console.aws.amazon.com/cloudwatch/home?region=eu-west-1#logEventViewer:group=\
               /aws/sagemaker/Endpoints/e in account 123456789012 for more information.";
    for (order, status, original, message) in [
        (
            json!({"status": 400, "text": "no"}),
            400,
            "no",
            "Received client error (400) from primary with message \"no\".",
        ),
        (
            json!({"status": 503, "text": "é", "times": 2000}),
            503,
            &*"é".repeat(1024),
            "Received server error (503) from primary with message \"é",
        ),
        (
            json!({"sleep": 5000}),
            0,
            "Your invocation timed out while waiting for a response from container primary.",
            "Received server error (0) from primary with message \"Your invocation timed out",
        ),
        (
            json!({"exit": true}),
            0,
            "Amazon SageMaker could not get a response from the e endpoint.",
            "Received server error (0) from primary with message \"Amazon SageMaker could not get a response",
        ),
    ] {
        let reply = ask(&sandbox, order.clone()).await;
        assert_eq!((reply.status(), reply.header("x-amzn-errortype")), (424, "ModelError"), "{order}");
        let error = reply.json();
        assert_eq!(error["OriginalStatusCode"], status);
        let said = error["OriginalMessage"].as_str().unwrap();
        assert!(said.starts_with(original) && said.len() <= 2048, "{said}");
        assert!(error["Message"].as_str().unwrap().starts_with(message), "{error}");
        assert!(error["Message"].as_str().unwrap().ends_with(see), "{error}");
        assert_eq!(error["LogStreamArn"], "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/sagemaker/Endpoints/e");
    }
    let large = ask_as(&sandbox, &[], &vec![0; (25 << 20) + 1], &admin()).await;
    assert_eq!((large.status(), large.header("x-amzn-errortype")), (400, "ValidationError"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_ends_is_started_again() {
    let sandbox = serving().await;
    let first = pid(&sandbox).await;
    ask(&sandbox, json!({"exit": true})).await;
    let started = || sandbox.lines(LOGS).iter().filter(|l| l.starts_with("the container starts")).count();
    until(|| (started() == 2).then_some(())).await;
    assert!(sandbox.lines(LOGS).iter().any(|l| l.ends_with("the container ended: exit status 9")));
    loop {
        let reply = ask(&sandbox, json!({})).await;
        if reply.status() == 200 {
            assert_ne!(reply.json()["pid"], first);
            break;
        }
        // Until it answers /ping there is nobody to ask.
        assert_eq!((reply.status(), reply.header("x-amzn-errortype")), (503, "ServiceUnavailable"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_whose_container_never_answers_fails() {
    for mode in ["sick", "exit"] {
        let sandbox = Sandbox::serving(|serving| serving.startup = Some(Duration::from_millis(1500))).await;
        create(&sandbox, "c1", mode, archived());
        let shown = settled(&sandbox).await;
        assert_eq!(shown["EndpointStatus"], "Failed");
        assert_eq!(
            shown["FailureReason"],
            "The primary container for production variant V did not pass the ping health check. Please check CloudWatch \
             logs for this endpoint."
        );
        assert_eq!(ask(&sandbox, json!({})).await.json()["Message"], "Endpoint e of account 123456789012 not found.");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_cannot_be_extracted_fails_the_endpoint() {
    for bytes in [b"nonsense".to_vec(), archive("link", true)] {
        let sandbox = Sandbox::serving(|_| {}).await;
        sandbox.object("bad.tar.gz", &bytes);
        create(&sandbox, "c1", "ok", json!({"ModelDataUrl": "s3://models/bad.tar.gz"}));
        let shown = settled(&sandbox).await;
        let reason = shown["FailureReason"].as_str().unwrap();
        assert!(
            reason.starts_with("Failed to extract model data archive for container \"container_1\" from URL"),
            "{reason}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_update_leaves_the_old_fleet_and_a_good_one_replaces_it() {
    let sandbox = Sandbox::serving(|serving| serving.startup = Some(Duration::from_secs(10))).await;
    create(&sandbox, "c1", "ok", archived());
    settled(&sandbox).await;
    let old = pid(&sandbox).await;
    let update = |config: &str| {
        let input = json!({"EndpointName": "e", "EndpointConfigName": config});
        sandbox.call("sagemaker", "UpdateEndpoint", input).unwrap();
    };
    sandbox.object("bad.tar.gz", b"nonsense");
    config(&sandbox, "c2", "ok", json!({"ModelDataUrl": "s3://models/bad.tar.gz"}));
    update("c2");
    let shown = settled(&sandbox).await;
    assert_eq!((&shown["EndpointStatus"], &shown["EndpointConfigName"]), (&json!("InService"), &json!("c1")));
    assert!(shown["FailureReason"].as_str().unwrap().starts_with("Failed to extract"));
    assert_eq!(pid(&sandbox).await, old);

    config(&sandbox, "c3", "ok", archived());
    update("c3");
    // The old fleet serves until the new one does.
    let during = ask(&sandbox, json!({})).await;
    assert_eq!(during.status(), 200, "{}", during.text());
    assert_eq!(settled(&sandbox).await["EndpointConfigName"], "c3");
    until(|| (!alive(old)).then_some(())).await;
    let new = pid(&sandbox).await;
    assert_ne!(new, old);
    sandbox.call("sagemaker", "DeleteEndpoint", json!({"EndpointName": "e"})).unwrap();
    until(|| (!alive(new)).then_some(())).await;
    // Nothing of the model stays.
    let models = sandbox.dir.path().join("state/models");
    until(|| (std::fs::read_dir(&models).unwrap().count() == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_starts_and_ends_processes() {
    let sandbox = serving().await;
    let first = pid(&sandbox).await;
    let scale = |count: i64| {
        let wanted = json!([{"VariantName": "V", "DesiredInstanceCount": count}]);
        let input = json!({"EndpointName": "e", "DesiredWeightsAndCapacities": wanted});
        sandbox.call("sagemaker", "UpdateEndpointWeightsAndCapacities", input).unwrap();
    };
    scale(2);
    let shown = settled(&sandbox).await;
    assert_eq!(shown["ProductionVariants"][0]["CurrentInstanceCount"], 2);
    // In turn.
    let pids = [pid(&sandbox).await, pid(&sandbox).await, pid(&sandbox).await, pid(&sandbox).await];
    assert!(pids[0] != pids[1] && pids[..2] == pids[2..] && pids.contains(&first), "{pids:?}");
    let second = pids.into_iter().find(|p| *p != first).unwrap();
    scale(1);
    settled(&sandbox).await;
    until(|| (!alive(second)).then_some(())).await;
    assert_eq!(pid(&sandbox).await, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_need_invoke_endpoint() {
    let sandbox = serving().await;
    for (name, resource, status) in [("good", "endpoint/e", 200), ("other", "endpoint/other", 403)] {
        let resource = format!("arn:aws:sagemaker:eu-west-1:123456789012:{resource}");
        let statements = json!([{"Effect": "Allow", "Action": "sagemaker:InvokeEndpoint", "Resource": resource}]);
        let key = sandbox.assume(&sandbox.role(name, "lambda.amazonaws.com", statements));
        let reply = ask_as(&sandbox, &[], b"{}", &key).await;
        assert_eq!(reply.status(), status, "{}", reply.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn simulated_endpoints_keep_the_rules_and_run_nothing() {
    let sandbox = Sandbox::new().await;
    create(&sandbox, "c1", "ok", archived());
    assert_eq!(settled(&sandbox).await["EndpointStatus"], "InService");
    let reply = ask(&sandbox, json!({})).await;
    assert_eq!((reply.status(), reply.header("x-amzn-errortype")), (503, "ServiceUnavailable"));
    assert!(!sandbox.dir.path().join("state/models").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_stops_or_is_started_again() {
    let sandbox = serving().await;
    let first = pid(&sandbox).await;
    let Sandbox { running, dir } = sandbox;
    running.stop().await.unwrap();
    assert!(!alive(first));
    // What was in service is in service again.
    let sandbox = Sandbox::again(dir).await;
    let reply = loop {
        let reply = ask(&sandbox, json!({})).await;
        if reply.status() != 503 {
            break reply;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let second = reply.json()["pid"].as_u64().unwrap();
    drop(sandbox);
    until(|| (!alive(second)).then_some(())).await;
}

/// The program itself, killed: neither the function's process nor the container's outlives it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_outlives_a_sandbox_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let marker = dir.path().join("child");
    let script = dir.path().join("comfy-serve");
    let mut file = std::fs::File::create(&script).unwrap();
    // A child of the program's child ends because this one ends it when it is told to.
    write!(file, "#!/bin/sh\nsleep 1000 & echo $! > '{}'; trap 'kill $!; exit' TERM; wait\n", marker.display())
        .unwrap();
    drop(file);
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let state = dir.path().join("state");
    let mut program = Command::new(env!("CARGO_BIN_EXE_comfy-sandbox"))
        .args(["serve", "--listen", "127.0.0.1:0", "--comfyui-url", "http://127.0.0.1:1", "--state"])
        .arg(&state)
        .arg("--comfy-serve")
        .arg(&script)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(program.stdout.take().unwrap()));
    let ready = lines.next().unwrap().unwrap();
    let address = ready.split("http://").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    assert!(lines.any(|l| l.unwrap().starts_with("# endpoints run ")));
    crate::support::endpoint_over_the_wire(address).await;
    let pid: u64 = until(|| std::fs::read_to_string(&marker).ok()?.trim().parse().ok()).await;
    assert!(alive(pid));
    program.kill().unwrap();
    program.wait().unwrap();
    until(|| (!alive(pid)).then_some(())).await;
}
