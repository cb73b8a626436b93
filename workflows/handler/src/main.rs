//! comfy-handler: `handle` wired to Lambda and the SDK.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use comfy_handler::{Endpoint, Workflows, handle};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::Value;
use tracing::level_filters::LevelFilter;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    // No filter from the environment: at finer levels the runtime and the SDK log events and bodies, prompts included.
    tracing_subscriber::fmt().json().with_max_level(LevelFilter::INFO).with_target(false).init();
    let endpoint = std::env::var("ENDPOINT_NAME").map_err(|_| "ENDPOINT_NAME is not set")?;
    let root = std::env::var_os("LAMBDA_TASK_ROOT").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let dir = root.join("workflows");
    let workflows = Workflows::load(&dir).map_err(|cause| format!("cannot read {}: {cause}", dir.display()))?;
    let shared = Arc::new((workflows, Endpoint::connect(endpoint).await));
    run(service_fn(move |event: LambdaEvent<Value>| {
        let shared = Arc::clone(&shared);
        async move {
            let begun = Instant::now();
            let (reply, summary) = handle(&event.payload, &shared.0, &shared.1).await;
            tracing::info!(
                request = event.context.request_id,
                status = summary.status,
                error = summary.error,
                workflow = summary.workflow,
                bytes = summary.bytes,
                milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
                "answered"
            );
            Ok::<_, Error>(reply)
        }
    }))
    .await
}
