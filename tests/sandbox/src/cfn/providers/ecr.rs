//! AWS::ECR::Repository.

use serde_json::{Map, Value, json};

use super::{Change, Failure, Job, call, custom_name, document, key_value, removed, tags};
use crate::cfn::names;
use crate::world::{ACCOUNT, Ctx, World};

pub(super) fn create(world: &mut World, ctx: &Ctx, job: &Job<'_>) -> Result<String, Failure> {
    let name = custom_name(job, "RepositoryName")
        .unwrap_or_else(|| names::physical(job.stack_name, job.logical, 256).to_lowercase());
    let mut input = json!({ "repositoryName": name, "tags": key_value(&tags(job)) });
    if let Some(mutability) = job.properties.get("ImageTagMutability") {
        input["imageTagMutability"] = mutability.clone();
    }
    if let Some(filters) = exclusion_filters(job.properties) {
        input["imageTagMutabilityExclusionFilters"] = filters;
    }
    if let Some(scan) = scanning(job.properties) {
        input["imageScanningConfiguration"] = scan;
    }
    if let Some(encryption) = job.properties.get("EncryptionConfiguration") {
        let mut api = Map::new();
        for (property, member) in [("EncryptionType", "encryptionType"), ("KmsKey", "kmsKey")] {
            api.extend(encryption.get(property).map(|value| (member.to_owned(), value.clone())));
        }
        input["encryptionConfiguration"] = Value::Object(api);
    }
    call(world, ctx, "ecr", "CreateRepository", input)?;
    let set = policies(world, ctx, &name, &Map::new(), job.properties);
    if let Err(failure) = set {
        // The stack never learns this repository's name, so nothing may be left of it.
        call(world, ctx, "ecr", "DeleteRepository", json!({ "repositoryName": name }))?;
        return Err(failure);
    }
    Ok(name)
}

fn exclusion_filters(properties: &Map<String, Value>) -> Option<Value> {
    let filters = properties.get("ImageTagMutabilityExclusionFilters")?.as_array()?;
    Some(
        filters
            .iter()
            .map(|filter| {
                json!({
                    "filterType": filter["ImageTagMutabilityExclusionFilterType"],
                    "filter": filter["ImageTagMutabilityExclusionFilterValue"],
                })
            })
            .collect(),
    )
}

fn scanning(properties: &Map<String, Value>) -> Option<Value> {
    let scan = properties.get("ImageScanningConfiguration")?;
    Some(json!({ "scanOnPush": scan.get("ScanOnPush").cloned().unwrap_or(json!(false)) }))
}

/// The lifecycle and repository policies, where they differ.
fn policies(
    world: &mut World,
    ctx: &Ctx,
    name: &str,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
) -> Result<(), Failure> {
    let lifecycle =
        |properties: &Map<String, Value>| properties.get("LifecyclePolicy")?.get("LifecyclePolicyText").map(document);
    if lifecycle(old) != lifecycle(new) {
        match lifecycle(new) {
            Some(text) => {
                let input = json!({ "repositoryName": name, "lifecyclePolicyText": text });
                call(world, ctx, "ecr", "PutLifecyclePolicy", input)?;
            }
            None => {
                call(world, ctx, "ecr", "DeleteLifecyclePolicy", json!({ "repositoryName": name }))?;
            }
        }
    }
    if old.get("RepositoryPolicyText") != new.get("RepositoryPolicyText") {
        match new.get("RepositoryPolicyText") {
            Some(text) => {
                let input = json!({ "repositoryName": name, "policyText": document(text) });
                call(world, ctx, "ecr", "SetRepositoryPolicy", input)?;
            }
            None => {
                call(world, ctx, "ecr", "DeleteRepositoryPolicy", json!({ "repositoryName": name }))?;
            }
        }
    }
    Ok(())
}

pub(super) fn update(world: &mut World, ctx: &Ctx, change: &Change<'_>) -> Result<(), Failure> {
    let name = change.physical;
    if change.any_differs(&["ImageTagMutability", "ImageTagMutabilityExclusionFilters"]) {
        let wanted = change.wanted("ImageTagMutability").cloned().unwrap_or(json!("MUTABLE"));
        let mut input = json!({ "repositoryName": name, "imageTagMutability": wanted });
        if let Some(filters) = exclusion_filters(change.job.properties) {
            input["imageTagMutabilityExclusionFilters"] = filters;
        }
        call(world, ctx, "ecr", "PutImageTagMutability", input)?;
    }
    if change.differs("ImageScanningConfiguration") {
        let scan = scanning(change.job.properties).unwrap_or_else(|| json!({ "scanOnPush": false }));
        let input = json!({ "repositoryName": name, "imageScanningConfiguration": scan });
        call(world, ctx, "ecr", "PutImageScanningConfiguration", input)?;
    }
    policies(world, ctx, name, change.old, change.job.properties)?;
    if let Some((before, after)) = change.tags() {
        let arn = ctx.arn("ecr", &format!("repository/{name}"));
        let gone = removed(&before, &after);
        if !gone.is_empty() {
            call(world, ctx, "ecr", "UntagResource", json!({ "resourceArn": arn, "tagKeys": gone }))?;
        }
        call(world, ctx, "ecr", "TagResource", json!({ "resourceArn": arn, "tags": key_value(&after) }))?;
    }
    Ok(())
}

pub(super) fn delete(
    world: &mut World,
    ctx: &Ctx,
    physical: &str,
    properties: &Map<String, Value>,
) -> Result<(), Failure> {
    let force = properties.get("EmptyOnDelete").cloned().unwrap_or(json!(false));
    call(world, ctx, "ecr", "DeleteRepository", json!({ "repositoryName": physical, "force": force }))?;
    Ok(())
}

pub(super) fn attributes(world: &mut World, ctx: &Ctx, physical: &str) -> Value {
    let found = call(world, ctx, "ecr", "DescribeRepositories", json!({ "repositoryNames": [physical] }));
    let repository = found.as_ref().map(|found| &found["repositories"][0]).unwrap_or(&Value::Null);
    let uri = repository["repositoryUri"]
        .as_str()
        .map_or_else(|| format!("{ACCOUNT}.dkr.ecr.{}.amazonaws.com/{physical}", ctx.region), str::to_owned);
    json!({ "Arn": ctx.arn("ecr", &format!("repository/{physical}")), "RepositoryUri": uri })
}
