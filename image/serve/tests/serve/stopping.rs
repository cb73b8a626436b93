//! The end of the process, and of those that it talks to, while something is under way.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpSocket;

use crate::harness::{Comfyui, Server, flat, send, soon};

#[tokio::test]
async fn an_answer_that_is_being_sent_is_sent_to_its_end() {
    let comfyui = Comfyui::start().await;
    let mut server = Server::ready(&comfyui, &[]).await;
    // More than the kernel keeps for a client that reads slowly.
    let length = 16_000_000;
    let workflow = json!({"1": {"class_type": "PrimitiveString", "inputs": {"value": "x".repeat(length)}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}});
    let body = workflow.to_string();
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(64 * 1024).expect("set");
    let mut socket = socket.connect(server.address.parse().expect("an address")).await.expect("connects");
    let head = format!("POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    socket.write_all(head.as_bytes()).await.expect("writes");
    socket.write_all(body.as_bytes()).await.expect("writes");
    let mut answer = vec![0; 4096];
    let mut read = socket.read(&mut answer).await.expect("an answer");
    answer.truncate(read);
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&answer));
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(text.to_ascii_lowercase().contains(&format!("content-length: {length}\r\n")), "{text}");
    let head = text.find("\r\n\r\n").expect("the whole head") + 4;

    server.terminate();
    let begun = Instant::now();
    let mut piece = vec![0; 64 * 1024];
    while begun.elapsed() < Duration::from_secs(6) {
        read += socket.read(&mut piece).await.expect("more of it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(read < head + length, "all was read before, so this shows nothing");
    loop {
        match socket.read(&mut piece).await.expect("more of it") {
            0 => break,
            more => read += more,
        }
    }
    assert_eq!(read, head + length, "the answer was cut");
    let begun = Instant::now();
    assert!(server.child.wait().await.expect("ends").success());
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn requests_go_on_when_nobody_reads_the_log_any_more() {
    use axum::http::Method;
    use std::process::Stdio;
    let comfyui = Comfyui::start().await;
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_comfy-serve"))
        .args(["serve", "--listen", "127.0.0.1:0", "--debug-header"])
        .args(comfyui.args())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("starts");
    drop(child.stderr.take());
    let mut log = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let address = loop {
        let line = log.next_line().await.expect("readable").expect("it listens");
        if let Some((_, rest)) = line.split_once("listening on ") {
            break rest.split('"').next().expect("an address").to_owned();
        }
    };
    drop(log);
    let url = |path: &str| format!("http://{address}{path}");
    let ping = async || send(Method::GET, &url("/ping"), &[], "").await.status == 200;
    assert!(soon(ping).await);
    for number in 0..3 {
        let answer = send(Method::POST, &url("/invocations"), &[], flat(number).to_string()).await;
        assert_eq!(answer.status, 200);
        let answer = send(Method::POST, &url("/invocations"), &[], "{").await;
        assert_eq!(answer.failure(), (400, "not_json".into()));
    }
    assert!(ping().await);
    crate::harness::signal(child.id().expect("it runs"), "TERM");
    assert!(child.wait().await.expect("ends").success());
}

/// The children of a process: name and state.
fn children(of: u32) -> Vec<(String, char)> {
    let stats = std::fs::read_dir("/proc").expect("readable").flatten().filter_map(|entry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let (head, rest) = stat.rsplit_once(") ")?;
        let mut rest = rest.split_ascii_whitespace();
        let (state, parent) = (rest.next()?.chars().next()?, rest.next()?.parse::<u32>().ok()?);
        (parent == of).then(|| (head.split_once('(').map_or("", |(_, name)| name).to_owned(), state))
    });
    stats.collect()
}

#[tokio::test]
#[expect(unsafe_code, reason = "between fork and exec there is no other way to make it inherit orphans")]
async fn what_processes_leave_behind_does_not_stay_a_zombie() {
    use std::process::Stdio;
    // As process 1 is, which a test cannot be.
    let adopt = || rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(std::io::Error::from);
    let script = "(sleep 2 & sleep 2 &); echo up; sleep 3; exit 3";
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_comfy-serve"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--comfyui-url=http://127.0.0.1:9", "sh", "-c", script]);
    command.stdout(Stdio::piped()).kill_on_drop(true);
    // SAFETY: the closure makes two system calls, allocates nothing and takes no lock, as is required after a fork.
    unsafe { command.pre_exec(adopt) };
    let mut child = command.spawn().expect("starts");
    let pid = child.id().expect("it runs");
    let mut log = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut says = async |text: &str| {
        while !log.next_line().await.expect("readable").expect("it goes on").contains(text) {}
    };
    says("comfyui | up").await;
    let orphans = || children(pid).iter().filter(|(name, _)| name == "sleep").count();
    assert!(soon(async || orphans() == 2).await, "{:?}", children(pid));
    assert!(soon(async || orphans() == 0).await, "{:?}", children(pid));
    // How ComfyUI itself ended is still known, and it is started again.
    says("exit status 3; it is started again").await;
    says("comfyui | up").await;
    says("exit status 3; it is started again").await;
    assert!(soon(async || children(pid).iter().all(|(_, state)| *state != 'Z')).await, "{:?}", children(pid));
    crate::harness::signal(pid, "TERM");
    assert!(child.wait().await.expect("ends").success());
}
