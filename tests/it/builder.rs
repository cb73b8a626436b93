//! A stand-in for buildah on the PATH: a script whose push is done by the test, so that a build and what goes wrong in
//! it takes no image, no root and no time.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{App, Ran, Sandbox};

/// The script. Its directory is where it and the test leave each other notes:
/// `hang` - the build does not end; `deaf` - not even when asked to; `fail` - the build fails with this text; `refuse` - the push fails with this text;
/// `push` - the reference to push; `pushed` - the digest once the test has pushed it; `pid` - of a build that hangs,
/// and hears signals; `asked` - a build that hangs got SIGTERM; `built` - a line per build.
const SCRIPT: &str = r#"#!/bin/sh
notes=$(dirname "$0")
case "$1" in
    --version) echo 'buildah version 1.0.0 (stand-in)' ;;
    info) echo '{}' ;;
    build)
        echo built >> "$notes/built"
        echo 'STEP 1/2: FROM scratch'
        if [ -e "$notes/fail" ]; then cat "$notes/fail" >&2; exit 1; fi
        if [ -e "$notes/hang" ]; then
            trap 'echo asked > "$notes/asked"; [ -e "$notes/deaf" ] || exit 143' TERM
            echo $$ > "$notes/pid.new"
            mv "$notes/pid.new" "$notes/pid"
            while :; do sleep 0.05; done
        fi
        ;;
    push)
        if [ -e "$notes/refuse" ]; then cat "$notes/refuse" >&2; exit 125; fi
        for reference; do :; done
        while [ $# -gt 0 ]; do
            case "$1" in
                --authfile) grep -q '"auth"' "$2" || { echo 'no login' >&2; exit 1; } ;;
                --digestfile) digestfile=$2 ;;
            esac
            shift
        done
        echo "$reference" > "$notes/push.new"
        mv "$notes/push.new" "$notes/push"
        while [ ! -e "$notes/pushed" ]; do sleep 0.02; done
        cat "$notes/pushed" > "$digestfile"
        rm "$notes/pushed"
        ;;
    rmi) ;;
    *) echo "unexpected: $*" >&2; exit 2 ;;
esac
"#;

/// The directory with the script.
pub struct Builder {
    dir: tempfile::TempDir,
}

impl Builder {
    pub fn new() -> Self {
        let dir = tempfile::TempDir::new().unwrap();
        let program = dir.path().join("buildah");
        fs::write(&program, SCRIPT).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        Builder { dir }
    }

    fn note(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Leaves a note for the script.
    pub fn tell(&self, name: &str, text: &str) {
        fs::write(self.note(name), text).unwrap();
    }

    /// Takes a note back.
    pub fn forget(&self, name: &str) {
        fs::remove_file(self.note(name)).unwrap();
    }

    /// The process of a build that hangs, once it does.
    pub fn hanging(&self) -> Option<rustix::process::Pid> {
        let text = fs::read_to_string(self.note("pid")).ok()?;
        rustix::process::Pid::from_raw(text.trim().parse().unwrap())
    }

    /// Whether a build that hangs was sent SIGTERM.
    pub fn asked_to_end(&self) -> bool {
        self.note("asked").exists()
    }

    /// How many builds were begun.
    pub fn builds(&self) -> usize {
        fs::read_to_string(self.note("built")).unwrap_or_default().lines().count()
    }

    /// Directories with a login that are there now.
    pub fn logins(&self) -> Vec<OsString> {
        fs::read_dir(self.note("run")).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    /// The program with this builder first on the PATH.
    pub fn command(&self, app: &App<'_>, args: &[&str]) -> std::process::Command {
        let mut command = app.command(args);
        let mut path = self.dir.path().as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        command.env("PATH", path).env("XDG_RUNTIME_DIR", self.note("run"));
        command
    }

    /// Runs the program to its end, and pushes what the script is asked to push.
    pub fn run(&self, app: &App<'_>, args: &[&str]) -> Ran {
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    self.push(app.sandbox);
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
            let ran = crate::support::run(self.command(app, args));
            ended.store(true, Ordering::Relaxed);
            ran
        })
    }

    fn push(&self, sandbox: &Sandbox) {
        let Ok(reference) = fs::read_to_string(self.note("push")) else { return };
        self.forget("push");
        let (repository, tag) = reference.trim().split_once('/').unwrap().1.rsplit_once(':').unwrap();
        let digest = sandbox.push_image(repository, tag, "built", false);
        self.tell("pushed.new", &digest);
        fs::rename(self.note("pushed.new"), self.note("pushed")).unwrap();
    }
}

/// An app whose image is built by the stand-in.
pub fn app_with_context(sandbox: &Sandbox) -> App<'_> {
    let app = App::new(sandbox);
    app.write("image/Dockerfile", "FROM scratch\nENTRYPOINT [\"/serve\"]\n");
    app.configure("image: {context: image, builder: buildah}\n");
    app
}
