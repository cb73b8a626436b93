//! Rules of buckets and their settings.

use super::*;
use crate::s3::objects;
use crate::s3::state::Version;

type Tested = std::io::Result<()>;

fn put(sandbox: &Sandbox, key: &str) {
    let mut world = sandbox.shared.world.lock();
    let version = Version { modified: 1, etag: "e".into(), ..Default::default() };
    objects::put(&mut world, "bucket", key, version).expect("the bucket is there");
}

#[test]
fn bucket_not_empty() -> Tested {
    let sandbox = Sandbox::with_bucket()?;
    let bucket = json!({"Bucket": "bucket"});
    put(&sandbox, "key");
    assert_eq!(sandbox.fails("DeleteBucket", bucket.clone()).as_deref(), Some("BucketNotEmpty"));
    let versioned = json!({"Bucket": "bucket", "VersioningConfiguration": {"Status": "Enabled"}});
    assert_eq!(sandbox.fails("PutBucketVersioning", versioned), None);
    let delete = |id: Option<&str>| {
        objects::delete(&mut sandbox.shared.world.lock(), "bucket", "key", id, 2).expect("the bucket is there")
    };
    let marker = delete(None);
    assert!(marker.marker);
    assert_eq!(exists(&sandbox.shared.world.lock(), "bucket", "key"), None);
    // A version under a delete marker, then the marker alone.
    assert_eq!(sandbox.fails("DeleteBucket", bucket.clone()).as_deref(), Some("BucketNotEmpty"));
    delete(Some("null"));
    assert_eq!(sandbox.fails("DeleteBucket", bucket.clone()).as_deref(), Some("BucketNotEmpty"));
    delete(marker.version.as_deref());
    assert_eq!(sandbox.fails("DeleteBucket", bucket.clone()), None);
    assert_eq!(sandbox.fails("HeadBucket", bucket).as_deref(), Some("NoSuchBucket"));
    Ok(())
}

#[test]
fn bucket_exists() -> Tested {
    let sandbox = Sandbox::with_bucket()?;
    let create = |name: &str| sandbox.fails("CreateBucket", json!({"Bucket": name}));
    assert_eq!(create("bucket").as_deref(), Some("BucketAlreadyOwnedByYou"));
    add_foreign_bucket(&mut sandbox.shared.world.lock(), "theirs");
    assert_eq!(create("theirs").as_deref(), Some("BucketAlreadyExists"));
    assert_eq!(sandbox.fails("HeadBucket", json!({"Bucket": "theirs"})).as_deref(), Some("AccessDenied"));
    for bad in ["ab", "UPPER", "a..b", "-a-", "1.2.3.4", "a_b"] {
        assert_eq!(create(bad).as_deref(), Some("InvalidBucketName"), "{bad}");
    }
    Ok(())
}

#[test]
fn location_constraint() {
    let check = |region, constraint| control::check_location(region, constraint).err().map(|e| e.code);
    assert_eq!(check("us-east-1", None), None);
    assert_eq!(check("eu-west-1", Some("eu-west-1")), None);
    assert_eq!(check("eu-west-1", None).as_deref(), Some("IllegalLocationConstraintException"));
    assert_eq!(check("us-east-1", Some("eu-west-1")).as_deref(), Some("IllegalLocationConstraintException"));
    assert_eq!(check("us-east-1", Some("us-east-1")).as_deref(), Some("InvalidLocationConstraint"));
}

#[test]
fn public_policy() -> Tested {
    let sandbox = Sandbox::with_bucket()?;
    let statement = |effect: &str, principal: Value| {
        let policy = json!({"Statement": [{"Effect": effect, "Principal": principal, "Action": "s3:*", "Resource": "arn:aws:s3:::bucket/*"}]});
        sandbox.fails("PutBucketPolicy", json!({"Bucket": "bucket", "Policy": policy.to_string()}))
    };
    assert_eq!(statement("Allow", json!("*")).as_deref(), Some("AccessDenied"));
    assert_eq!(statement("Allow", json!({"AWS": ["*"]})).as_deref(), Some("AccessDenied"));
    assert_eq!(statement("Deny", json!("*")), None);
    assert_eq!(statement("Allow", json!({"AWS": "arn:aws:iam::123456789012:root"})), None);
    sandbox.call("DeletePublicAccessBlock", json!({"Bucket": "bucket"})).expect("deleted");
    assert_eq!(statement("Allow", json!("*")), None);
    Ok(())
}

#[test]
fn malformed_policy() -> Tested {
    let sandbox = Sandbox::with_bucket()?;
    for bad in [
        "not json".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        json!({"Statement": [{"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::bucket2/*"}]}).to_string(),
        json!({"Statement": [{"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::bucket"}]}).to_string(),
    ] {
        let code = sandbox.fails("PutBucketPolicy", json!({"Bucket": "bucket", "Policy": bad}));
        assert_eq!(code.as_deref(), Some("MalformedPolicy"), "{bad}");
    }
    assert_eq!(sandbox.fails("GetBucketPolicy", json!({"Bucket": "bucket"})).as_deref(), Some("NoSuchBucketPolicy"));
    Ok(())
}

#[test]
fn lifecycle_rules() -> Tested {
    let sandbox = Sandbox::with_bucket()?;
    let set = |rules: Value| {
        let input = json!({"Bucket": "bucket", "LifecycleConfiguration": {"Rules": rules}});
        sandbox.fails("PutBucketLifecycleConfiguration", input)
    };
    let abort = json!({"ID": "a", "Status": "Enabled", "Filter": {}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}});
    let mut other = abort.clone();
    other["ID"] = json!("b");
    assert_eq!(set(json!([abort, other])), None);
    assert_eq!(set(json!([abort, abort])).as_deref(), Some("InvalidArgument"));
    assert_eq!(set(json!([])).as_deref(), Some("MalformedXML"));
    assert_eq!(set(json!([{"Status": "Enabled", "Filter": {}}])).as_deref(), Some("InvalidRequest"));
    assert_eq!(set(json!([{"Status": "On", "Filter": {}}])).as_deref(), Some("MalformedXML"));
    other["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] = json!(0);
    assert_eq!(set(json!([other])).as_deref(), Some("InvalidArgument"));
    Ok(())
}

#[test]
fn settings_have_aws_defaults_and_errors() -> Tested {
    let sandbox = Sandbox::with_bucket()?;
    let get = |operation: &str| sandbox.call(operation, json!({"Bucket": "bucket"}));
    let block = get("GetPublicAccessBlock").expect("on since April 2023");
    assert_eq!(block["PublicAccessBlockConfiguration"]["RestrictPublicBuckets"], true);
    let encryption =
        json!({"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256", "KMSMasterKeyID": "k"}}]});
    let input = json!({"Bucket": "bucket", "ServerSideEncryptionConfiguration": encryption});
    assert_eq!(sandbox.fails("PutBucketEncryption", input).as_deref(), Some("InvalidArgument"));
    for (operation, code) in [
        ("GetBucketTagging", "NoSuchTagSet"),
        ("GetBucketLifecycleConfiguration", "NoSuchLifecycleConfiguration"),
        ("GetBucketCors", "NotImplemented"),
    ] {
        assert_eq!(get(operation).err().map(|e| e.code).as_deref(), Some(code));
    }
    let tags =
        |tags: Value| sandbox.fails("PutBucketTagging", json!({"Bucket": "bucket", "Tagging": {"TagSet": tags}}));
    assert_eq!(tags(json!([{"Key": "a", "Value": "b"}])), None);
    assert_eq!(tags(json!([{"Key": "aws:a", "Value": "b"}])).as_deref(), Some("InvalidTag"));
    assert_eq!(tags(json!([{"Key": "a", "Value": ""}, {"Key": "a", "Value": ""}])).as_deref(), Some("InvalidTag"));
    Ok(())
}
