//! One test or more for each rule, named after it, and the lifecycle.

use serde_json::{Value, json};

use crate::faults::{Fault, What};
use crate::testing::{DOCKER_V2, NOW, at, config, endpoint, image, object, refusal, role, world};
use crate::world::{Answer, World, call};

fn sm(world: &mut World, seconds: i64, operation: &str, input: Value) -> Answer {
    world.tick(at(seconds).now);
    call(world, &at(seconds), "sagemaker", operation, &input)
}

fn describe(world: &mut World, seconds: i64) -> Value {
    sm(world, seconds, "DescribeEndpoint", json!({"EndpointName": "e"})).unwrap()
}

fn update(config: &str) -> Value {
    json!({"EndpointName": "e", "EndpointConfigName": config})
}

fn ready() -> World {
    let mut world = world();
    endpoint(&mut world);
    world
}

fn fault(world: &mut World, what: What) {
    world.faults.0.push(Fault { what, times: 1, after: 0 });
}

fn model(world: &mut World, container: Value) -> Answer {
    let input = json!({"ModelName": "m", "ExecutionRoleArn": role(world), "PrimaryContainer": container});
    sm(world, 0, "CreateModel", input)
}

#[test]
fn name_taken() {
    let mut world = ready();
    let again = json!({"EndpointName": "e", "EndpointConfigName": "c1"});
    assert_eq!(
        refusal(sm(&mut world, 300, "CreateEndpoint", again)),
        "ValidationException: Cannot create already existing endpoint \
         \"arn:aws:sagemaker:us-east-1:123456789012:endpoint/e\"."
    );
    let container = json!({"Image": image(&mut world, "a", DOCKER_V2)});
    model(&mut world, container.clone()).unwrap();
    assert!(refusal(model(&mut world, container)).contains("Cannot create already existing model"));
}

#[test]
fn role_is_assumed() {
    let mut world = world();
    let image = image(&mut world, "a", DOCKER_V2);
    let arn = "arn:aws:iam::123456789012:role/none";
    let input = json!({"ModelName": "m", "ExecutionRoleArn": arn, "PrimaryContainer": {"Image": image}});
    assert!(refusal(sm(&mut world, 0, "CreateModel", input)).contains("Could not assume role"));
}

#[test]
fn image_exists() {
    let mut world = world();
    let image = image(&mut world, "a", DOCKER_V2).replace(":a", ":b");
    let refused = refusal(model(&mut world, json!({"Image": image})));
    assert_eq!(refused, format!("ValidationException: Requested image {image} not found."));
}

#[test]
fn manifest_type() {
    let mut world = world();
    for kind in ["application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"] {
        let image = image(&mut world, "a", kind);
        let refused = refusal(model(&mut world, json!({"Image": image})));
        assert!(refused.contains(&format!("Unsupported manifest media type {kind} for image {image}.")), "{refused}");
    }
}

#[test]
fn one_model_source() {
    let mut world = world();
    let image = image(&mut world, "a", DOCKER_V2);
    let source =
        |uri: &str| json!({"S3DataSource": {"S3Uri": uri, "S3DataType": "S3Prefix", "CompressionType": "None"}});
    let both = json!({"Image": image, "ModelDataUrl": "s3://b/m", "ModelDataSource": source("s3://b/m/")});
    assert!(refusal(model(&mut world, both)).contains("at the same time"));
    let bare = json!({"Image": image, "ModelDataSource": source("s3://b/m")});
    assert!(refusal(model(&mut world, bare)).contains("must end with a forward slash"));
}

#[test]
fn model_data() {
    let mut world = world();
    config(&mut world, "c1", "ml.g5.xlarge", 1);
    world.s3.buckets.clear();
    let create = json!({"EndpointName": "e", "EndpointConfigName": "c1"});
    let refused = refusal(sm(&mut world, 0, "CreateEndpoint", create.clone()));
    assert!(refused.contains("Could not access model data at s3://b/m.tar.gz"), "{refused}");
    object(&mut world, "m.tar.gz");
    sm(&mut world, 0, "CreateEndpoint", create).unwrap();
}

#[test]
fn variant() {
    let mut world = world();
    config(&mut world, "c1", "ml.g5.xlarge", 1);
    let variant =
        json!({"VariantName": "A", "ModelName": "c1", "InstanceType": "ml.g5.xlarge", "InitialInstanceCount": 1});
    let mut create = |variants: Value| {
        let input = json!({"EndpointConfigName": "c2", "ProductionVariants": variants});
        refusal(sm(&mut world, 0, "CreateEndpointConfig", input))
    };
    assert!(create(json!([variant, variant])).contains("Duplicate variant name"));
    let mut other = variant.clone();
    other["ModelName"] = json!("none");
    assert!(create(json!([other])).contains("Could not find model"));
    let mut other = variant.clone();
    other["InstanceType"] = Value::Null;
    assert!(create(json!([other])).contains("InstanceType and InitialInstanceCount are required"));
}

#[test]
fn config_in_use_and_model_in_use() {
    let mut world = ready();
    config(&mut world, "c2", "ml.g5.xlarge", 1);
    sm(&mut world, 300, "UpdateEndpoint", update("c2")).unwrap();
    for name in ["c1", "c2"] {
        let refused = refusal(sm(&mut world, 301, "DeleteEndpointConfig", json!({"EndpointConfigName": name})));
        assert!(refused.contains("uses it"), "{refused}");
        let refused = refusal(sm(&mut world, 301, "DeleteModel", json!({"ModelName": name})));
        assert!(refused.contains("uses it"), "{refused}");
    }
    sm(&mut world, 600, "DeleteEndpointConfig", json!({"EndpointConfigName": "c1"})).unwrap();
    sm(&mut world, 600, "DeleteModel", json!({"ModelName": "c1"})).unwrap();
    assert!(refusal(sm(&mut world, 600, "DescribeModel", json!({"ModelName": "c1"}))).contains("Could not find model"));
}

#[test]
fn endpoint_busy() {
    let mut world = ready();
    config(&mut world, "c2", "ml.g5.xlarge", 1);
    sm(&mut world, 300, "UpdateEndpoint", update("c2")).unwrap();
    let wanted = "ValidationException: Cannot update in-progress endpoint \
                  \"arn:aws:sagemaker:us-east-1:123456789012:endpoint/e\".";
    assert_eq!(refusal(sm(&mut world, 301, "UpdateEndpoint", update("c1"))), wanted);
    assert_eq!(refusal(sm(&mut world, 301, "DeleteEndpoint", json!({"EndpointName": "e"}))), wanted);
}

#[test]
fn scalable_variant() {
    let mut world = ready();
    let target = json!({
        "ServiceNamespace": "sagemaker", "ResourceId": "endpoint/e/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount", "MinCapacity": 1, "MaxCapacity": 2,
    });
    call(&mut world, &at(300), "application-autoscaling", "RegisterScalableTarget", &target).unwrap();
    config(&mut world, "retyped", "ml.g5.2xlarge", 1);
    config(&mut world, "same", "ml.g5.xlarge", 1);
    let refused = refusal(sm(&mut world, 300, "UpdateEndpoint", update("retyped")));
    assert!(refused.contains("The variant(s) \"[AllTraffic]\" must be deregistered as scalable targets"), "{refused}");
    sm(&mut world, 300, "UpdateEndpoint", update("same")).unwrap();
}

#[test]
fn quota_counts_both_fleets() {
    let mut world = ready();
    crate::quotas::set(&mut world, &json!({"ml.g5.xlarge": 2})).unwrap();
    config(&mut world, "c2", "ml.g5.xlarge", 2);
    assert_eq!(
        refusal(sm(&mut world, 300, "UpdateEndpoint", update("c2"))),
        "ResourceLimitExceeded: The account-level service limit 'ml.g5.xlarge for endpoint usage' is 2 Instances, with \
         current utilization of 1 Instances and a request delta of 2 Instances. Please use AWS Service Quotas to request an \
         increase for this quota. If AWS Service Quotas is not available, contact AWS support to request an increase for \
         this quota."
    );
    config(&mut world, "c3", "ml.g5.xlarge", 1);
    sm(&mut world, 300, "UpdateEndpoint", update("c3")).unwrap();
}

#[test]
fn guardrail_variants() {
    let mut world = ready();
    let variant =
        json!({"VariantName": "Other", "ModelName": "c1", "InstanceType": "ml.g5.xlarge", "InitialInstanceCount": 1});
    sm(&mut world, 300, "CreateEndpointConfig", json!({"EndpointConfigName": "c2", "ProductionVariants": [variant]}))
        .unwrap();
    let mut input = update("c2");
    let routing = json!({"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0});
    input["DeploymentConfig"] = json!({"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}});
    assert!(refusal(sm(&mut world, 300, "UpdateEndpoint", input)).contains("Deployment config is not supported"));
    sm(&mut world, 300, "UpdateEndpoint", update("c2")).unwrap();
}

#[test]
fn create_takes_its_time_and_says_what_goes_on() {
    let mut world = world();
    config(&mut world, "c1", "ml.g5.xlarge", 2);
    let create = json!({"EndpointName": "e", "EndpointConfigName": "c1", "Tags": [{"Key": "k", "Value": "v"}]});
    let arn = sm(&mut world, 0, "CreateEndpoint", create).unwrap()["EndpointArn"].clone();
    let early = describe(&mut world, 299);
    assert_eq!(early["EndpointStatus"], "Creating");
    assert_eq!(early["PendingDeploymentSummary"]["ProductionVariants"][0]["VariantStatus"][0]["Status"], "Creating");
    let late = describe(&mut world, 300);
    assert_eq!((&late["EndpointStatus"], &late["PendingDeploymentSummary"]), (&json!("InService"), &Value::Null));
    let variant = &late["ProductionVariants"][0];
    assert_eq!((&variant["CurrentInstanceCount"], &variant["DesiredInstanceCount"]), (&json!(2), &json!(2)));
    let images = &variant["DeployedImages"][0];
    assert!(images["SpecifiedImage"].as_str().unwrap().ends_with("/app:a"));
    assert!(images["ResolvedImage"].as_str().unwrap().contains("/app@sha256:"));
    let tags = sm(&mut world, 300, "ListTags", json!({"ResourceArn": arn})).unwrap();
    assert_eq!(tags["Tags"], json!([{"Key": "k", "Value": "v"}]));
    let group = json!({"logGroupName": "/aws/sagemaker/Endpoints/e"});
    let lines = call(&mut world, &at(300), "logs", "FilterLogEvents", &group).unwrap();
    assert_eq!(lines["events"].as_array().unwrap().len(), 4);
}

#[test]
fn an_unhealthy_create_fails_and_can_only_be_deleted() {
    let mut world = world();
    fault(&mut world, What::Unhealthy { endpoint: "e".into() });
    endpoint(&mut world);
    let failed = describe(&mut world, 300);
    assert_eq!(failed["EndpointStatus"], "Failed");
    assert!(failed["FailureReason"].as_str().unwrap().contains("did not pass the ping health check"));
    assert!(refusal(sm(&mut world, 300, "UpdateEndpoint", update("c1"))).contains("in state Failed"));
    sm(&mut world, 300, "DeleteEndpoint", json!({"EndpointName": "e"})).unwrap();
    assert_eq!(describe(&mut world, 319)["EndpointStatus"], "Deleting");
    let gone = refusal(sm(&mut world, 320, "DescribeEndpoint", json!({"EndpointName": "e"})));
    assert!(gone.contains("Could not find endpoint"), "{gone}");
}

#[test]
fn an_unhealthy_update_rolls_back_and_says_why() {
    let mut world = ready();
    config(&mut world, "c2", "ml.g5.xlarge", 1);
    fault(&mut world, What::Unhealthy { endpoint: "*".into() });
    sm(&mut world, 300, "UpdateEndpoint", update("c2")).unwrap();
    assert_eq!(describe(&mut world, 599)["EndpointStatus"], "Updating");
    assert_eq!(describe(&mut world, 600)["EndpointStatus"], "RollingBack");
    let back = describe(&mut world, 660);
    assert_eq!((&back["EndpointStatus"], &back["EndpointConfigName"]), (&json!("InService"), &json!("c1")));
    assert!(back["FailureReason"].is_string());
    // The next update clears the reason.
    sm(&mut world, 660, "UpdateEndpoint", update("c2")).unwrap();
    let done = describe(&mut world, 960);
    assert_eq!((&done["EndpointConfigName"], &done["FailureReason"]), (&json!("c2"), &Value::Null));
}

#[test]
fn a_silent_rollback_says_nothing() {
    let mut world = ready();
    config(&mut world, "c2", "ml.g5.xlarge", 1);
    fault(&mut world, What::SilentRollback { endpoint: "e".into() });
    sm(&mut world, 300, "UpdateEndpoint", update("c2")).unwrap();
    let back = describe(&mut world, 600);
    assert_eq!((&back["EndpointStatus"], &back["EndpointConfigName"]), (&json!("InService"), &json!("c1")));
    assert!(back["FailureReason"].is_null());
}

#[test]
fn a_scaled_fleet_is_retained_only_when_asked() {
    for (retain, exclude, wanted) in [(true, false, 3), (false, false, 1), (true, true, 1)] {
        let mut world = ready();
        config(&mut world, "c2", "ml.g5.xlarge", 1);
        let weights = json!([{"VariantName": "AllTraffic", "DesiredInstanceCount": 3}]);
        let scale = json!({"EndpointName": "e", "DesiredWeightsAndCapacities": weights});
        sm(&mut world, 300, "UpdateEndpointWeightsAndCapacities", scale).unwrap();
        assert_eq!(describe(&mut world, 420)["ProductionVariants"][0]["CurrentInstanceCount"], 3);
        let mut input = update("c2");
        input["RetainAllVariantProperties"] = json!(retain);
        if exclude {
            input["ExcludeRetainedVariantProperties"] = json!([{"VariantPropertyType": "DesiredInstanceCount"}]);
        }
        sm(&mut world, 420, "UpdateEndpoint", input).unwrap();
        assert_eq!(describe(&mut world, 720)["ProductionVariants"][0]["CurrentInstanceCount"], wanted);
    }
}

#[test]
fn a_sandbox_that_slept_ends_where_one_that_did_not() {
    let run = |ticks: &[i64]| {
        let mut world = ready();
        config(&mut world, "c2", "ml.g5.xlarge", 1);
        fault(&mut world, What::Unhealthy { endpoint: "e".into() });
        sm(&mut world, 300, "UpdateEndpoint", update("c2")).unwrap();
        ticks.iter().for_each(|s| {
            world.tick(NOW + s * 1000);
        });
        describe(&mut world, 1000)
    };
    assert_eq!(run(&[]), run(&[480, 500, 600, 640, 660, 900]));
}

#[test]
fn lists_are_filtered_and_paged() {
    let mut world = world();
    for i in 0..5 {
        config(&mut world, &format!("app-{i}"), "ml.g5.xlarge", 1);
    }
    config(&mut world, "other", "ml.g5.xlarge", 1);
    let first = sm(&mut world, 0, "ListModels", json!({"NameContains": "app", "MaxResults": 3})).unwrap();
    let next = json!({"NameContains": "app", "MaxResults": 3, "NextToken": first["NextToken"]});
    let second = sm(&mut world, 0, "ListModels", next).unwrap();
    let count = |page: &Value| page["Models"].as_array().unwrap().len();
    assert_eq!((count(&first), count(&second), &second["NextToken"]), (3, 2, &Value::Null));
}
