//! A container as an engine runs it, without an engine: runc on an image that buildah mounted. Arguments, environment
//! and signals come from the image's config; it has a network of its own, so port 8080 is always free.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What Docker allows a container by default.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// A running container; killed when dropped.
pub struct Container {
    id: String,
    dir: TempDir,
    runc: Child,
    config: Value,
}

/// The list of strings at a key of an image's config.
pub fn strings(config: &Value, key: &str) -> Vec<String> {
    let list = config[key].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

impl Container {
    /// Starts an image whose file system is at `root`. `args` stand in place of the image's CMD, as in `docker run IMAGE
    /// ARGS`; none leaves it. `models` becomes /opt/ml/model, read-only.
    pub fn start(root: &Path, config: &Value, args: &[&str], models: &Path) -> Self {
        let dir = TempDir::new().unwrap();
        let mut command = strings(config, "Entrypoint");
        match args {
            [] => command.extend(strings(config, "Cmd")),
            args => command.extend(args.iter().map(|&arg| arg.to_owned())),
        }
        let mount = |at: &str, kind: &str, options: &[&str]| json!({"destination": at, "type": kind, "source": kind, "options": options});
        let models =
            json!({"destination": "/opt/ml/model", "type": "bind", "source": models, "options": ["rbind", "ro"]});
        let name = |kind: &str| json!({"type": kind});
        let bundle = json!({
            "ociVersion": "1.0.2",
            "hostname": "container",
            "root": {"path": root},
            "process": {
                "args": command,
                "env": strings(config, "Env"),
                "cwd": config["WorkingDir"].as_str().filter(|dir| !dir.is_empty()).unwrap_or("/"),
                "user": {"uid": 0, "gid": 0},
                "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
            },
            "mounts": [
                mount("/proc", "proc", &[]),
                mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=65536k"]),
                // The size that Docker gives it, and perhaps SageMaker.
                mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
                models,
            ],
            "linux": {"namespaces": (["pid", "network", "ipc", "uts", "mount"].map(name))},
        });
        fs::write(dir.path().join("config.json"), bundle.to_string()).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let id =
            format!("comfy-deploy-{}", std::process::id()) + &dir.path().display().to_string().replace(['/', '.'], "-");
        let runc = runc(dir.path())
            .args(["run", "--bundle", ".", "--pid-file", "pid", &id])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("runc starts: apt-get install runc");
        let mut container = Container { id, dir, runc, config: config.clone() };
        container.until("it runs", |container| container.process().is_some());
        container
    }

    /// The number of its first process, once it has one.
    fn process(&self) -> Option<u32> {
        fs::read_to_string(self.dir.path().join("pid")).ok()?.trim().parse().ok()
    }

    /// All that was printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Waits until something is so; fails when the container ends before, or after two minutes.
    #[track_caller]
    pub fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !so(self) {
            let ended = self.runc.try_wait().unwrap();
            assert!(ended.is_none(), "it ended ({ended:?}) before {what}:\n{}", self.log());
            assert!(begun.elapsed() < Duration::from_secs(120), "not in time: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Does something in its network, on a thread of its own: nothing else can join it.
    pub fn inside<R: Send>(&self, work: impl FnOnce(&reqwest::blocking::Client) -> R + Send) -> R {
        let network = fs::File::open(format!("/proc/{}/ns/net", self.process().unwrap())).unwrap();
        let joined = || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work(&crate::support::http())
        };
        std::thread::scope(|scope| scope.spawn(joined).join().unwrap())
    }

    /// The status of a GET; none without an answer.
    pub fn status(&self, url: &str) -> Option<u16> {
        self.inside(|http| http.get(url).send().ok().map(|answer| answer.status().as_u16()))
    }

    /// Runs a command in it, in the same environment.
    pub fn exec(&self, command: &[&str]) -> Output {
        runc(self.dir.path()).args(["exec", &self.id]).args(command).output().unwrap()
    }

    /// Ends it as `docker stop` does: the image's signal, or SIGTERM. Returns the exit code; it may take SageMaker's 30 s.
    #[track_caller]
    pub fn stop(&mut self) -> i32 {
        let signal = self.config["StopSignal"].as_str().filter(|signal| !signal.is_empty()).unwrap_or("SIGTERM");
        let killed = runc(self.dir.path()).args(["kill", &self.id, signal]).status().unwrap();
        assert!(killed.success());
        let begun = Instant::now();
        loop {
            if let Some(status) = self.runc.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "it does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = runc(self.dir.path()).args(["delete", "--force", &self.id]).stderr(Stdio::null()).status();
        let _ = self.runc.wait();
    }
}

/// runc with its state in this directory.
fn runc(dir: &Path) -> Command {
    let mut command = Command::new("runc");
    command.current_dir(dir).arg("--root").arg(dir.join("state"));
    command
}
