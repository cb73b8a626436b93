//! comfy-handler: `Handler` wired to Lambda and the SDK.

mod lambda;
mod memory;

use std::path::PathBuf;

use comfy_handler::{Endpoint, Environment, Handler, Retries, UrlMode, Workflows};
use lambda_runtime::Error;
use tracing::level_filters::LevelFilter;

// One thread: the process serves one event at a time, and at 256 MB has a seventh of a processor.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    memory::keep();
    memory::take();
    // No filter from the environment: at finer levels the runtime and the SDK log events and bodies, prompts included.
    tracing_subscriber::fmt().json().with_max_level(LevelFilter::INFO).with_target(false).init();
    let variable = |name: &str| std::env::var(name).ok();
    let endpoint = variable("ENDPOINT_NAME").ok_or("ENDPOINT_NAME is not set")?;
    let url_mode = UrlMode::parse(variable("COMFY_URL_MODE").as_deref())?;
    let root = std::env::var_os("LAMBDA_TASK_ROOT").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let dir = root.join("workflows");
    let workflows = Workflows::load(&dir).map_err(|cause| format!("cannot read {}: {cause}", dir.display()))?;
    let endpoint = Endpoint::new(endpoint, Environment::read(variable)?, Retries::default());
    endpoint.rehearse().await;
    lambda::serve(Handler::new(workflows, endpoint, url_mode)).await
}
