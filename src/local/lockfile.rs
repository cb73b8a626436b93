//! `comfy-deploy.lock`: what was fetched, exactly, so that the next machine gets the same bytes or an error. Belongs
//! into version control, beside the config file.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::Comfyui;
use crate::error::{Error, Result};

mod placed;

pub use placed::Placed;

/// The file's name.
pub const FILE_NAME: &str = "comfy-deploy.lock";

/// Format of the file.
const VERSION: u32 = 1;

const HEAD: &str = "\
# Written by comfy-deploy: commit it, do not edit it. What it names is what is deployed.
# To move it on: comfy-deploy model lock --upgrade
";

/// The lock of one app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Format.
    version: u32,
    /// Commit of ComfyUI.
    #[serde(default)]
    pub comfyui: String,
    /// Commits of custom nodes by URL.
    #[serde(default)]
    pub custom_nodes: BTreeMap<String, String>,
    /// Model files by their path in the models directory.
    #[serde(default)]
    pub files: BTreeMap<String, Locked>,
}

/// One model file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// The source in the config, in its canonical form.
    pub source: String,
    /// The commit that the source's revision was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Bytes.
    pub size: u64,
    /// 64 lower-case hex digits.
    pub sha256: String,
    /// What the server called this content, without quotes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

impl Default for Lock {
    fn default() -> Self {
        Lock { version: VERSION, comfyui: String::new(), custom_nodes: BTreeMap::new(), files: BTreeMap::new() }
    }
}

impl Lock {
    /// Where the lock of the app at `root` is.
    pub fn file(root: &Path) -> PathBuf {
        root.join(FILE_NAME)
    }

    /// Reads the lock of the app at `root`; there being none is an empty lock.
    ///
    /// # Errors
    /// It cannot be read, or is of another version.
    pub fn load(root: &Path) -> Result<Self> {
        let file = Self::file(root);
        match std::fs::read_to_string(&file) {
            Ok(text) => Self::parse(&text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(Error::io("read", &file, &e).next("make it readable for this user")),
        }
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// See [`Lock::load`].
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: String| {
            Error::usage(format!("{FILE_NAME} cannot be used"))
                .why(why)
                .next("restore it from version control, or remove it and run: comfy-deploy model lock")
        };
        let lock: Lock = serde_yaml::from_str(text).map_err(|e| wrong(e.to_string()))?;
        if lock.version != VERSION {
            return Err(wrong(format!("it has format {}, this program writes {VERSION}", lock.version))
                .next("use the version of comfy-deploy that wrote it"));
        }
        let hex = |text: &str| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if let Some((path, _)) = lock.files.iter().find(|(_, locked)| !hex(&locked.sha256)) {
            return Err(wrong(format!("the sha256 of {path} is not 64 hex digits")));
        }
        if let Some(path) = lock.files.keys().find(|path| crate::fetch::check_path(path).is_err()) {
            return Err(wrong(format!("{path:?} is not a path in the models directory")));
        }
        Ok(lock)
    }

    /// The file's text: the same for the same content.
    ///
    /// # Errors
    /// It cannot be written as YAML.
    pub fn text(&self) -> Result<String> {
        let body = serde_yaml::to_string(self)
            .map_err(|e| Error::failed(format!("cannot write {FILE_NAME}")).why(e.to_string()))?;
        Ok(format!("{HEAD}{body}"))
    }

    /// Takes over the commits that the config names.
    pub fn follow(&mut self, comfyui: &Comfyui) {
        self.comfyui.clone_from(&comfyui.git_ref);
        self.custom_nodes = comfyui.custom_nodes.iter().map(|node| (node.url.clone(), node.git_ref.clone())).collect();
    }

    /// Writes the lock of the app at `root`, atomically; says whether anything differed.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, root: &Path) -> Result<bool> {
        let (file, text) = (Self::file(root), self.text()?);
        if std::fs::read_to_string(&file).is_ok_and(|old| old == text) {
            return Ok(false);
        }
        let write = || -> std::io::Result<()> {
            let mut temporary = tempfile::Builder::new().permissions(mode()).tempfile_in(root)?;
            temporary.write_all(text.as_bytes())?;
            temporary.as_file().sync_all()?;
            temporary.persist(&file)?;
            Ok(())
        };
        write().map_err(|e| Error::io("write", &file, &e).next("make its directory writable for this user"))?;
        Ok(true)
    }
}

/// Readable for all that the umask lets read, as files in version control are.
fn mode() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o666)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> Lock {
        let mut lock = Lock::default();
        lock.follow(&Comfyui::default());
        let locked = Locked {
            source: "hf://a/b/x.safetensors@main".into(),
            commit: Some("0123456789".repeat(4)),
            size: 7,
            sha256: "ab".repeat(32),
            etag: None,
        };
        lock.files.insert("vae/x.safetensors".into(), Locked { etag: Some("1e5".into()), ..locked.clone() });
        lock.files.insert("checkpoints/x: y.safetensors".into(), locked);
        lock
    }

    #[test]
    fn the_file_is_the_same_every_time_and_reads_back() {
        let dir = tempfile::tempdir().expect("directory");
        assert!(lock().save(dir.path()).expect("saved"));
        assert!(!lock().save(dir.path()).expect("saved"));
        // A commit of digits and an ETag like a number stay text.
        assert_eq!(Lock::load(dir.path()).expect("loaded"), lock());
        insta::assert_snapshot!(lock().text().expect("text"));
    }

    #[test]
    fn a_lock_that_cannot_be_trusted_is_refused() {
        let good = lock().text().expect("text");
        for (from, to, says) in [
            ("version: 1", "version: 2", "format 2"),
            ("vae/x", "../x", "not a path"),
            (&*"ab".repeat(32), "abc", "64 hex"),
            ("size: 7", "size: lots", "size"),
            ("size: 7", "weight: 7", "weight"),
        ] {
            let error = Lock::parse(&good.replace(from, to)).expect_err(to);
            assert!(error.to_string().contains(says) && error.hint().is_some(), "{error}");
        }
    }
}
