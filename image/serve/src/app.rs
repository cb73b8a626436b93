//! What the requests share, the routes, and the watch over ComfyUI.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::{get, post};
use tokio::sync::{Semaphore, watch};

use crate::cli::Serve;
use crate::comfy::Comfy;
use crate::health::{self, Health, Rules};
use crate::invoke::invoke;
use crate::job::{Jobs, Presence};
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::warmup::Warmup;

/// The server, apart from its sockets and ComfyUI's process.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) jobs: Jobs,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) pace: Pace,
    /// For each request that may wait or run.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) max_queue: u32,
    pub(crate) max_body: usize,
    pub(crate) jpeg_quality: u8,
    pub(crate) timeout: Duration,
    pub(crate) debug_header: bool,
    rules: Rules,
    warmup: Option<Warmup>,
}

impl App {
    /// From the options; `presence` tells about ComfyUI's process, if it is ours.
    ///
    /// # Errors
    /// The URL is not like `http://host:port`; the warm-up workflow cannot be read.
    pub(crate) fn new(options: &Serve, presence: Option<watch::Receiver<Presence>>) -> Result<Arc<Self>, String> {
        let comfy = Comfy::new(&options.comfyui_url)?;
        let directories = options.comfyui(comfy.port()).directories;
        let warmup = options.warmup().map(Warmup::load).transpose()?.flatten();
        let health = Arc::new(Health::default());
        Ok(Arc::new(App {
            jobs: Jobs::new(comfy, directories, presence, Arc::clone(&health)),
            metrics: Arc::new(Metrics::new(Arc::clone(&health))),
            health,
            pace: Pace::default(),
            places: Arc::new(Semaphore::new(options.max_queue as usize)),
            max_queue: options.max_queue,
            max_body: options.max_body_mb as usize * 1_000_000,
            jpeg_quality: options.jpeg_quality,
            timeout: options.invocation_timeout,
            debug_header: options.debug_header,
            rules: Rules { failures: options.health_failures, busy_grace: options.health_busy_grace },
            warmup,
        }))
    }

    /// Keeps /ping current for ever: probes each ComfyUI process from its start to its end, and warms it up.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut presence = self.jobs.presence.clone();
        loop {
            let started = match &mut presence {
                Some(presence) => match presence.wait_for(|presence| presence.up).await {
                    Ok(presence) => Some(*presence),
                    Err(_) => return,
                },
                None => None,
            };
            self.health.set_starts(started.map_or(0, |presence| presence.starts));
            self.health.set_warm(false);
            let app = Arc::clone(&self);
            let answered = move || {
                tokio::spawn(async move { app.warm_up(started).await });
            };
            tokio::select! {
                () = health::probe(&self.jobs.comfy, &self.health, self.rules, answered) => {}
                () = ended(&mut presence, started) => {}
            }
            self.health.set_healthy(false);
        }
    }

    async fn warm_up(&self, started: Option<Presence>) {
        self.jobs.lines.refill().await;
        if let Some(warmup) = &self.warmup {
            let _busy = self.health.job();
            warmup.run(&self.jobs).await;
        }
        // The one that was warmed up may be gone, and another one cold.
        if self.jobs.presence.as_ref().map(|presence| *presence.borrow()) == started {
            self.health.set_warm(true);
        }
    }
}

/// Until the process is gone or another one.
async fn ended(presence: &mut Option<watch::Receiver<Presence>>, started: Option<Presence>) {
    match presence {
        Some(presence) => {
            // An error means that nobody starts it any more.
            let _ = presence.wait_for(|now| Some(*now) != started).await;
        }
        None => std::future::pending().await,
    }
}

/// The routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    let health = Arc::clone(&app.health);
    let ping = async move || match health.ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    Router::new()
        .route("/ping", get(ping))
        .route("/invocations", post(async move |request: Request| invoke(Arc::clone(&app), request).await))
        .method_not_allowed_fallback(async || {
            let message = "the method does not fit: GET /ping and POST /invocations";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
        })
        .fallback(async || {
            Problem::new(StatusCode::NOT_FOUND, "not_found", "there are GET /ping and POST /invocations")
        })
}

/// How long jobs take, as a moving average.
#[derive(Debug, Default)]
pub(crate) struct Pace(AtomicU64);

impl Pace {
    /// Notes how long a job took, without its time in the queue.
    pub(crate) fn note(&self, took: Duration) {
        let took = took.as_millis() as u64;
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
            Some(if before == 0 { took } else { (before * 7 + took) / 8 })
        });
    }

    /// When a place should be free again: after the next job.
    pub(crate) fn next(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed)).clamp(Duration::from_secs(1), Duration::from_secs(60))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_follows_the_jobs() {
        let pace = Pace::default();
        assert_eq!(pace.next(), Duration::from_secs(1));
        pace.note(Duration::from_secs(10));
        assert_eq!(pace.next(), Duration::from_secs(10));
        for _ in 0..100 {
            pace.note(Duration::from_secs(2));
        }
        assert_eq!(pace.next().as_secs(), 2);
    }
}
