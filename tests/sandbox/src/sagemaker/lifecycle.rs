//! Endpoints on their way: what happens when an operation's time is over.

use super::{Endpoint, Failing, Kind, Operation, Readiness, Status};
use crate::logs;
use crate::world::{World, iso};

/// AWS seconds until the new fleet of a failed update is gone.
const ROLLBACK_SECONDS: f64 = 60.0;
/// Part of a deployment after which the container has started.
const STARTED_AT: f64 = 0.6;

/// Lines for the log group of an endpoint.
struct Lines {
    region: String,
    endpoint: String,
    variant: String,
    instance: String,
    at: i64,
    text: Vec<String>,
}

pub(super) fn tick(world: &mut World, now: i64) -> bool {
    let rollback = world.millis(ROLLBACK_SECONDS);
    let real = world.endpoints_run;
    let mut written = Vec::new();
    let mut moved = false;
    for (region_name, region) in &mut world.regions {
        let mut gone = Vec::new();
        for (name, endpoint) in &mut region.sagemaker.endpoints {
            if !real {
                moved |= log_start(region_name, name, endpoint, now, &mut written);
            }
            // A sandbox that slept through several deadlines goes through all of them.
            while endpoint.operation.as_ref().is_some_and(|o| due(o, real, now)) {
                moved = true;
                if let Some(operation) = endpoint.operation.as_mut().filter(|_| real) {
                    // Real instances take the time that they take.
                    operation.until = now;
                }
                if finish(region_name, name, endpoint, rollback, &mut written) {
                    gone.push(name.clone());
                }
            }
        }
        for name in gone {
            region.sagemaker.endpoints.remove(&name);
            let arn_end = format!(":endpoint/{}", name.to_lowercase());
            region.sagemaker.tags.retain(|arn, _| !arn.ends_with(&arn_end));
        }
    }
    for lines in written {
        let group = format!("/aws/sagemaker/Endpoints/{}", lines.endpoint);
        let stream = format!("{}/{}", lines.variant, lines.instance);
        logs::append(world, &lines.region, &group, &stream, lines.at, &lines.text);
    }
    moved
}

/// Whether an operation is over: in time, and where instances run, when they serve or one of them failed.
fn due(operation: &Operation, real: bool, now: i64) -> bool {
    match (&operation.kind, &operation.readiness) {
        (Kind::Deploy { fails: None, .. } | Kind::Scale, Readiness::Waiting) if real => false,
        (Kind::Deploy { fails: None, .. } | Kind::Scale, Readiness::Failed(_)) if real => true,
        _ => operation.until <= now,
    }
}

/// The name of a variant's first instance: the same for all lines of one deployment.
fn instance(operation: &Operation) -> String {
    format!("i-{:017x}", operation.started)
}

/// The container's first lines, once.
fn log_start(region: &str, name: &str, endpoint: &mut Endpoint, now: i64, written: &mut Vec<Lines>) -> bool {
    let Some(operation) = &mut endpoint.operation else { return false };
    let Kind::Deploy { variants, .. } = &operation.kind else { return false };
    let at = operation.started + ((operation.until - operation.started) as f64 * STARTED_AT) as i64;
    if operation.logged || now < at {
        return false;
    }
    for variant in variants {
        written.push(Lines {
            region: region.to_owned(),
            endpoint: name.to_owned(),
            variant: variant.name.clone(),
            instance: instance(operation),
            at,
            text: vec![
                format!("{} container started from {}", iso(at), variant.resolved),
                format!("{} model {} is at /opt/ml/model", iso(at), variant.model),
                format!("{} waiting for GET /ping", iso(at)),
            ],
        });
    }
    operation.logged = true;
    true
}

/// Ends the operation that is due. True if the endpoint is gone.
fn finish(region: &str, name: &str, endpoint: &mut Endpoint, rollback: i64, written: &mut Vec<Lines>) -> bool {
    let Some(operation) = endpoint.operation.take() else { return false };
    let at = operation.until;
    endpoint.modified = at;
    let last_lines = |variants: &[super::Variant], text: &str| -> Vec<Lines> {
        let line = |v: &super::Variant| Lines {
            region: region.to_owned(),
            endpoint: name.to_owned(),
            variant: v.name.clone(),
            instance: instance(&operation),
            at,
            text: vec![format!("{} {text}", iso(at))],
        };
        variants.iter().map(line).collect()
    };
    match (&operation.kind, &operation.readiness) {
        (Kind::Delete, _) => return true,
        (Kind::RollBack, _) => endpoint.status = Status::InService,
        // Not documented: what is there goes on serving, and the reason can be read.
        (Kind::Scale, Readiness::Failed(reason)) => {
            endpoint.status = Status::InService;
            endpoint.failure = Some(reason.clone());
            endpoint.variants.iter_mut().for_each(|v| v.desired = v.current);
        }
        (Kind::Scale, _) => {
            endpoint.status = Status::InService;
            endpoint.variants.iter_mut().for_each(|v| v.current = v.desired);
        }
        (Kind::Deploy { fails: None, .. }, Readiness::Failed(reason)) => {
            unhealthy(endpoint, reason.clone(), at, rollback);
        }
        (Kind::Deploy { config, variants, deployment, fails: None }, readiness) => {
            if *readiness == Readiness::Waiting {
                written.extend(last_lines(variants, "GET /ping 200"));
            }
            endpoint.status = Status::InService;
            endpoint.config = config.clone();
            endpoint.variants = variants.clone();
            endpoint.variants.iter_mut().for_each(|v| v.current = v.desired);
            endpoint.last_deployment = deployment.clone();
        }
        (Kind::Deploy { variants, fails: Some(Failing::Unhealthy), .. }, _) => {
            written.extend(last_lines(variants, "ERROR RuntimeError: the model could not be loaded; GET /ping 503"));
            let variant = variants.first().map_or("", |v| v.name.as_str());
            let reason = format!(
                "The primary container for production variant {variant} did not pass the ping health check. Please check \
                 CloudWatch logs for this endpoint."
            );
            unhealthy(endpoint, reason, at, rollback);
        }
        // hashicorp/terraform-provider-aws#48997: InService, the old config, no reason.
        (Kind::Deploy { fails: Some(Failing::Silently), .. }, _) => endpoint.status = Status::InService,
    }
    false
}

/// A deployment failed: a new endpoint stays so, an updated one goes back.
fn unhealthy(endpoint: &mut Endpoint, reason: String, at: i64, rollback: i64) {
    endpoint.failure = Some(reason);
    if endpoint.status == Status::Creating {
        endpoint.status = Status::Failed;
        return;
    }
    endpoint.status = Status::RollingBack;
    let (kind, until) = (Kind::RollBack, at + rollback);
    endpoint.operation = Some(Operation { kind, started: at, until, logged: true, readiness: Readiness::Waiting });
}
