//! Endpoints on their way: what happens when an operation's time is over.

use super::{Endpoint, Failing, Kind, Operation, Status};
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
    let mut written = Vec::new();
    let mut moved = false;
    for (region_name, region) in &mut world.regions {
        let mut gone = Vec::new();
        for (name, endpoint) in &mut region.sagemaker.endpoints {
            moved |= log_start(region_name, name, endpoint, now, &mut written);
            // A sandbox that slept through several deadlines goes through all of them.
            while endpoint.operation.as_ref().is_some_and(|o| o.until <= now) {
                moved = true;
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
    let creating = endpoint.status == Status::Creating;
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
    match &operation.kind {
        Kind::Delete => return true,
        Kind::RollBack => endpoint.status = Status::InService,
        Kind::Scale => {
            endpoint.status = Status::InService;
            endpoint.variants.iter_mut().for_each(|v| v.current = v.desired);
        }
        Kind::Deploy { config, variants, deployment, fails: None } => {
            written.extend(last_lines(variants, "GET /ping 200"));
            endpoint.status = Status::InService;
            endpoint.config = config.clone();
            endpoint.variants = variants.clone();
            endpoint.variants.iter_mut().for_each(|v| v.current = v.desired);
            endpoint.last_deployment = deployment.clone();
        }
        Kind::Deploy { variants, fails: Some(Failing::Unhealthy), .. } => {
            written.extend(last_lines(variants, "ERROR RuntimeError: the model could not be loaded; GET /ping 503"));
            let variant = variants.first().map_or("", |v| v.name.as_str());
            endpoint.failure = Some(format!(
                "The primary container for production variant {variant} did not pass the ping health check. Please check \
                 CloudWatch logs for this endpoint."
            ));
            if creating {
                endpoint.status = Status::Failed;
            } else {
                endpoint.status = Status::RollingBack;
                let until = at + rollback;
                endpoint.operation = Some(Operation { kind: Kind::RollBack, started: at, until, logged: true });
            }
        }
        // hashicorp/terraform-provider-aws#48997: InService, the old config, no reason.
        Kind::Deploy { fails: Some(Failing::Silently), .. } => endpoint.status = Status::InService,
    }
    false
}
