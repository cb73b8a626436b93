//! Which instances the state wants, and what their phases mean to it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::Value;

use super::artifact::{self, Source};
use super::fleet::Variant;
use super::instances::Phase;
use super::{Endpoint, Kind, Readiness, models};
use crate::input::{string_map, text};
use crate::world::World;

/// Seconds that a container has to pass its health check (API model: ProductionVariant.
/// ContainerStartupHealthCheckTimeoutInSeconds gives the range; the default is SageMaker's, 4 minutes in practice).
const STARTUP: u64 = 240;

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub region: String,
    pub endpoint: String,
    pub variant: String,
    /// When the fleet was resolved: an update makes other instances of the same names.
    pub since: i64,
    pub index: i64,
}

/// What it is made of.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// As `i-0123456789abcdef0`.
    pub instance: String,
    /// As SageMaker resolved it.
    pub image: String,
    pub instance_type: String,
    /// None where the model has no data.
    pub source: Option<Source>,
    pub environment: BTreeMap<String, String>,
    pub startup: Duration,
}

/// All instances that should run now.
pub(super) fn list(world: &World) -> HashMap<Key, Wanted> {
    let mut all = HashMap::new();
    for (region, state) in &world.regions {
        for (name, endpoint) in &state.sagemaker.endpoints {
            for (variant, count) in fleets(endpoint) {
                let Some(model) = state.sagemaker.models.get(&variant.model) else { continue };
                let Some(container) = models::containers(&model.input).into_iter().next() else { continue };
                for index in 0..count {
                    let key = Key {
                        region: region.clone(),
                        endpoint: name.clone(),
                        variant: variant.name.clone(),
                        since: variant.since,
                        index,
                    };
                    let wanted = Wanted {
                        instance: format!("i-{:013x}{:04x}", variant.since, index),
                        image: variant.resolved.clone(),
                        instance_type: variant.instance_type.clone(),
                        source: source(world, container),
                        environment: string_map(&container["Environment"]),
                        startup: Duration::from_secs(variant.startup.unwrap_or(STARTUP)),
                    };
                    all.insert(key, wanted);
                }
            }
        }
    }
    all
}

/// The variants of an endpoint and how many instances each has to have now.
fn fleets(endpoint: &Endpoint) -> Vec<(&Variant, i64)> {
    let kind = endpoint.operation.as_ref().map(|o| &o.kind);
    let live = endpoint.variants.iter().map(|v| match kind {
        Some(Kind::Delete) => (v, 0),
        // Nothing ends before the operation does.
        Some(Kind::Scale) => (v, v.current.max(v.desired)),
        _ => (v, v.current),
    });
    let coming = match kind {
        // One that a test ordered to fail is not started at all.
        Some(Kind::Deploy { variants, fails: None, .. }) => variants.as_slice(),
        _ => &[],
    };
    live.chain(coming.iter().map(|v| (v, v.desired))).collect()
}

fn source(world: &World, container: &Value) -> Option<Source> {
    let uri = text(container, "ModelDataUrl");
    if !uri.is_empty() {
        return artifact::find(world, uri, false, true);
    }
    let source = &container["ModelDataSource"]["S3DataSource"];
    let prefix = source["S3DataType"] == "S3Prefix";
    artifact::find(world, text(source, "S3Uri"), prefix, source["CompressionType"] != "None")
}

/// Notes how the instances of running operations are. True if anything changed.
pub(super) fn tell(world: &mut World, phases: &HashMap<Key, Phase>) -> bool {
    let mut changed = false;
    for (region, state) in &mut world.regions {
        for (name, endpoint) in &mut state.sagemaker.endpoints {
            let wanted: Vec<Key> = match endpoint.operation.as_ref().map(|o| &o.kind) {
                Some(Kind::Deploy { variants, fails: None, .. }) => keys(region, name, variants),
                Some(Kind::Scale) => keys(region, name, &endpoint.variants),
                _ => continue,
            };
            let Some(operation) = &mut endpoint.operation else { continue };
            if operation.readiness != Readiness::Waiting {
                continue;
            }
            let phase = |key: &Key| phases.get(key).unwrap_or(&Phase::Starting);
            let failed = wanted.iter().find_map(|key| match phase(key) {
                Phase::Failed(reason) => Some(reason.clone()),
                _ => None,
            });
            if let Some(reason) = failed {
                operation.readiness = Readiness::Failed(reason);
                changed = true;
            } else if wanted.iter().all(|key| matches!(phase(key), Phase::Ready(_))) {
                operation.readiness = Readiness::Ready;
                changed = true;
            }
        }
    }
    changed
}

fn keys(region: &str, endpoint: &str, variants: &[Variant]) -> Vec<Key> {
    let of = |v: &Variant| {
        let (region, endpoint, variant, since) = (region.to_owned(), endpoint.to_owned(), v.name.clone(), v.since);
        (0..v.desired).map(move |index| Key {
            region: region.clone(),
            endpoint: endpoint.clone(),
            variant: variant.clone(),
            since,
            index,
        })
    };
    variants.iter().flat_map(of).collect()
}
