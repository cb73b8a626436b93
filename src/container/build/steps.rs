//! The command lines of each tool. Pure.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::container::detect::{Tool, ToolKind};
use crate::container::runner::Invocation;
use crate::local::image::ImageContext;

/// What a command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Builds only.
    Build,
    /// Pushes (buildx: builds and pushes); may be repeated with a new login.
    Push,
    /// Prints the pushed digest.
    Digest,
    /// Drops the build tag from the tool's own store; run also after a failure.
    CleanUp,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) purpose: Purpose,
    pub(super) invocation: Invocation,
}

/// Files in the credential directory.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) auth: PathBuf,
    pub(super) digest: PathBuf,
    pub(super) metadata: PathBuf,
}

impl Tool {
    /// Whether one command does both.
    pub(super) fn pushes_while_building(&self) -> bool {
        self.kind == ToolKind::Buildx
    }

    /// Frees disk space.
    pub(super) fn prune_command(&self) -> &'static str {
        match self.kind {
            ToolKind::Buildx => "docker buildx prune",
            ToolKind::Docker => "docker system prune",
            ToolKind::Podman => "podman system prune",
            ToolKind::Buildah => "buildah rmi --prune",
        }
    }
}

/// The commands of one build and push, in order.
pub(super) fn steps(tool: &Tool, context: &ImageContext, reference: &str, insecure: bool, files: &Files) -> Vec<Step> {
    match tool.kind {
        ToolKind::Buildx => vec![buildx(context, reference, insecure, files)],
        ToolKind::Docker => docker(tool, context, reference),
        ToolKind::Podman | ToolKind::Buildah => buildah(tool, context, reference, insecure, files),
    }
}

fn buildx(context: &ImageContext, reference: &str, insecure: bool, files: &Files) -> Step {
    let mut run = Invocation::new("docker", &["buildx", "build", "--progress", "plain"]);
    common(&mut run, context);
    // Each of the three is needed: attestations make an index, and without the media types the single manifest that
    // is left is still OCI, which SageMaker refuses too.
    run.args(&["--provenance=false", "--sbom=false"]);
    let mut output = format!("type=image,name={reference},push=true,oci-mediatypes=false");
    if insecure {
        output.push_str(",registry.insecure=true");
    }
    run.arg("--output").arg(output);
    run.arg("--metadata-file").arg(&files.metadata);
    run.arg(&context.dir);
    run.env.insert("BUILDX_NO_DEFAULT_ATTESTATIONS".into(), "1".into());
    Step { purpose: Purpose::Push, invocation: run }
}

fn docker(tool: &Tool, context: &ImageContext, reference: &str) -> Vec<Step> {
    let mut build = Invocation::new("docker", &["build"]);
    common(&mut build, context);
    tags(&mut build, reference);
    build.arg(&context.dir);
    // `docker build` may be BuildKit, which would add attestations and print for a terminal.
    build.env.insert("BUILDX_NO_DEFAULT_ATTESTATIONS".into(), "1".into());
    build.env.insert("BUILDKIT_PROGRESS".into(), "plain".into());
    if tool.ask_for_buildkit {
        build.env.insert("DOCKER_BUILDKIT".into(), "1".into());
    }
    let inspect = Invocation::new("docker", &["image", "inspect", "--format", "{{json .RepoDigests}}", reference]);
    vec![
        Step { purpose: Purpose::Build, invocation: build },
        Step { purpose: Purpose::Push, invocation: Invocation::new("docker", &["push", reference]) },
        Step { purpose: Purpose::Digest, invocation: inspect },
        Step { purpose: Purpose::CleanUp, invocation: Invocation::new("docker", &["image", "rm", reference]) },
    ]
}

fn buildah(tool: &Tool, context: &ImageContext, reference: &str, insecure: bool, files: &Files) -> Vec<Step> {
    let program = tool.kind.program();
    // Both make OCI images unless told otherwise, twice: when building and when pushing.
    let mut build = Invocation::new(program, &["build", "--format", "docker", "--layers"]);
    if let Some(isolation) = &tool.isolation {
        build.args(&["--isolation", isolation]);
    }
    build.arg("--authfile").arg(&files.auth);
    if let Some(ignore) = &context.ignore_file {
        build.arg("--ignorefile").arg(ignore);
    }
    common(&mut build, context);
    tags(&mut build, reference);
    build.arg(&context.dir);

    let mut push = Invocation::new(program, &["push", "--format", "v2s2"]);
    push.arg("--authfile").arg(&files.auth);
    push.arg("--digestfile").arg(&files.digest);
    if insecure {
        push.arg("--tls-verify=false");
    }
    push.arg(reference);
    vec![
        Step { purpose: Purpose::Build, invocation: build },
        Step { purpose: Purpose::Push, invocation: push },
        Step { purpose: Purpose::CleanUp, invocation: Invocation::new(program, &["rmi", reference]) },
    ]
}

/// The command of a build that stays on this machine, under one name.
pub(in crate::container) fn local_build(tool: &Tool, context: &ImageContext, image: &str) -> Invocation {
    let mut build = match tool.kind {
        // Where the builder is a container of its own, the engine has the image only when asked.
        ToolKind::Buildx => Invocation::new("docker", &["buildx", "build", "--load", "--provenance=false"]),
        ToolKind::Docker => Invocation::new("docker", &["build"]),
        ToolKind::Podman | ToolKind::Buildah => {
            Invocation::new(tool.kind.program(), &["build", "--format", "docker", "--layers"])
        }
    };
    match tool.kind {
        ToolKind::Buildx => {
            build.args(&["--progress", "plain"]);
        }
        ToolKind::Docker => {
            build.env.insert("BUILDKIT_PROGRESS".into(), "plain".into());
            if tool.ask_for_buildkit {
                build.env.insert("DOCKER_BUILDKIT".into(), "1".into());
            }
        }
        ToolKind::Podman | ToolKind::Buildah => {
            if let Some(isolation) = &tool.isolation {
                build.args(&["--isolation", isolation]);
            }
            if let Some(ignore) = &context.ignore_file {
                build.arg("--ignorefile").arg(ignore);
            }
        }
    }
    common(&mut build, context);
    build.args(&["--tag", image]);
    build.arg(&context.dir);
    build
}

/// What all understand alike.
fn common(run: &mut Invocation, context: &ImageContext) {
    run.args(&["--platform", &context.platform]);
    run.arg("--file").arg(&context.dockerfile);
    if let Some(target) = &context.target {
        run.args(&["--target", target]);
    }
    for (name, value) in &context.build_args {
        run.arg("--build-arg").arg(format!("{name}={value}"));
    }
}

/// The build tag, and one that stays: it keeps the layers as the next build's cache when the build tag is dropped.
fn tags(run: &mut Invocation, reference: &str) {
    let repository = reference.split_once('/').map_or(reference, |(_, rest)| rest);
    let repository = repository.rsplit_once(':').map_or(repository, |(name, _)| name);
    run.args(&["--tag", reference, "--tag", &format!("localhost/comfy-deploy/{repository}:last")]);
}

/// The digest in the output of `docker image inspect`.
pub(super) fn repo_digest(stdout: &str, reference: &str) -> Option<String> {
    let name = reference.rsplit_once(':').map_or(reference, |(name, _)| name);
    let digests: Vec<String> = serde_json::from_str(stdout.trim()).ok()?;
    digests.iter().find_map(|entry| Some(entry.strip_prefix(name)?.strip_prefix('@')?.to_owned()))
}

/// The digest that buildx, podman or buildah wrote into a file.
pub(super) fn digest_of(files: &Files) -> Option<String> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let plain = read(&files.digest).map(|text| text.trim().to_owned());
    let metadata = || {
        let metadata: Value = serde_json::from_str(&read(&files.metadata)?).ok()?;
        Some(metadata.get("containerimage.digest")?.as_str()?.to_owned())
    };
    plain.or_else(metadata).filter(|digest| digest.starts_with("sha256:"))
}
