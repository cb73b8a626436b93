//! Requests about endpoints.

use serde_json::{Value, json};

use super::{Endpoint, Failing, Kind, Noun, Operation, Readiness, Status, fleet, refused};
use crate::faults::What;
use crate::input::{last, tags, text};
use crate::scaling;
use crate::world::{Answer, ApiError, Ctx, World, epoch};

/// AWS seconds until a new fleet serves.
const DEPLOY_SECONDS: f64 = 300.0;
/// AWS seconds until an instance count moved.
const SCALE_SECONDS: f64 = 120.0;
/// AWS seconds until an endpoint is gone.
const DELETE_SECONDS: f64 = 20.0;

pub(super) fn create(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let name = text(input, "EndpointName").to_owned();
    if world.region(&ctx.region).sagemaker.endpoints.contains_key(&name) {
        return Err(Noun::Endpoint.taken(ctx, &name));
    }
    let config = last(text(input, "EndpointConfigName")).to_owned();
    let variants = fleet::resolve(world, ctx, &config)?;
    fleet::check_quota(world, ctx, &variants)?;
    let fails = failing(world, &name, false);
    let deployment = input.get("DeploymentConfig").filter(|d| !d.is_null()).cloned();
    let until = ctx.now + world.millis(DEPLOY_SECONDS);
    let endpoint = Endpoint {
        created: ctx.now,
        modified: ctx.now,
        status: Status::Creating,
        config: config.clone(),
        last_deployment: deployment.clone(),
        operation: Some(Operation {
            kind: Kind::Deploy { config, variants, deployment, fails },
            started: ctx.now,
            until,
            logged: false,
            readiness: Readiness::Waiting,
        }),
        ..Endpoint::default()
    };
    let arn = Noun::Endpoint.arn(ctx, &name);
    let state = &mut world.region(&ctx.region).sagemaker;
    state.endpoints.insert(name, endpoint);
    state.tags.insert(arn.clone(), tags(&input["Tags"]));
    Ok(json!({"EndpointArn": arn}))
}

/// How this deployment ends, if a test ordered that it ends badly.
fn failing(world: &mut World, name: &str, update: bool) -> Option<Failing> {
    let fits = |endpoint: &str| endpoint == "*" || endpoint == name;
    let taken = world.faults.take(|what| match what {
        What::Unhealthy { endpoint } => fits(endpoint),
        What::SilentRollback { endpoint } => update && fits(endpoint),
        _ => false,
    });
    taken.map(|what| if matches!(what, What::Unhealthy { .. }) { Failing::Unhealthy } else { Failing::Silently })
}

pub(super) fn update(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let name = text(input, "EndpointName").to_owned();
    idle(world, ctx, &name, false)?;
    let config = last(text(input, "EndpointConfigName")).to_owned();
    let mut variants = fleet::resolve(world, ctx, &config)?;
    let live = world.region(&ctx.region).sagemaker.endpoints[&name].variants.clone();
    let same = |v: &&fleet::Variant, w: &fleet::Variant| v.name == w.name;

    let scalable = scaling::registered_variants(world, &ctx.region, &name);
    let bound: Vec<&str> = live
        .iter()
        .filter(|v| scalable.contains(&v.name))
        .filter(|v| !variants.iter().any(|w| same(v, w) && w.instance_type == v.instance_type))
        .map(|v| v.name.as_str())
        .collect();
    if !bound.is_empty() {
        return Err(refused(format!(
            "The variant(s) \"[{}]\" must be deregistered as scalable targets with AutoScaling before they can be removed \
             or have their instance type updated.",
            bound.join(", ")
        )));
    }
    let mut deployment = input.get("DeploymentConfig").filter(|d| !d.is_null()).cloned();
    if deployment.is_none() && input["RetainDeploymentConfig"] == true {
        deployment = world.region(&ctx.region).sagemaker.endpoints[&name].last_deployment.clone();
    }
    let renamed = live.len() != variants.len() || !live.iter().all(|v| variants.iter().any(|w| same(&v, w)));
    if deployment.is_some() && renamed {
        return Err(refused(
            "Deployment config is not supported when the production variants of the new endpoint configuration differ \
             from those of the endpoint.",
        ));
    }
    if input["RetainAllVariantProperties"] == true {
        let excluded = |kind: &str| {
            let all = input["ExcludeRetainedVariantProperties"].as_array().into_iter().flatten();
            all.into_iter().any(|p| text(p, "VariantPropertyType") == kind)
        };
        let (count, weight) = (!excluded("DesiredInstanceCount"), !excluded("DesiredWeight"));
        for variant in &mut variants {
            if let Some(old) = live.iter().find(|v| v.name == variant.name) {
                variant.desired = if count { old.desired } else { variant.desired };
                variant.weight = if weight { old.weight } else { variant.weight };
            }
        }
    }
    // A new fleet is made beside the old one.
    fleet::check_quota(world, ctx, &variants)?;
    let fails = failing(world, &name, true);
    let until = ctx.now + world.millis(DEPLOY_SECONDS + waits(deployment.as_ref()));
    if let Some(endpoint) = world.region(&ctx.region).sagemaker.endpoints.get_mut(&name) {
        endpoint.status = Status::Updating;
        endpoint.modified = ctx.now;
        endpoint.failure = None;
        let kind = Kind::Deploy { config, variants, deployment, fails };
        endpoint.operation =
            Some(Operation { kind, started: ctx.now, until, logged: false, readiness: Readiness::Waiting });
    }
    Ok(json!({"EndpointArn": Noun::Endpoint.arn(ctx, &name)}))
}

/// AWS seconds that a deployment config adds: traffic steps and the time both fleets stay.
fn waits(deployment: Option<&Value>) -> f64 {
    let Some(policy) = deployment.map(|d| &d["BlueGreenUpdatePolicy"]) else { return 0.0 };
    let routing = &policy["TrafficRoutingConfiguration"];
    let step = routing["WaitIntervalInSeconds"].as_f64().unwrap_or(0.0);
    let steps = match text(routing, "Type") {
        "CANARY" => 1.0,
        "LINEAR" => (100.0 / routing["LinearStepSize"]["Value"].as_f64().unwrap_or(50.0).max(1.0)).ceil() - 1.0,
        _ => 0.0,
    };
    step * steps + policy["TerminationWaitInSeconds"].as_f64().unwrap_or(0.0)
}

/// Refuses what must wait for an operation, or can never happen again.
fn idle(world: &mut World, ctx: &Ctx, name: &str, deleting: bool) -> Result<(), ApiError> {
    let found = world.region(&ctx.region).sagemaker.endpoints.get(name);
    let arn = Noun::Endpoint.arn(ctx, name);
    match found.map(|e| e.status) {
        None => Err(Noun::Endpoint.missing(ctx, name)),
        Some(Status::InService) => Ok(()),
        Some(Status::Failed) if deleting => Ok(()),
        Some(Status::Failed) => Err(refused(format!("Cannot update endpoint \"{arn}\" in state Failed."))),
        Some(_) => Err(refused(format!("Cannot update in-progress endpoint \"{arn}\"."))),
    }
}

pub(super) fn delete(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let name = text(input, "EndpointName").to_owned();
    idle(world, ctx, &name, true)?;
    // DeleteEndpoint takes the scalable targets with it (awslabs/stable-diffusion-aws-extension#161).
    scaling::forget_endpoint(world, &ctx.region, &name);
    let until = ctx.now + world.millis(DELETE_SECONDS);
    if let Some(endpoint) = world.region(&ctx.region).sagemaker.endpoints.get_mut(&name) {
        endpoint.status = Status::Deleting;
        endpoint.modified = ctx.now;
        endpoint.operation = Some(Operation {
            kind: Kind::Delete,
            started: ctx.now,
            until,
            logged: false,
            readiness: Readiness::Waiting,
        });
    }
    Ok(Value::Null)
}

pub(super) fn update_weights(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let name = text(input, "EndpointName").to_owned();
    idle(world, ctx, &name, false)?;
    let mut variants = world.region(&ctx.region).sagemaker.endpoints[&name].variants.clone();
    let mut more = Vec::new();
    for wanted in input["DesiredWeightsAndCapacities"].as_array().into_iter().flatten() {
        let variant_name = text(wanted, "VariantName");
        let Some(variant) = variants.iter_mut().find(|v| v.name == variant_name) else {
            return Err(refused(format!("Could not find variant \"{variant_name}\" of endpoint \"{name}\".")));
        };
        if let Some(count) = wanted["DesiredInstanceCount"].as_i64() {
            more.push(fleet::Variant { desired: count - variant.desired, ..variant.clone() });
            variant.desired = count;
        }
        variant.weight = wanted["DesiredWeight"].as_f64().unwrap_or(variant.weight);
    }
    more.retain(|v| v.desired > 0);
    fleet::check_quota(world, ctx, &more)?;
    scale(world, ctx, &name, variants);
    Ok(json!({"EndpointArn": Noun::Endpoint.arn(ctx, &name)}))
}

fn scale(world: &mut World, ctx: &Ctx, name: &str, variants: Vec<fleet::Variant>) {
    let until = ctx.now + world.millis(SCALE_SECONDS);
    if let Some(endpoint) = world.region(&ctx.region).sagemaker.endpoints.get_mut(name) {
        endpoint.variants = variants;
        endpoint.status = Status::Updating;
        endpoint.modified = ctx.now;
        endpoint.operation = Some(Operation {
            kind: Kind::Scale,
            started: ctx.now,
            until,
            logged: false,
            readiness: Readiness::Waiting,
        });
    }
}

/// Whether an endpoint has such a variant by now.
pub fn has_variant(world: &World, region: &str, endpoint: &str, variant: &str) -> bool {
    let found = world.regions.get(region).and_then(|r| r.sagemaker.endpoints.get(endpoint));
    found.is_some_and(|e| e.status != Status::Deleting && e.variants.iter().any(|v| v.name == variant))
}

/// Desired instances of a variant that may be scaled now. None if there is no such variant or it is not settled.
pub fn desired_count(world: &World, region: &str, endpoint: &str, variant: &str) -> Option<i64> {
    let endpoint = world.regions.get(region)?.sagemaker.endpoints.get(endpoint)?;
    let settled = endpoint.status == Status::InService;
    endpoint.variants.iter().find(|v| settled && v.name == variant).map(|v| v.desired)
}

/// Moves the desired instances, as Application Auto Scaling does.
pub fn set_desired_count(
    world: &mut World,
    ctx: &Ctx,
    endpoint: &str,
    variant: &str,
    count: i64,
) -> Result<(), ApiError> {
    let wanted = json!([{"VariantName": variant, "DesiredInstanceCount": count}]);
    let input = json!({"EndpointName": endpoint, "DesiredWeightsAndCapacities": wanted});
    update_weights(world, ctx, &input).map(drop)
}

pub(super) fn describe(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let name = text(input, "EndpointName");
    let state = &world.region(&ctx.region).sagemaker;
    let endpoint = state.endpoints.get(name).ok_or_else(|| Noun::Endpoint.missing(ctx, name))?;
    let mut shown = json!({
        "EndpointName": name,
        "EndpointArn": Noun::Endpoint.arn(ctx, name),
        "EndpointConfigName": endpoint.config,
        "EndpointStatus": endpoint.status.name(),
        "CreationTime": epoch(endpoint.created),
        "LastModifiedTime": epoch(endpoint.modified),
    });
    if !endpoint.variants.is_empty() {
        shown["ProductionVariants"] = endpoint.variants.iter().map(fleet::Variant::show).collect();
    }
    if let Some(reason) = &endpoint.failure {
        shown["FailureReason"] = json!(reason);
    }
    if let Some(deployment) = &endpoint.last_deployment {
        shown["LastDeploymentConfig"] = deployment.clone();
    }
    if let Some(Operation { kind: Kind::Deploy { config, variants, .. }, started, until, .. }) = &endpoint.operation {
        let status = stage(*started, *until, ctx.now, endpoint.status == Status::Creating);
        let shown_variants = variants.iter().map(|variant| {
            let mut row = variant.show();
            row["VariantStatus"] = json!([{"Status": status, "StartTime": epoch(*started)}]);
            row
        });
        shown["PendingDeploymentSummary"] = json!({
            "EndpointConfigName": config,
            "ProductionVariants": shown_variants.collect::<Vec<_>>(),
            "StartTime": epoch(*started),
        });
    }
    Ok(shown)
}

/// The variant status at a time within a deployment.
fn stage(started: i64, until: i64, now: i64, creating: bool) -> &'static str {
    let done = (now - started) as f64 / ((until - started).max(1)) as f64;
    match done {
        _ if creating => "Creating",
        d if d < 0.7 => "Creating",
        d if d < 0.85 => "ActivatingTraffic",
        d if d < 0.95 => "Baking",
        _ => "Deleting",
    }
}
