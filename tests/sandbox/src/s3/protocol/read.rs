//! GetObject, HeadObject, GetObjectAttributes, tags.

use s3s::dto::*;
use s3s::{S3Response, S3Result};

use super::write::{encryption, set_checksum};
use super::{Call, Given, Taken, done, timestamp};
use crate::s3::objects::{self, Conditions};
use crate::s3::state::Version;
use crate::s3::{control, files};
use crate::world::ApiError;

/// Milliseconds since 1970.
pub(super) fn millis(time: Option<&Timestamp>) -> Option<i64> {
    let time = time?;
    let mut text = Vec::new();
    time.format(TimestampFormat::EpochSeconds, &mut text).ok()?;
    let seconds: f64 = std::str::from_utf8(&text).ok()?.parse().ok()?;
    Some((seconds * 1000.0) as i64)
}

/// The part of an object that a request asked for.
struct Selected {
    version: Version,
    start: u64,
    len: u64,
    /// Not the whole.
    partial: bool,
    /// The checksum of a part asked for by number.
    part_checksum: Option<String>,
    encryption: (Option<ServerSideEncryption>, Option<String>),
    versioned: bool,
}

struct Wanted<'a> {
    bucket: &'a str,
    key: &'a str,
    version: Option<&'a str>,
    range: Option<Range>,
    part: Option<i32>,
    conditions: Conditions,
}

fn select(call: &Call, wanted: &Wanted<'_>) -> S3Result<Selected> {
    call.with(|world| {
        let bucket = control::bucket(world, wanted.bucket)?;
        let versioned = bucket.versioning != crate::s3::state::Versioning::Off;
        let version = objects::find(bucket, wanted.key, wanted.version)?.clone();
        wanted.conditions.check(&version, false)?;
        let encryption = encryption(world, wanted.bucket, &version.about);
        let mut out = Selected {
            start: 0,
            len: version.size,
            partial: false,
            part_checksum: None,
            encryption,
            versioned,
            version,
        };
        let unsatisfiable = || ApiError::new("InvalidRange", "The requested range is not satisfiable").status(416);
        match (wanted.range, wanted.part) {
            (Some(_), Some(_)) => {
                return Err(ApiError::new(
                    "InvalidRequest",
                    "Cannot specify both Range header and partNumber query parameter",
                ));
            }
            (Some(range), None) => {
                let bytes = range.check(out.version.size).map_err(|_| unsatisfiable())?;
                (out.start, out.len, out.partial) = (bytes.start, bytes.end - bytes.start, true);
            }
            (None, Some(number)) => {
                out.partial = true;
                let missing =
                    || ApiError::new("InvalidPartNumber", "The requested partnumber is not satisfiable").status(416);
                if out.version.parts.is_empty() {
                    // A whole object is its own part 1.
                    (number == 1).then_some(()).ok_or_else(missing)?;
                } else {
                    let at = out.version.parts.iter().position(|p| p.number == number).ok_or_else(missing)?;
                    out.start = out.version.parts[..at].iter().map(|p| p.size).sum();
                    out.len = out.version.parts[at].size;
                    out.part_checksum.clone_from(&out.version.parts[at].checksum);
                }
            }
            (None, None) => {}
        }
        Ok(out)
    })
}

/// The members that GetObject and HeadObject share.
macro_rules! fill {
    ($output:expr, $selected:expr, $mode:expr) => {{
        let selected = &$selected;
        let (version, about) = (&selected.version, &selected.version.about);
        $output.accept_ranges = Some("bytes".to_owned());
        $output.content_length = i64::try_from(selected.len).ok();
        $output.content_type = Some(about.content_type.clone().unwrap_or_else(|| "binary/octet-stream".to_owned()));
        $output.content_encoding = about.content_encoding.clone();
        $output.content_disposition = about.content_disposition.clone();
        $output.content_language = about.content_language.clone();
        $output.cache_control = about.cache_control.clone();
        $output.storage_class = about.storage_class.clone().map(StorageClass::from);
        ($output.server_side_encryption, $output.ssekms_key_id) = selected.encryption.clone();
        $output.e_tag = Some(objects::etag(&version.etag));
        $output.last_modified = Some(timestamp(version.modified));
        $output.metadata = Some(about.metadata.clone().into_iter().collect());
        $output.version_id = selected.versioned.then(|| version.id.clone());
        if selected.partial && version.size > 0 {
            let last = (selected.start + selected.len).saturating_sub(1);
            $output.content_range = Some(format!("bytes {}-{last}/{}", selected.start, version.size));
        }
        if let Some(checksum) = version.checksum.as_ref().filter(|_| $mode) {
            let whole = selected.len == version.size;
            let value = if whole { Some(checksum.value.clone()) } else { selected.part_checksum.clone() };
            if value.is_some() {
                $output.checksum_type = Some(ChecksumType::from_static(checksum.type_name()));
            }
            set_checksum!($output, checksum.algorithm, value);
        }
    }};
}

macro_rules! wanted {
    ($input:expr) => {
        Wanted {
            bucket: &$input.bucket,
            key: &$input.key,
            version: $input.version_id.as_deref(),
            range: $input.range,
            part: $input.part_number,
            conditions: Conditions {
                matches: $input.if_match.clone(),
                none_match: $input.if_none_match.clone(),
                modified_since: millis($input.if_modified_since.as_ref()),
                unmodified_since: millis($input.if_unmodified_since.as_ref()),
            },
        }
    };
}

fn parts_count(selected: &Selected, asked: bool) -> Option<i32> {
    i32::try_from(selected.version.parts.len()).ok().filter(|n| asked && *n > 0)
}

/// 206 for a part of an object.
fn with_status<T>(output: T, partial: bool) -> S3Result<S3Response<T>> {
    if partial { Ok(S3Response::with_status(output, axum::http::StatusCode::PARTIAL_CONTENT)) } else { done(output) }
}

pub(super) async fn get(call: Call, request: Taken<GetObjectInput>) -> Given<GetObjectOutput> {
    let input = request.input;
    let selected = select(&call, &wanted!(input))?;
    let mode = input.checksum_mode.is_some_and(|m| m.as_str() == ChecksumMode::ENABLED);
    let mut output = GetObjectOutput::default();
    fill!(output, selected, mode);
    output.parts_count = parts_count(&selected, input.part_number.is_some());
    output.tag_count = i32::try_from(selected.version.about.tags.len()).ok().filter(|n| *n > 0);
    let extents = files::slice(&selected.version.extents, selected.start, selected.len);
    output.body = Some(StreamingBlob::wrap(files::stream(call.data_dir(), extents)));
    with_status(output, selected.partial)
}

pub(super) async fn head(call: Call, request: Taken<HeadObjectInput>) -> Given<HeadObjectOutput> {
    let input = request.input;
    let selected = select(&call, &wanted!(input))?;
    let mode = input.checksum_mode.is_some_and(|m| m.as_str() == ChecksumMode::ENABLED);
    let mut output = HeadObjectOutput::default();
    fill!(output, selected, mode);
    output.parts_count = parts_count(&selected, input.part_number.is_some());
    with_status(output, selected.partial)
}

pub(super) async fn attributes(
    call: Call,
    request: Taken<GetObjectAttributesInput>,
) -> Given<GetObjectAttributesOutput> {
    let input = request.input;
    let (version, versioned) = call.with(|world| {
        let bucket = control::bucket(world, &input.bucket)?;
        let version = objects::find(bucket, &input.key, input.version_id.as_deref())?;
        Ok((version.clone(), bucket.versioning != crate::s3::state::Versioning::Off))
    })?;
    // Names may come in one header or in several.
    let wants = |name: &str| input.object_attributes.iter().any(|a| a.as_str().split(',').any(|a| a.trim() == name));
    let mut output = GetObjectAttributesOutput {
        last_modified: Some(timestamp(version.modified)),
        version_id: versioned.then(|| version.id.clone()),
        ..Default::default()
    };
    if wants("ETag") {
        output.e_tag = Some(objects::etag(&version.etag));
    }
    if wants("ObjectSize") {
        output.object_size = i64::try_from(version.size).ok();
    }
    if wants("StorageClass") {
        let class = version.about.storage_class.clone().unwrap_or_else(|| "STANDARD".to_owned());
        output.storage_class = Some(StorageClass::from(class));
    }
    if let Some(sum) = version.checksum.as_ref().filter(|_| wants("Checksum")) {
        let mut checksum =
            Checksum { checksum_type: Some(ChecksumType::from_static(sum.type_name())), ..Default::default() };
        set_checksum!(checksum, sum.algorithm, Some(sum.value.clone()));
        output.checksum = Some(checksum);
    }
    if wants("ObjectParts") && !version.parts.is_empty() {
        let after = input.part_number_marker.unwrap_or(0);
        let most = usize::try_from(input.max_parts.unwrap_or(1000)).unwrap_or(0).min(1000);
        let behind: Vec<_> = version.parts.iter().filter(|p| p.number > after).collect();
        let shown = &behind[..most.min(behind.len())];
        let part = |p: &&crate::s3::state::CompletedPart| {
            let mut part =
                ObjectPart { part_number: Some(p.number), size: i64::try_from(p.size).ok(), ..Default::default() };
            if let Some(sum) = &version.checksum {
                set_checksum!(part, sum.algorithm, p.checksum.clone());
            }
            part
        };
        output.object_parts = Some(GetObjectAttributesParts {
            is_truncated: Some(shown.len() < behind.len()),
            max_parts: i32::try_from(most).ok(),
            next_part_number_marker: shown.last().map(|p| p.number),
            part_number_marker: Some(after),
            parts: Some(shown.iter().map(part).collect()),
            total_parts_count: i32::try_from(version.parts.len()).ok(),
        });
    }
    done(output)
}

pub(super) async fn tags(call: Call, request: Taken<GetObjectTaggingInput>) -> Given<GetObjectTaggingOutput> {
    let input = request.input;
    let version = call.with(|world| {
        let bucket = control::bucket(world, &input.bucket)?;
        objects::find(bucket, &input.key, input.version_id.as_deref()).cloned()
    })?;
    let tags = version.about.tags.into_iter();
    done(GetObjectTaggingOutput {
        tag_set: tags.map(|(k, v)| Tag { key: Some(k), value: Some(v) }).collect(),
        version_id: Some(version.id).filter(|id| id != "null"),
    })
}
