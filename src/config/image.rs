//! `comfyui` and `image`: what the inference image is made of.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
