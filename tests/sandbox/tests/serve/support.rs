//! A sandbox, and clients for it.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{HeaderMap, Request, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use comfy_sandbox::s3::state::{Extent, Version};
use comfy_sandbox::sagemaker::{Comfyui, Serving};
use comfy_sandbox::server::{Options, Running, start, start_serving};
use comfy_sandbox::wire::sigv4;
use comfy_sandbox::world::{Ctx, now_ms};
use http_body_util::Full;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::child;

pub const REGION: &str = "eu-west-1";
/// Longer than anything takes on a busy machine; nothing waits for it to pass.
pub const LONG: Duration = Duration::from_secs(60);

pub struct Sandbox {
    pub running: Running,
    pub dir: TempDir,
}

/// Access key id, secret and session token.
pub type Key = (String, String, Option<String>);

pub fn admin() -> Key {
    ("sandbox".into(), "sandbox".into(), None)
}

impl Sandbox {
    pub async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        Sandbox { running: start(options(&dir)).await.unwrap(), dir }
    }

    /// With endpoints that run.
    pub async fn serving(change: impl FnOnce(&mut Serving)) -> Self {
        let dir = TempDir::new().unwrap();
        let binary = dir.path().join("comfy-serve");
        std::fs::write(&binary, child::script()).unwrap();
        std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut serving = serving(binary);
        change(&mut serving);
        Sandbox { running: start_serving(options(&dir), serving).await.unwrap(), dir }
    }

    pub fn call(&self, service: &str, operation: &str, input: Value) -> Result<Value, String> {
        let mut world = self.running.shared.world.lock();
        let ctx = Ctx { region: REGION.into(), request_id: "r".into(), now: now_ms() };
        world.tick(ctx.now);
        comfy_sandbox::world::call(&mut world, &ctx, service, operation, &input)
            .map_err(|e| format!("{}: {}", e.code, e.message))
    }

    pub fn role(&self, name: &str, service: &str, statements: Value) -> String {
        let principal = json!({"Service": service, "AWS": "arn:aws:iam::123456789012:root"});
        let trust = json!({"Statement": {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}});
        let input = json!({"RoleName": name, "AssumeRolePolicyDocument": trust.to_string()});
        let made = self.call("iam", "CreateRole", input).unwrap();
        let document = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
        let policy = json!({"RoleName": name, "PolicyName": "p", "PolicyDocument": document});
        self.call("iam", "PutRolePolicy", policy).unwrap();
        made["Role"]["Arn"].as_str().unwrap().to_owned()
    }

    pub fn assume(&self, role: &str) -> Key {
        let made = self.call("sts", "AssumeRole", json!({"RoleArn": role, "RoleSessionName": "test"})).unwrap();
        let text = |name: &str| made["Credentials"][name].as_str().unwrap().to_owned();
        (text("AccessKeyId"), text("SecretAccessKey"), Some(text("SessionToken")))
    }

    /// Function `f` from this zip file, with a role that may write logs.
    pub async fn function(&self, zip: &[u8], settings: Value) {
        let logs =
            json!([{"Effect": "Allow", "Action": ["logs:CreateLogStream", "logs:PutLogEvents"], "Resource": "*"}]);
        let mut input = json!({
            "FunctionName": "f", "Runtime": "provided.al2023", "Handler": "bootstrap", "Timeout": 60,
            "Role": self.role("f", "lambda.amazonaws.com", logs), "Code": {"ZipFile": STANDARD.encode(zip)},
            "Architectures": [if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }],
        });
        for (name, value) in settings.as_object().into_iter().flatten() {
            input[name] = value.clone();
        }
        self.call("lambda", "CreateFunction", input).unwrap();
        self.active().await;
    }

    /// Waits until the function can be called and changed.
    pub async fn active(&self) {
        until(|| {
            let shown = self.call("lambda", "GetFunctionConfiguration", json!({"FunctionName": "f"})).unwrap();
            (shown["State"] == "Active" && shown["LastUpdateStatus"] == "Successful").then_some(())
        })
        .await;
    }

    /// A request to the sandbox, signed unless it brings no key.
    pub async fn send(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        key: Option<&Key>,
        service: &str,
    ) -> Reply {
        self.send_at(path, headers, body, key, (service, REGION, now_ms())).await
    }

    pub async fn send_at(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        key: Option<&Key>,
        (service, region, at): (&str, &str, i64),
    ) -> Reply {
        let mut request = Request::post(path).header("host", self.running.addr.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        if let Some(key) = key {
            let (parts, body_) = request.into_parts();
            request = Request::from_parts(sign(parts, body, key, service, region, at), body_);
        }
        Reply(comfy_sandbox::http::send(self.running.addr, request, 64 << 20).await.unwrap())
    }

    pub async fn invoke(&self, event: Value) -> Reply {
        self.invoke_as(event, &[("x-amz-log-type", "Tail")], &admin()).await
    }

    pub async fn invoke_as(&self, event: Value, headers: &[(&str, &str)], key: &Key) -> Reply {
        let path = "/2015-03-31/functions/f/invocations";
        self.send(path, headers, event.to_string().as_bytes(), Some(key), "lambda").await
    }

    /// Puts an object into bucket `models`, as S3 keeps it.
    pub fn object(&self, key: &str, bytes: &[u8]) {
        let file = format!("test-{}", key.replace('/', "-"));
        let blobs = self.dir.path().join("state/s3");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join(&file), bytes).unwrap();
        let len = bytes.len() as u64;
        let version = Version {
            etag: hex::encode(Sha256::digest(bytes)),
            size: len,
            extents: vec![Extent { file, offset: 0, len }],
            ..Version::default()
        };
        let mut world = self.running.shared.world.lock();
        let bucket = world.s3.buckets.entry("models".into()).or_default();
        bucket.objects.insert(key.into(), vec![version]);
    }

    /// The lines of a log group.
    pub fn lines(&self, group: &str) -> Vec<String> {
        let found = self.call("logs", "FilterLogEvents", json!({"logGroupName": group})).unwrap_or_default();
        let events = found["events"].as_array().cloned().unwrap_or_default();
        events.iter().map(|e| e["message"].as_str().unwrap().to_owned()).collect()
    }
}

fn options(dir: &TempDir) -> Options {
    Options { listen: "127.0.0.1:0".parse().unwrap(), dir: dir.path().join("state"), time_scale: 0.001 }
}

/// Waits for something that happens by itself.
pub async fn until<T>(mut what: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(started.elapsed() < LONG, "it does not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether a process still runs.
pub fn alive(pid: u64) -> bool {
    // A zombie is dead too.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "))
}

pub fn sign(
    mut parts: axum::http::request::Parts,
    body: &[u8],
    (key, secret, token): &Key,
    service: &str,
    region: &str,
    at: i64,
) -> axum::http::request::Parts {
    let stamp = jiff::Timestamp::from_millisecond(at).unwrap().strftime("%Y%m%dT%H%M%SZ").to_string();
    let mut signed = String::from("host;x-amz-date");
    parts.headers.insert("x-amz-date", stamp.parse().unwrap());
    if let Some(token) = token {
        parts.headers.insert("x-amz-security-token", token.parse().unwrap());
        signed.push_str(";x-amz-security-token");
    }
    let authorization = |signature: &str| {
        format!(
            "AWS4-HMAC-SHA256 Credential={key}/{}/{region}/{service}/aws4_request, SignedHeaders={signed}, \
             Signature={signature}",
            &stamp[..8]
        )
    };
    let mut headers = HeaderMap::new();
    headers.insert("authorization", authorization("x").parse().unwrap());
    let claim = sigv4::claim(&headers).unwrap().unwrap();
    let signature = sigv4::signature(&claim, &parts, &stamp, &hex::encode(Sha256::digest(body)), secret);
    parts.headers.insert("authorization", authorization(&signature).parse().unwrap());
    parts
}

pub struct Reply(pub Response<Bytes>);

impl Reply {
    pub fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    pub fn header(&self, name: &str) -> &str {
        self.0.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.0.body()).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(self.0.body()).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// What the function's own JSON answer holds in its body.
    pub fn told(&self) -> Value {
        serde_json::from_str(self.json()["body"].as_str().unwrap_or_else(|| panic!("{}", self.text()))).unwrap()
    }

    /// The tail of the log.
    pub fn log(&self) -> String {
        String::from_utf8(STANDARD.decode(self.header("x-amz-log-result")).unwrap()).unwrap()
    }
}

/// A zip file with one file.
pub fn zip(name: &str, bytes: &[u8], mode: u32) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().unix_permissions(mode);
    writer.start_file(name, options).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap().into_inner()
}

/// The package whose bootstrap is this binary.
pub fn package() -> Vec<u8> {
    zip("bootstrap", child::script().as_bytes(), 0o755)
}

pub fn address(url: &str) -> (SocketAddr, String) {
    let rest = url.strip_prefix("http://").unwrap();
    let (address, path) = rest.split_once('/').unwrap();
    (address.parse().unwrap(), format!("/{path}"))
}

impl Sandbox {
    /// To the sandbox under another host name.
    pub async fn send_to(
        &self,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        key: Option<&Key>,
    ) -> Reply {
        let mut request = Request::post(path).header("host", host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, sent) = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap().into_parts();
        if let Some(key) = key {
            parts = sign(parts, body, key, "lambda", REGION, now_ms());
        }
        let request = Request::from_parts(parts, sent);
        Reply(comfy_sandbox::http::send(self.running.addr, request, 64 << 20).await.unwrap())
    }

    /// Signed with one body, sent with another.
    pub async fn send_with_other_body(&self, path: &str, key: &Key) -> Reply {
        let request = Request::post(path).header("host", self.running.addr.to_string());
        let (parts, _) = request.body(()).unwrap().into_parts();
        let parts = sign(parts, b"{}", key, "lambda", REGION, now_ms());
        let request = Request::from_parts(parts, Full::new(Bytes::from_static(b"{ }")));
        Reply(comfy_sandbox::http::send(self.running.addr, request, 64 << 20).await.unwrap())
    }

    /// A signed request whose answer may be cut.
    pub async fn try_post(&self, path: &str, body: &Value, key: &Key) -> Result<Reply, comfy_sandbox::http::Error> {
        let text = body.to_string();
        let request = Request::post(path)
            .header("host", self.running.addr.to_string())
            .header("content-type", "application/json");
        let (parts, sent) = request.body(Full::new(Bytes::from(text.clone()))).unwrap().into_parts();
        let parts = sign(parts, text.as_bytes(), key, "lambda", REGION, now_ms());
        comfy_sandbox::http::send(self.running.addr, Request::from_parts(parts, sent), 64 << 20).await.map(Reply)
    }
}

impl Sandbox {
    /// Another one on the state of one that stopped.
    pub async fn again(dir: TempDir) -> Self {
        Self::again_with(dir, |_| {}).await
    }

    pub async fn again_with(dir: TempDir, change: impl FnOnce(&mut Serving)) -> Self {
        let mut serving = serving(dir.path().join("comfy-serve"));
        change(&mut serving);
        Sandbox { running: start_serving(options(&dir), serving).await.unwrap(), dir }
    }
}

fn serving(comfy_serve: PathBuf) -> Serving {
    let comfyui = Comfyui::Command(vec!["comfyui".into(), "--own".into()]);
    Serving { containers: Arc::default(), comfy_serve, comfyui, startup: None, invocation: None }
}

/// Makes an endpoint without a model in a sandbox that is another process.
pub async fn endpoint_over_the_wire(to: SocketAddr) {
    let call = async |service: &str, target: Option<&str>, body: String| {
        let mut request = Request::post("/").header("host", to.to_string()).header(
            "authorization",
            format!("AWS4-HMAC-SHA256 Credential=sandbox/20260101/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=x"),
        );
        request = match target {
            Some(target) => request.header("x-amz-target", target).header("content-type", "application/x-amz-json-1.1"),
            None => request.header("content-type", "application/x-www-form-urlencoded"),
        };
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let reply = Reply(comfy_sandbox::http::send(to, request, 1 << 20).await.unwrap());
        assert_eq!(reply.status(), 200, "{}", reply.text());
    };
    let trust = r#"{"Statement":{"Effect":"Allow","Principal":{"Service":"sagemaker.amazonaws.com"},"Action":"sts:AssumeRole"}}"#;
    let form = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("Action", "CreateRole"), ("Version", "2010-05-08"), ("RoleName", "exec")])
        .append_pair("AssumeRolePolicyDocument", trust)
        .finish();
    call("iam", None, form).await;
    let image = "763104351884.dkr.ecr.eu-west-1.amazonaws.com/app:1";
    let variant =
        json!({"VariantName": "V", "ModelName": "m", "InstanceType": "ml.g5.xlarge", "InitialInstanceCount": 1});
    for (operation, input) in [
        (
            "CreateModel",
            json!({"ModelName": "m", "ExecutionRoleArn": "arn:aws:iam::123456789012:role/exec",
                "PrimaryContainer": {"Image": image}}),
        ),
        ("CreateEndpointConfig", json!({"EndpointConfigName": "c", "ProductionVariants": [variant]})),
        ("CreateEndpoint", json!({"EndpointName": "e", "EndpointConfigName": "c"})),
    ] {
        call("sagemaker", Some(&format!("SageMaker.{operation}")), input.to_string()).await;
    }
}
