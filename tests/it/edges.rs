//! What happens at the edges of a deployment: names that look alike, artifacts made elsewhere, runs that stop half-way.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{App, Ran, Sandbox, run};

fn status(sandbox: &Sandbox, stack: &str) -> String {
    let answer = sandbox.call("cloudformation", "DescribeStacks", json!({"StackName": stack})).unwrap();
    answer["Stacks"][0]["StackStatus"].as_str().unwrap().to_owned()
}

fn endpoint(sandbox: &Sandbox, name: &str) -> Value {
    sandbox.call("sagemaker", "DescribeEndpoint", json!({"EndpointName": name})).unwrap()
}

fn image_of(ran: &Ran) -> String {
    ran.data()["image"]["digest"].as_str().unwrap().to_owned()
}

#[test]
fn environments_share_bucket_and_repository_and_never_touch_each_other() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "environments: {prod: {models: {version: v9}}}\n");
    let plain = app.run(&["up", "--yes", "--output", "json"]).exits(0).data();
    let prod = app.run(&["up", "--yes", "--env", "prod", "--output", "json"]).exits(0).data();
    assert_eq!(prod["endpoint"]["name"], "comfy-prod");
    assert_eq!(prod["model"]["uploaded"], 0, "the artifact is shared");
    assert_eq!(prod["model"]["key"], plain["model"]["key"]);
    app.run(&["plan", "--detailed-exitcode"]).exits(0);
    app.run(&["plan", "--detailed-exitcode", "--env", "prod"]).exits(0);

    // `comfy` is the beginning of `comfy-prod`: clearing up after one must leave the other's model alone.
    app.write("models/more.safetensors", "more");
    let cleared = app.run(&["update-model", "--yes", "--output", "json"]).exits(0).data()["cleared"].clone();
    assert_eq!(cleared.as_array().unwrap().len(), 2, "{cleared}");
    let live = endpoint(&sandbox, "comfy-prod")["EndpointConfigName"].as_str().unwrap().to_owned();
    assert!(sandbox.call("sagemaker", "DescribeModel", json!({"ModelName": live})).is_ok());
    app.run(&["destroy", "--confirm", "comfy"]).exits(0);
    assert_eq!(endpoint(&sandbox, "comfy-prod")["EndpointStatus"], "InService");
    assert!(sandbox.call("sagemaker", "DescribeModel", json!({"ModelName": live})).is_ok());
}

#[test]
fn a_tag_that_moved_is_noticed_and_deployed_by_digest() {
    let sandbox = Sandbox::new();
    let app = App::new(&sandbox);
    sandbox.call("ecr", "CreateRepository", json!({"repositoryName": "other"})).unwrap();
    let first = sandbox.push_image("other", "v1", "one", false);
    app.configure("image: {uri: 'other:v1'}\n");
    assert_eq!(image_of(&app.run(&["up", "--yes", "--output", "json"]).exits(0)), first);
    app.run(&["plan", "--detailed-exitcode"]).exits(0);
    let second = sandbox.push_image("other", "v1", "two", false);
    app.run(&["plan", "--detailed-exitcode"]).exits(2);
    assert_eq!(image_of(&app.run(&["up", "--yes", "--output", "json"]).exits(0)), second);
}

#[test]
fn a_prebuilt_image_that_sagemaker_would_refuse_is_refused_before_anything_is_made() {
    let sandbox = Sandbox::new();
    let app = App::new(&sandbox);
    sandbox.call("ecr", "CreateRepository", json!({"repositoryName": "comfy"})).unwrap();
    sandbox.push_image("comfy", "oci", "one", true);
    app.configure("image: {uri: 'comfy:oci'}\n");
    let refused = app.run(&["up", "--yes"]).exits(2);
    assert!(refused.stderr.contains("OCI"), "{}", refused.stderr);
    app.configure("image: {uri: 'comfy:absent'}\n");
    app.run(&["up", "--yes"]).exits(2);
    assert!(sandbox.call("cloudformation", "DescribeStacks", json!({"StackName": "comfy-foundation"})).is_err());
}

#[test]
fn a_repository_of_another_app_is_not_taken_over() {
    let sandbox = Sandbox::new();
    let app = App::new(&sandbox);
    let tags = json!([{"Key": "comfy-deploy:app", "Value": "other"}]);
    sandbox.call("ecr", "CreateRepository", json!({"repositoryName": "comfy", "tags": tags})).unwrap();
    let digest = sandbox.push_image("comfy", "v1", "one", false);
    app.configure(&format!("image: {{uri: 'comfy@{digest}'}}\n"));
    let refused = app.run(&["up", "--yes"]).exits(3);
    assert!(refused.stderr.contains("belongs to another app"), "{}", refused.stderr);
    assert!(sandbox.call("cloudformation", "DescribeStacks", json!({"StackName": "comfy-foundation"})).is_err());
}

#[test]
fn destroyed_with_its_foundation_an_app_takes_its_bucket_back() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    app.run(&["up", "--yes"]).exits(0);
    app.run(&["destroy", "--confirm", "comfy", "--foundation"]).exits(0);
    let plan = app.run(&["plan"]).exits(0);
    assert!(plan.stdout.contains("taken back"), "{}", plan.stdout);
    let again = app.run(&["up", "--yes", "--output", "json"]).exits(0).data();
    assert_eq!(again["model"]["uploaded"], 0);
}

#[test]
fn an_adopted_bucket_is_used_and_not_made() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    app.run(&["up", "--yes"]).exits(0);
    let image = sandbox.push_image("comfy", "v2", "two", false);
    let bucket = "comfy-123456789012-eu-west-1";
    let other = App::new(&sandbox);
    let text = format!(
        "version: 1\napp: second\nregion: eu-west-1\nlambda: {{enabled: false}}\nimage: {{uri: 'comfy@{image}'}}\nstorage: {{bucket: {bucket}}}\n"
    );
    other.write("comfy-deploy.yaml", &text);
    let made = other.run(&["up", "--yes", "--output", "json"]).exits(0).data();
    assert_eq!(made["model"]["bucket"], bucket);
    assert_eq!(made["model"]["uploaded"], 0, "content addressed");
    other.run(&["plan", "--detailed-exitcode"]).exits(0);
    other.write("comfy-deploy.yaml", &text.replace(bucket, "nobody-has-this-bucket"));
    other.run(&["plan"]).exits(2);
}

#[test]
fn a_deadline_leaves_the_operation_going_and_the_next_run_joins_it() {
    let sandbox = Sandbox::with_time_scale(0.02);
    let app = App::with_image(&sandbox, "");
    let late = app.run(&["up", "--yes", "--timeout", "2s"]).exits(1);
    assert!(late.stderr.contains("goes on in AWS"), "{}", late.stderr);
    assert!(late.stderr.contains("--timeout 2s"), "the command that continues: {}", late.stderr);
    assert_eq!(status(&sandbox, "comfy"), "CREATE_IN_PROGRESS");
    let joined = app.run(&["up", "--yes", "--output", "json"]).exits(0).data();
    assert_eq!(joined["endpoint"]["status"], "InService");
    let shown = app.run(&["status"]).exits(0).stdout;
    assert!(!shown.contains("no outcome yet"), "{shown}");
    app.run(&["plan", "--detailed-exitcode"]).exits(0);
}

#[test]
fn a_joined_operation_that_fails_is_told_with_its_own_events_only() {
    let sandbox = Sandbox::with_time_scale(0.02);
    let app = App::with_image(&sandbox, "");
    app.run(&["up", "--yes"]).exits(0);
    app.write("models/more.safetensors", "more");
    sandbox.break_things(
        json!([{"kind": "resource_fails", "logical_id": "ComfyUIEndpointConfig", "message": "first fault"}]),
    );
    app.run(&["up", "--yes"]).exits(4);
    sandbox.break_things(json!([{"kind": "unhealthy", "endpoint": "comfy"}]));
    app.run(&["up", "--yes", "--timeout", "2s"]).exits(1);
    let joined = app.run(&["up", "--yes"]).exits(4);
    assert!(!joined.stderr.contains("first fault"), "{}", joined.stderr);
    assert!(joined.stderr.contains("ping"), "{}", joined.stderr);
    assert!(!app.run(&["status"]).exits(0).stdout.contains("no outcome yet"));
}

#[test]
fn interrupted_while_the_change_set_is_made_nothing_is_left_over() {
    let sandbox = Sandbox::with_time_scale(0.02);
    let app = App::with_image(&sandbox, "");
    // The change set is asked for again and again, until the signal.
    sandbox.break_things(json!([
        {"kind": "throttle", "service": "cloudformation", "operation": "DescribeChangeSet", "times": 100000},
    ]));
    let running = app.command(&["up", "--yes"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    while sandbox.call("cloudformation", "DescribeStacks", json!({"StackName": "comfy-foundation"})).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let id = running.id().to_string();
    let mut kill = std::process::Command::new("kill");
    kill.args(["-INT", &id]);
    run(kill).exits(0);
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    let gone = || match sandbox.call("cloudformation", "DescribeStacks", json!({"StackName": "comfy-foundation"})) {
        Ok(_) => false,
        Err(e) => e.contains("does not exist"),
    };
    for _ in 0..200 {
        if gone() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(gone(), "an empty stack is left");
    sandbox.break_things(json!([]));
    app.run(&["up", "--yes"]).exits(0);
}

#[test]
fn a_failed_second_step_puts_autoscaling_back() {
    let sandbox = Sandbox::new();
    let scaling = "autoscaling: {enabled: true, schedule: [{name: night, when: 'cron(0 20 * * ? *)', max: 1}]}\n";
    let app = App::with_image(&sandbox, scaling);
    let first = app.run(&["up", "--yes", "--output", "json"]).exits(0).data();
    sandbox.break_things(json!([{"kind": "unhealthy", "endpoint": "comfy"}]));
    let failed = app.run(&["up", "--yes", "--instance-type", "ml.g6.xlarge"]).exits(4);
    assert!(failed.stderr.contains("put back"), "{}", failed.stderr);
    let actions = sandbox
        .call("application-autoscaling", "DescribeScheduledActions", json!({"ServiceNamespace": "sagemaker"}))
        .unwrap();
    assert_eq!(actions["ScheduledActions"][0]["ScheduledActionName"], "night");
    assert_eq!(endpoint(&sandbox, "comfy")["EndpointConfigName"], first["endpoint"]["config"]);
    app.run(&["plan", "--detailed-exitcode"]).exits(0);
}
