//! A sandbox in this process, an app directory, and the program run on them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use comfy_sandbox::container::{Choice, Containers};
use comfy_sandbox::sagemaker::{Comfyui, Serving};
use comfy_sandbox::server::{Options, Running, start, start_serving};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Where the sandbox of the tests puts everything.
pub const REGION: &str = "eu-west-1";

/// A sandbox that lives as long as the value.
pub struct Sandbox {
    runtime: tokio::runtime::Runtime,
    running: Option<Running>,
    pub url: String,
    _dir: TempDir,
}

impl Sandbox {
    /// A fast one: an endpoint takes about a second.
    pub fn new() -> Self {
        Self::with_time_scale(0.004)
    }

    pub fn with_time_scale(time_scale: f64) -> Self {
        Self::launch(time_scale, None)
    }

    fn launch(time_scale: f64, serving: Option<Serving>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let dir = TempDir::new().unwrap();
        let options = Options { listen: "127.0.0.1:0".parse().unwrap(), dir: dir.path().to_owned(), time_scale };
        let running = match serving {
            Some(serving) => runtime.block_on(start_serving(options, serving)).unwrap(),
            None => runtime.block_on(start(options)).unwrap(),
        };
        let url = running.url();
        Sandbox { runtime, running: Some(running), url, _dir: dir }
    }

    /// One whose endpoints run comfy-serve and the stand-in for ComfyUI.
    pub fn serving() -> Self {
        Self::serving_by(Choice::None)
    }

    /// One whose endpoints run what was pushed.
    pub fn serving_by(engine: Choice) -> Self {
        let comfyui = Comfyui::Command(vec![program("comfyui-stand-in").to_string_lossy().into_owned()]);
        // The real 60 seconds, whatever the time scale makes of them: the machine may be busy.
        let minute = Some(Duration::from_secs(60));
        let comfy_serve = program("comfy-serve");
        let containers = Arc::new(Containers::new(engine));
        Self::launch(0.02, Some(Serving { containers, comfy_serve, comfyui, startup: minute, invocation: minute }))
    }

    /// Goes on at another pace; what is under way keeps its own.
    pub fn set_time_scale(&self, time_scale: f64) {
        self.running.as_ref().unwrap().shared.world.lock().time_scale = time_scale;
    }

    /// Replaces the list of faults.
    pub fn break_things(&self, faults: Value) {
        let answer = self.http().post(format!("{}/_sandbox/faults", self.url)).body(faults.to_string()).send().unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().unwrap());
    }

    /// Forgets the counted calls.
    pub fn forget_calls(&self) {
        self.http().delete(format!("{}/_sandbox/calls", self.url)).send().unwrap();
    }

    /// Calls since then, as `service:Operation` -> count.
    pub fn calls(&self) -> serde_json::Map<String, Value> {
        let body = self.http().get(format!("{}/_sandbox/calls", self.url)).send().unwrap().text().unwrap();
        serde_json::from_str(&body).unwrap()
    }

    /// How many calls of one kind since then.
    pub fn count(&self, name: &str) -> u64 {
        self.calls().get(name).and_then(Value::as_u64).unwrap_or_default()
    }

    /// One call as an SDK would make it, through the same code as the wire.
    pub fn call(&self, service: &str, operation: &str, input: Value) -> Result<Value, String> {
        let running = self.running.as_ref().unwrap();
        let mut world = running.shared.world.lock();
        let ctx = comfy_sandbox::world::Ctx {
            region: REGION.into(),
            request_id: "test".into(),
            now: std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64,
        };
        comfy_sandbox::world::call(&mut world, &ctx, service, operation, &input)
            .map_err(|e| format!("{}: {}", e.code, e.message))
    }

    pub fn http(&self) -> reqwest::blocking::Client {
        http()
    }

    /// Pushes a small image with an entry point over the registry protocol; returns its digest. `oci` for the media
    /// types that SageMaker refuses.
    pub fn push_image(&self, repository: &str, tag: &str, salt: &str, oci: bool) -> String {
        self.push(repository, tag, json!({"Entrypoint": ["/serve"]}), salt.as_bytes(), oci)
    }

    /// Pushes an image of one layer, a tar file.
    pub fn push(&self, repository: &str, tag: &str, config: Value, layer: &[u8], oci: bool) -> String {
        let rootfs = json!({"type": "layers", "diff_ids": [sha(layer)]});
        let config = json!({"architecture": "amd64", "os": "linux", "config": config, "rootfs": rootfs});
        let (config, layer) = (config.to_string().into_bytes(), gzip(layer));
        for blob in [&layer, &config] {
            let start = format!("{}/v2/{repository}/blobs/uploads/", self.url);
            let answer = self.authorized(self.http().post(start)).send().unwrap();
            assert_eq!(answer.status(), 202, "{:?}", answer.text());
            let place = answer.headers()["location"].to_str().unwrap().to_owned();
            let place = if place.starts_with('/') { format!("{}{place}", self.url) } else { place };
            let join = if place.contains('?') { '&' } else { '?' };
            let put = self
                .authorized(self.http().put(format!("{place}{join}digest={}", sha(blob))))
                .body(blob.clone())
                .send()
                .unwrap();
            assert_eq!(put.status(), 201, "{:?}", put.text());
        }
        let (manifest_type, config_type, layer_type) = if oci {
            (
                "application/vnd.oci.image.manifest.v1+json",
                "application/vnd.oci.image.config.v1+json",
                "application/vnd.oci.image.layer.v1.tar+gzip",
            )
        } else {
            (
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
            )
        };
        let manifest = json!({"schemaVersion": 2, "mediaType": manifest_type,
            "config": {"mediaType": config_type, "size": config.len(), "digest": sha(&config)},
            "layers": [{"mediaType": layer_type, "size": layer.len(), "digest": sha(&layer)}]})
        .to_string();
        let put = self
            .http()
            .put(format!("{}/v2/{repository}/manifests/{tag}", self.url))
            .header("content-type", manifest_type)
            .body(manifest.clone());
        let put = self.authorized(put).send().unwrap();
        assert_eq!(put.status(), 201, "{:?}", put.text());
        sha(manifest.as_bytes())
    }

    fn authorized(&self, request: reqwest::blocking::RequestBuilder) -> reqwest::blocking::RequestBuilder {
        let answer = self.call("ecr", "GetAuthorizationToken", json!({})).unwrap();
        let token = answer["authorizationData"][0]["authorizationToken"].as_str().unwrap().to_owned();
        request.header("authorization", format!("Basic {token}"))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = self.runtime.block_on(running.stop());
        }
    }
}

/// An HTTP client that knows no proxy.
pub fn http() -> reqwest::blocking::Client {
    // reqwest is built without a TLS provider of its own.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::blocking::Client::builder().no_proxy().build().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn sha(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// An app directory and the sandbox that it is deployed to.
pub struct App<'a> {
    pub sandbox: &'a Sandbox,
    pub dir: TempDir,
}

/// What a run of the program left.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Ran {
    /// Asserts the exit code and shows everything if it is another.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        self
    }

    /// `data` of the envelope.
    #[track_caller]
    pub fn data(&self) -> Value {
        let envelope: Value = serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout));
        envelope["data"].clone()
    }

    /// `error` of the envelope.
    #[track_caller]
    pub fn error(&self) -> Value {
        let envelope: Value = serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout));
        envelope["error"].clone()
    }
}

impl<'a> App<'a> {
    /// A directory with a config, a small model and a workflow. The function is off: it has its own tests.
    pub fn new(sandbox: &'a Sandbox) -> Self {
        let app = App { sandbox, dir: TempDir::new().unwrap() };
        app.write("models/checkpoints/tiny.safetensors", &"weights ".repeat(1000));
        app.configure("");
        app
    }

    /// Writes the config: the common head and what is given.
    pub fn configure(&self, more: &str) {
        let lambda = if more.contains("lambda:") { "" } else { "lambda: {enabled: false}\n" };
        self.write("comfy-deploy.yaml", &format!("version: 1\napp: comfy\nregion: {REGION}\n{lambda}{more}"));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// The program with arguments, not started.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_at(&self.sandbox.url, args)
    }

    /// The same, with the sandbox at another address.
    pub fn command_at(&self, url: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_comfy-deploy"));
        command
            .args(args)
            .arg(format!("--sandbox={url}"))
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        run(self.command(args))
    }

    /// An app whose image is prebuilt: the foundation is deployed, an image pushed, and named in the config.
    pub fn with_image(sandbox: &'a Sandbox, more: &str) -> Self {
        let app = App::new(sandbox);
        sandbox.call("ecr", "CreateRepository", json!({"repositoryName": "comfy"})).unwrap();
        let digest = sandbox.push_image("comfy", "build-1", "one", false);
        app.configure(&format!("image: {{uri: 'comfy@{digest}'}}\n{more}"));
        app
    }
}

/// Runs a command to its end.
pub fn run(mut command: Command) -> Ran {
    let begun = Instant::now();
    let output = command.output().unwrap();
    Ran {
        took: begun.elapsed(),
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A program of the workspace that endpoints run; only a build of the workspace makes it.
fn program(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_BIN_EXE_comfy-deploy")).with_file_name(name);
    assert!(path.is_file(), "{} is missing; build the workspace first: cargo build --workspace", path.display());
    path
}

/// The Python of the tests' own environment, made by `tests/run`.
pub fn python() -> PathBuf {
    let venv = std::env::var_os("COMFY_DEPLOY_TEST_VENV")
        .expect("run the tests by tests/run, which makes the Python environment");
    Path::new(&venv).join("bin/python")
}

/// A statically linked program of this workspace, as it goes into the image.
pub fn static_program(name: &str) -> PathBuf {
    let debug = Path::new(env!("CARGO_BIN_EXE_comfy-deploy")).parent().unwrap();
    let path = debug.parent().unwrap().join("x86_64-unknown-linux-gnu/debug").join(name);
    assert!(
        path.is_file(),
        "{} is not there: RUSTFLAGS='-C target-feature=+crt-static' cargo build -p {name} --target \
         x86_64-unknown-linux-gnu (tests/run does it)",
        path.display()
    );
    path
}
