//! Endpoints as containers of images that the registry has, by runc. Needs root and runc, which `tests/run` installs.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use comfy_sandbox::container::{Choice, Containers};
use comfy_sandbox::ecr;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use crate::endpoints::{self, settled};
use crate::support::{REGION, Sandbox, admin, alive, until};

const LOGS: &str = "/aws/sagemaker/Endpoints/e";
const TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// The probe, linked so that it needs nothing of an image.
fn probe() -> &'static [u8] {
    static PROBE: OnceLock<Vec<u8>> = OnceLock::new();
    PROBE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/images/probe.rs");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut command = Command::new(rustc);
        command.args(["--edition", "2024", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o", "probe"]);
        let built = command.arg(source).current_dir(dir.path()).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        std::fs::read(dir.path().join("probe")).unwrap()
    })
}

/// A compressed layer of files with an owner.
fn layer(files: &[(&str, &[u8], u64)]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut builder = tar::Builder::new(gzip);
    for (path, bytes, owner) in files {
        let mut header = Header::new_gnu();
        header.set_mode(0o755);
        header.set_uid(*owner);
        header.set_gid(*owner);
        header.set_size(bytes.len() as u64);
        header.set_entry_type(if path.ends_with('/') { EntryType::Directory } else { EntryType::Regular });
        builder.append_data(&mut header, path, *bytes).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

/// Puts an image into the registry, as a push leaves it; returns its reference.
fn push(sandbox: &Sandbox, architecture: &str, config: Value, layers: &[Vec<u8>]) -> String {
    let blobs = sandbox.dir.path().join("state/ecr");
    std::fs::create_dir_all(&blobs).unwrap();
    let config = json!({"architecture": architecture, "os": "linux", "config": config}).to_string().into_bytes();
    let mut world = sandbox.running.shared.world.lock();
    let host = world.url.trim_start_matches("http://").to_owned();
    let repository = world.region(REGION).ecr.repositories.entry("app".into()).or_default();
    let mut blob = |bytes: &[u8]| {
        let name = hex::encode(Sha256::digest(bytes));
        std::fs::write(blobs.join(&name), bytes).unwrap();
        let digest = format!("sha256:{name}");
        repository.layers.insert(digest.clone(), bytes.len() as u64);
        json!({"digest": digest, "size": bytes.len()})
    };
    let layers: Vec<Value> = layers.iter().map(|layer| blob(layer)).collect();
    let body = json!({"schemaVersion": 2, "mediaType": TYPE, "config": blob(&config), "layers": layers}).to_string();
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(&body)));
    let image = ecr::Image { media_type: TYPE.into(), body, ..ecr::Image::default() };
    repository.images.insert(digest.clone(), image);
    format!("{host}/app@{digest}")
}

/// The probe's own image.
fn probes_image(sandbox: &Sandbox, config: Value) -> String {
    let mut whole = json!({"Entrypoint": ["/bin/probe"], "Cmd": ["not-this"]});
    config.as_object().unwrap().iter().for_each(|(name, value)| whole[name] = value.clone());
    push(sandbox, host(), whole, &[layer(&[("bin/probe", probe(), 0)])])
}

fn host() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// An instance type that has this machine's processor, or the other one.
fn instance_type(own: bool) -> &'static str {
    if own == (host() == "amd64") { "ml.g5.xlarge" } else { "ml.c7g.large" }
}

async fn sandbox() -> Sandbox {
    let sandbox = Sandbox::serving(|serving| {
        serving.containers = Arc::new(Containers::new(Choice::Runc));
        // Nothing waits for it to pass, but the test that does.
        serving.startup = Some(Duration::from_secs(20));
    })
    .await;
    let works = Containers::new(Choice::Runc).require().await;
    assert!(works.is_ok(), "{works:?}; run these tests as root by tests/run, which installs runc");
    sandbox
}

/// Endpoint `e` of an image.
fn create(sandbox: &Sandbox, image: &str, environment: Value, own: bool) {
    let mut container = endpoints::archived();
    let own = [("Image", json!(image)), ("Environment", environment), ("InstanceType", json!(instance_type(own)))];
    own.into_iter().for_each(|(name, value)| container[name] = value);
    endpoints::create(sandbox, "c1", "", container);
}

async fn facts(sandbox: &Sandbox) -> String {
    let reply = sandbox.send("/endpoints/e/invocations", &[], b"{}", Some(&admin()), "sagemaker").await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
    reply.text()
}

/// The numbers of all processes that run the probe for this sandbox, as this machine counts.
fn processes(sandbox: &Sandbox) -> Vec<u64> {
    let mine = format!("STATE={}", sandbox.dir.path().display());
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
    let of = |pid: &u64| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|v| v == mine.as_bytes()) && alive(*pid)
    };
    all.filter(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_image_is_run_as_sagemaker_runs_it() {
    let sandbox = sandbox().await;
    let lower: &[(&str, &[u8], u64)] = &[
        ("bin/probe", probe(), 0),
        ("etc/passwd", b"app:x:1000:1001::/srv:/bin/sh\n", 0),
        ("data/", b"", 0),
        ("data/lower", b"from below", 0),
        ("data/removed", b"gone", 0),
        ("marks", b"", 1000),
        ("srv/", b"", 1000),
    ];
    let upper: &[(&str, &[u8], u64)] = &[("data/.wh.removed", b"", 0)];
    let config = json!({"Entrypoint": ["/bin/probe", "--own"], "Cmd": ["not-this"], "Env": ["A=image", "B=image"],
        "WorkingDir": "/srv", "User": "app"});
    let image = push(&sandbox, host(), config, &[layer(lower), layer(upper)]);
    let sandbox_address = sandbox.running.addr.to_string();
    create(&sandbox, &image, json!({"B": "model", "SANDBOX": sandbox_address, "STATE": sandbox.dir.path()}), true);
    let shown = settled(&sandbox).await;
    assert_eq!(shown["EndpointStatus"], "InService", "{shown}\n{:?}", sandbox.lines(LOGS));
    let told = facts(&sandbox).await;
    for wanted in [
        "args: [\"/bin/probe\", \"--own\", \"serve\"]",
        "directory: /srv",
        "user: 1000 1001",
        "model: weights",
        "into the model: ReadOnlyFilesystem",
        "marks before: ",
        "own file: done",
        "lower: from below",
        "removed: NotFound",
        "interfaces: [\"lo\"]",
        "the sandbox: ConnectionRefused",
        "localhost: true",
        "shared memory: done",
        "env A: image",
        "env B: model",
        "env HOME: /srv",
    ] {
        assert!(told.lines().any(|line| line == wanted), "no {wanted:?} in\n{told}");
    }
    assert!(!told.contains("CARGO"), "{told}");
    assert!(sandbox.lines(LOGS).contains(&"the container starts as 1".to_owned()), "{:?}", sandbox.lines(LOGS));
    assert!(facts(&sandbox).await.contains("marks before: x\n"), "a container keeps what it wrote");

    // A second one has a port and files of its own.
    let wanted = json!([{"VariantName": "V", "DesiredInstanceCount": 2}]);
    let input = json!({"EndpointName": "e", "DesiredWeightsAndCapacities": wanted});
    sandbox.call("sagemaker", "UpdateEndpointWeightsAndCapacities", input).unwrap();
    assert_eq!(settled(&sandbox).await["ProductionVariants"][0]["CurrentInstanceCount"], 2);
    assert_eq!(processes(&sandbox).len(), 2);
    let told = [facts(&sandbox).await, facts(&sandbox).await];
    assert!(told.iter().any(|t| t.contains("marks before: \n")), "{told:?}");
    assert!(told.iter().any(|t| t.contains("marks before: xx\n")), "{told:?}");

    sandbox.call("sagemaker", "DeleteEndpoint", json!({"EndpointName": "e"})).unwrap();
    until(|| processes(&sandbox).is_empty().then_some(())).await;
    let state = sandbox.dir.path().join("state");
    // Nothing is left but the unpacked image.
    until(|| (std::fs::read_dir(state.join("instances")).unwrap().count() == 0).then_some(())).await;
    assert_eq!(std::fs::read_dir(state.join("runc")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(state.join("images")).unwrap().count(), 1);
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(&*state.to_string_lossy()), "{mounts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_docker_run_serve_cannot_start() {
    for config in [json!({"Entrypoint": null}), json!({"Entrypoint": ["/none"]}), json!({"User": "nobody-here"})] {
        let sandbox = sandbox().await;
        let image = probes_image(&sandbox, config);
        create(&sandbox, &image, json!({}), true);
        let shown = settled(&sandbox).await;
        assert_eq!(
            (&shown["EndpointStatus"], &shown["FailureReason"]),
            (
                &json!("Failed"),
                &json!(
                    "CannotStartContainerError. Please ensure the model container for variant V starts correctly when \
                     invoked with 'docker run <image> serve'"
                )
            ),
            "{:?}",
            sandbox.lines(LOGS)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_of_another_processor_never_passes_the_health_check() {
    // What the kernel says, and what the config says.
    let broken: &[(&str, &[u8], u64)] = &[("bin/probe", b"\x7fELF of another machine", 0)];
    let other = if host() == "amd64" { "arm64" } else { "amd64" };
    for (architecture, layers) in [(host(), layer(broken)), (other, layer(&[("bin/probe", probe(), 0)]))] {
        let sandbox = Sandbox::serving(|serving| {
            serving.containers = Arc::new(Containers::new(Choice::Runc));
            serving.startup = Some(Duration::from_secs(2));
        })
        .await;
        let image = push(&sandbox, architecture, json!({"Entrypoint": ["/bin/probe"]}), &[layers]);
        create(&sandbox, &image, json!({}), true);
        let shown = settled(&sandbox).await;
        assert_eq!(shown["EndpointStatus"], "Failed");
        let reason = shown["FailureReason"].as_str().unwrap();
        assert!(reason.contains("did not pass the ping health check"), "{reason}");
        let lines = sandbox.lines(LOGS);
        assert!(lines.iter().any(|l| l.ends_with("exec /bin/probe: exec format error")), "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runc_cannot_run_is_stood_for() {
    // An image of another registry, and one for another processor than this machine's.
    for own in [true, false] {
        let sandbox = sandbox().await;
        let image = match own {
            true => endpoints::IMAGE.to_owned(),
            false => probes_image(&sandbox, json!({})),
        };
        create(&sandbox, &image, json!({"MODE": "ok"}), own);
        assert_eq!(settled(&sandbox).await["EndpointStatus"], "InService", "{:?}", sandbox.lines(LOGS));
        let told: Value = serde_json::from_str(&facts(&sandbox).await).unwrap();
        assert!(told["environment"]["COMFY_SERVE_LISTEN"].is_string(), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_ends_is_started_again_with_its_files_as_at_first() {
    let sandbox = sandbox().await;
    let image = probes_image(&sandbox, json!({}));
    create(&sandbox, &image, json!({"STATE": sandbox.dir.path()}), true);
    settled(&sandbox).await;
    facts(&sandbox).await;
    let pid = i32::try_from(processes(&sandbox)[0]).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    let starts = || sandbox.lines(LOGS).iter().filter(|l| *l == "the container starts as 1").count();
    until(|| (starts() == 2).then_some(())).await;
    assert!(sandbox.lines(LOGS).iter().any(|l| l.ends_with("the container ended: exit status 137")));
    let told = loop {
        let reply = sandbox.send("/endpoints/e/invocations", &[], b"{}", Some(&admin()), "sagemaker").await;
        if reply.status() == 200 {
            break reply.text();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(told.contains("marks before: NotFound\n"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_end_with_the_sandbox_and_are_there_again_after_it() {
    let sandbox = sandbox().await;
    let image = probes_image(&sandbox, json!({}));
    create(&sandbox, &image, json!({"STATE": sandbox.dir.path(), "MODE": "stubborn"}), true);
    settled(&sandbox).await;
    let pid = processes(&sandbox)[0];
    let Sandbox { running, dir } = sandbox;
    let begun = Instant::now();
    running.stop().await.unwrap();
    // It ignores SIGTERM, and the sandbox does not wait for as long as SageMaker does.
    until(|| (!alive(pid)).then_some(())).await;
    assert!(begun.elapsed() >= Duration::from_secs(4), "{:?}", begun.elapsed());
    until(|| (std::fs::read_dir(dir.path().join("state/runc")).unwrap().count() == 0).then_some(())).await;

    // The unpacked image is still good; its layers are not read again.
    let blobs = dir.path().join("state/ecr");
    let layers = std::fs::read_dir(&blobs).unwrap().map(|e| e.unwrap().path());
    layers.filter(|file| file.metadata().unwrap().len() > 10_000).for_each(|file| std::fs::remove_file(file).unwrap());
    let sandbox = Sandbox::again_with(dir, |s| s.containers = Arc::new(Containers::new(Choice::Runc))).await;
    let told = loop {
        let reply = sandbox.send("/endpoints/e/invocations", &[], b"{}", Some(&admin()), "sagemaker").await;
        if reply.status() == 200 {
            break reply.text();
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{}\n{:?}", reply.text(), sandbox.lines(LOGS));
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(told.contains("env MODE: stubborn"), "{told}");
    // Dropped, it waits for nothing.
    let pid = processes(&sandbox)[0];
    drop(sandbox);
    until(|| (!alive(pid)).then_some(())).await;
}
