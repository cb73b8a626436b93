//! What is checked before any operation: the key and its secret, faults, the bucket's owner and region.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::host::{S3Host, VirtualHost};
use s3s::path::S3Path;
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use crate::iam::identity::{self, Caller};
use crate::wire::auth;
use crate::world::{ACCOUNT, ApiError, Ctx, Shared};

/// The access keys: of users, and of sessions.
#[derive(Debug)]
pub struct Keys(pub Arc<Shared>);

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if let Some((_, secret)) = identity::owner(&self.0.world.lock(), access_key) {
            return Ok(SecretKey::from(secret));
        }
        Err(s3_error!(InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records."))
    }
}

/// Finds the bucket in `Host`: `bucket.s3.localhost`, `bucket.s3.REGION.amazonaws.com` and their like.
#[derive(Debug)]
pub struct Hosts;

impl S3Host for Hosts {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        match bucket_of(name) {
            Some(bucket) => Ok(VirtualHost::new(&name[bucket.len() + 1..]).with_bucket(bucket)),
            None => Ok(VirtualHost::new(name)),
        }
    }
}

fn bucket_of(host: &str) -> Option<&str> {
    let base = host.strip_suffix(".localhost").or_else(|| host.strip_suffix(".amazonaws.com"))?;
    let (bucket, rest) = base.rsplit_once(".s3").filter(|(_, rest)| rest.is_empty() || rest.starts_with(['.', '-']))?;
    (!bucket.is_empty() && rest.matches('.').count() <= 2).then_some(bucket)
}

/// The gate.
#[derive(Debug)]
pub struct Gate(pub Arc<Shared>);

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let Some(ctx) = cx.extensions_mut().get::<Ctx>().cloned() else {
            return Err(s3_error!(InternalError, "the request has no context"));
        };
        if cx.credentials().is_none() {
            return Err(error(ApiError::new("AccessDenied", "Access Denied").status(403), &ctx));
        }
        let operation = cx.s3_op().name().to_owned();
        let name = match cx.s3_path() {
            S3Path::Root => None,
            S3Path::Bucket { bucket } | S3Path::Object { bucket, .. } => Some(bucket.to_string()),
        };
        self.0.enter("s3", &operation).map_err(|e| error(e, &ctx))?;
        let world = self.0.world.lock();
        let key = cx.credentials().map(|c| c.access_key.clone()).unwrap_or_default();
        let caller = auth::caller(&world, &key, "s3", &operation, ctx.now).map_err(|e| error(e, &ctx))?;
        if matches!(caller, Caller::Role { .. }) && !identity::named(&world, &caller, &action(&operation)) {
            return Err(error(ApiError::new("AccessDenied", "Access Denied").status(403), &ctx));
        }
        let Some(name) = name.filter(|_| operation != "CreateBucket") else { return Ok(()) };
        let headers = cx.headers();
        let source = headers.get("x-amz-copy-source").and_then(|v| v.to_str().ok());
        let source = source.and_then(|s| s.trim_start_matches('/').split(['/', '?']).next());
        let named =
            [(Some(name.as_str()), "x-amz-expected-bucket-owner"), (source, "x-amz-source-expected-bucket-owner")];
        for (bucket, header) in named {
            let Some(bucket) = bucket.and_then(|name| world.s3.buckets.get(name)) else { continue };
            let expected = headers.get(header).is_none_or(|owner| owner.as_bytes() == bucket.owner.as_bytes());
            if !expected || bucket.owner != ACCOUNT {
                return Err(error(ApiError::new("AccessDenied", "Access Denied").status(403), &ctx));
            }
        }
        let region = world.s3.buckets.get(&name).map_or("", |b| b.region.as_str());
        // GetBucketLocation exists to find out the region, so it answers anywhere.
        if region.is_empty() || region == ctx.region || operation == "GetBucketLocation" {
            return Ok(());
        }
        Err(redirect(region, &ctx))
    }
}

/// The action that an operation asks for (User Guide, "Required permissions for Amazon S3 API operations").
fn action(operation: &str) -> String {
    let action = match operation {
        "HeadObject" | "GetObjectAttributes" => "GetObject",
        "HeadBucket" | "ListObjects" | "ListObjectsV2" => "ListBucket",
        "CopyObject" | "CreateMultipartUpload" | "UploadPart" | "UploadPartCopy" | "CompleteMultipartUpload" => {
            "PutObject"
        }
        "DeleteObjects" => "DeleteObject",
        "ListParts" => "ListMultipartUploadParts",
        "ListMultipartUploads" => "ListBucketMultipartUploads",
        "ListBuckets" => "ListAllMyBuckets",
        other => other,
    };
    format!("s3:{action}")
}

fn redirect(region: &str, ctx: &Ctx) -> S3Error {
    let mut error = error(
        ApiError::new(
            "PermanentRedirect",
            "The bucket you are attempting to access must be addressed using the specified endpoint. Please send all \
             future requests to this endpoint.",
        )
        .status(301),
        ctx,
    );
    let mut headers = HeaderMap::new();
    if let Ok(region) = HeaderValue::from_str(region) {
        headers.insert("x-amz-bucket-region", region);
    }
    error.set_headers(headers);
    error
}

/// An error for the wire.
pub fn error(error: ApiError, ctx: &Ctx) -> S3Error {
    let code = S3ErrorCode::from_bytes(error.code.as_bytes()).unwrap_or(S3ErrorCode::InternalError);
    let mut out = S3Error::with_message(code, error.message);
    out.set_status_code(StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    out.set_request_id(&ctx.request_id);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_name_buckets() {
        for (host, bucket) in [
            ("b.s3.localhost", Some("b")),
            ("my.own.bucket.s3.localhost", Some("my.own.bucket")),
            ("b.s3.eu-west-1.amazonaws.com", Some("b")),
            ("b.s3-eu-west-1.amazonaws.com", Some("b")),
            ("localhost", None),
            ("s3.localhost", None),
            ("s3.eu-west-1.amazonaws.com", None),
            ("b.s3x.localhost", None),
        ] {
            assert_eq!(bucket_of(host), bucket, "{host}");
        }
    }
}
