//! Containers by docker or podman. The image is handed over as it lies in the registry, so that no daemon has to reach
//! the sandbox, which some cannot: theirs is another machine.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::engine::{Said, said};
use super::{Image, MODEL, NotStarted, Order, PORT, Running, SERVE};
use crate::process::{Sink, Spawner};

/// What images are called in the engine.
const REPOSITORY: &str = "comfy-sandbox";
/// How often the engine is asked which port it published.
const LOOK: Duration = Duration::from_millis(50);
/// Exit codes of `docker run` by which it says that no container ran (Docker doc: docker run, exit status).
const NO_CONTAINER: std::ops::RangeInclusive<i32> = 125..=127;

/// Whether the engine works here: it answers, takes an image, and gets as far as not finding the program of a container
/// that has none.
pub(super) async fn works(tool: &Path) -> Result<(), String> {
    let command = |args: &[&str]| {
        let mut command = Command::new(tool);
        command.args(args);
        command
    };
    let info = said(command(&["info"])).await?;
    if info.code != Some(0) {
        return Err(info.text);
    }
    let name = format!("{REPOSITORY}:probe-{}", uuid::Uuid::new_v4().simple());
    load_archive(tool, |pipe| nothing(&name, pipe)).await.map_err(|e| e.to_string())?;
    let Said { code, text, .. } =
        said(command(&["run", "--rm", "--network", "none", "--entrypoint", "/none", &name])).await?;
    let _ = said(command(&["rmi", "--force", &name])).await;
    if code == Some(127) { Ok(()) } else { Err(text) }
}

/// An image without a file.
fn nothing(name: &str, out: &mut dyn Write) -> io::Result<()> {
    let layer = [0; 1024];
    let id = format!("sha256:{}", hex::encode(Sha256::digest(layer)));
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({"architecture": architecture, "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [id]}});
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(out);
    add(&mut archive, "config.json", config.to_string().as_bytes())?;
    add(&mut archive, "layer.tar", &layer)?;
    add(&mut archive, "manifest.json", manifest.to_string().as_bytes())?;
    archive.finish()
}

fn add(archive: &mut tar::Builder<&mut dyn Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, bytes)
}

/// Gives the engine an image unless it has it, and returns its name there.
pub(super) async fn load(tool: &Path, image: &Image, state: &Path) -> io::Result<String> {
    let name = format!("{REPOSITORY}:{}", image.name());
    let mut inspect = Command::new(tool);
    inspect.args(["image", "inspect", &name]);
    if said(inspect).await.is_ok_and(|said| said.code == Some(0)) {
        return Ok(name);
    }
    let (image, blobs, tag) = (image.clone(), crate::ecr::layer_dir(state), name.clone());
    load_archive(tool, move |pipe| whole(&image, &blobs, &tag, pipe)).await?;
    Ok(name)
}

/// An image as `docker save` writes it. Layers may be compressed in it.
fn whole(image: &Image, blobs: &Path, name: &str, out: &mut dyn Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(out);
    add(&mut archive, "config.json", &std::fs::read(image.config_file(blobs))?)?;
    let mut layers = Vec::new();
    for (at, file) in image.layers(blobs).iter().enumerate() {
        let layer = format!("{at}.tar");
        archive.append_file(&layer, &mut File::open(file)?)?;
        layers.push(layer);
    }
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": layers}]);
    add(&mut archive, "manifest.json", manifest.to_string().as_bytes())?;
    archive.finish()
}

/// `docker load` of what is written into it.
async fn load_archive(tool: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send) -> io::Result<()> {
    let mut command = Command::new(tool);
    command.args(["load", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut pipe = child.stdin.take();
    // However long it takes: an image may have gigabytes.
    let (written, output) = tokio::task::block_in_place(move || {
        let written = pipe.as_mut().map_or(Ok(()), |pipe| write(pipe));
        drop(pipe);
        (written, child.wait_with_output())
    });
    let output = output?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    written
}

/// Starts a container of an image that was loaded. Its network is the engine's own, with one port on loopback: what
/// EnableNetworkIsolation forbids is not forbidden here.
pub(super) async fn start(
    tool: &Path,
    image: &str,
    spawner: &Spawner,
    order: &Order<'_>,
    sink: Sink,
) -> Result<Running, NotStarted> {
    let mut command = Command::new(tool);
    // Attached, it hands signals on, and the engine removes the container at its end.
    command.args(["run", "--rm", "--pull", "never", "--name", order.name, "--hostname", order.name]);
    command.arg("--publish").arg(format!("127.0.0.1::{PORT}"));
    if let Some(model) = order.model {
        // As a field of CSV, which both tools read it as.
        let source = format!("\"source={}\"", model.display().to_string().replace('"', "\"\""));
        command.arg("--mount").arg(format!("type=bind,{source},target={MODEL},readonly"));
    }
    for (name, value) in order.environment {
        command.arg("--env").arg(format!("{name}={value}"));
    }
    command.args([image, SERVE]);
    let process = spawner.start(command, Signal::TERM, sink).await?;
    let mut force = Command::new(tool);
    force.args(["rm", "--force", order.name]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut running = Running { process, place: None, first: None, force: Some(force) };
    loop {
        let ended = running.ended();
        let mut port = Command::new(tool);
        port.args(["port", order.name, &format!("{PORT}/tcp")]);
        if let Ok(Said { code: Some(0), out, .. }) = said(port).await
            && let Some(address) = out.lines().find_map(|line| line.trim().parse::<std::net::SocketAddr>().ok())
        {
            running.place = Some(address.into());
            return Ok(running);
        }
        match ended {
            None => tokio::time::sleep(LOOK).await,
            Some(status) => {
                running.drained().await;
                return match status.code() {
                    Some(code) if NO_CONTAINER.contains(&code) => {
                        Err(NotStarted::Never(format!("the engine ended with {code}")))
                    }
                    _ => Ok(running),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    /// A tool that writes down what it is told, keeps what it is to load, and runs what `run` says.
    fn tool(dir: &Path, run: &str, port: &str) -> std::path::PathBuf {
        let file = dir.join("docker");
        let at = dir.display();
        let script = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$@\" > '{at}/'$1\ncase $1 in image) exit 1;; load) cat > '{at}/archive.tar';; \
             run) {run};; port) {port};; esac\n"
        );
        std::fs::write(&file, script).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        file
    }

    async fn started(
        run: &str,
        port: &str,
    ) -> (tempfile::TempDir, Result<Running, NotStarted>, Arc<Mutex<Vec<String>>>) {
        let dir = tempfile::tempdir().unwrap();
        let tool = tool(dir.path(), run, port);
        let blobs = crate::ecr::layer_dir(dir.path());
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join("c"), "{}").unwrap();
        std::fs::write(blobs.join("l"), "layer").unwrap();
        let image = Image::for_test(&["sha256:l"]);
        let name = load(&tool, &image, dir.path()).await.unwrap();
        let environment = BTreeMap::from([("A".to_owned(), "a b".to_owned())]);
        let model = Path::new("/models/a,\"b\"");
        let (at, model) = (dir.path(), Some(model));
        let order = Order { image: &image, name: "i-1", dir: at, state: at, model, environment: &environment };
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        let running =
            start(&tool, &name, &Spawner::default(), &order, Box::new(move |line| sink.lock().push(line))).await;
        (dir, running, lines)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_image_is_handed_over_and_run_with_serve() {
        let (dir, running, _) = started("exec sleep 1000", "echo 127.0.0.1:77").await;
        let running = running.unwrap();
        assert_eq!(running.place().unwrap().address().to_string(), "127.0.0.1:77");
        let told = std::fs::read_to_string(dir.path().join("run")).unwrap();
        let told: Vec<&str> = told.lines().collect();
        let mount = "type=bind,\"source=/models/a,\"\"b\"\"\",target=/opt/ml/model,readonly";
        for pair in [["--mount", mount], ["--env", "A=a b"], ["--publish", "127.0.0.1::8080"], ["--pull", "never"]] {
            assert!(told.windows(2).any(|words| words == pair), "{pair:?} in {told:?}");
        }
        assert_eq!(told.last(), Some(&"serve"));
        let mut archive = tar::Archive::new(File::open(dir.path().join("archive.tar")).unwrap());
        let names: Vec<_> =
            archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names, ["config.json", "0.tar", "manifest.json"]);
        running.stop(Duration::from_secs(5)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_container_is_not_a_container_that_ended() {
        let (_dir, running, lines) = started("echo no such program; exit 127", "exit 1").await;
        assert!(matches!(running, Err(NotStarted::Never(_))), "{running:?}");
        assert_eq!(*lines.lock(), ["no such program"]);
        let (_dir, running, _) = started("exit 3", "exit 1").await;
        let running = running.unwrap();
        assert!(running.place().is_none());
        assert_eq!(running.wait().await.code(), Some(3));
    }
}
