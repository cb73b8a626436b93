//! The WebSocket of one request, and spare ones.
//!
//! ComfyUI sends to all sockets in turn, so one that is not read stops everybody: each socket has a task that does
//! nothing but read it, from its first moment to its last, in use or not. A client id is never used again: after a
//! reconnect under the same id ComfyUI may send to nobody.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::comfy::Comfy;

/// How long opening one may take; a request goes on without it then, and asks the history.
const OPEN: Duration = Duration::from_secs(2);
/// Open sockets that wait for a request, so that opening is not on its way. Each costs ComfyUI a few status messages.
const SPARES: usize = 2;
/// Largest message, in bytes: SaveImageWebsocket sends a picture as one frame.
const LARGEST: usize = 256 * 1024 * 1024;

/// What a job's messages say, as much as matters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// It runs.
    Started,
    /// These nodes were not run: their result was there.
    Cached(Vec<String>),
    /// This node runs.
    Executing(String),
    /// An output node has this to show.
    Executed(String, Value),
    /// A node raised.
    Failed(Value),
    /// Somebody stopped it.
    Interrupted,
    /// All nodes ran.
    Succeeded,
    /// The last message of all.
    Ended,
    /// A picture: a preview, or what SaveImageWebsocket sends.
    Picture(&'static str, Bytes),
}

/// A socket in use.
#[derive(Debug)]
pub(crate) struct Line {
    /// ComfyUI sends a prompt's messages to the client id that came with it.
    pub(crate) client_id: String,
    events: UnboundedReceiver<(Option<String>, Event)>,
}

impl Line {
    /// Opens one; none when that fails.
    async fn open(comfy: &Comfy) -> Option<Self> {
        let client_id = uuid::Uuid::new_v4().to_string();
        let config = WebSocketConfig::default().max_message_size(Some(LARGEST)).max_frame_size(Some(LARGEST));
        let url = comfy.socket_url(&client_id);
        let opening = tokio_tungstenite::connect_async_with_config(url, Some(config), true);
        match tokio::time::timeout(OPEN, opening).await {
            Ok(Ok((socket, _))) => {
                let (sender, events) = unbounded_channel();
                tokio::spawn(read(socket, sender));
                Some(Line { client_id, events })
            }
            Ok(Err(cause)) => {
                tracing::debug!(%cause, "no WebSocket");
                None
            }
            Err(_) => {
                tracing::debug!("no WebSocket in time");
                None
            }
        }
    }

    /// The next event of a job; none when the socket is gone. Safe to be dropped and called again.
    pub(crate) async fn next(&mut self, prompt_id: &str) -> Option<Event> {
        loop {
            let (of, event) = self.events.recv().await?;
            // Pictures name no job. They are this one's: the client id came with no other prompt.
            if of.as_deref().is_none_or(|of| of == prompt_id) {
                return Some(event);
            }
        }
    }

    fn alive(&self) -> bool {
        !self.events.is_closed()
    }
}

/// Reads until the other side or the user of the line is gone.
async fn read(
    mut socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    events: UnboundedSender<(Option<String>, Event)>,
) {
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            () = events.closed() => break,
        };
        let event = match message {
            Some(Ok(Message::Text(text))) => parse(&text),
            Some(Ok(Message::Binary(frame))) => {
                picture(&frame).map(|(kind, bytes)| (None, Event::Picture(kind, bytes)))
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => return,
            Some(Ok(_)) => None,
        };
        if let Some(event) = event
            && events.send(event).is_err()
        {
            break;
        }
    }
    // Politely, so that ComfyUI need not find out by a failed send. It may be frozen.
    let _ = tokio::time::timeout(OPEN, async {
        socket.close(None).await?;
        socket.flush().await
    })
    .await;
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// The event in a message, and the job that it is about.
fn parse(text: &str) -> Option<(Option<String>, Event)> {
    // Read in two steps: most messages are progress, with the state of every node, and are not looked into.
    let envelope: Envelope<'_> = serde_json::from_str(text).ok()?;
    let kind = envelope.kind.as_ref();
    if !(kind.starts_with("execut")) {
        return None;
    }
    let mut data: Value = serde_json::from_str(envelope.data?.get()).ok()?;
    // After a reconnect the current node comes without an id: nobody's.
    let prompt_id = data.get("prompt_id").and_then(Value::as_str)?.to_owned();
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let event = match kind {
        "execution_start" => Event::Started,
        "execution_cached" => Event::Cached(strings(data.get("nodes"))),
        "executing" => match data.get("node") {
            Some(Value::Null) => Event::Ended,
            node => Event::Executing(text(node)?),
        },
        "executed" => Event::Executed(text(data.get("node"))?, data.get_mut("output")?.take()),
        "execution_error" => Event::Failed(data),
        "execution_interrupted" => Event::Interrupted,
        "execution_success" => Event::Succeeded,
        _ => return None,
    };
    Some((Some(prompt_id), event))
}

/// The texts of a list.
pub(crate) fn strings(list: Option<&Value>) -> Vec<String> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The picture in a binary frame: event 1, then its format, both big-endian.
fn picture(frame: &Bytes) -> Option<(&'static str, Bytes)> {
    let (event, rest) = frame.split_first_chunk::<4>()?;
    let (format, _) = rest.split_first_chunk::<4>()?;
    let kind = match (u32::from_be_bytes(*event), u32::from_be_bytes(*format)) {
        (1, 1) => "image/jpeg",
        (1, 2) => "image/png",
        _ => return None,
    };
    Some((kind, frame.slice(8..)))
}

/// Sockets that are open already.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    comfy: Comfy,
    spares: Arc<Mutex<Vec<Line>>>,
}

impl Lines {
    pub(crate) fn new(comfy: Comfy) -> Self {
        Lines { comfy, spares: Arc::default() }
    }

    /// One for a request; none when ComfyUI does not open any.
    pub(crate) async fn take(&self) -> Option<Line> {
        let spare = {
            let mut spares = self.spares.lock().unwrap_or_else(PoisonError::into_inner);
            spares.retain(Line::alive);
            spares.pop()
        };
        match spare {
            Some(line) => Some(line),
            None => Line::open(&self.comfy).await,
        }
    }

    /// Opens the spares that are missing.
    pub(crate) async fn refill(&self) {
        loop {
            let missing = {
                let mut spares = self.spares.lock().unwrap_or_else(PoisonError::into_inner);
                spares.retain(Line::alive);
                spares.len() < SPARES
            };
            if !missing {
                return;
            }
            let Some(line) = Line::open(&self.comfy).await else { return };
            self.spares.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(kind: &str, data: &Value) -> Option<Event> {
        let (of, event) = parse(&json!({"type": kind, "data": data}).to_string())?;
        assert_eq!(of.as_deref(), Some("p"));
        Some(event)
    }

    #[test]
    fn messages() {
        let p = |rest: Value| {
            let mut data = json!({"prompt_id": "p"});
            data.as_object_mut().expect("an object").extend(rest.as_object().expect("an object").clone());
            data
        };
        assert_eq!(event("executing", &p(json!({"node": null}))), Some(Event::Ended));
        assert_eq!(event("executing", &p(json!({"node": "3"}))), Some(Event::Executing("3".into())));
        assert_eq!(event("executing", &p(json!({}))), None);
        assert_eq!(event("execution_success", &p(json!({}))), Some(Event::Succeeded));
        assert_eq!(event("execution_cached", &p(json!({"nodes": ["1", 2]}))), Some(Event::Cached(vec!["1".into()])));
        assert_eq!(
            event("executed", &p(json!({"node": "2", "output": {"images": []}}))),
            Some(Event::Executed("2".into(), json!({"images": []})))
        );
        assert_eq!(event("executed", &p(json!({"node": "2"}))), None);
        assert_eq!(event("progress_state", &p(json!({"nodes": {}}))), None);
        // After a reconnect the current node comes without an id.
        assert_eq!(parse(r#"{"type":"executing","data":{"node":null}}"#), None);
        for text in ["", "executing", "{}", "[]", r#"{"type":5}"#, r#"{"type":"executing"}"#] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn frames() {
        let frame = |words: [u32; 2], rest: &[u8]| {
            let mut frame = words.map(u32::to_be_bytes).concat();
            frame.extend_from_slice(rest);
            Bytes::from(frame)
        };
        assert_eq!(picture(&frame([1, 2], b"png")), Some(("image/png", Bytes::from_static(b"png"))));
        assert_eq!(picture(&frame([1, 1], b"")), Some(("image/jpeg", Bytes::new())));
        assert_eq!(picture(&frame([3, 2], b"text")), None);
        assert_eq!(picture(&frame([1, 7], b"")), None);
        assert_eq!(picture(&Bytes::from_static(b"\0\0\0\x01\0\0")), None);
    }
}
