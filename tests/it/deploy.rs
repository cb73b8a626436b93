//! up, status, plan, update-model, scale and destroy, from an empty account to an empty account.

use serde_json::{Value, json};

use crate::support::{App, Sandbox};

fn stack(sandbox: &Sandbox, name: &str) -> Option<Value> {
    let answer = sandbox.call("cloudformation", "DescribeStacks", json!({"StackName": name})).ok()?;
    Some(answer["Stacks"][0].clone())
}

fn endpoint(sandbox: &Sandbox) -> Value {
    sandbox.call("sagemaker", "DescribeEndpoint", json!({"EndpointName": "comfy"})).unwrap()
}

fn names(sandbox: &Sandbox, operation: &str, list: &str, member: &str) -> Vec<String> {
    let answer = sandbox.call("sagemaker", operation, json!({})).unwrap();
    let mut names: Vec<String> =
        answer[list].as_array().unwrap().iter().map(|m| m[member].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn models(sandbox: &Sandbox) -> Vec<String> {
    names(sandbox, "ListModels", "Models", "ModelName")
}

fn configs(sandbox: &Sandbox) -> Vec<String> {
    names(sandbox, "ListEndpointConfigs", "EndpointConfigs", "EndpointConfigName")
}

#[test]
fn up_deploys_and_a_second_up_changes_nothing() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    let plan = app.run(&["plan", "--output", "json", "--detailed-exitcode"]).exits(2).data();
    assert_eq!(plan["changes"], true);
    assert_eq!(stack(&sandbox, "comfy"), None, "plan made something");

    let first = app.run(&["up", "--yes", "--output", "json"]).exits(0).data();
    assert_eq!(first["changed"], true);
    assert_eq!(first["endpoint"]["status"], "InService");
    assert_eq!(first["endpoint"]["variant"], "AllTraffic");
    assert_eq!(first["endpoint"]["instance_type"], "ml.g5.xlarge");
    assert_eq!(first["image"]["built"], false);
    assert!(first["model"]["uploaded"].as_u64().unwrap() > 0);
    assert!(first["model"]["crc64nvme"].is_string());
    assert_eq!(first["endpoint"]["config"], format!("comfy-{}", first["model"]["version"].as_str().unwrap()));
    assert_eq!(stack(&sandbox, "comfy").unwrap()["StackStatus"], "CREATE_COMPLETE");

    sandbox.forget_calls();
    let second = app.run(&["up", "--yes", "--output", "json"]).exits(0);
    let calls = sandbox.calls();
    let count: u64 = calls.values().filter_map(Value::as_u64).sum();
    assert!(count <= 15, "{count} calls: {calls:?}");
    let data = second.data();
    assert_eq!(data["changed"], false);
    assert_eq!(data["model"]["uploaded"], 0);
    assert_eq!(data["endpoint"], first["endpoint"]);
    app.run(&["plan", "--detailed-exitcode"]).exits(0);

    let status = app.run(&["status", "--output", "json"]).exits(0).data();
    assert_eq!(status["endpoint"]["status"], "InService");
    assert_eq!(status["stacks"]["service"]["status"], "CREATE_COMPLETE");
}

#[test]
fn update_model_moves_the_endpoint_and_nothing_else_and_clears_the_old_one_away() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    let first = app.run(&["up", "--yes", "--output", "json"]).exits(0).data();
    app.run(&["update-model", "--yes"]).exits(0);
    assert_eq!(endpoint(&sandbox)["EndpointConfigName"], first["endpoint"]["config"], "nothing to move");

    app.write("models/loras/new.safetensors", "more weights");
    let second = app.run(&["update-model", "--version", "v2", "--yes", "--output", "json"]).exits(0).data();
    assert_eq!(second["changed"], true);
    assert!(second["model"]["version"].as_str().unwrap().starts_with("v2-"));
    assert_ne!(second["model"]["key"], first["model"]["key"]);
    assert_eq!(endpoint(&sandbox)["EndpointConfigName"], second["endpoint"]["config"]);
    let live = second["endpoint"]["config"].as_str().unwrap().to_owned();
    assert_eq!(configs(&sandbox), models(&sandbox));
    assert_eq!(models(&sandbox), [live]);
}

#[test]
fn scale_goes_through_the_stack_and_back() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    app.run(&["up", "--yes"]).exits(0);
    let target = || {
        sandbox
            .call("application-autoscaling", "DescribeScalableTargets", json!({"ServiceNamespace": "sagemaker"}))
            .unwrap()
    };
    app.run(&["scale", "schedule", "add", "night", "--when", "cron(0 20 * * ? *)", "--max", "1", "--yes"]).exits(2);
    app.run(&["scale", "set", "--min", "1", "--max", "4", "--yes"]).exits(0);
    assert_eq!(target()["ScalableTargets"][0]["MaxCapacity"], 4);
    app.run(&[
        "scale",
        "schedule",
        "add",
        "night",
        "--when",
        "cron(0 20 * * ? *)",
        "--timezone",
        "Europe/Berlin",
        "--max",
        "1",
        "--yes",
    ])
    .exits(0);
    let listed = app.run(&["scale", "schedule", "ls", "--output", "json"]).exits(0).data();
    assert_eq!(listed["schedules"][0]["name"], "night");
    let actions = sandbox
        .call("application-autoscaling", "DescribeScheduledActions", json!({"ServiceNamespace": "sagemaker"}))
        .unwrap();
    assert_eq!(actions["ScheduledActions"][0]["Timezone"], "Europe/Berlin");
    app.run(&["scale", "schedule", "rm", "nothing", "--yes"]).exits(2);
    app.run(&["scale", "schedule", "rm", "night", "--yes"]).exits(0);
    app.run(&["scale", "set", "--min", "5", "--max", "4", "--yes"]).exits(2);
    app.run(&["scale", "off", "--yes"]).exits(0);
    assert_eq!(target()["ScalableTargets"], json!([]));
    app.run(&["plan", "--detailed-exitcode"]).exits(0);
}

#[test]
fn another_instance_type_under_autoscaling_takes_two_updates_and_keeps_the_schedules() {
    let sandbox = Sandbox::new();
    let scaling = "autoscaling: {enabled: true, schedule: [{name: night, when: 'cron(0 20 * * ? *)', max: 1}]}\n";
    let app = App::with_image(&sandbox, scaling);
    app.run(&["up", "--yes"]).exits(0);
    let changed = app.run(&["up", "--yes", "--instance-type", "ml.g6.xlarge", "--output", "json"]).exits(0).data();
    assert_eq!(changed["endpoint"]["instance_type"], "ml.g6.xlarge");
    let actions = sandbox
        .call("application-autoscaling", "DescribeScheduledActions", json!({"ServiceNamespace": "sagemaker"}))
        .unwrap();
    assert_eq!(actions["ScheduledActions"][0]["ScheduledActionName"], "night");
}

#[test]
fn destroy_leaves_nothing_that_costs_and_says_what_it_keeps() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    app.run(&["up", "--yes"]).exits(0);
    app.run(&["destroy", "--yes"]).exits(3);
    app.run(&["destroy", "--confirm", "other"]).exits(3);
    assert!(stack(&sandbox, "comfy").is_some());
    let ran = app.run(&["destroy", "--confirm", "comfy"]).exits(0);
    assert!(ran.stdout.contains("kept     bucket comfy-123456789012-eu-west-1"), "{}", ran.stdout);
    assert_eq!(stack(&sandbox, "comfy"), None);
    assert!(sandbox.call("sagemaker", "DescribeEndpoint", json!({"EndpointName": "comfy"})).is_err());
    assert!(models(&sandbox).is_empty() && configs(&sandbox).is_empty());
    app.run(&["destroy", "--confirm", "comfy"]).exits(0);
    // What was kept is used again: no upload.
    let again = app.run(&["up", "--yes", "--output", "json"]).exits(0).data();
    assert_eq!(again["model"]["uploaded"], 0);
}

#[test]
fn a_container_that_does_not_answer_rolls_back_and_the_next_run_begins_anew() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    sandbox.break_things(json!([{"kind": "unhealthy", "endpoint": "*"}]));
    let failed = app.run(&["up", "--yes"]).exits(4);
    assert!(failed.stderr.contains("ComfyUIEndpoint"), "{}", failed.stderr);
    assert!(failed.stderr.contains("ping"), "{}", failed.stderr);
    assert_eq!(stack(&sandbox, "comfy").unwrap()["StackStatus"], "ROLLBACK_COMPLETE");
    let again = app.run(&["up", "--yes"]).exits(0);
    assert!(again.stderr.contains("The first creation of comfy failed"), "{}", again.stderr);
}

#[test]
fn an_update_that_fails_leaves_the_old_version_serving() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    let first = app.run(&["up", "--yes", "--output", "json"]).exits(0).data();
    app.write("models/more.safetensors", "more");
    sandbox.break_things(json!([{"kind": "unhealthy", "endpoint": "comfy"}]));
    app.run(&["up", "--yes"]).exits(4);
    assert_eq!(stack(&sandbox, "comfy").unwrap()["StackStatus"], "UPDATE_ROLLBACK_COMPLETE");
    assert_eq!(endpoint(&sandbox)["EndpointStatus"], "InService");
    assert_eq!(endpoint(&sandbox)["EndpointConfigName"], first["endpoint"]["config"]);
    app.run(&["up", "--yes"]).exits(0);
    assert_ne!(endpoint(&sandbox)["EndpointConfigName"], first["endpoint"]["config"]);
    assert_eq!(configs(&sandbox).len(), 1);
}

#[test]
fn a_silent_rollback_is_noticed_and_the_next_run_deploys_again() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    app.run(&["up", "--yes"]).exits(0);
    app.write("models/more.safetensors", "more");
    sandbox.break_things(json!([{"kind": "silent_rollback", "endpoint": "comfy"}]));
    let failed = app.run(&["up", "--yes", "--output", "json"]).exits(5);
    assert_eq!(failed.error()["code"], "silent_rollback");
    let status = app.run(&["status", "--output", "json"]).exits(0).data();
    assert!(status["silent_rollback"].is_string());
    app.run(&["up", "--yes"]).exits(0);
    let status = app.run(&["status", "--output", "json"]).exits(0).data();
    assert!(status["silent_rollback"].is_null());
}

#[test]
fn a_throttled_poll_and_a_failed_resource_are_told_apart() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    sandbox.break_things(json!([
        {"kind": "throttle", "service": "cloudformation", "operation": "DescribeStackEvents", "times": 12},
        {"kind": "throttle", "service": "cloudformation", "operation": "DescribeChangeSet", "times": 3},
    ]));
    app.run(&["up", "--yes"]).exits(0);
    sandbox.break_things(
        json!([{"kind": "resource_fails", "logical_id": "ComfyUIEndpointConfig", "message": "made to fail"}]),
    );
    app.write("models/more.safetensors", "more");
    let failed = app.run(&["up", "--yes"]).exits(4);
    assert!(failed.stderr.contains("ComfyUIEndpointConfig (AWS::SageMaker::EndpointConfig): "), "{}", failed.stderr);
    assert!(failed.stderr.contains("made to fail"), "{}", failed.stderr);
}

#[test]
fn the_quota_is_looked_at_before_any_byte_moves() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "endpoint: {instances: 21}\n");
    let refused = app.run(&["up", "--yes"]).exits(8);
    assert!(refused.stderr.contains("ml.g5.xlarge for endpoint usage"), "{}", refused.stderr);
    assert!(refused.stderr.contains("request-service-quota-increase"), "{}", refused.stderr);
    assert_eq!(stack(&sandbox, "comfy-foundation"), None);
}

#[test]
fn the_wrong_account_is_refused_first() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "expected_account: '999999999999'\n");
    sandbox.forget_calls();
    let refused = app.run(&["up", "--yes"]).exits(7);
    assert!(refused.stderr.contains("999999999999"), "{}", refused.stderr);
    app.run(&["scale", "schedule", "ls"]).exits(7);
    assert_eq!(sandbox.calls().keys().map(String::as_str).collect::<Vec<_>>(), ["sts:GetCallerIdentity"]);
}

#[test]
fn another_operation_on_the_stack_is_exit_6_and_wait_lock_waits_for_it() {
    let sandbox = Sandbox::with_time_scale(0.01);
    let app = App::with_image(&sandbox, "");
    app.run(&["up", "--yes"]).exits(0);
    app.write("models/more.safetensors", "more");
    let mut running = app
        .command(&["up", "--yes"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let busy = || stack(&sandbox, "comfy").unwrap()["StackStatus"] == "UPDATE_IN_PROGRESS";
    while !busy() {
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(running.try_wait().unwrap().is_none(), "it ended before the stack was busy");
    }
    let other = app.run(&["scale", "set", "--min", "1", "--max", "2", "--yes"]).exits(6);
    assert!(other.stderr.contains("--wait-lock"), "{}", other.stderr);
    app.run(&["scale", "--wait-lock", "5m", "set", "--min", "1", "--max", "2", "--yes"]).exits(0);
    assert!(running.wait().unwrap().success());
}

#[test]
fn killed_while_the_stack_is_made_the_same_command_follows_it_to_the_end() {
    let sandbox = Sandbox::with_time_scale(0.01);
    let app = App::with_image(&sandbox, "");
    let mut running = app
        .command(&["up", "--yes"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !stack(&sandbox, "comfy").is_some_and(|s| s["StackStatus"] == "CREATE_IN_PROGRESS") {
        std::thread::sleep(std::time::Duration::from_millis(10));
        assert!(running.try_wait().unwrap().is_none(), "it ended before the stack was begun");
    }
    running.kill().unwrap();
    running.wait().unwrap();
    let again = app.run(&["up", "--yes", "--output", "json"]).exits(0).data();
    assert_eq!(again["endpoint"]["status"], "InService");
    assert_eq!(models(&sandbox).len(), 1);
    assert_eq!(app.run(&["up", "--yes", "--output", "json"]).exits(0).data()["changed"], false);
    let status = app.run(&["status"]).exits(0);
    assert!(!status.stdout.contains("no outcome yet"), "{}", status.stdout);
}

#[test]
fn an_endpoint_deleted_by_hand_is_noticed_and_can_be_made_again() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    app.run(&["up", "--yes"]).exits(0);
    sandbox.call("sagemaker", "DeleteEndpoint", json!({"EndpointName": "comfy"})).unwrap();
    while sandbox.call("sagemaker", "DescribeEndpoint", json!({"EndpointName": "comfy"})).is_ok() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let status = app.run(&["status"]).exits(0);
    assert!(status.stdout.contains("the endpoint is gone"), "{}", status.stdout);
    for verb in [["up", "--yes"].as_slice(), &["update-model", "--yes"], &["scale", "set", "--max", "2", "--yes"]] {
        let refused = app.run(verb).exits(1);
        assert!(refused.stderr.contains("the endpoint is gone"), "{verb:?}: {}", refused.stderr);
        assert!(refused.stderr.contains("comfy-deploy destroy, then comfy-deploy up"), "{verb:?}: {}", refused.stderr);
    }
    app.run(&["destroy", "--confirm", "comfy"]).exits(0);
    app.run(&["up", "--yes"]).exits(0);
    assert_eq!(endpoint(&sandbox)["EndpointStatus"], "InService");
}
