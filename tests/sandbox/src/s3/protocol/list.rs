//! Lists.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::S3Result;
use s3s::dto::*;

use super::write::set_checksum;
use super::{Call, Given, Taken, done, owner, timestamp};
use crate::s3::checksums;
use crate::s3::listing::{self, Query};
use crate::s3::state::Version;
use crate::s3::{control, multipart, objects};
use crate::world::{ACCOUNT, ApiError};

/// What `encoding-type=url` leaves alone.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'*');

/// Writes keys as the client asked for.
struct Writer(Option<EncodingType>);

impl Writer {
    fn text(&self, text: impl AsRef<str>) -> String {
        match self.0 {
            Some(_) => utf8_percent_encode(text.as_ref(), PLAIN).to_string(),
            None => text.as_ref().to_owned(),
        }
    }

    fn option(&self, text: Option<&String>) -> Option<String> {
        text.map(|t| self.text(t))
    }

    fn prefixes(&self, prefixes: Vec<String>) -> Option<Vec<CommonPrefix>> {
        let prefixes: Vec<_> = prefixes.into_iter().map(|p| CommonPrefix { prefix: Some(self.text(p)) }).collect();
        Some(prefixes).filter(|p| !p.is_empty())
    }
}

fn limit(call: &Call, asked: Option<i32>) -> S3Result<usize> {
    let asked = usize::try_from(asked.unwrap_or(1000)).map_err(|_| {
        call.error(ApiError::new("InvalidArgument", "Argument maxKeys must be an integer between 0 and 2147483647"))
    })?;
    Ok(asked.min(1000))
}

fn text(value: Option<&String>) -> &str {
    value.map_or("", String::as_str)
}

fn object(writer: &Writer, key: &str, version: &Version, with_owner: bool) -> Object {
    let class = version.about.storage_class.clone().unwrap_or_else(|| "STANDARD".to_owned());
    Object {
        key: Some(writer.text(key)),
        size: i64::try_from(version.size).ok(),
        e_tag: Some(objects::etag(&version.etag)),
        last_modified: Some(timestamp(version.modified)),
        storage_class: Some(ObjectStorageClass::from(class)),
        checksum_algorithm: version.checksum.as_ref().map(|c| vec![ChecksumAlgorithm::from_static(c.algorithm.name())]),
        checksum_type: version.checksum.as_ref().map(|c| ChecksumType::from_static(c.type_name())),
        owner: with_owner.then(owner),
        ..Default::default()
    }
}

pub(super) async fn buckets(call: Call, request: Taken<ListBucketsInput>) -> Given<ListBucketsOutput> {
    let input = request.input;
    let prefix = text(input.prefix.as_ref()).to_owned();
    let buckets = call.with(|world| {
        let own = world.s3.buckets.iter().filter(|(name, b)| b.owner == ACCOUNT && name.starts_with(&prefix));
        let own = own.filter(|(_, b)| input.bucket_region.as_ref().is_none_or(|r| *r == b.region));
        let bucket = |(name, b): (&String, &crate::s3::state::Bucket)| Bucket {
            name: Some(name.clone()),
            creation_date: Some(timestamp(b.created)),
            bucket_region: Some(b.region.clone()),
        };
        Ok(own.map(bucket).collect())
    })?;
    done(ListBucketsOutput { buckets: Some(buckets), owner: Some(owner()), prefix: input.prefix, ..Default::default() })
}

pub(super) async fn objects(call: Call, request: Taken<ListObjectsInput>) -> Given<ListObjectsOutput> {
    let input = request.input;
    let max = limit(&call, input.max_keys)?;
    let writer = Writer(input.encoding_type.clone());
    let query = Query {
        prefix: text(input.prefix.as_ref()),
        delimiter: text(input.delimiter.as_ref()),
        after: text(input.marker.as_ref()),
        after_id: None,
        max,
    };
    let (contents, prefixes, truncated, next) = call.with(|world| {
        let page = listing::objects(control::bucket(world, &input.bucket)?, &query);
        let contents = page.items.iter().map(|(k, v)| object(&writer, k, v, true)).collect::<Vec<_>>();
        Ok((contents, page.prefixes, page.truncated, page.next))
    })?;
    // Only a delimiter brings a NextMarker (ListObjects, NextMarker).
    let next = next.filter(|_| !query.delimiter.is_empty());
    done(ListObjectsOutput {
        name: Some(input.bucket.clone()),
        prefix: Some(writer.text(query.prefix)),
        marker: Some(writer.text(query.after)),
        max_keys: i32::try_from(max).ok(),
        is_truncated: Some(truncated),
        contents: Some(contents),
        common_prefixes: writer.prefixes(prefixes),
        delimiter: writer.option(input.delimiter.as_ref()),
        next_marker: next.map(|(key, _)| writer.text(key)),
        encoding_type: input.encoding_type,
        ..Default::default()
    })
}

pub(super) async fn objects_v2(call: Call, request: Taken<ListObjectsV2Input>) -> Given<ListObjectsV2Output> {
    let input = request.input;
    let max = limit(&call, input.max_keys)?;
    let writer = Writer(input.encoding_type.clone());
    let resumed = match &input.continuation_token {
        None => None,
        Some(token) => {
            let key = hex::decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let bad = || ApiError::new("InvalidArgument", "The continuation token provided is incorrect");
            Some(key.ok_or_else(|| call.error(bad()))?)
        }
    };
    let query = Query {
        prefix: text(input.prefix.as_ref()),
        delimiter: text(input.delimiter.as_ref()),
        after: text(resumed.as_ref().or(input.start_after.as_ref())),
        after_id: None,
        max,
    };
    let with_owner = input.fetch_owner.unwrap_or(false);
    let (contents, prefixes, truncated, next) = call.with(|world| {
        let page = listing::objects(control::bucket(world, &input.bucket)?, &query);
        let contents = page.items.iter().map(|(k, v)| object(&writer, k, v, with_owner)).collect::<Vec<_>>();
        Ok((contents, page.prefixes, page.truncated, page.next))
    })?;
    done(ListObjectsV2Output {
        name: Some(input.bucket.clone()),
        prefix: Some(writer.text(query.prefix)),
        max_keys: i32::try_from(max).ok(),
        key_count: i32::try_from(contents.len() + prefixes.len()).ok(),
        continuation_token: input.continuation_token,
        is_truncated: Some(truncated),
        next_continuation_token: next.map(|(key, _)| hex::encode(key)),
        contents: Some(contents),
        common_prefixes: writer.prefixes(prefixes),
        delimiter: writer.option(input.delimiter.as_ref()),
        start_after: writer.option(input.start_after.as_ref()),
        encoding_type: input.encoding_type,
        ..Default::default()
    })
}

pub(super) async fn versions(call: Call, request: Taken<ListObjectVersionsInput>) -> Given<ListObjectVersionsOutput> {
    let input = request.input;
    let max = limit(&call, input.max_keys)?;
    let writer = Writer(input.encoding_type.clone());
    if input.version_id_marker.is_some() && input.key_marker.is_none() {
        let message = "A version-id marker cannot be specified without a key marker.";
        return Err(call.error(ApiError::new("InvalidArgument", message)));
    }
    let query = Query {
        prefix: text(input.prefix.as_ref()),
        delimiter: text(input.delimiter.as_ref()),
        after: text(input.key_marker.as_ref()),
        after_id: input.version_id_marker.as_deref().filter(|id| !id.is_empty()),
        max,
    };
    let mut versions = Vec::new();
    let mut markers = Vec::new();
    let (prefixes, truncated, next) = call.with(|world| {
        let page = listing::versions(control::bucket(world, &input.bucket)?, &query);
        for (key, version, latest) in &page.items {
            if version.marker {
                markers.push(DeleteMarkerEntry {
                    is_latest: Some(*latest),
                    key: Some(writer.text(key)),
                    last_modified: Some(timestamp(version.modified)),
                    owner: Some(owner()),
                    version_id: Some(version.id.clone()),
                });
                continue;
            }
            let object = object(&writer, key, version, true);
            versions.push(ObjectVersion {
                checksum_algorithm: object.checksum_algorithm,
                checksum_type: object.checksum_type,
                e_tag: object.e_tag,
                is_latest: Some(*latest),
                key: object.key,
                last_modified: object.last_modified,
                owner: object.owner,
                restore_status: None,
                size: object.size,
                storage_class: Some(ObjectVersionStorageClass::from_static(ObjectVersionStorageClass::STANDARD)),
                version_id: Some(version.id.clone()),
            });
        }
        Ok((page.prefixes, page.truncated, page.next))
    })?;
    let (next_key, next_id) = next.map_or((None, None), |(key, id)| (Some(key), id));
    done(ListObjectVersionsOutput {
        name: Some(input.bucket.clone()),
        prefix: Some(writer.text(query.prefix)),
        key_marker: Some(writer.text(query.after)),
        version_id_marker: input.version_id_marker.clone(),
        max_keys: i32::try_from(max).ok(),
        is_truncated: Some(truncated),
        versions: Some(versions),
        delete_markers: Some(markers),
        common_prefixes: writer.prefixes(prefixes),
        delimiter: writer.option(input.delimiter.as_ref()),
        next_key_marker: next_key.map(|k| writer.text(k)),
        next_version_id_marker: next_id,
        encoding_type: input.encoding_type,
        ..Default::default()
    })
}

pub(super) async fn uploads(
    call: Call,
    request: Taken<ListMultipartUploadsInput>,
) -> Given<ListMultipartUploadsOutput> {
    let input = request.input;
    let max = limit(&call, input.max_uploads)?;
    let writer = Writer(input.encoding_type.clone());
    let query = Query {
        prefix: text(input.prefix.as_ref()),
        delimiter: text(input.delimiter.as_ref()),
        after: text(input.key_marker.as_ref()),
        after_id: input.upload_id_marker.as_deref().filter(|id| !id.is_empty() && input.key_marker.is_some()),
        max,
    };
    let (uploads, prefixes, truncated, next) = call.with(|world| {
        let page = listing::uploads(control::bucket(world, &input.bucket)?, &query);
        let upload = |(id, upload): &(&str, &crate::s3::state::Upload)| MultipartUpload {
            checksum_algorithm: upload.algorithm.map(|a| ChecksumAlgorithm::from_static(a.name())),
            checksum_type: upload
                .algorithm
                .map(|_| ChecksumType::from_static(checksums::type_name(upload.full_object))),
            initiated: Some(timestamp(upload.initiated)),
            key: Some(writer.text(&upload.key)),
            owner: Some(owner()),
            storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
            upload_id: Some((*id).to_owned()),
            ..Default::default()
        };
        let uploads = page.items.iter().map(upload).collect::<Vec<_>>();
        Ok((uploads, page.prefixes, page.truncated, page.next))
    })?;
    let (next_key, next_id) = next.map_or((None, None), |(key, id)| (Some(key), id));
    done(ListMultipartUploadsOutput {
        bucket: Some(input.bucket.clone()),
        prefix: Some(writer.text(query.prefix)),
        key_marker: Some(writer.text(query.after)),
        upload_id_marker: input.upload_id_marker.clone(),
        max_uploads: i32::try_from(max).ok(),
        is_truncated: Some(truncated),
        uploads: Some(uploads),
        common_prefixes: writer.prefixes(prefixes),
        delimiter: writer.option(input.delimiter.as_ref()),
        next_key_marker: next_key.map(|k| writer.text(k)),
        next_upload_id_marker: next_id,
        encoding_type: input.encoding_type,
        ..Default::default()
    })
}

pub(super) async fn parts(call: Call, request: Taken<ListPartsInput>) -> Given<ListPartsOutput> {
    let input = request.input;
    let max = limit(&call, input.max_parts)?;
    let upload = call.with(|world| {
        let bucket = control::bucket(world, &input.bucket)?;
        multipart::find(bucket, &input.key, &input.upload_id).cloned()
    })?;
    let after = input.part_number_marker.unwrap_or(0);
    let mut behind = upload.parts.iter().filter(|(number, _)| **number > after);
    let parts: Vec<_> = behind
        .by_ref()
        .take(max)
        .map(|(number, part)| {
            let mut out = Part {
                part_number: Some(*number),
                size: i64::try_from(part.size).ok(),
                e_tag: Some(objects::etag(&part.etag)),
                last_modified: Some(timestamp(part.modified)),
                ..Default::default()
            };
            set_checksum!(out, upload.effective(), Some(part.checksum.clone()));
            out
        })
        .collect();
    let truncated = behind.next().is_some();
    done(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        part_number_marker: Some(after),
        next_part_number_marker: parts.last().and_then(|p| p.part_number),
        max_parts: i32::try_from(max).ok(),
        is_truncated: Some(truncated),
        parts: Some(parts),
        owner: Some(owner()),
        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
        checksum_algorithm: upload.algorithm.map(|a| ChecksumAlgorithm::from_static(a.name())),
        checksum_type: upload.algorithm.map(|_| ChecksumType::from_static(checksums::type_name(upload.full_object))),
        ..Default::default()
    })
}
