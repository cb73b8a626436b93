//! ComfyUI with its editor in a container on this machine: what can run it, and the command lines.

mod session;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use super::build::local_build;
use super::detect::{Tool, ToolKind, detect_runner, question};
use super::runner::{Invocation, Runner, probe};
use crate::config::Builder;
use crate::error::{Error, Result};
use crate::local::image::ImageContext;

/// Where ComfyUI listens in the container.
const INSIDE: u16 = 8188;
/// Where the models are in the container, as on SageMaker.
const MODELS: &str = "/opt/ml/model";
/// What ComfyUI writes to in the container: the directories below are those of the Dockerfile's target `gui`.
const DATA: &str = "/var/lib/comfyui";
/// Directories of ComfyUI in the data directory; it wants them to exist.
pub const DATA_DIRS: [&str; 3] = ["input", "output", "user"];
/// Seconds until ComfyUI is killed that does not end when asked; it needs up to 4.
const STOP_SECONDS: &str = "10";

/// What runs containers here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// Builds and runs.
    pub tool: Tool,
    /// The arguments that give a container the GPU; or why there is none.
    pub gpu: std::result::Result<Vec<String>, String>,
    /// The engine runs as this user, so that root in the container is this user.
    pub rootless: bool,
}

/// One run of the editor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gui {
    /// Name of the container.
    pub name: String,
    /// The image, in the tool's own store.
    pub image: String,
    /// Port on 127.0.0.1.
    pub port: u16,
    /// Directory with the models, absolute.
    pub models: PathBuf,
    /// Directory that keeps workflows, settings and pictures, absolute.
    pub data: PathBuf,
    /// User and group of this process.
    pub user: (u32, u32),
    /// Do not use a GPU even if there is one.
    pub cpu: bool,
}

impl Engine {
    /// Finds what can run a container, and whether with a GPU. buildah cannot, so it is passed over.
    ///
    /// # Errors
    /// Neither Docker nor podman works, with the reason for each.
    pub async fn detect(choice: Builder, runner: &dyn Runner) -> Result<Self> {
        let tool = detect_runner(choice, runner).await?;
        let ask =
            async |program: &str, args: &[&str]| probe(runner, &question(program, args)).await.unwrap_or_default();
        if tool.kind == ToolKind::Podman {
            let devices = ask("nvidia-ctk", &["cdi", "list"]).await;
            let all = "nvidia.com/gpu=all";
            let gpu = if devices.lines().any(|line| line.trim() == all) {
                Ok(vec!["--device".into(), all.into()])
            } else {
                Err("podman knows no NVIDIA device (nvidia-ctk cdi list); the NVIDIA container toolkit says how: \
                     nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
                    .into())
            };
            let rootless = ask("podman", &["info", "--format", "{{.Host.Security.Rootless}}"]).await.trim() == "true";
            return Ok(Engine { tool, gpu, rootless });
        }
        let runtimes = ask("docker", &["info", "--format", "{{json .Runtimes}}"]).await;
        let gpu = if runtimes.contains("\"nvidia\"") {
            Ok(vec!["--gpus".into(), "all".into()])
        } else {
            Err("Docker has no NVIDIA runtime; install the NVIDIA container toolkit and run: nvidia-ctk runtime configure"
                .into())
        };
        let rootless = ask("docker", &["info", "--format", "{{json .SecurityOptions}}"]).await.contains("rootless");
        Ok(Engine { tool, gpu, rootless })
    }

    /// The command that builds the image into the tool's own store.
    pub fn build(&self, context: &ImageContext, image: &str) -> Invocation {
        local_build(&self.tool, context, image)
    }

    /// The command that runs ComfyUI until it is stopped.
    ///
    /// # Errors
    /// A directory whose name the tools cannot be told.
    pub fn run(&self, gui: &Gui) -> Result<Invocation> {
        let mut run = Invocation::new(self.tool.kind.program(), &["run", "--rm", "--name", &gui.name]);
        // This machine only: ComfyUI asks nobody for a password.
        run.arg("--publish").arg(format!("127.0.0.1:{}:{INSIDE}", gui.port));
        run.arg("--mount").arg(mount(&gui.models, MODELS, true)?);
        run.arg("--mount").arg(mount(&gui.data, DATA, false)?);
        if self.tool.kind == ToolKind::Podman {
            // Where SELinux is on, a container may not read directories of the user otherwise; relabelling would change them.
            run.args(&["--security-opt", "label=disable"]);
        }
        if !self.rootless {
            // What ComfyUI saves belongs to the user who runs this, not to root. Such a user has no entry in the
            // container, so libraries that ask for home and name are told.
            run.arg("--user").arg(format!("{}:{}", gui.user.0, gui.user.1));
            run.args(&["--env", &format!("HOME={DATA}/user"), "--env", "USER=comfy"]);
        }
        match &self.gpu {
            Ok(gpu) if !gui.cpu => run.args.extend(gpu.iter().map(Into::into)),
            _ => {}
        }
        run.arg(&gui.image);
        if gui.cpu || self.gpu.is_err() {
            run.arg("--cpu");
        }
        Ok(run)
    }

    /// The command that ends it as ComfyUI wants to be ended.
    pub fn stop(&self, gui: &Gui) -> Invocation {
        Invocation::new(self.tool.kind.program(), &["stop", "--time", STOP_SECONDS, &gui.name])
    }
}

/// A bind mount. Not `--volume`, which would create what is missing and split at colons.
fn mount(source: &Path, target: &str, readonly: bool) -> Result<String> {
    let shown = source.display().to_string();
    // The tools read the value as a line of comma-separated values.
    if shown.contains([',', '"', '\n']) {
        return Err(Error::usage(format!("{shown:?} cannot be mounted into a container"))
            .why("a comma or quote in the name is a separator to the container tools")
            .next("rename the directory, or name another one"));
    }
    Ok(format!("type=bind,source={shown},target={target}{}", if readonly { ",readonly" } else { "" }))
}

/// A command as one types it into a shell.
pub fn shell_line(invocation: &Invocation) -> String {
    let plain =
        |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_=./:@,+".contains(c));
    let quoted = |word: &str| if plain(word) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) };
    let env = invocation.env.iter().map(|(name, value)| format!("{name}={}", quoted(&value.to_string_lossy())));
    let program = std::iter::once(quoted(&invocation.program));
    let args = invocation.args.iter().map(|arg| quoted(&arg.to_string_lossy()));
    env.chain(program).chain(args).collect::<Vec<_>>().join(" ")
}
