//! Which files a models directory holds.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{WARMUP, name_problem};
use crate::error::{Error, Result};
use crate::local::cache::Stamp;

/// A regular file.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: String,
    pub(super) source: PathBuf,
    pub(super) mode: u32,
    pub(super) stamp: Stamp,
}

/// Every file below `dir`, sorted by the bytes of its path.
pub(super) fn walk(dir: &Path) -> Result<Vec<Found>> {
    let root = match dir.canonicalize() {
        Ok(root) => root,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::usage(format!("there is no models directory {}", dir.display()))
                .next("create it, or set models.dir to another directory or models.uri to an artifact in S3"));
        }
        Err(e) => return Err(unreadable(dir, &e)),
    };
    if !root.is_dir() {
        return Err(Error::usage(format!("{} is not a directory", dir.display())).next("set models.dir to a directory"));
    }
    let mut walk = Walk { shown: dir, root: &root, above: vec![root.clone()], found: Vec::new() };
    walk.directory(&root, "")?;
    let mut found = walk.found;
    found.sort_unstable_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
    Ok(found)
}

/// One file from anywhere, under a path in the artifact.
pub(super) fn single(source: &Path, path: &str) -> Result<Found> {
    let file = source.canonicalize().and_then(|file| Ok((std::fs::metadata(&file)?, file)));
    let (meta, source) = file.map_err(|e| unreadable(source, &e))?;
    Ok(Found { path: path.to_owned(), source, mode: 0o644, stamp: Stamp::of(&meta) })
}

struct Walk<'a> {
    /// The directory as the user wrote it, for messages.
    shown: &'a Path,
    root: &'a Path,
    /// The directories we are in, resolved: a link to one of them would never end.
    above: Vec<PathBuf>,
    found: Vec<Found>,
}

impl Walk<'_> {
    /// `inside` is the path of `dir` in the artifact, empty or with a `/` at its end.
    fn directory(&mut self, dir: &Path, inside: &str) -> Result<()> {
        let shown = self.shown.join(inside);
        for entry in std::fs::read_dir(dir).map_err(|e| unreadable(&shown, &e))? {
            let entry = entry.map_err(|e| unreadable(&shown, &e))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                if name.as_encoded_bytes().starts_with(b".") {
                    continue;
                }
                return Err(bad_name(&shown.join(&name), "the name is not UTF-8"));
            };
            let path = format!("{inside}{name}");
            if name.starts_with('.') && path != ".comfy-deploy" {
                continue;
            }
            if inside == ".comfy-deploy/" && path != WARMUP {
                continue;
            }
            if let Some(problem) = name_problem(&path) {
                return Err(bad_name(&self.shown.join(&path), &problem));
            }
            self.entry(&entry.path(), path)?;
        }
        Ok(())
    }

    fn entry(&mut self, source: &Path, path: String) -> Result<()> {
        let shown = self.shown.join(&path);
        let own = std::fs::symlink_metadata(source).map_err(|e| unreadable(&shown, &e))?;
        let (source, meta) = if own.is_symlink() { self.follow(source, &shown)? } else { (source.to_owned(), own) };
        let kind = meta.file_type();
        if kind.is_dir() {
            if self.above.contains(&source) {
                return Err(Error::usage(format!("{} is a link to a directory that it is in", shown.display()))
                    .why("following it would never end")
                    .next("remove the link"));
            }
            self.above.push(source.clone());
            self.directory(&source, &format!("{path}/"))?;
            self.above.pop();
        } else if kind.is_file() {
            let mode = if meta.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 };
            self.found.push(Found { path, source, mode, stamp: Stamp::of(&meta) });
        } else {
            let what = match () {
                () if kind.is_fifo() => "a named pipe",
                () if kind.is_socket() => "a socket",
                () if kind.is_block_device() || kind.is_char_device() => "a device",
                () => "neither file nor directory",
            };
            return Err(Error::usage(format!("{} is {what}", shown.display()))
                .why("a model artifact holds regular files only")
                .next("move it out of the models directory"));
        }
        Ok(())
    }

    /// Where a link leads, if that is inside the directory.
    fn follow(&self, link: &Path, shown: &Path) -> Result<(PathBuf, Metadata)> {
        let to = || std::fs::read_link(link).map_or_else(|_| "?".into(), |to| to.display().to_string());
        let target = link.canonicalize().map_err(|e| {
            let what = match e.kind() {
                std::io::ErrorKind::NotFound => "leads nowhere",
                // ELOOP; its ErrorKind has no stable name.
                _ if e.raw_os_error() == Some(libc::ELOOP) => "leads to itself",
                _ => "cannot be followed",
            };
            Error::usage(format!("the link {} -> {} {what}", shown.display(), to()))
                .why(e.to_string())
                .next("remove the link, or put the file in its place")
        })?;
        if !target.starts_with(self.root) {
            return Err(Error::usage(format!("the link {} -> {} leaves the models directory", shown.display(), to()))
                .why("only what is inside the directory is published")
                .next("copy the file in (cp --reflink=auto), or hard-link it"));
        }
        let meta = std::fs::metadata(&target).map_err(|e| unreadable(shown, &e))?;
        Ok((target, meta))
    }
}

fn unreadable(path: &Path, e: &std::io::Error) -> Error {
    Error::io("read", path, e).next("make it readable for this user, or move it out of the models directory")
}

fn bad_name(path: &Path, why: &str) -> Error {
    // Debug quotes line breaks and bytes that are not UTF-8, which would garble the message.
    Error::usage(format!("{path:?} cannot be published")).why(why).next("rename it")
}
