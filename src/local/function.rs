//! The function package: the handler binary and the workflows, as a zip in memory that is the same on every machine.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::config::Architecture;
use crate::error::{Error, Result};

mod binary;
mod handler;
mod workflows;

pub use handler::{Handler, build_handler, checkout, find_handler};
pub use workflows::{DEFAULT_WORKFLOW, Workflow, workflows};

/// Most bytes of a function's unzipped code (Lambda quotas). The 50 MB for the zip hold for uploads through the Lambda
/// API only, not for those through S3.
const UNZIPPED_MAX: usize = 250 << 20;
/// Bytes of a zip beyond which the binary is not one that was built for Lambda, which fetches the package for every new
/// process. A build with the profile for it has 4.1 MB.
const ZIP_EXPECTED: usize = 6_000_000;

/// Hex digits of the sha256 in the key.
const KEY_DIGITS: usize = 24;

/// A function package.
#[derive(Debug, Clone)]
pub struct FunctionPackage {
    /// The zip file.
    pub zip: Bytes,
    /// Its sha256, hex.
    pub sha256: String,
    /// `functions/<24 hex>/function.zip`
    pub key: String,
    /// What the handler was built for.
    pub architecture: Architecture,
    /// Names of the workflows in it, sorted.
    pub workflows: Vec<String>,
    /// The handler that was packed.
    pub handler: PathBuf,
}

impl FunctionPackage {
    /// Said before a package goes to AWS that is larger than it need be.
    pub fn warning(&self) -> Option<String> {
        (self.zip.len() > ZIP_EXPECTED).then(|| {
            format!(
                "the function package has {} MB, for {} is not stripped or optimised: Lambda starts it later than it could \
                 (cargo build --profile function -p comfy-handler makes a small one, --handler FILE names it)",
                self.zip.len() / 1_000_000,
                self.handler.display()
            )
        })
    }
}

/// Makes the package of a handler binary and a directory of workflows. `architecture` is what the config asks for, if
/// it does. Blocking.
///
/// # Errors
/// A binary that cannot run on Lambda, a workflow that is not in API format, a missing default workflow, or more than
/// 250 MB.
pub fn package(handler: &Path, workflows_dir: &Path, architecture: Option<Architecture>) -> Result<FunctionPackage> {
    let bootstrap = std::fs::read(handler)
        .map_err(|e| Error::io("read", handler, &e).next("name a comfy-handler binary with --handler FILE"))?;
    let architecture = binary::check(handler, &bootstrap, architecture)?;
    let workflows = workflows(workflows_dir)?;
    let unzipped = bootstrap.len() + workflows.iter().map(|w| w.text.len()).sum::<usize>();
    if unzipped > UNZIPPED_MAX {
        return Err(Error::usage(format!("the function package has {} MB unzipped", unzipped >> 20))
            .why(format!("Lambda takes at most {} MB", UNZIPPED_MAX >> 20))
            .next("use a release build of comfy-handler (it is stripped), or fewer workflows"));
    }
    let zip = zip(&bootstrap, &workflows)?;
    let sha256 = hex::encode(Sha256::digest(&zip));
    Ok(FunctionPackage {
        key: format!("functions/{}/function.zip", &sha256[..KEY_DIGITS]),
        zip: zip.into(),
        sha256,
        architecture,
        workflows: workflows.into_iter().map(|w| w.name).collect(),
        handler: handler.to_owned(),
    })
}

/// Entries in a fixed order, with a fixed time and fixed modes.
fn zip(bootstrap: &[u8], workflows: &[Workflow]) -> Result<Vec<u8>> {
    let failed = |e: zip::result::ZipError| Error::failed("cannot make the function package").why(e.to_string());
    let options = |mode| {
        SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(DateTime::default()) // 1980-01-01, the earliest that zip knows
            .unix_permissions(mode)
    };
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut add = |name: String, bytes: &[u8], mode| {
        zip.start_file(name, options(mode))?;
        zip.write_all(bytes).map_err(zip::result::ZipError::Io)
    };
    add("bootstrap".into(), bootstrap, 0o755).map_err(failed)?;
    for workflow in workflows {
        add(format!("workflows/{}", workflow.name), workflow.text.as_bytes(), 0o644).map_err(failed)?;
    }
    Ok(zip.finish().map_err(failed)?.into_inner())
}

#[cfg(test)]
mod tests;
