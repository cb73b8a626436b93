use serde_json::json;

use super::*;

const EVERYTHING: &str = "
endpoint:
  vpc: {subnets: [subnet-0a1b2c3d, subnet-0a1b2c3e], security_groups: [sg-0a1b2c3d]}
  environment: {COMFY_ARGS: --lowvram, LEVEL: '1_000'}
autoscaling:
  enabled: true
  schedule:
    - {name: day, when: cron(0 8 ? * MON-FRI *), timezone: Europe/Berlin, min: 2, max: 4}
    - {name: night, when: cron(0 20 * * ? *), min: 1}
";

#[test]
fn the_default_service_template() {
    insta::assert_snapshot!("service", service(&settings("")).body);
}

#[test]
fn the_default_foundation_template() {
    insta::assert_snapshot!("foundation", foundation(&settings("")).body);
}

#[test]
fn the_default_parameters() {
    let settings = settings("");
    insta::assert_json_snapshot!(
        "parameters",
        json!({
            "foundation": foundation_parameters(&settings, ACCOUNT),
            "service": parameters(&settings),
        })
    );
}

#[test]
fn defaults_render_the_file_itself() {
    assert_eq!(service(&settings("")).value, parse(SERVICE).unwrap());
}

#[test]
fn lists_are_added() {
    let template = service(&settings(EVERYTHING)).value;
    let model = &template["Resources"][ids::MODEL]["Properties"];
    assert_eq!(
        model["VpcConfig"],
        json!({"SecurityGroupIds": ["sg-0a1b2c3d"], "Subnets": ["subnet-0a1b2c3d", "subnet-0a1b2c3e"]})
    );
    assert_eq!(model["PrimaryContainer"]["Environment"], json!({"COMFY_ARGS": "--lowvram", "LEVEL": "1_000"}));
    let target = &template["Resources"][ids::SCALABLE_TARGET]["Properties"];
    assert_eq!(
        target["ScheduledActions"],
        json!([
            {
                "ScheduledActionName": "day",
                "Schedule": "cron(0 8 ? * MON-FRI *)",
                "Timezone": "Europe/Berlin",
                "ScalableTargetAction": {"MinCapacity": 2, "MaxCapacity": 4}
            },
            {
                "ScheduledActionName": "night",
                "Schedule": "cron(0 20 * * ? *)",
                "ScalableTargetAction": {"MinCapacity": 1}
            }
        ])
    );
}

#[test]
fn network_interfaces_only_with_a_vpc() {
    let actions = |yaml: &str| evaluated(&settings(yaml)).resources[ids::EXECUTION_ROLE].properties.to_string();
    assert!(!actions("").contains("ec2:"));
    assert!(actions(EVERYTHING).contains("ec2:CreateNetworkInterface\""));
}

#[test]
fn the_key_may_be_used_only_if_there_is_one() {
    let role = |yaml: &str| evaluated(&settings(yaml)).resources[ids::EXECUTION_ROLE].properties.to_string();
    let key = "arn:aws:kms:eu-west-1:123456789012:key/1234";
    assert!(!role("").contains("kms:"));
    assert!(role(&format!("storage: {{kms_key_arn: '{key}'}}")).contains(key));
}

#[test]
fn parameters_are_those_of_the_templates() {
    let settings = settings("");
    for (template, given) in [(FOUNDATION, foundation_parameters(&settings, ACCOUNT)), (SERVICE, parameters(&settings))]
    {
        let template = parse(template).unwrap();
        let mut defined: Vec<_> = template["Parameters"].as_object().unwrap().keys().cloned().collect();
        defined.sort();
        assert_eq!(given.into_keys().collect::<Vec<_>>(), defined);
    }
}

#[test]
fn defaults_of_config_and_template_agree() {
    // Whoever deploys the file by hand gets what the config file's defaults give.
    let template = parse(SERVICE).unwrap();
    let given = parameters(&settings(""));
    for (name, definition) in template["Parameters"].as_object().unwrap() {
        let named_by_hand = ["RepositoryName"];
        if let Some(default) = definition.get("Default").filter(|_| !named_by_hand.contains(&name.as_str())) {
            let default = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
            let expected = if name == "LambdaPackageS3Key" { String::new() } else { given[name].clone() };
            assert_eq!(default, expected, "{name}");
        }
    }
}

#[test]
fn every_parameter_is_described_and_grouped() {
    for text in [FOUNDATION, SERVICE] {
        let template = parse(text).unwrap();
        let interface = &template["Metadata"]["AWS::CloudFormation::Interface"];
        let grouped: Vec<&str> = interface["ParameterGroups"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|g| g["Parameters"].as_array().unwrap())
            .map(|p| p.as_str().unwrap())
            .collect();
        for (name, definition) in template["Parameters"].as_object().unwrap() {
            assert!(definition["Description"].as_str().is_some_and(|d| d.ends_with('.')), "{name}");
            assert_eq!(grouped.iter().filter(|g| *g == name).count(), 1, "{name}");
            let bounded = ["AllowedPattern", "AllowedValues", "MinValue"].iter().any(|k| definition.get(k).is_some());
            assert!(bounded, "{name}");
        }
        assert_eq!(grouped.len(), template["Parameters"].as_object().unwrap().len());
    }
}

#[test]
fn an_adopted_bucket_leaves_the_repository_alone_in_the_foundation() {
    let settings = settings("storage: {bucket: shared-artifacts}");
    let parameters = foundation_parameters(&settings, ACCOUNT);
    let evaluated = evaluate(&foundation(&settings).value, &parameters, &pseudo()).unwrap();
    assert_eq!(evaluated.resources.keys().collect::<Vec<_>>(), ["ImageRepository"]);
    assert_eq!(evaluated.outputs["BucketName"], "shared-artifacts");
}

#[test]
fn names_are_known_before_anything_exists() {
    let settings = settings("");
    let parameters = foundation_parameters(&settings, ACCOUNT);
    let evaluated = evaluate(&foundation(&settings).value, &parameters, &pseudo()).unwrap();
    let name = |id: &str, property: &str| evaluated.resources[id].properties[property].clone();
    assert_eq!(name("DeploymentBucket", "BucketName"), "comfyui-123456789012-eu-west-1");
    assert_eq!(name("ImageRepository", "RepositoryName"), "comfyui");
    for id in ["DeploymentBucket", "ImageRepository"] {
        assert_eq!(evaluated.resources[id].deletion_policy.as_deref(), Some("RetainExceptOnCreate"));
        assert_eq!(evaluated.resources[id].update_replace_policy.as_deref(), Some("Retain"));
    }
    // It could not be imported by a stack made anew, which would then fail because the bucket has a policy.
    assert_eq!(evaluated.resources["DeploymentBucketPolicy"].deletion_policy.as_deref(), Some("Delete"));
}

#[test]
fn published_images_are_claimed_before_any_rule_can_expire_them() {
    let template = parse(FOUNDATION).unwrap();
    let text = &template["Resources"]["ImageRepository"]["Properties"]["LifecyclePolicy"]["LifecyclePolicyText"];
    let policy: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
    let rules = policy["rules"].as_array().unwrap();
    assert_eq!(rules[0]["rulePriority"], 1);
    assert_eq!(rules[0]["selection"]["tagPrefixList"], json!(["c-"]));
    assert_eq!(rules[0]["selection"]["countType"], "imageCountMoreThan");
    assert_eq!(rules[1]["selection"]["tagPrefixList"], json!(["build-"]));
    assert_eq!(rules[2]["selection"]["tagStatus"], "untagged");
}

#[test]
fn the_function_and_its_url_can_be_left_out() {
    let kinds = |yaml: &str| -> Vec<String> {
        evaluated(&settings(yaml)).resources.into_values().map(|r| r.kind).filter(|k| k.contains("Lambda")).collect()
    };
    assert_eq!(kinds("lambda: {enabled: false}"), Vec::<String>::new());
    assert_eq!(kinds("lambda: {url: off}"), ["AWS::Lambda::Function"]);
    assert_eq!(kinds(""), ["AWS::Lambda::Function", "AWS::Lambda::Url"]);
    let permissions = ["AWS::Lambda::Permission", "AWS::Lambda::Url", "AWS::Lambda::Permission"];
    let public = kinds("lambda: {url: none}");
    assert_eq!(public.iter().filter(|k| permissions.contains(&k.as_str())).count(), 3);
}

#[test]
fn the_url_and_the_function_agree_on_the_mode() {
    for (yaml, invoke, variable) in [
        ("", "RESPONSE_STREAM", "stream"),
        ("lambda: {url_mode: stream}", "RESPONSE_STREAM", "stream"),
        ("lambda: {url_mode: buffered}", "BUFFERED", "buffered"),
    ] {
        let resources = evaluated(&settings(yaml)).resources;
        assert_eq!(resources[ids::FUNCTION_URL].properties["InvokeMode"], invoke, "{yaml}");
        let variables = &resources[ids::FUNCTION].properties["Environment"]["Variables"];
        assert_eq!(variables["COMFY_URL_MODE"], variable, "{yaml}");
    }
}

#[test]
fn a_public_url_opens_the_function_only_through_the_url() {
    let evaluated = evaluated(&settings("lambda: {url: none}"));
    assert_eq!(
        evaluated.resources["ComfyUIFunctionUrlPermission"].properties,
        json!({
            "FunctionName": {"Ref": "ComfyUIFunction"},
            "Action": "lambda:InvokeFunctionUrl",
            "Principal": "*",
            "FunctionUrlAuthType": "NONE"
        })
    );
    assert_eq!(
        evaluated.resources["ComfyUIFunctionInvokePermission"].properties,
        json!({
            "FunctionName": {"Ref": "ComfyUIFunction"},
            "Action": "lambda:InvokeFunction",
            "Principal": "*",
            "InvokedViaFunctionUrl": true
        })
    );
}

#[test]
fn given_roles_are_used_and_none_is_made() {
    let evaluated = evaluated(&settings(
        "endpoint: {execution_role_arn: 'arn:aws:iam::123456789012:role/e'}\nlambda: {role_arn: 'arn:aws:iam::123456789012:role/f'}",
    ));
    assert!(evaluated.resources.values().all(|r| r.kind != "AWS::IAM::Role"));
    assert_eq!(evaluated.resources[ids::MODEL].properties["ExecutionRoleArn"], "arn:aws:iam::123456789012:role/e");
    assert_eq!(evaluated.resources[ids::FUNCTION].properties["Role"], "arn:aws:iam::123456789012:role/f");
}

#[test]
fn the_role_reads_what_the_artifact_needs_and_no_more() {
    let settings = settings("");
    let prefix = |key: &str| {
        let mut artifacts = artifacts(&settings);
        artifacts.model.key = key.into();
        service_parameters(&settings, &artifacts, "v1").remove("ModelDataPrefix").unwrap()
    };
    assert_eq!(prefix("models/0123456789abcdef01234567/model.tar.gz"), "models/");
    assert_eq!(prefix("team/sdxl/model.tar.gz"), "team/sdxl/");
    assert_eq!(prefix("team/files/"), "team/files/");
    assert_eq!(prefix("model.tgz"), "model.tgz");
    assert_eq!(prefix("a*b/model.tgz"), "a");
}

#[test]
fn the_repository_is_that_of_the_image() {
    let settings = settings("");
    for image in ["team/comfy:v1", &format!("team/comfy@{DIGEST}")] {
        let artifacts = Artifacts { image: image.into(), ..artifacts(&settings) };
        assert_eq!(service_parameters(&settings, &artifacts, "v1")["RepositoryName"], "team/comfy");
    }
}

#[test]
fn an_image_elsewhere_keeps_its_host() {
    let settings = settings("");
    let artifacts = Artifacts { registry: "127.0.0.1:4599".into(), ..artifacts(&settings) };
    let parameters = service_parameters(&settings, &artifacts, "v1");
    let evaluated = evaluate(&service(&settings).value, &parameters, &pseudo()).unwrap();
    let image = &evaluated.resources[ids::MODEL].properties["PrimaryContainer"]["Image"];
    assert_eq!(image, &format!("127.0.0.1:4599/comfyui@{DIGEST}"));
}

#[test]
fn a_caller_needs_both_actions() {
    let policy = invoker_policy("arn:aws:lambda:eu-west-1:123456789012:function:comfyui-lambda");
    let statements = policy["Statement"].as_array().unwrap();
    let actions: Vec<_> = statements.iter().map(|s| s["Action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["lambda:InvokeFunctionUrl", "lambda:InvokeFunction"]);
    assert_eq!(statements[1]["Condition"]["Bool"]["lambda:InvokedViaFunctionUrl"], "true");
}
