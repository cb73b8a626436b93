//! Asking: redirects followed by hand, so that a token never reaches another host, and S3 as if it were a web server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;

use super::answer::{Asked, Fault, judge};
use super::http::{Http, Request, Response, Whole};
use super::source::{Source, is_loopback};
use crate::cloud::Objects;
use crate::error::{Error, Result};

/// Hops until a redirect counts as one that never ends.
const HOPS: usize = 10;
/// Times that an answer may be asked for again without any progress.
const TRIES: u32 = 6;
/// The headers by which Hugging Face describes a file: its sha256, its size and the commit.
const DESCRIPTION: [&str; 3] = ["x-linked-etag", "x-linked-size", "x-repo-commit"];
/// What is said about content that is not what was begun.
pub(super) const CHANGED: &str = "it changed while it was read";
/// Longest that a hub may make us wait at once: Hugging Face counts requests in windows of five minutes.
const LONGEST_WAIT: Duration = Duration::from_secs(330);
/// How often it may.
const WAITS: u32 = 12;

/// Where the hubs are, and who we are there. `Debug` hides the tokens.
#[derive(Clone)]
pub struct Hubs {
    /// Hugging Face or its mirror, without a `/` at the end.
    pub hugging_face: Url,
    /// Token for it.
    pub hf_token: Option<String>,
    /// Civitai.
    pub civitai: Url,
    /// Token for it.
    pub civitai_token: Option<String>,
}

impl std::fmt::Debug for Hubs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hubs = (self.hugging_face.as_str(), self.civitai.as_str());
        f.debug_struct("Hubs").field("at", &hubs).finish_non_exhaustive()
    }
}

impl Hubs {
    /// By the variables that the hubs' own tools read: HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HOME,
    /// HF_HUB_DISABLE_IMPLICIT_TOKEN, CIVITAI_API_TOKEN.
    ///
    /// # Errors
    /// HF_ENDPOINT is not a URL that a token may be sent to.
    pub fn from_environment(env: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let var = |name: &str| env(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let endpoint = var("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let hugging_face = Url::parse(&endpoint)
            .ok()
            .filter(|url| url.host_str().is_some() && (url.scheme() == "https" || is_loopback(url)))
            .ok_or_else(|| {
                Error::usage(format!("HF_ENDPOINT is `{endpoint}`"))
                    .why("it must be the address of Hugging Face or a mirror, as in https://huggingface.co")
                    .next("correct it, or unset HF_ENDPOINT")
            })?;
        let in_file = || {
            if var("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(|v| !matches!(v.as_str(), "0" | "false")) {
                return None;
            }
            let home = || Some(PathBuf::from(var("HOME")?).join(".cache"));
            let cache = || var("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
            let hf_home = || var("HF_HOME").map(PathBuf::from).or_else(|| Some(cache()?.join("huggingface")));
            let file = var("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(hf_home()?.join("token")))?;
            std::fs::read_to_string(file).ok()
        };
        let token = var("HF_TOKEN").or_else(in_file).map(|token| token.trim().to_owned());
        Ok(Hubs {
            hugging_face,
            hf_token: token.filter(|token| !token.is_empty()),
            civitai: CIVITAI.clone(),
            civitai_token: var("CIVITAI_API_TOKEN"),
        })
    }

    /// The token that belongs to a URL's host.
    fn token(&self, url: &Url) -> Option<String> {
        if url.origin() == self.hugging_face.origin() {
            self.hf_token.clone()
        } else if url.origin() == self.civitai.origin() {
            self.civitai_token.clone()
        } else {
            None
        }
    }

    /// A URL at a hub.
    pub(super) fn at(hub: &Url, segments: &[&str]) -> Url {
        let mut url = hub.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }
}

static CIVITAI: std::sync::LazyLock<Url> = std::sync::LazyLock::new(|| {
    // A constant that parses.
    #[allow(clippy::unwrap_used)]
    Url::parse("https://civitai.com").unwrap()
});

/// What fetching needs of the world.
#[derive(Clone)]
pub struct Access {
    /// HTTP.
    pub http: Arc<dyn Http>,
    /// S3, if a source is there.
    pub objects: Option<Arc<dyn Objects>>,
    /// The hubs.
    pub hubs: Hubs,
    /// First pause before something is asked again; it doubles. Also the unit of "one second" in a hub's wish.
    pub pause: Duration,
}

/// Where content is read from.
#[derive(Debug, Clone)]
pub(super) enum Address {
    /// By HTTP.
    Web(Url),
    /// By S3's API.
    S3(String, String),
}

/// An answer with content, and the URL that gave it after redirects.
pub(super) struct Got {
    pub(super) response: Response,
    pub(super) url: Option<Url>,
}

impl Access {
    /// Real pauses.
    pub fn new(http: Arc<dyn Http>, objects: Option<Arc<dyn Objects>>, hubs: Hubs) -> Self {
        Access { http, objects, hubs, pause: Duration::from_secs(1) }
    }

    fn asked<'a>(&'a self, source: &'a Source, locked: bool, url: &Url, first: &Url) -> Asked<'a> {
        Asked {
            source,
            hub: self.hubs.hugging_face.as_str().trim_end_matches('/'),
            token: self.hubs.token(url).is_some(),
            locked,
            signed: url.origin() != first.origin(),
        }
    }

    /// Sends a request once, following redirects. With `stop_elsewhere` a redirect to another host is the answer.
    pub(super) async fn once(
        &self,
        source: &Source,
        locked: bool,
        mut request: Request,
        origin: &Url,
        stop_elsewhere: bool,
    ) -> Result<Got, Fault> {
        // What a redirect that is followed says of the file: the answer behind it need not know.
        let mut told = BTreeMap::new();
        for _ in 0..HOPS {
            request.token = self.hubs.token(&request.url);
            let url = request.url.clone();
            tracing::debug!(host = url.host_str(), head = request.head, range = ?request.range, "asking for {source}");
            let mut response = self.http.send(request.clone()).await.map_err(|broken| Fault::Broken(broken.0))?;
            for name in DESCRIPTION {
                match response.headers.get(name) {
                    Some(value) => drop(told.insert(name.to_owned(), value.clone())),
                    None => response.headers.extend(told.get_key_value(name).map(|(n, v)| (n.clone(), v.clone()))),
                }
            }
            match response.status {
                200 | 206 => return Ok(Got { response, url: Some(url) }),
                301 | 302 | 303 | 307 | 308 => {
                    let next = response.header("location").and_then(|location| url.join(location).ok());
                    let Some(next) = next else {
                        return Err(Fault::Broken("a redirect without an address".into()));
                    };
                    if next.scheme() != "https" && !is_loopback(&next) {
                        let error = Error::failed(format!("cannot fetch {source}"));
                        let host = next.host_str().unwrap_or_default();
                        return Err(error.why(format!("the server redirects to {host} without encryption")).into());
                    }
                    if stop_elsewhere && next.origin() != url.origin() {
                        return Ok(Got { response, url: Some(next) });
                    }
                    // Civitai sends those who are not logged in to a page instead of saying 401.
                    if next.path().starts_with("/login") {
                        return Err(judge(self.asked(source, locked, &url, &url), 401, &BTreeMap::new()));
                    }
                    request.url = next;
                }
                status => return Err(judge(self.asked(source, locked, &url, origin), status, &response.headers)),
            }
        }
        Err(Error::failed(format!("cannot fetch {source}")).why("its redirects never end").into())
    }

    /// Asks until there is an answer, within reason.
    pub(super) async fn ask(&self, source: &Source, locked: bool, request: Request, stop: bool) -> Result<Got> {
        let origin = request.url.clone();
        let mut patience = Patience::new(self.pause);
        loop {
            match self.once(source, locked, request.clone(), &origin, stop).await {
                Ok(got) => return Ok(got),
                Err(fault) => patience.endure(source, fault).await?,
            }
        }
    }

    /// The text of a small answer.
    pub(super) async fn text(&self, source: &Source, locked: bool, url: Url) -> Result<String> {
        const MOST: usize = 16 << 20;
        let mut patience = Patience::new(self.pause);
        'again: loop {
            let mut got = self.ask(source, locked, Request::get(url.clone()), false).await?;
            let mut text = Vec::new();
            loop {
                match got.response.body.chunk().await {
                    Ok(None) => return Ok(String::from_utf8_lossy(&text).into_owned()),
                    Ok(Some(bytes)) if text.len() + bytes.len() <= MOST => text.extend_from_slice(&bytes),
                    Ok(Some(_)) => {
                        return Err(Error::failed(format!("cannot fetch {source}")).why("its description is too long"));
                    }
                    Err(broken) => {
                        patience.endure(source, Fault::Broken(broken.0)).await?;
                        continue 'again;
                    }
                }
            }
        }
    }

    /// A range of an object in S3, as a web server would answer.
    pub(super) async fn object(
        &self,
        source: &Source,
        (bucket, key): (&str, &str),
        range: Option<(u64, u64)>,
        if_match: Option<&str>,
    ) -> Result<Got, Fault> {
        let Some(objects) = &self.objects else {
            return Err(Error::failed(format!("cannot fetch {source}")).why("there is no connection to S3").into());
        };
        // Without a range only the size is asked for.
        let (from, to) = range.unwrap_or((0, 1));
        let part = match objects.read(bucket, key, from, to, if_match).await {
            Ok(Some(part)) => part,
            Ok(None) => {
                let error = Error::usage(format!("cannot fetch {source}"));
                return Err(error
                    .why(format!("there is no {key} in the bucket {bucket}"))
                    .next("correct the key")
                    .into());
            }
            Err(e) if e.is_aws("PreconditionFailed") || e.is_aws("InvalidRange") => return Err(Fault::Changed),
            Err(e) if e.is_transient() => return Err(Fault::Broken(e.to_string())),
            Err(e) => return Err(Fault::Fatal(e)),
        };
        let mut headers = BTreeMap::new();
        let end = from + part.body.len() as u64;
        headers.insert("content-range".into(), format!("bytes {from}-{}/{}", end.saturating_sub(1), part.size));
        if let Some(etag) = part.etag {
            headers.insert("etag".into(), etag);
        }
        Ok(Got { response: Response { status: 206, headers, body: Box::new(Whole(Some(part.body))) }, url: None })
    }
}

/// Counts failures; waits, or gives up.
pub(super) struct Patience {
    pause: Duration,
    failures: u32,
    waits: u32,
}

impl Patience {
    pub(super) fn new(pause: Duration) -> Self {
        Patience { pause, failures: 0, waits: 0 }
    }

    /// Something came.
    pub(super) fn refresh(&mut self) {
        self.failures = 0;
    }

    /// Waits as the fault wants.
    ///
    /// # Errors
    /// It is enough, or waiting does not help.
    pub(super) async fn endure(&mut self, source: &Source, fault: Fault) -> Result<()> {
        let enough = |why: String| {
            Error::failed(format!("cannot fetch {source}"))
                .why(why)
                .next("try again later: the same command continues where this one stopped")
        };
        let time = match fault {
            Fault::Fatal(error) => return Err(error),
            Fault::Changed => return Err(enough(CHANGED.into())),
            Fault::Expired(status) if self.failures + 1 >= TRIES => {
                return Err(enough(format!("the server it is kept on answers {status}")));
            }
            Fault::Broken(why) if self.failures + 1 >= TRIES => {
                return Err(enough(why).why(format!("tried {TRIES} times")));
            }
            Fault::Broken(_) | Fault::Expired(_) => {
                self.failures += 1;
                self.pause * 2u32.pow(self.failures - 1)
            }
            Fault::Wait(time, why) if time > LONGEST_WAIT || self.waits >= WAITS => {
                return Err(enough(why).why(format!("it wants {} s of silence", time.as_secs())));
            }
            Fault::Wait(time, _) => {
                self.waits += 1;
                self.pause * u32::try_from(time.as_secs()).unwrap_or(u32::MAX).max(1)
            }
        };
        tokio::time::sleep(time).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hubs(variables: &[(&str, &str)]) -> Result<Hubs> {
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Hubs::from_environment(&find)
    }

    #[test]
    fn tokens_come_from_the_variables_and_files_of_the_hubs_own_tools() {
        let home = tempfile::tempdir().expect("directory");
        let at = home.path().to_str().expect("text");
        assert_eq!(hubs(&[("HOME", at)]).expect("hubs").hf_token, None);
        std::fs::create_dir_all(home.path().join(".cache/huggingface")).expect("directory");
        std::fs::write(home.path().join(".cache/huggingface/token"), "from-file\n").expect("written");
        let token = |more: (&str, &str)| hubs(&[("HOME", at), more]).expect("hubs").hf_token;
        assert_eq!(token(("x", "")).as_deref(), Some("from-file"));
        assert_eq!(token(("HF_TOKEN", "from-variable")).as_deref(), Some("from-variable"));
        assert_eq!(token(("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")), None);
        assert_eq!(token(("HF_HOME", "/nowhere")), None);
    }

    #[test]
    fn a_token_belongs_to_one_host_and_is_never_shown() {
        let hubs = hubs(&[("HF_TOKEN", "secret-1"), ("CIVITAI_API_TOKEN", "secret-2")]).expect("hubs");
        let token = |url: &str| hubs.token(&Url::parse(url).expect("url"));
        assert_eq!(token("https://huggingface.co/a").as_deref(), Some("secret-1"));
        assert_eq!(token("https://civitai.com/api").as_deref(), Some("secret-2"));
        for other in ["http://huggingface.co/a", "https://cdn.huggingface.co/a", "https://huggingface.co:8443/a"] {
            assert_eq!(token(other), None, "{other}");
        }
        assert!(!format!("{hubs:?}").contains("secret"));
    }

    #[test]
    fn a_mirror_is_encrypted_or_on_this_machine() {
        assert!(hubs(&[("HF_ENDPOINT", "https://hf-mirror.com/")]).is_ok());
        assert!(hubs(&[("HF_ENDPOINT", "http://127.0.0.1:8080")]).is_ok());
        for wrong in ["http://hf-mirror.com", "hf-mirror.com", "file:///x"] {
            assert!(hubs(&[("HF_ENDPOINT", wrong)]).is_err_and(|e| e.to_string().contains(wrong)), "{wrong}");
        }
    }
}
