//! The HTTP server and the life of the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use comfy_workflow::Workflow;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::accept::wants_jpeg;
use crate::child::Comfyui;
use crate::cli::{Cli, Command, Serve};
use crate::comfy::Comfy;
use crate::problem::Problem;
use crate::{image, job, ping};

/// SageMaker's limit of a request, in bytes.
const LARGEST_REQUEST: usize = 25 * 1024 * 1024;
/// How long requests in flight may take after SIGTERM; SageMaker kills after 30 seconds.
const GRACE: Duration = Duration::from_secs(25);

/// What the requests share.
#[derive(Debug)]
pub struct State {
    comfy: Comfy,
    healthy: AtomicBool,
    jpeg_quality: u8,
    deadline: Duration,
}

impl State {
    /// In front of the ComfyUI at a URL.
    ///
    /// # Errors
    /// The URL is not like `http://host:port`.
    pub fn new(comfyui_url: &str, jpeg_quality: u8, deadline: Duration) -> Result<Arc<Self>, String> {
        let comfy = Comfy::new(comfyui_url)?;
        Ok(Arc::new(State { comfy, healthy: AtomicBool::new(false), jpeg_quality, deadline }))
    }

    /// Keeps `/ping` current for ever.
    pub async fn probe(self: Arc<Self>) {
        ping::probe(self.comfy.clone(), &self.healthy).await;
    }
}

/// The routes.
pub fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/ping", get(ping_route))
        .route("/invocations", post(invocations).layer(DefaultBodyLimit::max(LARGEST_REQUEST)))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "not_found", "there are /ping and /invocations"))
        .with_state(state)
}

async fn ping_route(Shared(state): Shared<Arc<State>>) -> StatusCode {
    match state.healthy.load(Ordering::Relaxed) {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn invocations(
    Shared(state): Shared<Arc<State>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let begun = Instant::now();
    let accept = headers.get(header::ACCEPT).map(|value| value.to_str().unwrap_or_default());
    let response = match answer(&state, accept, body).await {
        Ok((content_type, bytes)) => ([(header::CONTENT_TYPE, content_type)], bytes).into_response(),
        Err(problem) => {
            // The code alone: messages may repeat inputs.
            tracing::warn!(code = problem.code, status = problem.status.as_u16(), "failed");
            problem.into_response()
        }
    };
    tracing::info!(status = response.status().as_u16(), milliseconds = begun.elapsed().as_millis() as u64, "answered");
    response
}

async fn answer(
    state: &State,
    accept: Option<&str>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(String, Bytes), Problem> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the request is larger than 25 MiB")
        }
        status => Problem::new(status, "unreadable", "the request cannot be read"),
    })?;
    let workflow = Workflow::parse(&body)
        .map_err(|why| Problem::invalid(format!("the body is not a workflow in API format: {why}")))?;
    let output = job::run(&state.comfy, workflow, state.deadline).await?;
    if !image::is_png(&output.bytes) {
        return Ok((output.content_type, output.bytes));
    }
    let (quality, jpeg) = (state.jpeg_quality, wants_jpeg(accept));
    // Tens of milliseconds of work: not on a thread that also answers /ping.
    let converted = tokio::task::spawn_blocking(move || match jpeg {
        true => image::to_jpeg(&output.bytes, quality).map(|jpeg| ("image/jpeg", jpeg)),
        false => Ok(("image/png", image::without_texts(&output.bytes))),
    });
    match converted.await {
        Ok(Ok((content_type, bytes))) => Ok((content_type.to_owned(), bytes.into())),
        Ok(Err(cause)) => {
            let message = format!("the image cannot be converted: {cause}");
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "conversion_failed", message))
        }
        Err(_) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "conversion_failed", "the conversion crashed")),
    }
}

/// Runs until SIGTERM, SIGINT or the end of ComfyUI.
///
/// # Errors
/// A wrong URL, a port that is taken, ComfyUI does not start or ended by itself: the container must be replaced.
pub async fn run(cli: Cli) -> io::Result<()> {
    let options = match cli.command {
        Command::Serve(options) => options,
        Command::Health(options) => return crate::health_command::run(&options),
    };
    let state = State::new(&options.comfyui_url, options.jpeg_quality, Duration::from_secs(options.deadline))
        .map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind(options.listen)
        .await
        .map_err(|cause| io::Error::new(cause.kind(), format!("cannot listen on {}: {cause}", options.listen)))?;
    tracing::info!("listening on {}", listener.local_addr()?);
    let mut comfyui = start_comfyui(&options, &state)?;
    let prober = tokio::spawn(Arc::clone(&state).probe());
    let (stop, mut stopping) = watch::channel(false);
    let server = axum::serve(listener, router(state)).with_graceful_shutdown(async move {
        // A sender that is gone means the same.
        let _ = stopping.wait_for(|stop| *stop).await;
    });
    let mut server = tokio::spawn(async move { server.await });
    let result = tokio::select! {
        status = ended(&mut comfyui) => {
            Err(io::Error::other(format!("ComfyUI ended by itself: {}", status?)))
        }
        result = &mut server => result.map_err(io::Error::other)?,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    if result.is_ok() {
        tracing::info!("stopping");
        stop.send_replace(true);
        if !server.is_finished() && tokio::time::timeout(GRACE, server).await.is_err() {
            tracing::warn!("requests in flight are cut");
        }
    }
    prober.abort();
    if let Some(comfyui) = &mut comfyui {
        comfyui.stop().await;
    }
    result
}

fn start_comfyui(options: &Serve, state: &State) -> io::Result<Option<Comfyui>> {
    options.comfyui_command(state.comfy.port()).map(|command| Comfyui::start(&command)).transpose()
}

async fn ended(comfyui: &mut Option<Comfyui>) -> io::Result<std::process::ExitStatus> {
    match comfyui {
        Some(comfyui) => comfyui.ended().await,
        None => std::future::pending().await,
    }
}
