//! What an artifact holds. Its digest is the artifact's identity, and names its key.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::choice::{self, Choice};
use crate::config::{Compression, Packaging};
use crate::error::{Error, Result};
use crate::local::models::ModelTree;

/// Version of the archive's format. It is part of the identity: raise it whenever the same files would give other
/// bytes.
pub(crate) const FORMAT: u32 = 2;

/// What the keys of all artifacts begin with.
pub const PREFIX: &str = "models/";

/// Hex digits of the identity in a key: 96 bits, far from any collision and short enough to read.
const KEY_DIGITS: usize = 24;

/// Name of an archive's index.
pub const INDEX: &str = "index.json";

/// Name of an archive.
pub const ARCHIVE: &str = "model.tar.gz";

/// One file of the artifact. The order of the fields is the canonical one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Path in the artifact.
    pub path: String,
    /// `0644` or `0755`.
    pub mode: String,
    /// Bytes.
    pub size: u64,
    /// Hex.
    pub sha256: String,
    /// How it is kept.
    pub codec: Choice,
}

/// What an artifact holds, sorted by the bytes of the paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the archive's format.
    pub format: u32,
    /// The files.
    pub files: Vec<ManifestFile>,
}

impl Manifest {
    /// The manifest of a scanned tree.
    pub fn of(tree: &ModelTree, compression: Compression) -> Self {
        let files = tree.files.iter().map(|f| ManifestFile {
            path: f.path.clone(),
            mode: format!("{:04o}", f.mode),
            size: f.size,
            sha256: hex::encode(f.sha256),
            codec: choice::of(compression, f.size, f.gain()),
        });
        Manifest { format: FORMAT, files: files.collect() }
    }

    /// The canonical text: JSON without spaces, fields in the order they are declared in.
    pub fn canonical(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::failed("cannot write the content manifest").why(e.to_string()))
    }

    /// Sha256 of the canonical text, 64 hex digits.
    pub fn identity(&self) -> Result<String> {
        Ok(hex::encode(Sha256::digest(self.canonical()?)))
    }

    /// The key of the archive; for uncompressed packaging the prefix of the files, with a `/` at its end.
    pub fn key(&self, packaging: Packaging) -> Result<String> {
        let base = self.base()?;
        Ok(match packaging {
            Packaging::Tar => format!("{base}/{ARCHIVE}"),
            Packaging::Uncompressed => format!("{base}/files/"),
        })
    }

    /// Whether a key is the archive or one of the files of some manifest.
    pub fn has_key(key: &str) -> bool {
        let Some((digits, what)) = key.strip_prefix(PREFIX).and_then(|rest| rest.split_once('/')) else {
            return false;
        };
        let is_base = digits.len() == KEY_DIGITS && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_base && (what == ARCHIVE || what.starts_with("files/"))
    }

    /// The key of the manifest itself, beside the files and not among them: SageMaker downloads all that is under their
    /// prefix. It is written last, so where it is, the artifact is complete.
    pub fn manifest_key(&self) -> Result<String> {
        Ok(format!("{}/manifest.json", self.base()?))
    }

    /// The key of the archive's index ([`super::Index`]), beside the archive.
    pub fn index_key(&self) -> Result<String> {
        Ok(format!("{}/{INDEX}", self.base()?))
    }

    fn base(&self) -> Result<String> {
        Ok(format!("{PREFIX}{}", &self.identity()?[..KEY_DIGITS]))
    }
}
