//! The program itself: starting ComfyUI, stopping, and what happens when ComfyUI ends.

use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::fake::{Fake, Mode};
use crate::{png, send};

/// The program, and its output after the line that tells its address.
async fn start(args: &[&str]) -> (Child, std::net::SocketAddr, Lines<BufReader<ChildStdout>>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_comfy-serve"))
        .args(["serve", "--listen", "127.0.0.1:0"])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    while let Some(line) = lines.next_line().await.expect("readable") {
        if let Some((_, address)) = line.split_once("listening on ") {
            let address = address.chars().take_while(|c| !c.is_control()).collect::<String>();
            return (child, address.trim().parse().expect("an address"), lines);
        }
    }
    panic!("it ended without listening");
}

fn terminate(child: &Child) {
    let pid = child.id().expect("it runs").to_string();
    let killed = std::process::Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]).status().expect("runs");
    assert!(killed.success());
}

fn alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn sigterm_stops_it_and_its_comfyui() {
    let (mut child, _, mut lines) = start(&["sh", "-c", "echo pid $$; exec sleep 60"]).await;
    let mut pid = None;
    while pid.is_none() {
        let line = lines.next_line().await.expect("readable").expect("ComfyUI's output is forwarded");
        pid = line.strip_prefix("pid ").map(str::to_owned);
    }
    let pid = pid.expect("a process id");
    assert!(alive(&pid));
    terminate(&child);
    let begun = Instant::now();
    assert!(child.wait().await.expect("ends").success());
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(!alive(&pid), "ComfyUI still runs");
}

#[tokio::test]
async fn a_request_in_flight_is_finished_after_sigterm() {
    let (fake, url) = Fake::start(Mode::Replay, "progress_and_previews_plain", png()).await;
    let (mut child, address, _lines) = start(&["--no-spawn", "--comfyui-url", &url]).await;
    let body = fake.workflow().to_string();
    let request =
        tokio::spawn(async move { send(address, axum::http::Method::POST, "/invocations", None, body).await });
    while fake.seen.lock().expect("lock").prompt_ids.is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    terminate(&child);
    assert_eq!(request.await.expect("no panic").status, 200);
    assert!(child.wait().await.expect("ends").success());
}

#[tokio::test]
async fn it_ends_when_comfyui_ends() {
    let (mut child, ..) = start(&["sh", "-c", "exit 3"]).await;
    assert_eq!(child.wait().await.expect("ends").code(), Some(1));
}

#[tokio::test]
async fn what_cannot_start_fails_at_once() {
    for args in [&["--comfyui-url", "ftp://x", "--no-spawn"][..], &["/no/such/program"]] {
        let status = Command::new(env!("CARGO_BIN_EXE_comfy-serve"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(args)
            .stdout(Stdio::null())
            .status()
            .await
            .expect("runs");
        assert_eq!(status.code(), Some(1));
    }
}
