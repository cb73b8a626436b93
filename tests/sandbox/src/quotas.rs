//! Service Quotas: `<type> for endpoint usage` of SageMaker.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::input::{limit, page, text};
use crate::rules::Rule;
use crate::world::{Answer, ApiError, Ctx, World};

/// What Service Quotas refuses.
pub const RULES: &[Rule] = &[
    Rule {
        id: "quotas.unknown-code",
        source: "API model: GetServiceQuota, NoSuchResourceException",
        text: "A quota is found by its code, not by its name.",
    },
    Rule {
        id: "quotas.unknown-service",
        source: "API model: ListServiceQuotas, NoSuchResourceException",
        text: "A service that has no quotas here is refused.",
    },
];

/// Instances of each GPU type that may serve endpoints, unless a test says otherwise.
pub const DEFAULT_GPU: i64 = 20;

/// The service's state.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Values that differ from the default, by instance type.
    values: BTreeMap<String, i64>,
}

struct Quota {
    kind: String,
    code: String,
}

fn table() -> &'static [Quota] {
    static TABLE: OnceLock<Vec<Quota>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let rows = include_str!("../data/endpoint-quotas.csv").lines().skip(1);
        rows.filter_map(|row| {
            let fields: Vec<&str> = row.split(',').collect();
            let kind = (*fields.first()?).to_owned();
            let code = match fields.get(5) {
                Some(code) if !code.is_empty() => (*code).to_owned(),
                // A code in AWS's shape for a type whose real one is not published.
                _ => format!("L-{}", hex::encode_upper(&Sha256::digest(kind.as_bytes())[..4])),
            };
            Some(Quota { kind, code })
        })
        .collect()
    })
}

/// How many instances of a type may serve endpoints in a region. Types without a GPU have the same limit.
pub fn endpoint_limit(world: &World, region: &str, instance_type: &str) -> i64 {
    let set = world.regions.get(region).and_then(|r| r.quotas.values.get(instance_type).copied());
    set.unwrap_or(DEFAULT_GPU)
}

/// Sets quotas for a test: `{"ml.g5.xlarge": 4}`, or `{"region": ..., "quotas": {...}}` for another region than
/// us-east-1.
pub fn set(world: &mut World, wanted: &Value) -> Result<(), String> {
    let map =
        wanted.get("quotas").unwrap_or(wanted).as_object().ok_or("not an object of instance types and numbers")?;
    let mut values = BTreeMap::new();
    for (kind, value) in map {
        if !table().iter().any(|q| q.kind == *kind) {
            return Err(format!("{kind} has no endpoint quota in the sandbox's table"));
        }
        let number =
            value.as_i64().filter(|n| *n >= 0).ok_or_else(|| format!("{kind}: {value} is not a number from 0"))?;
        values.insert(kind.clone(), number);
    }
    let region = wanted.get("region").and_then(Value::as_str).unwrap_or("us-east-1");
    world.region(region).quotas.values.extend(values);
    Ok(())
}

/// One operation, input and output as in the API's JSON.
pub fn call(world: &mut World, ctx: &Ctx, operation: &str, input: &Value) -> Answer {
    let service = text(input, "ServiceCode");
    if service != "sagemaker" && matches!(operation, "ListServiceQuotas" | "ListAWSDefaultServiceQuotas") {
        let text = format!("The request failed because the specified service ({service}) does not exist.");
        return Err(ApiError::new("NoSuchResourceException", text));
    }
    let values = &world.region(&ctx.region).quotas.values;
    let show = |quota: &Quota, applied: bool| {
        // New accounts have no GPU instances for endpoints at all (aws/amazon-sagemaker-examples#307).
        let value = if applied { values.get(&quota.kind).copied().unwrap_or(DEFAULT_GPU) } else { 0 };
        json!({
            "ServiceCode": "sagemaker",
            "ServiceName": "Amazon SageMaker",
            "QuotaArn": ctx.arn("servicequotas", &format!("sagemaker/{}", quota.code)),
            "QuotaCode": quota.code,
            "QuotaName": format!("{} for endpoint usage", quota.kind),
            "Value": value as f64,
            "Unit": "None",
            "Adjustable": true,
            "GlobalQuota": false,
        })
    };
    match operation {
        "GetServiceQuota" | "GetAWSDefaultServiceQuota" => {
            let code = text(input, "QuotaCode");
            let found = table().iter().find(|q| service == "sagemaker" && q.code == code);
            let quota = found.ok_or_else(|| {
                ApiError::new(
                    "NoSuchResourceException",
                    "The request failed because the specified quota does not exist.",
                )
            })?;
            Ok(json!({"Quota": show(quota, operation == "GetServiceQuota")}))
        }
        "ListServiceQuotas" | "ListAWSDefaultServiceQuotas" => {
            let applied = operation == "ListServiceQuotas";
            let all = table().iter().filter(|q| input["QuotaCode"].as_str().is_none_or(|code| q.code == code));
            let all = all.map(|q| show(q, applied)).collect();
            let size = limit(input, "MaxResults", 100);
            let (items, next) = page(all, size, &input["NextToken"], "InvalidPaginationTokenException")?;
            let mut answer = json!({"Quotas": items});
            if let Some(next) = next {
                answer["NextToken"] = json!(next);
            }
            Ok(answer)
        }
        other => Err(ApiError::new(
            "UnknownOperationException",
            format!("the sandbox has no Service Quotas operation {other}"),
        )),
    }
}
