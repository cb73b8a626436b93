//! The lengths of compressed files, found out on threads of their own while events and Ctrl-C are still heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::error::{Error, Result};
use crate::local::lengths::LengthCache;
use crate::pack::{Contents, measure};
use crate::progress::{Event, Reporter};

/// Passes events on to the task that has the real reporter.
struct Relay(UnboundedSender<Event>);

impl Reporter for Relay {
    fn report(&self, event: Event) {
        // Whoever does not listen any more has stopped.
        let _ = self.0.send(event);
    }
}

/// Dropped with the run, it tells the threads to stop.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The contents with every length known, as [`measure`] finds them.
///
/// # Errors
/// As there.
pub(super) async fn measured(
    contents: Contents,
    mut lengths: LengthCache,
    reporter: &dyn Reporter,
) -> Result<(Contents, LengthCache)> {
    if contents.exact() {
        return Ok((contents, lengths));
    }
    let stop = Stop(Arc::default());
    let stopped = stop.0.clone();
    let (sender, mut events) = unbounded_channel();
    let work = tokio::task::spawn_blocking(move || {
        let contents = measure(&contents, &mut lengths, &Relay(sender), &stopped)?;
        Ok((contents, lengths))
    });
    while let Some(event) = events.recv().await {
        reporter.report(event);
    }
    let done = work.await.map_err(|e| Error::failed(format!("compressing broke off: {e}")))?;
    drop(stop);
    done
}
