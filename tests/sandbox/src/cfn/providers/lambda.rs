//! AWS::Lambda::Function, Url and Permission.

use serde_json::{Map, Value, json};

use super::{Change, Failure, Job, Status, as_map, call, custom_name, pick, removed, tags};
use crate::cfn::names;
use crate::world::{Ctx, World};

/// Properties that go into CreateFunction and UpdateFunctionConfiguration as they are.
const CONFIGURATION: [&str; 14] = [
    "DeadLetterConfig",
    "Description",
    "Environment",
    "EphemeralStorage",
    "FileSystemConfigs",
    "Handler",
    "ImageConfig",
    "Layers",
    "LoggingConfig",
    "MemorySize",
    "Role",
    "Runtime",
    "Timeout",
    "VpcConfig",
];
/// Other names in the API.
const RENAMED: [(&str, &str); 3] =
    [("KmsKeyArn", "KMSKeyArn"), ("SnapStart", "SnapStart"), ("TracingConfig", "TracingConfig")];

fn configuration(properties: &Map<String, Value>) -> Map<String, Value> {
    let mut input = pick(properties, &CONFIGURATION);
    for (property, member) in RENAMED {
        input.extend(properties.get(property).map(|value| (member.to_owned(), value.clone())));
    }
    input
}

/// `Code` in the API's words; inline source needs a runtime of its own and is refused.
fn code(properties: &Map<String, Value>) -> Result<Map<String, Value>, Failure> {
    let code = properties.get("Code").and_then(Value::as_object).cloned().unwrap_or_default();
    if code.contains_key("ZipFile") {
        return Err(Failure::Handler {
            message: "ZipFile can only be used when Runtime is set to nodejs or python, which the sandbox does not run"
                .to_owned(),
            code: "InvalidRequest",
        });
    }
    Ok(pick(&code, &["S3Bucket", "S3Key", "S3ObjectVersion", "ImageUri"]))
}

pub(super) fn create(world: &mut World, ctx: &Ctx, job: &Job<'_>) -> Result<String, Failure> {
    match job.kind {
        "AWS::Lambda::Url" => {
            let input = url_input(job.properties);
            let made = call(world, ctx, "lambda", "CreateFunctionUrlConfig", input)?;
            Ok(made["FunctionArn"].as_str().map_or_else(|| function_arn(ctx, job.properties), str::to_owned))
        }
        "AWS::Lambda::Permission" => permit(world, ctx, job),
        _ => create_function(world, ctx, job),
    }
}

fn function_arn(ctx: &Ctx, properties: &Map<String, Value>) -> String {
    let target = properties.get("TargetFunctionArn").and_then(Value::as_str).unwrap_or_default();
    if target.starts_with("arn:") { target.to_owned() } else { ctx.arn("lambda", &format!("function:{target}")) }
}

fn create_function(world: &mut World, ctx: &Ctx, job: &Job<'_>) -> Result<String, Failure> {
    let name = custom_name(job, "FunctionName").unwrap_or_else(|| names::physical(job.stack_name, job.logical, 64));
    let mut input = configuration(job.properties);
    input.extend(pick(job.properties, &["Architectures", "CodeSigningConfigArn", "PackageType"]));
    input.insert("FunctionName".to_owned(), json!(name));
    input.insert("Code".to_owned(), Value::Object(code(job.properties)?));
    input.insert("Tags".to_owned(), as_map(&tags(job)));
    call(world, ctx, "lambda", "CreateFunction", Value::Object(input))?;
    if let Err(failure) = concurrency(world, ctx, &name, job.properties.get("ReservedConcurrentExecutions")) {
        // The stack never learns this function's name, so nothing may be left of it.
        call(world, ctx, "lambda", "DeleteFunction", json!({ "FunctionName": name }))?;
        return Err(failure);
    }
    Ok(name)
}

fn concurrency(world: &mut World, ctx: &Ctx, name: &str, reserved: Option<&Value>) -> Result<(), Failure> {
    if let Some(reserved) = reserved {
        let input = json!({ "FunctionName": name, "ReservedConcurrentExecutions": reserved });
        call(world, ctx, "lambda", "PutFunctionConcurrency", input)?;
    }
    Ok(())
}

fn url_input(properties: &Map<String, Value>) -> Value {
    let mut input = pick(properties, &["AuthType", "InvokeMode", "Qualifier"]);
    if let Some(Value::Object(cors)) = properties.get("Cors") {
        input.insert("Cors".to_owned(), Value::Object(cors.clone()));
    }
    input.extend(properties.get("TargetFunctionArn").map(|arn| ("FunctionName".to_owned(), arn.clone())));
    Value::Object(input)
}

fn permit(world: &mut World, ctx: &Ctx, job: &Job<'_>) -> Result<String, Failure> {
    let id = names::physical(job.stack_name, job.logical, 100);
    let mut input = pick(
        job.properties,
        &[
            "Action",
            "EventSourceToken",
            "FunctionName",
            "FunctionUrlAuthType",
            "InvokedViaFunctionUrl",
            "Principal",
            "PrincipalOrgID",
            "SourceAccount",
            "SourceArn",
        ],
    );
    input.insert("StatementId".to_owned(), json!(id));
    call(world, ctx, "lambda", "AddPermission", Value::Object(input))?;
    Ok(id)
}

pub(super) fn update(world: &mut World, ctx: &Ctx, change: &Change<'_>) -> Result<(), Failure> {
    let new = change.job.properties;
    match change.job.kind {
        "AWS::Lambda::Url" => {
            call(world, ctx, "lambda", "UpdateFunctionUrlConfig", url_input(new))?;
            return Ok(());
        }
        // Every property of a permission is create-only.
        "AWS::Lambda::Permission" => return Ok(()),
        _ => {}
    }
    let name = change.physical;
    if change.any_differs(&["Code", "Architectures"]) {
        let mut input = code(new)?;
        input.extend(pick(new, &["Architectures"]));
        input.insert("FunctionName".to_owned(), json!(name));
        busy(call(world, ctx, "lambda", "UpdateFunctionCode", Value::Object(input)))?;
    }
    let (before, after) = (configuration(change.old), configuration(new));
    if before != after {
        let mut input = after;
        for gone in before.keys().filter(|member| !input.contains_key(*member)).cloned().collect::<Vec<_>>() {
            // What is no longer in the template goes back to its default.
            let default = match gone.as_str() {
                "Description" | "KMSKeyArn" => json!(""),
                "Environment" => json!({ "Variables": {} }),
                "EphemeralStorage" => json!({ "Size": 512 }),
                "FileSystemConfigs" | "Layers" => json!([]),
                "MemorySize" => json!(128),
                "Timeout" => json!(3),
                "TracingConfig" => json!({ "Mode": "PassThrough" }),
                "VpcConfig" => json!({ "SubnetIds": [], "SecurityGroupIds": [] }),
                _ => continue,
            };
            input.insert(gone, default);
        }
        input.insert("FunctionName".to_owned(), json!(name));
        busy(call(world, ctx, "lambda", "UpdateFunctionConfiguration", Value::Object(input)))?;
    }
    if change.differs("ReservedConcurrentExecutions") {
        match change.wanted("ReservedConcurrentExecutions") {
            Some(reserved) => concurrency(world, ctx, name, Some(reserved))?,
            None => {
                call(world, ctx, "lambda", "DeleteFunctionConcurrency", json!({ "FunctionName": name }))?;
            }
        }
    }
    if let Some((before, after)) = change.tags() {
        let arn = ctx.arn("lambda", &format!("function:{name}"));
        let gone = removed(&before, &after);
        if !gone.is_empty() {
            call(world, ctx, "lambda", "UntagResource", json!({ "Resource": arn, "TagKeys": gone }))?;
        }
        call(world, ctx, "lambda", "TagResource", json!({ "Resource": arn, "Tags": as_map(&after) }))?;
    }
    Ok(())
}

/// A function whose last update goes on answers ResourceConflictException; it is asked again later.
fn busy(answer: crate::world::Answer) -> Result<(), Failure> {
    match answer {
        Ok(_) => Ok(()),
        Err(error) if error.code == "ResourceConflictException" => Err(Failure::Busy(error.message)),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn delete(
    world: &mut World,
    ctx: &Ctx,
    kind: &str,
    physical: &str,
    properties: &Map<String, Value>,
) -> Result<(), Failure> {
    let (operation, input) = match kind {
        "AWS::Lambda::Url" => {
            let mut input = pick(properties, &["Qualifier"]);
            input.insert("FunctionName".to_owned(), json!(function_arn(ctx, properties)));
            ("DeleteFunctionUrlConfig", Value::Object(input))
        }
        "AWS::Lambda::Permission" => {
            let mut input = pick(properties, &["FunctionName"]);
            input.insert("StatementId".to_owned(), json!(physical));
            ("RemovePermission", Value::Object(input))
        }
        _ => ("DeleteFunction", json!({ "FunctionName": physical })),
    };
    call(world, ctx, "lambda", operation, input)?;
    Ok(())
}

pub(super) fn function_status(world: &mut World, ctx: &Ctx, physical: &str) -> Status {
    let found = match call(world, ctx, "lambda", "GetFunction", json!({ "FunctionName": physical })) {
        Ok(found) => found,
        Err(error) if error.code.contains("TooManyRequests") => return Status::Pending,
        Err(error) => return Status::Failed(error.message),
    };
    let configuration = &found["Configuration"];
    let told = |member: &str| configuration[member].as_str().unwrap_or("the function failed").to_owned();
    match (configuration["State"].as_str(), configuration["LastUpdateStatus"].as_str()) {
        (Some("Pending"), _) | (_, Some("InProgress")) => Status::Pending,
        (Some("Failed"), _) => Status::Failed(told("StateReason")),
        (_, Some("Failed")) => Status::Failed(told("LastUpdateStatusReason")),
        _ => Status::Ready,
    }
}

pub(super) fn attributes(
    world: &mut World,
    ctx: &Ctx,
    kind: &str,
    physical: &str,
    properties: &Map<String, Value>,
) -> Value {
    match kind {
        "AWS::Lambda::Url" => {
            let arn = function_arn(ctx, properties);
            let found = call(world, ctx, "lambda", "GetFunctionUrlConfig", json!({ "FunctionName": arn }));
            let url = found.map(|found| found["FunctionUrl"].clone()).unwrap_or_default();
            json!({ "FunctionArn": arn, "FunctionUrl": url })
        }
        "AWS::Lambda::Permission" => json!({ "Id": physical }),
        _ => json!({ "Arn": ctx.arn("lambda", &format!("function:{physical}")) }),
    }
}
