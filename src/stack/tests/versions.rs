use proptest::prelude::*;
use serde_json::json;

use super::*;

fn hash_of(template: &Value, parameters: &Map) -> String {
    version_hash(template, parameters, &pseudo()).unwrap()
}

fn default_hash() -> String {
    let settings = settings("");
    hash_of(&service(&settings).value, &parameters(&settings))
}

#[test]
fn versions_are_taken_apart_again() {
    assert_eq!(model_version("sdxl-v2", "0a1b2c3d", 12), "sdxl-v2-0a1b2c3d-12");
    assert_eq!(parse_model_version("sdxl-v2-0a1b2c3d-12"), Some(("sdxl-v2", "0a1b2c3d", 12)));
    for other in
        ["sample", "v1-0a1b2c3-1", "v1-0a1b2c3d-", "v1-0A1B2C3D-1", "-0a1b2c3d-1", "v1-0a1b2c3d-01", "0a1b2c3d-1", ""]
    {
        assert_eq!(parse_model_version(other), None, "{other}");
    }
}

/// Parameters that reach neither the model nor the endpoint config.
const OUTSIDE: [&str; 22] = [
    "KmsKeyArn",
    "ModelVersion",
    "ModelDataPrefix",
    "RepositoryName",
    "RetainDesiredCount",
    "SageMakerAutoScaling",
    "MinCapacity",
    "MaxCapacity",
    "ScalingPolicy",
    "TargetConcurrency",
    "ScaleOutCooldown",
    "ScaleInCooldown",
    "LambdaPackageS3Key",
    "LambdaUrlAuthType",
    "LambdaUrlMode",
    "LambdaArchitecture",
    "LambdaMemory",
    "LambdaTimeout",
    "LambdaReservedConcurrency",
    "LogRetentionInDays",
    "LambdaRoleArn",
    "PermissionsBoundary",
];

#[test]
fn every_parameter_is_inside_or_outside() {
    let settings = settings("");
    let template = service(&settings).value;
    let before = default_hash();
    for (name, value) in parameters(&settings) {
        // AppName reaches the two through their names alone.
        let outside = OUTSIDE.contains(&name.as_str()) || name == "AppName";
        // Autoscaling takes the initial count out of the hash; `settle` compares with and without it.
        if name == "SageMakerAutoScaling" {
            continue;
        }
        let mut changed = parameters(&settings);
        let other = match name.as_str() {
            "ModelPackaging" => "uncompressed".to_owned(),
            "ScalingPolicy" | "NetworkIsolation" | "RetainDesiredCount" => "false".to_owned(),
            "LambdaUrlAuthType" => "NONE".to_owned(),
            "LambdaUrlMode" => "buffered".to_owned(),
            _ => format!("{value}7"),
        };
        changed.insert(name.clone(), other);
        assert_eq!(hash_of(&template, &changed) == before, outside, "{name}");
    }
}

#[test]
fn the_initial_count_counts_only_without_autoscaling() {
    let hash = |yaml: &str| {
        let settings = settings(yaml);
        hash_of(&service(&settings).value, &parameters(&settings))
    };
    assert_ne!(hash("endpoint: {instances: 2}"), default_hash());
    let on = "autoscaling: {enabled: true}";
    assert_eq!(hash(on), hash(&format!("{on}\nendpoint: {{instances: 2}}")));
}

#[test]
fn a_role_that_will_be_replaced_is_a_change() {
    // The model's body only says "the role's ARN", but another path makes another role.
    let settings = settings("");
    let mut other = parameters(&settings);
    other.insert("RolePath".into(), "/apps/".into());
    assert_ne!(hash_of(&service(&settings).value, &other), default_hash());
}

#[test]
fn names_and_tags_are_left_out() {
    let settings = settings("");
    let mut template = service(&settings).value;
    for (id, name) in [(ids::MODEL, "ModelName"), (ids::ENDPOINT_CONFIG, "EndpointConfigName")] {
        template["Resources"][id]["Properties"][name] = json!("another");
        template["Resources"][id]["Properties"]["Tags"] = json!([{"Key": "k", "Value": "v"}]);
    }
    assert_eq!(hash_of(&template, &parameters(&settings)), default_hash());
}

/// Paths of every scalar and every empty place to add to, below both bodies and below the rest.
fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(o) => o.iter().for_each(|(k, v)| leaves(v, &format!("{at}/{}", k.replace('/', "~1")), found)),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, v)| leaves(v, &format!("{at}/{i}"), found)),
        _ => found.push(at.to_owned()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_change_of_either_body_changes_the_hash(pick in any::<prop::sample::Index>(), word in "[a-z]{9}") {
        let settings = settings("endpoint: {environment: {A: b}, vpc: {subnets: [s-1, s-2], security_groups: [g-1]}, volume_gb: 9}");
        let parameters = parameters(&settings);
        // Filled in first, so that every leaf is one that is sent.
        let template = json!({ "Resources": literal(&service(&settings).value, &parameters) });
        let before = hash_of(&template, &Map::new());
        let mut inside = Vec::new();
        for id in [ids::MODEL, ids::ENDPOINT_CONFIG] {
            leaves(&template["Resources"][id]["Properties"], &format!("/Resources/{id}/Properties"), &mut inside);
        }
        inside.retain(|p| !p.ends_with("Properties/ModelName") && !p.ends_with("EndpointConfigName") && !p.contains("Fn::") );
        let path = pick.get(&inside);
        let mut changed = template.clone();
        set(&mut changed, path, json!(word));
        prop_assert_ne!(hash_of(&changed, &Map::new()), before, "{}", path);
    }

    #[test]
    fn changes_elsewhere_do_not(pick in any::<prop::sample::Index>(), word in "[a-z]{9}") {
        let settings = settings("autoscaling: {enabled: true}\nlambda: {url: none}");
        let parameters = parameters(&settings);
        let template = json!({ "Resources": literal(&service(&settings).value, &parameters) });
        let before = hash_of(&template, &Map::new());
        let mut outside = Vec::new();
        for (id, resource) in template["Resources"].as_object().unwrap() {
            if id != ids::MODEL && id != ids::ENDPOINT_CONFIG {
                leaves(&resource["Properties"], &format!("/Resources/{id}/Properties"), &mut outside);
            }
        }
        // References stay references, and the role's path is its identity.
        outside.retain(|p| !p.contains("Fn::") && !p.ends_with("/Ref") && !p.ends_with("ExecutionRole/Properties/Path"));
        let path = pick.get(&outside);
        let mut changed = template.clone();
        set(&mut changed, path, json!(word));
        prop_assert_eq!(hash_of(&changed, &Map::new()), before, "{}", path);
    }
}

/// The resources as they are sent, as a template without parameters.
fn literal(template: &Value, parameters: &Map) -> Value {
    let evaluated = evaluate(template, parameters, &pseudo()).unwrap();
    evaluated.resources.into_iter().map(|(id, r)| (id, json!({"Type": r.kind, "Properties": r.properties}))).collect()
}

/// What `settle` makes of a config on top of another.
fn settled(before: Option<&str>, after: &str) -> (Version, Map, Option<Vec<ResourceChange>>) {
    let deployed = before.map(|yaml| {
        let settings = settings(yaml);
        let (mut rendered, mut parameters) = (service(&settings), parameters(&settings));
        settle(&mut rendered, &mut parameters, None, &pseudo(), "v1", 1).unwrap();
        (rendered.value, parameters)
    });
    let settings = settings(after);
    let (mut rendered, mut parameters) = (service(&settings), parameters(&settings));
    let label = settings.config.models.version.clone();
    let on = deployed.as_ref().map(|(template, parameters)| Deployed { template, parameters });
    let version = settle(&mut rendered, &mut parameters, on, &pseudo(), &label, 2).unwrap();
    let changes = deployed.map(|(template, old)| {
        let old = evaluate(&template, &old, &pseudo()).unwrap();
        let new = evaluate(&rendered.value, &parameters, &pseudo()).unwrap();
        diff(Some(&old), &new)
    });
    (version, parameters, changes)
}

#[test]
fn a_new_stack_gets_its_version() {
    let (version, parameters, _) = settled(None, "");
    assert!(version.new && !version.applies_count);
    assert_eq!(parse_model_version(&version.name), Some(("v1", version.hash.as_str(), 2)));
    assert_eq!(parameters["ModelVersion"], version.name);
    assert_eq!(version.hash, default_hash());
}

#[test]
fn nothing_changed_keeps_the_live_version() {
    let (version, parameters, changes) = settled(Some(""), "");
    assert!(!version.new);
    assert!(version.name.ends_with("-1"));
    assert_eq!(parameters["ModelVersion"], version.name);
    assert_eq!(changes.unwrap(), []);
}

#[test]
fn another_label_or_body_is_another_version() {
    for after in ["models: {version: v2}", "endpoint: {startup_timeout: 900}", "endpoint: {environment: {A: b}}"] {
        let (version, _, changes) = settled(Some(""), after);
        assert!(version.new && version.name.ends_with("-2"), "{after}");
        let replaced: Vec<_> = changes.unwrap().into_iter().filter(|c| c.action == Action::Replace).collect();
        assert!(replaced.iter().all(|c| c.retained), "{after}");
        assert_eq!(replaced.len(), 2, "{after}");
    }
}

#[test]
fn switching_autoscaling_replaces_no_config() {
    let on = "autoscaling: {enabled: true}";
    for (before, after) in [("", on), (on, "")] {
        let (version, _, changes) = settled(Some(before), after);
        assert!(!version.new);
        let touched: Vec<_> = changes.unwrap().into_iter().map(|c| c.logical_id).collect();
        assert_eq!(touched.len(), 2, "{touched:?}");
        assert!(touched.iter().all(|id| id == ids::SCALABLE_TARGET || id == ids::SCALING_POLICY), "{touched:?}");
    }
}

#[test]
fn a_count_under_autoscaling_is_kept_as_deployed() {
    let on = "autoscaling: {enabled: true}";
    let (version, parameters, changes) = settled(Some(on), &format!("{on}\nendpoint: {{instances: 3}}"));
    assert!(!version.new);
    assert_eq!(parameters["InitialInstanceCount"], "1");
    assert_eq!(changes.unwrap(), []);
}

#[test]
fn another_count_without_autoscaling_is_applied() {
    let (version, parameters, _) = settled(Some(""), "endpoint: {instances: 3}");
    assert!(version.new && version.applies_count);
    assert_eq!(parameters["RetainDesiredCount"], "false");
    let (version, parameters, _) = settled(Some(""), "endpoint: {startup_timeout: 900}");
    assert!(version.new && !version.applies_count);
    assert_eq!(parameters["RetainDesiredCount"], "true");
}

#[test]
fn how_the_last_update_was_done_is_no_difference() {
    // After an update that applied the count, the next run has nothing to do.
    let settings = settings("endpoint: {instances: 3}");
    let (mut rendered, mut old) = (service(&settings), parameters(&settings));
    settle(&mut rendered, &mut old, None, &pseudo(), "v1", 1).unwrap();
    old.insert("RetainDesiredCount".into(), "false".into());
    let policy = json!({"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE"}}});
    rendered.value["Resources"][ids::ENDPOINT]["Properties"]["DeploymentConfig"] = policy.clone();
    let deployed = rendered.value;

    let (mut next, mut parameters) = (service(&settings), parameters(&settings));
    let on = Deployed { template: &deployed, parameters: &old };
    let version = settle(&mut next, &mut parameters, Some(on), &pseudo(), "v1", 2).unwrap();
    assert!(!version.new);
    assert_eq!(next.value["Resources"][ids::ENDPOINT]["Properties"]["DeploymentConfig"], policy);
    assert_eq!(parse(&next.body).unwrap(), next.value);
    let old = evaluate(&deployed, &old, &pseudo()).unwrap();
    assert_eq!(diff(Some(&old), &evaluate(&next.value, &parameters, &pseudo()).unwrap()), []);
}

#[test]
fn deployed_expressions_are_kept_only_where_they_mean_something() {
    let mut desired = service(&settings("")).value;
    let mut deployed = desired.clone();
    let endpoint = &mut deployed["Resources"][ids::ENDPOINT]["Properties"];
    endpoint["DeploymentConfig"] = json!({"Fn::If": ["UnknownHere", 1, 2]});
    endpoint["RetainAllVariantProperties"] = json!(false);
    endpoint.as_object_mut().unwrap().shift_remove("ExcludeRetainedVariantProperties");
    keep_deployment_properties(&deployed, &mut desired);
    let endpoint = &desired["Resources"][ids::ENDPOINT]["Properties"];
    assert_eq!(endpoint.get("DeploymentConfig"), None);
    assert_eq!(endpoint["RetainAllVariantProperties"], false);
    assert_eq!(endpoint.get("ExcludeRetainedVariantProperties"), None);
}

#[test]
fn a_template_made_elsewhere_has_no_version_to_keep() {
    let foreign = json!({"Resources": {"X": {"Type": "AWS::S3::Bucket"}}});
    let settings = settings("");
    let (mut rendered, mut parameters) = (service(&settings), parameters(&settings));
    let on = Deployed { template: &foreign, parameters: &Map::new() };
    let version = settle(&mut rendered, &mut parameters, Some(on), &pseudo(), "v1", 5).unwrap();
    assert!(version.new && !version.applies_count && version.name.ends_with("-5"));
}
