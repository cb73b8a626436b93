//! The protocol: requests to operations, operations to answers. Each method only takes the request apart.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response};
use s3s::dto::*;
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Error, S3Request, S3Response, S3Result};
use serde_json::{Value, json};

use super::gate::{self, Gate, Hosts, Keys};
use super::{control, files, json as convert};
use crate::world::{ACCOUNT, ApiError, Ctx, Shared, World, now_ms as now};

mod copy;
mod list;
mod read;
mod upload;
mod write;

/// One HTTP request.
pub async fn handle(shared: Arc<Shared>, mut request: Request<Body>) -> Response<Body> {
    let ctx = context(&request);
    {
        let mut world = shared.world.lock();
        if world.dir.as_os_str().is_empty() {
            world.dir.clone_from(&shared.dir);
        }
        let unused = world.s3.collect(ctx.now);
        drop(world);
        files::remove(&super::directory(&shared.dir), &unused);
    }
    request.extensions_mut().insert(ctx.clone());
    let mut builder = S3ServiceBuilder::new(Store { shared: Arc::clone(&shared) });
    builder.set_auth(Keys(Arc::clone(&shared)));
    builder.set_access(Gate(shared));
    builder.set_host(Hosts);
    let answer = builder.build().call(request.map(s3s::Body::http_body_unsync)).await;
    let Ok(answer) = answer else { return super::internal_error() };
    let mut response = answer.map(Body::new);
    if let Ok(id) = HeaderValue::from_str(&ctx.request_id) {
        response.headers_mut().insert("x-amz-request-id", id.clone());
        response.headers_mut().insert("x-amz-id-2", id);
    }
    response
}

/// The region as signed, in the header or in a presigned URL.
fn context(request: &Request<Body>) -> Ctx {
    let header = request.headers().get("authorization").and_then(|v| v.to_str().ok());
    let scope = header.and_then(|h| h.split("Credential=").nth(1)).map(|s| s.replace("%2F", "/")).or_else(|| {
        let query = request.uri().query()?;
        Some(query.split('&').find_map(|p| p.strip_prefix("X-Amz-Credential="))?.replace("%2F", "/"))
    });
    let region = scope.as_deref().and_then(|s| s.split('/').nth(2)).unwrap_or("us-east-1").to_owned();
    Ctx { region, request_id: uuid::Uuid::new_v4().simple().to_string().to_uppercase(), now: now() }
}

/// The storage behind the protocol.
struct Store {
    shared: Arc<Shared>,
}

/// One request's way to the state.
struct Call {
    shared: Arc<Shared>,
    ctx: Ctx,
}

impl Call {
    fn with<T>(&self, work: impl FnOnce(&mut World) -> Result<T, ApiError>) -> S3Result<T> {
        work(&mut self.shared.world.lock()).map_err(|e| gate::error(e, &self.ctx))
    }

    fn control(&self, operation: &str, input: &Value) -> S3Result<Value> {
        self.with(|world| control::call(world, &self.ctx, operation, input))
    }

    /// Puts a setting.
    fn put(&self, operation: &str, bucket: &str, member: &str, value: &impl serde::Serialize) -> S3Result<()> {
        let value = convert::to_api(value).map_err(|e| gate::error(e, &self.ctx))?;
        self.control(operation, &json!({"Bucket": bucket, member: value})).map(drop)
    }

    /// Gets a setting.
    fn get<T: serde::de::DeserializeOwned>(&self, operation: &str, bucket: &str, member: &str) -> S3Result<T> {
        let mut answer = self.control(operation, &json!({"Bucket": bucket}))?;
        convert::from_api(answer[member].take()).map_err(|e| gate::error(e, &self.ctx))
    }

    fn data_dir(&self) -> std::path::PathBuf {
        super::directory(&self.shared.dir)
    }

    fn error(&self, error: ApiError) -> S3Error {
        gate::error(error, &self.ctx)
    }

    /// The disk failed.
    fn disk(&self, error: &std::io::Error) -> S3Error {
        let full = error.kind() == std::io::ErrorKind::StorageFull;
        let message =
            if full { "the sandbox's disk is full".to_owned() } else { format!("the sandbox's disk: {error}") };
        self.error(ApiError::new("InternalError", message).status(500))
    }
}

impl Store {
    fn call<T>(&self, request: &S3Request<T>) -> S3Result<Call> {
        let ctx = request.extensions.get::<Ctx>().cloned();
        let ctx = ctx.ok_or_else(|| s3s::s3_error!(InternalError, "the request has no context"))?;
        Ok(Call { shared: Arc::clone(&self.shared), ctx })
    }
}

fn timestamp(millis: i64) -> Timestamp {
    let since = std::time::Duration::from_millis(u64::try_from(millis).unwrap_or_default());
    Timestamp::from(std::time::UNIX_EPOCH + since)
}

fn owner() -> Owner {
    Owner { display_name: None, id: Some(format!("{:0>64}", ACCOUNT)) }
}

fn done<T>(output: T) -> S3Result<S3Response<T>> {
    Ok(S3Response::new(output))
}

/// A method that forwards to a function of the same name taking the call and the request.
macro_rules! forward {
    ($($name:ident($input:ident, $output:ident) => $to:path;)*) => {
        #[async_trait::async_trait]
        impl S3 for Store {
            $(
                async fn $name(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                    let call = self.call(&request)?;
                    $to(call, request).await
                }
            )*
        }
    };
}

forward! {
    abort_multipart_upload(AbortMultipartUploadInput, AbortMultipartUploadOutput) => upload::abort;
    complete_multipart_upload(CompleteMultipartUploadInput, CompleteMultipartUploadOutput) => upload::complete;
    copy_object(CopyObjectInput, CopyObjectOutput) => copy::object;
    create_bucket(CreateBucketInput, CreateBucketOutput) => create_bucket;
    create_multipart_upload(CreateMultipartUploadInput, CreateMultipartUploadOutput) => upload::create;
    delete_bucket(DeleteBucketInput, DeleteBucketOutput) => delete_bucket;
    delete_bucket_encryption(DeleteBucketEncryptionInput, DeleteBucketEncryptionOutput) => delete_encryption;
    delete_bucket_lifecycle(DeleteBucketLifecycleInput, DeleteBucketLifecycleOutput) => delete_lifecycle;
    delete_bucket_ownership_controls(DeleteBucketOwnershipControlsInput, DeleteBucketOwnershipControlsOutput) => delete_ownership;
    delete_bucket_policy(DeleteBucketPolicyInput, DeleteBucketPolicyOutput) => delete_policy;
    delete_bucket_tagging(DeleteBucketTaggingInput, DeleteBucketTaggingOutput) => delete_tagging;
    delete_object(DeleteObjectInput, DeleteObjectOutput) => write::delete;
    delete_object_tagging(DeleteObjectTaggingInput, DeleteObjectTaggingOutput) => write::delete_tags;
    delete_objects(DeleteObjectsInput, DeleteObjectsOutput) => write::delete_many;
    delete_public_access_block(DeletePublicAccessBlockInput, DeletePublicAccessBlockOutput) => delete_public_access;
    get_bucket_encryption(GetBucketEncryptionInput, GetBucketEncryptionOutput) => get_encryption;
    get_bucket_lifecycle_configuration(GetBucketLifecycleConfigurationInput, GetBucketLifecycleConfigurationOutput) => get_lifecycle;
    get_bucket_location(GetBucketLocationInput, GetBucketLocationOutput) => get_location;
    get_bucket_ownership_controls(GetBucketOwnershipControlsInput, GetBucketOwnershipControlsOutput) => get_ownership;
    get_bucket_policy(GetBucketPolicyInput, GetBucketPolicyOutput) => get_policy;
    get_bucket_tagging(GetBucketTaggingInput, GetBucketTaggingOutput) => get_tagging;
    get_bucket_versioning(GetBucketVersioningInput, GetBucketVersioningOutput) => get_versioning;
    get_object(GetObjectInput, GetObjectOutput) => read::get;
    get_object_attributes(GetObjectAttributesInput, GetObjectAttributesOutput) => read::attributes;
    get_object_tagging(GetObjectTaggingInput, GetObjectTaggingOutput) => read::tags;
    get_public_access_block(GetPublicAccessBlockInput, GetPublicAccessBlockOutput) => get_public_access;
    head_bucket(HeadBucketInput, HeadBucketOutput) => head_bucket;
    head_object(HeadObjectInput, HeadObjectOutput) => read::head;
    list_buckets(ListBucketsInput, ListBucketsOutput) => list::buckets;
    list_multipart_uploads(ListMultipartUploadsInput, ListMultipartUploadsOutput) => list::uploads;
    list_object_versions(ListObjectVersionsInput, ListObjectVersionsOutput) => list::versions;
    list_objects(ListObjectsInput, ListObjectsOutput) => list::objects;
    list_objects_v2(ListObjectsV2Input, ListObjectsV2Output) => list::objects_v2;
    list_parts(ListPartsInput, ListPartsOutput) => list::parts;
    put_bucket_encryption(PutBucketEncryptionInput, PutBucketEncryptionOutput) => put_encryption;
    put_bucket_lifecycle_configuration(PutBucketLifecycleConfigurationInput, PutBucketLifecycleConfigurationOutput) => put_lifecycle;
    put_bucket_ownership_controls(PutBucketOwnershipControlsInput, PutBucketOwnershipControlsOutput) => put_ownership;
    put_bucket_policy(PutBucketPolicyInput, PutBucketPolicyOutput) => put_policy;
    put_bucket_tagging(PutBucketTaggingInput, PutBucketTaggingOutput) => put_tagging;
    put_bucket_versioning(PutBucketVersioningInput, PutBucketVersioningOutput) => put_versioning;
    put_object(PutObjectInput, PutObjectOutput) => write::put;
    put_object_tagging(PutObjectTaggingInput, PutObjectTaggingOutput) => write::put_tags;
    put_public_access_block(PutPublicAccessBlockInput, PutPublicAccessBlockOutput) => put_public_access;
    upload_part(UploadPartInput, UploadPartOutput) => upload::part;
    upload_part_copy(UploadPartCopyInput, UploadPartCopyOutput) => copy::part;
}

/// What the bucket operations take and give.
type Taken<T> = S3Request<T>;
type Given<T> = S3Result<S3Response<T>>;

async fn create_bucket(call: Call, request: Taken<CreateBucketInput>) -> Given<CreateBucketOutput> {
    let region = call.ctx.region.clone();
    let configuration = request.input.create_bucket_configuration;
    let constraint = configuration.and_then(|c| c.location_constraint);
    control::check_location(&region, constraint.as_ref().map(BucketLocationConstraint::as_str))
        .map_err(|e| call.error(e))?;
    let answer = call.control("CreateBucket", &json!({"Bucket": request.input.bucket}));
    match answer {
        // For legacy compatibility the oldest region says yes again (CreateBucket, BucketAlreadyOwnedByYou).
        Err(e) if region != "us-east-1" || e.code().as_str() != "BucketAlreadyOwnedByYou" => Err(e),
        _ => done(CreateBucketOutput { location: Some(format!("/{}", request.input.bucket)) }),
    }
}

async fn head_bucket(call: Call, request: Taken<HeadBucketInput>) -> Given<HeadBucketOutput> {
    let answer = call.control("HeadBucket", &json!({"Bucket": request.input.bucket}))?;
    let bucket_region = answer["BucketRegion"].as_str().map(str::to_owned);
    done(HeadBucketOutput { bucket_region, access_point_alias: Some(false), ..Default::default() })
}

async fn get_location(call: Call, request: Taken<GetBucketLocationInput>) -> Given<GetBucketLocationOutput> {
    let answer = call.control("HeadBucket", &json!({"Bucket": request.input.bucket}))?;
    // The first region is written as an empty element.
    let region = answer["BucketRegion"].as_str().filter(|r| *r != "us-east-1").unwrap_or_default().to_owned();
    done(GetBucketLocationOutput { location_constraint: Some(BucketLocationConstraint::from(region)) })
}

async fn put_policy(call: Call, request: Taken<PutBucketPolicyInput>) -> Given<PutBucketPolicyOutput> {
    call.put("PutBucketPolicy", &request.input.bucket, "Policy", &request.input.policy)?;
    done(PutBucketPolicyOutput {})
}

async fn get_policy(call: Call, request: Taken<GetBucketPolicyInput>) -> Given<GetBucketPolicyOutput> {
    let answer = call.control("GetBucketPolicy", &json!({"Bucket": request.input.bucket}))?;
    let policy = match &answer["Policy"] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    done(GetBucketPolicyOutput { policy: Some(policy) })
}

async fn get_versioning(call: Call, request: Taken<GetBucketVersioningInput>) -> Given<GetBucketVersioningOutput> {
    let answer = call.control("GetBucketVersioning", &json!({"Bucket": request.input.bucket}))?;
    let status = answer["Status"].as_str().map(|s| BucketVersioningStatus::from(s.to_owned()));
    done(GetBucketVersioningOutput { status, mfa_delete: None })
}

async fn get_lifecycle(
    call: Call,
    request: Taken<GetBucketLifecycleConfigurationInput>,
) -> Given<GetBucketLifecycleConfigurationOutput> {
    let value: BucketLifecycleConfiguration =
        call.get("GetBucketLifecycleConfiguration", &request.input.bucket, "LifecycleConfiguration")?;
    done(GetBucketLifecycleConfigurationOutput { rules: Some(value.rules), ..Default::default() })
}

async fn get_tagging(call: Call, request: Taken<GetBucketTaggingInput>) -> Given<GetBucketTaggingOutput> {
    let value: Tagging = call.get("GetBucketTagging", &request.input.bucket, "Tagging")?;
    done(GetBucketTaggingOutput { tag_set: value.tag_set })
}

async fn put_lifecycle(
    call: Call,
    request: Taken<PutBucketLifecycleConfigurationInput>,
) -> Given<PutBucketLifecycleConfigurationOutput> {
    let value = request.input.lifecycle_configuration;
    call.put("PutBucketLifecycleConfiguration", &request.input.bucket, "LifecycleConfiguration", &value)?;
    done(PutBucketLifecycleConfigurationOutput::default())
}

// Crate `s3s` cannot serialise these two.
async fn put_ownership(
    call: Call,
    request: Taken<PutBucketOwnershipControlsInput>,
) -> Given<PutBucketOwnershipControlsOutput> {
    let rules = request.input.ownership_controls.rules.iter();
    let rules: Vec<_> = rules.map(|r| json!({"ObjectOwnership": r.object_ownership.as_str()})).collect();
    let input = json!({"Bucket": request.input.bucket, "OwnershipControls": {"Rules": rules}});
    call.control("PutBucketOwnershipControls", &input)?;
    done(PutBucketOwnershipControlsOutput {})
}

async fn get_ownership(
    call: Call,
    request: Taken<GetBucketOwnershipControlsInput>,
) -> Given<GetBucketOwnershipControlsOutput> {
    let answer = call.control("GetBucketOwnershipControls", &json!({"Bucket": request.input.bucket}))?;
    let rules = answer["OwnershipControls"]["Rules"].as_array().into_iter().flatten();
    let rules = rules
        .filter_map(|r| r["ObjectOwnership"].as_str())
        .map(|o| OwnershipControlsRule { object_ownership: ObjectOwnership::from(o.to_owned()) });
    done(GetBucketOwnershipControlsOutput { ownership_controls: Some(OwnershipControls { rules: rules.collect() }) })
}

/// The settings that go in and come out as they are.
macro_rules! settings {
    ($($put:ident $get:ident: $operation:literal $member:literal $field:ident
       $put_input:ident $put_output:ident $get_input:ident $get_output:ident;)*) => {$(
        async fn $put(call: Call, request: Taken<$put_input>) -> Given<$put_output> {
            call.put(concat!("Put", $operation), &request.input.bucket, $member, &request.input.$field)?;
            done($put_output {})
        }

        async fn $get(call: Call, request: Taken<$get_input>) -> Given<$get_output> {
            let value = call.get(concat!("Get", $operation), &request.input.bucket, $member)?;
            done($get_output { $field: Some(value) })
        }
    )*};
}

settings! {
    put_encryption get_encryption: "BucketEncryption" "ServerSideEncryptionConfiguration"
        server_side_encryption_configuration
        PutBucketEncryptionInput PutBucketEncryptionOutput GetBucketEncryptionInput GetBucketEncryptionOutput;
    put_public_access get_public_access: "PublicAccessBlock" "PublicAccessBlockConfiguration"
        public_access_block_configuration
        PutPublicAccessBlockInput PutPublicAccessBlockOutput GetPublicAccessBlockInput GetPublicAccessBlockOutput;
}

/// What is only put, or deleted.
macro_rules! one_way {
    ($($name:ident: $operation:literal $input:ident $output:ident $($member:literal $field:ident)?;)*) => {$(
        async fn $name(call: Call, request: Taken<$input>) -> Given<$output> {
            #[allow(unused_mut)]
            let mut input = json!({"Bucket": request.input.bucket});
            $(input[$member] = convert::to_api(&request.input.$field).map_err(|e| call.error(e))?;)?
            call.control($operation, &input)?;
            done($output::default())
        }
    )*};
}

one_way! {
    delete_bucket: "DeleteBucket" DeleteBucketInput DeleteBucketOutput;
    delete_encryption: "DeleteBucketEncryption" DeleteBucketEncryptionInput DeleteBucketEncryptionOutput;
    delete_lifecycle: "DeleteBucketLifecycle" DeleteBucketLifecycleInput DeleteBucketLifecycleOutput;
    delete_ownership: "DeleteBucketOwnershipControls"
        DeleteBucketOwnershipControlsInput DeleteBucketOwnershipControlsOutput;
    delete_policy: "DeleteBucketPolicy" DeleteBucketPolicyInput DeleteBucketPolicyOutput;
    delete_public_access: "DeletePublicAccessBlock" DeletePublicAccessBlockInput DeletePublicAccessBlockOutput;
    delete_tagging: "DeleteBucketTagging" DeleteBucketTaggingInput DeleteBucketTaggingOutput;
    put_tagging: "PutBucketTagging" PutBucketTaggingInput PutBucketTaggingOutput "Tagging" tagging;
    put_versioning: "PutBucketVersioning" PutBucketVersioningInput PutBucketVersioningOutput
        "VersioningConfiguration" versioning_configuration;
}
