//! Carries out a confirmed [`Plan`](crate::plan::Plan) and reports events. Decides nothing: what is not in the
//! plan is refused, not improvised.

pub mod artifacts;
pub mod deploy;
pub mod failure;
pub mod follow;
pub mod operation;
pub mod pace;
pub mod publish;
pub mod verify;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cloud::Cloud;
use crate::progress::Reporter;

pub use pace::{Cancel, Pace};

/// What everything that applies needs: ports, reporter, signal, patience. No flags.
pub struct Run<'a> {
    /// The ports.
    pub cloud: &'a Cloud,
    /// Where events go.
    pub reporter: Arc<dyn Reporter>,
    /// Ctrl-C.
    pub cancel: Cancel,
    /// Whether the stand-in answers: polls may be quick.
    pub sandbox: bool,
    /// The own deadline of one operation.
    pub timeout: Duration,
    /// Service role for CloudFormation.
    pub role_arn: Option<String>,
    /// Leave a failed stack standing.
    pub keep_on_failure: bool,
    /// Directory for what must outlive a rollback (`.comfy-deploy` below the config file).
    pub scratch: PathBuf,
    /// The command that continues after an interruption, as in `comfy-deploy up`.
    pub resume: String,
}

impl Run<'_> {
    /// A pace with this run's patience.
    pub fn pace(&self) -> Pace {
        Pace::new(self.sandbox, self.timeout)
    }

    /// Reports one event.
    pub fn say(&self, event: crate::progress::Event) {
        self.reporter.report(event);
    }
}

/// A token for one operation, as CloudFormation wants it: at most 128 letters, digits and hyphens.
pub fn token() -> String {
    format!("comfy-deploy-{}", uuid::Uuid::new_v4())
}
