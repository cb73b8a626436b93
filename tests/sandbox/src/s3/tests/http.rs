//! Rules of the protocol, with requests signed here.

use axum::body::Body;
use axum::http::{HeaderMap, Request};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::s3::checksums::{Algorithm, Hasher};
use crate::world::{ACCOUNT, KEY};

pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Status, and the code of an error.
    fn code(&self) -> (u16, String) {
        let text = self.text();
        let code = text.split_once("<Code>").and_then(|(_, t)| t.split_once("</Code>")).map_or("", |(c, _)| c);
        (self.status, code.to_owned())
    }
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        for (b, k) in block.iter_mut().zip(key) {
            *b ^= k;
        }
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

/// A request with Signature Version 4.
struct Signed<'a> {
    region: &'a str,
    host: &'a str,
    secret: &'a str,
    key: &'a str,
}

const US: Signed<'static> = Signed { region: "us-east-1", host: "127.0.0.1:4599", secret: KEY, key: KEY };

impl Signed<'_> {
    async fn send(&self, sandbox: &Sandbox, method: &str, target: &str, more: &[(&str, &str)], body: &[u8]) -> Reply {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let now = jiff::Timestamp::now();
        let (date, time) = (now.strftime("%Y%m%d").to_string(), now.strftime("%Y%m%dT%H%M%SZ").to_string());
        let hash = hex::encode(Sha256::digest(body));
        let mut headers: Vec<(&str, &str)> = vec![("host", self.host), ("x-amz-date", &time)];
        if !more.iter().any(|(name, _)| *name == "x-amz-content-sha256") {
            headers.push(("x-amz-content-sha256", &hash));
        }
        headers.extend_from_slice(more);
        headers.sort_unstable();
        let payload = headers.iter().find(|(name, _)| *name == "x-amz-content-sha256").map_or("", |(_, v)| v);
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let canonical_query =
            query.split('&').map(|p| if p.is_empty() || p.contains('=') { p.to_owned() } else { format!("{p}=") });
        let canonical =
            format!("{method}\n{path}\n{}\n{lines}\n{names}\n{payload}", canonical_query.collect::<Vec<_>>().join("&"));
        let scope = format!("{date}/{}/s3/aws4_request", self.region);
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex::encode(Sha256::digest(canonical)));
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for step in [date.as_str(), self.region, "s3", "aws4_request"] {
            key = hmac(&key, step);
        }
        let signature = hex::encode(hmac(&key, &text));
        let mut request = Request::builder().method(method).uri(target).header("content-length", body.len());
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", self.key);
        let request =
            request.header("authorization", authorization).body(Body::from(body.to_vec())).expect("a request");
        let response = handle(Arc::clone(&sandbox.shared), request).await;
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body").to_vec();
        Reply { status: parts.status.as_u16(), headers: parts.headers, body }
    }
}

pub async fn send(sandbox: &Sandbox, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    US.send(sandbox, method, target, headers, body).await
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

type Tested = std::io::Result<()>;

#[tokio::test]
async fn signature() -> Tested {
    let sandbox = Sandbox::with_bucket()?;
    assert_eq!(send(&sandbox, "GET", "/", &[], b"").await.status, 200);
    let bad = Signed { secret: "other", ..US }.send(&sandbox, "GET", "/", &[], b"").await;
    assert_eq!(bad.code(), refused(403, "SignatureDoesNotMatch"));
    let bad = Signed { key: "other", ..US }.send(&sandbox, "GET", "/", &[], b"").await;
    assert_eq!(bad.code(), refused(403, "InvalidAccessKeyId"));
    let other = hex::encode(Sha256::digest("other"));
    let bad = send(&sandbox, "PUT", "/bucket/key", &[("x-amz-content-sha256", &other)], b"body").await;
    assert_eq!(bad.code(), refused(400, "XAmzContentSHA256Mismatch"));
    assert_eq!(exists(&sandbox.shared.world.lock(), "bucket", "key"), None);
    Ok(())
}

#[tokio::test]
async fn session() -> Tested {
    let sandbox = Sandbox::with_bucket()?;
    let now = crate::world::now_ms();
    let session = {
        let mut world = sandbox.shared.world.lock();
        let mut iam = |operation: &str, input: Value| {
            let ctx = Ctx { region: "us-east-1".into(), request_id: "t".into(), now };
            crate::world::call(&mut world, &ctx, "iam", operation, &input).map_err(|e| std::io::Error::other(e.message))
        };
        let trust = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
            "Principal": {"AWS": format!("arn:aws:iam::{ACCOUNT}:root")}, "Action": "sts:AssumeRole"}]});
        let role = iam("CreateRole", json!({"RoleName": "writer", "AssumeRolePolicyDocument": trust.to_string()}))?;
        let policy = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "*"}]});
        iam("PutRolePolicy", json!({"RoleName": "writer", "PolicyName": "p", "PolicyDocument": policy.to_string()}))?;
        let arn = role["Role"]["Arn"].as_str().unwrap_or_default().to_owned();
        crate::iam::identity::assume(&mut world, &arn, "s", now, 60_000).ok_or(std::io::Error::other("no session"))?
    };
    let writer = Signed { key: &session.key, secret: &session.secret, ..US };
    assert_eq!(writer.send(&sandbox, "PUT", "/bucket/key", &[], b"body").await.status, 200);
    let bad = writer.send(&sandbox, "GET", "/bucket/key", &[], b"").await;
    assert_eq!(bad.code(), refused(403, "AccessDenied"));
    let forged = Signed { secret: "other", ..writer };
    assert_eq!(forged.send(&sandbox, "PUT", "/bucket/key", &[], b"body").await.code().1, "SignatureDoesNotMatch");
    crate::iam::identity::expire(&mut sandbox.shared.world.lock(), crate::world::now_ms());
    let writer = Signed { key: &session.key, secret: &session.secret, ..US };
    let late = writer.send(&sandbox, "PUT", "/bucket/key", &[], b"body").await;
    assert_eq!(late.code(), refused(400, "ExpiredToken"));
    Ok(())
}

#[tokio::test]
async fn wrong_region() -> Tested {
    let sandbox = Sandbox::with_bucket()?;
    let west = Signed { region: "eu-west-1", ..US };
    let reply = west.send(&sandbox, "GET", "/bucket?list-type=2", &[], b"").await;
    assert_eq!(reply.code(), refused(301, "PermanentRedirect"));
    assert_eq!(reply.header("x-amz-bucket-region"), Some("us-east-1"));
    assert_eq!(west.send(&sandbox, "GET", "/bucket?location", &[], b"").await.status, 200);
    let host = Signed { host: "bucket.s3.localhost:4599", ..US };
    assert_eq!(host.send(&sandbox, "GET", "/?list-type=2", &[], b"").await.status, 200);
    Ok(())
}

#[tokio::test]
async fn expected_owner() -> Tested {
    let sandbox = Sandbox::with_bucket()?;
    let expect = |owner| [("x-amz-expected-bucket-owner", owner)];
    let reply = send(&sandbox, "PUT", "/bucket/key", &expect(FOREIGN_ACCOUNT), b"x").await;
    assert_eq!(reply.code(), refused(403, "AccessDenied"));
    assert_eq!(send(&sandbox, "PUT", "/bucket/key", &expect("123456789012"), b"x").await.status, 200);
    let copy = [("x-amz-copy-source", "bucket/key"), ("x-amz-source-expected-bucket-owner", FOREIGN_ACCOUNT)];
    assert_eq!(send(&sandbox, "PUT", "/bucket/copy", &copy, b"").await.code(), refused(403, "AccessDenied"));
    add_foreign_bucket(&mut sandbox.shared.world.lock(), "theirs");
    assert_eq!(send(&sandbox, "GET", "/theirs?list-type=2", &[], b"").await.code(), refused(403, "AccessDenied"));
    assert_eq!(send(&sandbox, "HEAD", "/theirs", &[], b"").await.status, 403);
    Ok(())
}

#[tokio::test]
async fn copy_condition() -> Tested {
    let sandbox = Sandbox::with_bucket()?;
    let tag = send(&sandbox, "PUT", "/bucket/key", &[], b"abcdef").await.header("etag").unwrap_or_default().to_owned();
    let copy =
        |tag: &str| [("x-amz-copy-source", "bucket/key".to_owned()), ("x-amz-copy-source-if-match", tag.to_owned())];
    let wrong = copy("\"0\"");
    let wrong: Vec<_> = wrong.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let reply = send(&sandbox, "PUT", "/bucket/copy", &wrong, b"").await;
    assert_eq!(reply.code(), refused(412, "PreconditionFailed"));
    let right = copy(&tag);
    let right: Vec<_> = right.iter().map(|(n, v)| (*n, v.as_str())).collect();
    assert_eq!(send(&sandbox, "PUT", "/bucket/copy", &right, b"").await.status, 200);
    assert_eq!(read(&sandbox.shared.world.lock(), "bucket", "copy").as_deref(), Some(&b"abcdef"[..]));
    Ok(())
}

/// The body of a chunked upload with a trailing checksum, as SDKs send it.
fn chunked(body: &str, checksum: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\nx-amz-checksum-crc64nvme:{checksum}\r\n\r\n", body.len())
}

#[tokio::test]
async fn trailing_checksums_are_verified() -> Tested {
    let sandbox = Sandbox::with_bucket()?;
    let mut hasher = Hasher::new(false, &[Algorithm::Crc64Nvme]);
    hasher.update(b"hello");
    let sum = hasher.finish().sums.remove(&Algorithm::Crc64Nvme).unwrap_or_default();
    let headers = [
        ("content-encoding", "aws-chunked"),
        ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        ("x-amz-decoded-content-length", "5"),
        ("x-amz-trailer", "x-amz-checksum-crc64nvme"),
    ];
    let bad = send(&sandbox, "PUT", "/bucket/key", &headers, chunked("hello", "AAAAAAAAAAA=").as_bytes()).await;
    assert_eq!(bad.code(), refused(400, "BadDigest"));
    let good = send(&sandbox, "PUT", "/bucket/key", &headers, chunked("hello", &sum).as_bytes()).await;
    assert_eq!((good.status, good.header("x-amz-checksum-crc64nvme")), (200, Some(sum.as_str())), "{}", good.text());
    let reply = send(&sandbox, "GET", "/bucket/key", &[("x-amz-checksum-mode", "ENABLED")], b"").await;
    assert_eq!((reply.text().as_str(), reply.header("content-encoding")), ("hello", None));
    assert_eq!(reply.header("x-amz-checksum-crc64nvme"), Some(sum.as_str()));
    // Nothing of the refused body is left.
    assert_eq!(std::fs::read_dir(directory(&sandbox.shared.dir))?.count(), 1);
    Ok(())
}

#[tokio::test]
async fn bodies_that_do_not_match_are_not_kept() -> Tested {
    let sandbox = Sandbox::with_bucket()?;
    let reply = send(&sandbox, "PUT", "/bucket/key", &[("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==")], b"x").await;
    assert_eq!(reply.code(), refused(400, "BadDigest"));
    let reply = send(&sandbox, "PUT", "/bucket/key", &[("x-amz-checksum-crc32", "AAAAAA==")], b"x").await;
    assert_eq!(reply.code(), refused(400, "BadDigest"));
    let reply = send(&sandbox, "PUT", "/bucket/key", &[("x-amz-checksum-crc32", "short")], b"x").await;
    assert_eq!(reply.code(), refused(400, "InvalidRequest"));
    assert_eq!(std::fs::read_dir(directory(&sandbox.shared.dir)).map_or(0, Iterator::count), 0);
    Ok(())
}

#[tokio::test]
async fn ranges_and_conditions_of_reads() -> Tested {
    let sandbox = Sandbox::with_bucket()?;
    let put = send(&sandbox, "PUT", "/bucket/key", &[], b"0123456789").await;
    let tag = put.header("etag").unwrap_or_default();
    let get = async |headers: &[(&str, &str)]| send(&sandbox, "GET", "/bucket/key", headers, b"").await;
    let reply = get(&[("range", "bytes=2-4")]).await;
    assert_eq!(
        (reply.status, reply.text().as_str(), reply.header("content-range")),
        (206, "234", Some("bytes 2-4/10"))
    );
    assert_eq!(get(&[("range", "bytes=-3")]).await.text(), "789");
    assert_eq!(get(&[("range", "bytes=10-")]).await.code(), refused(416, "InvalidRange"));
    assert_eq!(get(&[("if-none-match", tag)]).await.status, 304);
    assert_eq!(get(&[("if-match", "\"0\"")]).await.code(), refused(412, "PreconditionFailed"));
    assert_eq!(get(&[("if-match", tag)]).await.status, 200);
    assert_eq!(send(&sandbox, "GET", "/bucket/none", &[], b"").await.code(), refused(404, "NoSuchKey"));
    let reply = send(&sandbox, "PUT", "/bucket/key", &[("if-none-match", "*")], b"x").await;
    assert_eq!(reply.code(), refused(412, "PreconditionFailed"));
    Ok(())
}

#[tokio::test]
async fn faults_come_through() -> Tested {
    let sandbox = Sandbox::with_bucket()?;
    sandbox.shared.world.lock().faults =
        serde_json::from_value(json!([{"kind": "throttle", "service": "s3", "operation": "ListBuckets"}]))?;
    assert_eq!(send(&sandbox, "GET", "/", &[], b"").await.code(), refused(503, "SlowDown"));
    assert_eq!(send(&sandbox, "GET", "/", &[], b"").await.status, 200);
    Ok(())
}
