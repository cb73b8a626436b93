//! One test or more for each rule, named after it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::testing::{at, refusal, role, world};
use crate::world::{Answer, World, call};

fn lambda(world: &mut World, seconds: i64, operation: &str, mut input: Value) -> Answer {
    if input["FunctionName"].is_null() {
        input["FunctionName"] = json!("f");
    }
    world.tick(at(seconds).now);
    call(world, &at(seconds), "lambda", operation, &input)
}

fn zip() -> String {
    STANDARD.encode(b"PK\x05\x06 and more")
}

fn function(world: &mut World) -> Value {
    json!({
        "Runtime": "provided.al2023",
        "Handler": "bootstrap",
        "Role": role(world),
        "Code": {"ZipFile": zip()},
        "Architectures": ["arm64"],
    })
}

fn made() -> World {
    let mut world = world();
    let input = function(&mut world);
    lambda(&mut world, 0, "CreateFunction", input).unwrap();
    world
}

#[test]
fn name_taken() {
    let mut world = made();
    let input = function(&mut world);
    let refused = refusal(lambda(&mut world, 0, "CreateFunction", input));
    assert_eq!(refused, "ResourceConflictException: Function already exist: f");
}

#[test]
fn role_is_assumed() {
    let mut world = world();
    let mut input = function(&mut world);
    input["Role"] = json!("arn:aws:iam::123456789012:role/none");
    assert!(refusal(lambda(&mut world, 0, "CreateFunction", input)).contains("cannot be assumed by Lambda"));
}

#[test]
fn code_exists() {
    let mut world = world();
    let mut input = function(&mut world);
    for (code, wanted) in [
        (json!({"S3Bucket": "none-such", "S3Key": "k"}), "NoSuchBucket"),
        (json!({"S3Bucket": "there", "S3Key": "k"}), "NoSuchKey"),
        (json!({"ZipFile": STANDARD.encode(b"text")}), "Could not unzip"),
        (json!({}), "source for function code"),
    ] {
        world.s3.buckets.entry("there".into()).or_default();
        input["Code"] = code;
        let refused = refusal(lambda(&mut world, 0, "CreateFunction", input.clone()));
        assert!(refused.starts_with("InvalidParameterValueException: ") && refused.contains(wanted), "{refused}");
    }
}

#[test]
fn zip_needs_runtime() {
    let mut world = world();
    let mut input = function(&mut world);
    input["Handler"] = Value::Null;
    assert!(refusal(lambda(&mut world, 0, "CreateFunction", input)).contains("Runtime and Handler are mandatory"));
}

#[test]
fn update_in_progress() {
    let mut world = made();
    let update = json!({"Timeout": 90});
    let refused = refusal(lambda(&mut world, 4, "UpdateFunctionConfiguration", update.clone()));
    assert!(refused.contains("following state: Pending"), "{refused}");
    assert_eq!(lambda(&mut world, 5, "GetFunctionConfiguration", json!({})).unwrap()["State"], "Active");
    lambda(&mut world, 5, "UpdateFunctionConfiguration", update).unwrap();
    let refused = refusal(lambda(&mut world, 6, "UpdateFunctionCode", json!({"ZipFile": zip()})));
    assert!(
        refused.starts_with("ResourceConflictException: ") && refused.contains("An update is in progress"),
        "{refused}"
    );
    let shown = lambda(&mut world, 10, "GetFunctionConfiguration", json!({})).unwrap();
    assert_eq!((&shown["LastUpdateStatus"], &shown["Timeout"]), (&json!("Successful"), &json!(90)));
}

#[test]
fn reserved_environment() {
    let mut world = world();
    let mut input = function(&mut world);
    input["Environment"] = json!({"Variables": {"AWS_REGION": "x"}});
    assert!(refusal(lambda(&mut world, 0, "CreateFunction", input.clone())).ends_with("AWS_REGION"));
    input["Environment"] = json!({"Variables": {"LONG": "x".repeat(4096)}});
    assert!(refusal(lambda(&mut world, 0, "CreateFunction", input)).contains("4KB limit"));
}

#[test]
fn unreserved_concurrency() {
    let mut world = made();
    let reserve = |n: i64| json!({"ReservedConcurrentExecutions": n});
    assert!(refusal(lambda(&mut world, 0, "PutFunctionConcurrency", reserve(901))).contains("minimum value of [100]"));
    lambda(&mut world, 0, "PutFunctionConcurrency", reserve(900)).unwrap();
    let shown = lambda(&mut world, 0, "GetFunction", json!({})).unwrap();
    assert_eq!(shown["Concurrency"]["ReservedConcurrentExecutions"], 900);
    lambda(&mut world, 0, "DeleteFunctionConcurrency", json!({})).unwrap();
    assert_eq!(lambda(&mut world, 0, "GetFunctionConcurrency", json!({})).unwrap(), json!({}));
}

#[test]
fn one_url() {
    let mut world = made();
    let made = lambda(&mut world, 0, "CreateFunctionUrlConfig", json!({"AuthType": "AWS_IAM"})).unwrap();
    let url = made["FunctionUrl"].as_str().unwrap();
    assert!(url.starts_with("http://127.0.0.1:1/_function-urls/") && url.ends_with('/'), "{url}");
    let refused = refusal(lambda(&mut world, 0, "CreateFunctionUrlConfig", json!({"AuthType": "NONE"})));
    assert!(refused.starts_with("ResourceConflictException: "), "{refused}");
    let updated = lambda(&mut world, 0, "UpdateFunctionUrlConfig", json!({"AuthType": "NONE"})).unwrap();
    assert_eq!((&updated["AuthType"], &updated["FunctionUrl"]), (&json!("NONE"), &made["FunctionUrl"]));
    lambda(&mut world, 0, "DeleteFunctionUrlConfig", json!({})).unwrap();
    assert!(refusal(lambda(&mut world, 0, "GetFunctionUrlConfig", json!({}))).starts_with("ResourceNotFoundException"));
}

#[test]
fn statement_taken_and_url_auth_action() {
    let mut world = made();
    let permission = |id: &str, action: &str| json!({"StatementId": id, "Action": action, "Principal": "*"});
    let mut url = permission("url", "lambda:InvokeFunctionUrl");
    url["FunctionUrlAuthType"] = json!("NONE");
    lambda(&mut world, 0, "AddPermission", url.clone()).unwrap();
    let refused = refusal(lambda(&mut world, 0, "AddPermission", url.clone()));
    assert!(refused.starts_with("ResourceConflictException: ") && refused.contains("(url)"), "{refused}");
    let mut via = permission("invoke", "lambda:InvokeFunction");
    via["InvokedViaFunctionUrl"] = json!(true);
    lambda(&mut world, 0, "AddPermission", via.clone()).unwrap();
    (via["StatementId"], via["Action"]) = (json!("x"), json!("lambda:InvokeFunctionUrl"));
    assert!(refusal(lambda(&mut world, 0, "AddPermission", via)).contains("InvokedViaFunctionUrl"));
    (url["StatementId"], url["Action"]) = (json!("y"), json!("lambda:InvokeFunction"));
    assert!(refusal(lambda(&mut world, 0, "AddPermission", url)).contains("FunctionUrlAuthType"));

    let policy = lambda(&mut world, 0, "GetPolicy", json!({})).unwrap();
    let policy: Value = serde_json::from_str(policy["Policy"].as_str().unwrap()).unwrap();
    assert_eq!(policy["Statement"][0]["Condition"]["StringEquals"]["lambda:FunctionUrlAuthType"], "NONE");
    assert_eq!(policy["Statement"][1]["Condition"]["Bool"]["lambda:InvokedViaFunctionUrl"], "true");
    lambda(&mut world, 0, "RemovePermission", json!({"StatementId": "url"})).unwrap();
    lambda(&mut world, 0, "RemovePermission", json!({"StatementId": "invoke"})).unwrap();
    assert!(refusal(lambda(&mut world, 0, "GetPolicy", json!({}))).starts_with("ResourceNotFoundException"));
}

#[test]
fn a_function_is_found_by_name_and_arn() {
    let mut world = made();
    for name in ["f", "arn:aws:lambda:us-east-1:123456789012:function:f", "123456789012:function:f"] {
        let shown = lambda(&mut world, 0, "GetFunctionConfiguration", json!({"FunctionName": name})).unwrap();
        assert_eq!(shown["FunctionName"], "f");
        assert_eq!(shown["LoggingConfig"]["LogGroup"], "/aws/lambda/f");
    }
}
