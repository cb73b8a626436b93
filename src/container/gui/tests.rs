use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, watch};

use super::*;
use crate::container::runner::{Cancel, Exit, OnLine, Stream};
use crate::error::Kind;

/// Answers command lines from a table; what is not in it does not exist.
struct Table(Vec<(&'static str, i32, &'static str)>);

#[async_trait]
impl Runner for Table {
    async fn run(&self, invocation: &Invocation, _: &Cancel, line: &mut OnLine<'_>) -> io::Result<Exit> {
        assert!(invocation.limit.is_some(), "{invocation:?} may hang for ever");
        let command = shell_line(invocation);
        match self.0.iter().find(|(known, ..)| *known == command) {
            Some((_, code, out)) => {
                out.lines().for_each(|l| line(Stream::Out, l));
                Ok(Exit::Code(*code))
            }
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

const SERVER: (&str, i32, &str) = ("docker info --format '{{.ServerVersion}}'", 0, "28.2.2");
const BUILDX: (&str, i32, &str) = ("docker buildx version", 0, "v0.24.0");
const NVIDIA: (&str, i32, &str) = ("docker info --format '{{json .Runtimes}}'", 0, r#"{"nvidia":{},"runc":{}}"#);
const PODMAN: [(&str, i32, &str); 2] = [("podman --version", 0, "podman version 4.3.1"), ("podman info", 0, "host:")];
const BUILDAH: [(&str, i32, &str); 2] = [("buildah --version", 0, "buildah version 1.28.2"), ("buildah info", 0, "{}")];

async fn engine(choice: Builder, table: &[(&'static str, i32, &'static str)]) -> Result<Engine> {
    Engine::detect(choice, &Table(table.to_vec())).await
}

fn gui() -> Gui {
    Gui {
        name: "comfy-gui-app".into(),
        image: "localhost/comfy-deploy/app:gui".into(),
        port: 9000,
        models: "/home/me/my models".into(),
        data: "/home/me/gui-data".into(),
        user: (1000, 100),
        cpu: false,
    }
}

fn context() -> ImageContext {
    ImageContext {
        tag: "c-1".into(),
        dir: "image".into(),
        dockerfile: "image/Dockerfile".into(),
        ignore_file: Some("image/.dockerignore".into()),
        build_args: BTreeMap::from([("COMFYUI_GIT_REF".into(), "abc".into())]),
        target: Some("gui".into()),
        platform: "linux/amd64".into(),
        files: 1,
        bytes: 1,
    }
}

#[tokio::test]
async fn docker_with_a_gpu() {
    let engine = engine(Builder::Auto, &[SERVER, BUILDX, NVIDIA]).await.expect("works");
    assert_eq!(
        shell_line(&engine.build(&context(), "i:gui")),
        "docker buildx build --load --provenance=false --progress plain --platform linux/amd64 --file image/Dockerfile \
         --target gui --build-arg COMFYUI_GIT_REF=abc --tag i:gui image"
    );
    assert_eq!(
        shell_line(&engine.run(&gui()).expect("a command")),
        "docker run --rm --name comfy-gui-app --publish 127.0.0.1:9000:8188 --mount \
         'type=bind,source=/home/me/my models,target=/opt/ml/model,readonly' --mount \
         type=bind,source=/home/me/gui-data,target=/var/lib/comfyui --user 1000:100 --env HOME=/var/lib/comfyui/user \
         --env USER=comfy --gpus all localhost/comfy-deploy/app:gui"
    );
    let without = shell_line(&engine.run(&Gui { cpu: true, ..gui() }).expect("a command"));
    assert!(!without.contains("--gpus") && without.ends_with(":gui --cpu"), "{without}");
    assert_eq!(shell_line(&engine.stop(&gui())), "docker stop --time 10 comfy-gui-app");
}

#[tokio::test]
async fn docker_without_a_gpu_and_rootless() {
    let rootless = ("docker info --format '{{json .SecurityOptions}}'", 0, r#"["name=rootless"]"#);
    let engine = engine(Builder::Docker, &[SERVER, BUILDX, rootless]).await.expect("works");
    assert_eq!(engine.tool.kind, ToolKind::Docker, "buildx was not asked for");
    assert!(engine.gpu.as_ref().is_err_and(|why| why.contains("nvidia-ctk")), "{:?}", engine.gpu);
    let run = shell_line(&engine.run(&gui()).expect("a command"));
    assert!(run.ends_with("localhost/comfy-deploy/app:gui --cpu") && !run.contains("--user"), "{run}");
}

#[tokio::test]
async fn podman_with_and_without_a_gpu() {
    let devices = ("nvidia-ctk cdi list", 0, "nvidia.com/gpu=0\nnvidia.com/gpu=all\n");
    let root = ("podman info --format '{{.Host.Security.Rootless}}'", 0, "false");
    let mut table = vec![devices, root];
    table.extend(PODMAN);
    let run = engine(Builder::Auto, &table).await.expect("works").run(&gui()).expect("a command");
    let run = shell_line(&run);
    for part in ["podman run", "--security-opt label=disable", "--user 1000:100", "--device nvidia.com/gpu=all"] {
        assert!(run.contains(part), "{part}: {run}");
    }
    let rootless = ("podman info --format '{{.Host.Security.Rootless}}'", 0, "true");
    let mut table = vec![("nvidia-ctk cdi list", 0, "nvidia.com/gpu=0\n"), rootless];
    table.extend(PODMAN);
    let engine = engine(Builder::Podman, &table).await.expect("works");
    let run = shell_line(&engine.run(&gui()).expect("a command"));
    assert!(run.ends_with("--cpu") && !run.contains("--user") && !run.contains("--device"), "{run}");
    assert!(shell_line(&engine.build(&context(), "i")).contains("--format docker"));
}

#[tokio::test]
async fn buildah_alone_is_not_enough() {
    for choice in [Builder::Auto, Builder::Buildah] {
        let error = engine(choice, &BUILDAH).await.expect_err("refused");
        let text = error.to_string() + &error.reasons().join("\n") + error.hint().unwrap_or_default();
        for part in ["docker: not installed", "podman: not installed", "buildah: builds images", "install podman"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    // Configured for `up`; for this another tool is taken.
    assert_eq!(engine(Builder::Buildah, &PODMAN).await.expect("works").tool.kind, ToolKind::Podman);
}

#[tokio::test]
async fn separators_in_directories_are_refused() {
    let engine = engine(Builder::Auto, &[SERVER]).await.expect("works");
    let error = engine.run(&Gui { models: "/a,readonly=false".into(), ..gui() }).expect_err("refused");
    assert_eq!(error.kind(), Kind::Usage);
}

#[test]
fn shell_lines_can_be_pasted() {
    let mut run = Invocation::new("docker", &["a b", "", "it's", "plain-1.0:x"]);
    run.env.insert("A".into(), "1 2".into());
    assert_eq!(shell_line(&run), r"A='1 2' docker 'a b' '' 'it'\''s' plain-1.0:x");
}

/// A container that ends when it is stopped, the second time it is asked.
#[derive(Default)]
struct Running {
    stopped: Notify,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Runner for Running {
    async fn run(&self, invocation: &Invocation, _: &Cancel, line: &mut OnLine<'_>) -> io::Result<Exit> {
        let verb = invocation.args[0].to_string_lossy().into_owned();
        if verb == "run" {
            line(Stream::Err, "Starting server");
            self.stopped.notified().await;
            return Ok(Exit::Code(130));
        }
        let mut asked = self.asked.lock().expect("lock");
        asked.push(verb);
        if asked.len() == 2 {
            self.stopped.notify_one();
            return Ok(Exit::Code(0));
        }
        line(Stream::Err, "no such container");
        Ok(Exit::Code(1))
    }
}

async fn docker() -> Engine {
    engine(Builder::Auto, &[SERVER, NVIDIA]).await.expect("works")
}

#[tokio::test]
async fn stopping_asks_until_it_ends() {
    let (stop, cancel) = watch::channel(false);
    let runner = Running::default();
    let mut lines = Vec::new();
    let mut line = |text: &str| {
        lines.push(text.to_owned());
        stop.send_replace(true);
    };
    docker().await.serve(&gui(), &runner, &mut line, &cancel).await.expect("stopped");
    assert_eq!(*runner.asked.lock().expect("lock"), ["stop", "stop"]);
    assert_eq!(lines, ["Starting server"]);
}

/// Never ends, whatever it is told.
struct Deaf;

#[async_trait]
impl Runner for Deaf {
    async fn run(&self, invocation: &Invocation, _: &Cancel, _: &mut OnLine<'_>) -> io::Result<Exit> {
        if invocation.args[0] == "run" {
            std::future::pending::<()>().await;
        }
        Ok(Exit::Code(0))
    }
}

#[tokio::test]
async fn what_does_not_stop_is_named() {
    let (stop, cancel) = watch::channel(false);
    stop.send_replace(true);
    let serving = docker().await;
    let (gui, mut line) = (gui(), |_: &str| {});
    let serving = serving.serve(&gui, &Deaf, &mut line, &cancel);
    let error = tokio::time::timeout(Duration::from_secs(60), serving).await.expect("ends").expect_err("fails");
    assert_eq!(error.hint(), Some("docker rm --force comfy-gui-app"));
}

/// Ends at once, with this code.
struct Ends(i32);

#[async_trait]
impl Runner for Ends {
    async fn run(&self, _: &Invocation, _: &Cancel, line: &mut OnLine<'_>) -> io::Result<Exit> {
        line(Stream::Err, "could not select device driver");
        Ok(Exit::Code(self.0))
    }
}

#[tokio::test]
async fn failures_carry_the_last_lines() {
    let (_keep, cancel) = watch::channel(false);
    let engine = docker().await;
    engine.serve(&gui(), &Ends(0), &mut |_| {}, &cancel).await.expect("ended by itself");
    let error = engine.serve(&gui(), &Ends(125), &mut |_| {}, &cancel).await.expect_err("fails");
    assert!(error.reasons()[0].contains("could not select device driver"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("--cpu")), "{error}");
    let silent = crate::progress::Silent;
    let error = engine.build_image(&context(), "i", &Ends(1), &silent, &cancel).await.expect_err("fails");
    assert!(error.hint().is_some_and(|hint| hint.contains("target `gui`")), "{error}");
}
