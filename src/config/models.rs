//! `models`: the files, where they come from, and how the artifact is published.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// What the artifact holds: files to fetch (`hf://`, `civitai:`, `https://`, `s3://`, or a local path with `to`), and
    /// patterns that pick files of `dir` in the syntax of .gitignore. All of `dir` if empty.
    pub files: Vec<ModelEntry>,
    /// A model artifact made elsewhere, `s3://bucket/key`. Nothing is packed then.
    #[schemars(regex(pattern = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.+$"), extend("patternErrorMessage" = "Allowed: s3://bucket/key.tar.gz."))]
    pub uri: Option<String>,
    /// How the artifact is published.
    pub packaging: Packaging,
    /// Which files of a model.tar.gz are compressed. Weights hardly shrink, and every instance pays for unpacking them.
    pub compression: Compression,
    /// Whether declared files of more than 32 MiB go from their source straight into the upload and are never kept in `dir`.
    /// They do without this too if the disk has no room for them, but not with `compression: fast` or `best`.
    pub stream: bool,
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
            compression: Compression::Auto,
            stream: false,
            warmup: None,
        }
    }
}

impl Models {
    /// What applies: files that are published as they are, are not compressed.
    pub fn compression(&self) -> Compression {
        match self.packaging {
            Packaging::Tar => self.compression,
            Packaging::Uncompressed => Compression::None,
        }
    }
}

/// One entry of `models.files`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ModelEntry {
    /// A source whose folder shows from its path, or a pattern for files of `models.dir`.
    Text(#[schemars(length(min = 1))] String),
    /// A source and where it goes.
    File(ModelFile),
}

impl From<&str> for ModelEntry {
    fn from(text: &str) -> Self {
        ModelEntry::Text(text.to_owned())
    }
}

/// A model file and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// `hf://owner/repo/path@revision`, `civitai:VERSION_ID`, a URL, `s3://bucket/key`, or a path relative to this file.
    #[schemars(length(min = 1))]
    pub source: String,
    /// Folder in `models.dir` with `/` at its end (`checkpoints/`), or the path with the file's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub to: Option<String>,
    /// What its content must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{64}$"), extend("patternErrorMessage" = "Allowed: a sha256, 64 lower-case hex digits."))]
    pub sha256: Option<String>,
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

/// Which files of a model.tar.gz are compressed, and how hard. Another setting is another artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Text and other files of at most 32 MiB that shrink to half; weights and pictures are stored.
    #[default]
    Auto,
    /// No file.
    None,
    /// Every file that shrinks by some percent, quickly.
    Fast,
    /// Every file that shrinks by some percent, as far as it goes.
    Best,
    /// Whatever finishes first on this machine and its uplink, which is measured on the first parts.
    Adaptive,
}

impl Compression {
    /// Whether bytes of every file must have been seen before it is clear how it is kept, so that none can be streamed.
    pub fn looks_at_every_file(self) -> bool {
        matches!(self, Compression::Fast | Compression::Best)
    }
}
