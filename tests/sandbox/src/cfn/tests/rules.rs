//! Every rule bites.

use serde_json::json;

use super::services::{calls, put};
use super::*;
use crate::cfn::rules::RULES;

fn one(kind: &str, properties: Value) -> Value {
    json!({"Resources": {"R": {"Type": kind, "Properties": properties}}})
}

fn with_body(stack: &str, body: &Value) -> Value {
    json!({"StackName": stack, "TemplateBody": body.to_string()})
}

/// Breaks the rule and gives what was said.
fn bite(id: &str) -> String {
    let mut bed = Bed::new();
    let create = |bed: &mut Bed, body: &Value| bed.refused("CreateStack", with_body("x", body)).message;
    let repository = one("AWS::ECR::Repository", json!({}));
    let parameter =
        |members: Value| json!({"Parameters": {"P": members}, "Resources": {"R": {"Type": "AWS::ECR::Repository"}}});
    match id {
        "cfn.body-limit" => {
            let mut body = repository;
            body["Metadata"] = json!({"Filler": "x".repeat(51_200)});
            create(&mut bed, &body)
        }
        "cfn.template-sections" => {
            create(&mut bed, &json!({"Nonsense": {}, "Resources": {"R": {"Type": "AWS::ECR::Repository"}}}))
        }
        "cfn.unknown-type" => create(&mut bed, &one("AWS::CloudWatch::Alarm", json!({}))),
        "cfn.unresolved-reference" => {
            create(&mut bed, &one("AWS::ECR::Repository", json!({"RepositoryName": {"Fn::Sub": "a-${Nothing}"}})))
        }
        "cfn.attribute" => {
            let mut body = repository;
            body["Outputs"] = json!({"O": {"Value": {"Fn::GetAtt": ["R", "Nothing"]}}});
            create(&mut bed, &body)
        }
        "cfn.condition" => {
            create(&mut bed, &one("AWS::ECR::Repository", json!({"RepositoryName": {"Fn::If": ["C", "a", "b"]}})))
        }
        "cfn.cycle" => create(
            &mut bed,
            &json!({"Resources": {
                "A": {"Type": "AWS::ECR::Repository", "Properties": {"RepositoryName": {"Ref": "B"}}},
                "B": {"Type": "AWS::ECR::Repository", "DependsOn": "A"},
            }}),
        ),
        "cfn.property" => {
            bed.create("x", &one("AWS::ECR::Repository", json!({"Nonsense": 1})));
            bed.reason("x", "R", "CREATE_FAILED")
        }
        "cfn.parameter-unknown" => {
            let mut input = with_body("x", &repository);
            input["Parameters"] = json!([{"ParameterKey": "Nothing", "ParameterValue": "1"}]);
            bed.refused("CreateStack", input).message
        }
        "cfn.parameter-missing" => create(&mut bed, &parameter(json!({"Type": "String"}))),
        "cfn.parameter-constraint" => {
            let mut told = Vec::new();
            for members in [
                json!({"Type": "String", "AllowedPattern": "[a-z]+"}),
                json!({"Type": "String", "AllowedValues": ["a"]}),
                json!({"Type": "String", "MaxLength": 1}),
                json!({"Type": "String", "MinLength": "9"}),
                json!({"Type": "Number", "MaxValue": 1}),
                json!({"Type": "Number", "MinValue": 100}),
                json!({"Type": "String", "AllowedPattern": "[a-z]+", "ConstraintDescription": "letters only"}),
            ] {
                let value = if members["Type"] == "Number" { "5" } else { "A1" };
                let mut input = with_body("x", &parameter(members));
                input["Parameters"] = json!([{"ParameterKey": "P", "ParameterValue": value}]);
                told.push(bed.refused("CreateStack", input).message);
            }
            told.join("\n")
        }
        "cfn.capabilities" => {
            let role = |name: Value| {
                let mut properties = json!({"AssumeRolePolicyDocument": {"Statement": []}});
                if !name.is_null() {
                    properties["RoleName"] = name;
                }
                one("AWS::IAM::Role", properties)
            };
            let mut input = with_body("x", &role(json!("r")));
            input["Capabilities"] = json!(["CAPABILITY_IAM"]);
            let named = bed.refused("CreateStack", input);
            assert_eq!(named.code, "InsufficientCapabilitiesException");
            format!("{}\n{}", create(&mut bed, &role(Value::Null)), named.message)
        }
        "cfn.create-exists" => {
            bed.create("x", &repository);
            let error = bed.refused("CreateStack", with_body("x", &repository));
            assert_eq!(error.code, "AlreadyExistsException");
            error.message
        }
        "cfn.busy" => {
            bed.ok("CreateStack", with_body("x", &repository));
            bed.refused("UpdateStack", with_body("x", &storage("b-b"))).message
        }
        "cfn.rollback-complete" => {
            bed.fault("R", "no");
            bed.create("x", &repository);
            let mut set = with_body("x", &repository);
            set["ChangeSetName"] = json!("c");
            let other = bed.refused("CreateChangeSet", set).message;
            assert!(other.contains("ROLLBACK_COMPLETE"), "{other}");
            bed.refused("UpdateStack", with_body("x", &repository)).message
        }
        "cfn.no-updates" => {
            bed.create("x", &repository);
            bed.refused("UpdateStack", with_body("x", &repository)).message
        }
        "cfn.obsolete" => {
            bed.create("x", &repository);
            let body = storage("some-bucket");
            let first = bed.change_set("one", with_body("x", &body));
            let second = bed.change_set("two", with_body("x", &body));
            bed.ok("ExecuteChangeSet", json!({"ChangeSetName": first["ChangeSetId"]}));
            bed.settle("x");
            let now = bed.ok("DescribeChangeSet", json!({"ChangeSetName": second["ChangeSetId"]}));
            assert_eq!(now["ExecutionStatus"], "OBSOLETE");
            bed.refused("ExecuteChangeSet", json!({"ChangeSetName": second["ChangeSetId"]})).message
        }
        "cfn.custom-name" => {
            bed.create("x", &service("a"));
            let mut body = service("a");
            body["Resources"]["Model"]["Properties"]["PrimaryContainer"]["Image"] = json!("other");
            assert_eq!(bed.update("x", &body), "UPDATE_ROLLBACK_COMPLETE");
            bed.reason("x", "Model", "UPDATE_FAILED")
        }
        "cfn.name-taken" => {
            put("Model", "app-a");
            bed.create("x", &service("a"));
            let direct = bed.reason("x", "Model", "CREATE_FAILED");
            assert!(direct.contains("HandlerErrorCode: AlreadyExists"), "{direct}");
            bed.create("one", &storage("some-bucket"));
            bed.create("two", &storage("some-bucket"));
            let owned = bed.reason("two", "Bucket", "CREATE_FAILED");
            assert!(owned.contains("some-bucket already exists in stack arn:aws:cloudformation"), "{owned}");
            let mut set = with_body("three", &storage("some-bucket"));
            set["ChangeSetType"] = json!("CREATE");
            text(&bed.change_set("c", set), "StatusReason").to_owned()
        }
        "cfn.import-policy" => {
            bed.other("s3", "CreateBucket", json!({"Bucket": "some-bucket"}));
            let mut set = with_body("x", &storage("some-bucket"));
            set["ChangeSetType"] = json!("CREATE");
            set["ImportExistingResources"] = json!(true);
            text(&bed.change_set("c", set), "StatusReason").to_owned()
        }
        "cfn.replace-no-rollback" => {
            bed.create("x", &service("a"));
            let mut input = with_body("x", &service("b"));
            input["DisableRollback"] = json!(true);
            bed.ok("UpdateStack", input);
            assert_eq!(bed.settle("x"), "UPDATE_FAILED");
            bed.reason("x", "Model", "UPDATE_FAILED")
        }
        "cfn.type-change" => {
            bed.create("x", &repository);
            bed.refused("UpdateStack", with_body("x", &one("AWS::S3::Bucket", json!({})))).message
        }
        "cfn.protected" => {
            bed.create("x", &repository);
            bed.ok("UpdateTerminationProtection", json!({"StackName": "x", "EnableTerminationProtection": true}));
            bed.refused("DeleteStack", json!({"StackName": "x"})).message
        }
        "cfn.delete-busy" => {
            bed.create("x", &service("a"));
            bed.ok("UpdateStack", with_body("x", &service("b")));
            bed.refused("DeleteStack", json!({"StackName": "x"})).message
        }
        "cfn.delete-full" => {
            bed.create("x", &storage("some-bucket"));
            let objects = &mut bed.world.s3.buckets.get_mut("some-bucket").expect("bucket").objects;
            objects.insert("key".to_owned(), Default::default());
            bed.ok("DeleteStack", json!({"StackName": "x"}));
            assert_eq!(bed.settle("x"), "DELETE_FAILED");
            let told = bed.reason("x", "Bucket", "DELETE_FAILED");
            // Keeping it is the way out.
            bed.ok("DeleteStack", json!({"StackName": "x", "RetainResources": ["Bucket"]}));
            bed.until_gone("x");
            assert!(bed.world.s3.buckets.contains_key("some-bucket"));
            told
        }
        "cfn.retain-resources" => {
            bed.create("x", &repository);
            bed.refused("DeleteStack", json!({"StackName": "x", "RetainResources": ["R"]})).message
        }
        "cfn.cancel" => {
            bed.create("x", &repository);
            bed.refused("CancelUpdateStack", json!({"StackName": "x"})).message
        }
        "cfn.continue" => {
            bed.create("x", &repository);
            bed.refused("ContinueUpdateRollback", json!({"StackName": "x"})).message
        }
        "cfn.rollback-stack" => {
            bed.create("x", &repository);
            bed.refused("RollbackStack", json!({"StackName": "x"})).message
        }
        "cfn.token" => {
            let mut input = with_body("x", &repository);
            input["ClientRequestToken"] = json!("t");
            let first = bed.ok("CreateStack", input.clone());
            assert_eq!(bed.ok("CreateStack", input), first, "the same request again is the same answer");
            bed.settle("x");
            let error = bed.refused("DeleteStack", json!({"StackName": "x", "ClientRequestToken": "t"}));
            assert_eq!(error.code, "TokenAlreadyExistsException");
            error.message
        }
        "cfn.deleted-by-name" => {
            bed.create("x", &repository);
            let id = text(&bed.stack("x"), "StackId").to_owned();
            bed.ok("DeleteStack", json!({"StackName": "x"}));
            assert_eq!(bed.settle(&id), "DELETE_COMPLETE");
            bed.refused("DescribeStacks", json!({"StackName": "x"})).message
        }
        "cfn.change-set-type" => {
            let mut set = with_body("x", &repository);
            set["ChangeSetName"] = json!("c");
            let missing = bed.refused("CreateChangeSet", set.clone()).message;
            bed.create("x", &repository);
            set["ChangeSetType"] = json!("CREATE");
            format!("{missing}\n{}", bed.refused("CreateChangeSet", set).message)
        }
        "cfn.aws-tags" => {
            let mut input = with_body("x", &repository);
            input["Tags"] = json!([{"Key": "aws:x", "Value": "y"}]);
            bed.refused("CreateStack", input).message
        }
        other => panic!("no test breaks {other}; calls {:?}", calls()),
    }
}

impl Bed {
    fn until_gone(&mut self, stack: &str) {
        for _ in 0..1000 {
            if self.call("DescribeStacks", json!({"StackName": stack})).is_err() {
                return;
            }
            self.step();
        }
        panic!("{stack} stays: {:?}", self.events(stack));
    }
}

#[test]
fn every_row_bites() {
    let words = [
        ("cfn.body-limit", "51200"),
        ("cfn.template-sections", "Invalid template property or properties [Nonsense]"),
        ("cfn.unknown-type", "Unrecognized resource types: [AWS::CloudWatch::Alarm]"),
        ("cfn.unresolved-reference", "Unresolved resource dependencies [Nothing]"),
        ("cfn.attribute", "does not support attribute type Nothing"),
        ("cfn.condition", "Unresolved condition dependency C"),
        ("cfn.cycle", "Circular dependency between resources: [A, B]"),
        ("cfn.property", "extraneous key [Nonsense] is not permitted"),
        ("cfn.parameter-unknown", "Parameters: [Nothing] do not exist in the template"),
        ("cfn.parameter-missing", "Parameters: [P] must have values"),
        (
            "cfn.parameter-constraint",
            "Parameter 'P' must match pattern [a-z]+\nParameter 'P' must be one of AllowedValues [a]\nParameter 'P' must contain at most 1 characters\nParameter 'P' must contain at least 9 characters\nParameter 'P' must be a number not greater than 1\nParameter 'P' must be a number not less than 100\nParameter P failed to satisfy constraint: letters only",
        ),
        (
            "cfn.capabilities",
            "Requires capabilities : [CAPABILITY_IAM]\nRequires capabilities : [CAPABILITY_NAMED_IAM]",
        ),
        ("cfn.create-exists", "Stack [x] already exists"),
        ("cfn.busy", "is in CREATE_IN_PROGRESS state and can not be updated."),
        ("cfn.rollback-complete", "is in ROLLBACK_COMPLETE state and can not be updated."),
        ("cfn.no-updates", "No updates are to be performed."),
        ("cfn.obsolete", "[OBSOLETE]"),
        (
            "cfn.custom-name",
            "CloudFormation cannot update a stack when a custom-named resource requires replacing. Rename app-a and update the stack again.",
        ),
        ("cfn.name-taken", "[AWS::EarlyValidation::ResourceExistenceCheck]"),
        ("cfn.import-policy", "must have a DeletionPolicy"),
        ("cfn.replace-no-rollback", "Replacement type updates not supported on stack with disable-rollback."),
        ("cfn.type-change", "Update of resource type is not permitted"),
        ("cfn.protected", "cannot be deleted while TerminationProtection is enabled"),
        ("cfn.delete-busy", "cannot be deleted while in status UPDATE_IN_PROGRESS"),
        ("cfn.delete-full", "not empty"),
        ("cfn.retain-resources", "DELETE_FAILED"),
        ("cfn.cancel", "CancelUpdateStack cannot be called from current stack status"),
        ("cfn.continue", "UPDATE_ROLLBACK_FAILED"),
        ("cfn.rollback-stack", "can not be rolled back"),
        ("cfn.token", "already exists"),
        ("cfn.deleted-by-name", "Stack with id x does not exist"),
        (
            "cfn.change-set-type",
            "Stack [x] does not exist\nStack [x] already exists and cannot be created again with the changeSet [c].",
        ),
        ("cfn.aws-tags", "aws: prefixed tag key names are not allowed"),
    ];
    for rule in RULES {
        let (_, wanted) =
            words.iter().find(|(id, _)| *id == rule.id).unwrap_or_else(|| panic!("{} has no words", rule.id));
        let told = bite(rule.id);
        assert!(told.contains(wanted), "{}: {told}", rule.id);
    }
    assert_eq!(words.len(), RULES.len());
}
