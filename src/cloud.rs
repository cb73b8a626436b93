//! Ports to AWS in our own words. Everything outside `cloud/aws` talks to these traits only,
//! so the whole program also runs on a stand-in and each adapter stays small.
//!
//! Every method is one or a few API calls, retries throttling inside the adapter, and returns
//! [`crate::error::Error`] with the service's code and request id kept. Absent things are `None`,
//! never an error.

pub mod aws;
mod calls;
mod endpoints;
#[cfg(test)]
pub(crate) mod fake;
mod identity;
mod images;
mod objects;
pub mod observe;
mod scaling;
mod stacks;

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::error::Result;

pub use calls::{Answer, Calls, UrlCall};
pub use endpoints::{Endpoint, EndpointConfig, Endpoints, Variant};
pub use identity::{Caller, Identity};
pub use images::{Images, Manifest, RegistryLogin, Repository};
pub use objects::{
    BucketState, CopySource, Listed, ObjectHead, ObjectPart, Objects, OpenUpload, PartDone, PutOptions, Uploads,
    Written,
};
pub use scaling::{ScalableTarget, Scaling, Schedule};
pub use stacks::{Change, ChangeRequest, ChangeSetState, Stack, StackEvent, StackResource, Stacks};

/// Tags, or any other string map whose order must not matter.
pub type Map = BTreeMap<String, String>;

/// All ports of one account and region, as `main` connected them.
pub struct Cloud {
    /// STS.
    pub identity: Box<dyn Identity>,
    /// S3.
    pub objects: std::sync::Arc<dyn Objects>,
    /// ECR.
    pub images: Box<dyn Images>,
    /// CloudFormation.
    pub stacks: Box<dyn Stacks>,
    /// SageMaker.
    pub endpoints: Box<dyn Endpoints>,
    /// Application Auto Scaling.
    pub scaling: Box<dyn Scaling>,
    /// CloudWatch Logs.
    pub logs: Box<dyn Logs>,
    /// Service Quotas.
    pub quotas: Box<dyn Quotas>,
    /// The Function URL and the endpoint's own API.
    pub serving: Box<dyn Calls>,
    /// How many API requests were sent since the start, retries included.
    pub calls: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

/// CloudWatch Logs.
#[async_trait]
pub trait Logs: Send + Sync {
    /// The newest lines of a group, oldest first; `None` when there is no such group.
    async fn tail(&self, group: &str, limit: usize) -> Result<Option<Vec<String>>>;
    /// PutRetentionPolicy; `false` when there is no such group.
    async fn set_retention(&self, group: &str, days: i32) -> Result<bool>;
    /// DeleteLogGroup; absent is fine.
    async fn delete_group(&self, group: &str) -> Result<()>;
}

/// Service Quotas.
#[async_trait]
pub trait Quotas: Send + Sync {
    /// The value of `<type> for endpoint usage`; `None` where the service or the quota is unknown.
    async fn endpoint_usage(&self, instance_type: &str) -> Result<Option<f64>>;
}
