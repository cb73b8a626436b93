//! One HTTP request to a process on this machine.

use axum::body::Bytes;
use axum::http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;

use crate::container::Place;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens, or the connection broke.
    #[error("no answer: {0}")]
    Connection(#[from] std::io::Error),
    /// Not HTTP, or cut.
    #[error("no answer: {0}")]
    Protocol(#[from] hyper::Error),
    /// The body is longer than allowed, or was cut.
    #[error("no whole answer: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
}

/// Sends a request over a connection of its own and reads the answer, at most `limit` bytes. Dropping the future
/// closes the connection.
pub async fn send(to: impl Into<Place>, request: Request<Full<Bytes>>, limit: usize) -> Result<Response<Bytes>, Error> {
    let stream = to.into().connect().await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async move {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, limit).collect().await.map_err(Error::Body)?.to_bytes();
        Ok(Response::from_parts(parts, body))
    };
    tokio::pin!(exchange);
    tokio::pin!(connection);
    let mut open = true;
    loop {
        tokio::select! {
            answer = &mut exchange => return answer,
            // The connection moves the bytes; what ends it shows in the exchange.
            _ = &mut connection, if open => open = false,
        }
    }
}
