//! The endpoint through the SDK.

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_sagemakerruntime::Client;
use aws_sdk_sagemakerruntime::config::retry::RetryConfig;
use aws_sdk_sagemakerruntime::config::timeout::TimeoutConfig;
use aws_sdk_sagemakerruntime::config::{BehaviorVersion, Region, StalledStreamProtectionConfig};
use aws_sdk_sagemakerruntime::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sagemakerruntime::operation::invoke_endpoint::InvokeEndpointError;
use aws_sdk_sagemakerruntime::operation::invoke_endpoint::builders::InvokeEndpointFluentBuilder;
use aws_sdk_sagemakerruntime::primitives::Blob;
use aws_smithy_http_client::{Builder as HttpClient, tls};
use hyper_util::client::legacy::Error as HttpError;

use crate::invoke::{Call, Invoke, InvokeError, Invoked, Picture};

/// How long a connection may take. SageMaker is in the same region; what takes longer is lost.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// After this long without use a connection is made anew. Lambda stops the process between events, and what closed or
/// dropped a connection meanwhile would be noticed only when a prompt is on its way, too late to try again.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// What Lambda tells a function through its environment, and nothing else: there are no profile files and no instance
/// metadata in Lambda, and looking for them is most of what the SDK's default chain does at the start. The credentials
/// outlive the process, for Lambda starts a new one before they expire.
#[derive(Debug, Clone)]
pub struct Environment {
    region: String,
    credentials: Credentials,
    endpoint_url: Option<String>,
    fips: bool,
    dual_stack: bool,
}

impl Environment {
    /// Reads variables by name.
    ///
    /// # Errors
    /// The region or the credentials are not set.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let needed = |name: &str| variable(name).ok_or_else(|| format!("{name} is not set"));
        let is_true = |name: &str| variable(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let region = variable("AWS_REGION").map_or_else(|| needed("AWS_DEFAULT_REGION"), Ok);
        let endpoint_url = match is_true("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") {
            true => None,
            false => variable("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME").or_else(|| variable("AWS_ENDPOINT_URL")),
        };
        Ok(Environment {
            region: region.map_err(|_| "AWS_REGION is not set".to_owned())?,
            credentials: Credentials::new(
                needed("AWS_ACCESS_KEY_ID")?,
                needed("AWS_SECRET_ACCESS_KEY")?,
                variable("AWS_SESSION_TOKEN"),
                None,
                "Environment",
            ),
            endpoint_url,
            fips: is_true("AWS_USE_FIPS_ENDPOINT"),
            dual_stack: is_true("AWS_USE_DUALSTACK_ENDPOINT"),
        })
    }
}

/// When and how often to try again. Only what surely ran no prompt is tried again: no connection, or throttling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Attempts in all.
    pub attempts: u32,
    /// The longest wait before the second attempt; it doubles from one to the next. The waits are drawn between half
    /// of that and all of it, so that callers who were throttled together do not come again together.
    pub wait: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Retries { attempts: 4, wait: Duration::from_millis(400) }
    }
}

impl Retries {
    /// Before attempt `next` (2 is the first that waits); `drawn` is between 0 and 1.
    fn wait_before(self, next: u32, drawn: f64) -> Duration {
        let longest = self.wait.saturating_mul(1 << next.saturating_sub(2).min(8));
        longest.mul_f64(0.5 + drawn.clamp(0.0, 1.0) / 2.0)
    }
}

/// A SageMaker endpoint. One client and its connections for the life of the process.
#[derive(Debug, Clone)]
pub struct Endpoint {
    client: Client,
    name: String,
    retries: Retries,
}

impl Endpoint {
    /// Makes the client; nothing is sent yet.
    pub fn new(name: String, environment: Environment, retries: Retries) -> Self {
        let mut config = aws_sdk_sagemakerruntime::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(environment.region))
            .credentials_provider(environment.credentials)
            .use_fips(environment.fips)
            .use_dual_stack(environment.dual_stack)
            // The SDK would also repeat what failed or timed out after the prompt was sent: see `Retries`.
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build())
            // Silence while the picture is made is normal here.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        let tls = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc);
        // The certificates are read here, while Lambda lends a new process a whole processor, not at the first event.
        let http = HttpClient::new().tls_provider(tls).pool_idle_timeout(IDLE_TIMEOUT).build_https();
        config.set_http_client(Some(http));
        config.set_endpoint_url(environment.endpoint_url);
        Endpoint { client: Client::from_conf(config.build()), name, retries }
    }

    /// On a client that is configured elsewhere: region, credentials and connections are those of `config`. What must not
    /// be repeated is decided here all the same.
    pub fn with_config(name: String, config: aws_sdk_sagemakerruntime::config::Builder, retries: Retries) -> Self {
        let config = config
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        Endpoint { client: Client::from_conf(config.build()), name, retries }
    }

    /// Makes a request that goes nowhere. What a first request costs beyond others (code that is yet to be read, tables
    /// that are yet to be made) is so spent while Lambda lends a new process a whole processor and nobody waits.
    pub async fn rehearse(&self) {
        // Port 0 is nobody's: the system refuses to connect, and nothing leaves the process.
        let nowhere = aws_sdk_sagemakerruntime::Config::builder().endpoint_url("http://127.0.0.1:0");
        let request = self.client.invoke_endpoint().endpoint_name(&self.name).content_type("application/json");
        let request = request.accept("*/*").body(Blob::new("{}")).customize().config_override(nowhere);
        if let Err(error) = request.send().await {
            tracing::debug!("rehearsed: {error}");
        }
    }

    async fn send(&self, call: Call) -> Result<Picture, InvokeError> {
        let budget = call.budget;
        // The function is out of time: a prompt that is sent now is paid for and seen by nobody.
        if budget.is_zero() {
            return Err(InvokeError::TimedOut { seconds: 0 });
        }
        let attempts = async {
            let request = self.client.invoke_endpoint().endpoint_name(&self.name).content_type("application/json");
            let mut request = Some(request.accept(call.accept).body(Blob::new(call.body)));
            for attempt in 1.. {
                // The last attempt takes the request itself; the others a copy, for they consume it.
                let last = attempt >= self.retries.attempts;
                let Some(this) = (if last { request.take() } else { request.clone() }) else { break };
                match attempt_once(this).await {
                    Err(failure) if failure.repeatable && !last => {
                        tracing::warn!(attempt, "SageMaker took nothing yet; trying again");
                        tokio::time::sleep(self.retries.wait_before(attempt + 1, rand::random())).await;
                    }
                    Err(failure) => return Err(failure.error),
                    Ok(picture) => return Ok(picture),
                }
            }
            Err(InvokeError::Unavailable)
        };
        // One limit around it all: what was sent cannot be called back, and a reply must still be made.
        tokio::time::timeout(budget, attempts).await.unwrap_or(Err(InvokeError::TimedOut { seconds: budget.as_secs() }))
    }
}

impl Invoke for Endpoint {
    fn invoke(&self, call: Call) -> Invoked<'_> {
        Box::pin(self.send(call))
    }
}

/// Why an attempt failed.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    error: InvokeError,
    /// No prompt can have run.
    repeatable: bool,
}

async fn attempt_once(request: InvokeEndpointFluentBuilder) -> Result<Picture, Failure> {
    let answer = request.send().await.map_err(translate)?;
    Ok(Picture {
        content_type: answer.content_type.unwrap_or_default(),
        attributes: answer.custom_attributes.unwrap_or_default(),
        body: answer.body.map(Blob::into_inner).unwrap_or_default().into(),
    })
}

fn translate(error: SdkError<InvokeEndpointError>) -> Failure {
    let once = |error| Failure { error, repeatable: false };
    match &error {
        SdkError::ConstructionFailure(_) => return once(InvokeError::Failed("the request cannot be made".into())),
        SdkError::DispatchFailure(failure) => {
            let cause = failure.as_connector_error().map(|error| error as &(dyn std::error::Error + 'static));
            // A connection that broke may have carried the prompt already; one that never was cannot have.
            return match cause.is_some_and(never_connected) {
                true => Failure { error: InvokeError::Unreachable("no connection".into()), repeatable: true },
                false => once(InvokeError::Failed("the connection to SageMaker broke before the answer came".into())),
            };
        }
        _ => {}
    }
    let http = error.raw_response().map_or(0, |response| response.status().as_u16());
    match error.as_service_error() {
        Some(service) => of_service(service, http),
        None => once(InvokeError::Failed("the answer of SageMaker cannot be read".into())),
    }
}

/// Whether an error came about while connecting: DNS, TCP, TLS, or their time limit.
fn never_connected(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .any(|error| error.downcast_ref::<HttpError>().is_some_and(HttpError::is_connect))
}

fn of_service(error: &InvokeEndpointError, http: u16) -> Failure {
    let code = error.code().unwrap_or_default();
    let words = || error.message().unwrap_or("it gives no reason").to_owned();
    let throttled = http == 429 || matches!(code, "ThrottlingException" | "Throttling" | "TooManyRequestsException");
    let error = match error {
        InvokeEndpointError::ModelError(model) => InvokeError::Model {
            status: model.original_status_code().and_then(|code| u16::try_from(code).ok()).unwrap_or(0),
            message: model.original_message().or_else(|| model.message()).unwrap_or_default().to_owned(),
        },
        _ if throttled => return Failure { error: InvokeError::Throttled, repeatable: true },
        InvokeEndpointError::ModelNotReadyException(_) => InvokeError::NotReady("its model is being loaded".into()),
        InvokeEndpointError::ServiceUnavailable(_)
        | InvokeEndpointError::InternalDependencyException(_)
        | InvokeEndpointError::InternalFailure(_) => InvokeError::Unavailable,
        InvokeEndpointError::ValidationError(error) => of_validation(error.message().map_or_else(words, str::to_owned)),
        _ => match (code, http) {
            ("AccessDeniedException" | "AccessDenied", _) | (_, 401 | 403) => InvokeError::Denied,
            ("ValidationException", _) => of_validation(words()),
            ("RequestEntityTooLargeException", _) | (_, 413) => InvokeError::TooLarge,
            (_, 500..=599) => InvokeError::Unavailable,
            (code, _) => InvokeError::Failed(format!("SageMaker answered {http} {code}").trim_end().to_owned()),
        },
    };
    Failure { error, repeatable: false }
}

/// One code for all that SageMaker finds before it calls a container; only the words tell what.
fn of_validation(message: String) -> InvokeError {
    let lower = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if says(&["not found", "inservice", "in service", "creating", "updating", "rollingback", "not ready"]) {
        InvokeError::NotReady(message)
    } else if says(&["'body'", "body size", "payload size", "too large"]) {
        InvokeError::TooLarge
    } else {
        InvokeError::Rejected(message)
    }
}

#[cfg(test)]
mod tests;
