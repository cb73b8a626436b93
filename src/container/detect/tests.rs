use std::io;

use async_trait::async_trait;

use super::*;
use crate::container::runner::{Cancel, Exit, OnLine, Stream};

/// Answers command lines from a table; what is not in it does not exist.
struct Table(&'static [(&'static str, i32, &'static str)]);

#[async_trait]
impl Runner for Table {
    async fn run(&self, invocation: &Invocation, _: &Cancel, line: &mut OnLine<'_>) -> io::Result<Exit> {
        let args: Vec<_> = invocation.args.iter().map(|a| a.to_string_lossy()).collect();
        let command = format!("{} {}", invocation.program, args.join(" "));
        assert!(invocation.limit.is_some(), "{command} may hang for ever");
        match self.0.iter().find(|(known, ..)| *known == command) {
            Some((_, code, out)) => {
                out.lines().for_each(|l| line(Stream::Out, l));
                line(Stream::Err, "time=\"...\" level=warning msg=\"CNI\"");
                Ok(Exit::Code(*code))
            }
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

const ENGINE: (&str, i32, &str) = ("docker info --format {{.ServerVersion}}", 0, "28.2.2");
const NO_ENGINE: (&str, i32, &str) = ("docker info --format {{.ServerVersion}}", 1, "");
const BUILDX: (&str, i32, &str) = ("docker buildx version", 0, "github.com/docker/buildx v0.24.0");
const NO_BUILDX: (&str, i32, &str) = ("docker buildx version", 1, "");

async fn kind(table: Table) -> ToolKind {
    Builders::detect(Builder::Auto, &table).await.expect("a tool").kind
}

#[tokio::test]
async fn the_first_that_works() {
    assert_eq!(kind(Table(&[BUILDX, ENGINE])).await, ToolKind::Buildx);
    assert_eq!(kind(Table(&[NO_BUILDX, ENGINE])).await, ToolKind::Docker);
    let podman = [BUILDX, NO_ENGINE, ("podman --version", 0, "podman version 4.3.1"), ("podman info", 0, "host:")];
    assert_eq!(kind(Table(Box::leak(Box::new(podman)))).await, ToolKind::Podman);
    // Podman is there and does not work.
    let buildah = [
        ("podman --version", 0, "podman version 4.3.1"),
        ("podman info", 125, ""),
        ("buildah --version", 0, "buildah version 1.28.2"),
        ("buildah info", 0, "{}"),
    ];
    assert_eq!(kind(Table(Box::leak(Box::new(buildah)))).await, ToolKind::Buildah);
}

#[tokio::test]
async fn a_remote_builder_needs_no_engine() {
    let remote = Table(&[BUILDX, NO_ENGINE, ("docker buildx inspect", 0, "Name:   far\nDriver: kubernetes\n")]);
    assert_eq!(kind(remote).await, ToolKind::Buildx);
    let local = Table(&[BUILDX, NO_ENGINE, ("docker buildx inspect", 0, "Name: default\nDriver: docker\n")]);
    assert!(Builders::detect(Builder::Buildx, &local).await.is_err());
}

#[tokio::test]
async fn isolation_for_root_unless_the_user_decided() {
    let table = Table(&[("buildah --version", 0, "buildah version 1.28.2"), ("buildah info", 0, "{}")]);
    for (root, decided, expected) in
        [(true, false, Some("chroot")), (true, true, None), (false, false, None), (false, true, None)]
    {
        let here = Surroundings { root, isolation_decided: decided };
        let tool = detect(Builder::Buildah, &table, &here).await.expect("a tool");
        assert_eq!(tool.isolation.as_deref(), expected);
        assert_eq!(tool.version, "buildah version 1.28.2");
    }
}

#[tokio::test]
async fn old_command_lines_are_asked_for_buildkit() {
    let version = "docker version --format {{.Client.Version}}";
    let old = [ENGINE, (version, 0, "20.10.24+dfsg1")];
    assert!(
        Builders::detect(Builder::Docker, &Table(Box::leak(Box::new(old)))).await.expect("docker").ask_for_buildkit
    );
    let new = [ENGINE, (version, 0, "28.2.2")];
    assert!(
        !Builders::detect(Builder::Docker, &Table(Box::leak(Box::new(new)))).await.expect("docker").ask_for_buildkit
    );
}

#[tokio::test]
async fn none_or_not_the_configured_one() {
    let error = Builders::detect(Builder::Auto, &Table(&[])).await.expect_err("nothing there");
    let text = error.to_string();
    for tool in ["docker buildx: not installed", "docker: not installed", "podman: not", "buildah: not"] {
        assert!(text.contains(tool), "{text}");
    }
    assert!(error.hint().is_some_and(|hint| hint.contains("apt-get install buildah") && hint.contains("image.uri")));

    let stopped = Table(&[NO_ENGINE, ("docker --version", 0, "Docker version 28.2.2")]);
    let error = Builders::detect(Builder::Docker, &stopped).await.expect_err("no engine");
    assert!(error.to_string().contains("engine does not answer"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("image.builder")));
}
