//! Events in and replies out, over Lambda's Runtime API.
//!
//! lambda_runtime takes the events; the replies are posted from here, for two reasons. Its connection leaves Nagle's
//! algorithm on, so that the last bytes of a streamed reply wait for the kernel's delayed acknowledgement: 40 ms for each
//! picture. And it would look through megabytes of base64 for characters to escape, into a buffer that grows by copying.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use comfy_handler::{Endpoint, Handler, Reply, Streamed, Summary};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body::Frame;
use hyper_util::client::legacy::connect::HttpConnector;
use lambda_runtime::streaming::Body;
use lambda_runtime::tower::layer::layer_fn;
use lambda_runtime::{Error, LambdaEvent, LambdaInvocation, MetadataPrelude, Runtime, Service, service_fn};
use lambda_runtime_api_client::{PooledClient, build_request};

/// Left of the function's time for the reply itself.
const REPLY_TIME: Duration = Duration::from_secs(1);

/// Serves events for ever.
///
/// # Errors
/// The Runtime API cannot be reached.
pub(crate) async fn serve(handler: Handler<Endpoint>) -> Result<(), Error> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = PooledClient::builder().with_connector(connector).build();
    let service = Replies { client: Arc::new(client), handler: Arc::new(handler) };
    // The innermost service would post a reply in its own way; the layer puts ours in its place.
    let unused = service_fn(async |_: LambdaEvent<()>| Ok::<_, Error>(()));
    Runtime::new(unused).layer(layer_fn(move |_| service.clone())).run().await
}

/// Answers an invocation and posts the reply.
#[derive(Debug, Clone)]
struct Replies {
    client: Arc<PooledClient>,
    handler: Arc<Handler<Endpoint>>,
}

impl Service<LambdaInvocation> for Replies {
    type Response = ();
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, invocation: LambdaInvocation) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let id = invocation.context.request_id.clone();
            // A task of its own: should it panic, this invocation fails, and the process lives.
            let request = match tokio::spawn(answer(Arc::clone(&this.handler), invocation)).await {
                Ok(reply) => post(&id, reply)?,
                Err(_) => post_failure(&id)?,
            };
            let response = this.client.call(request).await?;
            // Lambda says so when its own time limit came first; there is nobody left to tell.
            if !response.status().is_success() {
                tracing::error!(request = id, status = response.status().as_u16(), "Lambda does not take the reply");
            }
            Ok(())
        })
    }
}

async fn answer(handler: Arc<Handler<Endpoint>>, invocation: LambdaInvocation) -> Reply {
    let begun = Instant::now();
    let left = invocation.context.deadline().duration_since(SystemTime::now()).unwrap_or_default();
    let event = String::from_utf8_lossy(&invocation.body);
    let (reply, summary) = handler.handle(&event, left.saturating_sub(REPLY_TIME)).await;
    log(&invocation.context.request_id, &summary, begun.elapsed());
    reply
}

fn log(request: &str, summary: &Summary, took: Duration) {
    tracing::info!(
        request,
        status = summary.status,
        error = summary.error,
        workflow = summary.workflow,
        bytes = summary.bytes,
        milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "answered"
    );
}

/// The request that carries a reply.
fn post(id: &str, reply: Reply) -> Result<Request<Body>, Error> {
    let request = build_request().method("POST").uri(format!("/2018-06-01/runtime/invocation/{id}/response"));
    let request = match reply {
        Reply::Buffered(reply) => request.header("Content-Type", "application/json").body(reply.to_json().into())?,
        Reply::Streamed(reply) => request
            .header("Content-Type", "application/vnd.awslambda.http-integration-response")
            .header("Lambda-Runtime-Function-Response-Mode", "streaming")
            .header("Transfer-Encoding", "chunked")
            .body(Body::new(Pieces(stream(reply)?.into())))?,
    };
    Ok(request)
}

/// The prelude with eight zero bytes behind it, and the picture.
fn stream(reply: Streamed) -> Result<[Bytes; 2], Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in reply.headers {
        headers.insert(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    let prelude = MetadataPrelude { status_code: StatusCode::from_u16(reply.status)?, headers, cookies: Vec::new() };
    let mut prelude = serde_json::to_vec(&prelude)?;
    prelude.extend_from_slice(&[0; 8]);
    Ok([prelude.into(), reply.body])
}

/// The request that says that there is no reply.
fn post_failure(id: &str) -> Result<Request<Body>, Error> {
    let body = r#"{"errorType":"Panic","errorMessage":"comfy-handler has a bug; its log says where"}"#;
    let request = build_request().method("POST").uri(format!("/2018-06-01/runtime/invocation/{id}/error"));
    Ok(request.header("Lambda-Runtime-Function-Error-Type", "Unhandled").body(body.into())?)
}

/// A body in pieces of known order. It knows when it has ended, so that the last piece and the end travel together.
struct Pieces(VecDeque<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}
