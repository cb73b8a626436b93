//! PutObject, DeleteObject(s), object tags.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use s3s::dto::*;
use s3s::{S3Request, S3Result, TrailingHeaders};
use serde_json::json;

use super::{Call, Given, Taken, done};
use crate::s3::checksums::{Algorithm, Checksum, Hasher, Sums};
use crate::s3::files::{self, Failure};
use crate::s3::state::{About, Extent, Version};
use crate::s3::{control, objects};
use crate::world::ApiError;

/// Sets the one of the five checksum members that fits.
macro_rules! set_checksum {
    ($output:expr, $algorithm:expr, $value:expr) => {{
        let value = $value;
        match $algorithm {
            $crate::s3::checksums::Algorithm::Crc32 => $output.checksum_crc32 = value,
            $crate::s3::checksums::Algorithm::Crc32c => $output.checksum_crc32c = value,
            $crate::s3::checksums::Algorithm::Crc64Nvme => $output.checksum_crc64nvme = value,
            $crate::s3::checksums::Algorithm::Sha1 => $output.checksum_sha1 = value,
            $crate::s3::checksums::Algorithm::Sha256 => $output.checksum_sha256 = value,
        }
    }};
}

/// The checksums that a message carries.
macro_rules! given_checksums {
    ($input:expr) => {
        [
            ($crate::s3::checksums::Algorithm::Crc32, $input.checksum_crc32.clone()),
            ($crate::s3::checksums::Algorithm::Crc32c, $input.checksum_crc32c.clone()),
            ($crate::s3::checksums::Algorithm::Crc64Nvme, $input.checksum_crc64nvme.clone()),
            ($crate::s3::checksums::Algorithm::Sha1, $input.checksum_sha1.clone()),
            ($crate::s3::checksums::Algorithm::Sha256, $input.checksum_sha256.clone()),
        ]
        .into_iter()
        .filter_map(|(algorithm, value)| Some((algorithm, value?)))
        .collect::<Vec<_>>()
    };
}

pub(super) use {given_checksums, set_checksum};

/// What a client says about a body.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Checksums in headers.
    pub given: Vec<(Algorithm, String)>,
    /// The algorithm announced.
    pub announced: Option<Algorithm>,
    /// Content-MD5, base64.
    pub md5: Option<String>,
    /// Bytes.
    pub length: Option<i64>,
    trailers: Option<TrailingHeaders>,
    trailing: Vec<Algorithm>,
}

impl Claims {
    /// With what the headers and the trailer say.
    pub fn new<T>(
        request: &mut S3Request<T>,
        given: Vec<(Algorithm, String)>,
        announced: Option<&ChecksumAlgorithm>,
    ) -> Self {
        Claims {
            given,
            announced: announced.and_then(|a| Algorithm::parse(a.as_str())),
            trailers: request.trailing_headers.take(),
            trailing: trailing(&request.headers),
            ..Default::default()
        }
    }

    /// The algorithms that the client uses.
    pub fn algorithms(&self) -> Vec<Algorithm> {
        let mut all: Vec<_> = self.given.iter().map(|(a, _)| *a).chain(self.trailing.iter().copied()).collect();
        if all.is_empty() {
            all.extend(self.announced);
        }
        all
    }
}

fn trailing(headers: &HeaderMap) -> Vec<Algorithm> {
    let names = headers.get_all("x-amz-trailer").iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    names.filter_map(|n| Algorithm::parse(n.trim().strip_prefix("x-amz-checksum-")?)).collect()
}

/// Stores a body in a new file and checks it against what was claimed. On failure nothing is left.
pub(super) async fn store(
    call: &Call,
    body: Option<StreamingBlob>,
    claims: Claims,
    algorithms: &[Algorithm],
) -> S3Result<(Sums, Vec<Extent>)> {
    for (algorithm, value) in &claims.given {
        if !algorithm.well_formed(value) {
            let message = format!("Value for {} header is invalid.", algorithm.header());
            return Err(call.error(ApiError::new("InvalidRequest", message)));
        }
    }
    let file = objects::new_id();
    let path = call.data_dir().join(&file);
    let mut wanted = claims.algorithms();
    wanted.extend_from_slice(algorithms);
    let hasher = Hasher::new(true, &wanted);
    let received = match body {
        Some(body) => files::receive(path, hasher, body).await,
        None => files::receive(path, hasher, futures::stream::empty()).await,
    };
    let checked = match received {
        Ok(hasher) => {
            let sums = hasher.finish();
            check(call, &claims, &sums).map(|()| sums)
        }
        Err(Failure::Disk(error)) => Err(call.disk(&error)),
        Err(Failure::Body(error)) => Err(call.error(body_error(&*error))),
    };
    match checked {
        Ok(sums) => {
            let extents = vec![Extent { file, offset: 0, len: sums.size }];
            Ok((sums, extents))
        }
        Err(error) => {
            files::remove(&call.data_dir(), &[file]);
            Err(error)
        }
    }
}

/// Crate `s3s` verifies payload hashes and chunk signatures while the body passes; its errors have only names.
fn body_error(error: &(dyn std::error::Error + Send + Sync + 'static)) -> ApiError {
    let text = format!("{error} {error:?}");
    if text.contains("Sha256Mismatch") {
        ApiError::new(
            "XAmzContentSHA256Mismatch",
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        )
    } else if text.contains("SignatureMismatch") {
        ApiError::new(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided.",
        )
        .status(403)
    } else {
        ApiError::new(
            "IncompleteBody",
            "You did not provide the number of bytes specified by the Content-Length HTTP header",
        )
    }
}

fn check(call: &Call, claims: &Claims, sums: &Sums) -> S3Result<()> {
    if claims.length.is_some_and(|l| u64::try_from(l) != Ok(sums.size)) {
        let message = "You did not provide the number of bytes specified by the Content-Length HTTP header";
        return Err(call.error(ApiError::new("IncompleteBody", message)));
    }
    if let Some(md5) = &claims.md5 {
        let Some(bytes) = STANDARD.decode(md5).ok().filter(|b| b.len() == 16) else {
            return Err(call.error(ApiError::new("InvalidDigest", "The Content-MD5 you specified was invalid.")));
        };
        if hex::encode(bytes) != sums.md5 {
            let message = "The Content-MD5 you specified did not match what we received.";
            return Err(call.error(ApiError::new("BadDigest", message)));
        }
    }
    let trailers = claims.trailers.as_ref().and_then(TrailingHeaders::take).unwrap_or_default();
    let mut claimed = claims.given.clone();
    for algorithm in &claims.trailing {
        let value = trailers.get(algorithm.header()).and_then(|v| v.to_str().ok());
        let Some(value) = value else {
            let message = "The request contained trailing data that was not well-formed or did not conform to our published schema.";
            return Err(call.error(ApiError::new("MalformedTrailerError", message)));
        };
        claimed.push((*algorithm, value.to_owned()));
    }
    for (algorithm, value) in claimed {
        if sums.sums.get(&algorithm) != Some(&value) {
            let message = format!("The {} you specified did not match the calculated checksum.", algorithm.name());
            return Err(call.error(ApiError::new("BadDigest", message)));
        }
    }
    Ok(())
}

/// The tags of an `x-amz-tagging` header.
pub(super) fn header_tags(call: &Call, header: Option<&str>) -> S3Result<BTreeMap<String, String>> {
    let mut tags = BTreeMap::new();
    for pair in header.unwrap_or_default().split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
        };
        if tags.insert(decode(key), decode(value)).is_some() {
            let message = "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.";
            return Err(call.error(ApiError::new("InvalidArgument", message)));
        }
    }
    let list: Vec<_> = tags.iter().map(|(k, v)| json!({"Key": k, "Value": v})).collect();
    control::check_tags(&json!({"TagSet": list}), 10).map_err(|e| call.error(e))?;
    Ok(tags)
}

/// What PutObject, CreateMultipartUpload and CopyObject say about an object.
macro_rules! about {
    ($call:expr, $input:expr) => {
        $crate::s3::state::About {
            content_type: $input.content_type.clone(),
            // Not kept: it speaks of the transfer.
            content_encoding: $input
                .content_encoding
                .as_deref()
                .map(|e| e.split(',').map(str::trim).filter(|e| *e != "aws-chunked").collect::<Vec<_>>().join(","))
                .filter(|e| !e.is_empty()),
            content_disposition: $input.content_disposition.clone(),
            content_language: $input.content_language.clone(),
            cache_control: $input.cache_control.clone(),
            storage_class: $input.storage_class.as_ref().map(|c| c.as_str().to_owned()).filter(|c| c != "STANDARD"),
            encryption: $input.server_side_encryption.as_ref().map(|e| e.as_str().to_owned()),
            kms_key: $input.ssekms_key_id.clone(),
            metadata: $input.metadata.clone().unwrap_or_default().into_iter().collect(),
            tags: super::write::header_tags($call, $input.tagging.as_deref())?,
        }
    };
}
pub(super) use about;

/// How an object of this bucket is encrypted, with the KMS key if there is one.
pub(super) fn encryption(
    world: &crate::world::World,
    bucket: &str,
    about: &About,
) -> (Option<ServerSideEncryption>, Option<String>) {
    let setting = world.s3.buckets.get(bucket).and_then(|b| b.settings.get("ServerSideEncryptionConfiguration"));
    let by_default = setting.map(|s| &s["Rules"][0]["ApplyServerSideEncryptionByDefault"]);
    let kind = about.encryption.clone().or_else(|| by_default?["SSEAlgorithm"].as_str().map(str::to_owned));
    let key = about.kms_key.clone().or_else(|| by_default?["KMSMasterKeyID"].as_str().map(str::to_owned));
    let key = key.filter(|_| kind.as_deref().is_some_and(|k| k.starts_with("aws:kms")));
    (kind.map(ServerSideEncryption::from), key)
}

pub(super) async fn put(call: Call, mut request: Taken<PutObjectInput>) -> Given<PutObjectOutput> {
    let given = given_checksums!(request.input);
    let announced = request.input.checksum_algorithm.clone();
    let mut claims = Claims::new(&mut request, given, announced.as_ref());
    let input = request.input;
    claims.md5.clone_from(&input.content_md5);
    claims.length = input.content_length;
    let about = about!(&call, input);
    let since = call.with(|world| {
        control::bucket(world, &input.bucket)?;
        Ok(world.s3.deletions.now())
    })?;
    // S3 adds its own checksum when the client brings none.
    let algorithm = claims.algorithms().first().copied().unwrap_or(Algorithm::Crc64Nvme);
    let (sums, extents) = store(&call, input.body, claims, &[algorithm]).await?;
    let value = sums.sums.get(&algorithm).cloned();
    let version = Version {
        modified: super::now(),
        size: sums.size,
        etag: sums.md5.clone(),
        extents: extents.clone(),
        checksum: value.clone().map(|value| Checksum { algorithm, full_object: true, value }),
        about,
        ..Default::default()
    };
    let mut output = PutObjectOutput { e_tag: Some(objects::etag(&sums.md5)), ..Default::default() };
    let stored = call.with(|world| {
        (output.server_side_encryption, output.ssekms_key_id) = encryption(world, &input.bucket, &version.about);
        let conditions = (input.if_match.as_ref(), input.if_none_match.as_ref());
        objects::may_write(world, &input.bucket, &input.key, conditions.0, conditions.1, since)?;
        objects::put(world, &input.bucket, &input.key, version)
    });
    match stored {
        Ok(id) => output.version_id = id,
        Err(error) => {
            files::remove(&call.data_dir(), &extents.into_iter().map(|e| e.file).collect::<Vec<_>>());
            return Err(error);
        }
    }
    output.checksum_type = Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT));
    set_checksum!(output, algorithm, value);
    done(output)
}

pub(super) async fn delete(call: Call, request: Taken<DeleteObjectInput>) -> Given<DeleteObjectOutput> {
    let input = request.input;
    let id = input.version_id.as_deref();
    let deleted = call.with(|world| {
        if let Some(condition) = &input.if_match {
            let bucket = control::bucket(world, &input.bucket)?;
            let version = objects::find(bucket, &input.key, id)?;
            let conditions = objects::Conditions { matches: Some(condition.clone()), ..Default::default() };
            conditions.check(version, true)?;
        }
        objects::delete(world, &input.bucket, &input.key, id, call.ctx.now)
    })?;
    done(DeleteObjectOutput {
        delete_marker: deleted.marker.then_some(true),
        version_id: deleted.version,
        ..Default::default()
    })
}

pub(super) async fn delete_many(call: Call, request: Taken<DeleteObjectsInput>) -> Given<DeleteObjectsOutput> {
    let input = request.input;
    if input.delete.objects.is_empty() || input.delete.objects.len() > 1000 {
        let message = "The XML you provided was not well-formed or did not validate against our published schema";
        return Err(call.error(ApiError::new("MalformedXML", message)));
    }
    let quiet = input.delete.quiet.unwrap_or(false);
    let mut out = Vec::new();
    for object in input.delete.objects {
        let id = object.version_id.as_deref();
        let deleted = call.with(|world| objects::delete(world, &input.bucket, &object.key, id, call.ctx.now))?;
        if quiet {
            continue;
        }
        out.push(DeletedObject {
            delete_marker: deleted.marker.then_some(true),
            delete_marker_version_id: deleted.version.filter(|_| deleted.marker),
            key: Some(object.key),
            version_id: object.version_id,
        });
    }
    done(DeleteObjectsOutput { deleted: Some(out), ..Default::default() })
}

pub(super) async fn put_tags(call: Call, request: Taken<PutObjectTaggingInput>) -> Given<PutObjectTaggingOutput> {
    let input = request.input;
    let value = crate::s3::json::to_api(&input.tagging).map_err(|e| call.error(e))?;
    control::check_tags(&value, 10).map_err(|e| call.error(e))?;
    let tags = input.tagging.tag_set.into_iter();
    let tags = tags.map(|t| (t.key.unwrap_or_default(), t.value.unwrap_or_default())).collect();
    let version_id = call.with(|world| {
        let version = objects::version_mut(world, &input.bucket, &input.key, input.version_id.as_deref())?;
        version.about.tags = tags;
        Ok(version.id.clone())
    })?;
    done(PutObjectTaggingOutput { version_id: Some(version_id).filter(|id| id != "null") })
}

pub(super) async fn delete_tags(
    call: Call,
    request: Taken<DeleteObjectTaggingInput>,
) -> Given<DeleteObjectTaggingOutput> {
    let input = request.input;
    let version_id = call.with(|world| {
        let version = objects::version_mut(world, &input.bucket, &input.key, input.version_id.as_deref())?;
        version.about.tags.clear();
        Ok(version.id.clone())
    })?;
    done(DeleteObjectTaggingOutput { version_id: Some(version_id).filter(|id| id != "null") })
}
