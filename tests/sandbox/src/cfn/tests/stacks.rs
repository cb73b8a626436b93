//! Stacks from beginning to end.

use serde_json::json;

use super::services::{Ending, calls, ending, has, serving};
use super::*;

#[test]
fn a_stack_is_made_in_the_order_of_its_dependencies() {
    let mut bed = Bed::new();
    assert_eq!(bed.create("app", &service("a")), "CREATE_COMPLETE");
    assert_eq!(
        bed.events("app"),
        [
            "app CREATE_IN_PROGRESS",
            "Model CREATE_IN_PROGRESS",
            "Model CREATE_IN_PROGRESS",
            "Model CREATE_COMPLETE",
            "Config CREATE_IN_PROGRESS",
            "Config CREATE_IN_PROGRESS",
            "Config CREATE_COMPLETE",
            "Endpoint CREATE_IN_PROGRESS",
            "Endpoint CREATE_IN_PROGRESS",
            "Endpoint CREATE_COMPLETE",
            "app CREATE_COMPLETE",
        ]
    );
    assert_eq!(serving("app"), "app-a");
    let stack = bed.stack("app");
    assert_eq!(stack["Outputs"][0]["OutputValue"], "arn:aws:sagemaker:us-east-1:123456789012:endpoint/app");
}

#[test]
fn a_failed_create_is_taken_back() {
    let mut bed = Bed::new();
    ending(Ending::Failed("The primary container did not pass the ping health check.".to_owned()));
    assert_eq!(bed.create("app", &service("a")), "ROLLBACK_COMPLETE");
    assert!(bed.reason("app", "Endpoint", "CREATE_FAILED").contains("did not pass the ping health check"));
    assert_eq!(
        bed.reason("app", "app", "ROLLBACK_IN_PROGRESS"),
        "The following resource(s) failed to create: [Endpoint]. Rollback requested by user."
    );
    let events = bed.events("app");
    let place = |wanted: &str| events.iter().position(|event| event == wanted).expect(wanted);
    assert!(place("Endpoint DELETE_COMPLETE") < place("Config DELETE_IN_PROGRESS"));
    assert!(place("Config DELETE_COMPLETE") < place("Model DELETE_IN_PROGRESS"));
    assert!(!has("Endpoint", "app") && !has("Model", "app-a") && !has("EndpointConfig", "app-a"));
}

#[test]
fn siblings_of_a_failure_are_cancelled() {
    let mut bed = Bed::new();
    bed.fault("Repository", "no");
    assert_eq!(bed.create("store", &storage("some-bucket")), "ROLLBACK_COMPLETE");
    assert_eq!(bed.reason("store", "Repository", "CREATE_FAILED"), "no");
    assert_eq!(bed.reason("store", "Bucket", "CREATE_FAILED"), "Resource creation cancelled");
    assert!(bed.world.s3.buckets.is_empty());
}

#[test]
fn without_rollback_a_failed_create_stays_and_can_be_rolled_back_later() {
    let mut bed = Bed::new();
    bed.fault("Repository", "no");
    bed.ok(
        "CreateStack",
        json!({"StackName": "store", "TemplateBody": storage("some-bucket").to_string(), "DisableRollback": true}),
    );
    assert_eq!(bed.settle("store"), "CREATE_FAILED");
    assert!(bed.world.s3.buckets.contains_key("some-bucket"));
    let id = text(&bed.stack("store"), "StackId").to_owned();
    bed.ok("RollbackStack", json!({"StackName": "store"}));
    assert_eq!(bed.settle(&id), "DELETE_COMPLETE");
    assert!(bed.world.s3.buckets.is_empty());
}

#[test]
fn on_failure_delete_leaves_nothing() {
    let mut bed = Bed::new();
    bed.fault("Repository", "no");
    let made = bed.ok(
        "CreateStack",
        json!({"StackName": "store", "TemplateBody": storage("some-bucket").to_string(), "OnFailure": "DELETE"}),
    );
    assert_eq!(bed.settle(text(&made, "StackId")), "DELETE_COMPLETE");
}

#[test]
fn a_replacement_is_made_before_the_old_one_is_deleted() {
    let mut bed = Bed::new();
    bed.create("app", &service("a"));
    assert_eq!(bed.update("app", &service("b")), "UPDATE_COMPLETE");
    assert_eq!(serving("app"), "app-b");
    assert!(has("Model", "app-b") && !has("Model", "app-a") && !has("EndpointConfig", "app-a"));
    let calls = calls();
    let place = |wanted: &str| calls.iter().position(|call| call == wanted).expect(wanted);
    assert!(place("UpdateEndpoint app") < place("DeleteEndpointConfig app-a"));
    assert!(place("DeleteEndpointConfig app-a") < place("DeleteModel app-a"));
    assert!(bed.events("app").contains(&"app UPDATE_COMPLETE_CLEANUP_IN_PROGRESS".to_owned()));
}

#[test]
fn update_replace_policy_retain_keeps_the_old_one() {
    let mut bed = Bed::new();
    bed.create("app", &service("a"));
    let mut template = service("b");
    template["Resources"]["Model"]["UpdateReplacePolicy"] = json!("Retain");
    bed.update("app", &template);
    assert!(has("Model", "app-a") && has("Model", "app-b"));
    assert!(bed.events("app").contains(&"Model DELETE_SKIPPED".to_owned()));
}

#[test]
fn an_update_that_the_endpoint_takes_back_takes_the_stack_back() {
    let mut bed = Bed::new();
    bed.create("app", &service("a"));
    ending(Ending::Back("Request to service failed.".to_owned()));
    assert_eq!(bed.update("app", &service("b")), "UPDATE_ROLLBACK_COMPLETE");
    assert!(bed.reason("app", "Endpoint", "UPDATE_FAILED").contains("Request to service failed."));
    assert_eq!(serving("app"), "app-a");
    assert!(has("Model", "app-a") && !has("Model", "app-b") && !has("EndpointConfig", "app-b"));
    assert_eq!(bed.physical("app", "Model"), "arn:aws:sagemaker:us-east-1:123456789012:model/app-a");
    // And it stands: the next update works.
    assert_eq!(bed.update("app", &service("c")), "UPDATE_COMPLETE");
    assert_eq!(serving("app"), "app-c");
}

#[test]
fn a_silent_rollback_is_believed() {
    let mut bed = Bed::new();
    bed.create("app", &service("a"));
    ending(Ending::Silent);
    assert_eq!(bed.update("app", &service("b")), "UPDATE_COMPLETE");
    assert_eq!(serving("app"), "app-a");
}

#[test]
fn removed_resources_go_and_new_ones_come() {
    let mut bed = Bed::new();
    bed.create("store", &storage("some-bucket"));
    let mut template = storage("some-bucket");
    template["Resources"]["Other"] = template["Resources"]["Bucket"].clone();
    template["Resources"]["Other"]["Properties"]["BucketName"] = json!("other-bucket");
    template["Resources"].as_object_mut().expect("object").remove("Bucket");
    assert_eq!(bed.update("store", &template), "UPDATE_COMPLETE");
    assert_eq!(bed.world.s3.buckets.keys().collect::<Vec<_>>(), ["other-bucket"]);
}

#[test]
fn what_a_failed_update_had_made_is_removed() {
    let mut bed = Bed::new();
    bed.create("store", &storage("some-bucket"));
    let mut template = storage("some-bucket");
    template["Resources"]["Repository"]["Properties"]["ImageTagMutability"] = json!("IMMUTABLE");
    template["Resources"]["Repository"]["DependsOn"] = json!("Other");
    template["Resources"]["Other"] = json!({"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "other-bucket"}});
    bed.fault("Repository", "no");
    assert_eq!(bed.update("store", &template), "UPDATE_ROLLBACK_COMPLETE");
    assert_eq!(bed.world.s3.buckets.keys().collect::<Vec<_>>(), ["some-bucket"]);
    let listed = bed.ok("ListStackResources", json!({"StackName": "store"}));
    assert_eq!(listed["StackResourceSummaries"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_cancelled_update_goes_back() {
    let mut bed = Bed::new();
    bed.create("app", &service("a"));
    bed.ok("UpdateStack", json!({"StackName": "app", "TemplateBody": service("b").to_string()}));
    for _ in 0..1000 {
        if calls().contains(&"UpdateEndpoint app".to_owned()) {
            break;
        }
        bed.step();
    }
    bed.ok("CancelUpdateStack", json!({"StackName": "app"}));
    assert_eq!(bed.settle("app"), "UPDATE_ROLLBACK_COMPLETE");
    assert_eq!(bed.reason("app", "Endpoint", "UPDATE_FAILED"), "Resource update cancelled");
    assert_eq!(serving("app"), "app-a");
    assert!(!has("Model", "app-b"));
}

#[test]
fn a_failed_rollback_can_be_continued() {
    let mut bed = Bed::new();
    bed.create("app", &service("a"));
    bed.fault("Endpoint", "first");
    bed.fault("Endpoint", "second");
    let mut template = service("b");
    template["Resources"]["Endpoint"]["Properties"]["RetainAllVariantProperties"] = json!(true);
    assert_eq!(bed.update("app", &template), "UPDATE_ROLLBACK_FAILED");
    let error = bed.refused("ContinueUpdateRollback", json!({"StackName": "app", "ResourcesToSkip": ["Model"]}));
    assert!(error.message.contains("[Model]"), "{}", error.message);
    bed.ok("ContinueUpdateRollback", json!({"StackName": "app"}));
    assert_eq!(bed.settle("app"), "UPDATE_ROLLBACK_COMPLETE");
    assert_eq!(serving("app"), "app-a");
}

#[test]
fn without_rollback_a_failed_update_stays_until_it_is_rolled_back() {
    let mut bed = Bed::new();
    bed.create("store", &storage("some-bucket"));
    let mut template = storage("some-bucket");
    template["Resources"]["Repository"]["Properties"]["ImageTagMutability"] = json!("IMMUTABLE");
    bed.fault("Repository", "no");
    bed.ok("UpdateStack", json!({"StackName": "store", "TemplateBody": template.to_string(), "DisableRollback": true}));
    assert_eq!(bed.settle("store"), "UPDATE_FAILED");
    bed.ok("RollbackStack", json!({"StackName": "store"}));
    assert_eq!(bed.settle("store"), "UPDATE_ROLLBACK_COMPLETE");
    // Trying again works as well.
    bed.fault("Repository", "no");
    bed.ok("UpdateStack", json!({"StackName": "store", "TemplateBody": template.to_string(), "DisableRollback": true}));
    assert_eq!(bed.settle("store"), "UPDATE_FAILED");
    bed.ok("UpdateStack", json!({"StackName": "store", "TemplateBody": template.to_string(), "DisableRollback": true}));
    assert_eq!(bed.settle("store"), "UPDATE_COMPLETE");
}

#[test]
fn deletion_policies_are_kept() {
    let mut bed = Bed::new();
    let mut template = storage("some-bucket");
    template["Resources"]["Bucket"]["DeletionPolicy"] = json!("RetainExceptOnCreate");
    bed.fault("Repository", "no");
    bed.create("store", &template);
    assert!(bed.world.s3.buckets.is_empty(), "a failed create leaves nothing");
    bed.ok("DeleteStack", json!({"StackName": "store"}));
    bed.create("second", &template);
    let id = text(&bed.stack("second"), "StackId").to_owned();
    bed.ok("DeleteStack", json!({"StackName": "second"}));
    assert_eq!(bed.settle(&id), "DELETE_COMPLETE");
    assert!(bed.world.s3.buckets.contains_key("some-bucket"), "a delete keeps it");
}

#[test]
fn tags_of_the_stack_reach_its_resources() {
    let mut bed = Bed::new();
    let body = storage("some-bucket").to_string();
    bed.ok("CreateStack", json!({"StackName": "store", "TemplateBody": body, "Tags": [{"Key": "app", "Value": "x"}]}));
    bed.settle("store");
    let tags = bed.other("s3", "GetBucketTagging", json!({"Bucket": "some-bucket"}));
    let keys: Vec<&str> =
        tags["Tagging"]["TagSet"].as_array().into_iter().flatten().map(|tag| text(tag, "Key")).collect();
    assert!(keys.contains(&"app") && keys.contains(&"aws:cloudformation:stack-name"), "{keys:?}");
    bed.ok(
        "UpdateStack",
        json!({"StackName": "store", "UsePreviousTemplate": true, "Tags": [{"Key": "app", "Value": "y"}]}),
    );
    assert_eq!(bed.settle("store"), "UPDATE_COMPLETE");
    let tags = bed.other("s3", "GetBucketTagging", json!({"Bucket": "some-bucket"}));
    assert!(tags.to_string().contains("\"y\""), "{tags}");
}

#[test]
fn a_creation_can_be_stopped_by_deleting() {
    let mut bed = Bed::new();
    let made = bed.ok("CreateStack", json!({"StackName": "app", "TemplateBody": service("a").to_string()}));
    for _ in 0..1000 {
        if has("Endpoint", "app") {
            break;
        }
        bed.step();
    }
    bed.ok("DeleteStack", json!({"StackName": "app"}));
    assert_eq!(bed.settle(text(&made, "StackId")), "DELETE_COMPLETE");
    assert!(!has("Endpoint", "app") && !has("Model", "app-a"));
}

#[test]
fn deleting_after_a_failed_rollback_leaves_nothing_of_the_update() {
    let mut bed = Bed::new();
    bed.create("app", &service("a"));
    bed.fault("Endpoint", "first");
    bed.fault("Endpoint", "second");
    assert_eq!(bed.update("app", &service("b")), "UPDATE_ROLLBACK_FAILED");
    assert!(has("Model", "app-b"));
    let id = text(&bed.stack("app"), "StackId").to_owned();
    bed.ok("DeleteStack", json!({"StackName": "app"}));
    assert_eq!(bed.settle(&id), "DELETE_COMPLETE");
    for version in ["app-a", "app-b"] {
        assert!(!has("Model", version) && !has("EndpointConfig", version), "{version}");
    }
}

#[test]
fn a_resource_that_cannot_be_reverted_can_be_skipped() {
    let mut bed = Bed::new();
    bed.create("app", &service("a"));
    bed.fault("Endpoint", "first");
    bed.fault("Endpoint", "second");
    bed.update("app", &service("b"));
    bed.ok("ContinueUpdateRollback", json!({"StackName": "app", "ResourcesToSkip": ["Endpoint"]}));
    assert_eq!(bed.settle("app"), "UPDATE_ROLLBACK_COMPLETE");
    assert!(!has("Model", "app-b"));
}

#[test]
fn a_throttled_service_only_delays() {
    use crate::cfn::providers::Failure;
    use crate::world::ApiError;
    for (code, busy) in
        [("ThrottlingException", true), ("TooManyRequestsException", true), ("ValidationException", false)]
    {
        let failure = Failure::from(ApiError::new(code, "Rate exceeded"));
        assert_eq!(matches!(failure, Failure::Busy(_)), busy, "{code}");
    }
}
