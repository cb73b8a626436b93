//! Real container tools against a real registry (Debian: buildah, docker-registry, apache2-utils; podman if there).
//!
//! Without them the tests say so and pass, unless `COMFY_DEPLOY_REQUIRE_TOOLS` is set, as it is where they must be.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use comfy_deploy::cloud::{Images, Manifest, RegistryLogin, Repository, Written};
use comfy_deploy::config::{Builder, Comfyui, Image};
use comfy_deploy::container::{
    Builders, Cancel, Existing, Exit, Invocation, OnLine, Processes, Runner, Stream, Tool, build_and_push,
    build_reference, gate, manifest,
};
use comfy_deploy::error::{Error, Kind, Result};
use comfy_deploy::local::image::{ImageContext, context};
use comfy_deploy::progress::{Event, Reporter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

const PASSWORD: &str = "tok123";

/// A registry on loopback that wants a password, and its API.
pub struct Registry {
    process: Child,
    pub host: String,
    password: String,
    logins: AtomicU32,
    _dir: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let htpasswd = Command::new("htpasswd").args(["-Bbn", "AWS", PASSWORD]).output().expect("htpasswd runs");
        fs::write(dir.path().join("htpasswd"), htpasswd.stdout).expect("written");
        let port = {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            socket.local_addr().expect("an address").port()
        };
        let host = format!("127.0.0.1:{port}");
        let at = dir.path().display();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {at}/data}}}}\n\
             http: {{addr: '{host}'}}\nauth: {{htpasswd: {{realm: ecr, path: {at}/htpasswd}}}}\n"
        );
        let file = dir.path().join("registry.yml");
        fs::write(&file, config).expect("written");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the registry starts");
        let registry = Registry { process, host, password: PASSWORD.into(), logins: AtomicU32::new(0), _dir: dir };
        for _ in 0..100 {
            if registry.call("GET", "/v2/", "").await.is_ok_and(|(status, ..)| status == 200) {
                return registry;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the registry does not answer");
    }

    /// One request of HTTP/1.0, which needs no parser for chunks: status, headers, body.
    async fn call(&self, method: &str, path: &str, rest: &str) -> io::Result<(u16, BTreeMap<String, String>, Vec<u8>)> {
        let auth = STANDARD.encode(format!("AWS:{PASSWORD}"));
        let mut socket = tokio::net::TcpStream::connect(&self.host).await?;
        let types = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                     application/vnd.docker.distribution.manifest.v2+json";
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nAuthorization: Basic {auth}\r\nAccept: {types}\r\n",
            self.host
        );
        let rest = if rest.is_empty() { "\r\n" } else { rest };
        socket.write_all(format!("{head}{rest}").as_bytes()).await?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await?;
        let split = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
        let head = String::from_utf8_lossy(&answer[..split]).into_owned();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let headers = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Ok((status, headers, answer.split_off(split + 4)))
    }
}

#[async_trait]
impl Images for Registry {
    async fn repository(&self, _: &str) -> Result<Option<Repository>> {
        Ok(None)
    }
    async fn repository_tags(&self, _: &str) -> Result<comfy_deploy::cloud::Map> {
        Ok(comfy_deploy::cloud::Map::new())
    }
    async fn manifest(&self, repository: &str, reference: &str) -> Result<Option<Manifest>> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let (status, headers, body) = self.call("GET", &path, "").await.map_err(|e| Error::failed(e.to_string()))?;
        Ok((status == 200).then(|| Manifest {
            digest: headers["docker-content-digest"].clone(),
            media_type: headers["content-type"].clone(),
            body: String::from_utf8(body).expect("a text"),
        }))
    }
    async fn put_manifest(&self, repository: &str, tag: &str, manifest: &Manifest) -> Result<(Written, String)> {
        let rest = format!(
            "Content-Type: {}\r\nContent-Length: {}\r\n\r\n{}",
            manifest.media_type,
            manifest.body.len(),
            manifest.body
        );
        let path = format!("/v2/{repository}/manifests/{tag}");
        let (status, headers, body) = self.call("PUT", &path, &rest).await.map_err(|e| Error::failed(e.to_string()))?;
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
        Ok((Written::Created, headers["docker-content-digest"].clone()))
    }
    async fn blob(&self, repository: &str, digest: &str) -> Result<Option<Bytes>> {
        let path = format!("/v2/{repository}/blobs/{digest}");
        let (status, _, body) = self.call("GET", &path, "").await.map_err(|e| Error::failed(e.to_string()))?;
        assert_eq!(status, 200);
        Ok(Some(body.into()))
    }
    async fn login(&self) -> Result<RegistryLogin> {
        self.logins.fetch_add(1, Ordering::SeqCst);
        let endpoint = format!("http://{}", self.host);
        Ok(RegistryLogin { endpoint, user: "AWS".into(), password: self.password.clone() })
    }
    async fn delete_tags(&self, _: &str, _: &[String]) -> Result<()> {
        Ok(())
    }
}

/// Gives the tools a storage of their own.
struct Own(tempfile::TempDir);

impl Own {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let at = dir.path().display();
        // vfs works on every file system; the images here are tiny.
        let config = format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{at}/graph\"\nrunroot = \"{at}/run\"\n");
        fs::write(dir.path().join("storage.conf"), config).expect("written");
        Own(dir)
    }
}

#[async_trait]
impl Runner for Own {
    async fn run(&self, invocation: &Invocation, cancel: &Cancel, line: &mut OnLine<'_>) -> io::Result<Exit> {
        let mut invocation = invocation.clone();
        let config = self.0.path().join("storage.conf").into_os_string();
        invocation.env.insert("CONTAINERS_STORAGE_CONF".into(), config);
        Processes.run(&invocation, cancel, line).await
    }
}

#[derive(Default)]
pub struct Lines(pub Mutex<Vec<String>>);

impl Reporter for Lines {
    fn report(&self, event: Event) {
        if let Event::Line { line, .. } = event {
            self.0.lock().expect("lock").push(line);
        }
    }
}

/// A small image like the real one: an executable in it, an entrypoint, the arguments used.
fn image(root: &Path, dockerfile: &str) -> ImageContext {
    let dir = root.join("image");
    fs::create_dir_all(&dir).expect("mkdir");
    fs::write(dir.join("Dockerfile"), dockerfile).expect("written");
    fs::write(dir.join("comfy-serve"), "not really").expect("written");
    fs::write(dir.join(".dockerignore"), "*.safetensors\n").expect("written");
    fs::write(dir.join("x.safetensors"), "ignored").expect("written");
    context(root, &Image { target: Some("inference".into()), ..Image::default() }, &Comfyui::default())
        .expect("a context")
}

const GOOD: &str = "FROM scratch AS inference\nARG COMFYUI_GIT_REF\nLABEL ref=${COMFYUI_GIT_REF}\nCOPY . /\n\
                    ENTRYPOINT [\"/comfy-serve\"]\nFROM scratch AS gui\n";

/// The tools to try: buildah, and podman where it is installed.
async fn tools(runner: &dyn Runner) -> Vec<Tool> {
    let there = |program: &str, arg: &str| {
        Command::new(program).arg(arg).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    assert!(
        there("buildah", "--version") && there("docker-registry", "--version") && there("htpasswd", "-h"),
        "these tests need real tools: apt-get install --no-install-recommends buildah docker-registry apache2-utils"
    );
    let mut tools = vec![Builders::detect(Builder::Buildah, runner).await.expect("buildah works")];
    if there("podman", "--version") {
        tools.push(Builders::detect(Builder::Podman, runner).await.expect("podman works"));
    }
    tools
}

#[tokio::test]
async fn images_are_built_pushed_and_pass_the_gate() {
    let runner = Own::new();
    for tool in tools(&runner).await {
        builds_pushes_and_passes(&tool, &runner).await;
    }
}

async fn builds_pushes_and_passes(tool: &Tool, runner: &Own) {
    let registry = Registry::start().await;
    let root = tempfile::tempdir().expect("temporary directory");
    let image = image(root.path(), GOOD);
    let reference = build_reference(&format!("{}/app", registry.host));
    let build_tag = reference.rsplit_once(':').expect("a tag").1;
    let (_stop, cancel) = watch::channel(false);
    let lines = Lines::default();
    let built = build_and_push(tool, &image, &reference, &registry, runner, &lines, &cancel).await.expect("built");
    assert_eq!(registry.logins.load(Ordering::SeqCst), 1);
    assert!(!lines.0.lock().expect("lock").is_empty(), "no progress was shown");

    let digest = gate(&registry, "app", build_tag, &image.tag, Existing::Take).await.expect("passes");
    let put = registry.manifest("app", &image.tag).await.expect("answers").expect("is there");
    assert_eq!((put.media_type.as_str(), &put.digest), (manifest::DOCKER_MANIFEST, &digest));
    assert_eq!(built.digest, Some(digest), "the tool and the registry disagree");
    let config = manifest::config_digest(&put).expect("a config");
    let config: serde_json::Value =
        serde_json::from_slice(&registry.blob("app", &config).await.expect("a blob").expect("there")).expect("JSON");
    assert_eq!(config["config"]["Labels"]["ref"], Comfyui::default().git_ref);
    assert_eq!(config["config"]["Entrypoint"][0], "/comfy-serve");

    // The same image as the tools push it by default, which SageMaker refuses.
    let oci = format!("{}/app:build-oci", registry.host);
    let local = "localhost/comfy-deploy/app:last";
    let credentials = format!("AWS:{PASSWORD}");
    let mut push = Invocation::new(
        tool.kind.program(),
        &["push", "--format", "oci", "--tls-verify=false", "--creds", &credentials],
    );
    push.args(&[local, &oci]);
    let mut said = String::new();
    let exit = runner.run(&push, &cancel, &mut |_, line| said += line).await.expect("starts");
    assert!(exit.ok(), "{said}");
    let before = registry.manifest("app", "build-oci").await.expect("answers").expect("is there");
    assert_eq!(before.media_type, "application/vnd.oci.image.manifest.v1+json");
    gate(&registry, "app", "build-oci", "c-repaired", Existing::Take).await.expect("is repaired");
    let after = registry.manifest("app", "c-repaired").await.expect("answers").expect("is there");
    assert_eq!(after.media_type, manifest::DOCKER_MANIFEST);
}

#[tokio::test]
async fn what_goes_wrong_with_a_real_tool() {
    let runner = Own::new();
    for tool in tools(&runner).await {
        goes_wrong(&tool, &runner).await;
    }
}

async fn goes_wrong(tool: &Tool, runner: &Own) {
    let mut registry = Registry::start().await;
    let root = tempfile::tempdir().expect("temporary directory");
    let reference = format!("{}/app:build-1", registry.host);
    let (_stop, cancel) = watch::channel(false);
    let lines = Lines::default();

    let broken = image(root.path(), "FROM scratch AS inference\nCOPY not-there /\n");
    let error = build_and_push(tool, &broken, &reference, &registry, runner, &lines, &cancel).await;
    let error = error.expect_err("the build fails");
    assert!(error.to_string().contains("not-there"), "{error}");
    assert_eq!(registry.logins.load(Ordering::SeqCst), 1);

    registry.password = "wrong-one".into();
    let good = image(root.path(), GOOD);
    let error = build_and_push(tool, &good, &reference, &registry, runner, &lines, &cancel).await;
    let error = error.expect_err("the push is refused");
    assert_eq!(error.kind(), Kind::Access, "{error}");
    assert_eq!(registry.logins.load(Ordering::SeqCst), 3, "not tried again with a new login");
    assert!(!error.to_string().contains("wrong-one"));

    registry.password = PASSWORD.into();
    let no_entrypoint = image(root.path(), "FROM scratch AS inference\nCOPY . /\n");
    build_and_push(tool, &no_entrypoint, &reference, &registry, runner, &lines, &cancel).await.expect("built");
    let error = gate(&registry, "app", "build-1", "c-1", Existing::Take).await.expect_err("refused");
    assert!(error.to_string().contains("ENTRYPOINT"), "{error}");
    assert!(registry.manifest("app", "c-1").await.expect("answers").is_none());
}

/// Standard output of a command that must succeed.
async fn output(runner: &dyn Runner, args: &[&str]) -> String {
    let (_stop, cancel) = watch::channel(false);
    let (mut out, mut said) = (String::new(), String::new());
    let exit = runner
        .run(&Invocation::new("buildah", args), &cancel, &mut |stream, line| {
            said += line;
            if stream == Stream::Out {
                out += line;
            }
        })
        .await;
    assert!(exit.expect("starts").ok(), "{said}");
    out
}

fn files(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(next).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                todo.push(path);
            } else {
                all.push(path.strip_prefix(dir).expect("below").to_string_lossy().into_owned());
            }
        }
    }
    all.sort();
    all
}

/// What we hash is what the tool copies: the ignore file is read alike.
#[tokio::test]
async fn the_ignore_file_means_the_same_to_the_tool() {
    let runner = Own::new();
    let Some(tool) = tools(&runner).await.into_iter().next() else { return };
    let registry = Registry::start().await;
    let root = tempfile::tempdir().expect("temporary directory");
    image(root.path(), GOOD);
    let dir = root.path().join("image");
    let ignore =
        "# models\n*.safetensors\n**/*.tmp\n/models/\n!models/keep/a.txt\nlib/*\n!lib/b.py\nx[0-9].?\n\\*odd\n";
    fs::write(dir.join(".dockerignore"), ignore).expect("written");
    for name in [
        "a.safetensors",
        "sub/b.safetensors",
        "c.tmp",
        "sub/deep/d.tmp",
        "models/e.txt",
        "models/keep/a.txt",
        "models/keep/f.txt",
        "lib/b.py",
        "lib/c.py",
        "x1.y",
        "x1.yy",
        "*odd",
        "odd",
    ] {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        fs::write(path, name).expect("written");
    }
    let settings = Image { target: Some("inference".into()), ..Image::default() };
    let context = context(root.path(), &settings, &Comfyui::default()).expect("a context");
    let reference = format!("{}/app:build-1", registry.host);
    let (_stop, cancel) = watch::channel(false);
    let lines = Lines::default();
    build_and_push(&tool, &context, &reference, &registry, &runner, &lines, &cancel).await.expect("built");

    let container = output(&runner, &["from", "--pull-never", "localhost/comfy-deploy/app:last"]).await;
    let mounted = output(&runner, &["mount", &container]).await;
    let copied = files(Path::new(mounted.trim()));
    output(&runner, &["rm", &container]).await;
    let expected = [
        ".dockerignore",
        "Dockerfile",
        "comfy-serve",
        "lib/b.py",
        "models/keep/a.txt",
        "odd",
        "sub/b.safetensors",
        "x1.yy",
    ];
    assert_eq!(copied, expected);
    assert_eq!(context.files, expected.len() as u64);
    assert_eq!(
        context.bytes,
        expected.iter().map(|name| fs::metadata(dir.join(name)).expect("there").len()).sum::<u64>()
    );
}
