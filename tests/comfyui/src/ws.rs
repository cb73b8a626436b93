//! `/ws`, and the loop that sends.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    body::Body,
    extract::{Query, Request, State},
    response::Response,
};
use futures::{SinkExt, StreamExt, stream::SplitSink};
use hyper::{
    StatusCode, header,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc::UnboundedReceiver, watch};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Message as Frame, Role, WebSocketConfig},
    },
};

use crate::{
    life::{Life, Message, Payload, lock},
    py::{self, Value, dict},
};

type Stream = WebSocketStream<TokioIo<Upgraded>>;

/// The sending half of one client's connection.
pub(crate) struct Socket {
    sink: tokio::sync::Mutex<SplitSink<Stream, Frame>>,
    metadata: AtomicBool,
    /// Becomes true when the connection has ended, so that nobody goes on waiting to send.
    gone: watch::Sender<bool>,
}

impl Socket {
    /// Whether the client declared that it takes previews with metadata.
    pub fn takes_metadata(&self) -> bool {
        self.metadata.load(Ordering::SeqCst)
    }

    /// Sends, and waits until the operating system took all of it. Errors are nobody's business, as in ComfyUI.
    async fn send(&self, payload: Payload) {
        let frame = match payload {
            Payload::Text(text) => Frame::text(text),
            Payload::Binary(bytes) => Frame::binary(bytes),
        };
        let mut gone = self.gone.subscribe();
        tokio::select! {
            _ = async { self.sink.lock().await.send(frame).await } => {}
            _ = gone.wait_for(|gone| *gone) => {}
        }
    }
}

/// Sends the queued messages one by one and waits for each: one client that does not read holds up all others.
pub(crate) async fn publish(life: Arc<Life>, mut messages: UnboundedReceiver<Message>) {
    while let Some(message) = messages.recv().await {
        let sockets: Vec<Arc<Socket>> = match &message.to {
            Some(id) => lock(&life.sockets).get(id).cloned().into_iter().collect(),
            None => lock(&life.sockets).values().cloned().collect(),
        };
        for socket in sockets {
            socket.send(message.payload.clone()).await;
        }
    }
}

#[derive(Debug, Default)]
struct Handshake {
    key: Option<String>,
    upgrade: Option<OnUpgrade>,
}

/// `GET /ws?clientId=...`
pub(crate) async fn connect(
    State(life): State<Arc<Life>>,
    Query(query): Query<std::collections::HashMap<String, String>>,
    mut request: Request,
) -> Response {
    let headers = request.headers();
    let word = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let upgrade = word(header::UPGRADE).is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
    let handshake = Handshake {
        key: word(header::SEC_WEBSOCKET_KEY).filter(|_| upgrade).map(str::to_owned),
        upgrade: request.extensions_mut().remove::<OnUpgrade>(),
    };
    let (Some(key), Some(upgrade)) = (handshake.key, handshake.upgrade) else {
        let text = "No WebSocket UPGRADE hdr: None\n Can \"Upgrade\" only to \"WebSocket\".";
        return crate::http::text(StatusCode::BAD_REQUEST, text);
    };
    let client = query.get("clientId").cloned().unwrap_or_default();
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            serve(life, client, upgraded).await;
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
    if let Ok(accept) = derive_accept_key(key.as_bytes()).parse() {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// aiohttp's limit for what a client sends: 4 MB.
const LARGEST: usize = 4 << 20;

async fn serve(life: Arc<Life>, client: String, upgraded: Upgraded) {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(LARGEST);
    config.max_frame_size = Some(LARGEST);
    let stream = Stream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let (sink, mut frames) = stream.split();
    let id = if client.is_empty() { uuid::Uuid::new_v4().simple().to_string() } else { client };
    let socket = Arc::new(Socket {
        sink: tokio::sync::Mutex::new(sink),
        metadata: AtomicBool::new(false),
        gone: watch::Sender::new(false),
    });
    let mut cut = life.cut.subscribe();
    cut.mark_unchanged();
    {
        let mut sockets = lock(&life.sockets);
        // A socket of the same id is forgotten, not closed, and the new one goes to the end of the table.
        sockets.shift_remove(&id);
        sockets.insert(id.clone(), socket.clone());
    }
    life.seen.socket_opened(&id);
    let talk = async {
        let hello =
            dict! { "type" => "status", "data" => dict! { "status" => life.queue_info(), "sid" => id.as_str() } };
        socket.send(Payload::Text(py::dumps(&hello))).await;
        let current = lock(&life.current).clone();
        if let (true, Some(node)) = (current.client.as_ref() == Some(&id), current.node) {
            let executing = dict! { "type" => "executing", "data" => dict! { "node" => node } };
            socket.send(Payload::Text(py::dumps(&executing))).await;
        }
        let mut first = true;
        while let Some(Ok(frame)) = frames.next().await {
            if let Frame::Text(text) = frame
                && let Ok(said) = py::parse(&text)
            {
                if first && said.get("type").and_then(Value::as_str) == Some("feature_flags") {
                    let wanted = said.get("data").and_then(|data| data.get("supports_preview_metadata"));
                    // ComfyUI keeps the flags by id, so they may end up with a newer socket.
                    let holder = lock(&life.sockets).get(&id).cloned();
                    if let Some(holder) = holder {
                        holder.metadata.store(wanted == Some(&Value::Bool(true)), Ordering::SeqCst);
                        let answer = dict! { "type" => "feature_flags", "data" => crate::http::features(&life) };
                        holder.send(Payload::Text(py::dumps(&answer))).await;
                    }
                }
                first = false;
            }
        }
    };
    tokio::select! {
        () = talk => {}
        _ = cut.changed() => {}
    }
    // Whoever has the id now is removed: this is ComfyUI's, too.
    lock(&life.sockets).shift_remove(&id);
    socket.gone.send_replace(true);
    life.seen.socket_closed();
}
