//! How often to ask. Polling gets slower the longer something takes, and a throttled or failed poll never ends a run.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{Error, Kind, Result};

/// Tells work to stop. Clones share the signal.
#[derive(Debug, Clone)]
pub struct Cancel(watch::Receiver<bool>);

impl Cancel {
    /// A signal and its trigger.
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Cancel(receiver))
    }

    /// Whether it came.
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// The signal as a channel, for what runs subprocesses.
    pub fn receiver(&self) -> watch::Receiver<bool> {
        self.0.clone()
    }

    /// Returns when it comes; never if the trigger is gone.
    pub async fn wait(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|set| *set).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// # Errors
    /// [`Kind::Interrupted`] once the signal came.
    pub fn check(&self) -> Result<()> {
        if self.is_set() { Err(interrupted()) } else { Ok(()) }
    }
}

/// The error of an interrupted run.
pub fn interrupted() -> Error {
    Error::new(Kind::Interrupted, "interrupted")
}

/// Growing pauses between polls, with jitter, until a deadline.
#[derive(Debug)]
pub struct Pace {
    next: Duration,
    most: Duration,
    deadline: Instant,
}

impl Pace {
    /// From 2 s to 15 s on AWS, as CloudFormation tolerates from many runs at once; the sandbox is quick and alone.
    pub fn new(sandbox: bool, timeout: Duration) -> Self {
        let (first, most) = if sandbox { (50, 400) } else { (2000, 15_000) };
        Pace {
            next: Duration::from_millis(first),
            most: Duration::from_millis(most),
            deadline: Instant::now() + timeout,
        }
    }

    /// Whether the deadline has passed.
    pub fn over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Something moved: ask soon again.
    pub fn quicken(&mut self) {
        self.next = self.next.min(self.most / 4);
    }

    /// Pauses.
    ///
    /// # Errors
    /// [`Kind::Interrupted`].
    pub async fn pause(&mut self, cancel: &Cancel) -> Result<()> {
        let jitter = rand::random_range(0.8..1.2);
        let pause = self.next.mul_f64(jitter);
        self.next = (self.next * 3 / 2).min(self.most);
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = cancel.wait() => Err(interrupted()),
        }
    }
}

/// Reads something during an operation, again and again while the failure is a passing one.
///
/// # Errors
/// The last failure, once it is not passing or the deadline is over; [`Kind::Interrupted`].
pub async fn patiently<T>(run: &super::Run<'_>, mut read: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let mut pace = run.pace();
    loop {
        match read().await {
            Err(e) if passing(&e) && !pace.over() => tracing::debug!("asking again: {e}"),
            done => return done,
        }
        pace.pause(&run.cancel).await?;
    }
}

/// Whether a failed poll is worth another: throttled, a server's fault, or no answer at all.
pub fn passing(error: &Error) -> bool {
    if matches!(error.kind(), Kind::Access | Kind::Usage | Kind::Interrupted) {
        return false;
    }
    match error.aws() {
        None => false,
        Some(s) => {
            s.code.contains("Throttl")
                || s.code.contains("RequestLimit")
                || s.code == "TooManyRequestsException"
                || s.status.is_none_or(|status| status >= 500)
        }
    }
}
