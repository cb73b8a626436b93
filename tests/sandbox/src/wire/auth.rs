//! Who asks: the SigV4 credential of a request, and what the made-up access key ids mean.
//!
//! The signature itself is recomputed for S3 and for function URLs only, where the program signs by itself. Elsewhere
//! the SDK does, and nothing here is secret.

use axum::http::request::Parts;

use crate::iam::identity::{self, Caller};
use crate::world::{ApiError, KEY, World};

/// The credential scope of a signed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Access key id.
    pub key: String,
    /// Region.
    pub region: String,
    /// Signing name of the service.
    pub service: String,
}

/// The scope from the Authorization header or, for a pre-signed URL, from the query. None if the request is not signed.
pub fn scope(parts: &Parts) -> Option<Scope> {
    let header = parts.headers.get("authorization").and_then(|v| v.to_str().ok());
    let credential = match header {
        Some(value) if value.starts_with("AWS4-") => {
            let rest = &value[value.find("Credential=")? + "Credential=".len()..];
            rest.split([',', ' ']).next()?.to_owned()
        }
        Some(_) => return None,
        None => form_urlencoded::parse(parts.uri.query()?.as_bytes())
            .find(|(k, _)| k == "X-Amz-Credential")
            .map(|(_, v)| v.into_owned())?,
    };
    // The key id may itself hold slashes in theory; the scope's four parts are at the end.
    let mut fields = credential.rsplitn(5, '/');
    let (_terminal, service, region, _date, key) =
        (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    Some(Scope { key: key.to_owned(), region: region.to_owned(), service: service.to_owned() })
}

/// Refuses every access key id but the sandbox's, in the words of the service's protocol.
/// `expired` stands for a session that ran out, `denied` for an identity without any permission.
pub fn check(key: &str, service: &str, operation: &str) -> Result<(), ApiError> {
    let query = matches!(service, "cloudformation" | "iam" | "sts");
    match (key, service) {
        (KEY, _) => Ok(()),
        ("expired", "s3") => Err(ApiError::new("ExpiredToken", "The provided token has expired.")),
        ("expired", _) if query => {
            Err(ApiError::new("ExpiredToken", "The security token included in the request is expired").status(403))
        }
        ("expired", "lambda") => {
            Err(ApiError::new("ExpiredTokenException", "The security token included in the request is expired")
                .status(403))
        }
        ("expired", _) => {
            Err(ApiError::new("ExpiredTokenException", "The security token included in the request is expired"))
        }
        ("denied", "s3") => Err(ApiError::new("AccessDenied", "Access Denied").status(403)),
        // GetCallerIdentity needs no permission at all.
        ("denied", "sts") if operation == "GetCallerIdentity" => Ok(()),
        ("denied", _) => Err(denied(&Caller::User("denied".to_owned()), service, operation)),
        (_, "s3") => Err(ApiError::new(
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
        )
        .status(403)),
        _ if query => {
            Err(ApiError::new("InvalidClientTokenId", "The security token included in the request is invalid.")
                .status(403))
        }
        (_, "lambda") => {
            Err(ApiError::new("UnrecognizedClientException", "The security token included in the request is invalid.")
                .status(403))
        }
        _ => {
            Err(ApiError::new("UnrecognizedClientException", "The security token included in the request is invalid."))
        }
    }
}

/// Whose request it is. Temporary credentials are known by their access key id.
pub fn caller(world: &World, key: &str, service: &str, operation: &str, now: i64) -> Result<Caller, ApiError> {
    match identity::session(world, key) {
        Some(session) if session.expires <= now => check("expired", service, operation)?,
        Some(_) => {}
        None => check(key, service, operation)?,
    }
    Ok(identity::owner(world, key).map_or(Caller::Anonymous, |(caller, _)| caller))
}

/// Whether a caller's own policies name the action at all. On which resource is for the services that look.
pub fn may(world: &World, caller: &Caller, service: &str, operation: &str) -> bool {
    match caller {
        Caller::Role { .. } if (service, operation) != ("sts", "GetCallerIdentity") => {
            identity::named(world, caller, &format!("{service}:{operation}"))
        }
        _ => true,
    }
}

/// What services say to those who may not.
pub fn denied(caller: &Caller, service: &str, operation: &str) -> ApiError {
    let message = format!(
        "User: {} is not authorized to perform: {service}:{operation} because no identity-based policy allows the \
         {service}:{operation} action",
        caller.arn()
    );
    match service {
        "cloudformation" | "iam" | "sts" => ApiError::new("AccessDenied", message).status(403),
        "lambda" => ApiError::new("AccessDeniedException", message).status(403),
        _ => ApiError::new("AccessDeniedException", message),
    }
}
