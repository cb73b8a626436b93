//! comfy-handler: [`Handler`] wired to Lambda and the SDK.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use comfy_handler::{Endpoint, Environment, Handler, Reply, Retries, Streamed, Summary, UrlMode, Workflows};
use lambda_runtime::streaming::Body;
use lambda_runtime::{Error, FunctionResponse, LambdaEvent, MetadataPrelude, StreamResponse, run, service_fn};
use serde_json::value::RawValue;
use tracing::level_filters::LevelFilter;

/// Left of the function's time for the reply itself.
const REPLY_TIME: Duration = Duration::from_secs(1);

// One thread: the process serves one event at a time, and at 256 MB has a seventh of a processor.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    // No filter from the environment: at finer levels the runtime and the SDK log events and bodies, prompts included.
    tracing_subscriber::fmt().json().with_max_level(LevelFilter::INFO).with_target(false).init();
    let variable = |name: &str| std::env::var(name).ok();
    let endpoint = variable("ENDPOINT_NAME").ok_or("ENDPOINT_NAME is not set")?;
    let url_mode = UrlMode::parse(variable("COMFY_URL_MODE").as_deref())?;
    let root = std::env::var_os("LAMBDA_TASK_ROOT").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let dir = root.join("workflows");
    let workflows = Workflows::load(&dir).map_err(|cause| format!("cannot read {}: {cause}", dir.display()))?;
    let endpoint = Endpoint::new(endpoint, Environment::read(variable)?, Retries::default());
    let handler = Arc::new(Handler::new(workflows, endpoint, url_mode));
    run(service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let handler = Arc::clone(&handler);
        async move {
            let begun = Instant::now();
            let left = event.context.deadline().duration_since(SystemTime::now()).unwrap_or_default();
            let (reply, summary) = handler.handle(event.payload.get(), left.saturating_sub(REPLY_TIME)).await;
            log(&event.context.request_id, &summary, begun.elapsed());
            respond(reply)
        }
    }))
    .await
}

fn log(request: &str, summary: &Summary, took: Duration) {
    tracing::info!(
        request,
        status = summary.status,
        error = summary.error,
        workflow = summary.workflow,
        bytes = summary.bytes,
        milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "answered"
    );
}

fn respond(reply: Reply) -> Result<FunctionResponse<comfy_handler::Buffered, Body>, Error> {
    Ok(match reply {
        Reply::Buffered(reply) => FunctionResponse::BufferedResponse(reply),
        Reply::Streamed(Streamed { status, headers, body }) => {
            let mut prelude = MetadataPrelude { status_code: status.try_into()?, ..MetadataPrelude::default() };
            for (name, value) in headers {
                prelude.headers.insert(name, value.try_into()?);
            }
            FunctionResponse::StreamingResponse(StreamResponse { metadata_prelude: prelude, stream: body.into() })
        }
    })
}
