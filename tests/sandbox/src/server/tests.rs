//! The running server over its port.

use std::path::Path;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

async fn run(dir: &Path) -> Running {
    let listen = "127.0.0.1:0".parse().unwrap();
    start(Options { listen, dir: dir.to_owned(), time_scale: 0.001 }).await.unwrap()
}

/// Status and body of one request.
async fn http(addr: SocketAddr, head: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request =
        format!("{head}\r\nhost: {addr}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn signed(key: &str, service: &str) -> String {
    format!(
        "authorization: AWS4-HMAC-SHA256 Credential={key}/20260101/eu-west-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
    )
}

async fn query(addr: SocketAddr, key: &str, service: &str, body: &str) -> (u16, String) {
    let head =
        format!("POST / HTTP/1.1\r\ncontent-type: application/x-www-form-urlencoded\r\n{}", signed(key, service));
    http(addr, &head, body).await
}

async fn target(addr: SocketAddr, key: &str, target: &str, body: Value) -> (u16, Value) {
    let head = format!("POST / HTTP/1.1\r\nx-amz-target: {target}\r\n{}", signed(key, "sagemaker"));
    let (status, body) = http(addr, &head, &body.to_string()).await;
    (status, serde_json::from_str(&body).unwrap_or_default())
}

#[tokio::test]
async fn only_loopback_and_sane_scales() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        |listen: &str, time_scale| Options { listen: listen.parse().unwrap(), dir: dir.path().to_owned(), time_scale };
    assert!(matches!(start(options("0.0.0.0:0", 1.0)).await, Err(StartError::NotLoopback(_))));
    for scale in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(start(options("127.0.0.1:0", scale)).await, Err(StartError::TimeScale(_))));
    }
    start(options("[::1]:0", 1.0)).await.map_or_else(|error| assert!(matches!(error, StartError::Listen(..))), drop);
}

#[tokio::test]
async fn what_is_made_survives_a_restart_and_regions_are_apart() {
    let dir = tempfile::tempdir().unwrap();
    let first = run(dir.path()).await;
    let trust = "%7B%22Statement%22%3A%7B%22Effect%22%3A%22Allow%22%2C%22Principal%22%3A%22*%22%2C%22Action%22%3A%22sts%3AAssumeRole%22%7D%7D";
    let body = format!("Action=CreateRole&Version=2010-05-08&RoleName=r&AssumeRolePolicyDocument={trust}");
    let (status, text) = query(first.addr, "sandbox", "iam", &body).await;
    assert_eq!(status, 200, "{text}");
    first.stop().await.unwrap();
    let second = run(dir.path()).await;
    let (status, text) = query(second.addr, "sandbox", "iam", "Action=GetRole&Version=2010-05-08&RoleName=r").await;
    assert!(status == 200 && text.contains("<Arn>arn:aws:iam::123456789012:role/r</Arn>"), "{text}");
    second.stop().await.unwrap();
}

#[tokio::test]
async fn credentials_are_refused_in_the_words_of_the_protocol() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path()).await;
    for (key, status, code) in [
        ("AKIDREAL", 400, "UnrecognizedClientException"),
        ("expired", 400, "ExpiredTokenException"),
        ("denied", 400, "AccessDeniedException"),
    ] {
        let (got, body) = target(running.addr, key, "SageMaker.ListModels", json!({})).await;
        assert_eq!((got, body["__type"].as_str()), (status, Some(code)));
    }
    let (status, text) = query(running.addr, "AKIDREAL", "sts", "Action=GetCallerIdentity&Version=2011-06-15").await;
    assert!(status == 403 && text.contains("<Code>InvalidClientTokenId</Code>"), "{text}");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn faults_are_used_up_and_calls_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path()).await;
    let fault = r#"[{"kind":"throttle","service":"sagemaker","operation":"ListModels","times":2}]"#;
    assert_eq!(http(running.addr, "POST /_sandbox/faults HTTP/1.1", fault).await.0, 204);
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(target(running.addr, "sandbox", "SageMaker.ListModels", json!({})).await.0);
    }
    assert_eq!(statuses, [400, 400, 200]);
    let (_, calls) = http(running.addr, "GET /_sandbox/calls HTTP/1.1", "").await;
    assert_eq!(calls, r#"{"sagemaker:ListModels":3}"#);
    http(running.addr, "DELETE /_sandbox/calls HTTP/1.1", "").await;
    assert_eq!(http(running.addr, "GET /_sandbox/calls HTTP/1.1", "").await.1, "{}");
    assert_eq!(http(running.addr, "POST /_sandbox/faults HTTP/1.1", r#"[{"kind":"flood"}]"#).await.0, 400);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn quotas_are_set_and_health_tells_where() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path()).await;
    let quota = r#"{"region":"eu-west-1","quotas":{"ml.g5.xlarge":1}}"#;
    assert_eq!(http(running.addr, "POST /_sandbox/quotas HTTP/1.1", quota).await.0, 204);
    assert_eq!(quotas::endpoint_limit(&running.shared.world.lock(), "eu-west-1", "ml.g5.xlarge"), 1);
    assert_eq!(http(running.addr, "POST /_sandbox/quotas HTTP/1.1", "[1]").await.0, 400);
    let (_, health) = http(running.addr, "GET /_sandbox/health HTTP/1.1", "").await;
    let health: Value = serde_json::from_str(&health).unwrap();
    assert_eq!((&health["account"], &health["state"]), (&json!("123456789012"), &json!(dir.path())));
    running.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path()).await;
    let (status, body) = target(running.addr, "sandbox", "SageMaker.CreateUniverse", json!({})).await;
    assert_eq!((status, body["__type"].as_str()), (400, Some("UnknownOperationException")));
    let (_, body) = target(running.addr, "sandbox", "SageMaker.DescribeModel", json!({"ModelName": 1})).await;
    assert_eq!(body["__type"], "SerializationException");
    let head = format!("POST / HTTP/1.1\r\nx-amz-target: SageMaker.ListModels\r\n{}", signed("sandbox", "sagemaker"));
    let (status, body) = http(running.addr, &head, "{").await;
    assert!(status == 400 && body.contains("SerializationException"), "{body}");
    let (status, _) = http(running.addr, "POST / HTTP/1.1\r\nx-amz-target: SageMaker.ListModels", "{}").await;
    assert_eq!(status, 403);
    running.stop().await.unwrap();
}
