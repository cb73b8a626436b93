//! Lambda: functions from zip files in S3, their URLs, permissions and reserved concurrency.
//!
//! - `function`, `permissions`, `url`: what the API keeps.
//! - `package`, `environment`, `runtime_api`: the zip file, the process made from it, and what it talks to.
//! - `invoke`: one invocation; `api`: the Invoke operations; `urls`, `event`: function URLs.

mod api;
mod environment;
mod event;
mod function;
mod invoke;
mod package;
mod permissions;
mod rules;
mod runtime_api;
#[cfg(test)]
mod tests;
mod url;
pub mod urls;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::input::{limit, page, string_map, strings, text};
use crate::rules::Rule;
use crate::world::{Answer, ApiError, Ctx, World};
pub use api::{handle as handle_invoke, target as invoke_target};
use function::{Function, Plan};
pub use invoke::Environments;

/// What Lambda refuses.
pub const RULES: &[Rule] = rules::RULES;

/// Concurrent executions of the account, and how many of them no function may reserve (AWS doc: Lambda quotas).
const CONCURRENCY: i64 = 1000;
const UNRESERVED: i64 = 100;

/// The service's state.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    functions: BTreeMap<String, Function>,
}

/// One operation, input and output as in the API's JSON.
pub fn call(world: &mut World, ctx: &Ctx, operation: &str, input: &Value) -> Answer {
    let name = function_name(text(input, "FunctionName")).to_owned();
    if input["Qualifier"].as_str().is_some_and(|q| q != "$LATEST") {
        return Err(missing(format!("Function not found: {}:{}", arn(ctx, &name), text(input, "Qualifier"))));
    }
    let at = world.url.clone();
    match operation {
        "CreateFunction" => function::create(world, ctx, &name, input),
        "UpdateFunctionCode" => function::update_code(world, ctx, &name, input),
        "UpdateFunctionConfiguration" => function::update_configuration(world, ctx, &name, input),
        "GetFunctionConfiguration" => Ok(find(world, ctx, &name)?.show(ctx, &name)),
        "GetFunction" => {
            let function = find(world, ctx, &name)?;
            let mut shown = json!({
                "Configuration": function.show(ctx, &name),
                "Code": {"RepositoryType": "S3", "Location": function.location(&at)},
            });
            if !function.tags.is_empty() {
                shown["Tags"] = json!(function.tags);
            }
            if let Some(reserved) = function.reserved {
                shown["Concurrency"] = json!({"ReservedConcurrentExecutions": reserved});
            }
            Ok(shown)
        }
        "ListFunctions" => {
            let all = world.region(&ctx.region).lambda.functions.iter().map(|(n, f)| f.show(ctx, n)).collect();
            let size = limit(input, "MaxItems", 50);
            let (items, next) = page(all, size, &input["Marker"], "InvalidParameterValueException")?;
            let mut answer = json!({"Functions": items});
            if let Some(next) = next {
                answer["NextMarker"] = json!(next);
            }
            Ok(answer)
        }
        "DeleteFunction" => {
            find(world, ctx, &name)?;
            world.region(&ctx.region).lambda.functions.remove(&name);
            Ok(Value::Null)
        }
        "PutFunctionConcurrency" => reserve(world, ctx, &name, input),
        "DeleteFunctionConcurrency" => {
            find(world, ctx, &name)?.reserved = None;
            Ok(Value::Null)
        }
        "GetFunctionConcurrency" => Ok(match find(world, ctx, &name)?.reserved {
            Some(reserved) => json!({"ReservedConcurrentExecutions": reserved}),
            None => json!({}),
        }),
        "CreateFunctionUrlConfig" => url::create(find(world, ctx, &name)?, &at, ctx, &name, input),
        "GetFunctionUrlConfig" => url::get(find(world, ctx, &name)?, &at, ctx, &name),
        "UpdateFunctionUrlConfig" => url::update(find(world, ctx, &name)?, &at, ctx, &name, input),
        "DeleteFunctionUrlConfig" => url::delete(find(world, ctx, &name)?),
        "AddPermission" => permissions::add(find(world, ctx, &name)?, ctx, &name, input),
        "RemovePermission" => permissions::remove(find(world, ctx, &name)?, input),
        "GetPolicy" => permissions::get(find(world, ctx, &name)?),
        "ListTags" => Ok(json!({"Tags": by_arn(world, ctx, input)?.tags})),
        "TagResource" => {
            by_arn(world, ctx, input)?.tags.extend(string_map(&input["Tags"]));
            Ok(Value::Null)
        }
        "UntagResource" => {
            let function = by_arn(world, ctx, input)?;
            strings(&input["TagKeys"]).iter().for_each(|key| {
                function.tags.remove(key);
            });
            Ok(Value::Null)
        }
        other => {
            Err(ApiError::new("UnknownOperationException", format!("the sandbox has no Lambda operation {other}")))
        }
    }
}

/// Moves what takes time. True if anything moved.
pub fn tick(world: &mut World, now: i64) -> bool {
    let functions = world.regions.values_mut().flat_map(|r| r.lambda.functions.values_mut());
    functions.fold(false, |moved, function| function.settle(now) | moved)
}

/// Removes packages that no function has. For the start only.
pub fn sweep(world: &World) {
    let functions = world.regions.values().flat_map(|r| r.lambda.functions.values());
    package::sweep(&world.dir, functions.map(Function::sha256));
}

/// The revision of a function, if there is one.
fn revision<'a>(world: &'a World, region: &str, name: &str) -> Option<&'a str> {
    Some(world.regions.get(region)?.lambda.functions.get(name)?.revision())
}

/// Region and name of the function that has a URL.
fn by_url(world: &World, id: &str) -> Option<(String, String)> {
    world.regions.iter().find_map(|(region, state)| {
        let found = state.lambda.functions.iter().find(|(_, f)| f.url.as_ref().is_some_and(|u| u.id() == id));
        found.map(|(name, _)| (region.clone(), name.clone()))
    })
}

/// AuthType and InvokeMode of a function's URL.
fn url_settings(world: &World, region: &str, name: &str) -> Option<(String, String)> {
    let url = world.regions.get(region)?.lambda.functions.get(name)?.url.as_ref()?;
    Some((url.setting("AuthType"), url.setting("InvokeMode")))
}

/// What an invocation needs to know of a function.
fn plan(world: &mut World, region: &str, name: &str) -> Result<Plan, ApiError> {
    let ctx = Ctx { region: region.to_owned(), request_id: String::new(), now: crate::world::now_ms() };
    let functions = &world.region(region).lambda.functions;
    let unreserved = CONCURRENCY - functions.values().filter_map(|f| f.reserved).sum::<i64>();
    find(world, &ctx, name)?.plan(&ctx, name, unreserved)
}

/// A trace header for an invocation that came without one (AWS doc: X-Ray, Tracing header).
fn trace() -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("Root=1-{:08x}-{};Parent={};Sampled=0", crate::world::now_ms() / 1000, &id[..24], &id[16..])
}

/// The name of `name`, `123456789012:function:name` or an ARN.
fn function_name(given: &str) -> &str {
    given.split_once("function:").map_or(given, |(_, rest)| rest.split(':').next().unwrap_or(rest))
}

fn arn(ctx: &Ctx, name: &str) -> String {
    ctx.arn("lambda", &format!("function:{name}"))
}

fn missing(text: impl Into<String>) -> ApiError {
    ApiError::new("ResourceNotFoundException", text).status(404)
}

fn conflict(text: impl Into<String>) -> ApiError {
    ApiError::new("ResourceConflictException", text).status(409)
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::new("InvalidParameterValueException", text)
}

fn find<'a>(world: &'a mut World, ctx: &Ctx, name: &str) -> Result<&'a mut Function, ApiError> {
    let found = world.region(&ctx.region).lambda.functions.get_mut(name);
    found.ok_or_else(|| missing(format!("Function not found: {}", arn(ctx, name))))
}

fn by_arn<'a>(world: &'a mut World, ctx: &Ctx, input: &Value) -> Result<&'a mut Function, ApiError> {
    let name = function_name(text(input, "Resource")).to_owned();
    find(world, ctx, &name)
}

fn reserve(world: &mut World, ctx: &Ctx, name: &str, input: &Value) -> Answer {
    find(world, ctx, name)?;
    let functions = &mut world.region(&ctx.region).lambda.functions;
    let others: i64 = functions.iter().filter(|(n, _)| *n != name).filter_map(|(_, f)| f.reserved).sum();
    let wanted = input["ReservedConcurrentExecutions"].as_i64().unwrap_or_default();
    if others + wanted > CONCURRENCY - UNRESERVED {
        return Err(invalid(format!(
            "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its \
             minimum value of [{UNRESERVED}]."
        )));
    }
    if let Some(function) = functions.get_mut(name) {
        function.reserved = Some(wanted);
    }
    Ok(json!({"ReservedConcurrentExecutions": wanted}))
}
