//! `lambda`: the function in front of the endpoint.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The function in front of the endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lambda {
    /// Whether there is a function.
    pub enabled: bool,
    /// Who may call the Function URL.
    pub url: UrlAuth,
    /// How the Function URL sends pictures. `buffered` where Lambda does not stream responses.
    pub url_mode: UrlMode,
    /// MB.
    #[schemars(range(min = 128, max = 10_240))]
    pub memory: u32,
    /// Seconds, 70 to 900: SageMaker takes up to 60.
    #[schemars(range(min = 70, max = 900))]
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
            url_mode: UrlMode::Stream,
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

/// How the Function URL sends pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UrlMode {
    /// As they are, up to 200 MB.
    #[default]
    Stream,
    /// In one JSON document that Lambda unpacks, up to about 4.5 MB. In every region that has Function URLs.
    Buffered,
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
