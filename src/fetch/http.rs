//! HTTP in our own words: one request, one answer, its body in chunks. Redirects are the caller's, because a token must
//! not follow them to another host.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Url;

use crate::error::{Error, Result};

/// Until a connection stands.
const CONNECT: Duration = Duration::from_secs(15);
/// Between two chunks; a server that is silent for longer is asked again.
const SILENCE: Duration = Duration::from_secs(60);

/// A request without a body.
#[derive(Clone)]
pub struct Request {
    /// HEAD instead of GET.
    pub head: bool,
    /// Where to.
    pub url: Url,
    /// `Authorization: Bearer`, never shown.
    pub token: Option<String>,
    /// First byte and the one past the last.
    pub range: Option<(u64, u64)>,
    /// A strong ETag with its quotes: another content answers whole, not with the range.
    pub if_range: Option<String>,
}

impl Request {
    /// A plain GET.
    pub fn get(url: Url) -> Self {
        Request { head: false, url, token: None, range: None, if_range: None }
    }
}

/// An answer, its headers by lower-case name.
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Headers; of repeated ones the last.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Box<dyn Body>,
}

impl Response {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// A body in chunks.
#[async_trait]
pub trait Body: Send {
    /// The next bytes; none at the end.
    async fn chunk(&mut self) -> Result<Option<Bytes>, Broken>;
}

/// The connection failed or the body ended early; why. Asking again may help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken(pub String);

/// The port.
#[async_trait]
pub trait Http: Send + Sync {
    /// Sends a request; any status is an answer, and no redirect is followed.
    async fn send(&self, request: Request) -> Result<Response, Broken>;
}

/// A body that is here already.
pub struct Whole(pub Option<Bytes>);

#[async_trait]
impl Body for Whole {
    async fn chunk(&mut self) -> Result<Option<Bytes>, Broken> {
        Ok(self.0.take())
    }
}

/// [`Http`] on the network, with the proxy that the environment names.
pub struct Web(reqwest::Client);

impl Web {
    /// # Errors
    /// The machine's certificates cannot be read.
    pub fn new() -> Result<Self> {
        // Another part of the program may have set it already; it is the same one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("comfy-deploy/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .build()
            .map(Web)
            .map_err(|e| Error::failed("cannot set up the HTTP client").why(spoken(e)))
    }
}

#[async_trait]
impl Http for Web {
    async fn send(&self, request: Request) -> Result<Response, Broken> {
        let method = if request.head { reqwest::Method::HEAD } else { reqwest::Method::GET };
        let mut call = self.0.request(method, request.url);
        if let Some(token) = &request.token {
            call = call.bearer_auth(token);
        }
        if let Some((from, to)) = request.range {
            call = call.header("range", format!("bytes={from}-{}", to.saturating_sub(1)));
        }
        if let Some(etag) = &request.if_range {
            call = call.header("if-range", etag);
        }
        let answer = call.send().await.map_err(|e| Broken(spoken(e)))?;
        let text = |value: &reqwest::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Ok(Response {
            status: answer.status().as_u16(),
            headers: answer.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect(),
            body: Box::new(Stream(answer)),
        })
    }
}

struct Stream(reqwest::Response);

#[async_trait]
impl Body for Stream {
    async fn chunk(&mut self) -> Result<Option<Bytes>, Broken> {
        self.0.chunk().await.map_err(|e| Broken(spoken(e)))
    }
}

/// An error with its causes, but without its URL: that may be a signed one.
fn spoken(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(one) = cause {
        text = format!("{text}: {one}");
        cause = one.source();
    }
    text
}
