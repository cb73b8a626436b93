//! What the sandbox runs in these tests: this test binary again, as a function or as a container.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// A script that runs `child` of this binary, with its arguments in CHILD_ARGS.
pub fn script() -> String {
    let this = std::env::current_exe().unwrap();
    format!("#!/bin/sh\nCHILD_ARGS=\"$*\" exec '{}' --exact child --ignored --nocapture\n", this.display())
}

/// What this process is, if it is a child.
pub fn play() {
    if let Ok(api) = std::env::var("AWS_LAMBDA_RUNTIME_API") {
        function(&api);
    } else if let Ok(listen) = std::env::var("COMFY_SERVE_LISTEN") {
        container(&listen);
    }
}

/// A line of output.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// The environment, as JSON.
fn environment() -> Value {
    std::env::vars().map(|(k, v)| (k, json!(v))).collect::<serde_json::Map<_, _>>().into()
}

fn request(api: &str, head: &str, body: &[u8]) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(api).unwrap();
    write!(stream, "{head}host: {api}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len()).unwrap();
    // A server that refuses a long body may close before its end.
    let _ = stream.write_all(body);
    read(&mut stream)
}

fn read(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(all.len());
    let head = String::from_utf8_lossy(&all[..end]).to_lowercase();
    let body = all.get(end + 4..).unwrap_or_default().to_vec();
    (head, body)
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    head.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
}

fn function(api: &str) {
    say("the function starts");
    if std::env::var("MODE").as_deref() == Ok("init-exit") {
        std::process::exit(4);
    }
    loop {
        let (head, body) = request(api, "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\n", b"");
        if body.is_empty() {
            std::process::exit(0);
        }
        let id = header(&head, "lambda-runtime-aws-request-id").to_owned();
        let event: Value = serde_json::from_slice(&body).unwrap();
        let order = event["body"].as_str().and_then(|b| serde_json::from_str(b).ok()).unwrap_or(event.clone());
        let to = |what: &str| format!("POST /2018-06-01/runtime/invocation/{id}/{what} HTTP/1.1\r\n");
        let number = |name: &str| order[name].as_u64().unwrap_or_default();
        match order["do"].as_str().unwrap_or_default() {
            "exit" => std::process::exit(3),
            "sleep" => {
                std::thread::sleep(Duration::from_millis(number("ms")));
                request(api, &to("response"), b"\"slept\"");
            }
            "wait" => {
                while !Path::new(order["file"].as_str().unwrap_or_default()).exists() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                request(api, &to("response"), b"\"waited\"");
            }
            "error" => {
                let head = format!("{}lambda-runtime-function-error-type: Own\r\n", to("error"));
                request(api, &head, br#"{"errorType":"Own","errorMessage":"mine"}"#);
            }
            "large" => {
                let text = "x".repeat(number("bytes") as usize);
                let (status, _) =
                    request(api, &to("response"), json!({"statusCode": 200, "body": text}).to_string().as_bytes());
                say(&format!("the runtime API said {}", status.lines().next().unwrap_or_default()));
            }
            "memory" => {
                // Touched, or it would not be there.
                let held = vec![1_u8; (number("mb") << 20) as usize];
                std::thread::sleep(Duration::from_secs(20));
                request(api, &to("response"), format!("{}", held.len()).as_bytes());
            }
            "stream" => stream(api, &id, &order),
            _ => {
                let text =
                    json!({"event": event, "environment": environment(), "pid": std::process::id(), "head": head});
                let answer = json!({"statusCode": 200, "headers": {"x-own": "yes"}, "body": text.to_string()});
                request(api, &to("response"), answer.to_string().as_bytes());
            }
        }
    }
}

fn stream(api: &str, id: &str, order: &Value) {
    let mut stream = TcpStream::connect(api).unwrap();
    write!(
        stream,
        "POST /2018-06-01/runtime/invocation/{id}/response HTTP/1.1\r\nhost: {api}\r\nconnection: close\r\n\
         lambda-runtime-function-response-mode: streaming\r\ntrailer: lambda-runtime-function-error-type\r\n\
         content-type: application/vnd.awslambda.http-integration-response\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    .unwrap();
    let mut chunk = |bytes: &[u8]| {
        let framed = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        stream.write_all(&framed).unwrap();
    };
    let head = json!({"statusCode": 201, "headers": {"content-type": "image/png"}, "cookies": ["a=1", "b=2"]});
    chunk(head.to_string().as_bytes());
    // The delimiter may come in pieces.
    chunk(&[0; 5]);
    chunk(&[0; 3]);
    for _ in 0..order["chunks"].as_u64().unwrap_or(2) {
        chunk(&vec![b'p'; order["size"].as_u64().unwrap_or(3) as usize]);
    }
    let end: &[u8] = match order["trailer"].as_str() {
        Some("error") => b"0\r\nlambda-runtime-function-error-type: Own\r\n\r\n",
        _ => b"0\r\n\r\n",
    };
    stream.write_all(end).unwrap();
    read(&mut stream);
}

fn container(listen: &str) {
    let mode = std::env::var("MODE").unwrap_or_default();
    say(&format!("the container starts with {}", std::env::var("CHILD_ARGS").unwrap_or_default()));
    if mode == "exit" {
        std::process::exit(7);
    }
    // The port that ComfyUI would have is free to be taken; this one is ours.
    let listener = TcpListener::bind(listen).unwrap();
    for stream in listener.incoming() {
        let mode = mode.clone();
        std::thread::spawn(move || answer(stream.unwrap(), &mode));
    }
}

fn answer(mut stream: TcpStream, mode: &str) {
    let mut all = Vec::new();
    let mut buffer = [0; 65536];
    let (head, body) = loop {
        let read = stream.read(&mut buffer).unwrap_or_default();
        all.extend_from_slice(&buffer[..read]);
        if let Some(end) = all.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&all[..end]).to_lowercase();
            let length: usize = header(&head, "content-length").parse().unwrap_or_default();
            if all.len() >= end + 4 + length {
                break (head, all[end + 4..].to_vec());
            }
        }
        if read == 0 {
            return;
        }
    };
    if head.starts_with("get /ping") {
        let status = if mode == "sick" { "503 Service Unavailable" } else { "200 OK" };
        let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        return;
    }
    let order: Value = serde_json::from_slice(&body).unwrap_or_default();
    std::thread::sleep(Duration::from_millis(order["sleep"].as_u64().unwrap_or_default()));
    if order["exit"] == true {
        std::process::exit(9);
    }
    let status = order["status"].as_u64().unwrap_or(200);
    let text = match order["text"].as_str() {
        Some(text) => text.repeat(order["times"].as_u64().unwrap_or(1) as usize),
        None => {
            let model = std::env::var("COMFY_SERVE_MODEL_DIR").unwrap_or_default();
            let file = |name: &str| std::fs::read_to_string(Path::new(&model).join(name)).ok();
            let names = ["checkpoints/a.safetensors", "b.bin"];
            let modes: Vec<u32> = {
                use std::os::unix::fs::PermissionsExt;
                let mode = |p: &Path| std::fs::metadata(p).map(|m| m.permissions().mode() & 0o777).unwrap_or_default();
                vec![mode(Path::new(&model)), mode(&Path::new(&model).join(names[0]))]
            };
            json!({
                "head": head, "pid": std::process::id(), "environment": environment(), "modes": modes,
                "files": names.map(file), "model": model, "size": body.len(),
            })
            .to_string()
        }
    };
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\ncontent-type: application/json\r\nx-own: no\r\n\
         x-amzn-sagemaker-custom-attributes: back\r\nconnection: close\r\n\r\n{text}",
        text.len()
    );
}
