//! Which container tool works here.

use std::time::Duration;

use super::runner::{Invocation, Runner, probe};
use crate::config::Builder;
use crate::error::{Error, Result};

/// How long a tool may take to answer a question. An engine on another machine that is gone would hang for minutes.
const PROBE_LIMIT: Duration = Duration::from_secs(20);

/// A container tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolKind {
    /// `docker buildx build`, which pushes by itself.
    Buildx,
    /// `docker build`, `docker push`.
    Docker,
    /// `podman build`, `podman push`.
    Podman,
    /// `buildah build`, `buildah push`.
    Buildah,
}

impl ToolKind {
    /// As in the config file.
    pub fn name(self) -> &'static str {
        match self {
            ToolKind::Buildx => "docker buildx",
            ToolKind::Docker => "docker",
            ToolKind::Podman => "podman",
            ToolKind::Buildah => "buildah",
        }
    }

    /// The program in PATH.
    pub fn program(self) -> &'static str {
        match self {
            ToolKind::Buildx | ToolKind::Docker => "docker",
            ToolKind::Podman => "podman",
            ToolKind::Buildah => "buildah",
        }
    }
}

/// A container tool that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Which.
    pub kind: ToolKind,
    /// What it calls its version; for messages.
    pub version: String,
    /// Podman and buildah: value of `--isolation`, where the default would not work.
    pub isolation: Option<String>,
    /// Docker: the command line is so old that BuildKit must be asked for (`DOCKER_BUILDKIT=1`).
    pub ask_for_buildkit: bool,
}

/// Finds container tools.
#[derive(Debug)]
pub struct Builders;

impl Builders {
    /// The configured tool, or the first of docker buildx, docker, podman, buildah that works.
    ///
    /// # Errors
    /// None works, with the reason for each; or the configured one does not.
    pub async fn detect(choice: Builder, runner: &dyn Runner) -> Result<Tool> {
        detect(choice, runner, &Surroundings::here()).await
    }
}

/// What of this process's surroundings matters.
#[derive(Debug, Clone, Default)]
pub(super) struct Surroundings {
    /// Effective user id 0.
    pub(super) root: bool,
    /// `BUILDAH_ISOLATION` is set: the user decided.
    pub(super) isolation_decided: bool,
}

impl Surroundings {
    fn here() -> Self {
        Surroundings {
            root: rustix::process::geteuid().is_root(),
            isolation_decided: std::env::var_os("BUILDAH_ISOLATION").is_some_and(|v| !v.is_empty()),
        }
    }
}

pub(super) async fn detect(choice: Builder, runner: &dyn Runner, here: &Surroundings) -> Result<Tool> {
    let wanted: &[ToolKind] = match choice {
        Builder::Auto => &[ToolKind::Buildx, ToolKind::Docker, ToolKind::Podman, ToolKind::Buildah],
        Builder::Buildx => &[ToolKind::Buildx],
        Builder::Docker => &[ToolKind::Docker],
        Builder::Podman => &[ToolKind::Podman],
        Builder::Buildah => &[ToolKind::Buildah],
    };
    let mut reasons = Vec::new();
    for kind in wanted {
        match try_tool(*kind, runner, here).await {
            Ok(tool) => return Ok(tool),
            Err(reason) => reasons.push(format!("{}: {reason}", kind.name())),
        }
    }
    let mut error = match choice {
        Builder::Auto => Error::failed("the inference image must be built, and no container tool works here"),
        _ => Error::failed(format!("image.builder is {}, which does not work here", wanted[0].name())),
    };
    for reason in reasons {
        error = error.why(reason);
    }
    let other = if choice == Builder::Auto { "" } else { ", or remove image.builder to use any tool that works" };
    Err(error.next(format!(
        "install one (Debian and Ubuntu: apt-get install buildah) or start the Docker engine{other}. An image that is \
         built elsewhere needs none: set image.uri"
    )))
}

/// The tool to build and then run a container with: Docker, building by buildx where there is one, else podman. A
/// configured buildah is passed over, for it runs nothing.
pub(super) async fn detect_runner(choice: Builder, runner: &dyn Runner) -> Result<Tool> {
    let here = Surroundings::here();
    let docker = matches!(choice, Builder::Auto | Builder::Buildah | Builder::Buildx | Builder::Docker);
    let podman = matches!(choice, Builder::Auto | Builder::Buildah | Builder::Podman);
    let mut reasons = Vec::new();
    if docker {
        match try_tool(ToolKind::Docker, runner, &here).await {
            Ok(engine) if choice == Builder::Docker => return Ok(engine),
            Ok(engine) => return Ok(try_tool(ToolKind::Buildx, runner, &here).await.unwrap_or(engine)),
            Err(reason) => reasons.push(format!("docker: {reason}")),
        }
    }
    if podman {
        match try_tool(ToolKind::Podman, runner, &here).await {
            Ok(tool) => return Ok(tool),
            Err(reason) => reasons.push(format!("podman: {reason}")),
        }
    }
    if choice == Builder::Buildah || try_tool(ToolKind::Buildah, runner, &here).await.is_ok() {
        reasons.push("buildah: builds images, but does not run ComfyUI's editor with a port of this machine".into());
    }
    let mut error = Error::failed("ComfyUI must run in a container, and no tool that runs one works here");
    for reason in reasons {
        error = error.why(reason);
    }
    Err(error.next("install podman (Debian and Ubuntu: apt-get install podman) or Docker, or start the Docker engine"))
}

/// A question to a program, with the limit for answering it.
pub(super) fn question(program: &str, args: &[&str]) -> Invocation {
    Invocation::new(program, args).limit(PROBE_LIMIT)
}

async fn try_tool(kind: ToolKind, runner: &dyn Runner, here: &Surroundings) -> Result<Tool, String> {
    let program = kind.program();
    let ask = async |args: &[&str]| probe(runner, &question(program, args)).await;
    let tool = |version: &str, isolation, ask_for_buildkit| Tool {
        kind,
        version: version.trim().to_owned(),
        isolation,
        ask_for_buildkit,
    };
    match kind {
        ToolKind::Buildx => {
            let Some(version) = ask(&["buildx", "version"]).await else {
                return Err("not installed".into());
            };
            if ask(&["info", "--format", "{{.ServerVersion}}"]).await.is_some_and(|v| !v.trim().is_empty()) {
                return Ok(tool(&version, None, false));
            }
            // A builder on another machine or in a cluster needs no local engine.
            let inspected = ask(&["buildx", "inspect"]).await.unwrap_or_default();
            let remote = inspected.lines().any(|line| {
                line.strip_prefix("Driver:").is_some_and(|d| matches!(d.trim(), "remote" | "kubernetes" | "cloud"))
            });
            if remote { Ok(tool(&version, None, false)) } else { Err("the Docker engine does not answer".into()) }
        }
        ToolKind::Docker => {
            let Some(server) = ask(&["info", "--format", "{{.ServerVersion}}"]).await.filter(|v| !v.trim().is_empty())
            else {
                return Err(match ask(&["--version"]).await {
                    Some(_) => "the Docker engine does not answer (docker info fails)".into(),
                    None => "not installed".into(),
                });
            };
            // From 23 on the command line uses buildx, or the old builder where there is none: then asking for
            // BuildKit is an error. Before, the engine has it built in.
            let client = ask(&["version", "--format", "{{.Client.Version}}"]).await.unwrap_or_default();
            let major = client.trim().split('.').next().and_then(|n| n.parse::<u32>().ok());
            Ok(tool(&server, None, major.is_some_and(|major| major < 23)))
        }
        ToolKind::Podman | ToolKind::Buildah => {
            let Some(version) = ask(&["--version"]).await else {
                return Err("not installed".into());
            };
            if ask(&["info"]).await.is_none() {
                return Err(format!("{program} info fails; run it to see why"));
            }
            // As root, usually in a container of a CI system: runtimes there fail on cgroups and limits that were
            // not given to the container; chroot needs neither. Rootless, the default works.
            let isolation = (here.root && !here.isolation_decided).then(|| "chroot".to_owned());
            Ok(tool(version.trim(), isolation, false))
        }
    }
}

#[cfg(test)]
mod tests;
