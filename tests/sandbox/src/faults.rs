//! What tests can break, as data: a list of faults, each used up after so many times, and not used before so many
//! others went well.

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
    /// How many more go well first.
    #[serde(default)]
    pub after: u32,
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
    /// Uses up one of the first fault that fits and is due, and returns it. Those that are not due yet come nearer.
    pub fn take(&mut self, fits: impl Fn(&What) -> bool) -> Option<What> {
        for fault in self.0.iter_mut().filter(|f| f.times > 0 && fits(&f.what)) {
            if fault.after > 0 {
                fault.after -= 1;
                continue;
            }
            fault.times -= 1;
            let what = fault.what.clone();
            self.0.retain(|f| f.times > 0);
            return Some(what);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_waits_for_its_turn_and_is_used_up() {
        let text = r#"[{"kind": "throttle", "service": "s3", "operation": "PutObject", "after": 2, "times": 2}]"#;
        let mut faults: Faults = serde_json::from_str(text).unwrap();
        let mut take = || faults.take(|what| matches!(what, What::Throttle { .. })).is_some();
        assert_eq!([take(), take(), take(), take(), take()], [false, false, true, true, false]);
        assert!(faults.0.is_empty());
    }
}
