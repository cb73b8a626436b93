//! What was observed in the account, reads only.

use crate::cloud::{BucketState, Endpoint, EndpointConfig, ScalableTarget, Stack};
use crate::stack::Pseudo;

/// A deployed stack with its template.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployed {
    /// As DescribeStacks shows it.
    pub stack: Stack,
    /// The original template text.
    pub body: String,
}

/// A bucket or repository that exists without the foundation stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// `bucket` or `repository`.
    pub what: &'static str,
    /// Its name.
    pub name: String,
    /// The value of its tag [`super::APP_TAG`].
    pub app: Option<String>,
}

/// The state of the account as far as this app goes.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// Twelve digits.
    pub account: String,
    /// The foundation stack.
    pub foundation: Option<Deployed>,
    /// The service stack.
    pub service: Option<Deployed>,
    /// Whether the artifacts' bucket can be used; only looked at when the foundation does not make it.
    pub bucket: Option<BucketState>,
    /// What the foundation stack would make but exists already.
    pub existing: Vec<Existing>,
    /// Digest under the wanted image tag, or of the prebuilt image where it is in our own registry.
    pub image: Option<String>,
    /// CRC64NVME of the wanted model artifact, base64, where S3 has it.
    pub model_crc64nvme: Option<String>,
    /// Whether the wanted model artifact is in S3.
    pub model_present: bool,
    /// Bytes of the wanted model artifact, where it is in S3 and can be told.
    pub model_bytes: Option<u64>,
    /// Whether the wanted function package is in S3.
    pub function_present: bool,
    /// The endpoint.
    pub endpoint: Option<Endpoint>,
    /// The live endpoint config.
    pub config: Option<EndpointConfig>,
    /// The registered scalable target.
    pub scaling: Option<ScalableTarget>,
    /// Number of the newest deployment record; 0 when there is none.
    pub last_record: u32,
    /// The newest record, if it has no outcome yet.
    pub open_record: Option<u32>,
}

impl World {
    /// The pseudo parameters of a stack.
    pub fn pseudo(&self, stack: &str, region: &str) -> Pseudo {
        Pseudo::new(&self.account, region, stack)
    }

    /// The endpoint config that the service stack believes to be live.
    pub fn believed_config(&self) -> Option<String> {
        let stack = &self.service.as_ref()?.stack;
        Some(format!("{}-{}", stack.parameters.get("AppName")?, stack.parameters.get("ModelVersion")?))
    }

    /// What to say when somebody deleted the endpoint behind CloudFormation's back: an update cannot make it again.
    pub fn lost_endpoint(&self) -> Option<String> {
        let stack = &self.service.as_ref().filter(|_| self.endpoint.is_none())?.stack;
        let complete = stack.status.ends_with("_COMPLETE") && stack.status != "ROLLBACK_COMPLETE";
        complete.then(|| {
            format!(
                "the endpoint is gone, although the stack {} is complete: it was deleted outside CloudFormation",
                stack.name
            )
        })
    }

    /// What to say when the endpoint went back to an older config behind CloudFormation's back.
    pub fn silent_rollback(&self) -> Option<String> {
        let endpoint = self.endpoint.as_ref().filter(|e| e.status == "InService")?;
        let service = self.service.as_ref().filter(|s| !s.stack.busy())?;
        let believed = self.believed_config()?;
        (endpoint.config != believed && service.stack.status.ends_with("_COMPLETE")).then(|| {
            format!(
                "the endpoint serves {}, not {believed} as its stack says: SageMaker rolled back. It is deployed again under a new name",
                endpoint.config
            )
        })
    }
}
