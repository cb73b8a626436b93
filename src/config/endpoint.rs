//! `endpoint`: the SageMaker endpoint.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The SageMaker endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Endpoint {
    /// `ml.<family>.<size>`.
    #[schemars(regex(pattern = r"^ml\.[a-z0-9-]+\.[a-z0-9]+$"), extend("patternErrorMessage" = "Allowed: ml.<family>.<size>, as in ml.g5.xlarge."))]
    pub instance_type: String,
    /// Instances at the start, and always when autoscaling is off.
    #[schemars(range(min = 1))]
    pub instances: u32,
    /// EBS volume, 1 to 512 GB. Only for instance types without local NVMe.
    #[schemars(range(min = 1, max = 512))]
    pub volume_gb: Option<u32>,
    /// Seconds for download and extraction of the model artifact, 60 to 3600. If absent, by the artifact's size: three for
    /// every 100 MB, and 1200 at least.
    #[schemars(range(min = 60, max = 3600))]
    pub download_timeout: Option<u32>,
    /// Seconds until the container must answer /ping, 60 to 3600.
    #[schemars(range(min = 60, max = 3600))]
    pub startup_timeout: u32,
    /// No network calls in or out of the container.
    pub network_isolation: bool,
    /// Subnets and security groups.
    pub vpc: Option<Vpc>,
    /// Environment of the container; a value has at most 1,024 bytes.
    #[schemars(extend("propertyNames" = {"pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$", "maxLength": 1024, "patternErrorMessage": "Allowed as a name: letters, digits and underscores, not beginning with a digit."}, "maxProperties" = 100))]
    pub environment: BTreeMap<String, String>,
    /// AMI with the right driver for the image's CUDA, e.g. al2-ami-sagemaker-inference-gpu-3-1.
    #[schemars(regex(pattern = r"^[a-zA-Z0-9]+(-[a-zA-Z0-9]+)*$"), extend("patternErrorMessage" = "Allowed: the name of an AMI version, as in al2-ami-sagemaker-inference-gpu-3-1."))]
    pub inference_ami_version: Option<String>,
    /// Use this role instead of making one.
    #[schemars(regex(pattern = r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+$"), extend("patternErrorMessage" = "Allowed: the ARN of a role, as in arn:aws:iam::123456789012:role/name."))]
    pub execution_role_arn: Option<String>,
}

impl Default for Endpoint {
    fn default() -> Self {
        Endpoint {
            instance_type: "ml.g5.xlarge".into(),
            instances: 1,
            volume_gb: None,
            download_timeout: None,
            startup_timeout: 600,
            network_isolation: true,
            vpc: None,
            environment: BTreeMap::new(),
            inference_ami_version: None,
            execution_role_arn: None,
        }
    }
}

/// Subnets and security groups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Vpc {
    /// At least two, in two zones.
    #[schemars(length(min = 2, max = 16), extend("items" = {"type": "string", "pattern": "^subnet-[0-9a-f]{8,17}$", "patternErrorMessage": "Allowed: a subnet id: subnet- and 8 to 17 hex digits."}))]
    pub subnets: Vec<String>,
    /// At least one.
    #[schemars(length(min = 1, max = 5), extend("items" = {"type": "string", "pattern": "^sg-[0-9a-f]{8,17}$", "patternErrorMessage": "Allowed: a security group id: sg- and 8 to 17 hex digits."}))]
    pub security_groups: Vec<String>,
}
