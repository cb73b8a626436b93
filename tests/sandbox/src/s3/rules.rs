//! The rows of the table of rules.

use crate::rules::Rule;

const fn rule(id: &'static str, source: &'static str, text: &'static str) -> Rule {
    Rule { id, source, text }
}

pub const RULES: &[Rule] = &[
    rule(
        "s3.bucket-not-empty",
        "S3 API Reference, DeleteBucket: all objects (including all object versions and delete markers) must be deleted",
        "A bucket with objects, versions or delete markers cannot be deleted.",
    ),
    rule(
        "s3.bucket-exists",
        "S3 API Reference, CreateBucket: BucketAlreadyExists, BucketAlreadyOwnedByYou",
        "A bucket name is taken once in the world.",
    ),
    rule(
        "s3.location-constraint",
        "S3 API Reference, Error responses: IllegalLocationConstraintException",
        "CreateBucket outside us-east-1 must name the region that it is sent to.",
    ),
    rule(
        "s3.wrong-region",
        "S3 API Reference, Error responses: PermanentRedirect; User Guide, Request redirection",
        "A request to another region than the bucket's is redirected, with x-amz-bucket-region.",
    ),
    rule(
        "s3.expected-owner",
        "S3 User Guide, Verifying bucket ownership with bucket owner condition",
        "A wrong x-amz-expected-bucket-owner, or x-amz-source-expected-bucket-owner, is 403 AccessDenied.",
    ),
    rule(
        "s3.session",
        "S3 API Reference, Error responses: ExpiredToken; User Guide, Required permissions for Amazon S3 API operations",
        "A session of a role does what the role's policies name, until it is over.",
    ),
    rule(
        "s3.signature",
        "S3 API Reference, Authenticating requests (AWS Signature Version 4)",
        "A wrong signature, access key or payload hash is refused.",
    ),
    rule(
        "s3.conditional-write",
        "S3 User Guide, Conditional writes: 412 and 409 responses of If-None-Match and If-Match",
        "A condition that does not hold is 412, a key deleted during the write 409, If-Match on a missing key 404.",
    ),
    rule(
        "s3.digest",
        "S3 User Guide, Checking object integrity; S3 API Reference, Error responses: BadDigest",
        "A Content-MD5 or checksum that does not match what arrived is BadDigest, and nothing is stored.",
    ),
    rule(
        "s3.part-rules",
        "S3 API Reference, CompleteMultipartUpload: EntityTooSmall, InvalidPart, InvalidPartOrder",
        "Parts are 1 to 10000, listed in order with their ETags, and at least 5 MiB but for the last.",
    ),
    rule(
        "s3.object-size",
        "S3 API Reference, CompleteMultipartUpload: x-amz-mp-object-size",
        "MpuObjectSize must be the sum of the parts.",
    ),
    rule(
        "s3.checksum-type",
        "S3 User Guide, Checking object integrity: full object and composite checksum types",
        "SHA checksums of an upload are COMPOSITE, CRC64NVME is FULL_OBJECT, and parts follow the upload's algorithm.",
    ),
    rule(
        "s3.copy-condition",
        "S3 API Reference, UploadPartCopy and CopyObject: x-amz-copy-source-if-match",
        "A copy of a source that changed is 412 PreconditionFailed.",
    ),
    rule(
        "s3.public-policy",
        "S3 User Guide, Blocking public access: BlockPublicPolicy",
        "A policy that lets everybody in is refused while public policies are blocked.",
    ),
    rule(
        "s3.malformed-policy",
        "S3 API Reference, Error responses: MalformedPolicy",
        "A bucket policy is JSON, and its resources are in the bucket.",
    ),
    rule(
        "s3.lifecycle-rules",
        "S3 API Reference, PutBucketLifecycleConfiguration: InvalidRequest, MalformedXML",
        "A lifecycle rule has a status, an action, and an id of its own.",
    ),
];
