//! The API.

mod change_sets;
mod read;
mod stacks;
mod templates;

use serde_json::{Value, json};

use super::spec::Given;
use super::template::{BODY_LIMIT, URL_LIMIT};
use super::{Fail, Stack, flag, invalid, list, text, texts};
use crate::world::{Answer, ApiError, Ctx, World};

/// Entries of one page.
const PAGE: usize = 100;

pub(super) fn call(world: &mut World, ctx: &Ctx, operation: &str, input: &Value) -> Answer {
    match operation {
        "CancelUpdateStack" => stacks::cancel_update(world, ctx, input),
        "ContinueUpdateRollback" => stacks::continue_rollback(world, ctx, input),
        "CreateChangeSet" => change_sets::create(world, ctx, input),
        "CreateStack" => stacks::create(world, ctx, input),
        "DeleteChangeSet" => change_sets::delete(world, ctx, input),
        "DeleteStack" => stacks::delete(world, ctx, input),
        "DescribeChangeSet" => change_sets::describe(world, ctx, input),
        "DescribeEvents" => read::validation_events(world, ctx, input),
        "DescribeStackEvents" => read::events(world, ctx, input),
        "DescribeStackResource" => read::resource(world, ctx, input),
        "DescribeStackResources" => read::resources(world, ctx, input),
        "DescribeStacks" => read::stacks(world, ctx, input),
        "ExecuteChangeSet" => change_sets::execute(world, ctx, input),
        "GetStackPolicy" => stacks::get_policy(world, ctx, input),
        "GetTemplate" => templates::get(world, ctx, input),
        "GetTemplateSummary" => templates::summary(world, ctx, input),
        "ListChangeSets" => change_sets::list_all(world, ctx, input),
        "ListStackResources" => read::list_resources(world, ctx, input),
        "ListStacks" => read::list_stacks(world, ctx, input),
        "RollbackStack" => stacks::roll_back(world, ctx, input),
        "SetStackPolicy" => stacks::set_policy(world, ctx, input),
        "UpdateStack" => stacks::update(world, ctx, input),
        "UpdateTerminationProtection" => stacks::protect(world, ctx, input),
        "ValidateTemplate" => templates::validate(world, ctx, input),
        other => Err(ApiError::new(
            "UnknownOperationException",
            format!("the sandbox has no CloudFormation operation {other}"),
        )),
    }
}

fn missing(name: &str) -> Fail {
    invalid(format!("Stack with id {name} does not exist"))
}

/// The stack that `StackName` names.
fn named<'a>(world: &'a mut World, ctx: &Ctx, input: &Value) -> Result<&'a mut Stack, Fail> {
    let name = text(input, "StackName").ok_or_else(|| invalid("StackName is required"))?.to_owned();
    world.region(&ctx.region).cfn.find_mut(&name).ok_or_else(|| missing(&name))
}

/// A name as the API takes it (API model: StackName).
fn check_name(name: &str) -> Result<(), Fail> {
    let starts = name.starts_with(|letter: char| letter.is_ascii_alphabetic());
    let fits = name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
    if starts && fits && name.len() <= 128 {
        return Ok(());
    }
    Err(invalid(format!(
        "1 validation error detected: Value '{name}' at 'stackName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*"
    )))
}

/// The template of a request: its body, or what its URL names in S3.
fn template_text(world: &mut World, ctx: &Ctx, input: &Value) -> Result<Option<String>, Fail> {
    match (text(input, "TemplateBody"), text(input, "TemplateURL")) {
        (Some(_), Some(_)) => Err(invalid("Either Template URL or Template Body must be specified.")),
        (Some(body), None) if body.len() > BODY_LIMIT => Err(invalid(format!(
            "1 validation error detected: Value '{}...' at 'templateBody' failed to satisfy constraint: Member must have length less than or equal to {BODY_LIMIT}",
            body.chars().take(40).collect::<String>()
        ))),
        (Some(""), None) => Err(invalid(
            "1 validation error detected: Value '' at 'templateBody' failed to satisfy constraint: Member must have length greater than or equal to 1",
        )),
        (Some(body), None) => Ok(Some(body.to_owned())),
        (None, Some(url)) => fetch(world, ctx, url).map(Some),
        (None, None) => Ok(None),
    }
}

/// Virtual-host and path style, AWS's hosts and the sandbox's own.
fn fetch(world: &mut World, _ctx: &Ctx, url: &str) -> Result<String, Fail> {
    let bad = || invalid(format!("TemplateURL must be a supported URL: {url}"));
    let (_, rest) = url.split_once("://").ok_or_else(bad)?;
    let (host, path) = rest.split_once('/').ok_or_else(bad)?;
    let path = path.split('?').next().unwrap_or_default();
    let path = percent_encoding::percent_decode_str(path).decode_utf8().map_err(|_| bad())?.into_owned();
    let bucket_in_host =
        host.split_once(".s3").filter(|(_, domain)| domain.starts_with(['.', '-'])).map(|(bucket, _)| bucket);
    let (bucket, key) = match bucket_in_host {
        Some(bucket) => (bucket.to_owned(), path),
        None => match path.split_once('/') {
            Some((bucket, key)) => (bucket.to_owned(), key.to_owned()),
            None => return Err(bad()),
        },
    };
    let bytes = crate::s3::read(world, &bucket, &key).ok_or_else(|| invalid("S3 error: Access Denied\nFor more information check http://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html"))?;
    if bytes.len() > URL_LIMIT {
        return Err(invalid(format!("Template may not exceed {URL_LIMIT} bytes in size.")));
    }
    String::from_utf8(bytes).map_err(|_| invalid("Template format error: YAML not well-formed."))
}

fn tags(input: &Value) -> Result<Vec<(String, String)>, Fail> {
    let mut tags: Vec<(String, String)> = Vec::new();
    for tag in list(input, "Tags") {
        let (Some(key), Some(value)) = (text(tag, "Key"), text(tag, "Value")) else {
            return Err(invalid("Every tag must have a Key and a Value"));
        };
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(invalid("aws: prefixed tag key names are not allowed for external use."));
        }
        if tags.iter().any(|(known, _)| known == key) {
            return Err(invalid(format!("Duplicate tag keys found [{key}]")));
        }
        tags.push((key.to_owned(), value.to_owned()));
    }
    if tags.len() > 50 {
        return Err(invalid(
            "1 validation error detected: Value at 'tags' failed to satisfy constraint: Member must have length less than or equal to 50",
        ));
    }
    tags.sort();
    Ok(tags)
}

/// What a request gives beside its template. Tags and notification topics stay as they are if it does not name any.
fn given<'a>(input: &'a Value, stack: Option<&'a Stack>) -> Result<Given<'a>, Fail> {
    let spec = stack.map(|stack| &stack.spec);
    let kept = |member: &str| input.get(member).is_none();
    Ok(Given {
        parameters: list(input, "Parameters"),
        previous: spec.map(|spec| spec.parameters.as_slice()),
        tags: match spec {
            Some(spec) if kept("Tags") => spec.tags.clone(),
            _ => tags(input)?,
        },
        capabilities: texts(input, "Capabilities"),
        role_arn: text(input, "RoleARN").map(str::to_owned).or_else(|| spec.and_then(|spec| spec.role_arn.clone())),
        notification_arns: match spec {
            Some(spec) if kept("NotificationARNs") => spec.notification_arns.clone(),
            _ => texts(input, "NotificationARNs"),
        },
    })
}

/// A request with a token that was used: the same request is done already, another one is refused.
fn seen(stack: &Stack, token: Option<&str>, what: &str) -> Result<bool, Fail> {
    let Some(token) = token else { return Ok(false) };
    match stack.tokens.get(token) {
        None => Ok(false),
        Some(known) if known == what => Ok(true),
        Some(_) => Err(ApiError::new(
            "TokenAlreadyExistsException",
            format!("A stack operation with token {token} already exists for stack {}", stack.id),
        )),
    }
}

fn remember(stack: &mut Stack, token: Option<&str>, what: &str) {
    if let Some(token) = token {
        stack.tokens.insert(token.to_owned(), what.to_owned());
    }
}

/// One page of `all`, and the token of the next.
fn page<T>(all: Vec<T>, input: &Value, size: usize) -> Result<(Vec<T>, Option<String>), Fail> {
    let start = match text(input, "NextToken") {
        None => 0,
        Some(token) => token
            .strip_prefix("page-")
            .and_then(|number| number.parse::<usize>().ok())
            .filter(|start| *start <= all.len())
            .ok_or_else(|| invalid("Invalid NextToken"))?,
    };
    let more = all.len() > start + size;
    let items = all.into_iter().skip(start).take(size).collect();
    Ok((items, more.then(|| format!("page-{}", start + size))))
}

fn time(ms: i64) -> Value {
    json!(crate::world::iso(ms))
}

fn tag_list(tags: &[(String, String)]) -> Value {
    tags.iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect()
}

fn parameter_list(stack_parameters: &[super::Parameter]) -> Value {
    stack_parameters
        .iter()
        .map(|parameter| {
            let value = if parameter.no_echo { "****" } else { parameter.value.as_str() };
            json!({ "ParameterKey": parameter.key, "ParameterValue": value })
        })
        .collect()
}

fn disable_rollback(input: &Value) -> bool {
    flag(input, "DisableRollback")
        || input.get("DeploymentConfig").is_some_and(|config| flag(config, "DisableRollback"))
}
