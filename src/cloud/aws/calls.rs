//! The Function URL by a signed request, the endpoint by the function's own code.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_sagemakerruntime::config::Builder;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use bytes::Bytes;
use comfy_handler::{Endpoint, Handler, OPERATION_TIMEOUT, Retries, UrlMode, Workflows};
use serde_json::{Map as Object, Value};
use tokio::sync::Mutex;

use super::errors::{Context, causes};
use crate::cloud::{Answer, Calls, UrlCall};
use crate::error::{Error, Result};

/// How long a TCP and TLS handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest silence: the function answers within 65 s, or Lambda ends it after its own time, 90 s by default.
const READ_TIMEOUT: Duration = Duration::from_secs(120);
/// Credentials that end so soon are fetched anew: a signature must be good when it arrives.
const FRESH: Duration = Duration::from_secs(60);

/// [`Calls`] with the profile's credentials.
pub(super) struct Serving {
    http: reqwest::Client,
    runtime: Builder,
    credentials: Option<SharedCredentialsProvider>,
    known: Mutex<Option<Credentials>>,
    context: Arc<Context>,
}

impl Serving {
    /// `runtime` is the configuration of the SageMaker runtime client; `direct` keeps proxies out of the way.
    pub(super) fn new(
        runtime: Builder,
        credentials: Option<SharedCredentialsProvider>,
        context: Arc<Context>,
        direct: bool,
    ) -> Result<Self> {
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            // A signature is for one address, and a Function URL sends nobody elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("comfy-deploy/", env!("CARGO_PKG_VERSION")));
        if direct {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|e| Error::failed("cannot set up the HTTP client").why(causes(&e)))?;
        Ok(Serving { http, runtime, credentials, known: Mutex::default(), context })
    }

    /// The credentials, fetched once for several calls.
    async fn credentials(&self) -> Result<Credentials> {
        const WHAT: &str = "cannot sign the request";
        let mut known = self.known.lock().await;
        let fresh = |c: &Credentials| c.expiry().is_none_or(|end| end > SystemTime::now() + FRESH);
        if let Some(credentials) = known.as_ref().filter(|c| fresh(c)) {
            return Ok(credentials.clone());
        }
        let Some(provider) = &self.credentials else {
            return Err(Error::failed(WHAT).why("there is no source of credentials"));
        };
        let found = provider.provide_credentials().await.map_err(|e| self.context.no_credentials(WHAT.into(), &e))?;
        *known = Some(found.clone());
        Ok(found)
    }
}

#[async_trait]
impl Calls for Serving {
    async fn url(&self, call: &UrlCall) -> Result<Answer> {
        const OPERATION: &str = "lambda:InvokeFunctionUrl";
        let mut request = self
            .http
            .post(&call.url)
            .header("content-type", "application/json")
            .body(call.body.clone())
            .build()
            .map_err(|e| Error::failed(format!("{} cannot be called", call.url)).why(causes(&e)))?;
        if call.sign {
            let identity = self.credentials().await?.into();
            for (name, value) in signature(&request, &call.body, &identity, self.context.region(), SystemTime::now())? {
                let bad = |why: String| Error::failed("cannot sign the request").why(why);
                let name = reqwest::header::HeaderName::try_from(name).map_err(|e| bad(e.to_string()))?;
                let value = reqwest::header::HeaderValue::try_from(value).map_err(|e| bad(e.to_string()))?;
                request.headers_mut().insert(name, value);
            }
        }
        if let Some(host) = request.url().host_str() {
            self.context.remember_host("lambda", host);
        }
        let lost = |e: reqwest::Error| {
            let what = match e.is_connect() {
                true => "the Function URL cannot be reached",
                false => "the connection to the Function URL broke; the picture may have been made all the same",
            };
            self.context.unreachable(OPERATION, what.to_owned(), causes(&e))
        };
        let response = self.http.execute(request).await.map_err(lost)?;
        let status = response.status().as_u16();
        let headers = response
            .headers()
            .iter()
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
            .collect();
        Ok(Answer { status, headers, body: response.bytes().await.map_err(lost)? })
    }

    async fn endpoint(&self, name: &str, workflows: Workflows, body: Object<String, Value>) -> Result<Answer> {
        let endpoint = Endpoint::with_config(name.to_owned(), self.runtime.clone(), Retries::default());
        let handler = Handler::new(workflows, endpoint, UrlMode::Stream);
        let reply = handler.answer_here(body, OPERATION_TIMEOUT).await;
        let headers = reply.headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        Ok(Answer { status: reply.status, headers, body: reply.body })
    }
}

/// The headers that sign a request (SigV4, service lambda).
fn signature(
    request: &reqwest::Request,
    body: &Bytes,
    identity: &Identity,
    region: &str,
    now: SystemTime,
) -> Result<Vec<(String, String)>> {
    let failed = |why: String| Error::failed("cannot sign the request").why(why);
    let params = v4::SigningParams::builder()
        .identity(identity)
        .region(region)
        .name("lambda")
        .time(now)
        .settings(SigningSettings::default())
        .build()
        .map_err(|e| failed(e.to_string()))?
        .into();
    // The content type is signed along; the host comes from the URL.
    let headers = request.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let signable = SignableRequest::new(
        request.method().as_str(),
        request.url().as_str(),
        headers.filter(|(name, _)| *name == "content-type"),
        SignableBody::Bytes(body),
    )
    .map_err(|e| failed(e.to_string()))?;
    let (instructions, _) = sign(signable, &params).map_err(|e| failed(causes(&e)))?.into_parts();
    let (headers, _) = instructions.into_parts();
    Ok(headers.into_iter().map(|header| (header.name().to_owned(), header.value().to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same request at the same time as botocore signs it (`SigV4Auth(credentials, "lambda", "eu-west-1")`).
    #[test]
    fn a_signature_is_that_of_the_aws_sdk_for_python() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let body = Bytes::from_static(br#"{"positive_prompt":"a happy dog"}"#);
        let request = reqwest::Client::new()
            .post("https://abc.lambda-url.eu-west-1.on.aws/")
            .header("content-type", "application/json")
            .build()
            .unwrap();
        let identity = Credentials::new("AKIDEXAMPLE", "secret", Some("token".into()), None, "test").into();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let headers = signature(&request, &body, &identity, "eu-west-1", now).unwrap();
        let value = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).unwrap();
        assert_eq!(value("x-amz-date"), "20260921T141320Z");
        assert_eq!(value("x-amz-security-token"), "token");
        assert_eq!(
            value("authorization"),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260921/eu-west-1/lambda/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, \
             Signature=79ec8aec90380ffee311bbc8f19d14337f8a84f800af1ebe459192297b66b36d"
        );
    }
}
