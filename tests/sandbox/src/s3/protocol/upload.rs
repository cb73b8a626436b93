//! Multipart uploads.

use s3s::dto::*;

use super::write::{self, Claims, about, encryption, given_checksums, set_checksum};
use super::{Call, Given, Taken, done};
use crate::s3::checksums;
use crate::s3::multipart::{self, Completion};
use crate::s3::state::{Upload, UploadedPart};
use crate::s3::{control, files, objects};

pub(super) async fn create(
    call: Call,
    request: Taken<CreateMultipartUploadInput>,
) -> Given<CreateMultipartUploadOutput> {
    let input = request.input;
    let asked = input.checksum_algorithm.as_ref().map(ChecksumAlgorithm::as_str);
    let (algorithm, full_object) =
        multipart::plan(asked, input.checksum_type.as_ref().map(ChecksumType::as_str)).map_err(|e| call.error(e))?;
    let about = about!(&call, input);
    let upload =
        Upload { key: input.key.clone(), initiated: super::now(), algorithm, full_object, about, ..Default::default() };
    let id = objects::new_id();
    let mut output = CreateMultipartUploadOutput {
        bucket: Some(input.bucket.clone()),
        key: Some(input.key),
        upload_id: Some(id.clone()),
        checksum_algorithm: algorithm.map(|a| ChecksumAlgorithm::from_static(a.name())),
        checksum_type: algorithm.map(|_| ChecksumType::from_static(checksums::type_name(full_object))),
        ..Default::default()
    };
    call.with(|world| {
        (output.server_side_encryption, output.ssekms_key_id) = encryption(world, &input.bucket, &upload.about);
        control::bucket(world, &input.bucket)?.uploads.insert(id, upload);
        Ok(())
    })?;
    done(output)
}

pub(super) async fn part(call: Call, mut request: Taken<UploadPartInput>) -> Given<UploadPartOutput> {
    let given = given_checksums!(request.input);
    let announced = request.input.checksum_algorithm.clone();
    let mut claims = Claims::new(&mut request, given, announced.as_ref());
    let input = request.input;
    claims.md5.clone_from(&input.content_md5);
    claims.length = input.content_length;
    multipart::check_number(input.part_number).map_err(|e| call.error(e))?;
    let used = claims.algorithms();
    let algorithm = call.with(|world| {
        let bucket = control::bucket(world, &input.bucket)?;
        let upload = multipart::find(bucket, &input.key, &input.upload_id)?;
        multipart::check_part_algorithm(upload, &used)?;
        Ok(upload.effective())
    })?;
    let (mut sums, extents) = write::store(&call, input.body, claims, &[algorithm]).await?;
    let mut output = UploadPartOutput { e_tag: Some(objects::etag(&sums.md5)), ..Default::default() };
    for used in &used {
        set_checksum!(output, used, sums.sums.get(used).cloned());
    }
    let checksum = sums.sums.remove(&algorithm).unwrap_or_default();
    set_checksum!(output, algorithm, Some(checksum.clone()));
    let files: Vec<_> = extents.iter().map(|e| e.file.clone()).collect();
    let part = UploadedPart { etag: sums.md5, size: sums.size, modified: super::now(), checksum, extents };
    let stored = call
        .with(|world| multipart::put_part(world, &input.bucket, &input.key, &input.upload_id, input.part_number, part));
    if let Err(error) = stored {
        files::remove(&call.data_dir(), &files);
        return Err(error);
    }
    done(output)
}

pub(super) async fn complete(
    call: Call,
    request: Taken<CompleteMultipartUploadInput>,
) -> Given<CompleteMultipartUploadOutput> {
    let input = request.input;
    let parts = input.multipart_upload.clone().and_then(|u| u.parts).unwrap_or_default();
    let algorithm = call.with(|world| {
        let bucket = control::bucket(world, &input.bucket)?;
        Ok(multipart::find(bucket, &input.key, &input.upload_id)?.effective())
    })?;
    let part = |part: CompletedPart| {
        let checksum = given_checksums!(part).into_iter().find(|(a, _)| *a == algorithm).map(|(_, value)| value);
        let etag = part.e_tag.map(ETag::into_value).unwrap_or_default();
        (part.part_number.unwrap_or_default(), etag, checksum)
    };
    let completion = Completion {
        parts: parts.into_iter().map(part).collect(),
        checksums: given_checksums!(input),
        kind: input.checksum_type.as_ref().map(|t| t.as_str().to_owned()),
        size: input.mpu_object_size.and_then(|s| u64::try_from(s).ok()),
        if_match: input.if_match,
        if_none_match: input.if_none_match,
    };
    let mut output = CompleteMultipartUploadOutput {
        bucket: Some(input.bucket.clone()),
        key: Some(input.key.clone()),
        ..Default::default()
    };
    let (version, id) = call.with(|world| {
        let now = super::now();
        let made = multipart::complete(world, &input.bucket, &input.key, &input.upload_id, &completion, now)?;
        (output.server_side_encryption, output.ssekms_key_id) = encryption(world, &input.bucket, &made.0.about);
        output.location = Some(format!("{}/{}/{}", world.url, input.bucket, input.key));
        Ok(made)
    })?;
    output.version_id = id;
    output.e_tag = Some(objects::etag(&version.etag));
    if let Some(checksum) = version.checksum {
        output.checksum_type = Some(ChecksumType::from_static(checksum.type_name()));
        set_checksum!(output, checksum.algorithm, Some(checksum.value));
    }
    done(output)
}

pub(super) async fn abort(call: Call, request: Taken<AbortMultipartUploadInput>) -> Given<AbortMultipartUploadOutput> {
    let input = request.input;
    call.with(|world| multipart::abort(world, &input.bucket, &input.key, &input.upload_id, call.ctx.now))?;
    done(AbortMultipartUploadOutput::default())
}
