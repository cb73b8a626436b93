//! The models directory as a sorted list of regular files with their digests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::error::{Error, Result};
use crate::local::cache::{DigestCache, Stamp};
use crate::progress::{Event, Reporter};

mod digest;
mod remote;
mod sample;
mod walk;

pub(crate) use digest::{changed, read_one};
pub use remote::{RemoteBytes, RemoteFile, Stop, Unread};
pub use sample::gain;

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
#[derive(Debug, Clone)]
pub enum Origin {
    /// On this machine, read once already.
    Disk(OnDisk),
    /// Elsewhere; size and sha256 are those that were locked, and its CRCs are not known before it is read.
    Remote(Arc<dyn RemoteFile>),
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Origin::Disk(a), Origin::Disk(b)) => a == b,
            (Origin::Remote(a), Origin::Remote(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Eq for Origin {}

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
    /// Whole percent that samples of it shrink by; see [`gain`].
    pub gain: u8,
}

impl ModelFile {
    /// A file that is elsewhere; nobody could execute it when it was fetched.
    pub fn remote(path: String, size: u64, sha256: [u8; 32], file: Arc<dyn RemoteFile>) -> Self {
        ModelFile { path, mode: 0o644, size, sha256, origin: Origin::Remote(file) }
    }

    /// Whole percent that samples of it shrink by. Nobody has seen a remote file, and none is compressed.
    pub fn gain(&self) -> u8 {
        match &self.origin {
            Origin::Disk(disk) => disk.gain,
            Origin::Remote(_) => 0,
        }
    }

    /// Whether it is not on this machine.
    pub fn is_remote(&self) -> bool {
        matches!(self.origin, Origin::Remote(_))
    }

    /// The file on this machine.
    #[cfg(test)]
    pub(crate) fn disk(&mut self) -> &mut OnDisk {
        match &mut self.origin {
            Origin::Disk(disk) => disk,
            Origin::Remote(_) => panic!("{} is not on this machine", self.path),
        }
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

/// What of a models directory, and what beside it, becomes the artifact.
#[derive(Debug, Clone, Default)]
pub struct Choice<'a> {
    /// The syntax of .gitignore, `!` excludes, a directory stands for all in it; everything if empty.
    pub globs: &'a [String],
    /// The workflow that becomes [`WARMUP`], unless the directory has that file itself.
    pub warmup: Option<&'a Path>,
    /// Files that are elsewhere. The globs select them as if they were in the directory; one that is there with the same
    /// content is read there.
    pub remote: Vec<ModelFile>,
}

/// Lists and digests the files of `dir`: [`artifact`] with nothing beside it.
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
    artifact(dir, Choice { globs, ..Choice::default() }, cache, rehash, reporter)
}

/// Lists and digests the files of `dir`, with what is chosen beside them.
///
/// Hidden names are left out, but for `.comfy-deploy/warmup.json`. Blocking; run it outside the async threads. New digests
/// are put in `cache`, which the caller saves; `rehash` does not read from it.
///
/// # Errors
/// A missing or empty directory, a glob that selects nothing, a link that leaves the directory, dangles or loops,
/// anything that is neither file nor directory, a name that cannot be published, a file that cannot be read or
/// that changes meanwhile.
pub fn artifact(
    dir: &Path,
    choice: Choice<'_>,
    cache: &mut DigestCache,
    rehash: bool,
    reporter: &dyn Reporter,
) -> Result<ModelTree> {
    let Choice { globs, warmup, remote } = choice;
    let mut elsewhere: BTreeMap<String, ModelFile> = remote.into_iter().map(|file| (file.path.clone(), file)).collect();
    // A directory that nothing was ever fetched into need not be there.
    let mut found = if dir.exists() || elsewhere.is_empty() { walk::walk(dir)? } else { Vec::new() };
    let other = |path: &str| {
        let shown = dir.join(path);
        let text = format!("{} is not what is locked; it is left alone, and its source is read", shown.display());
        reporter.report(Event::Note(text));
        false
    };
    // One of another size has other content, and need not be hashed for that.
    found.retain(|file| match elsewhere.get(&file.path) {
        Some(remote) if remote.size != file.stamp.size => other(&file.path),
        _ => true,
    });
    let here: BTreeSet<String> = found.iter().map(|file| file.path.clone()).collect();
    if found.is_empty() && elsewhere.is_empty() {
        return Err(Error::usage(format!("the models directory {} has no files", dir.display()))
            .why("hidden files do not count")
            .next("put the models in it, for example checkpoints/model.safetensors, or set models.dir or models.uri"));
    }
    let all: Vec<String> = here.iter().chain(elsewhere.keys().filter(|path| !here.contains(*path))).cloned().collect();
    let chosen: BTreeSet<String> = select(all, globs, String::as_str)?.into_iter().collect();
    let mut selected: Vec<_> = found.into_iter().filter(|file| chosen.contains(&file.path)).collect();
    if let Some(warmup) = warmup
        && let Err(place) = selected.binary_search_by(|file| file.path.as_bytes().cmp(WARMUP.as_bytes()))
    {
        selected.insert(place, walk::single(warmup, WARMUP)?);
    }
    let mut tree = match selected.is_empty() {
        true => ModelTree { files: Vec::new(), hashed: 0 },
        false => digest::digest(selected, cache, rehash, reporter)?,
    };
    elsewhere.retain(|path, _| chosen.contains(path));
    // What is here with the locked content is read here.
    tree.files.retain(|file| match elsewhere.get(&file.path) {
        Some(remote) if remote.sha256 != file.sha256 => other(&file.path),
        Some(_) => elsewhere.remove(&file.path).is_some(),
        None => true,
    });
    tree.files.extend(elsewhere.into_values());
    tree.files.sort_unstable_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
    if let Some((file, below)) = name_clash(&tree.files.iter().map(|f| f.path.as_str()).collect()) {
        return Err(Error::usage(format!("{file} is a file, and {below} needs a directory of that name"))
            .next("give one of them another place in models.files (to), or move it in the models directory"));
    }
    for pair in case_collisions(tree.files.iter().map(|f| f.path.as_str())) {
        reporter.report(Event::Warning(format!(
            "{} and {} differ only in upper and lower case; somebody who unpacks the artifact on macOS or Windows loses one",
            pair.0, pair.1
        )));
    }
    Ok(tree)
}

/// The paths of the files of `dir` as [`scan`] would take them, without reading any. Blocking.
///
/// # Errors
/// As [`scan`], but for what only shows when files are read.
pub fn paths(dir: &Path, globs: &[String]) -> Result<Vec<String>> {
    Ok(select(walk::walk(dir)?, globs, |found| &found.path)?.into_iter().map(|found| found.path).collect())
}

/// Keeps what the globs select.
fn select<F>(found: Vec<F>, globs: &[String], path: impl Fn(&F) -> &str) -> Result<Vec<F>> {
    if globs.is_empty() {
        return Ok(found);
    }
    let wants_all = globs.iter().all(|g| g.starts_with('!'));
    let matcher = matcher(globs)?;
    for glob in globs.iter().filter(|g| !g.starts_with('!')) {
        let alone = self::matcher(std::slice::from_ref(glob))?;
        if !found.iter().any(|f| alone.matched_path_or_any_parents(path(f), false).is_ignore()) {
            return Err(Error::usage(format!("models.files: `{glob}` selects no file"))
                .next("correct the pattern (the syntax of .gitignore, relative to models.dir) or remove it"));
        }
    }
    let keep = |f: &F| {
        let verdict = matcher.matched_path_or_any_parents(path(f), false);
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

/// A file that would also have to be a directory, and a file in that: no extractor can make both, and SageMaker refuses
/// them (API reference, S3ModelDataSource). One disk cannot have both, but files of several places can.
pub(crate) fn name_clash<'a>(paths: &BTreeSet<&'a str>) -> Option<(&'a str, &'a str)> {
    let directories = |path: &'a str| path.match_indices('/').map(move |(end, _)| &path[..end]);
    paths.iter().find_map(|&path| Some((directories(path).find(|above| paths.contains(above))?, path)))
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
