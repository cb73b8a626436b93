//! Application Auto Scaling, as far as we use it.

use async_trait::async_trait;

use crate::error::Result;

/// A scheduled action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Name.
    pub name: String,
    /// `cron(...)`, `rate(...)` or `at(...)`.
    pub when: String,
    /// IANA name.
    pub timezone: Option<String>,
    /// Minimum from then on.
    pub min: Option<i32>,
    /// Maximum from then on.
    pub max: Option<i32>,
}

/// A registered scalable target with all that hangs on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalableTarget {
    /// Minimum instances.
    pub min: i32,
    /// Maximum instances.
    pub max: i32,
    /// Names of policies.
    pub policies: Vec<String>,
    /// Scheduled actions.
    pub schedules: Vec<Schedule>,
}

/// Application Auto Scaling.
#[async_trait]
pub trait Scaling: Send + Sync {
    /// The target of a variant's instance count with policies and schedules (three calls), or `None` after one.
    async fn target(&self, endpoint: &str, variant: &str) -> Result<Option<ScalableTarget>>;
}
