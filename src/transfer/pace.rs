//! How many requests are under way: fewer once S3 asks to slow down, more again while all goes well.

use std::sync::Mutex;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::retry::slow_down;
use crate::error::{Error, Result};

/// Lanes for requests that move bytes.
pub(super) struct Pace {
    lanes: Semaphore,
    state: Mutex<State>,
}

struct State {
    /// Lanes that may be in use.
    open: usize,
    /// Lanes at the start, and at most.
    most: usize,
    /// Lanes to close as soon as they are given back.
    closing: usize,
    /// Requests that succeeded since the number last changed.
    good: usize,
}

impl Pace {
    pub(super) fn new(most: usize) -> Self {
        let most = most.max(1);
        let state = Mutex::new(State { open: most, most, closing: 0, good: 0 });
        Pace { lanes: Semaphore::new(most), state }
    }

    /// Runs a request in a lane, as soon as there is one, and learns from how it ends. That is while the lane is held:
    /// given back first, it would let one more request out to a service that has just refused this one.
    pub(super) async fn run<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        let _lane = self.lane().await?;
        let result = request.await;
        match &result {
            Ok(_) => self.went_well(),
            Err(e) if slow_down(e) => self.slower(),
            Err(_) => {}
        }
        result
    }

    /// Waits for a lane.
    async fn lane(&self) -> Result<Lane<'_>> {
        match self.lanes.acquire().await {
            Ok(permit) => Ok(Lane { pace: self, permit: Some(permit) }),
            Err(e) => Err(Error::failed("the upload was stopped").why(e.to_string())),
        }
    }

    #[cfg(test)]
    fn open(&self) -> usize {
        self.state().open
    }

    /// S3 asked to slow down: half as many requests from now on, one at least.
    pub(super) fn slower(&self) {
        let mut state = self.state();
        let fewer = (state.open / 2).max(1);
        state.closing += state.open - fewer;
        state.open = fewer;
        state.good = 0;
        tracing::debug!(lanes = fewer, "S3 asks to slow down");
    }

    /// A request succeeded. After as many in a row as there are lanes, one more is opened.
    fn went_well(&self) {
        let mut state = self.state();
        state.good += 1;
        if state.good >= state.open && state.open < state.most {
            state.open += 1;
            state.good = 0;
            if state.closing > 0 {
                state.closing -= 1;
            } else {
                self.lanes.add_permits(1);
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A lane, until it is dropped.
struct Lane<'a> {
    pace: &'a Pace,
    permit: Option<SemaphorePermit<'a>>,
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        let mut state = self.pace.state();
        if let Some(permit) = self.permit.take()
            && state.closing > 0
        {
            state.closing -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lanes_halve_and_come_back_one_by_one() {
        let pace = Pace::new(8);
        let mut lanes = Vec::new();
        for _ in 0..8 {
            lanes.push(pace.lane().await.unwrap());
        }
        pace.slower();
        pace.slower();
        assert_eq!(pace.open(), 2);
        lanes.clear();
        assert_eq!(pace.lanes.available_permits(), 2);
        for _ in 0..2 {
            pace.went_well();
        }
        assert_eq!((pace.open(), pace.lanes.available_permits()), (3, 3));
        for _ in 0..100 {
            pace.went_well();
        }
        assert_eq!((pace.open(), pace.lanes.available_permits()), (8, 8));
    }

    #[tokio::test]
    async fn one_lane_always_stays() {
        let pace = Pace::new(2);
        for _ in 0..5 {
            pace.slower();
        }
        assert_eq!(pace.open(), 1);
        // Closing lanes that nobody holds happens as they are taken.
        drop(pace.lane().await.unwrap());
        drop(pace.lane().await.unwrap());
        assert_eq!(pace.lanes.available_permits(), 1);
    }
}
