//! The program itself: starting ComfyUI, its end and restart, warming up, and stopping.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::process::Command;

use crate::harness::{Comfyui, Server, color, flat, number, signal, slow, soon};

/// The stand-in as a program; it is in the same directory as the server.
fn stand_in() -> PathBuf {
    let path = PathBuf::from(env!("CARGO_BIN_EXE_comfy-serve")).with_file_name("comfyui-stand-in");
    assert!(path.exists(), "{} is missing; build the workspace first: cargo build --workspace", path.display());
    path
}

/// A server that starts the stand-in itself, and the directory that they work in.
async fn spawning(args: &[&str], comfyui_args: &[&str]) -> (Server, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let mut all: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    all.push(format!("--comfyui-url=http://127.0.0.1:{port}"));
    all.extend([stand_in().display().to_string(), "--port".into(), port.to_string()]);
    for name in ["output", "input", "user"] {
        let path = directory.path().join(name);
        std::fs::create_dir_all(&path).expect("made");
        all.extend([format!("--{name}-directory"), path.display().to_string()]);
    }
    all.extend(["--temp-directory".into(), directory.path().display().to_string()]);
    all.extend(comfyui_args.iter().map(|arg| (*arg).to_owned()));
    (Server::run(&all, &[]).await, directory)
}

/// ComfyUI's process.
fn child_of(server: &Server) -> Option<u32> {
    let pid = server.child.id()?;
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    // A child belongs to the thread that started it.
    children.split_ascii_whitespace().next().and_then(|id| id.parse().ok()).or_else(|| {
        threads.find_map(|thread| {
            std::fs::read_to_string(thread.path().join("children")).ok()?.split_ascii_whitespace().next()?.parse().ok()
        })
    })
}

fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn comfyui_is_started_used_and_stopped() {
    let (mut server, directory) = spawning(&[], &[]).await;
    assert!(soon(async || server.ping().await == 200).await, "{:?}", server.lines());
    let answer = server.invoke(None, &flat(number([200, 30, 30]))).await;
    assert_eq!(color(&answer.picture()), [200, 30, 30]);
    let output = directory.path().join("output");
    assert!(soon(async || crate::harness::files(&output).is_empty()).await, "the output stayed");
    assert!(server.lines().iter().any(|line| line.starts_with("comfyui | ")), "its output is passed on with a prefix");
    let child = child_of(&server).expect("a child");
    server.terminate();
    let begun = Instant::now();
    assert!(server.child.wait().await.expect("ends").success());
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(!alive(child), "ComfyUI still runs");
}

#[tokio::test]
async fn a_comfyui_that_does_not_end_is_killed() {
    let command = ["sh", "-c", "trap '' INT; echo up $$; while :; do sleep 1; done"].map(str::to_owned);
    let mut server = Server::run(&command, &[]).await;
    let up = |line: &String| line.strip_prefix("comfyui | up ").and_then(|pid| pid.parse::<u32>().ok());
    assert!(soon(async || server.lines().iter().any(|line| up(line).is_some())).await);
    let pid = server.lines().iter().find_map(up).expect("a process id");
    server.terminate();
    let begun = Instant::now();
    assert!(server.child.wait().await.expect("ends").success());
    assert!(begun.elapsed() < Duration::from_secs(20), "SageMaker would have killed it");
    assert!(!alive(pid));
}

#[tokio::test]
async fn a_comfyui_that_dies_is_started_again() {
    let (server, _directory) = spawning(&[], &[]).await;
    assert!(soon(async || server.ping().await == 200).await);
    for _ in 0..2 {
        let child = child_of(&server).expect("a child");
        let job = async { server.invoke(None, &slow(1, 60.0)).await };
        let kill = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            signal(child, "KILL");
        };
        let (answer, ()) = tokio::join!(job, kill);
        assert_eq!(answer.failure(), (503, "job_lost".into()));
        assert_eq!(server.ping().await, 503, "a dead ComfyUI counts as healthy");
        assert!(soon(async || server.ping().await == 200).await, "{:?}", server.lines());
        assert_ne!(child_of(&server), Some(child));
        assert_eq!(server.invoke(None, &flat(1)).await.status, 200);
    }
    let log = server.lines().join("\n");
    assert!(log.contains("killed by signal 9") && log.contains("it is started again in"), "{log}");
}

#[tokio::test]
async fn requests_before_comfyui_is_up_are_told_to_wait() {
    let command = ["sh", "-c", "sleep 60"].map(str::to_owned);
    let mut args = vec!["--comfyui-url=http://127.0.0.1:9".to_owned()];
    args.extend(command);
    let server = Server::run(&args, &[]).await;
    assert_eq!(server.ping().await, 503);
    let answer = server.invoke(None, &flat(1)).await;
    assert_eq!(answer.failure(), (503, "not_ready".into()));
}

#[tokio::test]
async fn the_warmup_may_bring_pictures() {
    use base64::Engine;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("warmup.json");
    let mut png = std::io::Cursor::new(Vec::new());
    image::DynamicImage::new_rgb8(8, 8).write_to(&mut png, image::ImageFormat::Png).expect("encodes");
    let picture = base64::engine::general_purpose::STANDARD.encode(png.into_inner());
    let warmup = json!({
        "prompt": {
            "1": {"class_type": "LoadImage", "inputs": {"image": "in.png"}},
            "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "i"}},
        },
        "images": [{"name": "in.png", "data": picture}],
    });
    std::fs::write(&path, warmup.to_string()).expect("written");
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &["--warmup", &path.display().to_string()]).await;
    assert!(server.lines().iter().any(|line| line.contains("\"warm\"")), "{:?}", server.lines());
    assert!(comfyui.clean().await, "left: {:?}", comfyui.left_files());
}

#[tokio::test]
async fn ping_says_200_only_when_warm() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("warmup.json");
    std::fs::write(&path, slow(1, 1.5).to_string()).expect("written");
    let path = path.display().to_string();
    let comfyui = Comfyui::start().await;
    let server = Server::start(&comfyui, &["--warmup", &path]).await;
    assert!(soon(async || comfyui.remaining().await == 1).await, "no warm-up ran");
    assert_eq!(server.ping().await, 503, "not warm yet");
    assert!(soon(async || server.ping().await == 200).await);
    assert_eq!(comfyui.remaining().await, 0);
    assert!(comfyui.clean().await, "the warm-up left something");
    // Switched off.
    let server = Server::ready(&comfyui, &["--warmup", "off"]).await;
    assert!(!server.lines().join("\n").contains("warming up"));
}

#[tokio::test]
async fn a_warm_up_that_fails_is_reported_and_no_more() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("warmup.json");
    let mut workflow = flat(1);
    workflow["1"] = json!({"class_type": "LoadImage", "inputs": {"image": "comes-with-the-request.png"}});
    std::fs::write(&path, workflow.to_string()).expect("written");
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &["--warmup", &path.display().to_string()]).await;
    let log = server.lines().join("\n");
    assert!(log.contains("warm-up workflow failed") && log.contains("ERROR"), "{log}");
}

#[tokio::test]
async fn a_restarted_comfyui_is_warmed_up_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("warmup.json");
    std::fs::write(&path, flat(1).to_string()).expect("written");
    let (server, _directory) = spawning(&["--warmup", &path.display().to_string()], &[]).await;
    assert!(soon(async || server.ping().await == 200).await, "{:?}", server.lines());
    signal(child_of(&server).expect("a child"), "KILL");
    assert!(soon(async || server.ping().await == 503).await);
    assert!(soon(async || server.ping().await == 200).await);
    let warm = server.lines().iter().filter(|line| line.contains("\"warm\"")).count();
    assert_eq!(warm, 2, "{:?}", server.lines());
}

#[tokio::test]
async fn sigterm_in_the_middle_of_requests_loses_nothing() {
    let (mut server, _directory) = spawning(&[], &[]).await;
    assert!(soon(async || server.ping().await == 200).await);
    let url = server.url("/invocations");
    let requests: Vec<_> = (0..3)
        .map(|number| {
            let (url, body) = (url.clone(), slow(number, 0.7).to_string());
            tokio::spawn(async move { crate::harness::send(axum::http::Method::POST, &url, &[], body).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(400)).await;
    server.terminate();
    for request in requests {
        assert_eq!(request.await.expect("no panic").status, 200);
    }
    assert!(server.child.wait().await.expect("ends").success());
}

#[tokio::test]
async fn who_begins_a_request_and_does_not_go_on_holds_up_nobody() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut server, _directory) = spawning(&["--invocation-timeout", "1"], &[]).await;
    assert!(soon(async || server.ping().await == 200).await);
    let address = server.url("").trim_start_matches("http://").to_owned();
    let begun = async |text: &str| {
        let mut socket = tokio::net::TcpStream::connect(&address).await.expect("connects");
        socket.write_all(text.as_bytes()).await.expect("writes");
        socket
    };
    // Of a body that does not come within the deadline the caller is told then, and not later.
    let mut slow =
        begun("POST /invocations HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9\r\n\r\n{").await;
    let started = Instant::now();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("body_timeout"), "{answer}");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    // A request that is never complete does not keep the server from stopping.
    let _unfinished = begun("GET /ping HTTP/1.1\r\nHo").await;
    let started = Instant::now();
    server.terminate();
    assert!(server.child.wait().await.expect("ends").success());
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[tokio::test]
async fn what_cannot_start_fails_at_once_and_says_why() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = listener.local_addr().expect("an address").port().to_string();
    for (args, says) in [
        (&["--comfyui-url", "ftp://x", "--no-spawn"][..], "http://127.0.0.1:8188"),
        (&["/no/such/program"], "cannot start ComfyUI: /no/such/program"),
        (&["--warmup", "/no/such/file", "--no-spawn"], "WARMUP=off"),
        (&["--metrics-port", &taken, "--no-spawn"], "cannot listen on 127.0.0.1:"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_comfy-serve"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(args)
            .output()
            .await
            .expect("runs");
        assert_eq!(output.status.code(), Some(1));
        let log = String::from_utf8_lossy(&output.stdout);
        assert!(log.contains(says), "{args:?}: {log}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_comfy-serve")).arg("serve").env("JPEG_QUALITY", "96").output().await;
    let output = output.expect("runs");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && log.contains("from 0 (smallest file) to 95"), "{log}");
}

#[tokio::test]
async fn the_environment_says_the_same_as_the_arguments() {
    let comfyui = Comfyui::start().await;
    let url = comfyui.url();
    let variables = [
        ("COMFY_SERVE_NO_SPAWN", "true"),
        ("COMFY_SERVE_COMFYUI_URL", url.as_str()),
        ("INVOCATION_TIMEOUT", "0.5"),
        ("MAX_QUEUE", "1"),
        ("WARMUP", "off"),
    ];
    let server = Server::run(&[], &variables).await;
    assert_eq!(server.invoke(None, &flat(1)).await.status, 200);
    assert_eq!(server.invoke(None, &slow(2, 30.0)).await.failure(), (504, "timeout".into()));
}

#[tokio::test]
async fn health_is_an_exit_status() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let check = async || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_comfy-serve"));
        command.args(["health", "--listen", &server.address]).stdout(std::process::Stdio::null());
        command.status().await.expect("runs").code()
    };
    assert_eq!(check().await, Some(0));
    comfyui.kill();
    assert!(soon(async || check().await == Some(1)).await);
}
