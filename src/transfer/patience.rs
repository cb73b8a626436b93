//! How long a request that sends bytes may take before its connection counts as one that nobody listens to any more.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::MIB;
use crate::error::{Error, Result};

/// How many times as long as the slowest so far a request may take. It has to be more than the number of requests that
/// share a line: the slowest one may have had it for itself.
const TIMES: u32 = 16;

/// Doublings of the time at most.
const DOUBLINGS: u32 = 8;

/// Learns from requests that were answered what to expect of others.
pub(super) struct Patience {
    /// What is waited for an answer at least.
    least: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Of the slowest request so far, the time per MiB. None before one was answered: nothing is known of the line then.
    slowest: Option<Duration>,
    /// How often the time was doubled since a request was last answered, and when it last was.
    doubled: u32,
    at: Option<Instant>,
}

impl Patience {
    pub(super) fn new(least: Duration) -> Self {
        Patience { least, state: Mutex::default() }
    }

    /// Waits for a request that sends so many bytes.
    ///
    /// # Errors
    /// What the request says; or that there was no answer, which is worth another try over another connection.
    pub(super) async fn wait<T>(&self, bytes: u64, request: impl Future<Output = Result<T>>) -> Result<T> {
        let begun = Instant::now();
        let result = match self.limit(bytes) {
            None => request.await,
            Some(limit) => match tokio::time::timeout(limit, request).await {
                Ok(result) => result,
                Err(_) => {
                    self.gave_up(begun);
                    return Err(Error::failed(format!("no answer in {} s", limit.as_secs()))
                        .why("the connection carries nothing any more, though nobody closed it"));
                }
            },
        };
        if result.is_ok() {
            self.answered(bytes, begun.elapsed());
        }
        result
    }

    /// How long a request that sends so many bytes may take, if anything is known of the line.
    fn limit(&self, bytes: u64) -> Option<Duration> {
        let state = self.state();
        let expected = state.slowest?.saturating_mul(mebibytes(bytes));
        Some(expected.saturating_mul(TIMES).max(self.least).saturating_mul(1 << state.doubled))
    }

    fn answered(&self, bytes: u64, took: Duration) {
        let mut state = self.state();
        let pace = took / mebibytes(bytes);
        state.slowest = Some(state.slowest.unwrap_or_default().max(pace));
        state.doubled = 0;
    }

    /// What is begun from now on gets twice the time, so that a line that has become slow is not taken for one that is
    /// dead for ever. Requests that ran side by side are one experience.
    fn gave_up(&self, begun: Instant) {
        let mut state = self.state();
        if state.at.is_none_or(|at| begun >= at) {
            state.doubled = (state.doubled + 1).min(DOUBLINGS);
            state.at = Some(Instant::now());
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Whole MiB, at least one: what little takes is latency, and says nothing of what less would take.
fn mebibytes(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(MIB)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_secs(120);

    #[test]
    fn of_a_line_nothing_is_known_before_something_was_answered() {
        let patience = Patience::new(LEAST);
        assert_eq!(patience.limit(MIB), None);
        patience.answered(16 * MIB, Duration::from_secs(160));
        assert_eq!(patience.limit(16 * MIB), Some(Duration::from_secs(160 * 16)));
    }

    #[test]
    fn what_is_larger_may_take_longer_and_the_slowest_counts() {
        let patience = Patience::new(LEAST);
        patience.answered(1000, Duration::from_secs(1));
        assert_eq!(patience.limit(0), Some(LEAST));
        assert_eq!(patience.limit(MIB), Some(LEAST));
        assert_eq!(patience.limit(100 * MIB), Some(Duration::from_secs(1600)));
        patience.answered(100 * MIB, Duration::from_secs(10));
        assert_eq!(patience.limit(100 * MIB), Some(Duration::from_secs(1600)));
    }

    #[test]
    fn whoever_waits_in_vain_waits_longer_next_time() {
        let patience = Patience::new(LEAST);
        patience.answered(MIB, Duration::from_secs(1));
        let together = Instant::now();
        for _ in 0..8 {
            patience.gave_up(together);
        }
        assert_eq!(patience.limit(MIB), Some(LEAST * 2), "eight at a time are one experience");
        for _ in 0..100 {
            patience.gave_up(Instant::now());
        }
        assert_eq!(patience.limit(MIB), Some(LEAST * 256));
        patience.answered(MIB, Duration::from_secs(1));
        assert_eq!(patience.limit(MIB), Some(LEAST));
    }

    #[tokio::test]
    async fn failures_say_nothing_of_the_line() {
        let patience = Patience::new(LEAST);
        let failed: Result<()> = patience.wait(MIB, async { Err(Error::failed("refused")) }).await;
        assert!(failed.unwrap_err().to_string().contains("refused"));
        assert_eq!(patience.limit(MIB), None);
    }
}
