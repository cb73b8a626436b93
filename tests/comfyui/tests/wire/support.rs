//! A client of a few lines: requests over a fresh connection, and WebSockets that a thread waits on.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use comfyui_stand_in::py::{self, Value};
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

/// Longer than anything here takes; only a failing test waits this long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        py::parse(&self.text()).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Sends a request and reads the answer.
pub fn ask(port: u16, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 65_536];
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok()).unwrap_or(0);
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut body = bytes[end..].to_vec();
    let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while method != "HEAD" && body.len() < length {
        match stream.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => body.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(Answer { status, headers, body })
}

pub fn get(port: u16, path: &str) -> Answer {
    ask(port, "GET", path, &[], b"").unwrap()
}

pub fn post(port: u16, path: &str, body: &str) -> Answer {
    ask(port, "POST", path, &[("Content-Type", "application/json")], body.as_bytes()).unwrap()
}

/// A WebSocket.
pub struct Listener {
    socket: WebSocket<TcpStream>,
    /// Everything that came, binary frames included.
    pub seen: Vec<Frame>,
}

/// What came over a WebSocket.
#[derive(Debug, Clone)]
pub enum Frame {
    Text(Value),
    Binary(Vec<u8>),
}

impl Frame {
    /// The type of a message, or `BIN` and the event of a binary frame.
    pub fn kind(&self) -> String {
        match self {
            Frame::Text(message) => message.get("type").map(py::str_of).unwrap_or_default(),
            Frame::Binary(bytes) => format!("BIN{}", bytes[3]),
        }
    }

    pub fn data(&self, key: &str) -> Option<&Value> {
        match self {
            Frame::Text(message) => message.get("data")?.get(key),
            Frame::Binary(_) => None,
        }
    }

    /// Whether this is the end of a prompt.
    pub fn is_end(&self) -> bool {
        self.kind() == "executing" && self.data("node") == Some(&Value::None)
    }

    /// Whether this is the step `value` of a node.
    pub fn is_step(&self, value: i128) -> bool {
        self.kind() == "progress" && self.data("value") == Some(&Value::Int(value))
    }
}

impl Listener {
    /// Connects and waits for the greeting.
    pub fn open(port: u16, client: &str) -> Self {
        let mut listener = Self::open_unread(port, client);
        listener.until(|frame| frame.data("sid").is_some());
        listener
    }

    /// Connects and reads nothing.
    pub fn open_unread(port: u16, id: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = client(format!("ws://127.0.0.1:{port}/ws?clientId={id}"), stream).unwrap();
        Listener { socket, seen: Vec::new() }
    }

    pub fn say(&mut self, text: &str) {
        self.socket.send(Message::text(text.to_owned())).unwrap();
    }

    /// The next frame; `Err` when the connection is at its end or nothing came within `time`.
    pub fn next(&mut self, time: Duration) -> Result<Frame, tokio_tungstenite::tungstenite::Error> {
        self.socket.get_ref().set_read_timeout(Some(time))?;
        loop {
            let frame = match self.socket.read()? {
                Message::Text(text) => Frame::Text(py::parse(&text).unwrap()),
                Message::Binary(bytes) => Frame::Binary(bytes.to_vec()),
                _ => continue,
            };
            self.seen.push(frame.clone());
            return Ok(frame);
        }
    }

    /// Reads up to the first frame for which `wanted` holds.
    pub fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            match self.next(PATIENCE) {
                Ok(frame) if wanted(&frame) => return frame,
                Ok(_) => {}
                Err(error) => panic!("{error} after {:?}", self.seen.iter().map(Frame::kind).collect::<Vec<_>>()),
            }
        }
    }

    /// Reads up to the end of a prompt.
    pub fn until_end(&mut self) {
        self.until(Frame::is_end);
    }

    /// Closes as a browser does, and waits for the answer.
    pub fn close(mut self) -> Vec<Frame> {
        let _ = self.socket.close(None);
        while self.socket.read().is_ok() {}
        self.seen
    }

    /// Drops the connection without a word.
    pub fn drop_abruptly(self) -> Vec<Frame> {
        let _ = self.socket.get_ref().shutdown(std::net::Shutdown::Both);
        self.seen
    }
}

/// Waits until `done` gives something.
pub fn wait<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(result) = done() {
            return result;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The history entry of a prompt, once it is there.
pub fn history(port: u16, id: &str) -> Value {
    wait("history", || get(port, &format!("/history/{id}")).json().get(id).cloned())
}
