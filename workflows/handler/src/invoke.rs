//! The port to the endpoint.

use std::pin::Pin;

/// An image as the endpoint returned it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `image/jpeg` and so on.
    pub content_type: String,
    /// The bytes.
    pub body: Vec<u8>,
}

/// Why there is no image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvokeError {
    /// The container answered with an error (424 ModelError).
    Model {
        /// OriginalStatusCode; 0 when the container did not answer.
        status: u16,
        /// OriginalMessage: the container's body, at most 2,048 bytes.
        message: String,
    },
    /// Too many requests.
    Throttled,
    /// SageMaker cannot serve the request now.
    Unavailable,
    /// The endpoint does not exist or is not in service, or the request is not acceptable to SageMaker.
    Rejected(String),
    /// The function's role may not invoke the endpoint.
    Denied,
    /// No answer in time.
    TimedOut,
    /// No connection, or an answer that cannot be read.
    Failed(String),
}

/// The future of [`Invoke::invoke`].
pub type Invoked<'a> = Pin<Box<dyn Future<Output = Result<Image, InvokeError>> + Send + 'a>>;

/// Runs a workflow on an endpoint.
pub trait Invoke: Send + Sync {
    /// Sends a workflow (API format, JSON) once: a second attempt would run, and bill, the prompt twice.
    fn invoke(&self, workflow: Vec<u8>) -> Invoked<'_>;
}
