//! What a source is right now: commit, size, content, and where its bytes are.

use std::path::{Path, PathBuf};

use reqwest::Url;
use serde::Deserialize;

use super::answer::{bare, is_strong};
use super::get::{Access, Address, Hubs, Patience};
use super::http::{Request, Response};
use super::source::Source;
use crate::error::{Error, Result};

/// A source as its hub describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The file's name, if the hub says one.
    pub name: Option<String>,
    /// Bytes.
    pub size: Option<u64>,
    /// 64 lower-case hex digits, if the hub knows.
    pub sha256: Option<String>,
    /// What the server calls this content, without quotes.
    pub etag: Option<String>,
    /// The commit that the revision is.
    pub commit: Option<String>,
    /// Whether the server ignored a range that it was asked for.
    pub whole_only: bool,
    /// Where to read; not for a file on this machine.
    pub(super) address: Option<AddressOf>,
}

/// Where a source's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AddressOf {
    /// At a URL.
    Web(Url),
    /// In a bucket.
    S3(String, String),
}

impl AddressOf {
    pub(super) fn get(&self) -> Address {
        match self {
            AddressOf::Web(url) => Address::Web(url.clone()),
            AddressOf::S3(bucket, key) => Address::S3(bucket.clone(), key.clone()),
        }
    }
}

impl Remote {
    /// What tells this content from another: a sha256, else an ETag. Without either nothing can be resumed.
    pub(super) fn identity(&self) -> Option<String> {
        match (&self.sha256, &self.etag) {
            (Some(sha256), _) => Some(format!("sha256:{sha256}")),
            (None, Some(etag)) => Some(format!("etag:{etag}")),
            (None, None) => None,
        }
    }
}

/// Asks the hub. With `commit` the file of that commit is meant, whatever the revision is by now.
///
/// # Errors
/// Why it cannot be had, and what to do.
pub(super) async fn resolve(access: &Access, source: &Source, commit: Option<&str>) -> Result<Remote> {
    match source {
        Source::HuggingFace { repo, path, revision } => {
            hugging_face(access, source, repo, path, commit.unwrap_or(revision), commit.is_some()).await
        }
        Source::Civitai { version, choice } => civitai(access, source, *version, choice).await,
        Source::Web(url) => web(access, source, url.clone()).await,
        Source::S3 { bucket, key } => {
            let mut patience = Patience::new(access.pause);
            let got = loop {
                match access.object(source, (bucket, key), None, None).await {
                    Ok(got) => break got,
                    Err(fault) => patience.endure(source, fault).await?,
                }
            };
            Ok(Remote {
                name: None,
                size: total(&got.response),
                sha256: None,
                etag: got.response.header("etag").map(bare),
                commit: None,
                whole_only: false,
                address: Some(AddressOf::S3(bucket.clone(), key.clone())),
            })
        }
        // What it holds is hashed when it is copied.
        Source::Local(_) => Ok(Remote {
            name: None,
            size: None,
            sha256: None,
            etag: None,
            commit: None,
            whole_only: false,
            address: None,
        }),
    }
}

/// The file of a local source.
pub(super) fn local(root: &Path, path: &str) -> PathBuf {
    root.join(path)
}

/// The size of the whole from the answer to a range, or to no range.
pub(super) fn total(response: &Response) -> Option<u64> {
    match response.status {
        206 => response.header("content-range")?.rsplit_once('/')?.1.parse().ok(),
        _ => response.header("content-length")?.parse().ok(),
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

async fn hugging_face(
    access: &Access,
    source: &Source,
    repo: &str,
    path: &str,
    revision: &str,
    locked: bool,
) -> Result<Remote> {
    let hub = &access.hubs.hugging_face;
    let at = |revision: &str| {
        let mut segments: Vec<&str> = repo.split('/').collect();
        // A revision with a slash is one segment.
        segments.extend(["resolve", revision]);
        segments.extend(path.split('/'));
        Hubs::at(hub, &segments)
    };
    // The hub describes the file in the redirect to where it is kept; that place would not.
    let request = Request { head: true, ..Request::get(at(revision)) };
    let response = match access.ask(source, locked, request, true).await {
        Ok(got) => got.response,
        Err(e) if e.reasons().iter().any(|why| why.contains("no such file")) => {
            return Err(match near(access, source, repo, path, revision).await {
                Some(names) => e.next(format!("nearest: {names}")),
                None => e,
            });
        }
        Err(e) => return Err(e),
    };
    let linked = response.header("x-linked-etag").map(bare);
    let etag = linked.clone().or_else(|| response.header("etag").map(bare));
    let size = response.header("x-linked-size").or_else(|| match response.status {
        200 => response.header("content-length"),
        // The length of the redirect itself says nothing.
        _ => None,
    });
    let commit = response.header("x-repo-commit").filter(|commit| commit.len() == 40).map(str::to_owned);
    Ok(Remote {
        name: None,
        size: size.and_then(|size| size.parse().ok()),
        sha256: linked.filter(|etag| is_sha256(etag)).map(|sha256| sha256.to_ascii_lowercase()),
        etag,
        address: Some(AddressOf::Web(at(commit.as_deref().unwrap_or(revision)))),
        commit,
        whole_only: false,
    })
}

/// The names in a repository that are nearest to one that is not there.
async fn near(access: &Access, source: &Source, repo: &str, path: &str, revision: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Item {
        #[serde(rename = "type")]
        kind: String,
        path: String,
    }
    let (kind, name) = match repo.split_once('/') {
        Some((kind @ ("datasets" | "spaces"), name)) => (kind, name),
        _ => ("models", repo),
    };
    let mut segments = vec!["api", kind];
    segments.extend(name.split('/'));
    segments.extend(["tree", revision]);
    let mut url = Hubs::at(&access.hubs.hugging_face, &segments);
    url.set_query(Some("recursive=true"));
    let items: Vec<Item> = serde_json::from_str(&access.text(source, false, url).await.ok()?).ok()?;
    nearest(path, items.iter().filter(|item| item.kind == "file").map(|item| item.path.as_str()))
}

fn nearest<'a>(path: &str, files: impl Iterator<Item = &'a str>) -> Option<String> {
    let last = |path: &'a str| path.rsplit('/').next().unwrap_or(path);
    let wanted = path.rsplit('/').next().unwrap_or(path).to_lowercase();
    let mut scored: Vec<(f64, &str)> =
        files.map(|file| (strsim::jaro_winkler(&wanted, &last(file).to_lowercase()), file)).collect();
    scored.retain(|(score, _)| *score > 0.7);
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    let names: Vec<&str> = scored.iter().take(3).map(|(_, file)| *file).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

async fn civitai(access: &Access, source: &Source, version: u64, choice: &[(String, String)]) -> Result<Remote> {
    #[derive(Deserialize)]
    struct Version {
        #[serde(default)]
        files: Vec<File>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct File {
        name: String,
        #[serde(default)]
        r#type: Option<String>,
        #[serde(default)]
        primary: Option<bool>,
        #[serde(default)]
        hashes: std::collections::BTreeMap<String, String>,
        #[serde(default)]
        metadata: std::collections::BTreeMap<String, serde_json::Value>,
    }
    let number = version.to_string();
    let api = Hubs::at(&access.hubs.civitai, &["api", "v1", "model-versions", &number]);
    let text = access.text(source, false, api).await?;
    let described: Version = serde_json::from_str(&text).map_err(|e| {
        Error::failed(format!("cannot fetch {source}"))
            .why(format!("Civitai describes it in a way that is not understood: {e}"))
    })?;
    let fits = |file: &&File| {
        choice.iter().all(|(key, value)| {
            let value = value.replace('+', " ");
            match key.as_str() {
                "type" => file.r#type.as_deref() == Some(&value),
                key => file.metadata.get(key).and_then(serde_json::Value::as_str) == Some(&value),
            }
        })
    };
    let mut candidates: Vec<&File> = described.files.iter().filter(fits).collect();
    candidates.sort_by_key(|file| !file.primary.unwrap_or(false));
    let Some(file) = candidates.first() else {
        let names: Vec<&str> = described.files.iter().map(|file| file.name.as_str()).collect();
        return Err(Error::usage(format!("cannot fetch {source}"))
            .why(format!("none of its files is meant; there are: {}", names.join(", ")))
            .next("leave the part behind the ? out to take the primary file"));
    };
    let mut address = Hubs::at(&access.hubs.civitai, &["api", "download", "models", &number]);
    if !choice.is_empty() {
        let query: Vec<String> = choice.iter().map(|(key, value)| format!("{key}={value}")).collect();
        address.set_query(Some(&query.join("&")));
    }
    let sha256 = file.hashes.get("SHA256").filter(|hash| is_sha256(hash)).map(|hash| hash.to_ascii_lowercase());
    // Only the download itself tells the size to the byte.
    let content = web(access, source, address).await?;
    Ok(Remote { name: Some(file.name.clone()), sha256, ..content })
}

async fn web(access: &Access, source: &Source, url: Url) -> Result<Remote> {
    // Not HEAD: signed addresses are for GET alone.
    let request = Request { range: Some((0, 1)), ..Request::get(url.clone()) };
    let response = match access.ask(source, false, request, false).await {
        Ok(got) => got.response,
        // No byte 0: an empty file.
        Err(e) if e.reasons().iter().any(|why| why.contains(super::get::CHANGED)) => {
            access.ask(source, false, Request::get(url.clone()), false).await?.response
        }
        Err(e) => return Err(e),
    };
    Ok(Remote {
        name: None,
        size: total(&response),
        sha256: None,
        etag: response.header("etag").filter(|etag| is_strong(etag)).map(bare),
        commit: None,
        whole_only: response.status == 200 && total(&response).is_none_or(|size| size > 1),
        address: Some(AddressOf::Web(url)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_names_come_first() {
        let files = ["README.md", "flux1-dev-fp8.safetensors", "vae/ae.safetensors", "flux1-dev.safetensors"];
        let near = nearest("flux1_dev.safetensor", files.into_iter()).expect("some");
        assert!(near.starts_with("flux1-dev.safetensors, "), "{near}");
        assert!(!near.contains("README"));
        assert_eq!(nearest("x", ["README.md"].into_iter()), None);
    }
}
