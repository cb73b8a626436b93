//! S3.

mod uploads;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, MetadataDirective, ServerSideEncryption};
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::errors::{Context, causes, code, status};
use crate::cloud::{BucketState, CopySource, Listed, Map, ObjectHead, ObjectPart, Objects, PutOptions, Written};
use crate::error::Result;

/// The SDK counts a read timeout from the start of the request, so for a part it bounds the whole upload: 64 MiB in half
/// an hour is 0.3 Mbit/s. Its stalled stream protection does not end a connection that falls silent; who sends parts
/// knows from those that arrived when to give one up.
const PART_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// A copy is answered when it is done, at some hundred megabytes a second.
const COPY_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// How often a small object is asked for whose answer breaks off.
const BODY_TRIES: u64 = 3;
/// How often a conditional write is repeated that collided with another one (409 ConditionalRequestConflict).
const CONFLICT_TRIES: u64 = 4;

/// [`Objects`] on S3.
pub(super) struct S3 {
    client: aws_sdk_s3::Client,
    context: Arc<Context>,
    /// Set by the identity adapter; every request carries it as the expected bucket owner.
    account: Arc<OnceLock<String>>,
    /// Set once an implementation refused CRC64NVME: from then on nothing asks for it.
    no_crc64: AtomicBool,
    /// Whether nothing on the way can change a body: TLS, or loopback.
    safe_line: bool,
}

impl S3 {
    pub(super) fn new(
        client: aws_sdk_s3::Client,
        context: Arc<Context>,
        account: Arc<OnceLock<String>>,
        safe_line: bool,
    ) -> Self {
        S3 { client, context, account, no_crc64: AtomicBool::new(false), safe_line }
    }

    fn owner(&self) -> Option<String> {
        self.account.get().cloned()
    }

    fn crc64(&self) -> bool {
        !self.no_crc64.load(Ordering::Relaxed)
    }

    /// Whether a refusal is one of CRC64NVME by an implementation that does not know it; remembers it then.
    fn gives_up_crc64(&self, code: &str) -> bool {
        let refused = self.crc64()
            && matches!(
                code,
                "NotImplemented" | "InvalidRequest" | "InvalidArgument" | "MalformedXML" | "InvalidChecksumAlgorithm"
            );
        if refused {
            self.no_crc64.store(true, Ordering::Relaxed);
            tracing::debug!("this S3 refuses CRC64NVME ({code}); uploading without it");
        }
        refused
    }
}

fn patience(read: Duration) -> aws_sdk_s3::config::Builder {
    aws_sdk_s3::Config::builder().timeout_config(TimeoutConfig::builder().read_timeout(read).build())
}

/// Tells the caller at once when S3 asks to slow down, for who sends many parts can send fewer at a time; the SDK would
/// only send the same ones again.
#[derive(Debug)]
struct SlowDownAtOnce;

impl ClassifyRetry for SlowDownAtOnce {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        match context.response().map(|response| response.status().as_u16()) {
            Some(429 | 503) => RetryAction::RetryForbidden,
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "comfy-deploy slow down"
    }
}

/// [`patience`] for requests of which many are under way.
fn one_of_many(read: Duration) -> aws_sdk_s3::config::Builder {
    patience(read).retry_classifier(SlowDownAtOnce)
}

/// 409 for a conditional write that raced with another.
fn is_conflict(code: &str) -> bool {
    matches!(code, "ConditionalRequestConflict" | "OperationAborted" | "Conflict")
}

fn is_exists(code: &str) -> bool {
    code == "PreconditionFailed"
}

fn place(bucket: &str, key: &str) -> String {
    format!("s3://{bucket}/{key}")
}

/// What S3 leaves as it is in a name ("Creating object key names", and the slash).
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// `x-amz-copy-source`, which is URL-encoded.
fn copy_source(bucket: &str, source: &CopySource) -> String {
    let place = format!("{bucket}/{}", utf8_percent_encode(&source.key, KEPT));
    match &source.version_id {
        // Where versions are not kept, or were not yet, the version is called so and cannot be asked for everywhere.
        Some(version) if version != "null" => {
            format!("{place}?versionId={}", utf8_percent_encode(version, KEPT))
        }
        _ => place,
    }
}

/// As S3 writes it: big-endian, base64.
fn crc64nvme(body: &[u8]) -> String {
    STANDARD.encode(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, body).to_be_bytes())
}

/// S3 counts in signed numbers.
fn unsigned(size: Option<i64>) -> u64 {
    size.and_then(|s| u64::try_from(s).ok()).unwrap_or_default()
}

#[async_trait]
impl Objects for S3 {
    async fn bucket(&self, bucket: &str) -> Result<BucketState> {
        match self.client.head_bucket().bucket(bucket).set_expected_bucket_owner(self.owner()).send().await {
            Ok(answer) => Ok(match answer.bucket_region() {
                Some(region) if region != self.context.region() => BucketState::Elsewhere,
                _ => BucketState::Owned,
            }),
            Err(e) => match (status(&e), code(&e).as_str()) {
                (Some(404), _) => Ok(BucketState::Absent),
                (Some(301 | 307), _) => Ok(BucketState::Elsewhere),
                // HEAD has no body, so a denial cannot be told from another owner.
                (Some(403), "Forbidden" | "AccessDenied") => Ok(BucketState::Forbidden),
                _ => Err(self.context.explain("s3:ListBucket", format!("cannot look at bucket {bucket}"), &e)),
            },
        }
    }

    async fn bucket_tags(&self, bucket: &str) -> Result<Map> {
        match self.client.get_bucket_tagging().bucket(bucket).set_expected_bucket_owner(self.owner()).send().await {
            Ok(answer) => Ok(answer.tag_set.into_iter().map(|t| (t.key, t.value)).collect()),
            Err(e) if code(&e) == "NoSuchTagSet" => Ok(Map::new()),
            Err(e) => {
                Err(self.context.explain("s3:GetBucketTagging", format!("cannot read the tags of bucket {bucket}"), &e))
            }
        }
    }

    async fn head(&self, bucket: &str, key: &str) -> Result<Option<ObjectHead>> {
        let call = self
            .client
            .head_object()
            .bucket(bucket)
            .key(key)
            .checksum_mode(ChecksumMode::Enabled)
            .set_expected_bucket_owner(self.owner());
        match call.send().await {
            Ok(o) => Ok(Some(ObjectHead {
                size: unsigned(o.content_length()),
                crc64nvme: o.checksum_crc64_nvme,
                etag: o.e_tag,
                version_id: o.version_id,
                encrypted_with: o
                    .ssekms_key_id
                    .or_else(|| o.server_side_encryption.map(|kind| kind.as_str().to_owned())),
                metadata: o.metadata.unwrap_or_default().into_iter().collect::<Map>(),
            })),
            Err(e) if status(&e) == Some(404) => Ok(None),
            Err(e) => Err(self.context.explain("s3:GetObject", format!("cannot look at {}", place(bucket, key)), &e)),
        }
    }

    async fn get(&self, bucket: &str, key: &str) -> Result<Option<Bytes>> {
        let what = || format!("cannot read {}", place(bucket, key));
        let call = self.client.get_object().bucket(bucket).key(key).set_expected_bucket_owner(self.owner());
        let mut attempt = 1;
        loop {
            match call.clone().send().await {
                Ok(o) => match o.body.collect().await {
                    Ok(body) => return Ok(Some(body.into_bytes())),
                    // The SDK asks again until there is an answer, and not when it breaks off.
                    Err(_) if attempt < BODY_TRIES => tokio::time::sleep(Duration::from_millis(200 * attempt)).await,
                    Err(e) => return Err(self.context.unreachable("s3:GetObject", what(), causes(&e))),
                },
                // NoSuchBucket stays an error: it is a wrong name, not an absent object.
                Err(e) if code(&e) == "NoSuchKey" => return Ok(None),
                Err(e) => return Err(self.context.explain("s3:GetObject", what(), &e)),
            }
            attempt += 1;
        }
    }

    async fn read(
        &self,
        bucket: &str,
        key: &str,
        from: u64,
        to: u64,
        if_match: Option<&str>,
    ) -> Result<Option<ObjectPart>> {
        let what = || format!("cannot read {}", place(bucket, key));
        let range = format!("bytes={from}-{}", to.saturating_sub(1));
        let call =
            self.client.get_object().bucket(bucket).key(key).range(range).set_if_match(if_match.map(str::to_owned));
        match call.send().await {
            Ok(answer) => {
                let size = answer.content_range().and_then(|range| range.rsplit_once('/')?.1.parse().ok());
                let etag = answer.e_tag().map(str::to_owned);
                let length = unsigned(answer.content_length());
                match answer.body.collect().await {
                    Ok(body) => Ok(Some(ObjectPart { body: body.into_bytes(), size: size.unwrap_or(length), etag })),
                    Err(e) => Err(self.context.unreachable("s3:GetObject", what(), causes(&e))),
                }
            }
            Err(e) if code(&e) == "NoSuchKey" => Ok(None),
            // An empty object has no byte 0.
            Err(e) if code(&e) == "InvalidRange" && from == 0 => {
                Ok(Some(ObjectPart { body: Bytes::new(), size: 0, etag: if_match.map(str::to_owned) }))
            }
            Err(e) => Err(self.context.explain("s3:GetObject", what(), &e)),
        }
    }

    async fn put(&self, bucket: &str, key: &str, body: Bytes, options: &PutOptions) -> Result<Written> {
        // The same checksum as of an upload in parts: left to itself the SDK would send a CRC32, and a model artifact
        // of one part could not be compared with what is on disk.
        let checksum = crc64nvme(&body);
        for attempt in 1.. {
            let with_checksum = self.crc64();
            let mut call = self
                .client
                .put_object()
                .bucket(bucket)
                .key(key)
                .body(ByteStream::from(body.clone()))
                .set_content_type(options.content_type.clone())
                .set_metadata(Some(options.metadata.clone().into_iter().collect()))
                .set_expected_bucket_owner(self.owner());
            if let Some(key) = &options.kms_key_arn {
                call = call
                    .server_side_encryption(ServerSideEncryption::AwsKms)
                    .ssekms_key_id(key)
                    .bucket_key_enabled(true);
            }
            if options.if_absent {
                call = call.if_none_match("*");
            }
            if with_checksum {
                call = call.checksum_crc64_nvme(&checksum);
            }
            let conf = patience(PART_TIMEOUT);
            match call.customize().config_override(conf).send().await {
                Ok(_) => break,
                Err(e) if options.if_absent && is_exists(&code(&e)) => return Ok(Written::AlreadyThere),
                Err(e) if options.if_absent && is_conflict(&code(&e)) && attempt < CONFLICT_TRIES => {
                    tokio::time::sleep(Duration::from_millis(100 * attempt)).await;
                }
                Err(e) if with_checksum && (self.gives_up_crc64(&code(&e)) || !self.crc64()) => {}
                Err(e) => {
                    return Err(self.context.explain(
                        "s3:PutObject",
                        format!("cannot write {}", place(bucket, key)),
                        &e,
                    ));
                }
            }
        }
        Ok(Written::Created)
    }

    async fn list(&self, bucket: &str, prefix: &str) -> Result<Vec<Listed>> {
        let mut pages = self
            .client
            .list_objects_v2()
            .bucket(bucket)
            .prefix(prefix)
            .set_expected_bucket_owner(self.owner())
            .into_paginator()
            .send();
        let mut objects = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| {
                self.context.explain("s3:ListBucket", format!("cannot list {}", place(bucket, prefix)), &e)
            })?;
            objects.extend(page.contents.unwrap_or_default().into_iter().filter_map(|object| {
                let modified = object.last_modified.map(|time| time.secs()).unwrap_or_default();
                Some(Listed { key: object.key?, size: unsigned(object.size), modified })
            }));
        }
        Ok(objects)
    }

    async fn delete(&self, bucket: &str, key: &str) -> Result<()> {
        let call = self.client.delete_object().bucket(bucket).key(key).set_expected_bucket_owner(self.owner());
        call.send()
            .await
            .map(|_| ())
            .map_err(|e| self.context.explain("s3:DeleteObject", format!("cannot delete {}", place(bucket, key)), &e))
    }

    async fn copy(&self, bucket: &str, key: &str, source: &CopySource, options: &PutOptions) -> Result<Option<String>> {
        let mut call = self
            .client
            .copy_object()
            .bucket(bucket)
            .key(key)
            .copy_source(copy_source(bucket, source))
            .copy_source_if_match(&source.etag)
            .metadata_directive(MetadataDirective::Replace)
            .set_content_type(options.content_type.clone())
            .set_metadata(Some(options.metadata.clone().into_iter().collect()))
            .set_checksum_algorithm(self.crc64().then_some(ChecksumAlgorithm::Crc64Nvme))
            .set_expected_bucket_owner(self.owner())
            .set_expected_source_bucket_owner(self.owner());
        if let Some(key) = &options.kms_key_arn {
            call =
                call.server_side_encryption(ServerSideEncryption::AwsKms).ssekms_key_id(key).bucket_key_enabled(true);
        }
        let answer = call.customize().config_override(one_of_many(COPY_TIMEOUT)).send().await.map_err(|e| {
            let what = format!("cannot copy {} to {}", place(bucket, &source.key), place(bucket, key));
            self.context.explain("s3:GetObject", what, &e)
        })?;
        Ok(answer.copy_object_result.and_then(|r| r.checksum_crc64_nvme))
    }
}
