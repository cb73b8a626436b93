//! Where a job is. Normally the socket tells; this is for what it does not tell: that somebody removed a job, or that
//! ComfyUI was restarted.
//!
//! The queue comes with the workflows of all jobs in it, tens of megabytes when they are large, which ComfyUI has to write
//! while it computes. So it is asked for how many jobs there are, and for the queue itself only when one is missing, and
//! one answer serves all.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::comfy::{Comfy, Unreachable};

/// How old the queue may be for a job that may be missing.
const FRESH: Duration = Duration::from_millis(400);
/// The same when none seems to be missing: somebody else's jobs can hide that one is.
const STALE: Duration = Duration::from_secs(15);

/// What is known about a job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Look {
    /// It ended; its history entry.
    Ended(Value),
    /// It waits or runs.
    Queued,
    /// ComfyUI does not know it.
    Unknown,
}

/// ComfyUI's queue.
#[derive(Debug)]
pub(crate) struct Queue {
    comfy: Comfy,
    /// Jobs of ours that ComfyUI took and that did not end, as far as known.
    ours: AtomicUsize,
    /// The ids in it, and when they were asked for.
    last: Mutex<Option<(Instant, Arc<HashSet<String>>)>>,
}

/// A job that ComfyUI took, until this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    queue: Arc<Queue>,
    at: Instant,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.queue.ours.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Queue {
    pub(crate) fn new(comfy: Comfy) -> Self {
        Queue { comfy, ours: AtomicUsize::new(0), last: Mutex::default() }
    }

    /// Counts a job that ComfyUI took just now.
    pub(crate) fn taken(self: &Arc<Self>) -> Taken {
        self.ours.fetch_add(1, Ordering::Relaxed);
        Taken { queue: Arc::clone(self), at: Instant::now() }
    }

    /// Where a job is of which it is not known whether ComfyUI has it, or has it still.
    pub(crate) async fn look(&self, prompt_id: &str) -> Result<Look, Unreachable> {
        let since = Instant::now().checked_sub(FRESH);
        self.find(prompt_id, async || Ok(self.comfy.remaining().await? > 0 && self.has(prompt_id, since).await?)).await
    }

    /// Where a job is that ComfyUI took. Found out with small questions as long as no job is missing.
    pub(crate) async fn check(&self, prompt_id: &str, taken: &Taken) -> Result<Look, Unreachable> {
        let listed = async || {
            let missing = self.comfy.remaining().await? < self.ours.load(Ordering::Relaxed);
            if !missing && taken.at.elapsed() < STALE {
                return Ok(true);
            }
            // Of the time before ComfyUI had it the queue tells nothing about it.
            let since = Instant::now().checked_sub(if missing { FRESH } else { STALE }).max(Some(taken.at));
            self.has(prompt_id, since).await
        };
        self.find(prompt_id, listed).await
    }

    /// A job moves from the queue to the history between two questions, so the history is asked twice.
    async fn find(
        &self,
        prompt_id: &str,
        listed: impl AsyncFnOnce() -> Result<bool, Unreachable>,
    ) -> Result<Look, Unreachable> {
        if let Some(entry) = self.comfy.history(prompt_id).await? {
            return Ok(Look::Ended(entry));
        }
        if listed().await? {
            return Ok(Look::Queued);
        }
        Ok(self.comfy.history(prompt_id).await?.map_or(Look::Unknown, Look::Ended))
    }

    /// Whether a job is in the queue, as it was at a time or later.
    async fn has(&self, prompt_id: &str, since: Option<Instant>) -> Result<bool, Unreachable> {
        // Who comes while somebody asks waits for that answer.
        let mut last = self.last.lock().await;
        if let Some((at, ids)) = &*last
            && Some(*at) >= since
        {
            return Ok(ids.contains(prompt_id));
        }
        let at = Instant::now();
        let ids = Arc::new(self.comfy.queued().await?);
        *last = Some((at, Arc::clone(&ids)));
        Ok(ids.contains(prompt_id))
    }
}
