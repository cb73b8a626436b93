//! The running sandbox: the listener, the ticker that moves and saves the state, the control routes.

mod store;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::serve::ListenerExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::faults::Faults;
use crate::sagemaker::{self, Fleet, Serving};
use crate::world::{ACCOUNT, Shared, now_ms};
use crate::{container, ecr, lambda, quotas, s3, wire};
pub use store::Store;

/// How often what takes time is moved.
const TICK: Duration = Duration::from_millis(20);
/// Ticks between two saves of a state that keeps changing.
const TICKS_PER_SAVE: u32 = 5;
/// How long open requests may finish when the sandbox stops.
const DRAIN: Duration = Duration::from_secs(2);

/// How to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// A loopback address; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where the state and the blobs live; made if missing.
    pub dir: PathBuf,
    /// Real seconds that one AWS second takes; 1 is AWS's own pace.
    pub time_scale: f64,
}

/// Why the sandbox does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Anything but loopback.
    #[error(
        "the sandbox listens on loopback only, and {0} is not: it runs what is uploaded to it and checks few signatures, so nobody else may reach it; use 127.0.0.1"
    )]
    NotLoopback(SocketAddr),
    /// Zero, negative or not a number.
    #[error(
        "--time-scale {0} is not allowed: it must be above 0 and at most 1000 (1 is AWS's own pace, 0.02 the default)"
    )]
    TimeScale(f64),
    /// The port is taken or may not be used.
    #[error("cannot listen on {0}: {1}; choose another port with --listen, or port 0 for a free one")]
    Listen(SocketAddr, std::io::Error),
    /// The state directory.
    #[error(transparent)]
    Store(#[from] store::StoreError),
}

/// A running sandbox. Stops (without saving what the last 100 ms changed) when dropped; `stop` saves.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its state.
    pub shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    serve: JoinHandle<()>,
    tick: JoinHandle<()>,
    store: Arc<Store>,
}

impl Running {
    /// `http://127.0.0.1:4599`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Lets open requests finish, saves, and gives the state directory free.
    pub async fn stop(mut self) -> Result<(), StartError> {
        let _ = self.stop.send(true);
        let _ = tokio::time::timeout(DRAIN, &mut self.serve).await;
        self.serve.abort();
        let _ = (&mut self.tick).await;
        self.shared.live.lambda.clear();
        self.shared.live.fleet.end().await;
        self.store.save(&self.shared)?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.serve.abort();
        self.tick.abort();
        self.shared.live.lambda.clear();
        self.shared.live.fleet.abort();
    }
}

/// Starts: takes the state directory, loads what is in it, listens. Endpoints are simulated.
pub async fn start(options: Options) -> Result<Running, StartError> {
    launch(options, None).await
}

/// Starts with endpoints that run: each instance is a process.
pub async fn start_serving(options: Options, serving: Serving) -> Result<Running, StartError> {
    launch(options, Some(serving)).await
}

async fn launch(options: Options, serving: Option<Serving>) -> Result<Running, StartError> {
    if !options.listen.ip().is_loopback() {
        return Err(StartError::NotLoopback(options.listen));
    }
    if !(options.time_scale > 0.0 && options.time_scale <= 1000.0) {
        return Err(StartError::TimeScale(options.time_scale));
    }
    let store = Arc::new(Store::open(&options.dir)?);
    let mut world = store.load()?;
    let listener =
        TcpListener::bind(options.listen).await.map_err(|error| StartError::Listen(options.listen, error))?;
    let addr = listener.local_addr().map_err(|error| StartError::Listen(options.listen, error))?;
    world.time_scale = options.time_scale;
    world.url = format!("http://{addr}");
    world.dir.clone_from(&options.dir);
    // What a crash left half-written.
    s3::sweep(&world);
    ecr::sweep(&world);
    lambda::sweep(&world);
    sagemaker::sweep(&world);
    container::sweep(&world);
    world.endpoints_run = serving.is_some();
    let shared = Arc::new(Shared::new(world, options.dir));
    if let Some(serving) = serving {
        shared.live.fleet.serve(serving);
    }
    shared.touch();
    let (stop, stopped) = watch::channel(false);
    let router = Router::new().fallback(handle).with_state(shared.clone());
    let mut until = stopped.clone();
    let serve = tokio::spawn(async move {
        let listener = listener.tap_io(|stream| {
            // Small answers must not wait for the peer's delayed ACK.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "set_nodelay");
            }
        });
        let done = async move {
            let _ = until.wait_for(|stop| *stop).await;
        };
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(done).await {
            tracing::error!(%error, "the listener ended");
        }
    });
    let tick = tokio::spawn(ticker(shared.clone(), store.clone(), stopped));
    Ok(Running { addr, shared, stop, serve, tick, store })
}

async fn ticker(shared: Arc<Shared>, store: Arc<Store>, mut stopped: watch::Receiver<bool>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut since_save = TICKS_PER_SAVE;
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
        {
            let mut world = shared.world.lock();
            if world.tick(now_ms()) {
                shared.touch();
            }
            shared.live.lambda.sweep(&world);
            Fleet::follow(&shared, &mut world);
        }
        since_save = since_save.saturating_add(1);
        if since_save >= TICKS_PER_SAVE && shared.take_dirty() {
            since_save = 0;
            let (shared, store) = (shared.clone(), store.clone());
            let saved = tokio::task::spawn_blocking(move || store.save(&shared).inspect_err(|_| shared.touch()));
            if let Ok(Err(error)) = saved.await {
                tracing::error!(%error, "the state is not saved; trying again");
            }
        }
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    match request.uri().path().strip_prefix("/_sandbox/").map(str::to_owned) {
        Some(what) => control(&shared, &what, request).await,
        None => {
            let (parts, body) = request.into_parts();
            let url = lambda::urls::target(&parts);
            let request = Request::from_parts(parts, body);
            match url {
                Some((id, path)) => lambda::urls::handle(shared, request, &id, &path).await,
                None => wire::handle(shared, request).await,
            }
        }
    }
}

/// The sandbox's own routes: `health`, `faults`, `calls`, `sessions`, `quotas`, `foreign-bucket`.
async fn control(shared: &Shared, what: &str, request: Request) -> Response {
    let method = request.method().clone();
    let body = match axum::body::to_bytes(request.into_body(), 1 << 20).await {
        Ok(body) => body,
        Err(error) => return refuse(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string()),
    };
    match (method, what) {
        (Method::GET, "health") => {
            let world = shared.world.lock();
            Json(json!({
                "account": ACCOUNT,
                "instances": shared.live.fleet.describe(),
                "state": shared.dir,
                "time_scale": world.time_scale,
                "url": world.url,
                "version": env!("CARGO_PKG_VERSION"),
            }))
            .into_response()
        }
        (Method::GET, "faults") => Json(json!(shared.world.lock().faults)).into_response(),
        (Method::POST, "faults") => match serde_json::from_slice::<Faults>(&body) {
            Ok(faults) => {
                shared.world.lock().faults = faults;
                shared.touch();
                StatusCode::NO_CONTENT.into_response()
            }
            Err(error) => refuse(StatusCode::BAD_REQUEST, &format!("not a list of faults: {error}")),
        },
        (Method::GET, "calls") => Json(json!(shared.calls())).into_response(),
        (Method::DELETE, "calls") => {
            shared.forget_calls();
            StatusCode::NO_CONTENT.into_response()
        }
        (Method::DELETE, "sessions") => {
            crate::iam::identity::expire(&mut shared.world.lock(), now_ms());
            shared.touch();
            StatusCode::NO_CONTENT.into_response()
        }
        (Method::POST, "quotas") => {
            let wanted = serde_json::from_slice::<Value>(&body).map_err(|error| error.to_string());
            match wanted.and_then(|wanted| quotas::set(&mut shared.world.lock(), &wanted)) {
                Ok(()) => {
                    shared.touch();
                    StatusCode::NO_CONTENT.into_response()
                }
                Err(error) => refuse(StatusCode::BAD_REQUEST, &error),
            }
        }
        (Method::POST, "foreign-bucket") => match serde_json::from_slice::<Value>(&body) {
            Ok(Value::Object(wanted)) if wanted.get("name").is_some_and(Value::is_string) => {
                let name = wanted.get("name").and_then(Value::as_str).unwrap_or_default();
                s3::add_foreign_bucket(&mut shared.world.lock(), name);
                shared.touch();
                StatusCode::NO_CONTENT.into_response()
            }
            _ => refuse(StatusCode::BAD_REQUEST, "not {\"name\": BUCKET}"),
        },
        _ => refuse(
            StatusCode::NOT_FOUND,
            "GET health, GET|POST faults, GET|DELETE calls, DELETE sessions, POST quotas and POST foreign-bucket exist under /_sandbox/",
        ),
    }
}

fn refuse(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({"error": text}))).into_response()
}
