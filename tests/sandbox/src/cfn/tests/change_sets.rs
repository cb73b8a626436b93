//! Change sets.

use serde_json::json;

use super::services::{has, serving};
use super::*;

fn changes(set: &Value) -> Vec<String> {
    let all = set["Changes"].as_array().into_iter().flatten();
    all.map(|change| {
        let change = &change["ResourceChange"];
        format!("{} {} {}", text(change, "Action"), text(change, "LogicalResourceId"), text(change, "Replacement"))
            .trim_end()
            .to_owned()
    })
    .collect()
}

fn set(stack: &str, kind: &str, template: &Value) -> Value {
    json!({"StackName": stack, "ChangeSetType": kind, "TemplateBody": template.to_string()})
}

#[test]
fn a_create_change_set_shows_every_resource_and_makes_the_stack() {
    let mut bed = Bed::new();
    let found = bed.change_set("first", set("app", "CREATE", &service("a")));
    assert_eq!(bed.status("app"), "REVIEW_IN_PROGRESS");
    assert_eq!(changes(&found), ["Add Config", "Add Endpoint", "Add Model"]);
    assert_eq!(found["ExecutionStatus"], "AVAILABLE");
    bed.ok("ExecuteChangeSet", json!({"StackName": "app", "ChangeSetName": "first", "ClientRequestToken": "token-1"}));
    assert_eq!(bed.settle("app"), "CREATE_COMPLETE");
    assert!(
        bed.raw_events("app")
            .iter()
            .filter(|event| text(event, "ResourceStatus") != "REVIEW_IN_PROGRESS")
            .all(|event| event["ClientRequestToken"] == "token-1")
    );
}

#[test]
fn it_is_asynchronous() {
    let mut bed = Bed::new();
    bed.ok("CreateChangeSet", json!({"StackName": "app", "ChangeSetName": "c", "ChangeSetType": "CREATE", "TemplateBody": service("a").to_string()}));
    let mut seen = Vec::new();
    for _ in 0..50 {
        let found = bed.ok("DescribeChangeSet", json!({"StackName": "app", "ChangeSetName": "c"}));
        seen.push(format!("{} {}", text(&found, "Status"), text(&found, "ExecutionStatus")));
        bed.step();
    }
    seen.dedup();
    assert_eq!(seen, ["CREATE_PENDING UNAVAILABLE", "CREATE_IN_PROGRESS UNAVAILABLE", "CREATE_COMPLETE AVAILABLE"]);
}

#[test]
fn a_new_version_replaces_model_and_config_and_changes_the_endpoint() {
    let mut bed = Bed::new();
    bed.create("app", &service("a"));
    let found = bed.change_set("next", set("app", "UPDATE", &service("b")));
    assert_eq!(changes(&found), ["Modify Config True", "Modify Endpoint False", "Modify Model True"]);
    let endpoint = &found["Changes"][1]["ResourceChange"];
    let detail = &endpoint["Details"][0];
    assert_eq!(detail["ChangeSource"], "ResourceAttribute");
    assert_eq!(detail["CausingEntity"], "Config.EndpointConfigName");
    assert_eq!(detail["Target"]["BeforeValue"], "app-a");
    assert_eq!(detail["Target"]["AfterValue"], "{{changeSet:KNOWN_AFTER_APPLY}}");
    let model = &found["Changes"][2]["ResourceChange"];
    assert_eq!(model["PolicyAction"], "ReplaceAndDelete");
    let name = model["Details"].as_array().into_iter().flatten().find(|detail| detail["Target"]["Name"] == "ModelName");
    let target = &name.expect("ModelName")["Target"];
    assert_eq!(
        (&target["RequiresRecreation"], &target["BeforeValue"], &target["AfterValue"]),
        (&json!("Always"), &json!("app-a"), &json!("app-b"))
    );
    // Values only for those who ask.
    let plain = bed.ok("DescribeChangeSet", json!({"ChangeSetName": found["ChangeSetId"]}));
    assert!(!plain.to_string().contains("BeforeValue"));
    bed.ok("ExecuteChangeSet", json!({"ChangeSetName": found["ChangeSetId"]}));
    assert_eq!(bed.settle("app"), "UPDATE_COMPLETE");
    assert_eq!(serving("app"), "app-b");
}

#[test]
fn a_parameter_that_changes_a_property_is_its_cause() {
    let mut bed = Bed::new();
    let template = json!({
        "Parameters": {"Mutability": {"Type": "String", "Default": "MUTABLE"}},
        "Resources": {"R": {"Type": "AWS::ECR::Repository", "Properties": {"ImageTagMutability": {"Ref": "Mutability"}}}},
    });
    bed.create("x", &template);
    let mut input = set("x", "UPDATE", &template);
    input["Parameters"] = json!([{"ParameterKey": "Mutability", "ParameterValue": "IMMUTABLE"}]);
    let found = bed.change_set("c", input);
    let detail = &found["Changes"][0]["ResourceChange"]["Details"][0];
    assert_eq!(
        (&detail["ChangeSource"], &detail["CausingEntity"]),
        (&json!("ParameterReference"), &json!("Mutability"))
    );
}

#[test]
fn no_changes_is_a_failed_change_set() {
    let mut bed = Bed::new();
    bed.create("app", &service("a"));
    let found = bed.change_set("same", set("app", "UPDATE", &service("a")));
    assert_eq!(found["Status"], "FAILED");
    assert_eq!(
        found["StatusReason"],
        "The submitted information didn't contain changes. Submit different information to create a change set."
    );
    assert_eq!(found["ExecutionStatus"], "UNAVAILABLE");
}

#[test]
fn outputs_alone_are_a_change() {
    let mut bed = Bed::new();
    bed.create("app", &service("a"));
    let mut template = service("a");
    template["Outputs"]["More"] = json!({"Value": "x"});
    let found = bed.change_set("c", set("app", "UPDATE", &template));
    assert_eq!(found["Status"], "CREATE_COMPLETE", "{found}");
    bed.ok("ExecuteChangeSet", json!({"ChangeSetName": found["ChangeSetId"]}));
    assert_eq!(bed.settle("app"), "UPDATE_COMPLETE");
    assert_eq!(bed.stack("app")["Outputs"].as_array().map(Vec::len), Some(2));
}

#[test]
fn existing_resources_are_imported_when_asked() {
    let mut bed = Bed::new();
    bed.other("s3", "CreateBucket", json!({"Bucket": "some-bucket"}));
    let mut template = storage("some-bucket");
    for logical in ["Bucket", "Repository"] {
        template["Resources"][logical]["DeletionPolicy"] = json!("RetainExceptOnCreate");
    }
    let mut input = set("store", "CREATE", &template);
    input["ImportExistingResources"] = json!(true);
    let found = bed.change_set("c", input);
    assert_eq!(changes(&found), ["Import Bucket", "Add Repository"]);
    bed.fault("Repository", "no");
    bed.ok("ExecuteChangeSet", json!({"ChangeSetName": found["ChangeSetId"]}));
    assert_eq!(bed.settle("store"), "ROLLBACK_COMPLETE");
    assert!(bed.world.s3.buckets.contains_key("some-bucket"), "what was there before is left");
    let again = bed.change_set("d", json!({"StackName": "other", "ChangeSetType": "CREATE", "TemplateBody": template.to_string(), "ImportExistingResources": true}));
    bed.ok("ExecuteChangeSet", json!({"ChangeSetName": again["ChangeSetId"]}));
    assert_eq!(bed.settle("other"), "CREATE_COMPLETE");
    assert!(bed.events("other").contains(&"Bucket IMPORT_COMPLETE".to_owned()));
}

#[test]
fn an_empty_review_stack_is_deleted_at_once() {
    let mut bed = Bed::new();
    bed.change_set("c", set("app", "CREATE", &service("a")));
    let id = text(&bed.stack("app"), "StackId").to_owned();
    bed.ok("DeleteStack", json!({"StackName": "app"}));
    assert_eq!(bed.settle(&id), "DELETE_COMPLETE");
    assert!(!has("Model", "app-a"));
}

#[test]
fn many_changes_come_in_pages() {
    let mut bed = Bed::new();
    let resources: serde_json::Map<String, Value> =
        (0..130).map(|index| (format!("R{index:03}"), json!({"Type": "AWS::ECR::Repository"}))).collect();
    let found = bed.change_set("c", set("many", "CREATE", &json!({"Resources": resources})));
    assert_eq!(found["Changes"].as_array().map(Vec::len), Some(100));
    let rest =
        bed.ok("DescribeChangeSet", json!({"ChangeSetName": found["ChangeSetId"], "NextToken": found["NextToken"]}));
    assert_eq!(rest["Changes"].as_array().map(Vec::len), Some(30));
    assert!(rest.get("NextToken").is_none());
}

#[test]
fn every_place_that_differs_has_its_path_and_values() {
    let mut bed = Bed::new();
    bed.create("app", &service("a"));
    let mut template = service("a");
    let variant = &mut template["Resources"]["Config"]["Properties"]["ProductionVariants"][0];
    variant["InstanceType"] = json!("ml.g5.2xlarge");
    variant["VolumeSizeInGB"] = json!(100);
    let found = bed.change_set("c", set("app", "UPDATE", &template));
    let config = &found["Changes"][0]["ResourceChange"];
    let seen: Vec<String> = config["Details"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|detail| {
            let target = &detail["Target"];
            let part = |member: &str| text(target, member);
            format!("{} {} {}>{}", part("AttributeChangeType"), part("Path"), part("BeforeValue"), part("AfterValue"))
        })
        .collect();
    assert_eq!(
        seen,
        [
            "Modify /Properties/ProductionVariants/0/InstanceType ml.g5.xlarge>ml.g5.2xlarge",
            "Add /Properties/ProductionVariants/0/VolumeSizeInGB >100",
        ]
    );
}

#[test]
fn an_attribute_of_a_changed_resource_makes_a_replacement_conditional() {
    let mut bed = Bed::new();
    let template = |days: u32| {
        json!({"Resources": {
            "Images": {"Type": "AWS::ECR::Repository", "Properties": {"ImageTagMutability": if days == 1 { "MUTABLE" } else { "IMMUTABLE" }}},
            "Logs": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": {"Fn::Join": ["-", ["x", {"Fn::Select": [5, {"Fn::Split": [":", {"Fn::GetAtt": ["Images", "Arn"]}]}]}]]}}},
        }})
    };
    bed.create("x", &template(1));
    let found = bed.change_set("c", set("x", "UPDATE", &template(2)));
    assert_eq!(changes(&found), ["Modify Images False", "Modify Logs Conditional"]);
    bed.ok("ExecuteChangeSet", json!({"ChangeSetName": found["ChangeSetId"]}));
    assert_eq!(bed.settle("x"), "UPDATE_COMPLETE");
    assert!(!bed.events("x").iter().any(|event| event == "Logs UPDATE_COMPLETE"), "the ARN did not change in the end");
}
