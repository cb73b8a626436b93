//! What completing a multipart upload does. No input and output.

use s3s::dto::ETagCondition;

use super::checksums::{self, Algorithm, Checksum};
use super::control;
use super::objects;
use super::state::{Bucket, CompletedPart, Upload, UploadedPart, Version};
use crate::world::{ApiError, World};

/// The smallest part but the last, in bytes (S3 User Guide, multipart upload limits).
const SMALLEST: u64 = 5 * 1024 * 1024;
/// Part numbers and parts (S3 User Guide, multipart upload limits).
const MOST: i32 = 10_000;

/// What a request to complete says.
#[derive(Debug, Default)]
pub struct Completion {
    /// Part number, ETag, and the checksum with the upload's algorithm.
    pub parts: Vec<(i32, String, Option<String>)>,
    /// Checksums of the object.
    pub checksums: Vec<(Algorithm, String)>,
    /// `FULL_OBJECT` or `COMPOSITE`.
    pub kind: Option<String>,
    /// Bytes.
    pub size: Option<u64>,
    /// If-Match.
    pub if_match: Option<ETagCondition>,
    /// If-None-Match.
    pub if_none_match: Option<ETagCondition>,
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new("InvalidRequest", message)
}

/// The algorithm and type of a new upload, from what was asked for.
pub fn plan(algorithm: Option<&str>, kind: Option<&str>) -> Result<(Option<Algorithm>, bool), ApiError> {
    let Some(name) = algorithm else {
        return match kind {
            None => Ok((None, true)),
            Some(_) => Err(invalid(
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            )),
        };
    };
    let algorithm = Algorithm::parse(name)
        .ok_or_else(|| invalid("Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]"))?;
    let full = match kind {
        None => algorithm == Algorithm::Crc64Nvme,
        Some("FULL_OBJECT") => true,
        Some("COMPOSITE") => false,
        Some(_) => return Err(invalid("Value for x-amz-checksum-type header is invalid.")),
    };
    if (full && !algorithm.combines()) || (!full && algorithm == Algorithm::Crc64Nvme) {
        return Err(invalid(format!(
            "The {} checksum type cannot be used with the {} checksum algorithm.",
            checksums::type_name(full),
            algorithm.name().to_ascii_lowercase()
        )));
    }
    Ok((Some(algorithm), full))
}

/// A part number that is allowed.
pub fn check_number(number: i32) -> Result<(), ApiError> {
    if (1..=MOST).contains(&number) {
        return Ok(());
    }
    Err(ApiError::new("InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive"))
}

/// Whether a part may come with these checksums.
pub fn check_part_algorithm(upload: &Upload, given: &[Algorithm]) -> Result<(), ApiError> {
    let Some(wanted) = upload.algorithm else { return Ok(()) };
    if given.contains(&wanted) || (given.is_empty() && upload.full_object) {
        return Ok(());
    }
    let actual = given.first().map_or("null".to_owned(), |a| a.name().to_ascii_lowercase());
    Err(invalid(format!(
        "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {actual}",
        wanted.name().to_ascii_lowercase()
    )))
}

/// The upload.
pub fn find<'a>(bucket: &'a Bucket, key: &str, id: &str) -> Result<&'a Upload, ApiError> {
    bucket.uploads.get(id).filter(|u| u.key == key).ok_or_else(|| {
        ApiError::new(
            "NoSuchUpload",
            "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted \
             or completed.",
        )
        .status(404)
    })
}

/// Stores a part; one with the same number is replaced.
pub fn put_part(
    world: &mut World,
    bucket: &str,
    key: &str,
    id: &str,
    number: i32,
    part: UploadedPart,
) -> Result<(), ApiError> {
    let found = control::bucket(world, bucket)?;
    find(found, key, id)?;
    let now = part.modified;
    let replaced = found.uploads.get_mut(id).and_then(|u| u.parts.insert(number, part));
    world.s3.discard(replaced.iter().flat_map(|p| &p.extents), now);
    Ok(())
}

/// Forgets an upload and its parts.
pub fn abort(world: &mut World, bucket: &str, key: &str, id: &str, now: i64) -> Result<(), ApiError> {
    let found = control::bucket(world, bucket)?;
    find(found, key, id)?;
    let upload = found.uploads.remove(id);
    world.s3.discard(upload.iter().flat_map(|u| u.parts.values()).flat_map(|p| &p.extents), now);
    Ok(())
}

/// Makes the object. Returns it, and its version id if the bucket keeps versions.
pub fn complete(
    world: &mut World,
    bucket: &str,
    key: &str,
    id: &str,
    completion: &Completion,
    now: i64,
) -> Result<(Version, Option<String>), ApiError> {
    let found = control::bucket(world, bucket)?;
    let upload = find(found, key, id)?;
    let version = assemble(upload, completion, now)?;
    let since = world.s3.deletions.now();
    objects::may_write(world, bucket, key, completion.if_match.as_ref(), completion.if_none_match.as_ref(), since)?;
    let version_id = objects::put(world, bucket, key, version.clone())?;
    // Parts that were not listed go with the upload; those of the object are in use and stay.
    abort(world, bucket, key, id, now)?;
    Ok((version, version_id))
}

fn assemble(upload: &Upload, completion: &Completion, now: i64) -> Result<Version, ApiError> {
    let algorithm = upload.effective();
    if completion.parts.is_empty() {
        return Err(ApiError::new(
            "MalformedXML",
            "The XML you provided was not well-formed or did not validate against our published schema",
        ));
    }
    if completion.kind.as_deref().is_some_and(|k| k != checksums::type_name(upload.full_object)) {
        return Err(invalid(format!(
            "The upload was created using the {} checksum mode. The complete request must use the same checksum mode.",
            checksums::type_name(upload.full_object)
        )));
    }
    if completion.parts.windows(2).any(|w| w[0].0 >= w[1].0) {
        return Err(ApiError::new(
            "InvalidPartOrder",
            "The list of parts was not in ascending order. Parts must be ordered by part number.",
        ));
    }
    let mut parts = Vec::with_capacity(completion.parts.len());
    for (number, etag, checksum) in &completion.parts {
        let part = upload.parts.get(number).filter(|p| p.etag == etag.trim_matches('"'));
        let part = part.filter(|p| checksum.as_ref().is_none_or(|c| *c == p.checksum)).ok_or_else(|| {
            ApiError::new(
                "InvalidPart",
                "One or more of the specified parts could not be found. The part may not have been uploaded, or the \
                 specified entity tag may not match the part's entity tag.",
            )
        })?;
        if upload.algorithm.is_some() && !upload.full_object && checksum.is_none() {
            return Err(invalid(format!(
                "The upload was created using a {} checksum. The complete request must include the checksum for each \
                 part. It was missing for part {number} in the request.",
                algorithm.name().to_ascii_lowercase()
            )));
        }
        parts.push((*number, part));
    }
    let but_last = &parts[..parts.len() - 1];
    if but_last.iter().any(|(_, p)| p.size < SMALLEST) {
        return Err(ApiError::new("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size"));
    }
    let size = parts.iter().map(|(_, p)| p.size).sum();
    if completion.size.is_some_and(|s| s != size) {
        return Err(invalid("The provided 'x-amz-mp-object-size' header value does not match what was computed."));
    }
    let values: Vec<_> = parts.iter().map(|(_, p)| (p.checksum.clone(), p.size)).collect();
    let value = if upload.full_object {
        checksums::combine(algorithm, &values)
    } else {
        checksums::composite(algorithm, &values)
    };
    let internal = || ApiError::new("InternalError", "a stored checksum cannot be read").status(500);
    let value = value.ok_or_else(internal)?;
    check_object_checksum(upload, completion, &value)?;
    let numbered = |(number, part): &(i32, &UploadedPart)| CompletedPart {
        number: *number,
        size: part.size,
        checksum: Some(part.checksum.clone()),
    };
    Ok(Version {
        modified: now,
        size,
        etag: checksums::multipart_etag(parts.iter().map(|(_, p)| p.etag.as_str())).ok_or_else(internal)?,
        extents: parts.iter().flat_map(|(_, p)| p.extents.clone()).collect(),
        parts: parts.iter().map(numbered).collect(),
        checksum: Some(Checksum { algorithm, full_object: upload.full_object, value }),
        about: upload.about.clone(),
        ..Default::default()
    })
}

fn check_object_checksum(upload: &Upload, completion: &Completion, value: &str) -> Result<(), ApiError> {
    for (algorithm, given) in &completion.checksums {
        if *algorithm != upload.effective() {
            return Err(ApiError::new(
                "BadDigest",
                format!(
                    "The {} you specified did not match the calculated checksum.",
                    algorithm.name().to_ascii_lowercase()
                ),
            ));
        }
        let matches = given == value || (!upload.full_object && value.split('-').next() == Some(given));
        if !matches {
            return Err(ApiError::new(
                "BadDigest",
                format!("The {} you specified did not match the calculated checksum.", algorithm.name()),
            ));
        }
    }
    Ok(())
}
