//! Ports to AWS in our own words. Everything outside `cloud/aws` talks to these traits only,
//! so the whole program also runs on a stand-in and each adapter stays small.
//!
//! Every method is one or a few API calls, retries throttling inside the adapter, and returns
//! [`crate::error::Error`] with the service's code and request id kept. Absent things are `None`,
//! never an error.

pub mod aws;
mod calls;
#[cfg(test)]
pub(crate) mod fake;
mod identity;
pub mod observe;

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Result;

pub use calls::{Answer, Calls, UrlCall};
pub use identity::{Caller, Identity};

/// Tags, or any other string map whose order must not matter.
pub type Map = BTreeMap<String, String>;

/// All ports of one account and region, as `main` connected them.
pub struct Cloud {
    /// STS.
    pub identity: Box<dyn Identity>,
    /// S3.
    pub objects: std::sync::Arc<dyn Objects>,
    /// ECR.
    pub images: Box<dyn Images>,
    /// CloudFormation.
    pub stacks: Box<dyn Stacks>,
    /// SageMaker.
    pub endpoints: Box<dyn Endpoints>,
    /// Application Auto Scaling.
    pub scaling: Box<dyn Scaling>,
    /// CloudWatch Logs.
    pub logs: Box<dyn Logs>,
    /// Service Quotas.
    pub quotas: Box<dyn Quotas>,
    /// The Function URL and the endpoint's own API.
    pub serving: Box<dyn Calls>,
    /// How many API requests were sent since the start, retries included.
    pub calls: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

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
pub trait Objects: Send + Sync {
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
    /// ListObjectsV2: keys and sizes below a prefix.
    async fn list(&self, bucket: &str, prefix: &str) -> Result<Vec<(String, u64)>>;
    /// DeleteObject.
    async fn delete(&self, bucket: &str, key: &str) -> Result<()>;
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
    /// CopyObject of an object of at most 5 GiB; returns the copy's CRC64NVME in base64, if S3 computes it. It writes
    /// over what is there: look before.
    async fn copy(&self, bucket: &str, key: &str, source: &CopySource, options: &PutOptions) -> Result<Option<String>>;
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

/// An ECR repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Its ARN.
    pub arn: String,
    /// `host/name`.
    pub uri: String,
    /// Whether tags are immutable.
    pub immutable: bool,
}

/// A manifest as the registry keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// `sha256:...`
    pub digest: String,
    /// `application/vnd...`
    pub media_type: String,
    /// The exact bytes.
    pub body: String,
}

/// Push credentials. `Debug` hides the password.
#[derive(Clone)]
pub struct RegistryLogin {
    /// `https://123456789012.dkr.ecr.eu-west-1.amazonaws.com`, or http on loopback.
    pub endpoint: String,
    /// Always `AWS` on ECR.
    pub user: String,
    /// Secret.
    pub password: String,
}

impl std::fmt::Debug for RegistryLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryLogin")
            .field("endpoint", &self.endpoint)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// ECR.
#[async_trait]
pub trait Images: Send + Sync {
    /// DescribeRepositories.
    async fn repository(&self, name: &str) -> Result<Option<Repository>>;
    /// ListTagsForResource of a repository's ARN.
    async fn repository_tags(&self, arn: &str) -> Result<Map>;
    /// BatchGetImage by `tag` or `sha256:...`.
    async fn manifest(&self, repository: &str, reference: &str) -> Result<Option<Manifest>>;
    /// PutImage; [`Written::AlreadyThere`] when the immutable tag exists. Returns the digest as well.
    async fn put_manifest(&self, repository: &str, tag: &str, manifest: &Manifest) -> Result<(Written, String)>;
    /// A blob's bytes (GetDownloadUrlForLayer and one GET); image configs only, they are small. `None` from an
    /// implementation of ECR that does not have the operation.
    async fn blob(&self, repository: &str, digest: &str) -> Result<Option<Bytes>>;
    /// GetAuthorizationToken.
    async fn login(&self) -> Result<RegistryLogin>;
    /// BatchDeleteImage of tags; absent ones are fine.
    async fn delete_tags(&self, repository: &str, tags: &[String]) -> Result<()>;
}

/// A stack as DescribeStacks shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Name.
    pub name: String,
    /// ARN.
    pub id: String,
    /// `CREATE_COMPLETE` and so on.
    pub status: String,
    /// StackStatusReason.
    pub reason: Option<String>,
    /// Parameters as used; NoEcho values are masked.
    pub parameters: Map,
    /// Outputs.
    pub outputs: Map,
    /// Tags.
    pub tags: Map,
    /// EnableTerminationProtection.
    pub protected: bool,
}

impl Stack {
    /// Whether an operation is running.
    pub fn busy(&self) -> bool {
        self.status.ends_with("_IN_PROGRESS") && self.status != "REVIEW_IN_PROGRESS"
    }
}

/// What a change set would do to one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Logical id.
    pub logical_id: String,
    /// `AWS::...`
    pub kind: String,
    /// `Add`, `Modify`, `Remove`, `Import`, `Dynamic`.
    pub action: String,
    /// `True`, `False`, `Conditional`, or empty.
    pub replacement: String,
    /// Physical id where there is one.
    pub physical_id: Option<String>,
}

/// The state of a change set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeSetState {
    /// Still being computed.
    Pending,
    /// Ready to execute.
    Ready(Vec<Change>),
    /// There is nothing to change (either of CloudFormation's two texts).
    Empty,
    /// Another change was executed first.
    Obsolete,
    /// It cannot be executed.
    Failed(String),
}

/// A request for a change set.
#[derive(Debug, Clone)]
pub struct ChangeRequest {
    /// Stack name.
    pub stack: String,
    /// Change set name.
    pub name: String,
    /// CREATE, else UPDATE.
    pub create: bool,
    /// Template text; the adapter refuses more than 51,200 bytes without `template_url`.
    pub template: String,
    /// Where the template was uploaded when it is too large for the request body.
    pub template_url: Option<String>,
    /// Every parameter's value.
    pub parameters: Map,
    /// Stack tags.
    pub tags: Map,
    /// Service role for CloudFormation.
    pub role_arn: Option<String>,
    /// Adopt existing custom-named resources.
    pub import_existing: bool,
}

/// One stack event, oldest first in lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackEvent {
    /// Unique.
    pub id: String,
    /// Milliseconds since 1970.
    pub at: i64,
    /// Logical id; the stack's own events carry the stack name.
    pub logical_id: String,
    /// `AWS::...`
    pub kind: String,
    /// `CREATE_FAILED` and so on.
    pub status: String,
    /// ResourceStatusReason.
    pub reason: Option<String>,
    /// Physical id.
    pub physical_id: Option<String>,
    /// The ClientRequestToken of the operation.
    pub token: Option<String>,
}

/// A resource of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackResource {
    /// Logical id.
    pub logical_id: String,
    /// Physical id.
    pub physical_id: Option<String>,
    /// `AWS::...`
    pub kind: String,
    /// `CREATE_COMPLETE` and so on.
    pub status: String,
}

/// CloudFormation. Stacks are always named, never listed.
#[async_trait]
pub trait Stacks: Send + Sync {
    /// DescribeStacks of one.
    async fn stack(&self, name: &str) -> Result<Option<Stack>>;
    /// GetTemplate, the original text.
    async fn template(&self, name: &str) -> Result<String>;
    /// CreateChangeSet; returns its ARN.
    async fn request_changes(&self, request: &ChangeRequest, token: &str) -> Result<String>;
    /// DescribeChangeSet, all pages.
    async fn changes(&self, stack: &str, change_set: &str) -> Result<ChangeSetState>;
    /// ExecuteChangeSet with an explicit rollback setting.
    async fn execute(&self, stack: &str, change_set: &str, token: &str, disable_rollback: bool) -> Result<()>;
    /// DeleteChangeSet; absent is fine.
    async fn discard(&self, stack: &str, change_set: &str) -> Result<()>;
    /// DeleteStack.
    async fn delete(&self, name: &str, token: &str, role_arn: Option<&str>) -> Result<()>;
    /// CancelUpdateStack.
    async fn cancel_update(&self, name: &str, token: &str) -> Result<()>;
    /// DescribeStackEvents by name or ARN, oldest first, those after the event id `after`.
    async fn events(&self, stack: &str, after: Option<&str>) -> Result<Vec<StackEvent>>;
    /// ListStackResources.
    async fn resources(&self, stack: &str) -> Result<Vec<StackResource>>;
    /// UpdateTerminationProtection.
    async fn protect(&self, stack: &str, on: bool) -> Result<()>;
}

/// An endpoint as DescribeEndpoint shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name.
    pub name: String,
    /// ARN.
    pub arn: String,
    /// `Creating`, `InService`, ...
    pub status: String,
    /// The live config.
    pub config: String,
    /// Why it failed.
    pub failure: Option<String>,
    /// Variants.
    pub variants: Vec<Variant>,
    /// A pending deployment's variant stages, as `AllTraffic: Creating`.
    pub stage: Option<String>,
}

/// One variant of a live endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variant {
    /// Name.
    pub name: String,
    /// Instances running.
    pub current: Option<i32>,
    /// Instances wanted.
    pub desired: Option<i32>,
    /// `(SpecifiedImage, ResolvedImage)`
    pub images: Vec<(String, String)>,
}

/// An endpoint config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Name.
    pub name: String,
    /// Of the first variant.
    pub instance_type: Option<String>,
    /// Of the first variant.
    pub variant: String,
    /// Of the first variant.
    pub initial_count: Option<i32>,
    /// Of the first variant.
    pub model: Option<String>,
}

/// SageMaker.
#[async_trait]
pub trait Endpoints: Send + Sync {
    /// DescribeEndpoint.
    async fn endpoint(&self, name: &str) -> Result<Option<Endpoint>>;
    /// DescribeEndpointConfig.
    async fn config(&self, name: &str) -> Result<Option<EndpointConfig>>;
    /// ListModels by name, then ListTags: names of models that carry all these tags.
    async fn tagged_models(&self, name_contains: &str, tags: &Map) -> Result<Vec<String>>;
    /// ListEndpointConfigs by name, then ListTags.
    async fn tagged_configs(&self, name_contains: &str, tags: &Map) -> Result<Vec<String>>;
    /// DeleteModel; absent is fine.
    async fn delete_model(&self, name: &str) -> Result<()>;
    /// DeleteEndpointConfig; absent is fine.
    async fn delete_config(&self, name: &str) -> Result<()>;
    /// Instances of this type that the account's endpoints use now.
    async fn instances_in_use(&self, instance_type: &str) -> Result<i64>;
}

/// A scheduled action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Name.
    pub name: String,
    /// `cron(...)`, `rate(...)` or `at(...)`.
    pub when: String,
    /// IANA name.
    pub timezone: Option<String>,
    /// Minimum from then on.
    pub min: Option<i32>,
    /// Maximum from then on.
    pub max: Option<i32>,
}

/// A registered scalable target with all that hangs on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalableTarget {
    /// Minimum instances.
    pub min: i32,
    /// Maximum instances.
    pub max: i32,
    /// Names of policies.
    pub policies: Vec<String>,
    /// Scheduled actions.
    pub schedules: Vec<Schedule>,
}

/// Application Auto Scaling.
#[async_trait]
pub trait Scaling: Send + Sync {
    /// The target of a variant's instance count with policies and schedules (three calls), or `None` after one.
    async fn target(&self, endpoint: &str, variant: &str) -> Result<Option<ScalableTarget>>;
}

/// CloudWatch Logs.
#[async_trait]
pub trait Logs: Send + Sync {
    /// The newest lines of a group, oldest first; `None` when there is no such group.
    async fn tail(&self, group: &str, limit: usize) -> Result<Option<Vec<String>>>;
    /// PutRetentionPolicy; `false` when there is no such group.
    async fn set_retention(&self, group: &str, days: i32) -> Result<bool>;
    /// DeleteLogGroup; absent is fine.
    async fn delete_group(&self, group: &str) -> Result<()>;
}

/// Service Quotas.
#[async_trait]
pub trait Quotas: Send + Sync {
    /// The value of `<type> for endpoint usage`; `None` where the service or the quota is unknown.
    async fn endpoint_usage(&self, instance_type: &str) -> Result<Option<f64>>;
}
