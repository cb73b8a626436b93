//! `models.files` as files that are wanted: what each is, where it goes, and whether it is here. Pure, but for the one
//! look at the disk in [`selection`].

use std::path::Path;

use super::place::{Place, place};
use super::run::locked;
use super::source::{Mistake, Source, has_scheme};
use super::stream::{Streamable, streamable};
use crate::config::{ModelEntry, Models};
use crate::error::{Error, Result};
use crate::local::lockfile::{Lock, Locked};

/// A model file that the config declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where it comes from.
    pub source: Source,
    /// Where it goes.
    pub place: Place,
    /// What the config says its content is: 64 lower-case hex digits.
    pub sha256: Option<String>,
}

/// What is wrong with an entry, and with which of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The key of an entry with keys.
    pub key: Option<&'static str>,
    /// What it should be.
    pub meant: &'static str,
    /// What is wrong.
    pub mistake: Mistake,
}

impl Wanted {
    /// The file of an entry; none if the entry is a pattern for files that are there already.
    ///
    /// # Errors
    /// What is wrong with the entry.
    pub fn of(entry: &ModelEntry) -> Result<Option<Self>, Wrong> {
        let (source, to, sha256) = match entry {
            ModelEntry::Text(text) if !has_scheme(text) => return Ok(None),
            ModelEntry::Text(text) => (text, None, None),
            ModelEntry::File(file) => (&file.source, file.to.as_deref(), file.sha256.clone()),
        };
        let source = Source::parse(source).map_err(|mistake| Wrong {
            key: Some("source"),
            meant: "a source of models",
            mistake,
        })?;
        let place = place(to, &source).map_err(|mistake| Wrong {
            key: to.map(|_| "to"),
            meant: if to.is_some() { "a place for a model" } else { "complete" },
            mistake,
        })?;
        Ok(Some(Wanted { source, place, sha256 }))
    }

    /// The path in the models directory, from the config or, where only the source knows the name, from the lock.
    pub fn path(&self, lock: &Lock) -> Option<String> {
        self.place.path().or_else(|| {
            let (source, folder) = (self.source.to_string(), format!("{}/", self.place.folder));
            let here = |path: &str| path.strip_prefix(&folder).is_some_and(|name| !name.contains('/'));
            lock.files.iter().find(|(path, locked)| locked.source == source && here(path)).map(|(path, _)| path.clone())
        })
    }

    /// The lock's entry, if it is of this source.
    pub fn locked<'l>(&self, lock: &'l Lock) -> Option<(String, &'l Locked)> {
        let path = self.path(lock)?;
        let locked = lock.files.get(&path).filter(|locked| locked.source == self.source.to_string())?;
        Some((path, locked))
    }
}

/// Every file that the config declares. Entries that are wrong were refused with the config.
pub fn wanted(entries: &[ModelEntry]) -> Vec<Wanted> {
    entries.iter().filter_map(|entry| Wanted::of(entry).ok().flatten()).collect()
}

/// The entries that are patterns.
pub fn patterns(entries: &[ModelEntry]) -> Vec<String> {
    let pattern = |entry: &ModelEntry| match entry {
        ModelEntry::Text(text) if !has_scheme(text) => Some(text.clone()),
        _ => None,
    };
    entries.iter().filter_map(pattern).collect()
}

/// Paths of the declared files in the models directory, as far as they are known.
///
/// # Errors
/// The lock cannot be read.
pub fn declared(root: &Path, models: &Models) -> Result<Vec<String>> {
    let lock = Lock::load(root)?;
    Ok(wanted(&models.files).iter().filter_map(|wanted| wanted.path(&lock)).collect())
}

/// What the artifact holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The patterns that select its files: those of the config and one for each declared file.
    pub globs: Vec<String>,
    /// Files that are streamed, unless they are here as they are locked.
    pub streamed: Vec<Streamable>,
}

/// What the artifact holds; with `stream`, large declared files need only be locked.
///
/// # Errors
/// Declared files that are not here.
pub fn selection(root: &Path, models: &Models, stream: bool) -> Result<Selection> {
    let mut selection = Selection { globs: patterns(&models.files), streamed: Vec::new() };
    let wanted = wanted(&models.files);
    if wanted.is_empty() {
        return Ok(selection);
    }
    let (lock, dir) = (Lock::load(root)?, root.join(&models.dir));
    let mut missing = Vec::new();
    let (mut unlocked, mut large) = (false, false);
    for wanted in wanted {
        if stream
            && let Some((path, locked)) = locked(&wanted, &lock)
            && streamable(models, &wanted.source, locked.size)
        {
            selection.globs.push(exactly(&path));
            selection.streamed.push(Streamable { path, wanted, locked });
            continue;
        }
        match wanted.path(&lock) {
            Some(path) if dir.join(&path).is_file() => selection.globs.push(exactly(&path)),
            path => {
                let locked = locked(&wanted, &lock);
                unlocked |= locked.is_none();
                large |= locked.is_some_and(|(_, locked)| streamable(models, &wanted.source, locked.size));
                missing.push(path.unwrap_or_else(|| wanted.source.to_string()));
            }
        }
    }
    let Some(first) = missing.first() else { return Ok(selection) };
    let more = if missing.len() > 1 { format!(" and {} more", missing.len() - 1) } else { String::new() };
    let error = Error::usage(format!("{first}{more} of models.files: not in {}", dir.display()));
    Err(match stream && unlocked {
        true => error
            .why("and not locked yet")
            .next("lock it first: comfy-deploy model lock; large files are streamed then"),
        false if large => {
            error.next("fetch it first: comfy-deploy model fetch; or set models.stream, which needs no room here")
        }
        false => error.next("fetch it first: comfy-deploy model fetch"),
    })
}

/// A pattern that means exactly this path.
pub(crate) fn exactly(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len() + 1);
    pattern.push('/');
    for c in path.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | '\\' | '!' | '#' | ' ') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelFile;

    #[test]
    fn a_text_without_a_scheme_is_a_pattern() {
        let entries = ["checkpoints/*.safetensors", "!*.ckpt", "hf://a/b/vae/x.safetensors"].map(ModelEntry::from);
        assert_eq!(patterns(&entries), ["checkpoints/*.safetensors", "!*.ckpt"]);
        assert_eq!(wanted(&entries).len(), 1);
    }

    #[test]
    fn a_name_that_only_the_source_knows_comes_from_the_lock() {
        let entry = ModelEntry::File(ModelFile { source: "civitai:7".into(), to: Some("loras/".into()), sha256: None });
        let wanted = Wanted::of(&entry).expect("valid").expect("a file");
        let mut lock = Lock::default();
        assert_eq!(wanted.path(&lock), None);
        let locked =
            |source: &str| Locked { source: source.into(), commit: None, size: 1, sha256: "0".repeat(64), etag: None };
        lock.files.insert("loras/other.safetensors".into(), locked("civitai:8"));
        lock.files.insert("loras/sub/deep.safetensors".into(), locked("civitai:7"));
        assert_eq!(wanted.path(&lock), None);
        lock.files.insert("loras/detail.safetensors".into(), locked("civitai:7"));
        assert_eq!(wanted.locked(&lock).map(|(path, _)| path).as_deref(), Some("loras/detail.safetensors"));
    }

    #[test]
    fn what_is_not_here_is_named() {
        let dir = tempfile::tempdir().expect("directory");
        let models = |files: &[&str]| Models {
            files: files.iter().map(|f| ModelEntry::from(*f)).collect(),
            ..Models::default()
        };
        let both = models(&["hf://a/b/vae/x [1].safetensors", "hf://a/b/loras/y.safetensors"]);
        let error = selection(dir.path(), &both, false).expect_err("missing");
        assert!(error.to_string().contains("vae/x [1].safetensors and 1 more"), "{error}");
        for path in ["models/vae/x [1].safetensors", "models/loras/y.safetensors"] {
            std::fs::create_dir_all(dir.path().join(path).parent().expect("parent")).expect("directory");
            std::fs::write(dir.path().join(path), "x").expect("file");
        }
        std::fs::write(dir.path().join("models/vae/other.safetensors"), "x").expect("file");
        let selected = selection(dir.path(), &both, false).expect("all there").globs;
        let mut paths = crate::local::models::paths(&dir.path().join("models"), &selected).expect("paths");
        paths.sort();
        assert_eq!(paths, ["loras/y.safetensors", "vae/x [1].safetensors"]);
    }
}
