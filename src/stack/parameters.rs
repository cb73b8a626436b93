//! Parameters of both templates from settings and artifacts.

use crate::cloud::Map;
use crate::config::{Architecture, Packaging, ScalingGoal, UrlAuth, UrlMode};
use crate::settings::Settings;

/// Where the model artifact is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelData {
    /// Bucket.
    pub bucket: String,
    /// Key of the archive, or the prefix ending in `/`.
    pub key: String,
    /// Which of the two `key` is.
    pub packaging: Packaging,
}

/// What was built and uploaded, as the service stack refers to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifacts {
    /// The deployment bucket.
    pub bucket: String,
    /// The model artifact.
    pub model: ModelData,
    /// `repo@sha256:...` or `repo:tag`, without a host.
    pub image: String,
    /// The registry's host; empty for ECR of this account and region.
    pub registry: String,
    /// Key of the function package; none when there is no function.
    pub function_key: Option<String>,
    /// Architecture of the function package.
    pub architecture: Architecture,
    /// Seconds that an instance may take to download and extract the model artifact.
    pub download_timeout: u32,
}

/// Name of the deployment bucket: the adopted one, or `app-account-region`.
pub fn bucket_name(settings: &Settings, account: &str) -> String {
    match &settings.config.storage.bucket {
        Some(bucket) => bucket.clone(),
        None => format!("{}-{account}-{}", settings.config.app, settings.region),
    }
}

/// Every parameter of the foundation template.
pub fn foundation_parameters(settings: &Settings, account: &str) -> Map {
    let config = &settings.config;
    map([
        ("AppName", config.app.clone()),
        ("CreateBucket", config.storage.bucket.is_none().to_string()),
        ("BucketName", bucket_name(settings, account)),
        ("KmsKeyArn", config.storage.kms_key_arn.clone().unwrap_or_default()),
        ("RepositoryName", settings.repository().to_owned()),
    ])
}

/// Every parameter of the service template. `RetainDesiredCount` and the version are those of a new stack
/// until [`super::settle`] has seen what is deployed.
pub fn service_parameters(settings: &Settings, artifacts: &Artifacts, model_version: &str) -> Map {
    let config = &settings.config;
    let (endpoint, scaling, lambda) = (&config.endpoint, &config.autoscaling, &config.lambda);
    let target = match scaling.target {
        ScalingGoal::Concurrency(target) => Some(target),
        ScalingGoal::Off(_) => None,
    };
    let mut parameters = map([
        ("AppName", settings.stack()),
        ("DeploymentBucket", artifacts.bucket.clone()),
        ("KmsKeyArn", config.storage.kms_key_arn.clone().unwrap_or_default()),
        ("ModelVersion", model_version.to_owned()),
        ("ModelEcrImage", artifacts.image.clone()),
        ("ModelEcrRegistry", artifacts.registry.clone()),
        ("RepositoryName", repository_of(&artifacts.image).to_owned()),
        ("SageMakerInstanceType", endpoint.instance_type.clone()),
        ("InitialInstanceCount", endpoint.instances.to_string()),
        ("RetainDesiredCount", true.to_string()),
        ("VolumeSizeInGB", endpoint.volume_gb.unwrap_or(0).to_string()),
        ("InferenceAmiVersion", endpoint.inference_ami_version.clone().unwrap_or_default()),
        ("ModelDataDownloadTimeout", artifacts.download_timeout.to_string()),
        ("ContainerStartupTimeout", endpoint.startup_timeout.to_string()),
        ("NetworkIsolation", endpoint.network_isolation.to_string()),
        ("SageMakerAutoScaling", scaling.enabled.to_string()),
        ("MinCapacity", scaling.min.to_string()),
        ("MaxCapacity", scaling.max.to_string()),
        ("ScalingPolicy", target.is_some().to_string()),
        ("TargetConcurrency", target.unwrap_or(1.0).to_string()),
        ("ScaleOutCooldown", scaling.scale_out_cooldown.to_string()),
        ("ScaleInCooldown", scaling.scale_in_cooldown.to_string()),
        ("LambdaPackageS3Key", artifacts.function_key.clone().unwrap_or_default()),
        (
            "LambdaUrlAuthType",
            match lambda.url {
                UrlAuth::AwsIam => "AWS_IAM",
                UrlAuth::None => "NONE",
                UrlAuth::Off => "OFF",
            }
            .to_owned(),
        ),
        (
            "LambdaUrlMode",
            match lambda.url_mode {
                UrlMode::Stream => "stream",
                UrlMode::Buffered => "buffered",
            }
            .to_owned(),
        ),
        (
            "LambdaArchitecture",
            match artifacts.architecture {
                Architecture::X86_64 => "x86_64",
                Architecture::Arm64 => "arm64",
            }
            .to_owned(),
        ),
        ("LambdaMemory", lambda.memory.to_string()),
        ("LambdaTimeout", lambda.timeout.to_string()),
        ("LambdaReservedConcurrency", lambda.reserved_concurrency.map_or("-1".to_owned(), |n| n.to_string())),
        ("LogRetentionInDays", LOG_RETENTION_DAYS.to_string()),
        ("ExecutionRoleArn", endpoint.execution_role_arn.clone().unwrap_or_default()),
        ("LambdaRoleArn", lambda.role_arn.clone().unwrap_or_default()),
        ("RolePath", config.iam.role_path.clone().unwrap_or_else(|| "/".to_owned())),
        ("PermissionsBoundary", config.iam.permissions_boundary.clone().unwrap_or_default()),
    ]);
    parameters.extend(model_parameters(&artifacts.model, &artifacts.bucket));
    parameters
}

/// The parameters that say where the model artifact is and what the execution role may read of its bucket.
/// `deployment_bucket` is the stack's `DeploymentBucket`.
pub fn model_parameters(model: &ModelData, deployment_bucket: &str) -> Map {
    let packaging = match model.packaging {
        Packaging::Tar => "tar",
        Packaging::Uncompressed => "uncompressed",
    };
    map([
        ("ModelDataBucket", if model.bucket == deployment_bucket { String::new() } else { model.bucket.clone() }),
        ("ModelDataS3Key", model.key.clone()),
        ("ModelDataPrefix", readable_prefix(model)),
        ("ModelPackaging", packaging.to_owned()),
    ])
}

/// Days that logs are kept, the function's and the endpoint's.
pub const LOG_RETENTION_DAYS: i32 = 30;

fn map<const N: usize>(entries: [(&str, String); N]) -> Map {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What the execution role may read. All of `models/` for artifacts that were published there, so that the
/// role does not change with every version and an endpoint that is being replaced can still scale out; else
/// the directory of the artifact. Cut at the first character that a policy would take for a wildcard.
fn readable_prefix(model: &ModelData) -> String {
    const PUBLISHED: &str = "models/";
    let directory = if model.key.starts_with(PUBLISHED) {
        PUBLISHED
    } else {
        match model.key.rfind('/') {
            Some(slash) => &model.key[..=slash],
            None => &model.key,
        }
    };
    directory.split(['*', '?']).next().unwrap_or_default().to_owned()
}

/// The repository of `repo:tag` or `repo@sha256:...`; there is no host and so no port in it.
fn repository_of(image: &str) -> &str {
    image.split(['@', ':']).next().unwrap_or(image)
}
