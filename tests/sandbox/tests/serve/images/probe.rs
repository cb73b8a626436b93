//! What the images of these tests hold: a server that tells what a container sees. Built by `images.rs`, for itself alone.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::{env, fs, process, thread};

unsafe extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
    fn geteuid() -> u32;
    fn getegid() -> u32;
}

extern "C" fn end(_: i32) {
    process::exit(0);
}

fn main() {
    let mode = env::var("MODE").unwrap_or_default();
    println!("the container starts as {}", process::id());
    if mode == "exit" {
        process::exit(7);
    }
    // The first process of a container ignores SIGTERM unless it says otherwise.
    if mode != "stubborn" {
        unsafe { signal(15, end as usize) };
    }
    let listener = TcpListener::bind("0.0.0.0:8080").expect("the port is free");
    for stream in listener.incoming().flatten() {
        thread::spawn(move || answer(stream));
    }
}

fn answer(mut stream: TcpStream) {
    let mut head = [0; 4096];
    let read = stream.read(&mut head).unwrap_or(0);
    let body = if head[..read].starts_with(b"GET /ping") { String::new() } else { facts() };
    let _ = write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
}

/// One a line, `name: value`.
fn facts() -> String {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_else(|e| format!("{:?}", e.kind())).trim().to_owned();
    let kind = |result: std::io::Result<()>| result.map_or_else(|e| format!("{:?}", e.kind()), |()| "done".into());
    let marks = text("/marks");
    let write = |path: &str| kind(fs::write(path, format!("{marks}x")));
    let interfaces: Vec<String> = fs::read_dir("/sys/class/net")
        .map(|all| all.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    let sandbox = env::var("SANDBOX").unwrap_or_default();
    let mut told = vec![
        format!("args: {:?}", env::args().collect::<Vec<_>>()),
        format!("directory: {}", env::current_dir().map(|d| d.display().to_string()).unwrap_or_default()),
        format!("user: {} {}", unsafe { geteuid() }, unsafe { getegid() }),
        format!("model: {}", text("/opt/ml/model/checkpoints/a.safetensors")),
        format!("into the model: {}", kind(fs::write("/opt/ml/model/x", ""))),
        format!("marks before: {marks}"),
        format!("own file: {}", write("/marks")),
        format!("lower: {}", text("/data/lower")),
        format!("removed: {}", text("/data/removed")),
        format!("interfaces: {interfaces:?}"),
        format!("the sandbox: {}", kind(TcpStream::connect(sandbox).map(drop))),
        format!("localhost: {}", text("/etc/hosts").contains("127.0.0.1\tlocalhost")),
        format!("shared memory: {}", kind(fs::write("/dev/shm/x", ""))),
    ];
    told.extend(env::vars().map(|(name, value)| format!("env {name}: {value}")));
    told.join("\n")
}
