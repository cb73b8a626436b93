//! The server as a program, in front of a ComfyUI: the stand-in, or a real one where somebody has one.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, Method, Request, StatusCode};
use bytes::Bytes;
use comfyui_stand_in::{Options, StandIn};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Directory of a real ComfyUI, and its Python. Set by `tests/run --comfyui DIR --python PY`.
const REAL: [&str; 2] = ["COMFY_SERVE_TEST_COMFYUI", "COMFY_SERVE_TEST_PYTHON"];

/// A ComfyUI with directories of its own.
pub struct Comfyui {
    kind: Kind,
    directory: tempfile::TempDir,
}

enum Kind {
    StandIn(Arc<StandIn>),
    Real { process: Mutex<std::process::Child>, port: u16 },
}

impl Comfyui {
    /// Starts one, and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same with options, which only the stand-in takes.
    pub async fn start_with(change: impl FnOnce(&mut Options)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(path("input")).expect("made");
        let kind = match REAL.map(|name| std::env::var(name).ok()) {
            [Some(comfyui), Some(python)] => {
                let port = free_port();
                let process = Mutex::new(spawn_real(&comfyui, &python, port, directory.path()));
                Kind::Real { process, port }
            }
            _ => {
                let mut options = Options {
                    output: Some(path("output")),
                    temp: Some(path("temp")),
                    input: Some(path("input")),
                    ..Options::default()
                };
                change(&mut options);
                Kind::StandIn(Arc::new(StandIn::start(options).expect("starts")))
            }
        };
        let comfyui = Comfyui { kind, directory };
        comfyui.answering().await;
        comfyui
    }

    async fn answering(&self) {
        let answers = async || get(&format!("{}/prompt", self.url())).await.is_some();
        // A real one imports for a while.
        let waits = if self.stand_in().is_some() { 1 } else { 6 };
        for _ in 0..waits {
            if soon(answers).await {
                return;
            }
        }
        panic!("ComfyUI does not start");
    }

    pub fn url(&self) -> String {
        match &self.kind {
            Kind::StandIn(stand_in) => stand_in.url(),
            Kind::Real { port, .. } => format!("http://127.0.0.1:{port}"),
        }
    }

    /// For what only the stand-in can tell or do.
    pub fn stand_in(&self) -> Option<&StandIn> {
        match &self.kind {
            Kind::StandIn(stand_in) => Some(stand_in),
            Kind::Real { .. } => None,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Nothing of it runs any more until it is thawed.
    pub fn freeze(&self) {
        match &self.kind {
            Kind::StandIn(stand_in) => stand_in.freeze(),
            Kind::Real { process, .. } => signal(process.lock().expect("lock").id(), "STOP"),
        }
    }

    pub fn thaw(&self) {
        match &self.kind {
            Kind::StandIn(stand_in) => stand_in.thaw(),
            Kind::Real { process, .. } => signal(process.lock().expect("lock").id(), "CONT"),
        }
    }

    /// As SIGKILL does.
    pub fn kill(&self) {
        match &self.kind {
            Kind::StandIn(stand_in) => stand_in.kill(),
            Kind::Real { process, .. } => {
                let mut process = process.lock().expect("lock");
                process.kill().expect("killed");
                process.wait().expect("ends");
            }
        }
    }

    /// Again on the same port, killed before.
    pub async fn restart(&self) {
        match &self.kind {
            Kind::StandIn(stand_in) => {
                // The port may still have connections that are being closed.
                assert!(soon(async || stand_in.restart().is_ok()).await, "it does not start again");
            }
            Kind::Real { process, port } => {
                self.kill();
                let [comfyui, python] = REAL.map(|name| std::env::var(name).expect("set"));
                *process.lock().expect("lock") = spawn_real(&comfyui, &python, *port, self.directory.path());
            }
        }
        self.answering().await;
    }

    /// How many jobs wait or run.
    pub async fn remaining(&self) -> u64 {
        let queue = get(&format!("{}/prompt", self.url())).await.expect("ComfyUI answers");
        queue["exec_info"]["queue_remaining"].as_u64().expect("a number")
    }

    /// How many history entries there are.
    pub async fn history(&self) -> usize {
        let history = get(&format!("{}/history", self.url())).await.expect("ComfyUI answers");
        history.as_object().expect("an object").len()
    }

    /// Every file that jobs left.
    pub fn left_files(&self) -> Vec<PathBuf> {
        ["output", "temp", "input"].iter().flat_map(|name| files(&self.path(name))).collect()
    }

    /// Nothing is left of any job: no entry, no file, nothing in the queue.
    pub async fn clean(&self) -> bool {
        soon(async || self.remaining().await == 0 && self.history().await == 0 && self.left_files().is_empty()).await
    }

    /// Posts to ComfyUI itself.
    pub async fn post(&self, path: &str, body: &Value) -> (StatusCode, Bytes) {
        let answer = try_send(Method::POST, &format!("{}{path}", self.url()), &[], body.to_string()).await;
        let answer = answer.expect("ComfyUI answers");
        (answer.status, answer.body)
    }

    /// What tells the server about this one.
    pub fn args(&self) -> Vec<String> {
        let path = |name: &str| self.path(name).display().to_string();
        let root = self.directory.path().display().to_string();
        [
            ["--no-spawn".into(), format!("--comfyui-url={}", self.url())],
            ["--output-dir".into(), path("output")],
            ["--temp-dir".into(), root],
            ["--input-dir".into(), path("input")],
        ]
        .concat()
    }
}

impl Drop for Comfyui {
    fn drop(&mut self) {
        if let Kind::Real { process, .. } = &self.kind {
            let mut process = process.lock().expect("lock");
            // A frozen one is killed too.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn spawn_real(comfyui: &str, python: &str, port: u16, directory: &Path) -> std::process::Child {
    let nodes = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/comfyui/custom_nodes");
    let paths = directory.join("extra_model_paths.yaml");
    std::fs::write(&paths, format!("tests:\n  custom_nodes: {nodes}\n")).expect("written");
    let directory_args = ["output", "temp", "input", "user"].map(|name| {
        // ComfyUI makes a directory `temp` in the one that it is given.
        let path = if name == "temp" { directory.to_owned() } else { directory.join(name) };
        std::fs::create_dir_all(&path).expect("made");
        [format!("--{name}-directory"), path.display().to_string()]
    });
    std::process::Command::new(python)
        .arg("main.py")
        .current_dir(comfyui)
        .args(["--cpu", "--disable-auto-launch", "--disable-api-nodes", "--listen", "127.0.0.1"])
        .args(["--database-url", "sqlite:///:memory:", "--port", &port.to_string()])
        .arg("--extra-model-paths-config")
        .arg(paths)
        .args(directory_args.concat())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("Python starts")
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port()
}

pub fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.flat_map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { vec![entry.path()] }).collect()
}

pub fn signal(pid: u32, name: &str) {
    let status = std::process::Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(status.expect("kill runs").success(), "no process {pid}");
}

/// Repeats a question until it is answered with yes; at most 20 s.
pub async fn soon(mut question: impl AsyncFnMut() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        if question().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

/// The program.
pub struct Server {
    pub child: Child,
    pub address: String,
    pub log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// In front of a ComfyUI, with more arguments; returns when it listens.
    pub async fn start(comfyui: &Comfyui, args: &[&str]) -> Self {
        let mut all = comfyui.args();
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        Self::run(&all, &[]).await
    }

    /// The same, and returns when /ping says 200.
    pub async fn ready(comfyui: &Comfyui, args: &[&str]) -> Self {
        let server = Self::start(comfyui, args).await;
        assert!(soon(async || server.ping().await == 200).await, "it does not become ready: {:?}", server.lines());
        server
    }

    /// With these arguments and variables alone.
    pub async fn run(args: &[String], variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_comfy-serve"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut address = None;
        while address.is_none() {
            let line = lines.next_line().await.expect("readable").expect("it ended without listening");
            address = line.split_once("listening on ").map(|(_, rest)| rest.split('"').next().expect("one").to_owned());
            log.lock().expect("lock").push(line);
        }
        let lines_of = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                lines_of.lock().expect("lock").push(line);
            }
        });
        Server { child, address: address.expect("found"), log }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn lines(&self) -> Vec<String> {
        self.log.lock().expect("lock").clone()
    }

    /// The log lines of requests.
    pub fn requests(&self) -> Vec<Value> {
        let lines = self.lines().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        lines.filter(|line| line["message"] == "request").collect()
    }

    pub async fn ping(&self) -> u16 {
        send(Method::GET, &self.url("/ping"), &[], "").await.status.as_u16()
    }

    pub async fn invoke(&self, accept: Option<&str>, body: &Value) -> Answer {
        let headers: Vec<(&str, &str)> = accept.map(|accept| ("accept", accept)).into_iter().collect();
        self.post(&headers, body.to_string()).await
    }

    pub async fn post(&self, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        send(Method::POST, &self.url("/invocations"), headers, body).await
    }

    pub fn terminate(&self) {
        signal(self.child.id().expect("it runs"), "TERM");
    }
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn content_type(&self) -> &str {
        self.header("content-type")
    }

    /// One of the custom attributes.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let attributes = self.header("x-amzn-sagemaker-custom-attributes").split(';');
        attributes.filter_map(|pair| pair.split_once('=')).find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The error: every one must be such JSON, small enough for SageMaker.
    pub fn error(&self) -> Value {
        assert_eq!(self.content_type(), "application/json");
        assert!(self.body.len() <= 2048, "SageMaker would cut it");
        let body: Value = serde_json::from_slice(&self.body).expect("JSON");
        let keys: Vec<&String> = body["error"].as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["code", "message", "node_id", "node_class", "details"]);
        body["error"].clone()
    }

    /// Status and code of an error.
    pub fn failure(&self) -> (u16, String) {
        (self.status.as_u16(), self.error()["code"].as_str().expect("a code").to_owned())
    }

    pub fn picture(&self) -> image::DynamicImage {
        assert_eq!(self.status, StatusCode::OK, "{}", String::from_utf8_lossy(&self.body));
        image::load_from_memory(&self.body).expect("a picture")
    }
}

fn client() -> Client<HttpConnector, Full<Bytes>> {
    // Not kept: a runtime of another test may be gone.
    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http()
}

pub async fn try_send(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Answer, String> {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).map_err(|cause| cause.to_string())?;
    let response = client().request(request).await.map_err(|cause| cause.to_string())?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|cause| cause.to_string())?.to_bytes();
    Ok(Answer { status: head.status, headers: head.headers, body })
}

pub async fn send(method: Method, url: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    try_send(method, url, headers, body).await.expect("an answer")
}

/// JSON from a URL; none without a good answer.
pub async fn get(url: &str) -> Option<Value> {
    let answer = tokio::time::timeout(Duration::from_secs(2), try_send(Method::GET, url, &[], "")).await.ok()?.ok()?;
    serde_json::from_slice(&answer.body).ok().filter(|_| answer.status.is_success())
}

/// A client that goes away while it waits; false when it was answered before.
pub async fn abandon(server: &Server, body: &Value, after: Duration) -> bool {
    let url = server.url("/invocations");
    let sent = try_send(Method::POST, &url, &[], body.to_string());
    tokio::time::timeout(after, sent).await.is_err()
}

/// A flat picture that is saved.
pub fn flat(color: u32) -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": color}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "ComfyUI"}},
    })
}

/// The same, after a while.
pub fn slow(color: u32, seconds: f64) -> Value {
    let mut workflow = flat(color);
    workflow["2"] = json!({"class_type": "TestSleep", "inputs": {"image": ["1", 0], "seconds": seconds,
        "steps": 20, "previews": false, "seed": color}});
    workflow["9"]["inputs"]["images"] = json!(["2", 0]);
    workflow
}

/// A picture's colour in the middle.
pub fn color(picture: &image::DynamicImage) -> [u8; 3] {
    let picture = picture.to_rgb8();
    picture.get_pixel(picture.width() / 2, picture.height() / 2).0
}

/// As EmptyImage takes it.
pub fn number([r, g, b]: [u8; 3]) -> u32 {
    u32::from_be_bytes([0, r, g, b])
}
