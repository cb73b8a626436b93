//! Health, asked in the background so that /ping itself never waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::comfy::Comfy;

/// Limit of one question: SageMaker allows /ping two seconds.
const LIMIT: Duration = Duration::from_millis(1200);
/// Between two questions.
const EVERY: Duration = Duration::from_secs(1);
/// Between two questions until the first answer.
const EVERY_AT_START: Duration = Duration::from_millis(200);
/// Missed answers in a row before health is lost: loading a model can hold ComfyUI for a moment.
const MISSES: u32 = 3;

/// Asks for ever.
pub(crate) async fn probe(comfy: Comfy, healthy: &AtomicBool) {
    let mut misses = MISSES;
    loop {
        misses = if comfy.alive(LIMIT).await { 0 } else { misses.saturating_add(1) };
        let now = misses < MISSES;
        if healthy.swap(now, Ordering::Relaxed) != now {
            tracing::info!("{}", if now { "ComfyUI answers" } else { "ComfyUI does not answer" });
        }
        tokio::time::sleep(if now { EVERY } else { EVERY_AT_START }).await;
    }
}
