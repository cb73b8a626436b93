//! A hub on loopback that behaves like Hugging Face and Civitai: it describes a file, redirects to another origin that
//! refuses a forwarded token, knows ranges and ETags, counts requests, and breaks in the ways that hubs break.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use sha2::{Digest, Sha256};

/// The commit that `main` is at the start.
pub const COMMIT: &str = "1111111111111111111111111111111111111111";
/// The token that opens everything.
pub const TOKEN: &str = "good-token";

/// What goes wrong with the next answer that carries content.
#[derive(Clone)]
pub enum Fault {
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// Another status, with a header.
    Status(u16, &'static str, &'static str),
    /// Signed addresses given so far are refused from now on.
    Expire,
    /// The file has this content from now on, under another ETag.
    Change(Vec<u8>),
    /// Another first byte than the file's, under the file's ETag.
    Damage,
}

/// A status and headers.
pub type Said = (u16, &'static [(&'static str, &'static str)]);

#[derive(Default)]
pub struct State {
    /// Files of the repository `maker/model` at `main`.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Whether the terms of `maker/model` must be accepted.
    pub gated: bool,
    /// Whether ranges are ignored.
    pub no_ranges: bool,
    /// Whether the ETags are weak ones, which stay when the bytes change.
    pub weak: bool,
    /// What happens to the next answers with content of more than one byte.
    pub faults: VecDeque<Fault>,
    /// What the hub says to the next requests, instead of what it would.
    pub at_hub: VecDeque<Said>,
    /// Sizes that the hub says, where they are not those of the files.
    pub sizes: BTreeMap<String, u64>,
    /// Whether the hub keeps the files itself, at another address of its own, as a mirror does.
    pub mirror: bool,
    /// What `main` is.
    pub commit: String,
    /// Requests: method, path, whether a token came, the range.
    pub log: Vec<(String, String, bool, String)>,
    valid_from: u64,
    signed: u64,
}

/// The hub and the other origin that it redirects to.
pub struct Hub {
    /// Address of the hub.
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Hub {
    pub fn start() -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a port");
        let (hub, store) = (listen(), listen());
        let at = |l: &TcpListener| format!("http://{}", l.local_addr().expect("address"));
        let (url, store_url) = (at(&hub), at(&store));
        let state = Arc::new(Mutex::new(State { commit: COMMIT.into(), ..State::default() }));
        for (listener, is_store) in [(hub, false), (store, true)] {
            let (state, store_url) = (state.clone(), store_url.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (state, store_url) = (state.clone(), store_url.clone());
                    // A client that goes away is none of the hub's business.
                    std::thread::spawn(move || drop(serve(stream, &state, &store_url, is_store)));
                }
            });
        }
        Hub { url, state }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("state")
    }

    /// Puts a file into `maker/model`.
    pub fn put(&self, path: &str, content: &[u8]) {
        self.state().files.insert(path.into(), content.to_vec());
    }

    /// Bytes of content that were asked for by ranges since the log was cleared, per request.
    pub fn ranges(&self) -> Vec<String> {
        self.state()
            .log
            .iter()
            .filter(|(_, path, ..)| path.starts_with("/store"))
            .map(|(.., range)| range.clone())
            .collect()
    }
}

pub fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

struct Asked {
    method: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let path = percent_encoding::percent_decode_str(path).decode_utf8().ok()?.into_owned();
    Some(Asked { method, path, query: query.to_owned(), headers })
}

/// Status, headers and body; with `cut` the body ends early.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    cut: Option<usize>,
}

fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Answer {
    let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    Answer { status, headers, body: body.into(), cut: None }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>, store: &str, is_store: bool) -> std::io::Result<()> {
    let Some(asked) = read(&stream) else { return Ok(()) };
    let answer = {
        let mut state = state.lock().expect("state");
        let token = asked.headers.contains_key("authorization");
        let range = asked.headers.get("range").cloned().unwrap_or_default();
        state.log.push((asked.method.clone(), asked.path.clone(), token, range));
        if is_store { from_store(&mut state, &asked) } else { from_hub(&mut state, &asked, store) }
    };
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", answer.body.len());
    stream.write_all(head.as_bytes())?;
    if asked.method != "HEAD" {
        stream.write_all(&answer.body[..answer.cut.unwrap_or(answer.body.len()).min(answer.body.len())])?;
    }
    stream.flush()
}

fn from_hub(state: &mut State, asked: &Asked, store: &str) -> Answer {
    if let Some((status, headers)) = state.at_hub.pop_front() {
        return answer(status, headers, "");
    }
    let token = asked.headers.get("authorization").map(|value| value.trim_start_matches("Bearer ").to_owned());
    let parts: Vec<&str> = asked.path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        ["web", name] => content(state, asked, name),
        ["loop"] => answer(302, &[("location", "/loop")], ""),
        ["api", "models", "maker", "model", "tree", _] => {
            let files: Vec<_> = state.files.keys().map(|f| serde_json::json!({"type": "file", "path": f})).collect();
            answer(200, &[], serde_json::Value::from(files).to_string())
        }
        // Two versions of a model, of which both call their file the same.
        ["api", "v1", "model-versions", "7" | "8"] => {
            let file = &state.files["style.safetensors"];
            let text = serde_json::json!({"files": [
                {"name": "other.ckpt", "type": "Pruned Model", "hashes": {}, "metadata": {"format": "PickleTensor"}},
                {"name": "style.safetensors", "type": "Model", "primary": true,
                 "hashes": {"SHA256": sha256(file).to_uppercase()}, "metadata": {"format": "SafeTensor"}}]});
            answer(200, &[], text.to_string())
        }
        ["api", "download", "models", "7" | "8"] if token.as_deref() == Some(TOKEN) => {
            redirect(state, "style.safetensors", store, &[])
        }
        ["api", "download", "models", "7" | "8"] => answer(307, &[("location", "/login?returnUrl=x")], ""),
        // The repository's name before it was renamed.
        ["maker", "old", "resolve", rest @ ..] => {
            answer(307, &[("location", &format!("/maker/model/resolve/{}", rest.join("/")))], "")
        }
        ["maker", "model", "resolve", revision, path @ ..] => {
            let path = path.join("/");
            let commit = state.commit.clone();
            if state.gated && token.as_deref() != Some(TOKEN) {
                let status = if token.is_some() { 403 } else { 401 };
                return answer(
                    status,
                    &[("x-error-code", "GatedRepo"), ("x-error-message", "Access is restricted.")],
                    "",
                );
            }
            if *revision != "main" && *revision != commit {
                return answer(404, &[("x-error-code", "RevisionNotFound")], "");
            }
            let Some(file) = state.files.get(&path).cloned() else {
                return answer(404, &[("x-error-code", "EntryNotFound")], "");
            };
            let size = state.sizes.get(&path).copied().unwrap_or(file.len() as u64).to_string();
            let sum = sha256(&file);
            // Small text is kept by the hub itself.
            if path.ends_with(".json") {
                let mut answer = content(state, asked, &path);
                answer.headers.push(("x-repo-commit".into(), commit));
                return answer;
            }
            let etag = format!("\"{sum}\"");
            let headers = [("x-repo-commit", &*commit), ("x-linked-etag", &etag), ("x-linked-size", &size)];
            if state.mirror {
                let mut answer = answer(302, &headers, "");
                answer.headers.push(("location".into(), format!("http://{}/web/{path}", asked.headers["host"])));
                return answer;
            }
            redirect(state, &path, store, &headers)
        }
        _ => answer(401, &[("x-error-code", "RepoNotFound"), ("x-error-message", "Invalid username or password.")], ""),
    }
}

fn redirect(state: &mut State, path: &str, store: &str, headers: &[(&str, &str)]) -> Answer {
    state.signed += 1;
    let path = path.replace('/', "%2F").replace(' ', "%20");
    let mut answer = answer(302, headers, "");
    answer.headers.push(("location".into(), format!("{store}/store/{path}?sig={}", state.signed)));
    answer
}

/// Where the content is kept: only a valid signature counts, and a token beside it is refused.
fn from_store(state: &mut State, asked: &Asked) -> Answer {
    if asked.headers.contains_key("authorization") {
        return answer(400, &[], "only one auth mechanism allowed");
    }
    let signature: u64 = asked.query.trim_start_matches("sig=").parse().unwrap_or_default();
    let small = asked.headers.get("range").is_some_and(|range| range == "bytes=0-0");
    if !small && matches!(state.faults.front(), Some(Fault::Expire)) {
        state.faults.pop_front();
        state.valid_from = state.signed + 1;
    }
    if asked.method != "GET" || signature < state.valid_from {
        return answer(403, &[], "expired");
    }
    let path = asked.path.trim_start_matches("/store/").to_owned();
    content(state, asked, &path)
}

fn content(state: &mut State, asked: &Asked, path: &str) -> Answer {
    let range = asked.headers.get("range").filter(|_| !state.no_ranges).and_then(|range| {
        let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((from.parse::<usize>().ok()?, to.parse::<usize>().ok()?))
    });
    let small = asked.method == "HEAD" || range == Some((0, 0));
    let (mut cut, mut damaged) = (None, false);
    if !small {
        match state.faults.pop_front() {
            Some(Fault::Cut(bytes)) => cut = Some(bytes),
            Some(Fault::Status(status, name, value)) => return answer(status, &[(name, value)], ""),
            Some(Fault::Change(content)) => drop(state.files.insert(path.to_owned(), content)),
            Some(Fault::Damage) => damaged = true,
            Some(Fault::Expire) | None => {}
        }
    }
    let Some(file) = state.files.get(path) else { return answer(404, &[], "") };
    let etag = if state.weak { "W/\"1\"".to_owned() } else { format!("\"{}\"", &sha256(file)[..32]) };
    let same = asked.headers.get("if-range").is_none_or(|wanted| *wanted == etag);
    let mut made = match range.filter(|_| same) {
        Some((from, _)) if from >= file.len() => {
            answer(416, &[("content-range", &format!("bytes */{}", file.len()))], "")
        }
        Some((from, to)) => {
            let to = (to + 1).min(file.len());
            let shown = format!("bytes {from}-{}/{}", to - 1, file.len());
            answer(206, &[("content-range", &shown), ("etag", &etag)], &file[from..to])
        }
        None => answer(200, &[("etag", &etag)], file.clone()),
    };
    made.cut = cut;
    if let Some(first) = made.body.first_mut().filter(|_| damaged) {
        *first ^= 1;
    }
    made
}
