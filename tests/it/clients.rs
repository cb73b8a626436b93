//! Second clients: boto3 and the `aws` command line, unmodified, from the tests' own Python environment. They read back
//! what the program deployed, deploy the templates without it, and see the errors that users of other tools would see.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{App, REGION, Ran, Sandbox, python, run};

/// The repository's root.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn scripts() -> PathBuf {
    root().join("tests/clients")
}

/// A foreign client with the sandbox's environment and nothing of the user's.
fn client(sandbox: &Sandbox, program: &Path) -> Command {
    let mut command = Command::new(program);
    let home = scripts();
    command
        .env_clear()
        .env("PATH", program.parent().unwrap())
        // Nobody's configuration: there is none beside the scripts.
        .env("HOME", &home)
        // Shortens the pauses of the waiters.
        .env("PYTHONPATH", &home)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("AWS_ENDPOINT_URL", &sandbox.url)
        .env("AWS_ACCESS_KEY_ID", "sandbox")
        .env("AWS_SECRET_ACCESS_KEY", "sandbox")
        .env("AWS_REGION", REGION)
        .env("AWS_DEFAULT_REGION", REGION)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_PAGER", "")
        .stdin(Stdio::null());
    command
}

/// `aws ARGS --output json`.
fn aws(sandbox: &Sandbox, args: &[&str]) -> Ran {
    let program = python().with_file_name("aws");
    let mut command = client(sandbox, &program);
    command.args(args).args(["--output", "json"]);
    run(command)
}

/// The answer of an `aws` call that succeeds.
#[track_caller]
fn ask(sandbox: &Sandbox, args: &[&str]) -> Value {
    let ran = aws(sandbox, args).exits(0);
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {}", ran.stdout))
}

/// Runs a script of tests/clients, which ends well only if everything it asserts holds.
#[track_caller]
fn script(sandbox: &Sandbox, name: &str, args: &[&str]) {
    let mut command = client(sandbox, &python());
    command.arg(scripts().join(name)).args(args);
    let ran = run(command).exits(0);
    let looked = ran.stdout.trim().strip_prefix("looked through ").and_then(|s| s.strip_suffix(" answers"));
    assert!(looked.is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n > 5)), "it did not get to its end: {}", ran.stdout);
}

/// `aws cloudformation deploy` of a template of the repository, as it is.
fn deploy(sandbox: &Sandbox, stack: &str, template: &str, parameters: &[String], more: &[&str]) -> Ran {
    let file = root().join("templates").join(template);
    let mut args = vec!["cloudformation", "deploy", "--stack-name", stack, "--template-file", file.to_str().unwrap()];
    args.push("--parameter-overrides");
    args.extend(parameters.iter().map(String::as_str));
    args.extend(more);
    aws(sandbox, &args)
}

fn parameters<const N: usize>(values: [(&str, &str); N]) -> Vec<String> {
    values.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// Deploys the foundation by awscli, then the rest by the program; boto3 reads everything back.
fn reads_back(url: &str, auth: &str) {
    let sandbox = Sandbox::new();
    // By hand first, so that the repository is the template's own and there is one to push the image to.
    let bucket = format!("comfy-123456789012-{REGION}");
    let values = parameters([("AppName", "comfy"), ("BucketName", bucket.as_str()), ("RepositoryName", "comfy")]);
    let tags = ["--tags", "comfy-deploy:app=comfy", "project=clients"];
    deploy(&sandbox, "comfy-foundation", "foundation.yaml", &values, &tags).exits(0);
    let digest = sandbox.push_image("comfy", "build-1", "one", false);

    let app = App::new(&sandbox);
    app.write(
        "workflows/workflow_api.json",
        &std::fs::read_to_string(root().join("workflows/workflow_api.json")).unwrap(),
    );
    app.configure(&format!(
        "image: {{uri: 'comfy@{digest}'}}\n\
         lambda: {{url: {url}}}\n\
         autoscaling:\n\
         \x20 enabled: true\n\
         \x20 min: 1\n\
         \x20 max: 4\n\
         \x20 schedule:\n\
         \x20 - {{name: night, when: 'cron(0 20 * * ? *)', timezone: Europe/Berlin, max: 1}}\n\
         \x20 - {{name: morning, when: 'cron(0 7 * * ? *)', timezone: Europe/Berlin, min: 2, max: 4}}\n\
         tags: {{project: clients}}\n"
    ));
    let up = app.run(&["up", "--yes", "--output", "json"]).exits(0);
    assert!(
        !up.stderr.contains("foundation: bucket"),
        "what awscli deployed is what the program wants:\n{}",
        up.stderr
    );
    script(&sandbox, "read_back.py", &[&up.data().to_string(), auth]);
}

#[test]
fn boto3_reads_back_every_resource_of_an_app_with_a_public_url() {
    reads_back("none", "NONE");
}

#[test]
fn boto3_reads_back_every_resource_of_an_app_whose_url_takes_signed_calls_only() {
    reads_back("aws_iam", "AWS_IAM");
}

#[test]
fn the_templates_stand_alone_under_awscli_from_creation_to_deletion() {
    let sandbox = Sandbox::new();
    let validated = |name: &str| {
        let body = format!("file://{}", root().join("templates").join(name).display());
        ask(&sandbox, &["cloudformation", "validate-template", "--template-body", &body])
    };
    assert_eq!(validated("foundation.yaml").get("Capabilities"), None);
    let service = validated("service.yaml");
    assert_eq!(service["Capabilities"], json!(["CAPABILITY_IAM"]));
    let required: Vec<&str> = service["Parameters"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|p| p.get("DefaultValue").is_none())
        .map(|p| p["ParameterKey"].as_str().unwrap())
        .collect();
    assert_eq!(required, ["DeploymentBucket", "ModelVersion", "ModelDataS3Key", "ModelEcrImage"]);

    let stack =
        |name: &str| ask(&sandbox, &["cloudformation", "describe-stacks", "--stack-name", name])["Stacks"][0].clone();
    deploy(&sandbox, "alone-foundation", "foundation.yaml", &parameters([("AppName", "alone")]), &[]).exits(0);
    assert_eq!(stack("alone-foundation")["StackStatus"], "CREATE_COMPLETE");
    let bucket = format!("alone-123456789012-{REGION}");
    sandbox.push_image("alone", "c-1", "one", false);
    let scratch = tempfile::TempDir::new().unwrap();
    let archive = scratch.path().join("model.tar.gz");
    std::fs::write(&archive, b"weights").unwrap();
    let key = format!("s3://{bucket}/models/v1/model.tar.gz");
    aws(&sandbox, &["s3", "cp", archive.to_str().unwrap(), &key]).exits(0);

    let values = |version: &str, scaling: &str| {
        parameters([
            ("AppName", "alone"),
            ("DeploymentBucket", bucket.as_str()),
            ("ModelVersion", version),
            ("ModelDataS3Key", "models/v1/model.tar.gz"),
            ("ModelEcrImage", "alone:c-1"),
            ("SageMakerAutoScaling", scaling),
        ])
    };
    let refused = deploy(&sandbox, "alone", "service.yaml", &values("v1", "false"), &[]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("InsufficientCapabilities"), "{}", refused.stderr);

    let allowed = ["--capabilities", "CAPABILITY_IAM"];
    deploy(&sandbox, "alone", "service.yaml", &values("v1", "false"), &allowed).exits(0);
    assert_eq!(stack("alone")["StackStatus"], "CREATE_COMPLETE");
    let again = [allowed.as_slice(), &["--no-fail-on-empty-changeset"]].concat();
    let again = deploy(&sandbox, "alone", "service.yaml", &values("v1", "false"), &again).exits(0);
    let said = format!("{}{}", again.stdout, again.stderr);
    assert!(said.contains("No changes to deploy. Stack alone is up to date"), "{said}");

    change_set(&sandbox, &values("v2", "true"));

    // As a user without the program would do it; the foundation keeps what holds data.
    for name in ["alone", "alone-foundation"] {
        aws(&sandbox, &["cloudformation", "delete-stack", "--stack-name", name]).exits(0);
        aws(&sandbox, &["cloudformation", "wait", "stack-delete-complete", "--stack-name", name]).exits(0);
        let gone = aws(&sandbox, &["cloudformation", "describe-stacks", "--stack-name", name]);
        assert!(gone.stderr.contains(&format!("Stack with id {name} does not exist")), "{}", gone.stderr);
    }
    assert_eq!(ask(&sandbox, &["sagemaker", "list-endpoints"])["Endpoints"], json!([]));
    aws(&sandbox, &["s3api", "head-object", "--bucket", &bucket, "--key", "models/v1/model.tar.gz"]).exits(0);
}

/// A change set by hand: made, looked at with its values, executed, waited for.
fn change_set(sandbox: &Sandbox, values: &[String]) {
    let body = format!("file://{}", root().join("templates/service.yaml").display());
    let mut create = vec!["cloudformation", "create-change-set", "--stack-name", "alone", "--change-set-name", "to-v2"];
    create.extend(["--template-body", &body, "--capabilities", "CAPABILITY_IAM", "--parameters"]);
    let pairs: Vec<String> = values
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| format!("ParameterKey={name},ParameterValue={value}"))
        .collect();
    create.extend(pairs.iter().map(String::as_str));
    ask(sandbox, &create);
    let named = |verb: &[&'static str], more: &[&'static str]| {
        [&["cloudformation"], verb, &["--stack-name", "alone", "--change-set-name", "to-v2"], more].concat()
    };
    aws(sandbox, &named(&["wait", "change-set-create-complete"], &[])).exits(0);
    let shown = ask(sandbox, &named(&["describe-change-set"], &["--include-property-values"]));
    assert_eq!(shown["ExecutionStatus"], "AVAILABLE");
    let mut changes: Vec<(&str, &str, &str)> = Vec::new();
    for change in shown["Changes"].as_array().unwrap() {
        let change = &change["ResourceChange"];
        let text = |name: &str| change.get(name).and_then(Value::as_str).unwrap_or("");
        changes.push((text("LogicalResourceId"), text("Action"), text("Replacement")));
    }
    changes.sort_unstable();
    assert_eq!(
        changes,
        [
            ("ComfyUIEndpoint", "Modify", "False"),
            ("ComfyUIEndpointConfig", "Modify", "True"),
            ("ComfyUIModel", "Modify", "True"),
            ("ComfyUIScalableTarget", "Add", ""),
            ("ComfyUIScalingPolicy", "Add", ""),
        ]
    );
    let all = shown["Changes"].as_array().unwrap();
    let model = all.iter().find(|c| c["ResourceChange"]["LogicalResourceId"] == "ComfyUIModel").unwrap();
    let details = model["ResourceChange"]["Details"].as_array().unwrap();
    let name = details.iter().find(|d| d["Target"]["Name"] == "ModelName").unwrap();
    assert_eq!(name["Target"]["BeforeValue"], "alone-v1");
    assert_eq!(name["Target"]["AfterValue"], "alone-v2");
    assert_eq!(name["Target"]["RequiresRecreation"], "Always");
    aws(sandbox, &named(&["execute-change-set"], &[])).exits(0);
    aws(sandbox, &["cloudformation", "wait", "stack-update-complete", "--stack-name", "alone"]).exits(0);
    let live = ask(sandbox, &["sagemaker", "describe-endpoint", "--endpoint-name", "alone"]);
    assert_eq!(live["EndpointConfigName"], "alone-v2");
    assert_eq!(live["EndpointStatus"], "InService");
}

#[test]
fn s3_serves_boto3_and_awscli_files_in_parts_versions_conditions_and_owners() {
    let sandbox = Sandbox::new();
    let scratch = tempfile::TempDir::new().unwrap();
    script(&sandbox, "objects.py", &[scratch.path().to_str().unwrap()]);
}

#[test]
fn boto3_knows_every_error_by_its_class_and_repeats_what_is_throttled() {
    let sandbox = Sandbox::new();
    sandbox.call("ecr", "CreateRepository", json!({"repositoryName": "errors"})).unwrap();
    let docker = sandbox.push_image("errors", "docker", "one", false);
    let oci = sandbox.push_image("errors", "oci", "one", true);
    script(&sandbox, "errors.py", &[&docker, &oci]);
}
