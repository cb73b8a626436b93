//! `--sandbox`: the program of its own that is started, found, stopped and started again.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Ran, http, run};

/// An app directory and a sandbox process that is stopped at the end, whatever happens.
struct Place {
    dir: TempDir,
    port: u16,
}

impl Place {
    fn new() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let place = Place { dir: TempDir::new().unwrap(), port };
        let config =
            "version: 1\napp: comfy\nregion: eu-west-1\nimage: {uri: 'comfy:none'}\nlambda: {enabled: false}\n";
        std::fs::write(place.dir.path().join("comfy-deploy.yaml"), config).unwrap();
        std::fs::create_dir(place.dir.path().join("models")).unwrap();
        std::fs::write(place.dir.path().join("models/a.safetensors"), "weights").unwrap();
        place
    }

    fn program(&self, name: &str) -> Command {
        let path = PathBuf::from(env!("CARGO_BIN_EXE_comfy-deploy")).with_file_name(name);
        assert!(path.is_file(), "{} is not built: cargo build --workspace", path.display());
        let mut command = Command::new(path);
        command.current_dir(self.dir.path()).env_clear().stdin(Stdio::null());
        command.env("PATH", "/usr/bin:/bin").env("HOME", self.dir.path()).env("COMFY_SANDBOX_TIME_SCALE", "0.005");
        command.env("COMFY_SANDBOX_SIMULATE_ENDPOINTS", "1");
        command.env("COMFY_SANDBOX_STATE", self.dir.path().join("state"));
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        let mut command = self.program("comfy-deploy");
        command.args(args).arg(format!("--sandbox=http://127.0.0.1:{}", self.port));
        run(command)
    }

    fn stop(&self) -> Ran {
        let mut command = self.program("comfy-sandbox");
        command.arg("stop");
        run(command)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut command = self.program("comfy-sandbox");
        let _ = command.arg("stop").output();
    }
}

#[test]
fn the_sandbox_is_started_once_and_its_state_survives_it() {
    let place = Place::new();
    let first = place.run(&["status"]).exits(0);
    assert!(first.stderr.contains("started the sandbox"), "{}", first.stderr);
    let second = place.run(&["status"]).exits(0);
    assert!(!second.stderr.contains("started the sandbox"), "{}", second.stderr);
    let faults = format!("http://127.0.0.1:{}/_sandbox/faults", place.port);
    let fault = json!([{"kind": "unhealthy", "endpoint": "somebody", "times": 7}]);
    http().post(&faults).body(fault.to_string()).send().unwrap();
    place.stop().exits(0);
    assert!(http().get(&faults).send().is_err(), "it still answers");
    let third = place.run(&["status"]).exits(0);
    assert!(third.stderr.contains("started the sandbox"), "{}", third.stderr);
    let kept: Value = serde_json::from_str(&http().get(&faults).send().unwrap().text().unwrap()).unwrap();
    assert_eq!(kept[0]["times"], 7, "{kept}");
    place.stop().exits(0);
    assert!(place.stop().exits(0).stdout.contains("no sandbox uses"));
}

#[test]
fn a_sandbox_elsewhere_than_on_loopback_is_refused() {
    let place = Place::new();
    for url in [
        "https://127.0.0.1:4599",
        "http://10.0.0.1:4599",
        "http://127.0.0.1",
        "http://sagemaker.eu-west-1.amazonaws.com",
    ] {
        let mut command = place.program("comfy-deploy");
        command.args(["status", &format!("--sandbox={url}")]);
        let ran = run(command).exits(2);
        assert!(ran.stderr.contains("is not on this machine"), "{}", ran.stderr);
    }
}
