//! From an SDK error to ours: operation, code, message, request id and status kept; kind and hint added.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::sync::Mutex;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::error::{Error, Kind, ServiceError};

/// What messages need to know about the connection.
#[derive(Debug)]
pub(super) struct Context {
    region: String,
    profile: Option<String>,
    sandbox: Option<String>,
    /// Service name to the host of its latest request.
    hosts: Mutex<BTreeMap<String, String>>,
}

impl Context {
    pub(super) fn new(region: String, profile: Option<String>, sandbox: Option<String>) -> Self {
        Context { region, profile, sandbox, hosts: Mutex::default() }
    }

    /// The connected region.
    pub(super) fn region(&self) -> &str {
        &self.region
    }

    /// Keeps the host that a service (by the SDK's name for it) was last asked at.
    pub(super) fn remember_host(&self, service: &str, host: &str) {
        let mut hosts = self.hosts.lock().unwrap_or_else(|e| e.into_inner());
        if hosts.get(&key(service)).is_none_or(|known| known != host) {
            hosts.insert(key(service), host.to_owned());
        }
    }

    /// The host for an operation such as `s3:PutObject`.
    fn host(&self, operation: &str) -> String {
        let service = operation.split(':').next().unwrap_or(operation);
        let hosts = self.hosts.lock().unwrap_or_else(|e| e.into_inner());
        hosts
            .get(&key(sdk_name(service)))
            .cloned()
            .unwrap_or_else(|| format!("the {service} endpoint of {}", self.region))
    }

    /// Turns an SDK error into ours. `operation` is as in `cloudformation:CreateChangeSet`, `what` the sentence that
    /// says what failed (`cannot create a change set for stack demo`).
    pub(super) fn explain<E>(
        &self,
        operation: &str,
        what: impl Into<String>,
        error: &SdkError<E, HttpResponse>,
    ) -> Error
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        if let Some(service) = answer(operation, error) {
            return self.refused(what.into(), service);
        }
        if let Some(missing) = find::<CredentialsError>(error) {
            return self.no_credentials(what.into(), missing);
        }
        let what = what.into();
        match error {
            SdkError::ConstructionFailure(_) => Error::failed(what).why(causes(error)),
            _ if error.raw_response().is_some() => {
                let whose = format!("{} gave an answer that does not make sense", self.host(operation));
                Error::failed(what).why(whose).why(causes(error))
            }
            _ => self.unreachable(operation, what, causes(error)),
        }
    }

    /// No usable answer came.
    pub(super) fn unreachable(&self, operation: &str, what: String, cause: String) -> Error {
        let error = Error::failed(what).why(format!("no answer from {}", self.host(operation))).why(cause);
        match &self.sandbox {
            Some(url) => error.next(format!("check that the sandbox at {url} runs: `comfy-sandbox serve`")),
            None => error.next(format!(
                "check the network, proxy settings and that `{}` is the right region, then run the same command again; it continues where it stopped",
                self.region
            )),
        }
    }

    /// AWS answered, with an error.
    fn refused(&self, what: String, service: ServiceError) -> Error {
        let (kind, next) = self.judge(&service);
        let error = Error::service(what, service).kind_is(kind);
        match next {
            Some(next) => error.next(next),
            None => error,
        }
    }

    fn login_hint(&self) -> String {
        match &self.profile {
            Some(profile) => {
                format!("run `aws sso login --profile {profile}` (or renew profile `{profile}` the way you got it)")
            }
            None => {
                "run `aws sso login`, or renew AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN".into()
            }
        }
    }

    /// The kind of a refusal and what to do about it.
    fn judge(&self, service: &ServiceError) -> (Kind, Option<String>) {
        let code = service.code.as_str();
        match code {
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "RequestExpired" => (
                Kind::Access,
                Some(format!("the credentials have expired: {}, then run the same command again; it continues where it stopped", self.login_hint())),
            ),
            // HEAD has no body. This is all that S3 says there of a token that has expired.
            "BadRequest" if service.operation.starts_with("s3:") && service.status == Some(400) => (
                Kind::Access,
                Some(format!("the credentials have probably expired: {}, then run the same command again; it continues where it stopped", self.login_hint())),
            ),
            "RequestTimeTooSkewed" => (Kind::Access, Some("set this machine's clock; AWS accepts five minutes of difference".into())),
            "InvalidClientTokenId" | "UnrecognizedClientException" | "InvalidAccessKeyId" | "SignatureDoesNotMatch"
            | "InvalidSignatureException" | "IncompleteSignature" | "IncompleteSignatureException" | "AuthFailure"
            | "MissingAuthenticationToken" | "MissingAuthenticationTokenException" | "InvalidToken" => (
                Kind::Access,
                Some(match &self.profile {
                    Some(profile) => format!("AWS does not know these credentials: check profile `{profile}` with `aws sts get-caller-identity --profile {profile}`"),
                    None => "AWS does not know these credentials: check them with `aws sts get-caller-identity`, or name a profile with `--profile`".into(),
                }),
            ),
            "OptInRequired" | "NotSignedUp" | "SubscriptionRequiredException" => {
                (Kind::Access, Some(format!("enable the region or service for this account, or use another region than `{}`", self.region)))
            }
            _ if is_denial(code, service.status) => (Kind::Access, Some(self.permission_hint(service))),
            _ if is_limit(code) => (
                Kind::Quota,
                Some(if code.contains("Capacity") {
                    "AWS is out of these instances for now: try later, another instance type, or another region".into()
                } else {
                    "ask for more in the Service Quotas console, or remove what is no longer needed".into()
                }),
            ),
            _ if is_throttle(code) => {
                (Kind::Failed, Some("AWS throttles this account: run the same command again in a minute; it continues where it stopped".into()))
            }
            "OperationInProgressException" => (Kind::Busy, None),
            // UpdateStack, CreateChangeSet and DeleteStack: "Stack:arn... is in UPDATE_IN_PROGRESS state and can not be updated."
            "ValidationError" if service.message.contains("_IN_PROGRESS state") => (
                Kind::Busy,
                Some("wait for the running operation, or let this command wait with `--wait-lock 10m`".into()),
            ),
            _ => (Kind::Failed, None),
        }
    }

    fn permission_hint(&self, service: &ServiceError) -> String {
        let action = missing_action(&service.message).unwrap_or(&service.operation);
        let who = match &self.profile {
            Some(profile) => format!("profile `{profile}`"),
            None => "the current principal".into(),
        };
        if service.message.contains("explicit deny") {
            return format!("a policy denies `{action}` to {who} explicitly: ask the account's administrators");
        }
        format!("allow `{action}` for {who}, or use another one with `--profile`")
    }

    pub(super) fn no_credentials(&self, what: String, cause: &CredentialsError) -> Error {
        let reason = causes(cause);
        let error = match cause {
            CredentialsError::CredentialsNotLoaded(_) => {
                Error::new(Kind::Access, what).why("no AWS credentials found").why(reason)
            }
            CredentialsError::ProviderTimedOut(_) => {
                Error::new(Kind::Access, what).why("getting AWS credentials took too long").why(reason)
            }
            _ => Error::new(Kind::Access, what).why("cannot get AWS credentials").why(reason),
        };
        error.next(match &self.profile {
            Some(profile) => format!("run `aws sso login --profile {profile}`, or `aws configure --profile {profile}` if the profile is not set up yet"),
            None => "name a profile with `--profile NAME` or AWS_PROFILE, or run `aws configure` or `aws sso login`; without an account use `--sandbox`".into(),
        })
    }
}

/// How the SDK's request metadata names a service that permissions name otherwise.
fn sdk_name(service: &str) -> &str {
    match service {
        "logs" => "cloudwatchlogs",
        "application-autoscaling" => "applicationautoscaling",
        other => other,
    }
}

/// `Application Auto Scaling`, `CloudWatch Logs` and so on, in one form.
fn key(service: &str) -> String {
    service.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// What the service said, if it said something. S3's answers to HEAD have no body: their code follows from the status.
pub(super) fn answer<E>(operation: &str, error: &SdkError<E, HttpResponse>) -> Option<ServiceError>
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    let raw = error.raw_response()?;
    let status = raw.status().as_u16();
    let meta = error.as_service_error().map(ProvideErrorMetadata::meta);
    let code = meta.and_then(|m| m.code()).filter(|c| !c.is_empty());
    if code.is_none() && status < 300 {
        return None;
    }
    let header = |name| raw.headers().get(name).map(str::to_owned);
    Some(ServiceError {
        operation: operation.to_owned(),
        code: code.unwrap_or_else(|| code_of(status)).to_owned(),
        message: meta
            .and_then(|m| m.message())
            .map_or_else(|| format!("HTTP status {status} without an explanation"), str::to_owned),
        request_id: meta
            .and_then(|m| m.extra("aws_request_id"))
            .map(str::to_owned)
            .or_else(|| header("x-amzn-requestid"))
            .or_else(|| header("x-amz-request-id")),
        status: Some(status),
    })
}

/// The service's code for an error, or what its status means; empty when there was no answer.
pub(super) fn code<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    answer("", error).map(|a| a.code).unwrap_or_default()
}

/// The service's message; empty when there was no answer.
pub(super) fn message<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    answer("", error).map(|a| a.message).unwrap_or_default()
}

/// The answer's HTTP status.
pub(super) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16>
where
    E: StdError + 'static,
{
    error.raw_response().map(|raw| raw.status().as_u16())
}

/// Whether the answer means that this implementation of the service does not have the operation. AWS names its errors;
/// a 500 without a name is a stand-in that broke off.
pub(super) fn is_missing<E>(error: &SdkError<E, HttpResponse>) -> bool
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    let named = error.as_service_error().and_then(|e| e.meta().code()).filter(|c| !c.is_empty());
    match (named, status(error)) {
        (Some(code), _) => matches!(code, "UnknownOperationException" | "InvalidAction" | "NotImplemented"),
        (None, status) => matches!(status, Some(404 | 405 | 500 | 501)),
    }
}

fn code_of(status: u16) -> &'static str {
    match status {
        301 | 307 | 308 => "PermanentRedirect",
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        412 => "PreconditionFailed",
        429 => "TooManyRequests",
        500..=599 => "ServiceUnavailable",
        _ => "UnknownError",
    }
}

/// Codes that mean "you may not".
pub(super) fn is_denial(code: &str, status: Option<u16>) -> bool {
    matches!(
        code,
        "AccessDenied"
            | "AccessDeniedException"
            | "UnauthorizedOperation"
            | "UnauthorizedAccess"
            | "Unauthorized"
            | "NotAuthorized"
            | "Forbidden"
            | "AllAccessDisabled"
            | "AccountProblem"
            | "KMSAccessDeniedException"
            | "KMS.AccessDeniedException"
    ) || (status == Some(401) || status == Some(403)) && !is_throttle(code) && !is_limit(code)
}

fn is_limit(code: &str) -> bool {
    matches!(
        code,
        "ResourceLimitExceeded"
            | "LimitExceeded"
            | "LimitExceededException"
            | "ServiceQuotaExceededException"
            | "ServiceLimitExceededException"
            | "InsufficientInstanceCapacity"
            | "InsufficientCapacityException"
            | "TooManyBuckets"
    )
}

fn is_throttle(code: &str) -> bool {
    matches!(
        code,
        "Throttling"
            | "ThrottlingException"
            | "ThrottledException"
            | "RequestLimitExceeded"
            | "SlowDown"
            | "TooManyRequests"
            | "TooManyRequestsException"
    )
}

/// The action in `User: ... is not authorized to perform: sagemaker:CreateModel on resource: ...`.
fn missing_action(message: &str) -> Option<&str> {
    let rest = message.split_once("not authorized to perform: ")?.1;
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '*'))).unwrap_or(rest.len());
    let action = &rest[..end];
    action.contains(':').then_some(action)
}

/// The first error of a type in a chain of causes.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// A chain of causes in one line, without repetitions.
pub(super) fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !text.is_empty() && !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context::new("eu-west-1".into(), Some("work".into()), None)
    }

    fn said(code: &str, message: &str, status: u16) -> ServiceError {
        ServiceError {
            operation: "sagemaker:CreateModel".into(),
            code: code.into(),
            message: message.into(),
            request_id: None,
            status: Some(status),
        }
    }

    #[test]
    fn kinds_follow_codes() {
        let kind = |code: &str, message: &str, status| context().judge(&said(code, message, status)).0;
        assert_eq!(kind("ExpiredTokenException", "", 400), Kind::Access);
        assert_eq!(kind("InvalidClientTokenId", "", 403), Kind::Access);
        assert_eq!(kind("AccessDenied", "", 403), Kind::Access);
        assert_eq!(kind("SomethingNew", "", 403), Kind::Access);
        assert_eq!(kind("ResourceLimitExceeded", "", 400), Kind::Quota);
        assert_eq!(kind("InsufficientInstanceCapacity", "", 400), Kind::Quota);
        assert_eq!(kind("Throttling", "", 403), Kind::Failed);
        assert_eq!(
            kind("ValidationError", "Stack:x is in UPDATE_IN_PROGRESS state and can not be updated.", 400),
            Kind::Busy
        );
        assert_eq!(kind("ValidationError", "Template format error", 400), Kind::Failed);
    }

    #[test]
    fn the_missing_permission_is_named() {
        let error = context().refused(
            "cannot create".into(),
            said(
                "AccessDeniedException",
                "User: arn:aws:iam::1:user/u is not authorized to perform: iam:PassRole on resource: arn",
                400,
            ),
        );
        assert_eq!(error.hint(), Some("allow `iam:PassRole` for profile `work`, or use another one with `--profile`"));
        let error = context().refused("cannot create".into(), said("AccessDenied", "Access Denied", 403));
        assert!(error.hint().is_some_and(|h| h.contains("sagemaker:CreateModel")));
        assert_eq!(missing_action("not authorized to perform: nothing here"), None);
    }

    #[test]
    fn expired_credentials_name_the_profile() {
        let error = context().refused("cannot".into(), said("ExpiredToken", "expired", 400));
        assert!(error.hint().is_some_and(|h| h.contains("aws sso login --profile work")));
    }

    #[test]
    fn absent_credentials_say_what_to_type() {
        let error = Context::new("eu-west-1".into(), None, None)
            .no_credentials("cannot identify".into(), &CredentialsError::not_loaded("no providers"));
        assert_eq!(error.kind(), Kind::Access);
        assert_eq!(error.reasons().first().map(String::as_str), Some("no AWS credentials found"));
        assert!(error.hint().is_some_and(|h| h.contains("--profile NAME")));
    }

    #[test]
    fn hosts_are_found_under_either_name_of_a_service() {
        let context = context();
        context.remember_host("CloudWatch Logs", "logs.eu-west-1.amazonaws.com");
        assert_eq!(context.host("logs:GetLogEvents"), "logs.eu-west-1.amazonaws.com");
        assert!(context.host("s3:PutObject").contains("eu-west-1"));
    }
}
