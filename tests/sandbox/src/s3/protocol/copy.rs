//! CopyObject and UploadPartCopy. The bytes are read for their checksums, and not copied.

use s3s::S3Result;
use s3s::dto::*;

use super::read::millis;
use super::write::{about, encryption, set_checksum};
use super::{Call, Given, Taken, done, timestamp};
use crate::s3::checksums::{Algorithm, Checksum, Hasher, Sums};
use crate::s3::objects::{self, Conditions};
use crate::s3::state::{Extent, UploadedPart, Version, Versioning};
use crate::s3::{control, files, multipart};
use crate::world::ApiError;

/// The largest object that is copied in one request, and the largest part (S3 User Guide, CopyObject).
const LARGEST: u64 = 5 * 1024 * 1024 * 1024;

/// The version to copy, and its id if its bucket keeps versions.
fn source(call: &Call, source: &CopySource, conditions: &Conditions) -> S3Result<(Version, Option<String>)> {
    let CopySource::Bucket { bucket, key, version_id } = source else {
        return Err(call.error(ApiError::new("NotImplemented", "the sandbox copies only from buckets").status(501)));
    };
    call.with(|world| {
        let bucket = control::bucket(world, bucket)?;
        let versioned = bucket.versioning != Versioning::Off;
        let version = objects::find(bucket, key, version_id.as_deref())?;
        conditions.check(version, true)?;
        Ok((version.clone(), versioned.then(|| version.id.clone())))
    })
}

macro_rules! conditions {
    ($input:expr) => {
        Conditions {
            matches: $input.copy_source_if_match.clone(),
            none_match: $input.copy_source_if_none_match.clone(),
            modified_since: millis($input.copy_source_if_modified_since.as_ref()),
            unmodified_since: millis($input.copy_source_if_unmodified_since.as_ref()),
        }
    };
}

async fn sums(call: &Call, extents: &[Extent], algorithm: Algorithm) -> S3Result<Sums> {
    let hasher = files::hash(call.data_dir(), extents.to_vec(), Hasher::new(true, &[algorithm])).await;
    Ok(hasher.map_err(|e| call.disk(&e))?.finish())
}

pub(super) async fn object(call: Call, request: Taken<CopyObjectInput>) -> Given<CopyObjectOutput> {
    let input = request.input;
    let (from, source_id) = source(&call, &input.copy_source, &conditions!(input))?;
    if from.size > LARGEST {
        let message =
            "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120";
        return Err(call.error(ApiError::new("InvalidRequest", message)));
    }
    let replace_about = input.metadata_directive.as_ref().is_some_and(|d| d.as_str() == MetadataDirective::REPLACE);
    let replace_tags = input.tagging_directive.as_ref().is_some_and(|d| d.as_str() == TaggingDirective::REPLACE);
    let said = about!(&call, input);
    let itself = matches!(&input.copy_source, CopySource::Bucket { bucket, key, version_id: None }
        if **bucket == *input.bucket && **key == *input.key);
    let changes = replace_about || said.storage_class.is_some() || said.encryption.is_some();
    if itself && !changes {
        let message = "This copy request is illegal because it is trying to copy an object to itself without changing \
                       the object's metadata, storage class, website redirect location or encryption attributes.";
        return Err(call.error(ApiError::new("InvalidRequest", message)));
    }
    let mut about = if replace_about { said.clone() } else { from.about.clone() };
    about.tags = if replace_tags { said.tags } else { from.about.tags.clone() };
    about.encryption = said.encryption;
    about.kms_key = said.kms_key;
    about.storage_class = said.storage_class;
    let asked = input.checksum_algorithm.as_ref().and_then(|a| Algorithm::parse(a.as_str()));
    // One part from here on, so the ETag and a full-object checksum stay only if it was one before.
    let kept = from.checksum.clone().filter(|c| from.parts.is_empty() && asked.is_none_or(|a| a == c.algorithm));
    let (etag, checksum) = match kept {
        Some(checksum) => (from.etag.clone(), checksum),
        None => {
            let algorithm = asked.or(from.checksum.as_ref().map(|c| c.algorithm)).unwrap_or(Algorithm::Crc64Nvme);
            let mut sums = sums(&call, &from.extents, algorithm).await?;
            let value = sums.sums.remove(&algorithm).unwrap_or_default();
            (sums.md5, Checksum { algorithm, full_object: true, value })
        }
    };
    let modified = super::now();
    let version = Version {
        modified,
        size: from.size,
        etag: etag.clone(),
        extents: from.extents,
        checksum: Some(checksum.clone()),
        about,
        ..Default::default()
    };
    let mut output = CopyObjectOutput { copy_source_version_id: source_id, ..Default::default() };
    output.version_id = call.with(|world| {
        (output.server_side_encryption, output.ssekms_key_id) = encryption(world, &input.bucket, &version.about);
        objects::put(world, &input.bucket, &input.key, version)
    })?;
    let mut result = CopyObjectResult {
        e_tag: Some(objects::etag(&etag)),
        last_modified: Some(timestamp(modified)),
        checksum_type: Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT)),
        ..Default::default()
    };
    set_checksum!(result, checksum.algorithm, Some(checksum.value));
    output.copy_object_result = Some(result);
    done(output)
}

pub(super) async fn part(call: Call, request: Taken<UploadPartCopyInput>) -> Given<UploadPartCopyOutput> {
    let input = request.input;
    multipart::check_number(input.part_number).map_err(|e| call.error(e))?;
    let algorithm = call.with(|world| {
        let bucket = control::bucket(world, &input.bucket)?;
        Ok(multipart::find(bucket, &input.key, &input.upload_id)?.effective())
    })?;
    let (from, source_id) = source(&call, &input.copy_source, &conditions!(input))?;
    let (start, len) = match &input.copy_source_range {
        None => (0, from.size),
        Some(range) => copy_range(range, from.size).map_err(|e| call.error(e))?,
    };
    if len > LARGEST {
        let message =
            "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120";
        return Err(call.error(ApiError::new("InvalidRequest", message)));
    }
    let extents = files::slice(&from.extents, start, len);
    let mut sums = sums(&call, &extents, algorithm).await?;
    let checksum = sums.sums.remove(&algorithm).unwrap_or_default();
    let modified = super::now();
    let part = UploadedPart { etag: sums.md5.clone(), size: len, modified, checksum: checksum.clone(), extents };
    call.with(|world| {
        multipart::put_part(world, &input.bucket, &input.key, &input.upload_id, input.part_number, part)
    })?;
    let mut result = CopyPartResult {
        e_tag: Some(objects::etag(&sums.md5)),
        last_modified: Some(timestamp(modified)),
        ..Default::default()
    };
    set_checksum!(result, algorithm, Some(checksum));
    done(UploadPartCopyOutput {
        copy_part_result: Some(result),
        copy_source_version_id: source_id,
        ..Default::default()
    })
}

/// `bytes=first-last`, both given and inside the source.
fn copy_range(range: &str, size: u64) -> Result<(u64, u64), ApiError> {
    let numbers = range.strip_prefix("bytes=").and_then(|r| r.split_once('-'));
    let numbers = numbers.and_then(|(a, b)| Some((a.parse::<u64>().ok()?, b.parse::<u64>().ok()?)));
    let Some((first, last)) = numbers.filter(|(first, last)| first <= last) else {
        return Err(ApiError::new(
            "InvalidArgument",
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the \
             zero-based offsets of the first and last bytes to copy",
        ));
    };
    if last >= size {
        return Err(ApiError::new(
            "InvalidArgument",
            format!("Range specified is not valid for source object of size: {size}"),
        ));
    }
    Ok((first, last - first + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_ranges() {
        assert_eq!(copy_range("bytes=0-9", 10), Ok((0, 10)));
        assert_eq!(copy_range("bytes=3-3", 10), Ok((3, 1)));
        for bad in ["bytes=0-10", "bytes=4-3", "bytes=-3", "bytes=3-", "0-3"] {
            assert_eq!(copy_range(bad, 10).map_err(|e| e.code), Err("InvalidArgument".to_owned()), "{bad}");
        }
    }
}
