//! SageMaker: models, endpoint configs, endpoints and their tags.
//!
//! - `models`, `endpoints`: what the API keeps; `fleet`: what an endpoint config means in instances; `lifecycle` moves
//!   endpoints through their states.
//! - Where endpoints run: `wanted` says which instances the state wants, `instances` makes it so, `artifact` extracts
//!   their models, `invoke` answers InvokeEndpoint. Where they are simulated, endpoints become InService by the rules
//!   alone.

mod artifact;
mod endpoints;
mod fleet;
mod instances;
mod invoke;
mod lifecycle;
mod models;
mod rules;
#[cfg(test)]
mod tests;
mod wanted;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::input::{last, limit, page, strings, tag_list, tags, text};
use crate::rules::Rule;
use crate::world::{Answer, ApiError, Ctx, World};
pub use endpoints::{desired_count, has_variant, set_desired_count};
pub use fleet::Variant;
pub use instances::{Comfyui, Fleet, Serving, sweep};
pub use invoke::{handle as handle_invoke, target as invoke_target};

/// What SageMaker refuses.
pub const RULES: &[Rule] = rules::RULES;

/// The service's state.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    models: BTreeMap<String, Made>,
    configs: BTreeMap<String, Made>,
    endpoints: BTreeMap<String, Endpoint>,
    /// By ARN.
    tags: BTreeMap<String, BTreeMap<String, String>>,
}

/// A model or an endpoint config: what it was created with, without its tags.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Made {
    created: i64,
    input: Value,
}

/// An endpoint.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Endpoint {
    created: i64,
    modified: i64,
    status: Status,
    failure: Option<String>,
    /// The live endpoint config.
    config: String,
    variants: Vec<Variant>,
    last_deployment: Option<Value>,
    operation: Option<Operation>,
}

/// EndpointStatus, as far as the sandbox goes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Status {
    #[default]
    Creating,
    Updating,
    RollingBack,
    InService,
    Failed,
    Deleting,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Status::Creating => "Creating",
            Status::Updating => "Updating",
            Status::RollingBack => "RollingBack",
            Status::InService => "InService",
            Status::Failed => "Failed",
            Status::Deleting => "Deleting",
        }
    }
}

/// What goes on at an endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Operation {
    kind: Kind,
    started: i64,
    /// When it is over, milliseconds since 1970.
    until: i64,
    /// Whether the containers' first lines are in the log.
    logged: bool,
    /// How the instances are, where they run.
    #[serde(default)]
    readiness: Readiness,
}

/// How the instances of an operation are.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Readiness {
    /// Not all of them serve, or nothing runs at all.
    #[default]
    Waiting,
    /// All of them serve.
    Ready,
    /// One of them never will, with the reason.
    Failed(String),
}

/// The kinds of operation.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Kind {
    /// A new fleet is made, on create and on update.
    Deploy { config: String, variants: Vec<Variant>, deployment: Option<Value>, fails: Option<Failing> },
    /// The new fleet of a failed update is taken away.
    RollBack,
    /// Instance counts or weights move.
    Scale,
    /// The endpoint goes away.
    Delete,
}

/// How a deployment ends badly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Failing {
    /// The container does not answer the health check.
    Unhealthy,
    /// SageMaker goes back and says nothing.
    Silently,
}

/// One operation, input and output as in the API's JSON.
pub fn call(world: &mut World, ctx: &Ctx, operation: &str, input: &Value) -> Answer {
    match operation {
        "CreateModel" => models::create_model(world, ctx, input),
        "CreateEndpointConfig" => models::create_config(world, ctx, input),
        "DescribeModel" | "DescribeEndpointConfig" => models::describe(world, ctx, Noun::of(operation), input),
        "DeleteModel" => models::delete_model(world, ctx, input),
        "DeleteEndpointConfig" => models::delete_config(world, ctx, input),
        "ListModels" | "ListEndpointConfigs" | "ListEndpoints" => list(world, ctx, Noun::of(operation), input),
        "CreateEndpoint" => endpoints::create(world, ctx, input),
        "UpdateEndpoint" => endpoints::update(world, ctx, input),
        "UpdateEndpointWeightsAndCapacities" => endpoints::update_weights(world, ctx, input),
        "DescribeEndpoint" => endpoints::describe(world, ctx, input),
        "DeleteEndpoint" => endpoints::delete(world, ctx, input),
        "AddTags" => {
            let arn = tagged(world, ctx, input)?;
            let all = world.region(&ctx.region).sagemaker.tags.entry(arn).or_default();
            all.extend(tags(&input["Tags"]));
            Ok(json!({"Tags": tag_list(all)}))
        }
        "DeleteTags" => {
            let arn = tagged(world, ctx, input)?;
            if let Some(all) = world.region(&ctx.region).sagemaker.tags.get_mut(&arn) {
                strings(&input["TagKeys"]).iter().for_each(|key| {
                    all.remove(key);
                });
            }
            Ok(json!({}))
        }
        "ListTags" => {
            let arn = tagged(world, ctx, input)?;
            let all = world.region(&ctx.region).sagemaker.tags.get(&arn).cloned().unwrap_or_default();
            let list = tag_list(&all).as_array().cloned().unwrap_or_default();
            paged("Tags", list, limit(input, "MaxResults", 50), input)
        }
        other => {
            Err(ApiError::new("UnknownOperationException", format!("the sandbox has no SageMaker operation {other}")))
        }
    }
}

/// Moves what takes time. True if anything moved.
pub fn tick(world: &mut World, now: i64) -> bool {
    lifecycle::tick(world, now)
}

/// The three things SageMaker names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noun {
    Model,
    Config,
    Endpoint,
}

impl Noun {
    fn of(operation: &str) -> Noun {
        match operation {
            o if o.contains("EndpointConfig") => Noun::Config,
            o if o.contains("Model") => Noun::Model,
            _ => Noun::Endpoint,
        }
    }

    /// API name, words, part of the ARN.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Noun::Model => ("Model", "model", "model"),
            Noun::Config => ("EndpointConfig", "endpoint configuration", "endpoint-config"),
            Noun::Endpoint => ("Endpoint", "endpoint", "endpoint"),
        }
    }

    /// SageMaker's ARNs have names in small letters.
    fn arn(self, ctx: &Ctx, name: &str) -> String {
        ctx.arn("sagemaker", &format!("{}/{}", self.names().2, name.to_lowercase()))
    }

    fn missing(self, ctx: &Ctx, name: &str) -> ApiError {
        refused(format!("Could not find {} \"{}\".", self.names().1, self.arn(ctx, name)))
    }

    fn taken(self, ctx: &Ctx, name: &str) -> ApiError {
        refused(format!("Cannot create already existing {} \"{}\".", self.names().1, self.arn(ctx, name)))
    }

    /// The name in the input; where an ARN is given, its name.
    fn name(self, input: &Value) -> &str {
        last(text(
            input,
            match self {
                Noun::Model => "ModelName",
                Noun::Config => "EndpointConfigName",
                Noun::Endpoint => "EndpointName",
            },
        ))
    }
}

fn refused(text: impl Into<String>) -> ApiError {
    ApiError::new("ValidationException", text)
}

/// The ARN whose tags are asked for, which must exist.
fn tagged(world: &mut World, ctx: &Ctx, input: &Value) -> Result<String, ApiError> {
    let arn = text(input, "ResourceArn");
    let state = &world.region(&ctx.region).sagemaker;
    let mut all = state
        .models
        .keys()
        .map(|n| Noun::Model.arn(ctx, n))
        .chain(state.configs.keys().map(|n| Noun::Config.arn(ctx, n)))
        .chain(state.endpoints.keys().map(|n| Noun::Endpoint.arn(ctx, n)));
    match all.find(|known| known.eq_ignore_ascii_case(arn)) {
        Some(known) => Ok(known),
        None => Err(refused(format!("Could not find resource \"{arn}\"."))),
    }
}

fn list(world: &mut World, ctx: &Ctx, noun: Noun, input: &Value) -> Answer {
    let state = &world.region(&ctx.region).sagemaker;
    let (api, _, _) = noun.names();
    let of =
        |made: &BTreeMap<String, Made>| made.iter().map(|(n, m)| (n.clone(), m.created, m.created, None)).collect();
    let mut rows: Vec<(String, i64, i64, Option<Status>)> = match noun {
        Noun::Model => of(&state.models),
        Noun::Config => of(&state.configs),
        Noun::Endpoint => {
            state.endpoints.iter().map(|(n, e)| (n.clone(), e.created, e.modified, Some(e.status))).collect()
        }
    };
    let contains = text(input, "NameContains").to_lowercase();
    let status = input["StatusEquals"].as_str();
    let after = input["CreationTimeAfter"].as_f64();
    let before = input["CreationTimeBefore"].as_f64();
    rows.retain(|(name, created, _, s)| {
        let at = *created as f64 / 1000.0;
        name.to_lowercase().contains(&contains)
            && status.is_none_or(|wanted| s.is_some_and(|s| s.name() == wanted))
            && after.is_none_or(|t| at > t)
            && before.is_none_or(|t| at < t)
    });
    if text(input, "SortBy") != "Name" {
        rows.sort_by_key(|r| r.1);
    }
    if text(input, "SortOrder") != "Ascending" {
        rows.reverse();
    }
    let shown = rows.into_iter().map(|(name, created, modified, status)| {
        let mut row = json!({
            format!("{api}Name"): name,
            format!("{api}Arn"): noun.arn(ctx, &name),
            "CreationTime": crate::world::epoch(created),
        });
        if let Some(status) = status {
            row["LastModifiedTime"] = crate::world::epoch(modified);
            row["EndpointStatus"] = json!(status.name());
        }
        row
    });
    paged(&format!("{api}s"), shown.collect(), limit(input, "MaxResults", 10), input)
}

fn paged(member: &str, items: Vec<Value>, size: usize, input: &Value) -> Answer {
    let (items, next) = page(items, size, &input["NextToken"], "ValidationException")?;
    let mut answer = json!({member: items});
    if let Some(next) = next {
        answer["NextToken"] = json!(next);
    }
    Ok(answer)
}
