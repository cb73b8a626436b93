//! Where a model file comes from, as it is written in the config. Pure: text in, [`Source`] out, and back.

use std::fmt;

use percent_encoding::percent_decode_str;
use reqwest::Url;

/// The revision of a Hugging Face file that names none.
const MAIN: &str = "main";

/// The query keys that choose one of a Civitai version's files.
const CIVITAI_KEYS: [&str; 4] = ["type", "format", "size", "fp"];

/// Where a model file comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file of a repository on Hugging Face.
    HuggingFace {
        /// `owner/name`, with `datasets/` or `spaces/` in front for those.
        repo: String,
        /// Path in the repository.
        path: String,
        /// Branch, tag or commit.
        revision: String,
    },
    /// A file of a model version on Civitai.
    Civitai {
        /// Number of the version.
        version: u64,
        /// What chooses one of several files (`type`, `format`, `size`, `fp`), sorted; the primary file if empty.
        choice: Vec<(String, String)>,
    },
    /// Any file on the web.
    Web(Url),
    /// An object in S3.
    S3 {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// A file on this machine, relative to the config file, that is copied in.
    Local(String),
}

/// Why a text is no source, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// What is wrong, a few words.
    pub what: String,
    /// What is allowed.
    pub help: String,
}

fn mistake<T>(what: impl Into<String>, help: impl Into<String>) -> Result<T, Mistake> {
    Err(Mistake { what: what.into(), help: help.into() })
}

/// Whether a text names a place rather than files of the models directory: anything with a scheme.
pub fn has_scheme(text: &str) -> bool {
    text.contains("://") || text.starts_with("civitai:")
}

impl Source {
    /// Reads what the config says.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        if text.chars().any(|c| c.is_control()) || text.trim() != text || text.is_empty() {
            return mistake("not a source", "Blanks at the ends and control characters do not belong in it.");
        }
        if let Some(rest) = text.strip_prefix("hf://") {
            return hugging_face(rest);
        }
        if let Some(rest) = text.strip_prefix("civitai:") {
            return civitai(rest.trim_start_matches('/'));
        }
        if let Some(rest) = text.strip_prefix("s3://") {
            return s3(rest);
        }
        match text.split_once("://") {
            Some(("https" | "http", _)) => web(text),
            Some((scheme, _)) => mistake(
                format!("`{scheme}://` is not known"),
                "Known: hf://owner/repo/path@revision, civitai:VERSION_ID, https://..., s3://bucket/key, or a path.",
            ),
            None => Ok(Source::Local(text.to_owned())),
        }
    }

    /// The file's name, where the source itself says it; Civitai's is only known once it was asked.
    pub fn file_name(&self) -> Option<String> {
        let last = |path: &str| path.rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned);
        match self {
            Source::HuggingFace { path, .. } | Source::Local(path) => last(path),
            Source::S3 { key, .. } => last(key),
            Source::Civitai { .. } => None,
            Source::Web(url) => last(url.path()).and_then(|name| decode(&name).ok()).filter(|name| !name.contains('/')),
        }
    }

    /// The folders that the file stands in at its source, nearest last; a hint at where it belongs.
    pub fn folders(&self) -> Vec<&str> {
        let path = match self {
            Source::HuggingFace { path, .. } => path.as_str(),
            Source::S3 { key, .. } => key.as_str(),
            Source::Civitai { .. } | Source::Web(_) | Source::Local(_) => return Vec::new(),
        };
        let mut folders: Vec<&str> = path.split('/').collect();
        folders.pop();
        folders
    }

    /// A word for progress and tables.
    pub fn place(&self) -> &'static str {
        match self {
            Source::HuggingFace { .. } => "Hugging Face",
            Source::Civitai { .. } => "Civitai",
            Source::Web(_) => "web",
            Source::S3 { .. } => "S3",
            Source::Local(_) => "this machine",
        }
    }
}

/// The form that [`Source::parse`] reads back; it is what the lock keeps.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::HuggingFace { repo, path, revision } => write!(f, "hf://{repo}/{path}@{revision}"),
            Source::Civitai { version, choice } => {
                write!(f, "civitai:{version}")?;
                for (n, (key, value)) in choice.iter().enumerate() {
                    write!(f, "{}{key}={value}", if n == 0 { '?' } else { '&' })?;
                }
                Ok(())
            }
            Source::Web(url) => write!(f, "{url}"),
            Source::S3 { bucket, key } => write!(f, "s3://{bucket}/{key}"),
            Source::Local(path) => f.write_str(path),
        }
    }
}

fn decode(text: &str) -> Result<String, Mistake> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) if !text.chars().any(char::is_control) => Ok(text.into_owned()),
        _ => mistake("a name that is not text", "After decoding %XX it must be UTF-8 without control characters."),
    }
}

const HF_FORM: &str =
    "Allowed: hf://owner/repo/path@revision, as in hf://Comfy-Org/flux1-dev/flux1-dev-fp8.safetensors@main.";

fn hugging_face(rest: &str) -> Result<Source, Mistake> {
    let (kind, rest) = kind_of_repo(rest);
    let mut parts = rest.splitn(3, '/');
    let (Some(owner), Some(name), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
        return mistake("not a file on Hugging Face", HF_FORM);
    };
    // Hugging Face's own tools write the revision behind the repository.
    match name.split_once('@') {
        Some((name, revision)) => repo_file(kind, owner, name, path, &decode(revision)?),
        None => {
            let (path, revision) = path.rsplit_once('@').unwrap_or((path, MAIN));
            repo_file(kind, owner, name, path, revision)
        }
    }
}

fn kind_of_repo(rest: &str) -> (&'static str, &str) {
    for kind in ["datasets/", "spaces/"] {
        if let Some(rest) = rest.strip_prefix(kind) {
            return (kind, rest);
        }
    }
    ("", rest.strip_prefix("models/").unwrap_or(rest))
}

fn repo_file(kind: &str, owner: &str, name: &str, path: &str, revision: &str) -> Result<Source, Mistake> {
    let word = |text: &str| {
        !text.is_empty()
            && !text.starts_with('.')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    if !word(owner) || !word(name) {
        return mistake(format!("`{owner}/{name}` is no repository"), HF_FORM);
    }
    if revision.is_empty()
        || revision.split('/').any(|part| matches!(part, "" | "." | ".."))
        || !revision.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'))
    {
        return mistake(format!("`{revision}` is no revision"), "Allowed after the @: a branch, a tag or a commit.");
    }
    plain_path(path)?;
    Ok(Source::HuggingFace { repo: format!("{kind}{owner}/{name}"), path: path.into(), revision: revision.into() })
}

/// Refuses paths that lead elsewhere than they say.
fn plain_path(path: &str) -> Result<(), Mistake> {
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) || path.contains('\\') {
        return mistake("not the path of a file", "Names with single / between them, without `.` and `..`.");
    }
    Ok(())
}

fn civitai(rest: &str) -> Result<Source, Mistake> {
    let (version, query) = rest.split_once('?').unwrap_or((rest, ""));
    let Ok(version) = version.parse() else {
        return mistake(
            format!("`{version}` is not the number of a model version"),
            "Allowed: civitai:VERSION_ID, the number behind modelVersionId= in the address of the model's page.",
        );
    };
    let Ok(url) = Url::parse(&format!("https://civitai.com/?{query}")) else {
        return mistake("not a Civitai file", "Allowed: civitai:VERSION_ID.");
    };
    Ok(Source::Civitai { version, choice: choice(&url)? })
}

fn choice(url: &Url) -> Result<Vec<(String, String)>, Mistake> {
    let mut choice = Vec::new();
    for (key, value) in url.query_pairs() {
        if key == "token" {
            return mistake(
                "a token in the config",
                "Remove it, revoke it at Civitai, and set the variable CIVITAI_API_TOKEN instead.",
            );
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if CIVITAI_KEYS.contains(&key.as_ref()) && !value.is_empty() {
            if !value.chars().all(|c| plain(c) || c == ' ') {
                return mistake(format!("`{key}` is `{value}`"), "Allowed: a word, as in format=SafeTensor.");
            }
            choice.push((key.into_owned(), value.replace(' ', "+")));
        }
    }
    choice.sort();
    choice.dedup_by(|a, b| a.0 == b.0);
    Ok(choice)
}

fn s3(rest: &str) -> Result<Source, Mistake> {
    match rest.split_once('/') {
        Some((bucket, key))
            if (3..=63).contains(&bucket.len())
                && bucket.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
                && !key.is_empty()
                && !key.ends_with('/') =>
        {
            Ok(Source::S3 { bucket: bucket.into(), key: key.into() })
        }
        _ => mistake("not an object in S3", "Allowed: s3://bucket/key, with the whole key of one object."),
    }
}

fn web(text: &str) -> Result<Source, Mistake> {
    let Ok(mut url) = Url::parse(text) else { return mistake("not a URL", "Allowed: https://host/path/file.") };
    let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
    if !url.username().is_empty() || url.password().is_some() {
        return mistake("a password in the config", "Remove it; a file behind a password cannot be fetched.");
    }
    if url.scheme() != "https" && !is_loopback(&url) {
        return mistake("not encrypted", "Write https://; plain http is for this machine alone.");
    }
    url.set_fragment(None);
    match host.as_str() {
        "huggingface.co" | "www.huggingface.co" | "hf.co" => hugging_face_url(&url),
        "civitai.com" | "www.civitai.com" => civitai_url(&url),
        _ => Ok(Source::Web(url)),
    }
}

/// Whether a URL leads to this machine.
pub fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

fn hugging_face_url(url: &Url) -> Result<Source, Mistake> {
    let help = "Open the file on Hugging Face and copy the link of its download button, or write hf://owner/repo/path@revision.";
    let (kind, rest) = kind_of_repo(url.path().trim_start_matches('/'));
    let parts: Vec<&str> = rest.split('/').collect();
    let [owner, name, "resolve" | "blob" | "raw", revision, path @ ..] = parts.as_slice() else {
        return mistake("the address of a page, not of a file", help);
    };
    // Revisions of pull requests are addressed as refs/pr/1, in one or in three parts.
    let (revision, path) = match (*revision, path) {
        ("refs", [kind, name, path @ ..]) => (format!("refs/{kind}/{name}"), path),
        (revision, path) => (decode(revision)?, path),
    };
    if path.is_empty() {
        return mistake("the address of a page, not of a file", help);
    }
    repo_file(kind, owner, name, &decode(&path.join("/"))?, &revision)
}

fn civitai_url(url: &Url) -> Result<Source, Mistake> {
    let parts: Vec<&str> = url.path().split('/').filter(|part| !part.is_empty()).collect();
    let version = match parts.as_slice() {
        ["api", "download", "models", version] => Some((*version).to_owned()),
        ["api", "v1", "model-versions", version] => Some((*version).to_owned()),
        ["models", ..] => {
            url.query_pairs().find(|(key, _)| key == "modelVersionId").map(|(_, version)| version.into_owned())
        }
        _ => None,
    };
    match version.and_then(|version| version.parse().ok()) {
        Some(version) => Ok(Source::Civitai { version, choice: choice(url)? }),
        None => mistake(
            "the address names no model version",
            "Choose the version on the model's page; the address then ends with modelVersionId=NUMBER. Or write civitai:NUMBER.",
        ),
    }
}

#[cfg(test)]
mod tests;
