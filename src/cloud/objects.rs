//! S3, as far as we use it.

use async_trait::async_trait;
use bytes::Bytes;

use super::Map;
use crate::error::Result;

/// What HeadObject knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectHead {
    /// Bytes.
    pub size: u64,
    /// Base64, whole object, when S3 has it.
    pub crc64nvme: Option<String>,
    /// With its quotes.
    pub etag: Option<String>,
    /// In a versioned bucket.
    pub version_id: Option<String>,
    /// The key of KMS that encrypts it, or the name of another kind of encryption; where S3 says so.
    pub encrypted_with: Option<String>,
    /// `x-amz-meta-*`, lower-case names without the prefix.
    pub metadata: Map,
}

/// Whether a bucket can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketState {
    /// Ours, in this region.
    Owned,
    /// Nobody has it.
    Absent,
    /// Somebody else has it, or we may not look.
    Forbidden,
    /// Ours or not, it is in another region.
    Elsewhere,
}

/// Where an object goes, and how.
#[derive(Debug, Clone, Default)]
pub struct PutOptions {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `x-amz-meta-*` without the prefix.
    pub metadata: Map,
    /// Refuse to overwrite (`If-None-Match: *`).
    pub if_absent: bool,
    /// SSE-KMS with this key.
    pub kms_key_arn: Option<String>,
}

/// Whether a conditional write wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is there now.
    Created,
    /// Somebody was there first (412): for content-addressed keys this is success.
    AlreadyThere,
}

/// One uploaded part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartDone {
    /// 1 to 10,000.
    pub number: u32,
    /// With its quotes.
    pub etag: String,
    /// Bytes.
    pub size: u64,
    /// Base64, of this part.
    pub crc64nvme: String,
}

/// An object to copy from, as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopySource {
    /// Its key, in the bucket that is written to.
    pub key: String,
    /// With its quotes: a copy fails if the object has another one by then.
    pub etag: String,
    /// In a versioned bucket.
    pub version_id: Option<String>,
}

/// A multipart upload that was begun and neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenUpload {
    /// The object's key.
    pub key: String,
    /// S3's id.
    pub upload_id: String,
    /// Seconds since 1970.
    pub initiated: i64,
}

/// An object in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// When it was written, in seconds since 1970.
    pub modified: i64,
}

/// A range of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectPart {
    /// The bytes; fewer than asked for at the object's end.
    pub body: Bytes,
    /// Bytes of the whole object.
    pub size: u64,
    /// With its quotes.
    pub etag: Option<String>,
}

/// S3. Every call but [`Objects::read`] carries the expected bucket owner.
#[async_trait]
pub trait Objects: Uploads {
    /// HeadBucket.
    async fn bucket(&self, bucket: &str) -> Result<BucketState>;
    /// GetBucketTagging; empty when there are none.
    async fn bucket_tags(&self, bucket: &str) -> Result<Map>;
    /// HeadObject with checksums.
    async fn head(&self, bucket: &str, key: &str) -> Result<Option<ObjectHead>>;
    /// GetObject, for small objects.
    async fn get(&self, bucket: &str, key: &str) -> Result<Option<Bytes>>;
    /// GetObject of the bytes `from..to`, of anybody's bucket; none without the object. `PreconditionFailed` if the ETag
    /// is another than `if_match`.
    async fn read(
        &self,
        bucket: &str,
        key: &str,
        from: u64,
        to: u64,
        if_match: Option<&str>,
    ) -> Result<Option<ObjectPart>>;
    /// PutObject, for small objects.
    async fn put(&self, bucket: &str, key: &str, body: Bytes, options: &PutOptions) -> Result<Written>;
    /// ListObjectsV2: all below a prefix, by key.
    async fn list(&self, bucket: &str, prefix: &str) -> Result<Vec<Listed>>;
    /// DeleteObject.
    async fn delete(&self, bucket: &str, key: &str) -> Result<()>;
    /// CopyObject of an object of at most 5 GiB; returns the copy's CRC64NVME in base64, if S3 computes it. It writes
    /// over what is there: look before.
    async fn copy(&self, bucket: &str, key: &str, source: &CopySource, options: &PutOptions) -> Result<Option<String>>;
}

/// Multipart uploads of S3.
#[async_trait]
pub trait Uploads: Send + Sync {
    /// CreateMultipartUpload with CRC64NVME of the full object; returns the upload id.
    async fn begin_upload(&self, bucket: &str, key: &str, options: &PutOptions) -> Result<String>;
    /// UploadPart. `crc64nvme` is base64 and checked by S3.
    async fn upload_part(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
        number: u32,
        body: Bytes,
        crc64nvme: &str,
    ) -> Result<PartDone>;
    /// UploadPartCopy of a range of another object of the bucket. `crc64nvme` of the answer is what S3 computed; empty
    /// where it does not.
    async fn copy_part(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
        number: u32,
        source: &CopySource,
        range: std::ops::Range<u64>,
    ) -> Result<PartDone>;
    /// CompleteMultipartUpload with the whole object's checksum and size; never overwrites when `if_absent`.
    /// When the object is there already the parts are dropped. Finding the same object complete after `NoSuchUpload` (an
    /// answer that was lost) is success.
    #[allow(clippy::too_many_arguments, reason = "one per field of the request")]
    async fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
        parts: &[PartDone],
        crc64nvme: &str,
        size: u64,
        if_absent: bool,
    ) -> Result<Written>;
    /// AbortMultipartUpload; an upload that is already gone is fine.
    async fn abort_upload(&self, bucket: &str, key: &str, upload_id: &str) -> Result<()>;
    /// ListMultipartUploads below a prefix.
    async fn open_uploads(&self, bucket: &str, prefix: &str) -> Result<Vec<OpenUpload>>;
    /// ListParts.
    async fn parts(&self, bucket: &str, key: &str, upload_id: &str) -> Result<Vec<PartDone>>;
}
