//! Templates, parameters and functions.

use serde_json::json;

use super::*;
use crate::cfn::spec;
use crate::cfn::template::Template;

fn checked(text: &str) -> Result<Template, String> {
    let template = Template::parse(text).map_err(|error| error.message)?;
    spec::check(&template).map_err(|error| error.message)?;
    Ok(template)
}

const YAML: &str = r#"
AWSTemplateFormatVersion: 2010-09-09
Description: d
Parameters:
  Env: {Type: String, Default: dev, AllowedValues: [dev, prod]}
  Count: {Type: Number, Default: 1}
  Subnets: {Type: CommaDelimitedList, Default: ""}
Mappings:
  Names:
    dev: {bucket: dev-bucket}
    prod: {bucket: prod-bucket}
Conditions:
  Prod: !Equals [!Ref Env, prod]
  Other: !And [!Not [!Condition Prod], !Or [!Condition Prod, !Equals ["1", !Ref Count]]]
Resources:
  Bucket:
    Type: AWS::S3::Bucket
    Properties:
      BucketName: !FindInMap [Names, !Ref Env, bucket]
      VersioningConfiguration: !If [Prod, {Status: Enabled}, !Ref AWS::NoValue]
      Tags:
        - {Key: a, Value: !Join ["-", [!Ref Env, !Select [1, !Split [",", "x,y"]]]]}
        - {Key: b, Value: !Sub "${AWS::Region}/${Env}/${!Literal}"}
        - Key: c
          Value: !Sub ["${X}.${Repository.Arn}", {X: !Ref Count}]
        - {Key: d, Value: !GetAtt Repository.Arn}
  Repository:
    Type: AWS::ECR::Repository
  Extra:
    Type: AWS::ECR::Repository
    Condition: Prod
Outputs:
  Name: {Value: !Ref Bucket}
  Extra: {Condition: Prod, Value: !Ref Extra}
"#;

#[test]
fn every_function_gives_what_it_should() {
    let mut bed = Bed::new();
    bed.ok("CreateStack", json!({"StackName": "all", "TemplateBody": YAML}));
    assert_eq!(bed.settle("all"), "CREATE_COMPLETE");
    assert_eq!(bed.physical("all", "Bucket"), "dev-bucket");
    let repository = bed.physical("all", "Repository");
    assert!(repository.starts_with("all-repository-"), "{repository}");
    let tags = bed.other("s3", "GetBucketTagging", json!({"Bucket": "dev-bucket"}));
    let tag = |key: &str| -> String {
        let tags = tags["Tagging"]["TagSet"].as_array().into_iter().flatten();
        tags.filter(|tag| tag["Key"] == key).map(|tag| text(tag, "Value").to_owned()).collect()
    };
    let arn = format!("arn:aws:ecr:us-east-1:123456789012:repository/{repository}");
    assert_eq!(tag("a"), "dev-y");
    assert_eq!(tag("b"), "us-east-1/dev/${Literal}");
    assert_eq!(tag("c"), format!("1.{arn}"));
    assert_eq!(tag("d"), arn);
    assert_eq!(bed.stack("all")["Outputs"], json!([{"OutputKey": "Name", "OutputValue": "dev-bucket"}]));
}

#[test]
fn conditions_bring_resources_and_outputs() {
    let mut bed = Bed::new();
    let prod = json!([{"ParameterKey": "Env", "ParameterValue": "prod"}]);
    bed.ok("CreateStack", json!({"StackName": "all", "TemplateBody": YAML, "Parameters": prod}));
    assert_eq!(bed.settle("all"), "CREATE_COMPLETE");
    assert!(!bed.physical("all", "Extra").is_empty());
    assert_eq!(bed.other("s3", "GetBucketVersioning", json!({"Bucket": "prod-bucket"}))["Status"], "Enabled");
}

#[test]
fn json_and_yaml_are_the_same_template() {
    let yaml = Template::parse(
        "Resources:\n  R:\n    Type: AWS::ECR::Repository\n    Properties: {RepositoryName: !Sub 'a-${AWS::Region}'}\n",
    );
    let json = Template::parse(
        r#"{"Resources": {"R": {"Type": "AWS::ECR::Repository", "Properties": {"RepositoryName": {"Fn::Sub": "a-${AWS::Region}"}}}}}"#,
    );
    assert_eq!(yaml.expect("yaml"), json.expect("json"));
}

#[test]
fn malformed_templates_are_refused_in_the_right_words() {
    let bucket =
        |properties: &str| format!("Resources:\n  B:\n    Type: AWS::S3::Bucket\n    Properties: {properties}\n");
    for (body, told) in [
        ("Resources: [".to_owned(), "YAML not well-formed"),
        ("{\"Resources\": ".to_owned(), "JSON not well-formed"),
        ("just text".to_owned(), "unsupported structure"),
        ("Resources: {}".to_owned(), "At least one Resources member must be defined."),
        ("Foo: 1\nResources: {B: {Type: AWS::S3::Bucket}}".to_owned(), "Invalid template property or properties [Foo]"),
        ("Resources: {B: {}}".to_owned(), "[/Resources/B] Every Resources object must contain a Type member."),
        ("Resources: {B-1: {Type: AWS::S3::Bucket}}".to_owned(), "Resource name B-1 is non alphanumeric."),
        ("Resources: {B: {Type: AWS::S3::Bucket, Foo: 1}}".to_owned(), "Invalid template resource property 'Foo'"),
        ("Resources: {B: {Type: AWS::S3::Bucket, DeletionPolicy: Never}}".to_owned(), "Unrecognized DeletionPolicy"),
        ("Resources: {B: {Type: AWS::Foo::Bar}}".to_owned(), "Unrecognized resource types: [AWS::Foo::Bar]"),
        (bucket("{BucketName: !Ref Nothing}"), "Unresolved resource dependencies [Nothing] in the Resources block"),
        (bucket("{BucketName: !Sub '${Nothing}'}"), "Unresolved resource dependencies [Nothing]"),
        (bucket("{BucketName: !Sub '${a b}'}"), "variable names in Fn::Sub syntax"),
        (bucket("{BucketName: !GetAtt Nothing.Arn}"), "instance of Fn::GetAtt references undefined resource Nothing"),
        (bucket("{BucketName: !GetAtt B.Foo}"), "resource B does not support attribute type Foo in Fn::GetAtt"),
        (bucket("{BucketName: !If [Nothing, a, b]}"), "Unresolved condition dependency Nothing"),
        (bucket("{BucketName: !Foo x}"), "unknown tag !Foo"),
        (bucket("{BucketName: !ImportValue x}"), "Unsupported function Fn::ImportValue"),
        ("Resources: {B: {Type: AWS::S3::Bucket, DependsOn: [C]}}".to_owned(), "Unresolved resource dependencies [C]"),
        (
            "Resources:\n  A: {Type: AWS::ECR::Repository, DependsOn: B}\n  B: {Type: AWS::ECR::Repository, DependsOn: A}\n  C: {Type: AWS::ECR::Repository, DependsOn: A}\n".to_owned(),
            "Circular dependency between resources: [A, B]",
        ),
        (
            "Resources: {B: {Type: AWS::S3::Bucket}}\nOutputs: {O: {Value: !Ref Nothing}}".to_owned(),
            "Unresolved resource dependencies [Nothing] in the Outputs block",
        ),
        (
            "Resources: {B: {Type: AWS::S3::Bucket}}\nConditions: {C: !Equals [!Ref B, x]}".to_owned(),
            "Unresolved dependencies [B]. Cannot reference resources in the Conditions block of the template",
        ),
        (
            "Parameters: {P: {Type: AWS::SSM::Parameter::Value<String>}}\nResources: {B: {Type: AWS::S3::Bucket}}".to_owned(),
            "SSM",
        ),
        (
            "Parameters: {P: {Type: String, Default: x, AllowedPattern: '[0-9]+'}}\nResources: {B: {Type: AWS::S3::Bucket}}".to_owned(),
            "must match pattern [0-9]+",
        ),
    ] {
        let error = checked(&body).map(drop).expect_err(&body);
        assert!(error.contains(told), "{body}\n  gave {error}\n  not {told}");
    }
}

#[test]
fn properties_are_checked_all_the_way_down() {
    let mut bed = Bed::new();
    for (path, value, told) in [
        ("Nonsense", json!(1), "#: extraneous key [Nonsense] is not permitted"),
        (
            "VersioningConfiguration",
            json!({"Status": "On"}),
            "#/VersioningConfiguration/Status: On is not a valid enum value",
        ),
        ("VersioningConfiguration", json!({}), "required key [Status] not found"),
        (
            "VersioningConfiguration",
            json!("Enabled"),
            "#/VersioningConfiguration: expected type: JSONObject, found: String",
        ),
        (
            "LifecycleConfiguration",
            json!({"Rules": [{"Status": "Enabled", "Foo": 1}]}),
            "#/LifecycleConfiguration/Rules/0: extraneous key [Foo]",
        ),
    ] {
        let template = json!({"Resources": {"B": {"Type": "AWS::S3::Bucket", "Properties": {path: value}}}});
        let found = bed.change_set(
            "c",
            json!({"StackName": "bad", "ChangeSetType": "CREATE", "TemplateBody": template.to_string()}),
        );
        assert_eq!(found["Status"], "FAILED");
        assert!(text(&found, "StatusReason").contains("AWS::EarlyValidation::PropertyValidation"), "{found}");
        let events =
            bed.ok("DescribeEvents", json!({"ChangeSetName": found["ChangeSetId"], "Filters": {"FailedEvents": true}}));
        assert!(events.to_string().contains(told), "{events}\n  not {told}");
        bed.ok("DeleteChangeSet", json!({"ChangeSetName": found["ChangeSetId"]}));
    }
}

#[test]
fn scalars_become_what_the_schema_says() {
    let mut bed = Bed::new();
    let template = json!({
        "Parameters": {"Days": {"Type": "Number"}, "Scan": {"Type": "String"}},
        "Resources": {
            "Logs": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "/x", "RetentionInDays": {"Ref": "Days"}}},
            "Images": {"Type": "AWS::ECR::Repository", "Properties": {"RepositoryName": "images", "ImageScanningConfiguration": {"ScanOnPush": {"Ref": "Scan"}}}},
        },
    });
    let parameters =
        json!([{"ParameterKey": "Days", "ParameterValue": "7"}, {"ParameterKey": "Scan", "ParameterValue": "true"}]);
    bed.ok("CreateStack", json!({"StackName": "x", "TemplateBody": template.to_string(), "Parameters": parameters}));
    assert_eq!(bed.settle("x"), "CREATE_COMPLETE");
    let found = bed.other("ecr", "DescribeRepositories", json!({"repositoryNames": ["images"]}));
    assert_eq!(found["repositories"][0]["imageScanningConfiguration"]["scanOnPush"], true);
}

#[test]
fn the_schema_file_has_every_type_that_has_a_provider() {
    for kind in [
        "AWS::ApplicationAutoScaling::ScalableTarget",
        "AWS::ApplicationAutoScaling::ScalingPolicy",
        "AWS::ECR::Repository",
        "AWS::IAM::Policy",
        "AWS::IAM::Role",
        "AWS::Lambda::Function",
        "AWS::Lambda::Permission",
        "AWS::Lambda::Url",
        "AWS::Logs::LogGroup",
        "AWS::S3::Bucket",
        "AWS::S3::BucketPolicy",
        "AWS::SageMaker::Endpoint",
        "AWS::SageMaker::EndpointConfig",
        "AWS::SageMaker::Model",
    ] {
        let schema = crate::cfn::schema::of(kind).expect(kind);
        assert!(!schema.properties.is_empty());
    }
    assert_eq!(crate::cfn::schema::recreation("AWS::SageMaker::EndpointConfig", "ProductionVariants"), "Always");
    assert_eq!(crate::cfn::schema::recreation("AWS::SageMaker::Endpoint", "EndpointConfigName"), "Never");
}

#[test]
fn parameters_are_shown_and_hidden() {
    let mut bed = Bed::new();
    let template = json!({
        "Parameters": {"Secret": {"Type": "String", "NoEcho": true}, "Plain": {"Type": "String", "Default": "p", "Description": "d"}},
        "Resources": {"R": {"Type": "AWS::ECR::Repository"}},
    });
    let told = bed.ok("ValidateTemplate", json!({"TemplateBody": template.to_string()}));
    assert_eq!(told["Parameters"].as_array().map(Vec::len), Some(2));
    let given = json!([{"ParameterKey": "Secret", "ParameterValue": "hidden"}]);
    bed.ok("CreateStack", json!({"StackName": "x", "TemplateBody": template.to_string(), "Parameters": given}));
    let shown = bed.stack("x")["Parameters"].to_string();
    assert!(shown.contains("****") && !shown.contains("hidden"), "{shown}");
}
