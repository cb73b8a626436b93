//! The inference image's build context, and the tag that follows from its content.
//!
//! The tag is known before anything is built, so that an image that is in the registry already needs
//! no container tool. It covers what decides the result of a build and nothing else: no modification
//! times, no owners, no account, region or repository.

mod ignorefile;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::config::{Comfyui, Image};
use crate::error::{Error, Result};
use ignorefile::IgnoreFile;

/// Changes whenever the meaning of the hash does; then every image is built once more.
const FORMAT: &str = "comfy-deploy image 1";
/// The context that is worth a warning, in bytes: 100 MB is far more than a Dockerfile and its scripts need, and
/// far less than one checkpoint.
const LARGE_CONTEXT: u64 = 100_000_000;
/// Build argument with the commit of ComfyUI.
pub const ARG_REF: &str = "COMFYUI_GIT_REF";
/// Build argument with the custom nodes, `url@commit` separated by spaces.
pub const ARG_NODES: &str = "COMFYUI_CUSTOM_NODES";

/// Everything a build needs, and its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageContext {
    /// `c-` and 24 hex digits.
    pub tag: String,
    /// The context directory.
    pub dir: PathBuf,
    /// The Dockerfile, inside `dir`.
    pub dockerfile: PathBuf,
    /// The ignore file that was applied, if there is one.
    pub ignore_file: Option<PathBuf>,
    /// Build arguments, those made from `comfyui` included.
    pub build_args: BTreeMap<String, String>,
    /// Build target.
    pub target: Option<String>,
    /// `linux/amd64`.
    pub platform: String,
    /// Files and links that are sent to the builder.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl ImageContext {
    /// What to say when the context is suspiciously large: somebody's models are usually in it.
    pub fn warning(&self) -> Option<String> {
        (self.bytes > LARGE_CONTEXT).then(|| {
            format!(
                "the build context {} has {} MB in {} files; every build sends and hashes them. List in {} what the image \
                 does not need (models belong into models.dir)",
                self.dir.display(),
                self.bytes / 1_000_000,
                self.files,
                self.ignore_file.clone().unwrap_or_else(|| self.dir.join(".dockerignore")).display(),
            )
        })
    }
}

/// Reads the build context below `root` (the config file's directory) and computes the image's tag.
///
/// Blocking: it reads every file of the context.
///
/// # Errors
/// A missing context or Dockerfile, a Dockerfile outside the context, an unreadable file, a pattern of the ignore
/// file that is not one, a build argument that is set twice.
pub fn context(root: &Path, image: &Image, comfyui: &Comfyui) -> Result<ImageContext> {
    let dir = root.join(&image.context);
    match fs::metadata(&dir) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => {
            return Err(Error::usage(format!("the build context {} is not a directory", dir.display()))
                .next("set image.context to the directory that holds the Dockerfile"));
        }
        Err(cause) if cause.kind() == ErrorKind::NotFound => {
            return Err(Error::usage(format!("there is no build context {}", dir.display())).next(
                "set image.context to the directory that holds the Dockerfile, or image.uri to an image that is built \
                 already",
            ));
        }
        Err(cause) => return Err(Error::io("read", &dir, &cause)),
    }
    let inside =
        Path::new(&image.dockerfile).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !inside || image.dockerfile.is_empty() {
        return Err(Error::usage(format!("image.dockerfile is \"{}\"", image.dockerfile))
            .why("it must be a path inside the build context, without `..`"));
    }
    let dockerfile = dir.join(&image.dockerfile);
    let dockerfile_bytes = fs::read(&dockerfile).map_err(|cause| match cause.kind() {
        ErrorKind::NotFound => Error::usage(format!("there is no Dockerfile {}", dockerfile.display())).next(
            "set image.dockerfile to its name inside image.context, or image.uri to an image that is built already",
        ),
        _ => Error::io("read", &dockerfile, &cause),
    })?;
    let build_args = build_args(image, comfyui)?;
    let (ignore_file, ignored) = ignore_file(&dir, &dockerfile)?;

    let mut hash = Fields(Sha256::new());
    hash.field(FORMAT.as_bytes());
    hash.field(&dockerfile_bytes);
    hash.field(image.target.as_deref().unwrap_or_default().as_bytes());
    hash.field(image.platform.as_bytes());
    hash.number(build_args.len() as u64);
    for (name, value) in &build_args {
        hash.field(name.as_bytes());
        hash.field(value.as_bytes());
    }
    let mut entries = Vec::new();
    walk(&dir, Path::new(""), &ignored, &mut entries)?;
    // By bytes of the whole path, so that no directory order of any file system matters.
    entries.sort_by(|a, b| a.path.as_os_str().as_bytes().cmp(b.path.as_os_str().as_bytes()));
    let (mut files, mut bytes) = (0, 0);
    for entry in &entries {
        hash.field(entry.path.as_os_str().as_bytes());
        match &entry.kind {
            EntryKind::Directory => hash.field(b"d"),
            EntryKind::Link(target) => {
                hash.field(b"l");
                hash.field(target.as_os_str().as_bytes());
                files += 1;
            }
            EntryKind::File { executable } => {
                hash.field(if *executable { b"x" } else { b"f" });
                let (digest, size) = file_digest(&dir.join(&entry.path))?;
                hash.field(&digest);
                files += 1;
                bytes += size;
            }
        }
    }
    let tag = format!("c-{}", &hex::encode(hash.0.finalize())[..24]);
    Ok(ImageContext {
        tag,
        dir,
        dockerfile,
        ignore_file,
        build_args,
        target: image.target.clone(),
        platform: image.platform.clone(),
        files,
        bytes,
    })
}

/// The configured build arguments and those made from `comfyui`.
fn build_args(image: &Image, comfyui: &Comfyui) -> Result<BTreeMap<String, String>> {
    for (name, key) in [(ARG_REF, "comfyui.ref"), (ARG_NODES, "comfyui.custom_nodes")] {
        if image.build_args.contains_key(name) {
            return Err(Error::usage(format!("image.build_args sets {name}"))
                .why(format!("this argument is made from {key}"))
                .next(format!("remove it and set {key}")));
        }
    }
    let mut args = image.build_args.clone();
    args.insert(ARG_REF.into(), comfyui.git_ref.clone());
    // In the order of the config file: it is the order of installation.
    let nodes: Vec<String> = comfyui.custom_nodes.iter().map(|node| format!("{}@{}", node.url, node.git_ref)).collect();
    args.insert(ARG_NODES.into(), nodes.join(" "));
    Ok(args)
}

/// `<Dockerfile>.dockerignore` if it exists, as BuildKit prefers it, else `.dockerignore` of the context.
fn ignore_file(dir: &Path, dockerfile: &Path) -> Result<(Option<PathBuf>, IgnoreFile)> {
    let mut own = dockerfile.as_os_str().to_owned();
    own.push(".dockerignore");
    for path in [PathBuf::from(own), dir.join(".dockerignore")] {
        match fs::read(&path) {
            Ok(text) => {
                let rules = IgnoreFile::parse(&String::from_utf8_lossy(&text))
                    .map_err(|why| Error::usage(format!("{} cannot be used", path.display())).why(why))?;
                return Ok((Some(path), rules));
            }
            Err(cause) if cause.kind() == ErrorKind::NotFound => {}
            Err(cause) => return Err(Error::io("read", &path, &cause)),
        }
    }
    Ok((None, IgnoreFile::default()))
}

struct Entry {
    path: PathBuf,
    kind: EntryKind,
}

enum EntryKind {
    Directory,
    File { executable: bool },
    Link(PathBuf),
}

/// Collects what is not ignored. Sockets, pipes and devices have no content to copy and are left out.
fn walk(root: &Path, below: &Path, ignored: &IgnoreFile, into: &mut Vec<Entry>) -> Result<()> {
    let dir = root.join(below);
    for child in fs::read_dir(&dir).map_err(|cause| Error::io("read", &dir, &cause))? {
        let child = child.map_err(|cause| Error::io("read", &dir, &cause))?;
        let path = below.join(child.file_name());
        let full = root.join(&path);
        // Patterns are text; a name that is not is compared in its lossy form.
        let name = path.to_string_lossy();
        let skip = ignored.matches(&name);
        let meta = fs::symlink_metadata(&full).map_err(|cause| Error::io("read", &full, &cause))?;
        if meta.is_dir() {
            if !skip {
                into.push(Entry { path: path.clone(), kind: EntryKind::Directory });
            }
            if !skip || ignored.may_readmit_below(&name) {
                walk(root, &path, ignored, into)?;
            }
        } else if skip {
            continue;
        } else if meta.is_symlink() {
            let target = fs::read_link(&full).map_err(|cause| Error::io("read", &full, &cause))?;
            into.push(Entry { path, kind: EntryKind::Link(target) });
        } else if meta.is_file() {
            // One bit, not the whole mode: the rest differs with the umask of each checkout.
            let executable = meta.permissions().mode() & 0o111 != 0;
            into.push(Entry { path, kind: EntryKind::File { executable } });
        }
    }
    Ok(())
}

fn file_digest(path: &Path) -> Result<([u8; 32], u64)> {
    let mut file = fs::File::open(path).map_err(|cause| Error::io("read", path, &cause))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut size = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((hash.finalize().into(), size)),
            Ok(n) => {
                hash.update(&buffer[..n]);
                size += n as u64;
            }
            Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
            Err(cause) => return Err(Error::io("read", path, &cause)),
        }
    }
}

/// A hash over fields with their lengths, so that no two different lists of fields look alike.
struct Fields(Sha256);

impl Fields {
    fn field(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }
}
