//! The requests, and what every answer has in common.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use axum::{
    Router,
    body::Body,
    extract::{Path, Query, Request, State},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{ALLOW, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, ORIGIN, SERVER},
};

use crate::{
    life::{Life, lock},
    py::{self, Value, dict, dumps},
    queue::Job,
    seen::SeenPrompt,
    upload,
    validate::validate,
    view, ws,
};

type Shared = State<Arc<Life>>;

/// All routes, each also under `/api`.
pub(crate) fn router(life: Arc<Life>) -> Router {
    let routes = Router::new()
        .route("/ws", get(ws::connect))
        .route("/prompt", get(prompt_info).post(prompt))
        .route("/queue", get(queue).post(change_queue))
        .route("/history", get(history).post(change_history))
        .route("/history/{id}", get(history_of))
        .route("/interrupt", post(interrupt))
        .route("/free", post(free))
        .route("/view", get(view::view))
        .route("/upload/image", post(upload::image))
        .route("/upload/mask", post(upload::mask))
        .route("/features", get(async |State(life): Shared| json(StatusCode::OK, &features(&life))))
        .route("/system_stats", get(system_stats))
        .route("/object_info", get(object_info))
        .route("/object_info/{class}", get(object_info_of))
        .route(
            "/embeddings",
            get(async |State(life): Shared| {
                json(StatusCode::OK, &Value::from(life.registry.models().list("embeddings")))
            }),
        )
        .route(
            "/models",
            get(async |State(life): Shared| json(StatusCode::OK, &Value::from(life.registry.models().types()))),
        )
        .route("/models/{folder}", get(models));
    let all = Router::new()
        .nest("/api", routes.clone())
        .merge(routes)
        .route("/", get(page))
        .fallback(nothing)
        .method_not_allowed_fallback(other_method)
        .with_state(life.clone());
    // Around everything, also around what the router adds to answers by itself.
    Router::new()
        .fallback_service(all)
        // Our own limit is the one that counts.
        .layer(axum::extract::DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(life.clone(), around))
        .with_state(life)
}

/// Refuses pages of other hosts, counts, and signs the answer.
async fn around(State(life): Shared, request: Request, next: Next) -> Response {
    life.seen.requests.fetch_add(1, Ordering::SeqCst);
    let mut response = if foreign(request.headers()) {
        empty(StatusCode::FORBIDDEN)
    } else if request.method() == Method::OPTIONS {
        empty(StatusCode::OK)
    } else {
        next.run(request).await
    };
    if response.status() == StatusCode::NOT_FOUND {
        response.headers_mut().remove(ALLOW);
    }
    response.headers_mut().insert(SERVER, HeaderValue::from_static("Python/3.11 aiohttp/3.14.5"));
    response
}

/// Whether a page of another host sends this: only looked at when the request goes to this machine itself.
fn foreign(headers: &HeaderMap) -> bool {
    let word = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_ascii_lowercase);
    let (Some(host), Some(origin)) = (word(HOST), word(ORIGIN)) else { return false };
    let Some((_, place)) = origin.split_once("://") else { return false };
    let place = place.split(['/', '?', '#']).next().unwrap_or_default();
    let split = |place: &str| match place.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name.to_owned(), true),
        _ => (place.to_owned(), false),
    };
    let ((host_name, host_port), (origin_name, origin_port)) = (split(&host), split(place));
    let loopback = host_name == "localhost"
        || host_name.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    let host_shown = if origin_port { &host } else { &host_name };
    let origin_shown = if host_port { place } else { &origin_name };
    loopback && !host_shown.is_empty() && !origin_shown.is_empty() && host_shown != origin_shown
}

/// What is not there: ComfyUI looks for a file of its page then, and only with GET.
async fn nothing(method: Method) -> Response {
    let mut response = other_method(method).await;
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET,HEAD"));
    }
    response
}

/// A path that is there for other methods, which the router names by itself. For GET that file is looked for all the
/// same.
async fn other_method(method: Method) -> Response {
    if !matches!(method, Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
    }
    let mut response = Response::new(unsized_body());
    *response.status_mut() = StatusCode::NOT_FOUND;
    if method == Method::GET {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    }
    response
}

/// An empty body that does not say so in front, as aiohttp's answers about files that cannot be sent.
pub(crate) fn unsized_body() -> Body {
    Body::from_stream(futures::stream::empty::<Result<bytes::Bytes, std::convert::Infallible>>())
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A plain text.
pub(crate) fn text(status: StatusCode, text: &str) -> Response {
    let mut response = Response::new(Body::from(text.to_owned()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A JSON value as Python writes it.
pub(crate) fn json(status: StatusCode, value: &Value) -> Response {
    json_text(status, dumps(value))
}

fn json_text(status: StatusCode, json: String) -> Response {
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    response
}

/// What aiohttp says when a handler raises; it closes the connection, too.
pub(crate) fn crashed() -> Response {
    let mut response =
        text(StatusCode::INTERNAL_SERVER_ERROR, "500 Internal Server Error\n\nServer got itself in trouble");
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Why a request gets no further.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refused {
    /// ComfyUI's handler raises.
    Crash,
    /// It does not say what it should: 400 and nothing else.
    Bad,
    /// The body is longer than this, in bytes.
    TooLarge(usize),
}

impl Refused {
    /// The answer.
    pub fn response(self) -> Response {
        match self {
            Refused::Crash => crashed(),
            Refused::Bad => empty(StatusCode::BAD_REQUEST),
            Refused::TooLarge(most) => {
                text(StatusCode::PAYLOAD_TOO_LARGE, &format!("Maximum request body size {most} exceeded."))
            }
        }
    }
}

/// The body, or the answer to one that is too large.
pub(crate) async fn body(life: &Life, request: Request) -> Result<bytes::Bytes, Refused> {
    let most = life.options.max_upload;
    match Limited::new(request.into_body(), most).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refused::TooLarge(most)),
        Err(_) => Err(Refused::Bad),
    }
}

/// The body as JSON, or the answer to one that is none.
async fn json_body(life: &Life, request: Request) -> Result<Value, Refused> {
    parsed(&body(life, request).await?)
}

fn parsed(body: &[u8]) -> Result<Value, Refused> {
    std::str::from_utf8(body).ok().and_then(|text| py::parse(text).ok()).ok_or(Refused::Crash)
}

/// `key in value`, where Python has that.
fn contains(value: &Value, key: &str) -> Result<bool, Refused> {
    match value {
        Value::Dict(dict) => Ok(dict.contains_key(key)),
        Value::List(list) => Ok(list.iter().any(|item| item.as_str() == Some(key))),
        Value::Str(text) => Ok(text.contains(key)),
        _ => Err(Refused::Crash),
    }
}

/// `value[key]` if `key in value`; a value that has the one but not the other raises.
fn member<'a>(value: &'a Value, key: &str) -> Result<Option<&'a Value>, Refused> {
    match contains(value, key)? {
        true => value.get(key).map(Some).ok_or(Refused::Crash),
        false => Ok(None),
    }
}

pub(crate) fn features(life: &Life) -> Value {
    dict! { "supports_preview_metadata" => true, "max_upload_size" => life.options.max_upload }
}

async fn prompt_info(State(life): Shared) -> Response {
    json(StatusCode::OK, &life.queue_info())
}

async fn prompt(State(life): Shared, request: Request) -> Response {
    let body = match body(&life, request).await {
        Ok(body) => body,
        Err(refused) => return refused.response(),
    };
    let mut seen = SeenPrompt { status: 500, prompt_id: None, client_id: None, body };
    let response = match parsed(&seen.body) {
        Ok(said) => enqueue(&life, said, &mut seen).unwrap_or_else(Refused::response),
        Err(refused) => refused.response(),
    };
    seen.status = response.status().as_u16();
    life.seen.prompt(seen);
    response
}

fn enqueue(life: &Life, said: Value, seen: &mut SeenPrompt) -> Result<Response, Refused> {
    let number = match member(&said, "number")? {
        Some(number) => Value::Float(
            crate::coerce::coerce("FLOAT", number).ok().and_then(|number| number.as_f64()).ok_or(Refused::Crash)?,
        ),
        None => {
            let front = member(&said, "front")?.is_some_and(Value::truthy);
            let number = i128::from(life.number.fetch_add(1, Ordering::SeqCst));
            Value::Int(if front { -number } else { number })
        }
    };
    let Some(prompt) = member(&said, "prompt")? else {
        let error = dict! {
            "type" => "no_prompt", "message" => "No prompt provided", "details" => "No prompt provided",
            "extra_info" => dict! {},
        };
        return Ok(json(StatusCode::BAD_REQUEST, &dict! { "error" => error, "node_errors" => dict! {} }));
    };
    let id = said.get("prompt_id").map_or_else(|| uuid::Uuid::new_v4().to_string(), py::str_of);
    let mut prompt = prompt.clone();
    let targets = said.get("partial_execution_targets");
    let checked =
        validate(&mut prompt, targets, &life.registry, &life.folders, life.seed).map_err(|_| Refused::Crash)?;
    let mut extra = said.get("extra_data").cloned().unwrap_or_else(|| dict! {});
    if let Some(client) = said.get("client_id") {
        seen.client_id = Some(py::str_of(client));
        let Value::Dict(extra) = &mut extra else { return Err(Refused::Crash) };
        extra.insert("client_id".into(), client.clone());
    }
    if let Some(error) = checked.error {
        return Ok(json(StatusCode::BAD_REQUEST, &dict! { "error" => error, "node_errors" => checked.node_errors }));
    }
    seen.prompt_id = Some(id.clone());
    let job = Job { number: number.clone(), id: id.clone(), prompt, extra, outputs: checked.outputs };
    let pushed = lock(&life.work).queue.push(job);
    if pushed.is_err() {
        return Err(Refused::Crash);
    }
    life.queue_updated();
    life.wake.notify_all();
    Ok(json(StatusCode::OK, &dict! { "prompt_id" => id, "number" => number, "node_errors" => checked.node_errors }))
}

async fn queue(State(life): Shared) -> Response {
    life.seen.queue_looks.fetch_add(1, Ordering::SeqCst);
    let shown = lock(&life.work).queue.shown();
    json(StatusCode::OK, &shown)
}

/// The ids under `delete`: an array's elements, or a text's letters.
fn ids(said: &Value) -> Result<Vec<String>, Refused> {
    match member(said, "delete")? {
        None => Ok(Vec::new()),
        Some(Value::List(list)) => Ok(list.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect()),
        Some(Value::Str(text)) => Ok(text.chars().map(String::from).collect()),
        Some(Value::Dict(dict)) => Ok(dict.keys().cloned().collect()),
        Some(_) => Err(Refused::Crash),
    }
}

async fn change_queue(State(life): Shared, request: Request) -> Response {
    let change = async {
        let said = json_body(&life, request).await?;
        if member(&said, "clear")?.is_some_and(Value::truthy) {
            lock(&life.work).queue.clear();
            life.queue_updated();
        }
        for id in ids(&said)? {
            life.seen.queue_delete(&id);
            let left = {
                let mut work = lock(&life.work);
                work.queue.delete(&id).then(|| work.queue.waiting())
            };
            if let Some(left) = left {
                // The last one is removed by clearing the queue, which tells everybody once more.
                if left == 0 {
                    life.queue_updated();
                }
                life.queue_updated();
            }
        }
        Ok(empty(StatusCode::OK))
    };
    change.await.unwrap_or_else(Refused::response)
}

async fn change_history(State(life): Shared, request: Request) -> Response {
    let change = async {
        let said = json_body(&life, request).await?;
        if member(&said, "clear")?.is_some_and(Value::truthy) {
            lock(&life.work).queue.forget_all();
        }
        for id in ids(&said)? {
            life.seen.history_delete(&id);
            lock(&life.work).queue.forget(&id);
        }
        Ok(empty(StatusCode::OK))
    };
    change.await.unwrap_or_else(Refused::response)
}

async fn history(State(life): Shared, Query(query): Query<HashMap<String, String>>) -> Response {
    let number = |key: &str| match query.get(key) {
        None => Ok(None),
        Some(text) => text.trim().parse::<i64>().map(Some),
    };
    let (Ok(most), Ok(offset)) = (number("max_items"), number("offset")) else { return crashed() };
    let positive = |number: Option<i64>| number.and_then(|number| usize::try_from(number).ok());
    let shown = lock(&life.work).queue.history(positive(most), positive(offset));
    json_text(StatusCode::OK, shown)
}

async fn history_of(State(life): Shared, Path(id): Path<String>) -> Response {
    let shown = lock(&life.work).queue.history_of(&id);
    json_text(StatusCode::OK, shown)
}

async fn interrupt(State(life): Shared, request: Request) -> Response {
    let body = match body(&life, request).await {
        Ok(body) => body,
        Err(refused) => return refused.response(),
    };
    let Ok(text) = std::str::from_utf8(&body) else { return crashed() };
    // What is not JSON is as good as nothing; JSON that is not an object is not.
    let id = match py::parse(text).unwrap_or_else(|_| dict! {}) {
        Value::Dict(said) => said.get("prompt_id").filter(|id| id.truthy()).cloned(),
        _ => return crashed(),
    };
    life.seen.interrupt(id.as_ref().map(py::str_of));
    let meant = id.is_none_or(|id| id.as_str().is_some_and(|id| lock(&life.work).queue.runs(id)));
    if meant {
        life.interrupt.store(true, Ordering::SeqCst);
    }
    empty(StatusCode::OK)
}

async fn free(State(life): Shared, request: Request) -> Response {
    match json_body(&life, request).await {
        Ok(Value::Dict(said)) => {
            if said.get("free_memory").is_some_and(Value::truthy) {
                lock(&life.work).free = true;
                life.wake.notify_all();
            }
            empty(StatusCode::OK)
        }
        Ok(_) => crashed(),
        Err(refused) => refused.response(),
    }
}

async fn models(State(life): Shared, Path(folder): Path<String>) -> Response {
    match life.registry.models().types().contains(&folder) {
        true => json(StatusCode::OK, &Value::from(life.registry.models().list(&folder))),
        false => empty(StatusCode::NOT_FOUND),
    }
}

async fn object_info(State(life): Shared) -> Response {
    let all: py::Dict = life
        .registry
        .names()
        .iter()
        .filter_map(|name| Some((name.clone(), life.registry.info(life.registry.get(name)?))))
        .collect();
    json(StatusCode::OK, &Value::Dict(all))
}

async fn object_info_of(State(life): Shared, Path(name): Path<String>) -> Response {
    let mut found = py::Dict::new();
    if let Some(class) = life.registry.get(&name) {
        found.insert(name, life.registry.info(class));
    }
    json(StatusCode::OK, &Value::Dict(found))
}

async fn system_stats(State(life): Shared) -> Response {
    // Fixed figures of a machine without a GPU; only the versions mean anything.
    let ram: u64 = 16 << 30;
    let system = dict! {
        "os" => "posix", "ram_total" => ram, "ram_free" => ram / 2, "comfyui_version" => "0.3.64",
        "required_frontend_version" => "1.27.10", "installed_templates_version" => "0.1.95",
        "required_templates_version" => "0.1.95", "python_version" => "3.11.0 (stand-in)",
        "pytorch_version" => "2.8.0", "embedded_python" => false, "argv" => life.options.argv.clone(),
    };
    let device = dict! {
        "name" => "cpu", "type" => "cpu", "index" => Value::None, "vram_total" => ram, "vram_free" => ram / 2,
        "torch_vram_total" => ram, "torch_vram_free" => ram / 2,
    };
    json(StatusCode::OK, &dict! { "system" => system, "devices" => Value::List(vec![device]) })
}

async fn page() -> Response {
    let mut response = text(StatusCode::OK, "<!doctype html><title>ComfyUI stand-in</title>");
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_hosts_are_told_from_our_own() {
        for (host, origin, is_foreign) in [
            ("127.0.0.1:8188", "http://127.0.0.1:8188", false),
            ("127.0.0.1:8188", "http://evil.example", true),
            ("127.0.0.1:8188", "http://127.0.0.1", false),
            ("127.0.0.1:8188", "http://127.0.0.1:9", true),
            ("localhost", "http://localhost:3000", false),
            ("comfy.example:8188", "http://evil.example", false),
            ("[::1]:8188", "http://evil.example", true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            headers.insert(ORIGIN, origin.parse().unwrap());
            assert_eq!(foreign(&headers), is_foreign, "{host} {origin}");
        }
        assert!(!foreign(&HeaderMap::new()));
    }
}
