//! Function URLs over HTTP.

use serde_json::{Value, json};

use crate::support::{Key, Reply, Sandbox, address, admin, package};
use comfy_sandbox::world::now_ms;

/// A sandbox with function `f` behind a URL, and the URL's path.
async fn made(auth: &str, mode: &str) -> (Sandbox, String) {
    let sandbox = Sandbox::new().await;
    sandbox.function(&package(), json!({})).await;
    let input = json!({"FunctionName": "f", "AuthType": auth, "InvokeMode": mode});
    let made = sandbox.call("lambda", "CreateFunctionUrlConfig", input).unwrap();
    let (to, path) = address(made["FunctionUrl"].as_str().unwrap());
    assert_eq!(to, sandbox.running.addr);
    (sandbox, path)
}

async fn post(sandbox: &Sandbox, path: &str, body: &Value, key: Option<&Key>) -> Reply {
    let headers = [("content-type", "application/json")];
    sandbox.send(path, &headers, body.to_string().as_bytes(), key, "lambda").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_event_is_payload_version_two() {
    let (sandbox, path) = made("AWS_IAM", "BUFFERED").await;
    let headers = [("content-type", "application/json"), ("cookie", "a=1; b=2"), ("X-Own", "Yes")];
    let target = format!("{path}pictures/a%20b?x=1&y=a%2Bb&x=2");
    let reply = sandbox.send(&target, &headers, b"{\"k\": 1}", Some(&admin()), "lambda").await;
    assert_eq!((reply.status(), reply.header("x-own")), (200, "yes"), "{}", reply.text());
    assert_eq!(reply.header("content-type"), "application/json");
    let event = reply.json()["event"].clone();
    let id = path.trim_matches('/').rsplit('/').next().unwrap();
    let domain = format!("{id}.lambda-url.eu-west-1.on.aws");
    for (pointer, wanted) in [
        ("/version", json!("2.0")),
        ("/routeKey", json!("$default")),
        ("/rawPath", json!("/pictures/a b")),
        ("/rawQueryString", json!("x=1&y=a%2Bb&x=2")),
        ("/queryStringParameters", json!({"x": "1,2", "y": "a+b"})),
        ("/cookies", json!(["a=1", "b=2"])),
        ("/headers/x-own", json!("Yes")),
        ("/headers/cookie", Value::Null),
        ("/headers/host", json!(domain)),
        ("/body", json!("{\"k\": 1}")),
        ("/isBase64Encoded", json!(false)),
        ("/requestContext/http/method", json!("POST")),
        ("/requestContext/http/path", json!("/pictures/a b")),
        ("/requestContext/domainName", json!(domain)),
        ("/requestContext/domainPrefix", json!(id)),
        ("/requestContext/accountId", json!("123456789012")),
        ("/requestContext/authorizer/iam/userArn", json!("arn:aws:iam::123456789012:user/sandbox")),
        ("/requestContext/stage", json!("$default")),
    ] {
        assert_eq!(event.pointer(pointer).cloned().unwrap_or_default(), wanted, "{pointer}");
    }
    // AWS's own name reaches it too, and what is no text comes in base64.
    let key = admin();
    let headers = [("content-type", "image/png")];
    let (_, root) = (&key, "/");
    let reply = sandbox.send_to(&domain, root, &headers, b"\x89PNG", Some(&key)).await;
    let event = reply.json()["event"].clone();
    assert_eq!((&event["isBase64Encoded"], &event["body"]), (&json!(true), &json!("iVBORw==")));
    assert_eq!((&event["rawPath"], &event["queryStringParameters"]), (&json!("/"), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_good_signatures_pass() {
    let (sandbox, path) = made("AWS_IAM", "BUFFERED").await;
    let body = json!({});
    assert_eq!(post(&sandbox, &path, &body, Some(&admin())).await.status(), 200);

    let unsigned = post(&sandbox, &path, &body, None).await;
    assert_eq!((unsigned.status(), unsigned.header("x-amzn-errortype")), (403, "AccessDeniedException"));
    let text = "Forbidden. For troubleshooting Function URL authorization issues, see: \
                https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html";
    assert_eq!(unsigned.json(), json!({"Message": text}));

    let wrong = ("sandbox".to_owned(), "guess".to_owned(), None);
    let refused = post(&sandbox, &path, &body, Some(&wrong)).await;
    assert_eq!((refused.status(), refused.header("x-amzn-errortype")), (403, "InvalidSignatureException"));
    assert!(refused.json()["message"].as_str().unwrap().starts_with("The request signature we calculated does not"));

    let key = admin();
    let at = |service: &'static str, region: &'static str, minutes: i64| (service, region, now_ms() + minutes * 60_000);
    for (scope, text) in [
        (at("lambda", "eu-west-1", -6), "Signature expired: "),
        (at("lambda", "eu-west-1", 6), "Signature not yet current: "),
        (at("lambda", "us-east-1", 0), "Credential should be scoped to a valid region"),
        (at("execute-api", "eu-west-1", 0), "Credential should be scoped to correct service: 'lambda'."),
    ] {
        let refused = sandbox.send_at(&path, &[], b"{}", Some(&key), scope).await;
        assert_eq!(refused.status(), 403);
        assert!(refused.json()["message"].as_str().unwrap().starts_with(text), "{}", refused.text());
    }
    // The body is part of it.
    let changed = sandbox.send_with_other_body(&path, &key).await;
    assert_eq!((changed.status(), changed.header("x-amzn-errortype")), (403, "InvalidSignatureException"));
    let nobody = ("AKIANOBODY".to_owned(), "sandbox".to_owned(), None);
    assert!(
        post(&sandbox, &path, &body, Some(&nobody)).await.text().contains("security token included in the request")
    );
    // Nothing of all this ran the function.
    assert_eq!(sandbox.lines("/aws/lambda/f").iter().filter(|l| l.starts_with("START")).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_need_both_actions() {
    let (sandbox, path) = made("AWS_IAM", "BUFFERED").await;
    let url = json!({"Effect": "Allow", "Action": "lambda:InvokeFunctionUrl", "Resource": "*",
        "Condition": {"StringEquals": {"lambda:FunctionUrlAuthType": "AWS_IAM"}}});
    let function = json!({"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": "*",
        "Condition": {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}});
    for (name, statements, status) in [
        ("url-only", json!([url]), 403),
        ("function-only", json!([function]), 403),
        ("both", json!([url, function]), 200),
    ] {
        let key = sandbox.assume(&sandbox.role(name, "lambda.amazonaws.com", statements));
        let reply = post(&sandbox, &path, &json!({}), Some(&key)).await;
        assert_eq!(reply.status(), status, "{name}: {}", reply.text());
        let (id, secret, _) = key;
        let without_token = post(&sandbox, &path, &json!({}), Some(&(id, secret, None))).await;
        assert_eq!(without_token.header("x-amzn-errortype"), "UnrecognizedClientException");
    }
    // The resource's policy is as good as the caller's.
    let denied: Key = ("denied".into(), "sandbox".into(), None);
    let permit = |id: &str, action: &str, more: Value| {
        let mut input = json!({"FunctionName": "f", "StatementId": id, "Action": action,
            "Principal": "arn:aws:iam::123456789012:user/denied"});
        more.as_object().unwrap().iter().for_each(|(name, value)| input[name] = value.clone());
        sandbox.call("lambda", "AddPermission", input).unwrap();
    };
    assert_eq!(post(&sandbox, &path, &json!({}), Some(&denied)).await.status(), 403);
    permit("a", "lambda:InvokeFunctionUrl", json!({"FunctionUrlAuthType": "AWS_IAM"}));
    assert_eq!(post(&sandbox, &path, &json!({}), Some(&denied)).await.status(), 403);
    permit("b", "lambda:InvokeFunction", json!({"InvokedViaFunctionUrl": true}));
    assert_eq!(post(&sandbox, &path, &json!({}), Some(&denied)).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_url_needs_both_statements() {
    let (sandbox, path) = made("NONE", "BUFFERED").await;
    assert_eq!(post(&sandbox, &path, &json!({}), None).await.status(), 403);
    let url = json!({"FunctionName": "f", "StatementId": "a", "Action": "lambda:InvokeFunctionUrl", "Principal": "*",
        "FunctionUrlAuthType": "NONE"});
    sandbox.call("lambda", "AddPermission", url).unwrap();
    assert_eq!(post(&sandbox, &path, &json!({}), None).await.status(), 403);
    let function = json!({"FunctionName": "f", "StatementId": "b", "Action": "lambda:InvokeFunction", "Principal": "*",
        "InvokedViaFunctionUrl": true});
    sandbox.call("lambda", "AddPermission", function).unwrap();
    let reply = post(&sandbox, &path, &json!({}), None).await;
    assert_eq!(reply.status(), 200);
    let context = &reply.json()["event"]["requestContext"];
    assert_eq!((&context["accountId"], &context["authorizer"]), (&json!("anonymous"), &Value::Null));
    // Through the API the second statement says nothing.
    let denied: Key = ("denied".into(), "sandbox".into(), None);
    assert_eq!(sandbox.invoke_as(json!({}), &[], &denied).await.status(), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn buffered_answers_are_interpreted() {
    let (sandbox, path) = made("AWS_IAM", "BUFFERED").await;
    let key = admin();
    // An answer without a status is the body itself.
    let plain = post(&sandbox, &path, &json!({"do": "sleep", "ms": 0}), Some(&key)).await;
    assert_eq!((plain.status(), plain.text().as_str()), (200, "\"slept\""));
    assert_eq!(plain.header("content-type"), "application/json");
    for order in ["error", "exit", "large"] {
        let failed = post(&sandbox, &path, &json!({"do": order, "bytes": 7 << 20}), Some(&key)).await;
        assert_eq!((failed.status(), failed.text().as_str()), (502, "Internal Server Error"), "{order}");
    }
    let reserve = json!({"FunctionName": "f", "ReservedConcurrentExecutions": 0});
    sandbox.call("lambda", "PutFunctionConcurrency", reserve).unwrap();
    let throttled = post(&sandbox, &path, &json!({}), Some(&key)).await;
    assert_eq!((throttled.status(), throttled.header("x-amzn-errortype")), (429, "TooManyRequestsException"));
    let large = sandbox.send(&path, &[], &vec![b'x'; (6 << 20) + 1], Some(&key), "lambda").await;
    assert_eq!(large.status(), 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_have_their_metadata_first() {
    let (sandbox, path) = made("AWS_IAM", "RESPONSE_STREAM").await;
    let key = admin();
    let reply = post(&sandbox, &path, &json!({"do": "stream", "chunks": 3, "size": 1000}), Some(&key)).await;
    assert_eq!((reply.status(), reply.header("content-type")), (201, "image/png"));
    let cookies: Vec<_> = reply.0.headers().get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert_eq!(reply.text(), "p".repeat(3000));
    // What is not streamed comes as it is.
    let whole = post(&sandbox, &path, &json!({"do": "sleep", "ms": 0}), Some(&key)).await;
    assert_eq!((whole.status(), whole.text().as_str()), (200, "\"slept\""));
    // A stream that the function ended with an error has no end.
    let cut = sandbox.try_post(&path, &json!({"do": "stream", "trailer": "error"}), &key).await;
    assert!(cut.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_six_megabytes_a_stream_is_slow() {
    let (sandbox, path) = made("AWS_IAM", "RESPONSE_STREAM").await;
    let started = std::time::Instant::now();
    let order = json!({"do": "stream", "chunks": 7, "size": 1 << 20});
    let reply = post(&sandbox, &path, &order, Some(&admin())).await;
    assert_eq!(reply.0.body().len(), 7 << 20);
    // One megabyte over, at two a second.
    assert!(started.elapsed().as_millis() >= 500, "{:?}", started.elapsed());
}
