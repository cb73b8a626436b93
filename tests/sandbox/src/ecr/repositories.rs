//! Repositories and their settings.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Repository, host_of, invalid, lifecycle};
use crate::world::{ACCOUNT, Answer, ApiError, Ctx, World, epoch};

/// RepositoryNotFoundException.
pub fn not_found(name: &str, registry: &str) -> ApiError {
    ApiError::new(
        "RepositoryNotFoundException",
        format!("The repository with name '{name}' does not exist in the registry with id '{registry}'"),
    )
}

/// A repository of the region.
pub fn find<'a>(world: &'a mut World, region: &str, name: &str) -> Result<&'a mut Repository, ApiError> {
    world.region(region).ecr.repositories.get_mut(name).ok_or_else(|| not_found(name, ACCOUNT))
}

fn describe(ctx: &Ctx, url: &str, name: &str, repository: &Repository) -> Value {
    let mut out = json!({
        "repositoryArn": arn(ctx, name),
        "registryId": ACCOUNT,
        "repositoryName": name,
        "repositoryUri": format!("{}/{name}", host_of(url)),
        "createdAt": epoch(repository.created),
        "imageTagMutability": repository.mutability,
        "imageScanningConfiguration": {"scanOnPush": repository.scan_on_push},
        "encryptionConfiguration": repository.encryption,
    });
    if !repository.exclusions.is_empty() {
        out["imageTagMutabilityExclusionFilters"] = filters(&repository.exclusions);
    }
    out
}

fn arn(ctx: &Ctx, name: &str) -> String {
    ctx.arn("ecr", &format!("repository/{name}"))
}

fn filters(exclusions: &[String]) -> Value {
    exclusions.iter().map(|f| json!({"filterType": "WILDCARD", "filter": f})).collect()
}

/// One operation.
pub fn call(world: &mut World, ctx: &Ctx, operation: &str, input: &Value) -> Answer {
    let url = world.url.clone();
    match operation {
        "CreateRepository" => return create(world, ctx, input),
        "DescribeRepositories" => return list(world, ctx, input),
        "TagResource" | "UntagResource" | "ListTagsForResource" => return tagging(world, ctx, operation, input),
        _ => {}
    }
    let name = input["repositoryName"].as_str().unwrap_or_default().to_owned();
    let named = |mut out: Value| {
        out["registryId"] = json!(ACCOUNT);
        out["repositoryName"] = json!(name);
        out
    };
    if !OPERATIONS.contains(&operation) {
        return Err(ApiError::new(
            "UnknownOperationException",
            format!("the sandbox has no ECR operation {operation}"),
        ));
    }
    let repository = find(world, &ctx.region, &name)?;
    match operation {
        "DeleteRepository" => {
            if !repository.images.is_empty() && input["force"] != true {
                return Err(ApiError::new(
                    "RepositoryNotEmptyException",
                    format!(
                        "The repository with name '{name}' in registry with id '{ACCOUNT}' cannot be deleted because \
                         it still contains images"
                    ),
                ));
            }
            let out = json!({"repository": describe(ctx, &url, &name, repository)});
            world.region(&ctx.region).ecr.repositories.remove(&name);
            Ok(out)
        }
        "PutImageTagMutability" => {
            (repository.mutability, repository.exclusions) = mutability(input)?;
            let mut out = json!({"imageTagMutability": repository.mutability});
            if !repository.exclusions.is_empty() {
                out["imageTagMutabilityExclusionFilters"] = filters(&repository.exclusions);
            }
            Ok(named(out))
        }
        "PutImageScanningConfiguration" => {
            repository.scan_on_push = input["imageScanningConfiguration"]["scanOnPush"] == true;
            Ok(named(json!({"imageScanningConfiguration": {"scanOnPush": repository.scan_on_push}})))
        }
        "PutLifecyclePolicy" => {
            let text = text(input, "lifecyclePolicyText")?;
            lifecycle::check(text)?;
            repository.lifecycle = Some(text.to_owned());
            Ok(named(json!({"lifecyclePolicyText": text})))
        }
        "GetLifecyclePolicy" | "DeleteLifecyclePolicy" => {
            let text = repository.lifecycle.clone().ok_or_else(|| {
                ApiError::new(
                    "LifecyclePolicyNotFoundException",
                    format!("Lifecycle policy does not exist for the repository with name '{name}' in the registry with id '{ACCOUNT}'"),
                )
            })?;
            if operation == "DeleteLifecyclePolicy" {
                repository.lifecycle = None;
            }
            Ok(named(json!({"lifecyclePolicyText": text})))
        }
        "SetRepositoryPolicy" => {
            let text = text(input, "policyText")?;
            let parsed = serde_json::from_str::<Value>(text).unwrap_or_default();
            if parsed["Statement"].is_null() {
                return Err(invalid(
                    "Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid repository policy provided'",
                ));
            }
            repository.policy = Some(text.to_owned());
            Ok(named(json!({"policyText": text})))
        }
        _ => {
            let text = repository.policy.clone().ok_or_else(|| {
                ApiError::new(
                    "RepositoryPolicyNotFoundException",
                    format!("Repository policy does not exist for the repository with name '{name}' in the registry with id '{ACCOUNT}'"),
                )
            })?;
            if operation == "DeleteRepositoryPolicy" {
                repository.policy = None;
            }
            Ok(named(json!({"policyText": text})))
        }
    }
}

/// What needs the repository.
const OPERATIONS: [&str; 9] = [
    "DeleteRepository",
    "PutImageTagMutability",
    "PutImageScanningConfiguration",
    "PutLifecyclePolicy",
    "GetLifecyclePolicy",
    "DeleteLifecyclePolicy",
    "SetRepositoryPolicy",
    "GetRepositoryPolicy",
    "DeleteRepositoryPolicy",
];

fn text<'a>(input: &'a Value, name: &str) -> Result<&'a str, ApiError> {
    input[name].as_str().ok_or_else(|| invalid(format!("Missing required parameter: {name}")))
}

fn mutability(input: &Value) -> Result<(String, Vec<String>), ApiError> {
    let kind = input["imageTagMutability"].as_str().unwrap_or("MUTABLE");
    let filters = input["imageTagMutabilityExclusionFilters"].as_array().into_iter().flatten();
    let filters: Vec<_> = filters.filter_map(|f| f["filter"].as_str()).map(str::to_owned).collect();
    match kind {
        "MUTABLE" | "IMMUTABLE" if !filters.is_empty() => {
            Err(invalid("ImageTagMutabilityExclusionFilters need a tag mutability with exclusion"))
        }
        "MUTABLE_WITH_EXCLUSION" | "IMMUTABLE_WITH_EXCLUSION" if filters.is_empty() || filters.len() > 5 => {
            Err(invalid("1 to 5 ImageTagMutabilityExclusionFilters are expected"))
        }
        "MUTABLE" | "IMMUTABLE" | "MUTABLE_WITH_EXCLUSION" | "IMMUTABLE_WITH_EXCLUSION" => {
            Ok((kind.to_owned(), filters))
        }
        _ => Err(invalid(format!("Invalid parameter at 'ImageTagMutability': {kind}"))),
    }
}

/// As the API model's pattern of repositoryName says.
fn check_name(name: &str) -> Result<(), ApiError> {
    let part = |part: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        let separators = part.as_bytes().windows(2).all(|w| {
            let both = w.iter().all(|b| b"._-".contains(b));
            !both || w == b"__" || w == b"--"
        });
        edge(part.chars().next()) && edge(part.chars().last()) && part.chars().all(inside) && separators
    };
    if (2..=256).contains(&name.len()) && name.split('/').all(part) {
        return Ok(());
    }
    Err(invalid(format!(
        "Invalid parameter at 'repositoryName' failed to satisfy constraint: 'must satisfy regular expression \
         '(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*'': {name}"
    )))
}

fn aws_tags(value: &Value) -> BTreeMap<String, String> {
    let tags = value.as_array().into_iter().flatten();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    tags.map(|t| (text(&t["Key"]), text(&t["Value"]))).collect()
}

fn create(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let name = input["repositoryName"].as_str().unwrap_or_default();
    check_name(name)?;
    let url = world.url.clone();
    let repositories = &mut world.region(&ctx.region).ecr.repositories;
    if repositories.contains_key(name) {
        return Err(ApiError::new(
            "RepositoryAlreadyExistsException",
            format!("The repository with name '{name}' already exists in the registry with id '{ACCOUNT}'"),
        ));
    }
    let (mutability, exclusions) = mutability(input)?;
    let encryption = input.get("encryptionConfiguration").filter(|e| e.is_object()).cloned();
    let repository = Repository {
        created: ctx.now,
        mutability,
        exclusions,
        scan_on_push: input["imageScanningConfiguration"]["scanOnPush"] == true,
        encryption: encryption.unwrap_or_else(|| json!({"encryptionType": "AES256"})),
        tags: aws_tags(&input["tags"]),
        ..Default::default()
    };
    let out = json!({"repository": describe(ctx, &url, name, &repository)});
    repositories.insert(name.to_owned(), repository);
    Ok(out)
}

fn list(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let url = world.url.clone();
    let repositories = &world.region(&ctx.region).ecr.repositories;
    if let Some(names) = input["repositoryNames"].as_array().filter(|n| !n.is_empty()) {
        let one = |name: &Value| {
            let name = name.as_str().unwrap_or_default();
            let found = repositories.get(name).ok_or_else(|| not_found(name, ACCOUNT))?;
            Ok(describe(ctx, &url, name, found))
        };
        let found = names.iter().map(one).collect::<Result<Vec<_>, ApiError>>()?;
        return Ok(json!({"repositories": found}));
    }
    let all: Vec<_> = repositories.iter().map(|(n, r)| (n.clone(), describe(ctx, &url, n, r))).collect();
    page(input, all, "repositories", 100)
}

/// A page of entries with their keys, which come in order.
pub fn page(input: &Value, all: Vec<(String, Value)>, member: &str, by_default: usize) -> Answer {
    let after = match input["nextToken"].as_str() {
        None => None,
        Some(token) => {
            let key = hex::decode(token).ok().and_then(|b| String::from_utf8(b).ok());
            Some(key.ok_or_else(|| invalid("Invalid parameter at 'nextToken' failed to satisfy constraint"))?)
        }
    };
    let most = input["maxResults"].as_u64().and_then(|m| usize::try_from(m).ok()).unwrap_or(by_default);
    if !(1..=1000).contains(&most) {
        return Err(invalid("Invalid parameter at 'maxResults': it must be between 1 and 1000"));
    }
    let mut rest = all.into_iter().filter(|(key, _)| after.as_ref().is_none_or(|after| key > after)).peekable();
    let taken: Vec<_> = rest.by_ref().take(most).collect();
    let more = rest.peek().is_some();
    let last = taken.last().map(|(key, _)| hex::encode(key));
    let mut out = json!({member: taken.into_iter().map(|(_, value)| value).collect::<Vec<_>>()});
    if let (true, Some(last)) = (more, last) {
        out["nextToken"] = json!(last);
    }
    Ok(out)
}

fn tagging(world: &mut World, ctx: &Ctx, operation: &str, input: &Value) -> Answer {
    let given = input["resourceArn"].as_str().unwrap_or_default();
    let name = given
        .strip_prefix(&arn(ctx, ""))
        .ok_or_else(|| invalid(format!("Invalid parameter at 'resourceArn': {given}")))?;
    let repository = find(world, &ctx.region, name)?;
    match operation {
        "TagResource" => repository.tags.extend(aws_tags(&input["tags"])),
        "UntagResource" => {
            let keys = input["tagKeys"].as_array().into_iter().flatten();
            for key in keys.filter_map(Value::as_str) {
                repository.tags.remove(key);
            }
        }
        _ => {
            let tags: Vec<_> = repository.tags.iter().map(|(k, v)| json!({"Key": k, "Value": v})).collect();
            return Ok(json!({"tags": tags}));
        }
    }
    Ok(json!({}))
}
