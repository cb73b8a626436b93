//! `comfy-deploy.yaml`: what can be written in it. Loading, overlays and error reports are in the
//! submodules; this file is the shape alone, and its doc comments are the JSON Schema's descriptions.

pub mod check;
mod endpoint;
mod image;
mod lambda;
pub mod load;
mod models;
pub mod parse;
pub mod problem;
pub mod rules;
pub mod scalar;
mod scaling;
pub mod schema;
pub mod tree;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use endpoint::{Endpoint, Vpc};
pub use image::{Builder, Comfyui, CustomNode, DEFAULT_COMFYUI_REF, Image};
pub use lambda::{Architecture, Lambda, UrlAuth, UrlMode};
pub use models::{Compression, ModelEntry, ModelFile, Models, Packaging};
pub use scaling::{Autoscaling, NoneWord, ScalingGoal, ScheduleEntry};

/// The config file of one app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Version of this file's format.
    #[schemars(range(min = 1, max = 1))]
    pub version: u32,
    /// Name of the app: prefix of every resource, name of the service stack.
    #[schemars(regex(pattern = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"), length(max = 32), extend("patternErrorMessage" = "Allowed: lower-case letters, digits and single hyphens between them, beginning with a letter, at most 32 characters."))]
    pub app: String,
    /// AWS region. There is no default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = REGION_PATTERN), extend("patternErrorMessage" = "Allowed: a region code, as in eu-central-1."))]
    pub region: Option<String>,
    /// Twelve digits, quoted. Checked before anything else, so that nothing lands in the wrong account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]{12}$"), extend("patternErrorMessage" = "Allowed: twelve digits, in quotes."))]
    pub expected_account: Option<String>,
    /// Which ComfyUI goes into the image.
    #[serde(default)]
    pub comfyui: Comfyui,
    /// The inference image.
    #[serde(default)]
    pub image: Image,
    /// The models.
    #[serde(default)]
    pub models: Models,
    /// The SageMaker endpoint.
    #[serde(default)]
    pub endpoint: Endpoint,
    /// Autoscaling of the endpoint.
    #[serde(default)]
    pub autoscaling: Autoscaling,
    /// The function in front of the endpoint.
    #[serde(default)]
    pub lambda: Lambda,
    /// Directory with the workflows (API format, *.json) that are packaged with the function.
    #[serde(default = "default_workflows")]
    #[schemars(length(min = 1))]
    pub workflows: String,
    /// Tags on every resource.
    #[serde(default)]
    #[schemars(extend("propertyNames" = {"minLength": 1, "maxLength": 128, "pattern": "^[^!#$%&'()*,;<>?^`{|}~\\[\\]\\x00-\\x1f]*$", "patternErrorMessage": "Allowed as a tag key: 1 to 128 letters, digits, spaces and _ . : / = + - @."}, "maxProperties" = 45))]
    pub tags: BTreeMap<String, String>,
    /// Where artifacts are kept.
    #[serde(default)]
    pub storage: Storage,
    /// Roles and boundaries.
    #[serde(default)]
    pub iam: Iam,
    /// Termination protection of the stacks; `destroy` refuses until it is off.
    #[serde(default)]
    pub protect: bool,
    /// Overlays: the same sections again, chosen with `--env NAME`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, serde_json::Map<String, serde_json::Value>>")]
    pub environments: BTreeMap<String, serde_yaml::Value>,
}

/// What a region code looks like.
pub const REGION_PATTERN: &str = r"^[a-z]{2}(-[a-z]+)+-[0-9]$";

fn default_workflows() -> String {
    "workflows".into()
}

/// Where artifacts are kept.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// An existing bucket to use; it is never removed. Made by the foundation stack if absent.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$"), length(min = 3, max = 63), extend("patternErrorMessage" = "Allowed: 3 to 63 lower-case letters, digits, dots and hyphens, beginning and ending with a letter or digit."))]
    pub bucket: Option<String>,
    /// Encrypt with this key instead of S3's own.
    #[schemars(regex(pattern = r"^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[0-9a-zA-Z-]+$"), extend("patternErrorMessage" = "Allowed: the ARN of a KMS key, as in arn:aws:kms:eu-west-1:123456789012:key/<id>. An alias is not accepted: a policy cannot name it."))]
    pub kms_key_arn: Option<String>,
}

/// Roles and boundaries.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Iam {
    /// Role that CloudFormation acts with.
    #[schemars(regex(pattern = r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+$"), extend("patternErrorMessage" = "Allowed: the ARN of a role, as in arn:aws:iam::123456789012:role/name."))]
    pub cloudformation_role_arn: Option<String>,
    /// Permissions boundary of the roles that are made.
    #[schemars(regex(pattern = r"^arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/[\w+=,.@/-]+$"), extend("patternErrorMessage" = "Allowed: the ARN of a managed policy, as in arn:aws:iam::123456789012:policy/name."))]
    pub permissions_boundary: Option<String>,
    /// Path of the roles that are made, `/` or `/.../`.
    #[schemars(regex(pattern = r"^/([!-.0-~]+/)*$"), length(max = 512), extend("patternErrorMessage" = "Allowed: / or a path that begins and ends with /, as in /apps/comfy/."))]
    pub role_path: Option<String>,
}
