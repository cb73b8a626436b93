//! The port to the endpoint.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

/// What the endpoint is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// JSON: a workflow in API format, or `{"prompt": workflow, "images": [{"name", "data"}]}`.
    pub body: Vec<u8>,
    /// The Accept header.
    pub accept: &'static str,
    /// How long the caller waits in all, retries included.
    pub budget: Duration,
}

/// A picture as the endpoint returned it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Picture {
    /// `image/jpeg` and so on.
    pub content_type: String,
    /// The bytes.
    pub body: Bytes,
    /// X-Amzn-SageMaker-Custom-Attributes of the answer: `prompt_id=<uuid>;seed=<n>;queue_ms=<n>;duration_ms=<n>`.
    pub attributes: String,
}

impl Picture {
    /// One of the attributes. What is not written like an attribute is passed over.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let pairs = self.attributes.split([';', ',']).filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(key, value)| (key.trim(), value.trim()))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

/// Why there is no picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvokeError {
    /// The container answered with an error (424 ModelError).
    Model {
        /// OriginalStatusCode; 0 when the container did not answer.
        status: u16,
        /// OriginalMessage: the container's body, at most 2,048 bytes.
        message: String,
    },
    /// Too many requests, also after the retries.
    Throttled,
    /// SageMaker cannot serve the request now.
    Unavailable,
    /// The endpoint does not exist, is being changed or has failed; SageMaker's words.
    NotReady(String),
    /// SageMaker does not take a request of this size.
    TooLarge,
    /// The request is not acceptable to SageMaker; its words.
    Rejected(String),
    /// The function's role may not invoke the endpoint.
    Denied,
    /// No answer in time.
    TimedOut {
        /// How long was waited.
        seconds: u64,
    },
    /// No connection, also after the retries.
    Unreachable(String),
    /// The connection was lost after the request was sent, or the answer cannot be read.
    Failed(String),
}

/// The future of [`Invoke::invoke`].
pub type Invoked<'a> = Pin<Box<dyn Future<Output = Result<Picture, InvokeError>> + Send + 'a>>;

/// Runs a workflow on an endpoint.
pub trait Invoke: Send + Sync {
    /// Sends a call until it was taken, and never again after that: a second attempt would run, and bill, the prompt
    /// twice.
    fn invoke(&self, call: Call) -> Invoked<'_>;
}
