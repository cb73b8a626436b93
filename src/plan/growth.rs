//! How many instances more a plan needs, for the quota check.

use serde::Serialize;

use super::service::deployed_timeout;
use super::{Step, StepKind, World};
use crate::stack::Action;

/// Instances that a deployment needs beside those that run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Growth {
    /// `ml.g5.xlarge`
    pub instance_type: String,
    /// How many more.
    pub instances: i64,
    /// Seconds that each has to download and extract the models; absent if the template does not say.
    pub download_timeout: Option<u32>,
}

/// A first deployment needs its fleet. A blue-green update needs the whole new fleet while the old one still runs:
/// as many instances as run now, for the live count is retained, or as configured when that is more.
pub(super) fn growth(world: &World, steps: &[Step]) -> Option<Growth> {
    let step = steps.last()?;
    let moves = step
        .changes
        .iter()
        .any(|c| c.logical_id == "ComfyUIEndpointConfig" && matches!(c.action, Action::Add | Action::Replace));
    if !moves || step.kind == StepKind::Attach {
        return None;
    }
    let configured: i64 = step.parameters.get("InitialInstanceCount").and_then(|n| n.parse().ok()).unwrap_or(1);
    let live = world.endpoint.iter().flat_map(|e| &e.variants).filter_map(|v| v.current).map(i64::from).sum::<i64>();
    Some(Growth {
        instance_type: step.parameters.get("SageMakerInstanceType")?.clone(),
        instances: configured.max(live),
        download_timeout: deployed_timeout(&step.parameters),
    })
}
