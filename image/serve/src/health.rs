//! What /ping says, found out in the background so that /ping itself never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::comfy::Comfy;

/// Limit of one probe: SageMaker allows /ping two seconds.
const LIMIT: Duration = Duration::from_millis(1200);
/// Between two probes.
const EVERY: Duration = Duration::from_secs(1);
/// Between two probes until the first answer.
const EVERY_AT_START: Duration = Duration::from_millis(100);

/// When ComfyUI counts as down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Failed probes in a row.
    pub(crate) failures: u32,
    /// For how long they may go on while a job runs.
    pub(crate) busy_grace: Duration,
}

/// What the probes of one ComfyUI process found. Pure.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Pulse {
    answered: bool,
    failures: u32,
    failing_since: Option<Instant>,
}

impl Pulse {
    /// Notes a probe that began at a time.
    pub(crate) fn probe(&mut self, answered: bool, at: Instant) {
        if answered {
            *self = Pulse { answered: true, failures: 0, failing_since: None };
        } else {
            self.failures = self.failures.saturating_add(1);
            self.failing_since.get_or_insert(at);
        }
    }

    /// Whether it ever answered.
    pub(crate) fn answered(&self) -> bool {
        self.answered
    }

    /// The verdict.
    pub(crate) fn healthy(&self, rules: Rules, busy: bool, now: Instant) -> bool {
        if !self.answered {
            return false;
        }
        match busy {
            // Loading a model can hold ComfyUI for long.
            true => self.failing_since.is_none_or(|since| now.duration_since(since) < rules.busy_grace),
            false => self.failures < rules.failures,
        }
    }
}

/// What /ping and the requests share.
#[derive(Debug, Default)]
pub(crate) struct Health {
    healthy: AtomicBool,
    warm: AtomicBool,
    jobs: AtomicUsize,
    /// Jobs that nobody waits for any more, but that are still in ComfyUI.
    pursued: AtomicUsize,
    /// Answers that are being sent.
    answers: AtomicUsize,
    starts: AtomicU64,
}

impl Health {
    /// What /ping says.
    pub(crate) fn ready(&self) -> bool {
        self.healthy.load(Ordering::Relaxed) && self.warm.load(Ordering::Relaxed)
    }

    /// Notes the verdict about ComfyUI.
    pub(crate) fn set_healthy(&self, healthy: bool) {
        if self.healthy.swap(healthy, Ordering::Relaxed) != healthy {
            tracing::info!("{}", if healthy { "ComfyUI answers" } else { "ComfyUI does not answer" });
        }
    }

    /// Notes that the warm-up is over, or that a new ComfyUI needs one.
    pub(crate) fn set_warm(&self, warm: bool) {
        self.warm.store(warm, Ordering::Relaxed);
    }

    /// Notes how often ComfyUI was started.
    pub(crate) fn set_starts(&self, starts: u64) {
        self.starts.store(starts, Ordering::Relaxed);
    }

    /// How often ComfyUI was started; 0 when that is not our business.
    pub(crate) fn starts(&self) -> u64 {
        self.starts.load(Ordering::Relaxed)
    }

    /// How many jobs are under way, of requests that wait for them.
    pub(crate) fn jobs(&self) -> usize {
        self.jobs.load(Ordering::Relaxed)
    }

    /// Whether ComfyUI may be busy with a job of ours, also one that was given up: it may load a model all the same.
    fn busy(&self) -> bool {
        self.jobs() > 0 || self.pursued.load(Ordering::Relaxed) > 0
    }

    /// Whether somebody waits for a job, or is being sent its answer.
    pub(crate) fn in_use(&self) -> bool {
        self.jobs() > 0 || self.answers.load(Ordering::Relaxed) > 0
    }

    /// Counts a job until the guard is dropped.
    pub(crate) fn job(self: &Arc<Self>) -> Busy {
        Busy::new(self, |health| &health.jobs)
    }

    /// Counts a job that was given up until the guard is dropped.
    pub(crate) fn pursuit(self: &Arc<Self>) -> Busy {
        Busy::new(self, |health| &health.pursued)
    }

    /// Counts an answer until the guard is dropped.
    pub(crate) fn answer(self: &Arc<Self>) -> Busy {
        Busy::new(self, |health| &health.answers)
    }
}

/// Something under way.
#[derive(Debug)]
pub(crate) struct Busy {
    health: Arc<Health>,
    count: fn(&Health) -> &AtomicUsize,
}

impl Busy {
    fn new(health: &Arc<Health>, count: fn(&Health) -> &AtomicUsize) -> Self {
        count(health).fetch_add(1, Ordering::Relaxed);
        Busy { health: Arc::clone(health), count }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        (self.count)(&self.health).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Probes one ComfyUI process for ever. Calls `answered` after its first answer, once.
pub(crate) async fn probe(comfy: &Comfy, health: &Health, rules: Rules, answered: impl FnOnce()) {
    let mut pulse = Pulse::default();
    let mut answered = Some(answered);
    loop {
        let begun = Instant::now();
        pulse.probe(comfy.alive(LIMIT).await, begun);
        health.set_healthy(pulse.healthy(rules, health.busy(), Instant::now()));
        if pulse.answered()
            && let Some(answered) = answered.take()
        {
            answered();
        }
        let pause = if pulse.answered() { EVERY } else { EVERY_AT_START };
        tokio::time::sleep_until(begun + pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { failures: 3, busy_grace: Duration::from_secs(60) };

    /// The verdict after probes, one a second: `+` answered, `-` not.
    fn verdict(probes: &str, busy: bool) -> bool {
        let begun = Instant::now();
        let mut pulse = Pulse::default();
        let mut now = begun;
        for probe in probes.chars() {
            pulse.probe(probe == '+', now);
            now += Duration::from_secs(1);
        }
        pulse.healthy(RULES, busy, now)
    }

    #[test]
    fn verdicts() {
        for (probes, idle, busy) in [
            ("", false, false),
            ("-----", false, false),
            ("+", true, true),
            ("-----+", true, true),
            ("+--", true, true),
            ("+---", false, true),
            ("+---+", true, true),
            ("+--+--", true, true),
            (&format!("+{}", "-".repeat(59)), false, true),
            (&format!("+{}", "-".repeat(60)), false, false),
        ] {
            assert_eq!(verdict(probes, false), idle, "idle {probes}");
            assert_eq!(verdict(probes, true), busy, "busy {probes}");
        }
    }

    #[test]
    fn ready_is_healthy_and_warm() {
        let health = Arc::new(Health::default());
        assert!(!health.ready());
        health.set_healthy(true);
        assert!(!health.ready());
        health.set_warm(true);
        assert!(health.ready());
        let busy = (health.job(), health.job());
        assert_eq!(health.jobs(), 2);
        drop(busy);
        assert_eq!(health.jobs(), 0);
    }

    #[test]
    fn a_job_that_was_given_up_keeps_comfyui_busy_and_holds_up_nobody() {
        let health = Arc::new(Health::default());
        assert!(!health.busy() && !health.in_use());
        let pursuit = health.pursuit();
        assert!(health.busy() && !health.in_use());
        drop(pursuit);
        let answer = health.answer();
        assert!(!health.busy() && health.in_use());
        drop(answer);
        let job = health.job();
        assert!(health.busy() && health.in_use());
        drop(job);
        assert!(!health.busy() && !health.in_use());
    }
}
