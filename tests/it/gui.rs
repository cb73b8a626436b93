//! `gui` with a stand-in for docker on the PATH: a script whose container runs until it is stopped.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Ran, run};

/// The script. Its directory is where it leaves notes: `calls` - a line for each build, run and stop; `stopped` - the
/// container was told to end; and finds one: `fail` - the container ends at once, with this text.
const SCRIPT: &str = r#"#!/bin/sh
notes=$(dirname "$0")
case "$1" in
    info) echo 28.2.2 ;;
    version) echo 28.2.2 ;;
    build) echo "$*" >> "$notes/calls"; echo 'STEP 1/1: FROM scratch' ;;
    run)
        echo "$*" >> "$notes/calls"
        if [ -e "$notes/fail" ]; then cat "$notes/fail" >&2; exit 125; fi
        echo 'Starting server'
        while [ ! -e "$notes/stopped" ]; do sleep 0.05; done
        exit 130
        ;;
    stop) echo "$*" >> "$notes/calls"; touch "$notes/stopped" ;;
    *) exit 1 ;;
esac
"#;

struct Place {
    dir: TempDir,
}

impl Place {
    /// An app without a region: nothing here is about AWS.
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let place = Place { dir };
        place.write("app/comfy-deploy.yaml", "version: 1\napp: comfy\nimage: {builder: docker}\n");
        place.write("app/image/Dockerfile", "FROM scratch AS gui\n");
        place.write("app/models/checkpoints/a.safetensors", "weights");
        place.write("bin/docker", SCRIPT);
        fs::set_permissions(place.path("bin/docker"), fs::Permissions::from_mode(0o755)).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_comfy-deploy"));
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        command.args(args).current_dir(self.path("app")).env_clear().env("PATH", path).env("HOME", self.dir.path());
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        run(self.command(args))
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("bin/calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

fn port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Waits until something is so.
#[track_caller]
fn until(child: &mut Child, what: &str, so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before {what}");
        assert!(begun.elapsed() < Duration::from_secs(60), "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_editor_runs_until_ctrl_c() {
    let place = Place::new();
    let port = port();
    let said = fs::File::create(place.path("said")).unwrap();
    let mut command = place.command(&["gui", "--port", &port.to_string(), "--output", "json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(said).spawn().unwrap();
    until(&mut child, "the container runs", || place.calls().len() == 2);
    // ComfyUI listens a while after the container started.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let (mut socket, _) = listener.accept().unwrap();
    let _ = socket.read(&mut [0; 1024]).unwrap();
    socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    let said = || fs::read_to_string(place.path("said")).unwrap();
    until(&mut child, "it says so", || said().contains("ComfyUI is ready"));
    assert!(said().contains(&format!("http://127.0.0.1:{port}")) && said().contains("Starting server"), "{}", said());
    assert!(said().contains("will run on the CPU"), "{}", said());

    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said());
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["data"]["url"], format!("http://127.0.0.1:{port}"));
    let calls = place.calls();
    assert!(calls[0].contains("--target gui") && calls[0].contains("--build-arg COMFYUI_GIT_REF="), "{calls:?}");
    let models = format!("source={},target=/opt/ml/model,readonly", place.path("app/models").display());
    assert!(calls[1].contains(&models) && calls[1].contains(&format!("127.0.0.1:{port}:8188")), "{calls:?}");
    assert_eq!(calls[2..], ["stop --time 10 comfy-gui-comfy"]);
    for dir in ["input", "output", "user"] {
        assert!(place.path("app/gui-data").join(dir).is_dir(), "{dir} is not kept");
    }
}

#[test]
fn what_would_be_run_can_be_printed() {
    let place = Place::new();
    let ran = place.run(&["gui", "--dry-run", "--cpu", "--data", "kept"]).exits(0);
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert!(lines.len() == 2 && lines[0].contains("docker build ") && lines[1].starts_with("docker run "), "{lines:?}");
    assert!(lines[1].contains("/app/kept,target=/var/lib/comfyui") && lines[1].ends_with(" --cpu"), "{lines:?}");
    assert!(!ran.stderr.contains("CPU"), "it was asked for: {}", ran.stderr);
    assert!(place.calls().is_empty() && !place.path("app/kept").exists());
}

#[test]
fn what_is_wrong_is_said_before_anything_is_built() {
    let place = Place::new();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ran = place.run(&["gui", "--port", &port]).exits(1);
    assert!(ran.stderr.contains("--port"), "{}", ran.stderr);
    let ran = place.run(&["gui", "--models", "nowhere"]).exits(2);
    assert!(ran.stderr.contains("there is no models directory"), "{}", ran.stderr);
    assert!(place.calls().is_empty());

    place.write("bin/fail", "could not select device driver");
    let ran = place.run(&["gui", "--port", &self::port().to_string()]).exits(1);
    assert!(ran.stderr.contains("could not select device driver"), "{}", ran.stderr);
}
