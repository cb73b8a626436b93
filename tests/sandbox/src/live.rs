//! What runs beside the state: the processes of functions and endpoints. None of it outlives the sandbox.

use crate::lambda::Environments;
use crate::process::Spawner;
use crate::sagemaker::Fleet;

/// Everything that runs.
#[derive(Debug, Default)]
pub struct Live {
    /// Starts processes.
    pub spawner: Spawner,
    /// Execution environments of functions.
    pub lambda: Environments,
    /// Instances of endpoints.
    pub fleet: Fleet,
}
