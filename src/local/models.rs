//! The models directory as a sorted list of regular files with their digests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::error::{Error, Result};
use crate::local::cache::{DigestCache, Stamp};
use crate::progress::{Event, Reporter};

mod digest;
mod walk;

pub(crate) use digest::{changed, read_one};

/// Longest name of one file or directory, in bytes; SageMaker refuses longer ones
/// (API reference, S3ModelDataSource).
const NAME_MAX: usize = 255;

/// Longest path inside the directory, in bytes. An S3 key has at most 1,024, and `models/<24 hex>/files/` stands
/// before the path when the files are published one by one.
const PATH_MAX: usize = 900;

/// One file of the model artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// Path inside the artifact, with `/`.
    pub path: String,
    /// 0o755 if the owner may execute the file, else 0o644.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// What is in it.
    pub sha256: [u8; 32],
    /// Where its bytes are.
    pub origin: Origin,
}

/// Where the bytes of a file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// On this machine, read once already.
    Disk(OnDisk),
}

/// A file of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnDisk {
    /// Absolute, links resolved.
    pub source: PathBuf,
    /// The state of the file that the checksums belong to.
    pub stamp: Stamp,
    /// CRC-32 of gzip.
    pub crc32: u32,
    /// CRC-64/NVME.
    pub crc64nvme: u64,
}

#[cfg(test)]
impl ModelFile {
    /// The file on this machine.
    pub(crate) fn disk(&mut self) -> &mut OnDisk {
        let Origin::Disk(disk) = &mut self.origin;
        disk
    }
}

/// The files of a model artifact, sorted by the bytes of their paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelTree {
    /// At least one.
    pub files: Vec<ModelFile>,
    /// Bytes that had to be read; 0 if the cache knew every file.
    pub hashed: u64,
}

impl ModelTree {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }
}

/// Where the container looks for the workflow that it runs once before it reports healthy. The only hidden file that
/// belongs to the artifact.
pub const WARMUP: &str = ".comfy-deploy/warmup.json";

/// Lists and digests the files of `dir`: [`artifact`] without a warm-up workflow.
///
/// # Errors
/// As there.
pub fn scan(
    dir: &Path,
    globs: &[String],
    cache: &mut DigestCache,
    rehash: bool,
    reporter: &dyn Reporter,
) -> Result<ModelTree> {
    artifact(dir, globs, None, cache, rehash, reporter)
}

/// Lists and digests the files of `dir`, and `warmup` as [`WARMUP`] unless `dir` has that file itself.
///
/// Hidden names are left out, but for `.comfy-deploy/warmup.json`. With `globs` (the syntax of .gitignore, `!` excludes,
/// a directory stands for all in it) only the files they select are taken. Blocking; run it outside the async threads.
/// New digests are put in `cache`, which the caller saves; `rehash` does not read from it.
///
/// # Errors
/// A missing or empty directory, a glob that selects nothing, a link that leaves the directory, dangles or loops,
/// anything that is neither file nor directory, a name that cannot be published, a file that cannot be read or
/// that changes meanwhile.
pub fn artifact(
    dir: &Path,
    globs: &[String],
    warmup: Option<&Path>,
    cache: &mut DigestCache,
    rehash: bool,
    reporter: &dyn Reporter,
) -> Result<ModelTree> {
    let found = walk::walk(dir)?;
    if found.is_empty() {
        return Err(Error::usage(format!("the models directory {} has no files", dir.display()))
            .why("hidden files do not count")
            .next("put the models in it, for example checkpoints/model.safetensors, or set models.dir or models.uri"));
    }
    let mut selected = select(found, globs)?;
    if let Some(warmup) = warmup
        && let Err(place) = selected.binary_search_by(|file| file.path.as_bytes().cmp(WARMUP.as_bytes()))
    {
        selected.insert(place, walk::single(warmup, WARMUP)?);
    }
    for pair in case_collisions(selected.iter().map(|f| f.path.as_str())) {
        reporter.report(Event::Warning(format!(
            "{} and {} differ only in upper and lower case; somebody who unpacks the artifact on macOS or Windows loses one",
            pair.0, pair.1
        )));
    }
    digest::digest(selected, cache, rehash, reporter)
}

/// The paths of the files of `dir` as [`scan`] would take them, without reading any. Blocking.
///
/// # Errors
/// As [`scan`], but for what only shows when files are read.
pub fn paths(dir: &Path, globs: &[String]) -> Result<Vec<String>> {
    Ok(select(walk::walk(dir)?, globs)?.into_iter().map(|found| found.path).collect())
}

/// Keeps what the globs select.
fn select(found: Vec<walk::Found>, globs: &[String]) -> Result<Vec<walk::Found>> {
    if globs.is_empty() {
        return Ok(found);
    }
    let wants_all = globs.iter().all(|g| g.starts_with('!'));
    let matcher = matcher(globs)?;
    for glob in globs.iter().filter(|g| !g.starts_with('!')) {
        let alone = self::matcher(std::slice::from_ref(glob))?;
        if !found.iter().any(|f| alone.matched_path_or_any_parents(&f.path, false).is_ignore()) {
            return Err(Error::usage(format!("models.files: `{glob}` selects no file"))
                .next("correct the pattern (the syntax of .gitignore, relative to models.dir) or remove it"));
        }
    }
    let keep = |f: &walk::Found| {
        let verdict = matcher.matched_path_or_any_parents(&f.path, false);
        verdict.is_ignore() || (wants_all && verdict.is_none())
    };
    let selected: Vec<_> = found.into_iter().filter(keep).collect();
    if selected.is_empty() {
        return Err(
            Error::usage("models.files selects no file at all").next("remove the patterns that exclude too much")
        );
    }
    Ok(selected)
}

fn matcher(globs: &[String]) -> Result<Gitignore> {
    let bad = |glob: &str, e: ignore::Error| {
        Error::usage(format!("models.files: `{glob}` is not a valid pattern"))
            .why(e.to_string())
            .next("see gitignore(5)")
    };
    // The paths that are matched are relative, so the root is too.
    let mut builder = GitignoreBuilder::new("");
    for glob in globs {
        builder.add_line(None, glob).map_err(|e| bad(glob, e))?;
    }
    builder.build().map_err(|e| bad(&globs.join(" "), e))
}

/// Paths that are the same when case is ignored.
fn case_collisions<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<(&'a str, &'a str)> {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    paths.filter_map(|path| seen.insert(path.to_lowercase(), path).map(|first| (first, path))).collect()
}

/// Why a path cannot be published, or nothing.
fn name_problem(path: &str) -> Option<String> {
    let too_long = path.split('/').find(|name| name.len() > NAME_MAX);
    if let Some(name) = too_long {
        Some(format!("a name in it has {} bytes; SageMaker takes at most {NAME_MAX}", name.len()))
    } else if path.len() > PATH_MAX {
        Some(format!("the path has {} bytes; at most {PATH_MAX} fit into an S3 key", path.len()))
    } else if path.starts_with('/') {
        Some("the path is absolute".into())
    } else if path.split('/').any(|name| matches!(name, "" | "." | "..")) {
        Some("the path has an empty name, `.` or `..` in it".into())
    } else if path.chars().any(char::is_control) {
        Some("the name has a line break or another control character in it".into())
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
