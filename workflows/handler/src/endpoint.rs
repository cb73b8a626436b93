//! The endpoint through the SDK.

use aws_sdk_sagemakerruntime::Client;
use aws_sdk_sagemakerruntime::config::StalledStreamProtectionConfig;
use aws_sdk_sagemakerruntime::config::retry::RetryConfig;
use aws_sdk_sagemakerruntime::config::timeout::TimeoutConfig;
use aws_sdk_sagemakerruntime::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sagemakerruntime::operation::invoke_endpoint::InvokeEndpointError;
use aws_sdk_sagemakerruntime::primitives::Blob;

use crate::OPERATION_TIMEOUT;
use crate::invoke::{Image, Invoke, InvokeError, Invoked};

/// A SageMaker endpoint.
#[derive(Debug, Clone)]
pub struct Endpoint {
    client: Client,
    name: String,
}

impl Endpoint {
    /// Connects with the credentials and region of the environment.
    pub async fn connect(name: String) -> Self {
        let shared = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
        let config = aws_sdk_sagemakerruntime::config::Builder::from(&shared)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().operation_timeout(OPERATION_TIMEOUT).build())
            // Silence while the image is made is normal here.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        Endpoint { client: Client::from_conf(config), name }
    }

    async fn send(&self, workflow: Vec<u8>) -> Result<Image, InvokeError> {
        let sent = self.client.invoke_endpoint().endpoint_name(&self.name).content_type("application/json");
        // JPEG: a PNG of 2048x2048 does not fit into the reply of a function.
        let answer = sent.accept("*/*").body(Blob::new(workflow)).send().await.map_err(translate)?;
        let content_type = answer.content_type().unwrap_or("application/octet-stream").to_owned();
        Ok(Image { content_type, body: answer.body.map(Blob::into_inner).unwrap_or_default() })
    }
}

impl Invoke for Endpoint {
    fn invoke(&self, workflow: Vec<u8>) -> Invoked<'_> {
        Box::pin(self.send(workflow))
    }
}

fn translate(error: SdkError<InvokeEndpointError>) -> InvokeError {
    match &error {
        SdkError::TimeoutError(_) => return InvokeError::TimedOut,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => return InvokeError::TimedOut,
        SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => {
            return InvokeError::Failed("the endpoint's service cannot be reached".into());
        }
        _ => {}
    }
    let http = error.raw_response().map_or(0, |response| response.status().as_u16());
    match error.as_service_error() {
        Some(service) => of_service(service, http),
        None => InvokeError::Failed("the endpoint's answer cannot be read".into()),
    }
}

fn of_service(error: &InvokeEndpointError, http: u16) -> InvokeError {
    match error {
        InvokeEndpointError::ModelError(model) => InvokeError::Model {
            status: model.original_status_code().and_then(|code| u16::try_from(code).ok()).unwrap_or(0),
            message: model.original_message().or_else(|| model.message()).unwrap_or_default().to_owned(),
        },
        InvokeEndpointError::ModelNotReadyException(_)
        | InvokeEndpointError::ServiceUnavailable(_)
        | InvokeEndpointError::InternalDependencyException(_)
        | InvokeEndpointError::InternalFailure(_) => InvokeError::Unavailable,
        InvokeEndpointError::ValidationError(error) => {
            InvokeError::Rejected(error.message().unwrap_or("SageMaker rejects the request").to_owned())
        }
        other => match (other.code().unwrap_or_default(), http) {
            ("ThrottlingException" | "Throttling" | "TooManyRequestsException", _) | (_, 429) => InvokeError::Throttled,
            ("AccessDeniedException" | "AccessDenied", _) | (_, 403) => InvokeError::Denied,
            (_, 500..=599) => InvokeError::Unavailable,
            (code, _) => {
                InvokeError::Failed(format!("the endpoint's service answered {http} {code}").trim_end().to_owned())
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_sagemakerruntime::error::ErrorMetadata;
    use aws_sdk_sagemakerruntime::types::error::{ModelError, ValidationError};

    #[test]
    fn service_errors() {
        let model = ModelError::builder().original_status_code(400).original_message("bad").build();
        let generic = |code: &str| InvokeEndpointError::generic(ErrorMetadata::builder().code(code).build());
        let validation = ValidationError::builder().message("Endpoint x not found").build();
        for (error, http, expected) in [
            (InvokeEndpointError::ModelError(model), 424, InvokeError::Model { status: 400, message: "bad".into() }),
            (
                InvokeEndpointError::ModelError(ModelError::builder().message("timed out").build()),
                424,
                InvokeError::Model { status: 0, message: "timed out".into() },
            ),
            (
                InvokeEndpointError::ValidationError(validation),
                400,
                InvokeError::Rejected("Endpoint x not found".into()),
            ),
            (generic("ThrottlingException"), 400, InvokeError::Throttled),
            (generic("Slow"), 429, InvokeError::Throttled),
            (generic("AccessDeniedException"), 400, InvokeError::Denied),
            (generic("X"), 503, InvokeError::Unavailable),
            (generic("X"), 418, InvokeError::Failed("the endpoint's service answered 418 X".into())),
        ] {
            assert_eq!(of_service(&error, http), expected);
        }
    }

    #[test]
    fn timeouts() {
        let timeout = SdkError::timeout_error("operation timeout");
        assert_eq!(translate(timeout), InvokeError::TimedOut);
        assert!(matches!(translate(SdkError::construction_failure("x")), InvokeError::Failed(_)));
    }
}
