//! A function: its code, its configuration, its states.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{arn, conflict, find, invalid, package};
use crate::input::{pick, string_map, text};
use crate::world::{Answer, ApiError, Ctx, World, iso};
use crate::{iam, s3};

/// AWS seconds until a new function is Active, or an update done.
const SETTLE_SECONDS: f64 = 5.0;
/// Bytes that names and values of the environment have together.
const ENVIRONMENT_LIMIT: usize = 4096;
/// Configuration members that are kept as given.
const SETTINGS: [&str; 14] = [
    "Runtime",
    "Role",
    "Handler",
    "Description",
    "Timeout",
    "MemorySize",
    "VpcConfig",
    "DeadLetterConfig",
    "Environment",
    "KMSKeyArn",
    "TracingConfig",
    "EphemeralStorage",
    "SnapStart",
    "LoggingConfig",
];

/// A function.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Function {
    settings: Map<String, Value>,
    architectures: Value,
    code: Code,
    modified: i64,
    revision: String,
    /// Pending until then; 0 afterwards.
    pending_until: i64,
    /// An update goes on until then; 0 afterwards.
    updating_until: i64,
    pub(super) reserved: Option<i64>,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) url: Option<super::url::Config>,
    /// Statements of the resource policy by id, in the order in which they came.
    pub(super) policy: Vec<(String, Value)>,
}

/// A zip file.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
struct Code {
    bucket: String,
    key: String,
    size: u64,
    /// SHA-256, base64.
    sha256: String,
}

impl Function {
    /// As GetFunctionConfiguration shows it.
    pub(super) fn show(&self, ctx: &Ctx, name: &str) -> Value {
        let mut shown = Value::Object(self.settings.clone());
        let pending = self.pending_until != 0;
        let members = json!({
            "FunctionName": name,
            "FunctionArn": arn(ctx, name),
            "CodeSize": self.code.size,
            "CodeSha256": self.code.sha256,
            // Lambda's own format has no colon in the offset.
            "LastModified": iso(self.modified).replace('Z', "+0000"),
            "Version": "$LATEST",
            "RevisionId": self.revision,
            "PackageType": "Zip",
            "Architectures": self.architectures,
            "State": if pending { "Pending" } else { "Active" },
            "LastUpdateStatus": if pending || self.updating_until != 0 { "InProgress" } else { "Successful" },
        });
        for (member, value) in members.as_object().into_iter().flatten() {
            shown[member] = value.clone();
        }
        if pending {
            shown["StateReason"] = json!("The function is being created.");
            shown["StateReasonCode"] = json!("Creating");
        }
        if shown["LoggingConfig"]["LogGroup"].is_null() {
            shown["LoggingConfig"]["LogGroup"] = json!(format!("/aws/lambda/{name}"));
        }
        if shown["LoggingConfig"]["LogFormat"].is_null() {
            shown["LoggingConfig"]["LogFormat"] = json!("Text");
        }
        shown
    }

    /// Where the zip file lies.
    pub(super) fn location(&self, endpoint: &str) -> String {
        format!("{endpoint}/{}/{}", self.code.bucket, self.code.key)
    }

    /// The code's SHA-256 in base64.
    pub(super) fn sha256(&self) -> &str {
        &self.code.sha256
    }

    /// Changes with every change of code or configuration.
    pub(super) fn revision(&self) -> &str {
        &self.revision
    }

    /// What an invocation needs to know.
    pub(super) fn plan(&self, ctx: &Ctx, name: &str, unreserved: i64) -> Result<Plan, ApiError> {
        if self.pending_until != 0 {
            return Err(conflict(format!(
                "The operation cannot be performed at this time. The function is currently in the following state: \
                 Pending: {}",
                arn(ctx, name)
            )));
        }
        let settings = Value::Object(self.settings.clone());
        let group = settings["LoggingConfig"]["LogGroup"].as_str();
        Ok(Plan {
            region: ctx.region.clone(),
            name: name.to_owned(),
            arn: arn(ctx, name),
            revision: self.revision.clone(),
            sha256: self.code.sha256.clone(),
            handler: text(&settings, "Handler").to_owned(),
            role: text(&settings, "Role").to_owned(),
            timeout: settings["Timeout"].as_u64().unwrap_or(3),
            memory: settings["MemorySize"].as_i64().unwrap_or(128),
            architecture: self.architectures[0].as_str().unwrap_or("x86_64").to_owned(),
            environment: string_map(&settings["Environment"]["Variables"]),
            log_group: group.map_or_else(|| format!("/aws/lambda/{name}"), str::to_owned),
            reserved: self.reserved,
            unreserved,
            policy: self.policy.iter().map(|(_, statement)| statement.clone()).collect(),
        })
    }

    /// Ends what is due.
    pub(super) fn settle(&mut self, now: i64) -> bool {
        let mut moved = false;
        for until in [&mut self.pending_until, &mut self.updating_until] {
            if *until != 0 && *until <= now {
                *until = 0;
                moved = true;
            }
        }
        moved
    }

    fn idle(&self, ctx: &Ctx, name: &str) -> Result<(), ApiError> {
        let state = match (self.pending_until, self.updating_until) {
            (0, 0) => return Ok(()),
            (0, _) => "An update is in progress for resource",
            _ => "The function is currently in the following state: Pending",
        };
        Err(conflict(format!("The operation cannot be performed at this time. {state}: {}", arn(ctx, name))))
    }

    fn touch(&mut self, ctx: &Ctx, until: i64) {
        self.modified = ctx.now;
        self.revision = uuid::Uuid::new_v4().to_string();
        self.updating_until = until;
    }
}

/// What an invocation needs to know of a function.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub region: String,
    pub name: String,
    pub arn: String,
    pub revision: String,
    pub sha256: String,
    pub handler: String,
    /// ARN.
    pub role: String,
    /// Seconds.
    pub timeout: u64,
    /// MB.
    pub memory: i64,
    pub architecture: String,
    pub environment: BTreeMap<String, String>,
    pub log_group: String,
    /// Reserved concurrency.
    pub reserved: Option<i64>,
    /// What functions without reserved concurrency share.
    pub unreserved: i64,
    /// Statements of the resource policy.
    pub policy: Vec<Value>,
}

impl Plan {
    /// Region and name.
    pub(super) fn key(&self) -> (String, String) {
        (self.region.clone(), self.name.clone())
    }
}

fn code(world: &World, given: &Value) -> Result<Code, ApiError> {
    if let Some(zip) = given["ZipFile"].as_str() {
        let bytes = STANDARD
            .decode(zip)
            .map_err(|_| invalid("Could not unzip uploaded file. Please check your file, then try to upload again."))?;
        return described(world, &bytes, "", "");
    }
    if !given["ImageUri"].is_null() {
        return Err(invalid("The sandbox runs functions from zip files only."));
    }
    let (bucket, key) = (text(given, "S3Bucket"), text(given, "S3Key"));
    if bucket.is_empty() || key.is_empty() {
        return Err(invalid("Please provide a source for function code."));
    }
    if !world.s3.buckets.contains_key(bucket) {
        return Err(s3_refused("NoSuchBucket", "The specified bucket does not exist"));
    }
    let bytes =
        s3::read(world, bucket, key).ok_or_else(|| s3_refused("NoSuchKey", "The specified key does not exist."))?;
    described(world, &bytes, bucket, key)
}

fn s3_refused(code: &str, text: &str) -> ApiError {
    invalid(format!("Error occurred while GetObject. S3 Error Code: {code}. S3 Error Message: {text}"))
}

fn described(world: &World, bytes: &[u8], bucket: &str, key: &str) -> Result<Code, ApiError> {
    // A zip file starts with a local header, an empty one with the end record.
    if !bytes.starts_with(b"PK\x03\x04") && !bytes.starts_with(b"PK\x05\x06") {
        return Err(invalid("Could not unzip uploaded file. Please check your file, then try to upload again."));
    }
    let sha256 = STANDARD.encode(Sha256::digest(bytes));
    package::keep(&world.dir, &sha256, bytes)
        .map_err(|error| ApiError::new("ServiceException", error.to_string()).status(500))?;
    Ok(Code { bucket: bucket.to_owned(), key: key.to_owned(), size: bytes.len() as u64, sha256 })
}

/// Names that Lambda sets by itself.
const RESERVED: [&str; 17] = [
    "_HANDLER",
    "_X_AMZN_TRACE_ID",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_LAMBDA_RUNTIME_API",
    "LAMBDA_TASK_ROOT",
];

fn check_settings(world: &World, input: &Value) -> Result<(), ApiError> {
    if let Some(role) = input["Role"].as_str().filter(|r| !iam::trusts(world, r, "lambda.amazonaws.com")) {
        tracing::debug!(role, "the role cannot be assumed");
        return Err(invalid("The role defined for the function cannot be assumed by Lambda."));
    }
    let environment = string_map(&input["Environment"]["Variables"]);
    let taken: Vec<&str> = environment.keys().map(String::as_str).filter(|k| RESERVED.contains(k)).collect();
    if !taken.is_empty() {
        return Err(invalid(format!(
            "Lambda was unable to configure your environment variables because the environment variables you have provided \
             contains reserved keys that are currently not supported for modification. Reserved keys used in this request: {}",
            taken.join(", ")
        )));
    }
    let size: usize = environment.iter().map(|(k, v)| k.len() + v.len()).sum();
    if size > ENVIRONMENT_LIMIT {
        return Err(invalid(format!(
            "Lambda was unable to configure your environment variables because the environment variables you have provided \
             exceeded the 4KB limit. String measured: {}",
            input["Environment"]["Variables"]
        )));
    }
    Ok(())
}

pub(super) fn create(world: &mut World, ctx: &Ctx, name: &str, input: &Value) -> Answer {
    if world.region(&ctx.region).lambda.functions.contains_key(name) {
        return Err(conflict(format!("Function already exist: {name}")));
    }
    if input["Runtime"].is_null() || input["Handler"].is_null() {
        return Err(invalid(
            "Runtime and Handler are mandatory parameters for functions created with deployment packages.",
        ));
    }
    check_settings(world, input)?;
    let code = code(world, &input["Code"])?;
    let mut settings = pick(input, &SETTINGS);
    for (member, default) in [
        ("Description", json!("")),
        ("Timeout", json!(3)),
        ("MemorySize", json!(128)),
        ("TracingConfig", json!({"Mode": "PassThrough"})),
        ("EphemeralStorage", json!({"Size": 512})),
    ] {
        settings.entry(member).or_insert(default);
    }
    let function = Function {
        settings,
        architectures: Some(&input["Architectures"]).filter(|a| !a.is_null()).cloned().unwrap_or(json!(["x86_64"])),
        code,
        modified: ctx.now,
        revision: uuid::Uuid::new_v4().to_string(),
        pending_until: ctx.now + world.millis(SETTLE_SECONDS).max(1),
        tags: string_map(&input["Tags"]),
        ..Function::default()
    };
    let shown = function.show(ctx, name);
    world.region(&ctx.region).lambda.functions.insert(name.to_owned(), function);
    Ok(shown)
}

pub(super) fn update_code(world: &mut World, ctx: &Ctx, name: &str, input: &Value) -> Answer {
    find(world, ctx, name)?.idle(ctx, name)?;
    let code = code(world, input)?;
    let until = ctx.now + world.millis(SETTLE_SECONDS).max(1);
    let function = find(world, ctx, name)?;
    if input["DryRun"] == true {
        return Ok(function.show(ctx, name));
    }
    function.code = code;
    if !input["Architectures"].is_null() {
        function.architectures = input["Architectures"].clone();
    }
    function.touch(ctx, until);
    Ok(function.show(ctx, name))
}

pub(super) fn update_configuration(world: &mut World, ctx: &Ctx, name: &str, input: &Value) -> Answer {
    find(world, ctx, name)?.idle(ctx, name)?;
    check_settings(world, input)?;
    let until = ctx.now + world.millis(SETTLE_SECONDS).max(1);
    let function = find(world, ctx, name)?;
    function.settings.extend(pick(input, &SETTINGS));
    function.touch(ctx, until);
    Ok(function.show(ctx, name))
}
