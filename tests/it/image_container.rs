//! The inference image for real: the shipped Dockerfile, byte for byte, built by buildah on a Debian made by mmdebstrap,
//! pushed, and its containers run as SageMaker and a workstation run them. What differs comes from outside the Dockerfile:
//! its build arguments (base image, OS packages, where ComfyUI is fetched from) and small locks in the context in place of
//! gigabytes of torch. ComfyUI is the stand-in, as a git repository with a main.py.
//!
//! Needs root, buildah, runc, mmdebstrap, docker-registry, htpasswd and git, and PyPI and Debian's archive for the first
//! run; what was fetched is kept in the target directory.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use comfy_deploy::cloud::Images;
use comfy_deploy::config::{Builder, Comfyui, CustomNode, Image};
use comfy_deploy::container::{
    Builders, Cancel, Existing, Exit, Invocation, OnLine, Processes, Runner, build_and_push, build_reference, gate,
    manifest,
};
use comfy_deploy::error::Error;
use comfy_deploy::local::image::context;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::containers::{Lines, Registry};
use crate::oci::{Container, strings};
use crate::support::static_program;

/// Where the tool's store and the root file system are kept between runs.
fn kept() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("image-container")
}

/// Runs a command to its end and returns what it printed.
#[track_caller]
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// buildah with a store of its own that is kept: what did not change since the last run is not built again.
struct Store(PathBuf);

impl Store {
    fn open() -> Self {
        let dir = kept();
        fs::create_dir_all(&dir).unwrap();
        let store = Store(dir.join("storage.conf"));
        let at = dir.display();
        for driver in ["overlay", "vfs"] {
            // Overlay does not work everywhere (not on another overlay); vfs does, slowly.
            let conf = format!(
                "[storage]\ndriver = \"{driver}\"\ngraphroot = \"{at}/{driver}\"\nrunroot = \"{at}/run-{driver}\"\n"
            );
            fs::write(&store.0, conf).unwrap();
            if store.buildah(&["info"]).output().expect("buildah starts: apt-get install buildah").status.success() {
                return store;
            }
        }
        panic!("buildah info fails; run it to see why");
    }

    fn buildah(&self, args: &[&str]) -> Command {
        let mut command = Command::new("buildah");
        command.env("CONTAINERS_STORAGE_CONF", &self.0).args(args);
        command
    }

    /// The base image: a minimal Debian, with this machine's certificates and settings of package indexes, if it has any.
    fn base(&self) -> String {
        let own = |name: &str| {
            name.starts_with("PIP_") || name.starts_with("UV_") || name.to_ascii_lowercase().ends_with("_proxy")
        };
        let mut env: Vec<_> = std::env::vars().filter(|(name, _)| own(name)).map(|(n, v)| format!("{n}={v}")).collect();
        let certificates = Path::new("/usr/local/share/ca-certificates");
        if certificates.is_dir() {
            env.push("SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt".into());
        }
        env.sort();
        let tag = format!("localhost/comfy-deploy-test/base:{}", &hex::encode(Sha256::digest(env.join("\n")))[..16]);
        if self.buildah(&["inspect", "--type", "image", &tag]).output().unwrap().status.success() {
            return tag;
        }
        let rootfs = kept().join("bookworm.tar");
        if !rootfs.is_file() {
            let unfinished = kept().join("unfinished.tar");
            output(Command::new("mmdebstrap").args(["--quiet", "--variant=minbase", "bookworm"]).arg(&unfinished));
            fs::rename(unfinished, &rootfs).unwrap();
        }
        let container = output(&mut self.buildah(&["from", "scratch"]));
        output(self.buildah(&["add", "--quiet", &container]).arg(rootfs).arg("/"));
        if certificates.is_dir() {
            output(self.buildah(&["add", "--quiet", &container]).args([certificates, certificates]));
        }
        for variable in env {
            output(&mut self.buildah(&["config", "--env", &variable, &container]));
        }
        output(&mut self.buildah(&["commit", "--quiet", "--rm", "--format", "docker", &container, &tag]));
        tag
    }
}

#[async_trait]
impl Runner for Store {
    async fn run(&self, invocation: &Invocation, cancel: &Cancel, line: &mut OnLine<'_>) -> io::Result<Exit> {
        let mut invocation = invocation.clone();
        invocation.env.insert("CONTAINERS_STORAGE_CONF".into(), self.0.clone().into());
        Processes.run(&invocation, cancel, line).await
    }
}

/// Git repositories on loopback, as ComfyUI and custom nodes are fetched.
struct Git {
    dir: TempDir,
    port: u16,
    daemon: Child,
}

impl Git {
    fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        // Not `git daemon`: killing that leaves the daemon, which is its child.
        let program = Path::new(&output(Command::new("git").arg("--exec-path"))).join("git-daemon");
        let daemon = Command::new(program)
            .args(["--reuseaddr", "--export-all", "--listen=127.0.0.1", &format!("--port={port}")])
            .arg(format!("--base-path={}", dir.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("git-daemon starts");
        let git = Git { dir, port, daemon };
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        git
    }

    fn url(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.port)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Commits what is in a repository's directory; always the same commit for the same files.
    fn commit(&self, name: &str) -> String {
        let git = |args: &[&str]| {
            let mut command = Command::new("git");
            command.arg("-C").arg(self.path(name)).args(args);
            for who in ["AUTHOR", "COMMITTER"] {
                command.env(format!("GIT_{who}_NAME"), "test").env(format!("GIT_{who}_EMAIL"), "test@example.invalid");
                command.env(format!("GIT_{who}_DATE"), "2025-01-01T00:00:00Z");
            }
            output(&mut command)
        };
        git(&["init", "--quiet"]);
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "--allow-empty", "--message", "test"]);
        git(&["rev-parse", "HEAD"])
    }

    /// A ComfyUI: the stand-in under its name, started as the real one is. Like the real one it reads the file with model
    /// folders that lies beside it.
    fn comfyui(&self, requirements: &str) -> String {
        let at = self.path("comfyui");
        fs::create_dir_all(at.join("custom_nodes")).unwrap();
        fs::write(at.join("custom_nodes/example_node.py.example"), "").unwrap();
        fs::write(at.join("requirements.txt"), requirements).unwrap();
        fs::copy(static_program("comfyui-stand-in"), at.join("comfyui")).unwrap();
        let main = "import os\nimport sys\n\nhere = os.path.dirname(os.path.abspath(__file__))\n\
                    models = ['--extra-model-paths-config', os.path.join(here, 'extra_model_paths.yaml')]\n\
                    os.execv(os.path.join(here, 'comfyui'), sys.argv + models)\n";
        fs::write(at.join("main.py"), main).unwrap();
        self.commit("comfyui")
    }

    fn custom_node(&self) -> CustomNode {
        let at = self.path("some-node");
        fs::create_dir_all(&at).unwrap();
        fs::write(at.join("__init__.py"), "import idna\n\nNODE_CLASS_MAPPINGS = {}\n").unwrap();
        fs::write(at.join("requirements.txt"), "# locked\nidna >= 3  # any\nnot-for-linux; sys_platform == 'win32'\n")
            .unwrap();
        CustomNode { url: self.url("some-node"), git_ref: self.commit("some-node") }
    }
}

impl Drop for Git {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// An image in the store, and as the registry has it.
struct Built {
    config: Value,
    layers: Vec<String>,
    lines: Vec<String>,
}

/// What the tests share.
struct World {
    store: Store,
    git: Git,
    registry: Registry,
    root: TempDir,
}

impl World {
    async fn new() -> Self {
        let root = TempDir::new().unwrap();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("image");
        let image = root.path().join("image");
        fs::create_dir_all(image.join("requirements")).unwrap();
        fs::create_dir_all(image.join("model_nodes")).unwrap();
        for name in [
            "Dockerfile",
            ".dockerignore",
            "check-requirements",
            "extra_model_paths.yaml",
            "model_nodes/__init__.py",
            "model_nodes/prestartup_script.py",
            "requirements/builder.lock",
        ] {
            fs::copy(shipped.join(name), image.join(name)).unwrap();
        }
        for name in ["torch.lock", "comfyui.lock"] {
            let small = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/image").join(name);
            fs::copy(small, image.join("requirements").join(name)).unwrap();
        }
        fs::copy(static_program("comfy-serve"), image.join("comfy-serve")).unwrap();
        // In the context by accident, and left out.
        fs::write(image.join("model.safetensors"), "weights").unwrap();
        World { store: Store::open(), git: Git::start(), registry: Registry::start().await, root }
    }

    /// Builds and pushes as `comfy-deploy up` does.
    async fn build(&self, comfyui: &str, target: Option<&str>) -> Result<Built, Error> {
        let build_args = [
            ("BASE_IMAGE", self.store.base()),
            ("OS_PACKAGES", String::new()),
            ("BUILD_PACKAGES", String::new()),
            ("COMFYUI_URL", self.git.url("comfyui")),
        ];
        let image = Image {
            target: target.map(str::to_owned),
            build_args: build_args.map(|(name, value)| (name.to_owned(), value)).into(),
            ..Image::default()
        };
        let comfyui = Comfyui { git_ref: comfyui.into(), custom_nodes: vec![self.git.custom_node()] };
        let context = context(self.root.path(), &image, &comfyui)?;
        let tool = Builders::detect(Builder::Buildah, &self.store).await?;
        let reference = build_reference(&format!("{}/app", self.registry.host));
        let (_keep, cancel) = watch::channel(false);
        let lines = Lines::default();
        build_and_push(&tool, &context, &reference, &self.registry, &self.store, &lines, &cancel).await?;
        let tag = reference.rsplit_once(':').unwrap().1;
        gate(&self.registry, "app", tag, &context.tag, Existing::MoveTag).await?;
        let pushed = self.registry.manifest("app", &context.tag).await?.unwrap();
        let config = self.registry.blob("app", &manifest::config_digest(&pushed).unwrap()).await?;
        let config: Value = serde_json::from_slice(&config.unwrap()).unwrap();
        let layers = strings(&config["rootfs"], "diff_ids");
        let lines = lines.0.lock().unwrap().clone();
        Ok(Built { config: config["config"].clone(), layers, lines })
    }

    /// The root file system of the image that was built last.
    fn mounted(&self) -> Mounted<'_> {
        let container = output(&mut self.store.buildah(&["from", "--pull-never", "localhost/comfy-deploy/app:last"]));
        let root = output(&mut self.store.buildah(&["mount", &container])).into();
        Mounted { store: &self.store, container, root }
    }
}

struct Mounted<'a> {
    store: &'a Store,
    container: String,
    root: PathBuf,
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = self.store.buildah(&["rm", &self.container]).output();
    }
}

const REQUIREMENTS: &str = "packaging>=20\nidna\n";

/// Files and directories below a directory, by path.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                todo.push(path.clone());
            }
            all.push(path.strip_prefix(dir).unwrap().to_owned());
        }
    }
    all.sort();
    all
}

/// A picture from a checkpoint, as an app asks for it.
fn workflow() -> String {
    json!({
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny.safetensors"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lighthouse", "clip": ["1", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "5": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0],
            "latent_image": ["4", 0], "seed": 7, "steps": 2, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal",
            "denoise": 1.0}},
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "app"}}
    })
    .to_string()
}

fn models(dir: &Path) {
    fs::create_dir_all(dir.join("checkpoints")).unwrap();
    fs::write(dir.join("checkpoints/tiny.safetensors"), "weights").unwrap();
}

/// One test: to compress and push Debian once takes longer than all the rest.
#[tokio::test]
async fn the_shipped_dockerfile() {
    let world = World::new().await;
    the_inference_image_serves_as_sagemaker_runs_it(&world).await;
    the_editor_shares_the_layers_and_ends_cleanly(&world).await;
    a_new_comfyui_installs_nothing_again_and_must_fit_the_locks(&world).await;
}

async fn the_inference_image_serves_as_sagemaker_runs_it(world: &World) {
    let commit = world.git.comfyui(REQUIREMENTS);
    // No target: the last one is the inference image.
    let built = world.build(&commit, None).await.unwrap();

    let config = &built.config;
    assert_eq!(strings(config, "Entrypoint"), ["/usr/local/bin/comfy-serve"], "exec form");
    assert_eq!(strings(config, "Cmd"), ["serve"]);
    assert!(config["ExposedPorts"]["8080/tcp"].is_object());
    assert!(["", "root", "0"].contains(&config["User"].as_str().unwrap_or_default()), "SageMaker wants root");
    let health = strings(&config["Healthcheck"], "Test");
    assert_eq!(health[0], "CMD", "{health:?}");

    let image = world.mounted();
    let at = |path: &str| image.root.join(path);
    for tool in ["git", "gcc", "cc", "make", "curl", "wget", "pip", "pip3", "uv"] {
        for bin in ["usr/bin", "usr/local/bin", "opt/venv/bin"] {
            assert!(!at(bin).join(tool).exists(), "{bin}/{tool} is left in the image");
        }
    }
    for path in
        ["opt/uv", "opt/requirements", "opt/cuda", "opt/comfyui/.git", "opt/comfyui/custom_nodes/some-node/.git"]
    {
        assert!(!at(path).exists(), "{path} is left in the image");
    }
    let site = at("opt/venv/lib/python3.11/site-packages");
    assert!(site.join("idna/__pycache__/core.cpython-311.pyc").is_file(), "no bytecode");
    assert!(site.join("nvidia/nvtx/lib").is_dir(), "the layer with CUDA");
    assert_eq!(fs::metadata(at("usr/local/bin/comfy-serve")).unwrap().permissions().mode() & 0o777, 0o755);
    let own = || [tree(&at("opt/comfyui")), tree(&at("opt/venv"))];
    let before = own();

    let dir = TempDir::new().unwrap();
    models(dir.path());
    let mut container = Container::start(&image.root, config, &["serve"], dir.path());
    container.until("/ping says 200", |c| c.status("http://127.0.0.1:8080/ping") == Some(200));
    let health: Vec<_> = health[1..].iter().map(String::as_str).collect();
    let healthy = container.exec(&health);
    assert!(healthy.status.success(), "{healthy:?}");
    let imports = container.exec(&["python3", "-c", "import idna, packaging, nvidia.nvtx"]);
    assert!(imports.status.success(), "{imports:?}");
    assert!(!container.exec(&["touch", "/opt/ml/model/x"]).status.success(), "models are not read-only");

    let ask = |accept: &str| {
        container.inside(|http| {
            let request = http.post("http://127.0.0.1:8080/invocations").header("accept", accept);
            let answer = request.header("content-type", "application/json").body(workflow()).send().unwrap();
            let status = answer.status().as_u16();
            let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
            (status, kind, answer.bytes().unwrap())
        })
    };
    let (status, kind, body) = ask("image/jpeg");
    assert_eq!((status, kind.as_str()), (200, "image/jpeg"), "{}", String::from_utf8_lossy(&body));
    assert_eq!(body[..2], [0xff, 0xd8]);
    let (status, kind, body) = ask("image/png");
    assert_eq!((status, kind.as_str()), (200, "image/png"), "{}", String::from_utf8_lossy(&body));
    assert_eq!(body[1..4], *b"PNG");
    let text = container.inside(|http| http.get("http://127.0.0.1:8188/system_stats").send().unwrap().text().unwrap());
    let argv = strings(&serde_json::from_str::<Value>(&text).unwrap()["system"], "argv");
    for flag in ["--disable-metadata", "--disable-api-nodes", "--output-directory", "--database-url"] {
        assert!(argv.iter().any(|arg| arg == flag), "{flag}: {argv:?}");
    }

    assert_eq!(container.stop(), 0, "{}", container.log());
    assert!(own() == before, "something was written into the image's own tree: {:?}", own());
}

async fn the_editor_shares_the_layers_and_ends_cleanly(world: &World) {
    let commit = world.git.comfyui(REQUIREMENTS);
    let inference = world.build(&commit, Some("inference")).await.unwrap();
    let gui = world.build(&commit, Some("gui")).await.unwrap();
    let shared = gui.layers.iter().zip(&inference.layers).take_while(|(a, b)| a == b).count();
    // Debian, OS packages, CUDA, torch, the rest, ComfyUI, the small files: only comfy-serve is more.
    assert!(shared >= 7, "{shared} of {} and {} layers", gui.layers.len(), inference.layers.len());

    let image = world.mounted();
    assert!(!image.root.join("usr/local/bin/comfy-serve").exists());
    let dir = TempDir::new().unwrap();
    models(dir.path());
    let mut container = Container::start(&image.root, &gui.config, &[], dir.path());
    container.until("ComfyUI answers", |c| c.status("http://127.0.0.1:8188/prompt") == Some(200));
    assert_eq!(gui.config["StopSignal"], "SIGINT");
    assert_eq!(container.stop(), 0, "{}", container.log());
}

async fn a_new_comfyui_installs_nothing_again_and_must_fit_the_locks(world: &World) {
    world.build(&world.git.comfyui(REQUIREMENTS), None).await.unwrap();
    fs::write(world.git.path("comfyui").join("new.py"), "").unwrap();
    let bumped = world.build(&world.git.comfyui(REQUIREMENTS), None).await.unwrap();
    let steps: Vec<_> = bumped.lines.windows(2).filter(|pair| pair[0].contains("STEP ")).collect();
    let installs: Vec<_> = steps.iter().filter(|pair| pair[0].contains("pip install")).collect();
    assert_eq!(installs.len(), 3, "uv itself, torch, the rest: {:#?}", bumped.lines);
    for step in installs {
        assert!(step[1].contains("Using cache"), "{step:?}");
    }
    assert!(steps.iter().any(|pair| pair[0].contains("git fetch") && !pair[1].contains("Using cache")));

    let other = world.git.comfyui("packaging>=1000\nidna\nnot-locked\n");
    let error = world.build(&other, None).await.err().expect("the locks do not fit");
    let said = error.reasons().join("\n");
    for part in ["packaging>=1000: the locks have", "not-locked: is not in the locks", "Run image/lock"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
