//! The model version: a name that changes exactly when the model or the endpoint config does.

use serde_json::{Map as Object, Value, json};
use sha2::{Digest, Sha256};

use super::evaluate::{Evaluated, Pseudo, canonical, evaluate, reference};
use super::{Rendered, create_only, ids, properties_mut};
use crate::cloud::Map;
use crate::error::{Error, Result};

/// Template and parameters of the service stack as they are deployed.
#[derive(Debug, Clone, Copy)]
pub struct Deployed<'a> {
    /// GetTemplate, parsed.
    pub template: &'a Value,
    /// Parameters of DescribeStacks.
    pub parameters: &'a Map,
}

/// The version that [`settle`] chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// `<label>-<hash8>-<n>`
    pub name: String,
    /// Eight hex digits.
    pub hash: String,
    /// Whether the endpoint gets another model and config.
    pub new: bool,
    /// Whether the update applies `InitialInstanceCount` instead of keeping the live number of instances.
    pub applies_count: bool,
}

/// Eight hex digits over the model and the endpoint config as they would be created: filled in, canonical,
/// without names and tags, and without the initial count while a scalable target decides it.
///
/// A reference to another resource stands for that resource's create-only properties, for when one of them
/// changes, the resource is replaced and with it what refers to it.
pub fn version_hash(template: &Value, parameters: &Map, pseudo: &Pseudo) -> Result<String> {
    let evaluated = evaluate(template, parameters, pseudo)?;
    Ok(hash(&bodies(&evaluated, autoscaled(&evaluated))?))
}

/// `<label>-<hash8>-<n>`
pub fn model_version(label: &str, hash: &str, n: u64) -> String {
    format!("{label}-{hash}-{n}")
}

/// The parts of a model version; `None` for a name that was not made by [`model_version`].
pub fn parse_model_version(version: &str) -> Option<(&str, &str, u64)> {
    let (rest, n) = version.rsplit_once('-')?;
    let (label, hash) = rest.rsplit_once('-')?;
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let made = !label.is_empty()
        && hash.len() == 8
        && hash.bytes().all(lower_hex)
        && n.bytes().all(|b| b.is_ascii_digit())
        && (n == "0" || !n.starts_with('0'));
    if made { Some((label, hash, n.parse().ok()?)) } else { None }
}

/// Fits a rendering to what is deployed: sets `ModelVersion`, and where nothing moves the endpoint keeps
/// everything that alone is no difference.
///
/// - Same bodies, same label: the deployed `ModelVersion`, `InitialInstanceCount`, `RetainDesiredCount` and
///   deployment properties stay. The count is not compared while autoscaling is wanted, so switching
///   autoscaling on does not replace a config.
/// - Otherwise the version is `label-hash-n`, and the live number of instances is kept unless autoscaling is
///   off and the configured count is another one, or autoscaling was on until now.
pub fn settle(
    desired: &mut Rendered,
    parameters: &mut Map,
    deployed: Option<Deployed<'_>>,
    pseudo: &Pseudo,
    label: &str,
    n: u64,
) -> Result<Version> {
    let wanted = evaluate(&desired.value, parameters, pseudo)?;
    let scaled = autoscaled(&wanted);
    let wanted_bodies = bodies(&wanted, scaled)?;
    let hash = hash(&wanted_bodies);
    let mut applies_count = false;
    if let Some(deployed) = deployed {
        let live = evaluate(deployed.template, deployed.parameters, pseudo)?;
        let live_version = deployed.parameters.get("ModelVersion");
        let same_label = live_version.and_then(|v| parse_model_version(v)).is_some_and(|(l, ..)| l == label);
        // A stack without the two resources (made by hand, or failed half-way) has no version to keep.
        let live_bodies = bodies(&live, scaled).ok();
        if let (true, Some(version)) = (same_label && live_bodies.as_ref() == Some(&wanted_bodies), live_version) {
            for name in ["ModelVersion", "InitialInstanceCount", "RetainDesiredCount"] {
                if let Some(value) = deployed.parameters.get(name) {
                    parameters.insert(name.to_owned(), value.clone());
                }
            }
            let mut template = desired.value.clone();
            keep_deployment_properties(deployed.template, &mut template);
            if template != desired.value {
                *desired = Rendered::new(template);
            }
            let hash = parse_model_version(version).map_or(hash, |(_, h, _)| h.to_owned());
            return Ok(Version { name: version.clone(), hash, new: false, applies_count: false });
        }
        applies_count = !scaled && live_bodies.is_some() && (autoscaled(&live) || count(&live) != count(&wanted));
    }
    let name = model_version(label, &hash, n);
    parameters.insert("ModelVersion".into(), name.clone());
    parameters.insert("RetainDesiredCount".into(), (!applies_count).to_string());
    Ok(Version { name, hash, new: true, applies_count })
}

/// Renders the endpoint's `DeploymentConfig`, `RetainAllVariantProperties`, `ExcludeRetainedVariantProperties`
/// and `RetainDeploymentConfig` as they are deployed: they say how an update is done, so alone they are no
/// difference. For updates that leave EndpointConfigName as it is. A deployed value that needs a condition or
/// parameter unknown to `desired` is left out.
pub fn keep_deployment_properties(deployed: &Value, desired: &mut Value) {
    const HOW: [&str; 4] = [
        "DeploymentConfig",
        "RetainAllVariantProperties",
        "ExcludeRetainedVariantProperties",
        "RetainDeploymentConfig",
    ];
    let live = deployed.get("Resources").and_then(|r| r.get(ids::ENDPOINT)).and_then(|e| e.get("Properties"));
    let Some(live) = live.and_then(Value::as_object) else { return };
    for name in HOW {
        let value = live.get(name).cloned();
        if value.as_ref().is_some_and(|v| !stands_in(v, desired)) {
            continue;
        }
        let Some(properties) = properties_mut(desired, ids::ENDPOINT) else { return };
        match value {
            Some(value) => {
                properties.insert(name.to_owned(), value);
            }
            None => {
                properties.shift_remove(name);
            }
        }
    }
}

/// Whether everything an expression names is defined in the template.
fn stands_in(value: &Value, template: &Value) -> bool {
    let defined = |section: &str, name: &str| template.get(section).is_some_and(|s| s.get(name).is_some());
    match value {
        Value::Object(o) => o.iter().all(|(key, argument)| match (key.as_str(), argument) {
            ("Ref", Value::String(name)) => {
                name.starts_with("AWS::") || defined("Parameters", name) || defined("Resources", name)
            }
            ("Fn::If", Value::Array(items)) => match items.split_first() {
                Some((Value::String(condition), values)) => {
                    defined("Conditions", condition) && values.iter().all(|v| stands_in(v, template))
                }
                _ => false,
            },
            ("Fn::Sub" | "Fn::GetAtt", _) => false,
            (_, argument) => stands_in(argument, template),
        }),
        Value::Array(items) => items.iter().all(|v| stands_in(v, template)),
        _ => true,
    }
}

fn autoscaled(evaluated: &Evaluated) -> bool {
    evaluated.resources.contains_key(ids::SCALABLE_TARGET)
}

fn count(evaluated: &Evaluated) -> Option<Value> {
    let config = evaluated.resources.get(ids::ENDPOINT_CONFIG)?;
    config.properties["ProductionVariants"][0].get("InitialInstanceCount").map(canonical)
}

fn hash(bodies: &Value) -> String {
    hex::encode(Sha256::digest(bodies.to_string()))[..8].to_owned()
}

/// Model and endpoint config, canonical, without what does not count.
fn bodies(evaluated: &Evaluated, without_count: bool) -> Result<Value> {
    let mut bodies = Object::new();
    for (id, name) in [(ids::MODEL, "ModelName"), (ids::ENDPOINT_CONFIG, "EndpointConfigName")] {
        let resource = evaluated
            .resources
            .get(id)
            .ok_or_else(|| Error::failed(format!("the service template has no resource {id}")))?;
        let mut properties = resource.properties.clone();
        if let Some(properties) = properties.as_object_mut() {
            properties.shift_remove(name);
            properties.shift_remove("Tags");
            if let Some(Value::Array(variants)) = properties.get_mut("ProductionVariants").filter(|_| without_count) {
                for variant in variants.iter_mut().filter_map(Value::as_object_mut) {
                    variant.shift_remove("InitialInstanceCount");
                }
            }
        }
        bodies.insert(id.to_owned(), identified(&properties, evaluated));
    }
    Ok(canonical(&Value::Object(bodies)))
}

/// References to resources other than the two with the create-only properties of what they refer to.
fn identified(value: &Value, evaluated: &Evaluated) -> Value {
    if let Some(id) = reference(value) {
        return match evaluated.resources.get(id) {
            Some(target) if id != ids::MODEL && id != ids::ENDPOINT_CONFIG => {
                let identity: Object<String, Value> = create_only::of(&target.kind)
                    .iter()
                    .filter_map(|name| Some(((*name).to_owned(), target.properties.get(*name)?.clone())))
                    .collect();
                json!({ "to": value, "kind": target.kind, "identity": identity })
            }
            _ => value.clone(),
        };
    }
    match value {
        Value::Object(o) => Value::Object(o.iter().map(|(k, v)| (k.clone(), identified(v, evaluated))).collect()),
        Value::Array(items) => Value::Array(items.iter().map(|v| identified(v, evaluated)).collect()),
        scalar => scalar.clone(),
    }
}
