//! AWS::S3::Bucket and AWS::S3::BucketPolicy.

use serde_json::{Map, Value, json};

use super::{Change, Failure, Job, Tags, call, custom_name, document, key_value, tags};
use crate::cfn::names;
use crate::world::{Ctx, World};

/// Properties that the sandbox's S3 has a setting for. Others are stored by CloudFormation and do nothing.
const SETTINGS: [&str; 5] = [
    "VersioningConfiguration",
    "BucketEncryption",
    "PublicAccessBlockConfiguration",
    "LifecycleConfiguration",
    "OwnershipControls",
];

pub(super) fn create(world: &mut World, ctx: &Ctx, job: &Job<'_>) -> Result<String, Failure> {
    if job.kind == "AWS::S3::BucketPolicy" {
        return put_policy(world, ctx, job.properties);
    }
    let name = custom_name(job, "BucketName")
        .unwrap_or_else(|| names::physical(job.stack_name, job.logical, 63).to_lowercase());
    let mut input = json!({ "Bucket": name });
    if ctx.region != "us-east-1" {
        input["CreateBucketConfiguration"] = json!({ "LocationConstraint": ctx.region });
    }
    // CreateBucket succeeds in us-east-1 for a bucket one owns already; a create handler must not.
    match call(world, ctx, "s3", "HeadBucket", json!({ "Bucket": name })) {
        Ok(_) => {
            return Err(Failure::Handler { message: format!("{name} already exists"), code: "AlreadyExists" });
        }
        Err(error) if error.status == 403 => {
            return Err(Failure::Handler { message: format!("{name} already exists"), code: "AlreadyExists" });
        }
        Err(_) => {}
    }
    call(world, ctx, "s3", "CreateBucket", input)?;
    let set = settings(world, ctx, &name, &Map::new(), job.properties).and_then(|()| tag(world, ctx, &name, job));
    if let Err(failure) = set {
        // The stack never learns this bucket's name, so nothing may be left of it.
        call(world, ctx, "s3", "DeleteBucket", json!({ "Bucket": name }))?;
        return Err(failure);
    }
    Ok(name)
}

fn put_policy(world: &mut World, ctx: &Ctx, properties: &Map<String, Value>) -> Result<String, Failure> {
    let bucket = properties.get("Bucket").and_then(Value::as_str).unwrap_or_default();
    let text = properties.get("PolicyDocument").map(document).unwrap_or_default();
    call(world, ctx, "s3", "PutBucketPolicy", json!({ "Bucket": bucket, "Policy": text }))?;
    Ok(bucket.to_owned())
}

/// Users may not set `aws:` tags, so those go past the API.
fn tag(world: &mut World, ctx: &Ctx, bucket: &str, job: &Job<'_>) -> Result<(), Failure> {
    let (system, own): (Tags, Tags) = tags(job).into_iter().partition(|(key, _)| key.starts_with("aws:"));
    let input = json!({ "Bucket": bucket, "Tagging": { "TagSet": key_value(&own) } });
    call(world, ctx, "s3", "PutBucketTagging", input)?;
    let settings = world.s3.buckets.get_mut(bucket).map(|bucket| &mut bucket.settings);
    let set = settings.and_then(|settings| settings.get_mut("Tagging")?.get_mut("TagSet")?.as_array_mut());
    if let (Some(set), Value::Array(system)) = (set, key_value(&system)) {
        set.extend(system);
    }
    Ok(())
}

fn settings(
    world: &mut World,
    ctx: &Ctx,
    bucket: &str,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
) -> Result<(), Failure> {
    for property in SETTINGS {
        let value = new.get(property);
        if old.get(property) == value {
            continue;
        }
        let (operation, member, api) = match property {
            "VersioningConfiguration" => {
                let api = value.cloned().unwrap_or_else(|| json!({ "Status": "Suspended" }));
                ("PutBucketVersioning", property, Some(api))
            }
            "BucketEncryption" => {
                let api = value.map(encryption);
                let operation = if api.is_some() { "PutBucketEncryption" } else { "DeleteBucketEncryption" };
                (operation, "ServerSideEncryptionConfiguration", api)
            }
            "PublicAccessBlockConfiguration" => {
                let operation = if value.is_some() { "PutPublicAccessBlock" } else { "DeletePublicAccessBlock" };
                (operation, property, value.cloned())
            }
            "LifecycleConfiguration" => {
                let operation =
                    if value.is_some() { "PutBucketLifecycleConfiguration" } else { "DeleteBucketLifecycle" };
                (operation, property, value.map(lifecycle))
            }
            _ => {
                let operation =
                    if value.is_some() { "PutBucketOwnershipControls" } else { "DeleteBucketOwnershipControls" };
                (operation, property, value.cloned())
            }
        };
        let mut input = json!({ "Bucket": bucket });
        if let Some(api) = api {
            input[member] = api;
        }
        call(world, ctx, "s3", operation, input)?;
    }
    Ok(())
}

/// `BucketEncryption` in the API's words.
fn encryption(value: &Value) -> Value {
    let rules = value["ServerSideEncryptionConfiguration"].as_array().into_iter().flatten();
    let rules: Vec<Value> = rules
        .map(|rule| {
            let mut rule = rule.as_object().cloned().unwrap_or_default();
            if let Some(default) = rule.remove("ServerSideEncryptionByDefault") {
                rule.insert("ApplyServerSideEncryptionByDefault".to_owned(), default);
            }
            Value::Object(rule)
        })
        .collect();
    json!({ "Rules": rules })
}

/// `LifecycleConfiguration` in the API's words.
fn lifecycle(value: &Value) -> Value {
    let rules = value["Rules"].as_array().into_iter().flatten();
    json!({ "Rules": rules.map(lifecycle_rule).collect::<Vec<_>>() })
}

fn lifecycle_rule(rule: &Value) -> Value {
    let mut api = Map::new();
    let mut expiration = Map::new();
    let mut filter = Vec::new();
    for (name, value) in rule.as_object().into_iter().flatten() {
        match name.as_str() {
            "Id" => {
                api.insert("ID".to_owned(), value.clone());
            }
            "ExpirationInDays" => {
                expiration.insert("Days".to_owned(), value.clone());
            }
            "ExpirationDate" => {
                expiration.insert("Date".to_owned(), value.clone());
            }
            "ExpiredObjectDeleteMarker" => {
                expiration.insert(name.clone(), value.clone());
            }
            "NoncurrentVersionExpirationInDays" => {
                api.insert("NoncurrentVersionExpiration".to_owned(), json!({ "NoncurrentDays": value }));
            }
            "Prefix" | "ObjectSizeGreaterThan" | "ObjectSizeLessThan" => filter.push((name.clone(), value.clone())),
            "TagFilters" => {
                filter.extend(value.as_array().into_iter().flatten().map(|tag| ("Tag".to_owned(), tag.clone())));
            }
            _ => {
                api.insert(name.clone(), value.clone());
            }
        }
    }
    if !expiration.is_empty() {
        api.insert("Expiration".to_owned(), Value::Object(expiration));
    }
    let filter = match filter.as_slice() {
        [] => json!({ "Prefix": "" }),
        [(name, value)] => json!({ name: value }),
        several => {
            let mut and = Map::new();
            let tags: Vec<&Value> = several.iter().filter(|(name, _)| name == "Tag").map(|(_, tag)| tag).collect();
            and.extend(several.iter().filter(|(name, _)| name != "Tag").cloned());
            if !tags.is_empty() {
                and.insert("Tags".to_owned(), json!(tags));
            }
            json!({ "And": and })
        }
    };
    api.insert("Filter".to_owned(), filter);
    Value::Object(api)
}

pub(super) fn update(world: &mut World, ctx: &Ctx, change: &Change<'_>) -> Result<(), Failure> {
    if change.job.kind == "AWS::S3::BucketPolicy" {
        return put_policy(world, ctx, change.job.properties).map(drop);
    }
    settings(world, ctx, change.physical, change.old, change.job.properties)?;
    if change.tags().is_some() {
        tag(world, ctx, change.physical, &change.job)?;
    }
    Ok(())
}

pub(super) fn delete(world: &mut World, ctx: &Ctx, kind: &str, physical: &str) -> Result<(), Failure> {
    let operation = if kind == "AWS::S3::BucketPolicy" { "DeleteBucketPolicy" } else { "DeleteBucket" };
    call(world, ctx, "s3", operation, json!({ "Bucket": physical }))?;
    Ok(())
}

pub(super) fn attributes(ctx: &Ctx, kind: &str, physical: &str) -> Value {
    if kind == "AWS::S3::BucketPolicy" {
        return json!({});
    }
    let region = &ctx.region;
    json!({
        "Arn": format!("arn:aws:s3:::{physical}"),
        "DomainName": format!("{physical}.s3.amazonaws.com"),
        "DualStackDomainName": format!("{physical}.s3.dualstack.{region}.amazonaws.com"),
        "RegionalDomainName": format!("{physical}.s3.{region}.amazonaws.com"),
        "WebsiteURL": format!("http://{physical}.s3-website-{region}.amazonaws.com"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifecycle_rules_take_the_shape_of_the_api() {
        let rule = json!({
            "Id": "r", "Status": "Enabled", "Prefix": "tmp/", "ExpirationInDays": 1,
            "TagFilters": [{"Key": "a", "Value": "b"}],
            "NoncurrentVersionExpirationInDays": 7,
        });
        assert_eq!(
            lifecycle_rule(&rule),
            json!({
                "ID": "r", "Status": "Enabled", "Expiration": {"Days": 1},
                "NoncurrentVersionExpiration": {"NoncurrentDays": 7},
                "Filter": {"And": {"Prefix": "tmp/", "Tags": [{"Key": "a", "Value": "b"}]}},
            })
        );
        let bare = json!({"Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 3}});
        assert_eq!(lifecycle_rule(&bare)["Filter"], json!({"Prefix": ""}));
    }

    #[test]
    fn encryption_takes_the_shape_of_the_api() {
        let value = json!({"ServerSideEncryptionConfiguration": [
            {"BucketKeyEnabled": true, "ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}},
        ]});
        assert_eq!(
            encryption(&value),
            json!({"Rules": [{"BucketKeyEnabled": true, "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]})
        );
    }
}
