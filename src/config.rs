//! `comfy-deploy.yaml`: what can be written in it. Loading, overlays and error reports are in the
//! submodules; this file is the shape alone, and its doc comments are the JSON Schema's descriptions.

pub mod check;
pub mod load;
pub mod parse;
pub mod problem;
pub mod rules;
pub mod scalar;
pub mod schema;
pub mod tree;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// Which ComfyUI goes into the image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Comfyui {
    /// A commit of ComfyUI: 40 hex digits.
    #[serde(rename = "ref")]
    #[schemars(regex(pattern = r"^[0-9a-f]{40}$"), extend("patternErrorMessage" = "Allowed: the full commit, 40 hex digits (git rev-parse HEAD). A tag or branch can move, so it is not accepted."))]
    pub git_ref: String,
    /// Custom nodes.
    pub custom_nodes: Vec<CustomNode>,
}

impl Default for Comfyui {
    fn default() -> Self {
        // ComfyUI 0.3.64 of 2025-10-11, the version the container was measured with.
        Comfyui { git_ref: DEFAULT_COMFYUI_REF.into(), custom_nodes: Vec::new() }
    }
}

/// The commit of ComfyUI 0.3.64.
pub const DEFAULT_COMFYUI_REF: &str = "a125cd84b054a57729b5eecab930ca9408719832";

/// One custom node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CustomNode {
    /// Git URL (https).
    #[schemars(regex(pattern = r"^https://[A-Za-z0-9.-]+(:[0-9]+)?/[^\s?#@]+$"), extend("patternErrorMessage" = "Allowed: an https:// URL of a git repository, without user or password."))]
    pub url: String,
    /// Commit: 40 hex digits.
    #[serde(rename = "ref")]
    #[schemars(regex(pattern = r"^[0-9a-f]{40}$"), extend("patternErrorMessage" = "Allowed: the full commit, 40 hex digits (git rev-parse HEAD). A tag or branch can move, so it is not accepted."))]
    pub git_ref: String,
}

/// The inference image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Image {
    /// Build context, relative to the config file.
    #[schemars(length(min = 1))]
    pub context: String,
    /// Dockerfile inside the context.
    #[schemars(length(min = 1))]
    pub dockerfile: String,
    /// Build target.
    pub target: Option<String>,
    /// Build arguments, besides those made from `comfyui`.
    #[schemars(extend("propertyNames" = {"pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$", "patternErrorMessage": "Allowed as a name: letters, digits and underscores, not beginning with a digit."}))]
    pub build_args: BTreeMap<String, String>,
    /// Always linux/amd64 on SageMaker's GPU instances.
    #[schemars(regex(pattern = r"^linux/amd64$"), extend("patternErrorMessage" = "Allowed: linux/amd64. SageMaker has GPU instances of this architecture only."))]
    pub platform: String,
    /// Which container tool builds.
    pub builder: Builder,
    /// ECR repository; the app's name if absent.
    #[schemars(regex(pattern = r"^[a-z0-9]+([._-][a-z0-9]+)*(/[a-z0-9]+([._-][a-z0-9]+)*)*$"), length(min = 2, max = 256), extend("patternErrorMessage" = "Allowed: 2 to 256 lower-case letters and digits, with single . _ - or / between them."))]
    pub repository: Option<String>,
    /// A prebuilt image: `repo:tag`, `repo@sha256:...` or with a registry host in front. Nothing is built then.
    #[schemars(regex(pattern = r"^([a-zA-Z0-9][a-zA-Z0-9.-]*(:[0-9]+)?/)?[a-z0-9]+(([._-]|__)[a-z0-9]+)*(/[a-z0-9]+(([._-]|__)[a-z0-9]+)*)*(:[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})$"), extend("patternErrorMessage" = "Allowed: repository:tag or repository@sha256:<64 hex digits>, with or without a registry host in front."))]
    pub uri: Option<String>,
}

impl Default for Image {
    fn default() -> Self {
        Image {
            context: "image".into(),
            dockerfile: "Dockerfile".into(),
            target: None,
            build_args: BTreeMap::new(),
            platform: "linux/amd64".into(),
            builder: Builder::Auto,
            repository: None,
            uri: None,
        }
    }
}

/// A container tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Builder {
    /// The first of buildx, docker, podman, buildah that works.
    #[default]
    Auto,
    /// `docker buildx build`.
    Buildx,
    /// `docker build` and `docker push`.
    Docker,
    /// `podman build` and `podman push`.
    Podman,
    /// `buildah build` and `buildah push`.
    Buildah,
}

/// The models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Models {
    /// Label of this model version; part of the model's name.
    #[schemars(regex(pattern = r"^[a-zA-Z0-9](-*[a-zA-Z0-9])*$"), extend("patternErrorMessage" = "Allowed: letters and digits, with hyphens between them."))]
    pub version: String,
    /// Directory that becomes the model artifact, relative to the config file.
    #[schemars(length(min = 1))]
    pub dir: String,
    /// Only these files of `dir` (globs); all if empty.
    pub files: Vec<String>,
    /// A model artifact made elsewhere, `s3://bucket/key`. Nothing is packed then.
    #[schemars(regex(pattern = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.+$"), extend("patternErrorMessage" = "Allowed: s3://bucket/key.tar.gz."))]
    pub uri: Option<String>,
    /// How the artifact is published.
    pub packaging: Packaging,
    /// Workflow that every new instance runs before it takes requests, so that nobody waits for the model to load: a file
    /// of `workflows`, or `off`. It travels in the artifact. Without this key workflow_api.json, if there is one.
    #[schemars(length(min = 1))]
    pub warmup: Option<String>,
}

impl Default for Models {
    fn default() -> Self {
        Models {
            version: "v1".into(),
            dir: "models".into(),
            files: Vec::new(),
            uri: None,
            packaging: Packaging::Tar,
            warmup: None,
        }
    }
}

/// How the model artifact is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Packaging {
    /// One model.tar.gz.
    #[default]
    Tar,
    /// The files under one prefix (ModelDataSource, CompressionType None).
    Uncompressed,
}

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
    /// Seconds for download and extraction of the model artifact, 60 to 3600.
    #[schemars(range(min = 60, max = 3600))]
    pub download_timeout: u32,
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
            download_timeout: 1200,
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

/// The function in front of the endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lambda {
    /// Whether there is a function.
    pub enabled: bool,
    /// Who may call the Function URL.
    pub url: UrlAuth,
    /// MB.
    #[schemars(range(min = 128, max = 10_240))]
    pub memory: u32,
    /// Seconds.
    #[schemars(range(min = 1, max = 900))]
    pub timeout: u32,
    /// `x86_64` or `arm64`; that of the binary found if absent.
    pub architecture: Option<Architecture>,
    /// Use this role instead of making one.
    #[schemars(regex(pattern = r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+$"), extend("patternErrorMessage" = "Allowed: the ARN of a role, as in arn:aws:iam::123456789012:role/name."))]
    pub role_arn: Option<String>,
    /// Concurrent executions set aside for the function.
    pub reserved_concurrency: Option<u32>,
}

impl Default for Lambda {
    fn default() -> Self {
        // The limit of SageMaker is 60 s; the rest is for a connect and a clear answer.
        Lambda {
            enabled: true,
            url: UrlAuth::AwsIam,
            memory: 256,
            timeout: 90,
            architecture: None,
            role_arn: None,
            reserved_concurrency: None,
        }
    }
}

/// Who may call the Function URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UrlAuth {
    /// Callers with an identity policy, signed requests.
    #[default]
    AwsIam,
    /// Everybody.
    None,
    /// There is no URL.
    Off,
}

/// A Lambda architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Architecture {
    /// Intel and AMD.
    #[serde(rename = "x86_64")]
    X86_64,
    /// Graviton.
    #[serde(rename = "arm64")]
    Arm64,
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
