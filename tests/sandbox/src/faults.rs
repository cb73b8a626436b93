//! What tests can break, as data: a list of faults, each used up after so many times.

use serde::{Deserialize, Serialize};

/// The list.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Faults(pub Vec<Fault>);

/// One fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// What breaks.
    #[serde(flatten)]
    pub what: What,
    /// How often still.
    #[serde(default = "once")]
    pub times: u32,
}

fn once() -> u32 {
    1
}

/// What breaks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// An operation answers ThrottlingException.
    Throttle {
        /// Signing name.
        service: String,
        /// API name.
        operation: String,
    },
    /// An operation answers this error.
    Error {
        /// Signing name.
        service: String,
        /// API name.
        operation: String,
        /// Error code.
        code: String,
        /// Message.
        message: String,
        /// HTTP status.
        status: u16,
    },
    /// A stack resource fails to create or update.
    ResourceFails {
        /// Logical id.
        logical_id: String,
        /// The reason shown.
        message: String,
    },
    /// The container of an endpoint does not pass its health check.
    Unhealthy {
        /// Endpoint name, or `*`.
        endpoint: String,
    },
    /// An endpoint update goes back to the old config and says InService.
    SilentRollback {
        /// Endpoint name, or `*`.
        endpoint: String,
    },
}

impl Faults {
    /// Uses up one of the first fault that fits, and returns it.
    pub fn take(&mut self, fits: impl Fn(&What) -> bool) -> Option<What> {
        let fault = self.0.iter_mut().find(|f| f.times > 0 && fits(&f.what))?;
        fault.times -= 1;
        let what = fault.what.clone();
        self.0.retain(|f| f.times > 0);
        Some(what)
    }
}
