use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use aws_sdk_sagemakerruntime::error::ErrorMetadata;
use aws_sdk_sagemakerruntime::types::error::{ModelError, ServiceUnavailable, ValidationError};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::*;

/// What the scripted endpoint does with one request that it has read to the end.
#[derive(Debug, Clone)]
enum Act {
    /// Status, headers and body.
    Answer(u16, &'static str, String),
    /// Closes the connection without a word.
    Hang,
    /// Never answers.
    Silence,
}

/// An endpoint on loopback that follows a script and keeps count.
struct Scripted {
    address: std::net::SocketAddr,
    /// Requests, whole.
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<u32>>,
}

impl Scripted {
    async fn start(script: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let script = Arc::new(Mutex::new(script.into_iter().collect::<VecDeque<_>>()));
        let (requests, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let (seen, opened) = (Arc::clone(&requests), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *opened.lock().expect("lock") += 1;
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&seen)));
            }
        });
        Scripted { address, requests, connections }
    }

    async fn invoke(&self, budget: Duration) -> Result<Picture, InvokeError> {
        endpoint(&format!("http://{}", self.address)).invoke(call(budget)).await
    }

    fn count(&self) -> usize {
        self.requests.lock().expect("lock").len()
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Mutex<VecDeque<Act>>>, seen: Arc<Mutex<Vec<String>>>) {
    let mut buffer = Vec::new();
    loop {
        let Some(request) = request(&mut stream, &mut buffer).await else { return };
        seen.lock().expect("lock").push(request);
        let act = script.lock().expect("lock").pop_front();
        match act {
            Some(Act::Answer(status, headers, body)) => {
                let length = body.len();
                let head = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\n\r\n{body}");
                if stream.write_all(head.as_bytes()).await.is_err() {
                    return;
                }
            }
            Some(Act::Silence) => std::future::pending().await,
            Some(Act::Hang) | None => return,
        }
    }
}

/// One request of known length.
async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        let text = String::from_utf8_lossy(buffer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                buffer.clear();
                return Some(text);
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

/// A port of our own that refuses connections, until it is listened on.
fn reserved() -> (TcpSocket, std::net::SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

fn environment(url: &str) -> Environment {
    let url = url.to_owned();
    let read = Environment::read(move |name| match name {
        "AWS_REGION" => Some("eu-west-1".into()),
        "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("sandbox".into()),
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME" => Some(url.clone()),
        _ => None,
    });
    read.expect("an environment")
}

fn endpoint(url: &str) -> Endpoint {
    Endpoint::new("app".into(), environment(url), Retries { attempts: 3, wait: Duration::from_millis(2) })
}

fn call(budget: Duration) -> Call {
    Call { body: b"{\"1\":2}".to_vec(), accept: "*/*", budget }
}

fn model_error(status: u16) -> Act {
    let body = json!({"Message": "m", "OriginalStatusCode": status, "OriginalMessage": "original"});
    Act::Answer(424, "x-amzn-errortype: ModelError\r\ncontent-type: application/json\r\n", body.to_string())
}

fn service_error(http: u16, code: &str) -> Act {
    let header: &'static str = match code {
        "ThrottlingException" => "x-amzn-errortype: ThrottlingException\r\n",
        "ServiceUnavailable" => "x-amzn-errortype: ServiceUnavailable\r\n",
        "InternalFailure" => "x-amzn-errortype: InternalFailure\r\n",
        _ => "",
    };
    Act::Answer(http, header, json!({"Message": "m"}).to_string())
}

fn picture() -> Act {
    let headers = "content-type: image/png\r\nx-amzn-sagemaker-custom-attributes: prompt_id=p;duration_ms=5\r\n";
    Act::Answer(200, headers, "picture".into())
}

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_rehearsal_reaches_nobody() {
    let scripted = Scripted::start([Act::Answer(200, "content-type: image/png\r\n", "picture".into())]).await;
    let endpoint = endpoint(&format!("http://{}", scripted.address));
    endpoint.rehearse().await;
    assert_eq!((scripted.count(), *scripted.connections.lock().expect("lock")), (0, 0));
    // And changes nothing for what comes after it.
    endpoint.invoke(call(Duration::from_secs(9))).await.expect("a picture");
    assert_eq!(scripted.count(), 1);
}

#[tokio::test]
async fn a_picture_with_its_attributes_over_one_connection() {
    let server = Scripted::start([picture(), picture()]).await;
    let endpoint = endpoint(&format!("http://{}", server.address));
    for _ in 0..2 {
        let picture = endpoint.invoke(call(LONG)).await.expect("a picture");
        assert_eq!((picture.content_type.as_str(), &picture.body[..]), ("image/png", &b"picture"[..]));
        assert_eq!((picture.attribute("prompt_id"), picture.attribute("DURATION_MS")), (Some("p"), Some("5")));
        assert_eq!((picture.attribute("seed"), picture.attribute("")), (None, None));
    }
    let requests = server.requests.lock().expect("lock");
    assert_eq!((requests.len(), *server.connections.lock().expect("lock")), (2, 1));
    assert!(requests[0].starts_with("POST /endpoints/app/invocations HTTP/1.1\r\n"), "{}", requests[0]);
    let lower = requests[0].to_ascii_lowercase();
    for header in ["accept: */*\r\n", "content-type: application/json\r\n", "authorization: aws4-hmac-sha256 "] {
        assert!(lower.contains(header), "{header} is missing: {lower}");
    }
    assert!(requests[0].ends_with("\r\n\r\n{\"1\":2}"));
}

#[tokio::test]
async fn what_may_have_run_the_prompt_is_never_repeated() {
    for act in [
        model_error(500),
        model_error(503),
        model_error(429),
        model_error(504),
        service_error(503, "ServiceUnavailable"),
        service_error(500, "InternalFailure"),
        service_error(502, ""),
        Act::Answer(500, "", "<html>".into()),
        Act::Answer(200, "content-length: 100\r\n", String::new()),
        Act::Hang,
    ] {
        let server = Scripted::start([act.clone(), picture(), picture()]).await;
        assert!(server.invoke(LONG).await.is_err(), "{act:?}");
        assert_eq!(server.count(), 1, "{act:?} was repeated");
    }
}

#[tokio::test]
async fn silence_after_the_prompt_was_sent_ends_with_the_budget() {
    let server = Scripted::start([Act::Silence, picture()]).await;
    let error = server.invoke(Duration::from_secs(1)).await.expect_err("no picture");
    assert_eq!((error, server.count()), (InvokeError::TimedOut { seconds: 1 }, 1));
}

#[tokio::test]
async fn throttling_is_repeated() {
    for act in [service_error(429, ""), service_error(400, "ThrottlingException")] {
        let server = Scripted::start([act.clone(), act.clone(), picture()]).await;
        assert_eq!(server.invoke(LONG).await.expect("a picture").body, "picture");
        assert_eq!(server.count(), 3);
        let bodies: Vec<_> = server.requests.lock().expect("lock").iter().map(|r| r.ends_with("{\"1\":2}")).collect();
        assert_eq!(bodies, [true; 3], "an attempt was sent without its body");

        let server = Scripted::start(vec![act; 9]).await;
        assert_eq!(server.invoke(LONG).await, Err(InvokeError::Throttled));
        assert_eq!(server.count(), 3, "the attempts are limited");
    }
}

#[tokio::test]
async fn a_connection_that_never_was_is_repeated() {
    let (_reserved, address) = reserved();
    let error = endpoint(&format!("http://{address}")).invoke(call(LONG)).await.expect_err("nobody listens");
    assert_eq!(error, InvokeError::Unreachable("no connection".into()));

    // TLS that fails: accepted and closed each time, so that the attempts can be counted.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let accepted = Arc::new(Mutex::new(0));
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            *count.lock().expect("lock") += 1;
            drop(stream);
        }
    });
    let error = endpoint(&format!("https://{address}")).invoke(call(LONG)).await.expect_err("no TLS");
    assert_eq!((error, *accepted.lock().expect("lock")), (InvokeError::Unreachable("no connection".into()), 3));
}

#[tokio::test]
async fn a_connection_that_takes_too_long_never_was() {
    let (socket, address) = reserved();
    // Room for one that is not accepted; the kernel passes over all others.
    let _listener = socket.listen(0).expect("listens");
    let _only = TcpStream::connect(address).await.expect("the one");
    let retries = Retries { attempts: 1, wait: Duration::ZERO };
    let endpoint = Endpoint::new("app".into(), environment(&format!("http://{address}")), retries);
    assert_eq!(endpoint.invoke(call(LONG)).await, Err(InvokeError::Unreachable("no connection".into())));
}

#[tokio::test]
async fn a_connect_error_then_a_picture() {
    // Nobody listens at first, and the server does between two attempts.
    let (reserved, address) = reserved();
    let retries = Retries { attempts: 100, wait: Duration::from_millis(2) };
    let endpoint = Endpoint::new("app".into(), environment(&format!("http://{address}")), retries);
    let script = Arc::new(Mutex::new(VecDeque::from([picture()])));
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&requests);
    let server = async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let listener = reserved.listen(8).expect("listens");
        let (stream, _) = listener.accept().await.expect("a connection");
        serve(stream, script, seen).await;
    };
    tokio::spawn(server);
    assert_eq!(endpoint.invoke(call(LONG)).await.expect("a picture").body, "picture");
    assert_eq!(requests.lock().expect("lock").len(), 1);
}

#[test]
fn service_errors() {
    let model = ModelError::builder().original_status_code(400).original_message("bad").build();
    let generic = |code: &str| InvokeEndpointError::generic(ErrorMetadata::builder().code(code).build());
    let unavailable = ServiceUnavailable::builder().build();
    for (error, http, expected) in [
        (InvokeEndpointError::ModelError(model), 424, InvokeError::Model { status: 400, message: "bad".into() }),
        (
            InvokeEndpointError::ModelError(ModelError::builder().message("timed out").build()),
            424,
            InvokeError::Model { status: 0, message: "timed out".into() },
        ),
        (InvokeEndpointError::ServiceUnavailable(unavailable), 503, InvokeError::Unavailable),
        (generic("ThrottlingException"), 400, InvokeError::Throttled),
        (generic("Slow"), 429, InvokeError::Throttled),
        (generic("AccessDeniedException"), 400, InvokeError::Denied),
        (generic("UnrecognizedClientException"), 403, InvokeError::Denied),
        (generic("X"), 413, InvokeError::TooLarge),
        (generic("X"), 503, InvokeError::Unavailable),
        (generic("X"), 418, InvokeError::Failed("SageMaker answered 418 X".into())),
    ] {
        let failure = of_service(&error, http);
        let repeatable = expected == InvokeError::Throttled;
        assert_eq!(failure, Failure { error: expected, repeatable });
    }
}

#[test]
fn validation_errors_are_told_apart_by_their_words() {
    for (message, expected) in [
        ("Endpoint app of account 123456789012 not found.", InvokeError::NotReady as fn(String) -> InvokeError),
        ("Endpoint app is not InService", InvokeError::NotReady),
        ("Endpoint app is Updating", InvokeError::NotReady),
        ("Variant X is unknown", InvokeError::Rejected),
    ] {
        let error = InvokeEndpointError::ValidationError(ValidationError::builder().message(message).build());
        assert_eq!(of_service(&error, 400).error, expected(message.to_owned()), "{message}");
    }
    let long = "1 validation error detected: Value at 'body' failed to satisfy constraint: Member must have length less \
                than or equal to 6291456";
    assert_eq!(of_validation(long.into()), InvokeError::TooLarge);
}

#[test]
fn waits_double_and_are_drawn() {
    let retries = Retries { attempts: 4, wait: Duration::from_millis(400) };
    for (next, drawn, milliseconds) in [(2, 0.0, 200), (2, 1.0, 400), (3, 1.0, 800), (4, 0.0, 800), (4, 7.0, 1600)] {
        assert_eq!(retries.wait_before(next, drawn), Duration::from_millis(milliseconds));
    }
    let all: Duration = (2..=Retries::default().attempts).map(|next| Retries::default().wait_before(next, 1.0)).sum();
    assert!(all < Duration::from_secs(3), "the caller waits for a picture, not for us");
}

#[test]
fn the_environment_of_lambda() {
    let with = |variables: &'static [(&str, &str)]| {
        Environment::read(move |name| variables.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned()))
    };
    let all = with(&[
        ("AWS_REGION", "eu-west-1"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_SESSION_TOKEN", "t"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("AWS_USE_FIPS_ENDPOINT", "true"),
    ])
    .expect("an environment");
    assert_eq!((all.region.as_str(), all.endpoint_url.as_deref()), ("eu-west-1", Some("http://127.0.0.1:1")));
    assert_eq!((all.credentials.session_token(), all.fips, all.dual_stack), (Some("t"), true, false));
    let ignored = with(&[
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true"),
    ])
    .expect("an environment");
    assert_eq!((ignored.region.as_str(), ignored.endpoint_url), ("us-east-1", None));
    for (variables, missing) in [
        (&[][..], "AWS_REGION"),
        (&[("AWS_REGION", "x")], "AWS_ACCESS_KEY_ID"),
        (&[("AWS_REGION", "x"), ("AWS_ACCESS_KEY_ID", " ")], "AWS_ACCESS_KEY_ID"),
        (&[("AWS_REGION", "x"), ("AWS_ACCESS_KEY_ID", "a")], "AWS_SECRET_ACCESS_KEY"),
    ] {
        assert!(with(variables).is_err_and(|why| why.contains(missing)), "{missing}");
    }
}
