//! Functions as processes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::child;
use crate::support::{Sandbox, admin, alive, package, until, zip};

async fn made(settings: Value) -> Sandbox {
    let sandbox = Sandbox::new().await;
    sandbox.function(&package(), settings).await;
    sandbox
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_has_lambdas_environment_and_nothing_of_the_sandbox() {
    let variables = json!({"OWN": "value"});
    let sandbox = made(json!({"Environment": {"Variables": variables}, "MemorySize": 512, "Timeout": 30})).await;
    let reply = sandbox.invoke(json!({"hello": "world"})).await;
    assert_eq!((reply.status(), reply.header("x-amz-executed-version")), (200, "$LATEST"));
    let told = reply.told();
    assert_eq!(told["event"], json!({"hello": "world"}));
    let environment = &told["environment"];
    let url = sandbox.running.url();
    for (name, value) in [
        ("OWN", "value"),
        ("_HANDLER", "bootstrap"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_LAMBDA_FUNCTION_NAME", "f"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512"),
        ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/f"),
        ("TZ", ":UTC"),
        ("AWS_ENDPOINT_URL", &url),
    ] {
        assert_eq!(environment[name], value, "{name}");
    }
    assert!(environment["AWS_ACCESS_KEY_ID"].as_str().unwrap().starts_with("ASIA"));
    assert!(environment["CARGO_MANIFEST_DIR"].is_null() && environment["HOME"].is_null(), "{environment}");
    let head = told["head"].as_str().unwrap();
    for line in [
        "lambda-runtime-invoked-function-arn: arn:aws:lambda:eu-west-1:123456789012:function:f",
        "lambda-runtime-trace-id: root=1-",
    ] {
        assert!(head.contains(line), "{head}");
    }
    let log = reply.log();
    assert!(log.contains("START RequestId: ") && log.contains("\nEND RequestId: "), "{log}");
    assert!(log.contains("\tMemory Size: 512 MB\tMax Memory Used: ") && log.contains("\tInit Duration: "), "{log}");
    let lines = sandbox.lines("/aws/lambda/f");
    assert!(lines.iter().any(|l| l == "the function starts"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_worded_as_lambda_words_them() {
    let sandbox = made(json!({"Timeout": 1})).await;
    for (order, kind, text) in [
        ("error", "Own", "mine"),
        ("exit", "Runtime.ExitError", "Error: Runtime exited with error: exit status 3"),
        ("sleep", "Sandbox.Timedout", "Error: Task timed out after 1.00 seconds"),
    ] {
        let reply = sandbox.invoke(json!({"do": order, "ms": 60_000})).await;
        assert_eq!((reply.status(), reply.header("x-amz-function-error")), (200, "Unhandled"), "{order}");
        let error = reply.json();
        assert_eq!(error["errorType"], kind);
        assert!(error["errorMessage"].as_str().unwrap().ends_with(text), "{error}");
        assert!(reply.log().contains("REPORT RequestId: "), "{}", reply.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_is_tried_twice() {
    let sandbox = made(json!({"Environment": {"Variables": {"MODE": "init-exit"}}})).await;
    let reply = sandbox.invoke(json!({})).await;
    assert_eq!(reply.json()["errorType"], "Runtime.ExitError");
    let log = reply.log();
    assert_eq!(log.matches("INIT_REPORT Init Duration: ").count(), 2, "{log}");
    assert!(log.contains("\tPhase: invoke\tStatus: error\tError Type: Runtime.ExitError"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_executed_is_an_invalid_entrypoint() {
    let foreign = {
        // Enough of an ELF header for a machine that neither Lambda nor this test has.
        let mut header = vec![0; 64];
        header[..4].copy_from_slice(b"\x7fELF");
        header[18] = 40;
        header
    };
    for (package, text) in [
        (zip("bootstrap", &foreign, 0o755), "Error: fork/exec /var/task/bootstrap: exec format error"),
        (
            zip("bootstrap", child::script().as_bytes(), 0o644),
            "Error: fork/exec /var/task/bootstrap: permission denied",
        ),
        (zip("other", b"", 0o755), "Error: Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]"),
    ] {
        let sandbox = Sandbox::new().await;
        sandbox.function(&package, json!({})).await;
        let error = sandbox.invoke(json!({})).await.json();
        assert_eq!(error["errorType"], "Runtime.InvalidEntrypoint");
        assert!(error["errorMessage"].as_str().unwrap().ends_with(text), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_process_is_reused_until_the_function_changes() {
    let sandbox = made(json!({})).await;
    let first = sandbox.invoke(json!({})).await;
    let pid = first.told()["pid"].as_u64().unwrap();
    let second = sandbox.invoke(json!({})).await;
    assert_eq!(second.told()["pid"], pid);
    assert!(first.log().contains("Init Duration") && !second.log().contains("Init Duration"));
    sandbox.call("lambda", "UpdateFunctionConfiguration", json!({"FunctionName": "f", "MemorySize": 256})).unwrap();
    until(|| (!alive(pid)).then_some(())).await;
    sandbox.active().await;
    let other = sandbox.invoke(json!({})).await.told();
    assert_ne!(other["pid"], pid);
    let pid = other["pid"].as_u64().unwrap();
    sandbox.call("lambda", "DeleteFunction", json!({"FunctionName": "f"})).unwrap();
    until(|| (!alive(pid)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reserved_concurrency_bounds_the_processes() {
    let sandbox = made(json!({})).await;
    let reserve = |n: i64| {
        let input = json!({"FunctionName": "f", "ReservedConcurrentExecutions": n});
        sandbox.call("lambda", "PutFunctionConcurrency", input).unwrap();
    };
    reserve(1);
    let file = sandbox.dir.path().join("go");
    let slow = sandbox.invoke(json!({"do": "wait", "file": file}));
    let second = async {
        // The first one has begun when its first line is there.
        until(|| sandbox.lines("/aws/lambda/f").iter().any(|l| l.starts_with("START")).then_some(())).await;
        let second = sandbox.invoke(json!({})).await;
        std::fs::write(&file, "").unwrap();
        second
    };
    let (slow, second) = tokio::join!(slow, second);
    assert_eq!(slow.text(), "\"waited\"");
    assert_eq!((second.status(), second.header("x-amzn-errortype")), (429, "TooManyRequestsException"));
    assert_eq!(second.json()["Reason"], "ReservedFunctionConcurrentInvocationLimitExceeded");
    assert_eq!(sandbox.invoke(json!({})).await.status(), 200);
    reserve(0);
    assert_eq!(sandbox.invoke(json!({})).await.status(), 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_over_the_size_is_killed() {
    let sandbox = made(json!({"MemorySize": 128})).await;
    let reply = sandbox.invoke(json!({"do": "memory", "mb": 200})).await;
    assert!(reply.json()["errorMessage"].as_str().unwrap().ends_with("signal: killed"), "{}", reply.text());
    assert!(reply.log().contains("\tMax Memory Used: 128 MB\t"), "{}", reply.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_over_six_megabytes_is_refused_by_the_runtime_api() {
    let sandbox = made(json!({})).await;
    let reply = sandbox.invoke(json!({"do": "large", "bytes": 7 << 20})).await;
    assert_eq!(reply.json()["errorType"], "Function.ResponseSizeTooLarge");
    assert!(reply.log().contains("the runtime API said http/1.1 413"), "{}", reply.log());
    assert_eq!(sandbox.invoke(json!({"do": "large", "bytes": 5 << 20})).await.header("x-amz-function-error"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_invocation_types() {
    let sandbox = made(json!({})).await;
    let kind = |kind| [("x-amz-invocation-type", kind)];
    let dry = sandbox.invoke_as(json!({}), &kind("DryRun"), &admin()).await;
    assert_eq!((dry.status(), dry.text().as_str()), (204, ""));
    assert!(sandbox.lines("/aws/lambda/f").is_empty());
    let event = sandbox.invoke_as(json!({"do": "error"}), &kind("Event"), &admin()).await;
    assert_eq!((event.status(), event.text().as_str()), (202, ""));
    // One that fails is tried three times.
    let started = || sandbox.lines("/aws/lambda/f").iter().filter(|l| l.starts_with("START")).count();
    until(|| (started() == 3).then_some(())).await;
    let context = [("x-amz-client-context", "eyJhIjoxfQ==")];
    let told = sandbox.invoke_as(json!({}), &context, &admin()).await.told();
    assert!(told["head"].as_str().unwrap().contains("lambda-runtime-client-context: {\"a\":1}"));
    let broken = sandbox.send("/2015-03-31/functions/f/invocations", &[], b"{", Some(&admin()), "lambda").await;
    assert_eq!((broken.status(), broken.header("x-amzn-errortype")), (400, "InvalidRequestContentException"));
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_that_may_not_do_not() {
    let sandbox = made(json!({})).await;
    let other =
        json!([{"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": "arn:aws:lambda:*:*:function:g"}]);
    let key = sandbox.assume(&sandbox.role("other", "lambda.amazonaws.com", other));
    let refused = sandbox.invoke_as(json!({}), &[], &key).await;
    assert_eq!((refused.status(), refused.header("x-amzn-errortype")), (403, "AccessDeniedException"));
    assert!(refused.text().contains("assumed-role/other/test is not authorized to perform: lambda:InvokeFunction"));
    // Without the right to write logs a function runs, and nobody sees its lines.
    sandbox.call("iam", "DeleteRolePolicy", json!({"RoleName": "f", "PolicyName": "p"})).unwrap();
    assert_eq!(sandbox.invoke(json!({})).await.status(), 200);
    assert!(sandbox.lines("/aws/lambda/f").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_stops_leaves_no_process() {
    for stop in [true, false] {
        let sandbox = made(json!({})).await;
        let pid = sandbox.invoke(json!({})).await.told()["pid"].as_u64().unwrap();
        assert!(alive(pid));
        if stop {
            sandbox.running.stop().await.unwrap();
        } else {
            drop(sandbox);
        }
        until(|| (!alive(pid)).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_object_in_s3_becomes_later_changes_nothing() {
    let sandbox = Sandbox::new().await;
    sandbox.object("f.zip", &package());
    sandbox.function(b"", json!({"Code": {"S3Bucket": "models", "S3Key": "f.zip"}})).await;
    sandbox.object("f.zip", b"something else");
    assert_eq!(sandbox.invoke(json!({})).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_pending_cannot_be_invoked() {
    let sandbox = made(json!({})).await;
    // From now on nothing gets ready.
    sandbox.running.shared.world.lock().time_scale = 1000.0;
    let input = json!({
        "FunctionName": "slow", "Runtime": "provided.al2023", "Handler": "bootstrap",
        "Role": "arn:aws:iam::123456789012:role/f", "Code": {"ZipFile": STANDARD.encode(package())},
    });
    sandbox.call("lambda", "CreateFunction", input).unwrap();
    let path = "/2015-03-31/functions/slow/invocations";
    let refused = sandbox.send(path, &[], b"{}", Some(&admin()), "lambda").await;
    assert_eq!((refused.status(), refused.header("x-amzn-errortype")), (409, "ResourceConflictException"));
    assert!(refused.text().contains("currently in the following state: Pending"), "{}", refused.text());
}
