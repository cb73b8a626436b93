//! Bucket settings, in the API's JSON.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Value, json};

use super::state::{Bucket, Versioning};
use crate::world::{ACCOUNT, Answer, ApiError, Ctx, World};

/// A simple setting: operations `Put<op>`, `Get<op>`, `Delete<op>` on one member.
struct Setting {
    operation: &'static str,
    member: &'static str,
    missing: (&'static str, &'static str),
    check: fn(&str, &Bucket, &Value) -> Result<(), ApiError>,
}

const SETTINGS: &[Setting] = &[
    Setting {
        operation: "BucketPolicy",
        member: "Policy",
        missing: ("NoSuchBucketPolicy", "The bucket policy does not exist"),
        check: check_policy,
    },
    Setting {
        operation: "BucketEncryption",
        member: "ServerSideEncryptionConfiguration",
        missing: (
            "ServerSideEncryptionConfigurationNotFoundError",
            "The server side encryption configuration was not found",
        ),
        check: check_encryption,
    },
    Setting {
        operation: "PublicAccessBlock",
        member: "PublicAccessBlockConfiguration",
        missing: ("NoSuchPublicAccessBlockConfiguration", "The public access block configuration was not found"),
        check: |_, _, _| Ok(()),
    },
    Setting {
        operation: "BucketLifecycleConfiguration",
        member: "LifecycleConfiguration",
        missing: ("NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist"),
        check: check_lifecycle,
    },
    Setting {
        operation: "BucketTagging",
        member: "Tagging",
        missing: ("NoSuchTagSet", "The TagSet does not exist"),
        check: |_, _, value| check_tags(value, 50),
    },
    Setting {
        operation: "BucketOwnershipControls",
        member: "OwnershipControls",
        missing: ("OwnershipControlsNotFoundError", "The bucket ownership controls were not found"),
        check: check_ownership,
    },
];

/// One operation.
pub fn call(world: &mut World, ctx: &Ctx, operation: &str, input: &Value) -> Answer {
    let name = input["Bucket"].as_str().unwrap_or_default();
    if operation == "CreateBucket" {
        return create(world, ctx, name, input);
    }
    let setting = ["Put", "Get", "Delete"].iter().find_map(|verb| {
        let rest = operation.strip_prefix(verb)?;
        // DeleteBucketLifecycle is the one name that leaves the rule.
        let rest = if operation == "DeleteBucketLifecycle" { "BucketLifecycleConfiguration" } else { rest };
        Some((*verb, SETTINGS.iter().find(|s| s.operation == rest)?))
    });
    let bucket = bucket(world, name)?;
    match (operation, setting) {
        ("DeleteBucket", _) => delete(world, name, ctx.now),
        ("HeadBucket", _) => Ok(json!({"BucketRegion": bucket.region})),
        ("PutBucketVersioning", _) => put_versioning(bucket, input),
        ("GetBucketVersioning", _) => Ok(match bucket.versioning {
            Versioning::Off => json!({}),
            Versioning::Enabled => json!({"Status": "Enabled"}),
            Versioning::Suspended => json!({"Status": "Suspended"}),
        }),
        (_, Some(("Put", setting))) => {
            let value = &input[setting.member];
            if value.is_null() {
                return Err(malformed(format!("{} is missing", setting.member)));
            }
            (setting.check)(name, bucket, value)?;
            bucket.settings.insert(setting.member.to_owned(), value.clone());
            Ok(json!({}))
        }
        (_, Some(("Get", setting))) => match bucket.settings.get(setting.member) {
            Some(value) => Ok(json!({setting.member: value})),
            None => Err(ApiError::new(setting.missing.0, setting.missing.1).status(404)),
        },
        (_, Some((_, setting))) => {
            bucket.settings.remove(setting.member);
            if setting.operation == "BucketEncryption" {
                bucket.settings.insert(setting.member.to_owned(), default_encryption());
            }
            Ok(json!({}))
        }
        _ => Err(ApiError::new("NotImplemented", format!("the sandbox has no S3 operation {operation}")).status(501)),
    }
}

/// The bucket, if it is there and this account's.
pub fn bucket<'a>(world: &'a mut World, name: &str) -> Result<&'a mut Bucket, ApiError> {
    let bucket = world.s3.buckets.get_mut(name);
    let bucket =
        bucket.ok_or_else(|| ApiError::new("NoSuchBucket", "The specified bucket does not exist").status(404))?;
    if bucket.owner != ACCOUNT {
        return Err(ApiError::new("AccessDenied", "Access Denied").status(403));
    }
    Ok(bucket)
}

/// Whether a bucket may be created by a request to this region with this constraint.
pub fn check_location(region: &str, constraint: Option<&str>) -> Result<(), ApiError> {
    let illegal = |what: &str| {
        Err(ApiError::new(
            "IllegalLocationConstraintException",
            format!(
                "The {what} location constraint is incompatible for the region specific endpoint this request was sent to."
            ),
        ))
    };
    match constraint.filter(|c| !c.is_empty()) {
        None if region == "us-east-1" => Ok(()),
        None => illegal("unspecified"),
        Some("us-east-1") => {
            Err(ApiError::new("InvalidLocationConstraint", "The specified location-constraint is not valid"))
        }
        Some(constraint) if constraint == region => Ok(()),
        Some(constraint) => illegal(constraint),
    }
}

fn create(world: &mut World, ctx: &Ctx, name: &str, input: &Value) -> Answer {
    check_name(name)?;
    match world.s3.buckets.get(name) {
        Some(bucket) if bucket.owner == ACCOUNT => {
            return Err(ApiError::new(
                "BucketAlreadyOwnedByYou",
                "Your previous request to create the named bucket succeeded and you already own it.",
            )
            .status(409));
        }
        Some(_) => {
            return Err(ApiError::new(
                "BucketAlreadyExists",
                "The requested bucket name is not available. The bucket namespace is shared by all users of the \
                 system. Please select a different name and try again.",
            )
            .status(409));
        }
        None => {}
    }
    if let Some(configuration) = input.get("CreateBucketConfiguration") {
        check_location(&ctx.region, configuration["LocationConstraint"].as_str())?;
    }
    // What AWS gives every new bucket since April 2023.
    let settings = [
        ("ServerSideEncryptionConfiguration".to_owned(), default_encryption()),
        (
            "PublicAccessBlockConfiguration".to_owned(),
            json!({"BlockPublicAcls": true, "IgnorePublicAcls": true, "BlockPublicPolicy": true, "RestrictPublicBuckets": true}),
        ),
        ("OwnershipControls".to_owned(), json!({"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]})),
    ];
    let bucket = Bucket {
        region: ctx.region.clone(),
        owner: ACCOUNT.to_owned(),
        created: ctx.now,
        settings: settings.into(),
        ..Default::default()
    };
    world.s3.buckets.insert(name.to_owned(), bucket);
    Ok(json!({"Location": format!("/{name}"), "BucketArn": format!("arn:aws:s3:::{name}")}))
}

fn delete(world: &mut World, name: &str, now: i64) -> Answer {
    let bucket = bucket(world, name)?;
    if !bucket.objects.is_empty() {
        let message = if bucket.versioning == Versioning::Off {
            "The bucket you tried to delete is not empty"
        } else {
            "The bucket you tried to delete is not empty. You must delete all versions in the bucket."
        };
        return Err(ApiError::new("BucketNotEmpty", message).status(409));
    }
    let bucket = world.s3.buckets.remove(name).unwrap_or_default();
    let uploads = bucket.uploads.values().flat_map(|u| u.parts.values()).flat_map(|p| &p.extents);
    world.s3.discard(uploads, now);
    Ok(json!({}))
}

fn put_versioning(bucket: &mut Bucket, input: &Value) -> Answer {
    bucket.versioning = match input["VersioningConfiguration"]["Status"].as_str() {
        Some("Enabled") => Versioning::Enabled,
        Some("Suspended") => Versioning::Suspended,
        _ => {
            return Err(ApiError::new(
                "IllegalVersioningConfigurationException",
                "The Versioning element must be specified",
            ));
        }
    };
    Ok(json!({}))
}

fn check_name(name: &str) -> Result<(), ApiError> {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let good = (3..=63).contains(&name.len())
        && name.chars().all(inside)
        && edge(name.chars().next())
        && edge(name.chars().last())
        && !name.contains("..")
        && name.parse::<std::net::Ipv4Addr>().is_err();
    if good { Ok(()) } else { Err(ApiError::new("InvalidBucketName", "The specified bucket is not valid.")) }
}

fn default_encryption() -> Value {
    json!({"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": false}]})
}

fn malformed(what: impl std::fmt::Display) -> ApiError {
    ApiError::new(
        "MalformedXML",
        format!("The XML you provided was not well-formed or did not validate against our published schema: {what}"),
    )
}

/// The policy comes as a string from the wire, and as an object or a string from CloudFormation.
fn check_policy(name: &str, bucket: &Bucket, value: &Value) -> Result<(), ApiError> {
    let bad = |message: &str| Err(ApiError::new("MalformedPolicy", message));
    let parsed = match value {
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            Ok(parsed) if parsed.is_object() => parsed,
            _ => return bad("Policies must be valid JSON and the first byte must be '{'"),
        },
        other => other.clone(),
    };
    let statements = many(&parsed["Statement"]);
    if statements.is_empty() {
        return bad("Missing required field Statement");
    }
    let own = format!("arn:aws:s3:::{name}");
    for statement in statements {
        if !matches!(statement["Effect"].as_str(), Some("Allow" | "Deny")) {
            return bad("Missing required field Effect");
        }
        if statement["Principal"].is_null() && statement["NotPrincipal"].is_null() {
            return bad("Missing required field Principal");
        }
        if statement["Action"].is_null() && statement["NotAction"].is_null() {
            return bad("Missing required field Action");
        }
        let resources = many(&statement["Resource"]);
        let inside = |r: &&Value| {
            r.as_str().and_then(|r| r.strip_prefix(&own)).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if resources.is_empty() || !resources.iter().all(inside) {
            return bad("Policy has invalid resource");
        }
        let everybody = statement["Principal"] == "*" || many(&statement["Principal"]["AWS"]).contains(&&json!("*"));
        let public = statement["Effect"] == "Allow" && everybody && statement["Condition"].is_null();
        if public
            && bucket.settings.get("PublicAccessBlockConfiguration").is_some_and(|b| b["BlockPublicPolicy"] == true)
        {
            return Err(ApiError::new(
                "AccessDenied",
                "User is not authorized to perform: s3:PutBucketPolicy because public policies are prevented by the \
                 BlockPublicPolicy setting in S3 Block Public Access.",
            )
            .status(403));
        }
    }
    Ok(())
}

fn many(value: &Value) -> Vec<&Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(items) => items.iter().collect(),
        one => vec![one],
    }
}

fn check_encryption(_: &str, _: &Bucket, value: &Value) -> Result<(), ApiError> {
    let rules = many(&value["Rules"]);
    if rules.len() != 1 {
        return Err(malformed("one encryption rule is expected"));
    }
    let by_default = &rules[0]["ApplyServerSideEncryptionByDefault"];
    let key = by_default["KMSMasterKeyID"].as_str();
    match by_default["SSEAlgorithm"].as_str() {
        Some("AES256") if key.is_some() => Err(ApiError::new(
            "InvalidArgument",
            "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse",
        )),
        Some("AES256" | "aws:kms" | "aws:kms:dsse") => Ok(()),
        _ => Err(malformed("SSEAlgorithm")),
    }
}

fn check_lifecycle(_: &str, _: &Bucket, value: &Value) -> Result<(), ApiError> {
    const ACTIONS: [&str; 5] = [
        "AbortIncompleteMultipartUpload",
        "Expiration",
        "NoncurrentVersionExpiration",
        "NoncurrentVersionTransitions",
        "Transitions",
    ];
    let rules = many(&value["Rules"]);
    if rules.is_empty() || rules.len() > 1000 {
        return Err(malformed("1 to 1000 rules are expected"));
    }
    let mut ids = HashSet::new();
    for rule in rules {
        if !matches!(rule["Status"].as_str(), Some("Enabled" | "Disabled")) {
            return Err(malformed("Status"));
        }
        if rule.get("Filter").is_none() && rule.get("Prefix").is_none() {
            return Err(malformed("a rule needs a Filter or a Prefix"));
        }
        if !ACTIONS.iter().any(|action| rule.get(*action).is_some()) {
            return Err(ApiError::new("InvalidRequest", "At least one action needs to be specified in a rule."));
        }
        if let Some(id) = rule["ID"].as_str()
            && !ids.insert(id)
        {
            return Err(ApiError::new(
                "InvalidArgument",
                "Rule ID must be unique. Found same ID for more than one rule",
            ));
        }
        let days = [
            &rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"],
            &rule["Expiration"]["Days"],
            &rule["NoncurrentVersionExpiration"]["NoncurrentDays"],
        ];
        if days.iter().any(|d| d.as_i64().is_some_and(|d| d <= 0)) {
            return Err(ApiError::new("InvalidArgument", "'Days' for an action must be a positive integer"));
        }
        if rule["Filter"]["Tag"].is_object() && rule.get("AbortIncompleteMultipartUpload").is_some() {
            return Err(ApiError::new(
                "InvalidRequest",
                "AbortIncompleteMultipartUpload cannot be specified with Tags.",
            ));
        }
    }
    Ok(())
}

/// Whether these are `{"TagSet": [{"Key", "Value"}]}` within AWS's limits.
pub fn check_tags(value: &Value, most: usize) -> Result<(), ApiError> {
    let bad = |message: &str| Err(ApiError::new("InvalidTag", message));
    let tags = many(&value["TagSet"]);
    if tags.len() > most {
        return Err(ApiError::new("BadRequest", format!("Object tags cannot be greater than {most}")));
    }
    let mut keys = BTreeSet::new();
    for tag in tags {
        let key = tag["Key"].as_str().unwrap_or_default();
        if key.is_empty() || key.chars().count() > 128 {
            return bad("The TagKey you have provided is invalid");
        }
        if tag["Value"].as_str().is_none_or(|v| v.chars().count() > 256) {
            return bad("The TagValue you have provided is invalid");
        }
        if !keys.insert(key) {
            return bad("Cannot provide multiple Tags with the same key");
        }
        if key.starts_with("aws:") {
            return bad("System tags cannot be added/updated by requester");
        }
    }
    Ok(())
}

fn check_ownership(_: &str, _: &Bucket, value: &Value) -> Result<(), ApiError> {
    match many(&value["Rules"])[..] {
        [rule]
            if matches!(
                rule["ObjectOwnership"].as_str(),
                Some("BucketOwnerEnforced" | "BucketOwnerPreferred" | "ObjectWriter")
            ) =>
        {
            Ok(())
        }
        _ => Err(malformed("ObjectOwnership")),
    }
}
