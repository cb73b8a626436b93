//! SageMaker, as far as we use it.

use async_trait::async_trait;

use super::Map;
use crate::error::Result;

/// An endpoint as DescribeEndpoint shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name.
    pub name: String,
    /// ARN.
    pub arn: String,
    /// `Creating`, `InService`, ...
    pub status: String,
    /// The live config.
    pub config: String,
    /// Why it failed.
    pub failure: Option<String>,
    /// Variants.
    pub variants: Vec<Variant>,
    /// A pending deployment's variant stages, as `AllTraffic: Creating`.
    pub stage: Option<String>,
}

/// One variant of a live endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variant {
    /// Name.
    pub name: String,
    /// Instances running.
    pub current: Option<i32>,
    /// Instances wanted.
    pub desired: Option<i32>,
    /// `(SpecifiedImage, ResolvedImage)`
    pub images: Vec<(String, String)>,
}

/// An endpoint config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Name.
    pub name: String,
    /// Of the first variant.
    pub instance_type: Option<String>,
    /// Of the first variant.
    pub variant: String,
    /// Of the first variant.
    pub initial_count: Option<i32>,
    /// Of the first variant.
    pub model: Option<String>,
}

/// SageMaker.
#[async_trait]
pub trait Endpoints: Send + Sync {
    /// DescribeEndpoint.
    async fn endpoint(&self, name: &str) -> Result<Option<Endpoint>>;
    /// DescribeEndpointConfig.
    async fn config(&self, name: &str) -> Result<Option<EndpointConfig>>;
    /// ListModels by name, then ListTags: names of models that carry all these tags.
    async fn tagged_models(&self, name_contains: &str, tags: &Map) -> Result<Vec<String>>;
    /// ListEndpointConfigs by name, then ListTags.
    async fn tagged_configs(&self, name_contains: &str, tags: &Map) -> Result<Vec<String>>;
    /// DeleteModel; absent is fine.
    async fn delete_model(&self, name: &str) -> Result<()>;
    /// DeleteEndpointConfig; absent is fine.
    async fn delete_config(&self, name: &str) -> Result<()>;
    /// Instances of this type that the account's endpoints use now.
    async fn instances_in_use(&self, instance_type: &str) -> Result<i64>;
}
