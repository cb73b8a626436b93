//! Which container engine works here.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{docker, runc};

/// How long an engine may take for an answer: a daemon that hangs is one that does not work.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which engine is to run the images of endpoints.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// The first of docker, podman and runc (as root) that works; else none.
    Auto,
    /// docker.
    Docker,
    /// podman.
    Podman,
    /// runc by itself, which needs root.
    Runc,
    /// comfy-serve stands for the image, as a process.
    #[default]
    None,
}

/// An engine that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// docker, or podman, whose command line is the same.
    Docker(PathBuf),
    /// runc.
    Runc(PathBuf),
}

impl Engine {
    /// Whether it can execute what instances of this type can: docker's machine may be emulated, runc has this one.
    pub fn executes(&self, instance_type: &str) -> bool {
        let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        matches!(self, Engine::Docker(_)) || super::image::machine(instance_type) == own
    }
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Engine::Docker(program) | Engine::Runc(program)) = self;
        f.write_str(&program.file_name().unwrap_or_default().to_string_lossy())
    }
}

/// The engine of a choice; none where none is to be, or `auto` finds none.
///
/// # Errors
/// Why the one that was chosen does not work.
pub(super) async fn find(choice: Choice) -> Result<Option<Engine>, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names: &[&str] = match choice {
        Choice::None => return Ok(None),
        Choice::Docker => &["docker"],
        Choice::Podman => &["podman"],
        Choice::Runc => &["runc"],
        Choice::Auto => &["docker", "podman", "runc"],
    };
    let mut why = String::new();
    for name in names {
        let tried = match program(name, &path) {
            Some(program) => works(name, program).await,
            None => Err("it is not on the PATH".to_owned()),
        };
        match tried {
            Ok(engine) => return Ok(Some(engine)),
            Err(reason) => {
                tracing::debug!(engine = name, %reason, "does not work");
                why = format!("{name} does not work here: {}", reason.trim());
            }
        }
    }
    if choice == Choice::Auto { Ok(None) } else { Err(why) }
}

async fn works(name: &str, program: PathBuf) -> Result<Engine, String> {
    if name != "runc" {
        docker::works(&program).await?;
        return Ok(Engine::Docker(program));
    }
    if !rustix::process::geteuid().is_root() {
        return Err("it needs root".to_owned());
    }
    runc::works(&program).await?;
    Ok(Engine::Runc(program))
}

fn program(name: &str, path: &OsStr) -> Option<PathBuf> {
    let executable =
        |file: &PathBuf| file.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    std::env::split_paths(path).map(|dir| dir.join(name)).find(executable)
}

/// What a command left.
pub(super) struct Said {
    /// None where a signal ended it.
    pub code: Option<i32>,
    pub out: String,
    /// Of stderr.
    pub text: String,
}

/// Runs a short command to its end.
pub(super) async fn said(mut command: Command) -> Result<Said, String> {
    command.stdin(Stdio::null());
    let running = tokio::process::Command::from(command).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, running).await;
    let output =
        output.map_err(|_| format!("no answer in {} seconds", PATIENCE.as_secs()))?.map_err(|e| e.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said { code: output.status.code(), out: text(&output.stdout), text: text(&output.stderr) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        for dir in [&one, &two] {
            std::fs::create_dir(dir).unwrap();
            std::fs::write(dir.join("docker"), "").unwrap();
        }
        let path = std::env::join_paths([&one, &two]).unwrap();
        assert_eq!(program("docker", &path), None, "not executable");
        std::fs::set_permissions(two.join("docker"), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(program("docker", &path), Some(two.join("docker")));
    }

    #[tokio::test]
    async fn nothing_is_tried_where_nothing_is_to_run() {
        assert_eq!(find(Choice::None).await, Ok(None));
    }
}
