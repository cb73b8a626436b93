//! Multipart uploads.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart, ServerSideEncryption,
};
use bytes::Bytes;

use super::{COPY_TIMEOUT, PART_TIMEOUT, S3, copy_source, one_of_many, patience, place, unsigned};
use crate::cloud::aws::errors::code;
use crate::cloud::{CopySource, Objects, OpenUpload, PartDone, PutOptions, Uploads, Written};
use crate::error::{Error, Result};

/// S3 may think for minutes before it answers CompleteMultipartUpload of an object with thousands of parts.
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(10 * 60);

#[async_trait]
impl Uploads for S3 {
    async fn begin_upload(&self, bucket: &str, key: &str, options: &PutOptions) -> Result<String> {
        let what = || format!("cannot begin the upload of {}", place(bucket, key));
        loop {
            let mut call = self
                .client
                .create_multipart_upload()
                .bucket(bucket)
                .key(key)
                .set_content_type(options.content_type.clone())
                .set_metadata(Some(options.metadata.clone().into_iter().collect()))
                .set_expected_bucket_owner(self.owner());
            if let Some(key) = &options.kms_key_arn {
                call = call
                    .server_side_encryption(ServerSideEncryption::AwsKms)
                    .ssekms_key_id(key)
                    .bucket_key_enabled(true);
            }
            if self.crc64() {
                call = call.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme).checksum_type(ChecksumType::FullObject);
            }
            match call.send().await {
                Ok(answer) => {
                    return answer
                        .upload_id
                        .ok_or_else(|| Error::failed(what()).why("S3 answered without an upload id"));
                }
                Err(e) if self.gives_up_crc64(&code(&e)) => {}
                Err(e) => return Err(self.context.explain("s3:PutObject", what(), &e)),
            }
        }
    }

    async fn upload_part(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
        number: u32,
        body: Bytes,
        crc64nvme: &str,
    ) -> Result<PartDone> {
        let what = || format!("cannot upload part {number} of {}", place(bucket, key));
        let size = body.len() as u64;
        let part = i32::try_from(number).map_err(|_| Error::failed(what()).why("parts are numbered 1 to 10,000"))?;
        let mut with_checksum = self.crc64();
        loop {
            let call = self
                .client
                .upload_part()
                .bucket(bucket)
                .key(key)
                .upload_id(upload_id)
                .part_number(part)
                .body(ByteStream::from(body.clone()))
                .set_checksum_crc64_nvme(with_checksum.then(|| crc64nvme.to_owned()))
                .set_expected_bucket_owner(self.owner());
            let mut call = call.customize().config_override(one_of_many(PART_TIMEOUT));
            if with_checksum && self.safe_line {
                // S3 compares the CRC64NVME. A SHA-256 of the same bytes for the signature would be most of the work of
                // sending them.
                call = call.disable_payload_signing();
            }
            match call.send().await {
                Ok(answer) => {
                    let etag = answer.e_tag.ok_or_else(|| Error::failed(what()).why("S3 answered without an ETag"))?;
                    return Ok(PartDone { number, etag, size, crc64nvme: crc64nvme.to_owned() });
                }
                Err(e) if with_checksum && (self.gives_up_crc64(&code(&e)) || !self.crc64()) => with_checksum = false,
                Err(e) => return Err(self.context.explain("s3:PutObject", what(), &e)),
            }
        }
    }

    async fn copy_part(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
        number: u32,
        source: &CopySource,
        range: Range<u64>,
    ) -> Result<PartDone> {
        let what =
            || format!("cannot copy part {number} of {} from {}", place(bucket, key), place(bucket, &source.key));
        let size = range.end.saturating_sub(range.start);
        let call = self
            .client
            .upload_part_copy()
            .bucket(bucket)
            .key(key)
            .upload_id(upload_id)
            .set_part_number(i32::try_from(number).ok())
            .copy_source(copy_source(bucket, source))
            .copy_source_if_match(&source.etag)
            .copy_source_range(format!("bytes={}-{}", range.start, range.end.saturating_sub(1)))
            .set_expected_bucket_owner(self.owner())
            .set_expected_source_bucket_owner(self.owner());
        let answer = call
            .customize()
            .config_override(one_of_many(COPY_TIMEOUT))
            .send()
            .await
            .map_err(|e| self.context.explain("s3:GetObject", what(), &e))?;
        let result = answer.copy_part_result;
        let crc64nvme = result.as_ref().and_then(|r| r.checksum_crc64_nvme.clone()).unwrap_or_default();
        let etag = result.and_then(|r| r.e_tag);
        let etag = etag.ok_or_else(|| Error::failed(what()).why("S3 answered without an ETag"))?;
        Ok(PartDone { number, etag, size, crc64nvme })
    }

    async fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
        parts: &[PartDone],
        crc64nvme: &str,
        size: u64,
        if_absent: bool,
    ) -> Result<Written> {
        let what = || format!("cannot complete the upload of {}", place(bucket, key));
        let expected = i64::try_from(size).map_err(|_| Error::failed(what()).why("no object can be that large"))?;
        let mut with_checksum = self.crc64();
        loop {
            let parts = parts.iter().map(|p| {
                CompletedPart::builder()
                    .set_part_number(i32::try_from(p.number).ok())
                    .e_tag(&p.etag)
                    .set_checksum_crc64_nvme((with_checksum && !p.crc64nvme.is_empty()).then(|| p.crc64nvme.clone()))
                    .build()
            });
            let mut call = self
                .client
                .complete_multipart_upload()
                .bucket(bucket)
                .key(key)
                .upload_id(upload_id)
                .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build())
                .mpu_object_size(expected)
                .set_if_none_match(if_absent.then(|| "*".to_owned()))
                .set_expected_bucket_owner(self.owner());
            if with_checksum {
                call = call.checksum_crc64_nvme(crc64nvme).checksum_type(ChecksumType::FullObject);
            }
            let error = match call.customize().config_override(patience(COMPLETE_TIMEOUT)).send().await {
                Ok(_) => return Ok(Written::Created),
                Err(error) => error,
            };
            match code(&error).as_str() {
                "PreconditionFailed" => {
                    // The parts are of no use to anybody now, and are billed until they are gone.
                    if let Err(e) = self.abort_upload(bucket, key, upload_id).await {
                        tracing::debug!("an upload of an object that is there already is left over: {e}");
                    }
                    return Ok(Written::AlreadyThere);
                }
                // A repeated request after a lost answer: the first one may have completed the upload.
                "NoSuchUpload" => {
                    let there = self.head(bucket, key).await?;
                    if there.is_some_and(|o| o.size == size && o.crc64nvme.is_none_or(|c| c == crc64nvme)) {
                        return Ok(Written::Created);
                    }
                    return Err(self.context.explain("s3:PutObject", what(), &error));
                }
                code if with_checksum && (self.gives_up_crc64(code) || !self.crc64()) => with_checksum = false,
                _ => return Err(self.context.explain("s3:PutObject", what(), &error)),
            }
        }
    }

    async fn abort_upload(&self, bucket: &str, key: &str, upload_id: &str) -> Result<()> {
        let call = self
            .client
            .abort_multipart_upload()
            .bucket(bucket)
            .key(key)
            .upload_id(upload_id)
            .set_expected_bucket_owner(self.owner());
        match call.send().await {
            Ok(_) => Ok(()),
            Err(e) if code(&e) == "NoSuchUpload" => Ok(()),
            Err(e) => {
                let what = format!("cannot abort the upload of {}", place(bucket, key));
                Err(self.context.explain("s3:AbortMultipartUpload", what, &e))
            }
        }
    }

    async fn open_uploads(&self, bucket: &str, prefix: &str) -> Result<Vec<OpenUpload>> {
        let mut uploads = Vec::new();
        let (mut key, mut id) = (None, None);
        loop {
            let page = self
                .client
                .list_multipart_uploads()
                .bucket(bucket)
                .prefix(prefix)
                .set_key_marker(key)
                .set_upload_id_marker(id)
                .set_expected_bucket_owner(self.owner())
                .send()
                .await
                .map_err(|e| {
                    let what = format!("cannot list unfinished uploads below {}", place(bucket, prefix));
                    self.context.explain("s3:ListBucketMultipartUploads", what, &e)
                })?;
            uploads.extend(page.uploads.unwrap_or_default().into_iter().filter_map(|u| {
                Some(OpenUpload {
                    key: u.key?,
                    upload_id: u.upload_id?,
                    initiated: u.initiated.map(|t| t.secs()).unwrap_or_default(),
                })
            }));
            if !page.is_truncated.unwrap_or(false) || page.next_key_marker.is_none() {
                return Ok(uploads);
            }
            (key, id) = (page.next_key_marker, page.next_upload_id_marker);
        }
    }

    async fn parts(&self, bucket: &str, key: &str, upload_id: &str) -> Result<Vec<PartDone>> {
        let mut pages = self
            .client
            .list_parts()
            .bucket(bucket)
            .key(key)
            .upload_id(upload_id)
            .set_expected_bucket_owner(self.owner())
            .into_paginator()
            .send();
        let mut parts = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| {
                let what = format!("cannot list the uploaded parts of {}", place(bucket, key));
                self.context.explain("s3:ListMultipartUploadParts", what, &e)
            })?;
            parts.extend(page.parts.unwrap_or_default().into_iter().filter_map(|p| {
                Some(PartDone {
                    number: u32::try_from(p.part_number?).ok()?,
                    etag: p.e_tag?,
                    size: unsigned(p.size),
                    crc64nvme: p.checksum_crc64_nvme.unwrap_or_default(),
                })
            }));
        }
        Ok(parts)
    }
}
