//! `autoscaling`: how many instances there are, and when.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Autoscaling of the endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Autoscaling {
    /// Whether there is a scalable target.
    pub enabled: bool,
    /// Fewest instances. At least 1: a real-time endpoint cannot scale to zero.
    #[schemars(range(min = 1), extend("patternErrorMessage" = "A real-time endpoint cannot scale to zero: with no instance there is nothing to answer the first request."))]
    pub min: u32,
    /// Most instances.
    #[schemars(range(min = 1))]
    pub max: u32,
    /// Concurrent requests per instance that the policy aims at, or `none` for schedules alone.
    pub target: ScalingGoal,
    /// Seconds after a scale-out before the next.
    #[schemars(range(max = 86_400))]
    pub scale_out_cooldown: u32,
    /// Seconds after a scale-in before the next.
    #[schemars(range(max = 86_400))]
    pub scale_in_cooldown: u32,
    /// Recurring changes of min and max.
    pub schedule: Vec<ScheduleEntry>,
}

impl Default for Autoscaling {
    fn default() -> Self {
        Autoscaling {
            enabled: false,
            min: 1,
            max: 3,
            // ComfyUI runs one prompt at a time, so more than about one per instance is a queue.
            target: ScalingGoal::Concurrency(1.0),
            scale_out_cooldown: 60,
            scale_in_cooldown: 600,
            schedule: Vec::new(),
        }
    }
}

/// A number of concurrent requests per instance, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ScalingGoal {
    /// Concurrent requests per instance.
    Concurrency(#[schemars(extend("exclusiveMinimum" = 0))] f64),
    /// No policy.
    Off(NoneWord),
}

/// The word `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NoneWord {
    /// `none`
    None,
}

/// One recurring change of min and max.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleEntry {
    /// Unique name.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// `cron(minute hour day-of-month month day-of-week year)` or `rate(n unit)`.
    #[schemars(length(min = 1))]
    pub when: String,
    /// IANA time zone of the cron; UTC if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Minimum from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("patternErrorMessage" = "A real-time endpoint cannot scale to zero: with no instance there is nothing to answer the first request."))]
    pub min: Option<u32>,
    /// Maximum from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max: Option<u32>,
}
