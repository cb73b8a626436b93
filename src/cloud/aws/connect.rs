//! From a region and a profile to a connected [`Cloud`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextRef;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use aws_types::service_config::ServiceConfigKey;

use super::errors::Context;
use super::renewing::{Renewal, Renewing, Source};
use crate::cloud::Cloud;
use crate::error::{Error, Result};

/// How long a TCP and TLS handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From sending a request to the first byte of its answer. The slowest calls used here are CreateChangeSet with imports
/// and GetTemplate, which answer within some ten seconds; requests with large bodies set their own.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Attempts per call, where the SDK's default is 3: CloudFormation and SageMaker throttle accounts with much CI for
/// longer than that, and a deployment must not die of it.
const ATTEMPTS: u32 = 8;
/// The SDK's own default, which means that nobody set anything else.
const SDK_ATTEMPTS: u32 = 3;
/// The first pause between two attempts on the sandbox, where the SDK's default is a second.
const SANDBOX_BACKOFF: Duration = Duration::from_millis(25);
/// Both halves of the sandbox's made-up credentials.
const SANDBOX_KEY: &str = "sandbox";

/// Where to connect to.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The region; never guessed.
    pub region: String,
    /// The named profile, if one was asked for.
    pub profile: Option<String>,
    /// The sandbox's URL (`http://127.0.0.1:4599`). With it neither environment nor profile files are read, and the
    /// HTTP client has no TLS, so that a real account is out of reach.
    pub sandbox: Option<String>,
    /// Show every request at the `info` level of the log instead of `debug`.
    pub verbose: bool,
}

/// Makes all clients. No request is sent yet, so wrong credentials show with the first call.
///
/// # Errors
/// [`crate::error::Kind::Usage`] when the sandbox's URL is not plain HTTP on loopback.
pub async fn connect(connection: &Connection) -> Result<Cloud> {
    // Fails only when a provider was installed before, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();

    let (sdk, source) = match &connection.sandbox {
        Some(url) => (sandbox_config(&connection.region, url)?, Source::Fixed(sandbox_keys())),
        None => {
            let (region, profile) = (connection.region.clone(), connection.profile.clone());
            let sdk = account_config(&region, profile.as_deref()).await?;
            (sdk, Source::Chain { region, profile, app: app_name()? })
        }
    };
    let renewing = Renewing::new(source);
    let renewal = Renewal(renewing.clone());
    let sdk = sdk
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(renewing as Arc<dyn ProvideCredentials>))
        .identity_cache(IdentityCache::no_cache())
        .build();
    let context =
        Arc::new(Context::new(connection.region.clone(), connection.profile.clone(), connection.sandbox.clone()));
    let calls = Arc::new(AtomicU64::new(0));
    let counter = Counter { calls: calls.clone(), context: context.clone(), verbose: connection.verbose };
    let account = Arc::new(OnceLock::new());

    // `Config::from(&SdkConfig)` is what `Client::new` does; it reads AWS_ENDPOINT_URL_<SERVICE> and its profile twin.
    macro_rules! config {
        ($sdk:ident) => {
            $sdk::config::Builder::from(&sdk)
                .interceptor(counter.clone())
                .interceptor(renewal.clone())
                .retry_classifier(renewal.clone())
        };
    }
    macro_rules! client {
        ($sdk:ident) => {
            $sdk::Client::from_conf(config!($sdk).build())
        };
    }
    // The first call of every run: without a network it should say so in seconds, not after all attempts.
    let sts = config!(aws_sdk_sts).retry_config(few_attempts(&sdk)).build();
    // Looking at a quota is optional, and an implementation without quotas answers 500 for a minute otherwise.
    let quotas = config!(aws_sdk_servicequotas).retry_config(few_attempts(&sdk)).build();
    let mut s3 = config!(aws_sdk_s3);
    let endpoint = own_s3_endpoint(&sdk);
    if endpoint.is_some() {
        // Buckets as host names need wildcard DNS, which stand-ins on one address do not have.
        s3 = s3.force_path_style(true);
    }
    Ok(Cloud {
        identity: Box::new(super::identity::Sts::new(
            aws_sdk_sts::Client::from_conf(sts),
            context.clone(),
            account.clone(),
        )),
        objects: Arc::new(super::objects::S3::new(
            aws_sdk_s3::Client::from_conf(s3.build()),
            context.clone(),
            account.clone(),
            endpoint.is_none_or(|url| url.starts_with("https:") || is_loopback_http(&url)),
        )),
        images: Box::new(super::images::Ecr::new(client!(aws_sdk_ecr), context.clone())?),
        stacks: Box::new(super::stacks::CloudFormation::new(client!(aws_sdk_cloudformation), context.clone())),
        endpoints: Box::new(super::endpoints::SageMaker::new(client!(aws_sdk_sagemaker), context.clone())),
        scaling: Box::new(super::scaling::AutoScaling::new(client!(aws_sdk_applicationautoscaling), context.clone())),
        logs: Box::new(super::logs::CloudWatchLogs::new(client!(aws_sdk_cloudwatchlogs), context.clone())),
        quotas: Box::new(super::quotas::ServiceQuotas::new(
            aws_sdk_servicequotas::Client::from_conf(quotas),
            context.clone(),
        )),
        serving: Box::new(super::calls::Serving::new(
            config!(aws_sdk_sagemakerruntime),
            sdk.credentials_provider(),
            context,
            connection.sandbox.is_some(),
        )?),
        calls,
    })
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT).build()
}

fn app_name() -> Result<AppName> {
    AppName::new(concat!("comfy-deploy-", env!("CARGO_PKG_VERSION")))
        .map_err(|e| Error::failed("cannot name this program in requests").why(e.to_string()))
}

/// The user's account, but for the credentials.
async fn account_config(region: &str, profile: Option<&str>) -> Result<SdkConfig> {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .timeout_config(timeouts())
        .app_name(app_name()?);
    if let Some(profile) = profile {
        loader = loader.profile_name(profile);
    }
    let sdk = loader.load().await;
    Ok(with_patience(sdk, std::env::var_os("AWS_MAX_ATTEMPTS").is_some()))
}

/// Retries where an early answer is worth more than patience: no more than the SDK's default.
fn few_attempts(sdk: &SdkConfig) -> RetryConfig {
    let retry = sdk.retry_config().cloned().unwrap_or_else(RetryConfig::standard);
    let attempts = retry.max_attempts().min(SDK_ATTEMPTS);
    retry.with_max_attempts(attempts)
}

/// More attempts than the SDK's default, unless the user chose a number.
fn with_patience(sdk: SdkConfig, chosen: bool) -> SdkConfig {
    let retry = sdk.retry_config().cloned().unwrap_or_else(RetryConfig::standard);
    if chosen || retry.max_attempts() != SDK_ATTEMPTS {
        return sdk;
    }
    sdk.into_builder().retry_config(retry.with_max_attempts(ATTEMPTS)).build()
}

/// Built by hand, so that nothing is read from the environment or from files.
fn sandbox_config(region: &str, url: &str) -> Result<SdkConfig> {
    if !is_loopback_http(url) {
        return Err(Error::usage(format!("`{url}` cannot be a sandbox: it must be http on a loopback address"))
            .next("start one with `comfy-sandbox serve` and use the address it prints"));
    }
    let http = aws_smithy_http_client::Builder::new().build_with_connector_fn(|settings, components| {
        let mut connector = aws_smithy_http_client::Connector::builder();
        connector.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.build_http()
    });
    Ok(SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .endpoint_url(url)
        .http_client(http)
        .timeout_config(timeouts())
        .retry_config(
            // A stand-in on this machine recovers at once or not at all.
            RetryConfig::standard()
                .with_max_attempts(ATTEMPTS)
                .with_initial_backoff(SANDBOX_BACKOFF)
                .with_max_backoff(SANDBOX_BACKOFF * 8),
        )
        .app_name(app_name()?)
        .build())
}

fn sandbox_keys() -> Credentials {
    Credentials::from_keys(SANDBOX_KEY, SANDBOX_KEY, None)
}

/// Whether an URL is plain HTTP on this machine.
pub(super) fn is_loopback_http(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    if url.scheme() != "http" || !url.username().is_empty() || url.password().is_some() {
        return false;
    }
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Where S3 is if it is not AWS's own: by AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_S3, their profile twins, or the sandbox.
fn own_s3_endpoint(sdk: &SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder().service_id("s3").env("AWS_ENDPOINT_URL").profile("endpoint_url").build();
    let own = key.ok().zip(sdk.service_config()).and_then(|(key, config)| config.load_config(key));
    own.or_else(|| sdk.endpoint_url().map(str::to_owned))
}

/// Counts requests, retries included, and remembers each service's host for messages.
#[derive(Debug, Clone)]
struct Counter {
    calls: Arc<AtomicU64>,
    context: Arc<Context>,
    verbose: bool,
}

impl Intercept for Counter {
    fn name(&self) -> &'static str {
        "comfy-deploy request counter"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let (service, operation) =
            bag.load::<Metadata>().map_or(("?", "?"), |metadata| (metadata.service(), metadata.name()));
        // The URI is not logged: its query can carry what the user would not want in a log.
        let host = reqwest::Url::parse(context.request().uri()).ok().and_then(|url| url.host_str().map(str::to_owned));
        if let Some(host) = host {
            self.context.remember_host(service, &host);
        }
        if self.verbose {
            tracing::info!(number, "AWS {service} {operation}");
        } else {
            tracing::debug!(number, "AWS {service} {operation}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_on_this_machine_is_a_sandbox() {
        for good in ["http://127.0.0.1:4599", "http://localhost:1/", "http://[::1]:4599", "http://127.9.9.9"] {
            assert!(is_loopback_http(good), "{good}");
        }
        for bad in [
            "https://127.0.0.1:4599",
            "http://10.0.0.1",
            "http://sts.amazonaws.com",
            "http://127.0.0.1.example.com",
            "http://user@127.0.0.1",
            "127.0.0.1:4599",
            "",
        ] {
            assert!(!is_loopback_http(bad), "{bad}");
        }
    }

    #[test]
    fn the_sandbox_has_made_up_credentials_and_one_address() {
        let sdk = sandbox_config("eu-west-1", "http://127.0.0.1:4599").unwrap();
        assert_eq!(sdk.endpoint_url(), Some("http://127.0.0.1:4599"));
        assert!(sdk.service_config().is_none(), "no environment, no profile");
        assert_eq!(own_s3_endpoint(&sdk).as_deref(), Some("http://127.0.0.1:4599"));
        assert_eq!(sdk.retry_config().map(RetryConfig::max_attempts), Some(ATTEMPTS));
    }

    #[test]
    fn a_chosen_number_of_attempts_is_kept() {
        let with = |n| SdkConfig::builder().retry_config(RetryConfig::standard().with_max_attempts(n)).build();
        let attempts = |sdk: SdkConfig| sdk.retry_config().map(RetryConfig::max_attempts);
        assert_eq!(attempts(with_patience(with(3), false)), Some(8));
        assert_eq!(attempts(with_patience(with(3), true)), Some(3));
        assert_eq!(attempts(with_patience(with(5), false)), Some(5));
    }
}
