//! A stand-in for ComfyUI that replays recorded exchanges.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{any, get, post};
use futures::SinkExt;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

/// How it behaves after it took a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As recorded.
    Replay,
    /// Refuses WebSockets.
    NoSocket,
    /// Closes the WebSocket after two messages.
    Drops,
    /// Never ends, until it is interrupted.
    Stuck,
    /// Forgets the job at once.
    Forgets,
}

/// What happened to it.
#[derive(Default)]
pub struct Seen {
    pub client_ids: Vec<String>,
    pub prompt_ids: Vec<String>,
    pub workflows: Vec<Value>,
    pub running: BTreeSet<String>,
    pub history: BTreeMap<String, Value>,
    pub interrupted: Vec<String>,
    pub viewed: Vec<BTreeMap<String, String>>,
    sockets: BTreeMap<String, UnboundedSender<Message>>,
}

pub struct Fake {
    pub mode: Mode,
    fixture: Value,
    picture: (&'static str, Vec<u8>),
    pub seen: Mutex<Seen>,
}

type Shared = Arc<Fake>;

impl Fake {
    /// Serves a fixture; `/view` answers with `picture`. Returns its URL too.
    pub async fn start(mode: Mode, fixture: &str, picture: (&'static str, Vec<u8>)) -> (Shared, String) {
        let path = format!("{}/tests/fixtures/{fixture}.json", env!("CARGO_MANIFEST_DIR"));
        let fixture = serde_json::from_slice(&std::fs::read(path).expect("a fixture")).expect("JSON");
        let fake = Arc::new(Fake { mode, fixture, picture, seen: Mutex::default() });
        let router = Router::new()
            .route("/prompt", post(prompt).get(async || Json(json!({"exec_info": {"queue_remaining": 0}}))))
            .route("/ws", any(socket))
            .route("/history/{id}", get(history))
            .route("/history", post(forget))
            .route("/queue", get(queue).post(dequeue))
            .route("/interrupt", post(interrupt))
            .route("/view", get(view))
            .with_state(Arc::clone(&fake));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (fake, url)
    }

    /// The workflow of the fixture.
    pub fn workflow(&self) -> Value {
        self.fixture["request"]["json"]["prompt"].clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().expect("lock")
    }

    /// The recording with this job's id in the place of the recorded one.
    fn of_job(&self, part: &Value, id: &str) -> Value {
        let recorded = self.fixture["response"]["json"]["prompt_id"].as_str().unwrap_or("-");
        serde_json::from_str(&part.to_string().replace(recorded, id)).expect("JSON")
    }

    fn finish(&self, id: &str) {
        let entry = self.of_job(&self.fixture["history"]["json"], id)[id].clone();
        let mut seen = self.lock();
        seen.running.remove(id);
        seen.history.insert(id.into(), entry);
    }
}

async fn prompt(State(fake): State<Shared>, Json(body): Json<Value>) -> Response {
    let text = |key: &str| body[key].as_str().expect("an id").to_owned();
    let (id, client) = (text("prompt_id"), text("client_id"));
    let status = fake.fixture["response"]["status"].as_u64().and_then(|s| u16::try_from(s).ok()).expect("a status");
    let sender = {
        let mut seen = fake.lock();
        seen.workflows.push(body["prompt"].clone());
        seen.client_ids.push(client.clone());
        seen.prompt_ids.push(id.clone());
        if status == 200 && fake.mode != Mode::Forgets {
            seen.running.insert(id.clone());
        }
        seen.sockets.get(&client).cloned()
    };
    let answer = fake.of_job(&fake.fixture["response"]["json"], &id);
    if status == 200 && !matches!(fake.mode, Mode::Stuck | Mode::Forgets) {
        let fake = Arc::clone(&fake);
        tokio::spawn(async move {
            let messages = fake.of_job(&fake.fixture["ws_messages"], &id);
            for (n, message) in messages.as_array().expect("messages").iter().enumerate() {
                let text = message.get("text");
                if text.is_some_and(|t| t["type"] == "execution_success" || t["type"] == "execution_error") {
                    // After the message, as measured.
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    fake.finish(&id);
                }
                let frame = match text {
                    Some(text) => Message::text(text.to_string()),
                    None => Message::binary(vec![0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0xd8]),
                };
                if let Some(sender) = &sender {
                    let _ = sender.send(if fake.mode == Mode::Drops && n == 2 { Message::Close(None) } else { frame });
                }
            }
        });
    }
    (StatusCode::from_u16(status).expect("a status"), Json(answer)).into_response()
}

async fn socket(State(fake): State<Shared>, query: Query<BTreeMap<String, String>>, mut request: Request) -> Response {
    if fake.mode == Mode::NoSocket {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let key = request.headers()[header::SEC_WEBSOCKET_KEY].as_bytes().to_vec();
    let (sender, mut frames) = unbounded_channel();
    fake.lock().sockets.insert(query["clientId"].clone(), sender);
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let io = TokioIo::new(upgrade.await.expect("upgraded"));
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        while let Some(frame) = frames.recv().await {
            if socket.send(frame).await.is_err() {
                break;
            }
        }
    });
    let mut headers = HeaderMap::new();
    headers.insert(header::CONNECTION, "upgrade".parse().expect("a value"));
    headers.insert(header::UPGRADE, "websocket".parse().expect("a value"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(&key).parse().expect("a value"));
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

async fn history(State(fake): State<Shared>, Path(id): Path<String>) -> Json<Value> {
    match fake.lock().history.get(&id) {
        Some(entry) => Json(json!({ id: entry })),
        None => Json(json!({})),
    }
}

async fn forget(State(fake): State<Shared>, Json(body): Json<Value>) {
    for id in body["delete"].as_array().expect("a list") {
        fake.lock().history.remove(id.as_str().expect("an id"));
    }
}

async fn queue(State(fake): State<Shared>) -> Json<Value> {
    let running: Vec<_> = fake.lock().running.iter().map(|id| json!([1, id, {}, {}, []])).collect();
    Json(json!({"queue_running": running, "queue_pending": []}))
}

async fn dequeue(Json(body): Json<Value>) {
    assert!(body["delete"].is_array(), "the whole queue would be cleared");
}

async fn interrupt(State(fake): State<Shared>, Json(body): Json<Value>) {
    let id = body["prompt_id"].as_str().expect("somebody else's job would be stopped").to_owned();
    let mut seen = fake.lock();
    if seen.running.remove(&id) {
        seen.history.insert(id.clone(), json!({"status": {"status_str": "error", "messages": []}, "outputs": {}}));
    }
    seen.interrupted.push(id);
}

async fn view(State(fake): State<Shared>, query: Query<BTreeMap<String, String>>) -> Response {
    fake.lock().viewed.push(query.0);
    ([(header::CONTENT_TYPE, fake.picture.0)], fake.picture.1.clone()).into_response()
}
