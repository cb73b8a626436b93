//! Containers by runc alone, for root: no daemon, no bridge, no port of this machine, nothing left behind.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use rustix::thread::UnshareFlags;
use serde_json::{Value, json};

use super::image::Config;
use super::{MODEL, Network, NotStarted, Order, PORT, Place, Running};
use crate::process::{Sink, Spawner};

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
/// What Docker hides from a container, and what it lets it only read.
const MASKED: [&str; 8] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Where programs are looked for when the image does not say it; Docker's own default.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How often it is looked whether a container is there.
const LOOK: Duration = Duration::from_millis(5);

/// Where runc keeps what it knows of the containers of a sandbox.
fn kept(state: &Path) -> PathBuf {
    state.join("runc")
}

fn runc(program: &Path, state: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("--root").arg(kept(state));
    command
}

/// Starts a container whose file system is `root` and whatever it writes, which is kept in memory and goes with it.
pub(super) async fn start(
    program: &Path,
    root: &Path,
    spawner: &Spawner,
    order: &Order<'_>,
    sink: Sink,
) -> Result<Running, NotStarted> {
    let config = order.image.config(order.state)?;
    let user = user(root, &config.user).map_err(NotStarted::Never)?;
    let bundle = order.dir.join("bundle");
    for part in ["rootfs", "written"] {
        fs::create_dir_all(bundle.join(part))?;
    }
    // What an engine writes for a container that has no other network.
    fs::write(bundle.join("hosts"), format!("127.0.0.1\tlocalhost\n127.0.0.1\t{}\n", order.name))?;
    fs::write(bundle.join("hostname"), format!("{}\n", order.name))?;
    fs::write(bundle.join("resolv.conf"), "")?;
    let pid_file = bundle.join("pid");
    if let Err(error) = fs::remove_file(&pid_file)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error.into());
    }
    fs::write(bundle.join("config.json"), spec(&config, &user, order, &bundle).to_string())?;
    let mut command = runc(program, order.state);
    command.args(["run", "--bundle", ".", "--pid-file", "pid", order.name]).current_dir(&bundle);
    let layers = format!("lowerdir={},upperdir=written/up,workdir=written/work\0", below(root)?);
    let mounted = move || {
        let layers = CStr::from_bytes_with_nul(layers.as_bytes()).map_err(|_| io::ErrorKind::InvalidInput)?;
        mount(layers)
    };
    // SAFETY: the closure makes system calls with texts that are there already, and allocates nothing.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(mounted);
    }
    let process = spawner.start(command, Signal::TERM, sink).await?;
    let mut force = runc(program, order.state);
    force.args(["delete", "--force", order.name]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut running = Running { process, place: None, first: None, force: Some(force) };
    let pid = loop {
        let ended = running.ended().is_some();
        // Written whole, under another name first.
        if let Some(pid) = fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse().ok()) {
            break pid;
        }
        if ended {
            running.drained().await;
            return Err(NotStarted::Never("runc does not start it".to_owned()));
        }
        tokio::time::sleep(LOOK).await;
    };
    running.first = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    // One that has ended has no network any more, and its end is told anyway.
    running.place =
        Network::of(pid).ok().map(|network| Place::Inside(network, SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))));
    Ok(running)
}

/// A directory of the state as it is seen from a bundle: no character of a path means anything to overlayfs then.
fn below(root: &Path) -> io::Result<String> {
    let mut parts = root.components().rev().filter_map(|part| part.as_os_str().to_str());
    let (Some(name), Some(images)) = (parts.next(), parts.next()) else {
        return Err(io::Error::other(format!("{} is no image of the sandbox", root.display())));
    };
    Ok(format!("../../../{images}/{name}"))
}

/// In the process that becomes runc, in its bundle: the root file system, seen by it alone and gone with it.
fn mount(layers: &CStr) -> io::Result<()> {
    // SAFETY: this process has one thread; it keeps its files.
    #[allow(unsafe_code)]
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)?;
    }
    rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    // Overlayfs takes memory for what is written, whatever the state lies on.
    rustix::mount::mount(c"tmpfs", c"written", c"tmpfs", MountFlags::empty(), Some(c"mode=0755"))?;
    for dir in [c"written/up", c"written/work"] {
        rustix::fs::mkdir(dir, Mode::from_raw_mode(0o755))?;
    }
    rustix::mount::mount(c"overlay", c"rootfs", c"overlay", MountFlags::empty(), Some(layers))?;
    Ok(())
}

/// Who runs in a container.
#[derive(Debug, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
    home: String,
}

/// A USER of a Dockerfile: `name`, `name:group`, or numbers, looked up in the image as Docker does.
fn user(root: &Path, wanted: &str) -> Result<User, String> {
    let (name, group) = wanted.split_once(':').map_or((wanted, None), |(name, group)| (name, Some(group)));
    let name = if name.is_empty() { "0" } else { name };
    let passwd = lines(root, "etc/passwd");
    let number: Option<u32> = name.parse().ok();
    let found =
        passwd.iter().find(|l| l.len() > 5 && (l[0] == name || number.is_some() && l[2].parse().ok() == number));
    let uid = match (found, number) {
        (_, Some(number)) => number,
        (Some(line), None) => line[2].parse().map_err(|_| format!("user {name} has no number"))?,
        (None, None) => return Err(format!("unable to find user {name}: no matching entries in passwd file")),
    };
    let gid = match group {
        Some(group) => match (group.parse(), lines(root, "etc/group").iter().find(|l| l.len() > 2 && l[0] == group)) {
            (Ok(number), _) => number,
            (Err(_), Some(line)) => line[2].parse().map_err(|_| format!("group {group} has no number"))?,
            (Err(_), None) => return Err(format!("unable to find group {group}: no matching entries in group file")),
        },
        None => found.and_then(|l| l[3].parse().ok()).unwrap_or(0),
    };
    let home = found.map(|l| l[5].clone()).filter(|h| !h.is_empty());
    Ok(User { uid, gid, home: home.unwrap_or_else(|| if uid == 0 { "/root" } else { "/" }.to_owned()) })
}

/// The lines of a file of the image, split at colons. A link in the image leads nowhere else.
fn lines(root: &Path, path: &str) -> Vec<Vec<String>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let text = fs::File::open(root)
        .and_then(|root| Ok(rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?))
        .and_then(|file| io::read_to_string(fs::File::from(file)));
    text.unwrap_or_default().lines().map(|line| line.split(':').map(str::to_owned).collect()).collect()
}

/// The bundle's config (OCI runtime specification).
fn spec(config: &Config, user: &User, order: &Order<'_>, bundle: &Path) -> Value {
    let own = [("PATH", PATH), ("HOSTNAME", order.name), ("HOME", &user.home)];
    let mut environment: Vec<(&str, &str)> = own.into();
    let given = config.environment.iter().map(|(n, v)| (n.as_str(), v.as_str()));
    for (name, value) in given.chain(order.environment.iter().map(|(n, v)| (n.as_str(), v.as_str()))) {
        environment.retain(|(known, _)| *known != name);
        environment.push((name, value));
    }
    let environment: Vec<String> = environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mount = |at: &str, kind: &str, options: &[&str]| json!({"destination": at, "type": kind, "source": kind, "options": options});
    let bind = |at: &str, source: &Path, mode: &str| json!({"destination": at, "type": "bind", "source": source, "options": ["rbind", mode]});
    let mut mounts = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        // The size that Docker gives it, and perhaps SageMaker.
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ];
    mounts.extend(["hosts", "hostname", "resolv.conf"].map(|f| bind(&format!("/etc/{f}"), &bundle.join(f), "rw")));
    mounts.extend(order.model.map(|model| bind(MODEL, model, "ro")));
    let capabilities = if user.uid == 0 { &CAPABILITIES[..] } else { &[] };
    let directory = if config.directory.is_empty() { "/" } else { &config.directory };
    json!({
        "ociVersion": "1.0.2",
        "hostname": order.name,
        "root": {"path": "rootfs"},
        "process": {
            "args": config.command(),
            "env": environment,
            "cwd": directory,
            "user": {"uid": user.uid, "gid": user.gid},
            "capabilities": {"bounding": CAPABILITIES, "effective": capabilities, "permitted": capabilities},
        },
        "mounts": mounts,
        "linux": {
            "namespaces": (["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({"type": kind}))),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    })
}

/// Whether runc works here: it gets as far as not finding the program of a container that has none.
pub(super) async fn works(program: &Path) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let (state, root) = (dir.path(), super::images(dir.path()).join("none"));
    let bundle = state.join("instances/probe/bundle");
    for made in [&root, &bundle.join("rootfs"), &bundle.join("written")] {
        fs::create_dir_all(made).map_err(|e| e.to_string())?;
    }
    let environment = std::collections::BTreeMap::new();
    let image = super::Image::none();
    let name = &format!("comfy-sandbox-probe-{}", uuid::Uuid::new_v4().simple());
    let order = Order { image: &image, name, dir: &bundle, state, model: None, environment: &environment };
    let nobody = User { uid: 0, gid: 0, home: "/".to_owned() };
    let config = Config { entrypoint: vec!["/none".to_owned()], ..Config::default() };
    let files = ["hosts", "hostname", "resolv.conf"].map(|file| fs::write(bundle.join(file), ""));
    files.into_iter().collect::<io::Result<()>>().map_err(|e| e.to_string())?;
    let spec = spec(&config, &nobody, &order, &bundle).to_string();
    fs::write(bundle.join("config.json"), spec).map_err(|e| e.to_string())?;
    let mut command = runc(program, state);
    command.args(["run", "--bundle", ".", name]).current_dir(&bundle);
    let mounted = || mount(c"lowerdir=../../../images/none,upperdir=written/up,workdir=written/work");
    // SAFETY: as in `start`.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(mounted);
    }
    let said = super::engine::said(command).await?;
    // The words of every runc since 1.0: `exec: "/none": stat /none: no such file or directory`.
    if said.text.contains("/none: no such file") { Ok(()) } else { Err(said.text) }
}

/// Ends what a sandbox that was killed left running.
pub(super) fn sweep(state: &Path) {
    for entry in fs::read_dir(kept(state)).into_iter().flatten().flatten() {
        let mut command = runc(Path::new("runc"), state);
        let ended = command.args(["delete", "--force"]).arg(entry.file_name()).output();
        if let Err(error) = ended {
            tracing::warn!(container = ?entry.file_name(), %error, "a container that was left may still run");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_those_of_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let is = |uid, gid, home: &str| Ok(User { uid, gid, home: home.to_owned() });
        assert_eq!(user(root, ""), is(0, 0, "/root"));
        assert_eq!(user(root, "7"), is(7, 0, "/"));
        assert_eq!(user(root, "7:8"), is(7, 8, "/"));
        assert!(user(root, "app").unwrap_err().contains("unable to find user app"));
        fs::create_dir(root.join("etc")).unwrap();
        let passwd = "root:x:0:0:root:/home/root:/bin/sh\nbroken\napp:x:1000:1001::/srv/app:/bin/sh\n";
        fs::write(root.join("etc/passwd"), passwd).unwrap();
        fs::write(root.join("etc/group"), "app:x:1001:\nvideo:x:44:app\n").unwrap();
        assert_eq!(user(root, ""), is(0, 0, "/home/root"));
        assert_eq!(user(root, "app"), is(1000, 1001, "/srv/app"));
        assert_eq!(user(root, "1000:video"), is(1000, 44, "/srv/app"));
        assert!(user(root, "app:none").unwrap_err().contains("unable to find group none"));
        // A link in the image does not lead to this machine's own file.
        fs::remove_file(root.join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("etc/passwd")).unwrap();
        assert!(user(root, "daemon").is_err());
    }

    #[test]
    fn the_models_environment_is_over_the_images() {
        let config = Config {
            entrypoint: vec!["/comfy-serve".into()],
            environment: vec![("PATH".into(), "/own".into()), ("A".into(), "image".into())],
            ..Config::default()
        };
        let environment = [("A".to_owned(), "model".to_owned())].into();
        let image = super::super::Image::none();
        let (dir, model) = (Path::new("/d"), Path::new("/m"));
        let order = Order { image: &image, name: "n", dir, state: dir, model: Some(model), environment: &environment };
        let root = User { uid: 0, gid: 0, home: "/root".into() };
        let made = spec(&config, &root, &order, dir);
        assert_eq!(made["process"]["env"], json!(["HOSTNAME=n", "HOME=/root", "PATH=/own", "A=model"]));
        assert_eq!(made["process"]["args"], json!(["/comfy-serve", "serve"]));
        let mounts = made["mounts"].as_array().unwrap();
        let wanted =
            json!({"destination": "/opt/ml/model", "type": "bind", "source": "/m", "options": ["rbind", "ro"]});
        assert!(mounts.contains(&wanted), "{mounts:?}");
    }
}
