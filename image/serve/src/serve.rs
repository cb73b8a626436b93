//! The life of the process: listen, keep ComfyUI running, and stop within SageMaker's 30 seconds.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::app::{App, router};
use crate::child;
use crate::cli::Serve;
use crate::comfy::Comfy;
use crate::health::Health;
use crate::job::Presence;
use crate::metrics;
use crate::orphans::Supervised;

/// How long requests in flight may take after SIGTERM. SageMaker kills after 30 seconds, and ComfyUI takes up to 4.5.
const GRACE: Duration = Duration::from_secs(23);
/// How long connections are waited for on which no request is under way and no answer is being sent: not as long as a
/// client takes that has begun a request and does not go on.
const LEAVE: Duration = Duration::from_secs(3);
/// How long cancelling and cleaning up may take then.
const CHORES: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// A wrong option, a port that is taken, ComfyUI's command cannot be started at all.
pub async fn run(options: Serve) -> io::Result<()> {
    let invalid = |why| io::Error::new(io::ErrorKind::InvalidInput, why);
    let comfyui = options.comfyui(Comfy::new(&options.comfyui_url).map_err(invalid)?.port());
    let (announce, presence) = watch::channel(Presence::default());
    let app = App::new(&options, comfyui.command.is_some().then_some(presence)).map_err(invalid)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = listen(options.listen).await?;
    let metrics = match options.metrics_port {
        Some(port) => Some(listen((Ipv4Addr::LOCALHOST, port).into()).await?),
        None => None,
    };
    tracing::info!("listening on {}", listener.local_addr()?);
    if let Some(metrics) = metrics {
        tracing::info!("metrics on http://{}/metrics", metrics.local_addr()?);
        let router = metrics::router(Arc::clone(&app.metrics));
        tokio::spawn(async move { axum::serve(metrics, router).await });
    }
    let (stop_serving, mut serving) = watch::channel(false);
    let (stop_comfyui, keeping) = watch::channel(false);
    let spawns = comfyui.command.is_some();
    let supervised = Supervised::default();
    // To the very end: what ComfyUI's end leaves behind is ours too.
    tokio::spawn(supervised.clone().reap_others());
    let mut keeper = tokio::spawn(child::keep_running(comfyui, announce, keeping, supervised));
    let watch = tokio::spawn(Arc::clone(&app).watch());
    let sweep = tokio::spawn(app.jobs.clone().sweep());
    let (chores, health) = (app.jobs.chores.clone(), Arc::clone(&app.health));
    let server = axum::serve(listener, router(app)).with_graceful_shutdown(async move {
        // A sender that is gone means the same.
        let _ = serving.wait_for(|stop| *stop).await;
    });
    let mut server = tokio::spawn(async move { server.await });
    tokio::select! {
        // Without a child of ours it has nothing to do and ends at once.
        result = &mut keeper, if spawns => return result.map_err(io::Error::other)?,
        result = &mut server => return result.map_err(io::Error::other)?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    stop_serving.send_replace(true);
    tokio::select! {
        _ = &mut server => {}
        () = idle(&health) => tracing::info!("connections without a request are cut"),
        () = tokio::time::sleep(GRACE) => tracing::warn!("requests in flight are cut"),
    }
    chores.close();
    if tokio::time::timeout(CHORES, chores.wait()).await.is_err() {
        tracing::debug!("cleaning up is cut");
    }
    watch.abort();
    sweep.abort();
    stop_comfyui.send_replace(true);
    if spawns {
        keeper.await.map_err(io::Error::other)??;
    }
    Ok(())
}

/// Until no request has been under way for a while, from its body to the last byte of its answer.
async fn idle(health: &Health) {
    let mut busy = Instant::now();
    while busy.elapsed() < LEAVE {
        tokio::time::sleep(LEAVE / 30).await;
        if health.in_use() {
            busy = Instant::now();
        }
    }
}

async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|cause| io::Error::new(cause.kind(), format!("cannot listen on {address}: {cause}")))
}
