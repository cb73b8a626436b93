//! Credentials that are got anew when they end, and also when a service says that they have ended.
//!
//! The SDK's own cache renews credentials shortly before the end that they name. It goes on with refused ones for as long
//! as they claim to be good, and its providers read a profile once, so keys that somebody renewed meanwhile would not be
//! seen. A deployment takes longer than many sessions live; so here a refusal gets the chain walked once more, and the
//! request is signed and sent again if that gave other credentials.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_config::{AppName, BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, Result, future};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    AfterDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef, InterceptorContext,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};

/// How long before their end credentials are renewed: the SDK's own margin.
const MARGIN: Duration = Duration::from_secs(10);

/// A credential process or an SSO refresh may take its time; the metadata service has the SDK's own limit of one second
/// per connection, so a laptop never waits this long for it.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where credentials come from.
#[derive(Debug)]
pub(super) enum Source {
    /// The SDK's chain: environment, profile, SSO, assumed role, credential process, web identity, metadata.
    Chain { region: String, profile: Option<String>, app: AppName },
    /// Always the same ones.
    Fixed(Credentials),
}

impl Source {
    async fn get(&self) -> Result {
        match self {
            Source::Fixed(credentials) => Ok(credentials.clone()),
            Source::Chain { region, profile, app } => {
                let mut loader = aws_config::defaults(BehaviorVersion::latest())
                    .region(Region::new(region.clone()))
                    .app_name(app.clone());
                if let Some(profile) = profile {
                    loader = loader.profile_name(profile);
                }
                // A chain made now, for its providers keep what they read.
                let chain = loader.load().await;
                match chain.credentials_provider() {
                    Some(provider) => provider.provide_credentials().await,
                    None => Err(CredentialsError::not_loaded("the SDK has no way to get credentials")),
                }
            }
        }
    }
}

/// The credentials in use, renewed as needed; shared by all clients.
#[derive(Debug)]
pub(super) struct Renewing {
    source: Source,
    current: tokio::sync::Mutex<Option<Credentials>>,
    refusals: Mutex<Refusals>,
}

#[derive(Debug, Default)]
struct Refusals {
    /// Access key id that a service called expired last.
    refused: Option<String>,
    /// Access key id that came again when a refused one was to be replaced.
    dead: Option<String>,
}

impl Renewing {
    pub(super) fn new(source: Source) -> Arc<Self> {
        Arc::new(Renewing { source, current: tokio::sync::Mutex::default(), refusals: Mutex::default() })
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current credentials, or new ones if those end soon or were refused. One caller walks the chain, all others
    /// wait for what it finds.
    async fn provide(&self) -> Result {
        let mut current = self.current.lock().await;
        let refused = self.refusals().refused.clone();
        let is_refused = |c: &Credentials| refused.as_deref() == Some(c.access_key_id());
        if let Some(good) = current.as_ref().filter(|c| !is_refused(c) && !ended(c, MARGIN)) {
            return Ok(good.clone());
        }
        let got = tokio::time::timeout(TIMEOUT, self.source.get()).await;
        match got.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(TIMEOUT))) {
            Ok(new) => {
                let dead = is_refused(&new).then(|| new.access_key_id().to_owned());
                tracing::debug!(again = dead.is_some(), "credentials obtained");
                self.refusals().dead = dead;
                *current = Some(new.clone());
                Ok(new)
            }
            // Too early to give up: the old ones are good for a moment still.
            Err(e) => match current.as_ref().filter(|c| !is_refused(c) && !ended(c, Duration::ZERO)) {
                Some(good) => Ok(good.clone()),
                None => Err(e),
            },
        }
    }

    /// A service called the credentials with this access key id expired.
    fn refused(&self, key: &str) {
        self.refusals().refused = Some(key.to_owned());
    }

    /// Whether a request that was refused may go through with other credentials.
    fn hopeful(&self) -> bool {
        self.refusals().dead.is_none()
    }
}

fn ended(credentials: &Credentials, margin: Duration) -> bool {
    credentials.expiry().is_some_and(|end| end <= SystemTime::now() + margin)
}

impl ProvideCredentials for Renewing {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.provide())
    }
}

/// Notices refusals, and has refused requests sent again while there is hope.
#[derive(Debug, Clone)]
pub(super) struct Renewal(pub(super) Arc<Renewing>);

/// Whose signature a request carries: an access key id.
#[derive(Debug)]
struct SignedBy(String);

impl Storable for SignedBy {
    type Storer = StoreReplace<Self>;
}

impl Intercept for Renewal {
    fn name(&self) -> &'static str {
        "comfy-deploy credentials"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> std::result::Result<(), BoxError> {
        let signature = context.request().headers().get("authorization");
        let key = signature.and_then(|s| s.split_once("Credential=")?.1.split_once('/')).map(|(key, _)| key.to_owned());
        if let Some(key) = key {
            bag.interceptor_state().store_put(SignedBy(key));
        }
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> std::result::Result<(), BoxError> {
        if context.output_or_error().is_err()
            && says_expired(context.response())
            && let Some(SignedBy(key)) = bag.load::<SignedBy>()
        {
            self.0.refused(key);
        }
        Ok(())
    }
}

impl ClassifyRetry for Renewal {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let failed = matches!(context.output_or_error(), Some(Err(_)));
        match failed && context.response().is_some_and(says_expired) && self.0.hopeful() {
            true => RetryAction::transient_error(),
            false => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "comfy-deploy credentials"
    }
}

/// Whether an error says that the credentials have ended: `ExpiredToken` (S3 and the query services) or
/// `ExpiredTokenException`. S3's answer to HEAD has no body, so there a bare 400 may mean it.
fn says_expired(response: &HttpResponse) -> bool {
    let status = response.status().as_u16();
    let named = |text: &[u8]| text.windows(EXPIRED.len()).any(|at| at == EXPIRED.as_bytes());
    let header = response.headers().get("x-amzn-errortype").is_some_and(|kind| kind.contains(EXPIRED));
    let body = response.body().bytes();
    matches!(status, 400 | 401 | 403)
        && (header || body.is_some_and(|body| named(body) || (status == 400 && body.is_empty())))
}

const EXPIRED: &str = "ExpiredToken";

#[cfg(test)]
mod tests {
    use aws_smithy_types::body::SdkBody;

    use super::*;

    fn keys(key: &str, seconds: Option<u64>) -> Credentials {
        let end = seconds.map(|seconds| SystemTime::now() + Duration::from_secs(seconds));
        Credentials::new(key, "secret", None, end, "test")
    }

    #[tokio::test]
    async fn refused_credentials_are_asked_for_again_and_given_up_when_the_same_come() {
        let renewing = Renewing::new(Source::Fixed(keys("A", None)));
        assert_eq!(renewing.provide().await.unwrap().access_key_id(), "A");
        // A refusal of others, which came late, says nothing about these.
        renewing.refused("OLD");
        renewing.provide().await.unwrap();
        assert!(renewing.hopeful());
        renewing.refused("A");
        assert!(renewing.hopeful(), "others may come");
        assert_eq!(renewing.provide().await.unwrap().access_key_id(), "A");
        assert!(!renewing.hopeful());
    }

    #[tokio::test]
    async fn credentials_are_renewed_before_their_end() {
        let renewing = Renewing::new(Source::Fixed(keys("B", None)));
        *renewing.current.lock().await = Some(keys("A", Some(5)));
        assert_eq!(renewing.provide().await.unwrap().access_key_id(), "B");
        *renewing.current.lock().await = Some(keys("A", Some(60)));
        assert_eq!(renewing.provide().await.unwrap().access_key_id(), "A");
    }

    #[test]
    fn expired_is_told_in_every_protocol() {
        let answer =
            |status: u16, body: &'static str| HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body));
        let xml = "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>";
        let json =
            r#"{"__type":"ExpiredTokenException","message":"The security token included in the request is expired"}"#;
        assert!(says_expired(&answer(400, xml)) && says_expired(&answer(403, xml)) && says_expired(&answer(400, json)));
        assert!(says_expired(&answer(400, "")), "HEAD");
        assert!(!says_expired(&answer(404, "")) && !says_expired(&answer(403, "")));
        assert!(!says_expired(&answer(403, "<Error><Code>AccessDenied</Code></Error>")));
        let mut rest = answer(403, r#"{"message":"The security token included in the request is expired"}"#);
        rest.headers_mut().insert("x-amzn-errortype", "ExpiredTokenException");
        assert!(says_expired(&rest));
    }
}
