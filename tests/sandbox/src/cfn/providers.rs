//! How each resource type is made, changed and deleted: through the services' own APIs, so that their rules bind
//! stacks too.

mod ecr;
mod iam;
mod lambda;
mod logs;
mod s3;
mod sagemaker;
mod scaling;

use serde_json::{Map, Value, json};

use super::{invalid, schema};
use crate::world::{Answer, ApiError, Ctx, World};

/// One call of a provider.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    pub stack_id: &'a str,
    pub stack_name: &'a str,
    pub logical: &'a str,
    pub kind: &'a str,
    pub properties: &'a Map<String, Value>,
    /// The stack's tags.
    pub tags: &'a [(String, String)],
}

/// What a provider made.
#[derive(Debug)]
pub struct Made {
    /// What `Ref` gives.
    pub physical: String,
    /// What `Fn::GetAtt` gives.
    pub attributes: Map<String, Value>,
}

/// Whether a resource is as wanted.
#[derive(Debug, PartialEq, Eq)]
pub enum Status {
    Ready,
    Pending,
    /// With the service's reason.
    Failed(String),
}

/// Why a call of a provider failed.
#[derive(Debug)]
pub enum Failure {
    /// The service cannot yet; to be tried again.
    Busy(String),
    /// A service said no.
    Handler { message: String, code: &'static str },
    /// CloudFormation itself said no.
    Plain(String),
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let code = error.code.as_str();
        let handler = if code.contains("Throttl") || code.contains("TooManyRequests") || code.contains("RateExceeded") {
            return Failure::Busy(error.message);
        } else if code.contains("AlreadyExists")
            || error.message.contains("already existing")
            || code.contains("AlreadyOwned")
            || code == "ResourceConflictException"
        {
            "AlreadyExists"
        } else if code.contains("NotFound") || code.starts_with("NoSuch") || error.status == 404 {
            "NotFound"
        } else if code.contains("AccessDenied") || error.status == 403 {
            "AccessDenied"
        } else if code.contains("LimitExceeded") || code.contains("ServiceQuota") {
            "ServiceLimitExceeded"
        } else if error.status >= 500 {
            "ServiceInternalError"
        } else {
            "InvalidRequest"
        };
        Failure::Handler { message: error.message, code: handler }
    }
}

/// What is done to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Create,
    Update,
    Delete,
}

/// Typical AWS seconds of a step beside what the service itself takes (endpoints are asked until they are ready).
/// IAM waits for a new role to be known everywhere.
pub fn seconds(kind: &str, action: Action) -> f64 {
    match (kind, action) {
        ("AWS::IAM::Role", Action::Create) => 17.0,
        ("AWS::IAM::Policy", Action::Create) => 16.0,
        ("AWS::S3::Bucket", Action::Create) => 14.0,
        ("AWS::Lambda::Function", Action::Create) => 7.0,
        ("AWS::Lambda::Function", Action::Update) => 6.0,
        (_, Action::Create) => 3.0,
        (_, Action::Update) => 2.0,
        (_, Action::Delete) => 1.5,
    }
}

fn unknown(kind: &str) -> Failure {
    Failure::Plain(invalid(format!("Unrecognized resource types: [{kind}]")).message)
}

/// Makes a resource.
pub fn create(world: &mut World, ctx: &Ctx, job: &Job<'_>) -> Result<Made, Failure> {
    let made = match job.kind.split("::").nth(1) {
        Some("ApplicationAutoScaling") => scaling::create(world, ctx, job),
        Some("ECR") => ecr::create(world, ctx, job),
        Some("IAM") => iam::create(world, ctx, job),
        Some("Lambda") => lambda::create(world, ctx, job),
        Some("Logs") => logs::create(world, ctx, job),
        Some("S3") => s3::create(world, ctx, job),
        Some("SageMaker") => sagemaker::create(world, ctx, job),
        _ => return Err(unknown(job.kind)),
    };
    made.map(|physical| {
        let attributes = attributes(world, ctx, job.kind, &physical, job.properties);
        Made { physical, attributes }
    })
    .map_err(|failure| owned_elsewhere(world, ctx, job, failure))
}

/// Where the name belongs to another stack, CloudFormation says to which.
fn owned_elsewhere(world: &mut World, ctx: &Ctx, job: &Job<'_>, failure: Failure) -> Failure {
    let Failure::Handler { code: "AlreadyExists", .. } = &failure else { return failure };
    let Some(physical) = custom_physical(ctx, job.kind, job.properties) else { return failure };
    match world.region(&ctx.region).cfn.owner(job.kind, &physical) {
        Some(stack) => Failure::Plain(format!("{physical} already exists in stack {}", stack.id)),
        None => failure,
    }
}

/// Brings a resource from the old properties to the new ones, in place.
pub fn update(
    world: &mut World,
    ctx: &Ctx,
    job: &Job<'_>,
    physical: &str,
    old: &Map<String, Value>,
    old_tags: &[(String, String)],
) -> Result<(), Failure> {
    let change = Change { job: *job, physical, old, old_tags };
    match job.kind.split("::").nth(1) {
        Some("ApplicationAutoScaling") => scaling::update(world, ctx, &change),
        Some("ECR") => ecr::update(world, ctx, &change),
        Some("IAM") => iam::update(world, ctx, &change),
        Some("Lambda") => lambda::update(world, ctx, &change),
        Some("Logs") => logs::update(world, ctx, &change),
        Some("S3") => s3::update(world, ctx, &change),
        Some("SageMaker") => sagemaker::update(world, ctx, &change),
        _ => Err(unknown(job.kind)),
    }
}

/// Deletes a resource. One that is gone already is no error.
pub fn delete(
    world: &mut World,
    ctx: &Ctx,
    kind: &str,
    physical: &str,
    properties: &Map<String, Value>,
) -> Result<(), Failure> {
    let done = match kind.split("::").nth(1) {
        Some("ApplicationAutoScaling") => scaling::delete(world, ctx, kind, physical, properties),
        Some("ECR") => ecr::delete(world, ctx, physical, properties),
        Some("IAM") => iam::delete(world, ctx, kind, physical, properties),
        Some("Lambda") => lambda::delete(world, ctx, kind, physical, properties),
        Some("Logs") => logs::delete(world, ctx, physical),
        Some("S3") => s3::delete(world, ctx, kind, physical),
        Some("SageMaker") => sagemaker::delete(world, ctx, kind, physical),
        _ => Err(unknown(kind)),
    };
    match done {
        Err(Failure::Handler { code: "NotFound", .. }) => Ok(()),
        done => done,
    }
}

/// Whether a resource is as its properties say.
pub fn status(world: &mut World, ctx: &Ctx, kind: &str, physical: &str, properties: &Map<String, Value>) -> Status {
    match kind {
        "AWS::SageMaker::Endpoint" => sagemaker::endpoint_status(world, ctx, physical, properties),
        "AWS::Lambda::Function" => lambda::function_status(world, ctx, physical),
        _ => Status::Ready,
    }
}

/// Whether its service is at rest, so that it can be changed or deleted.
pub fn settled(world: &mut World, ctx: &Ctx, kind: &str, physical: &str) -> bool {
    match kind {
        "AWS::SageMaker::Endpoint" => sagemaker::endpoint_settled(world, ctx, physical),
        _ => true,
    }
}

/// Whether a deleted resource is really gone.
pub fn gone(world: &mut World, ctx: &Ctx, kind: &str, physical: &str) -> bool {
    match kind {
        "AWS::SageMaker::Endpoint" => sagemaker::endpoint_gone(world, ctx, physical),
        _ => true,
    }
}

/// What `Fn::GetAtt` gives.
pub fn attributes(
    world: &mut World,
    ctx: &Ctx,
    kind: &str,
    physical: &str,
    properties: &Map<String, Value>,
) -> Map<String, Value> {
    let attributes = match kind.split("::").nth(1) {
        Some("ApplicationAutoScaling") => scaling::attributes(kind, physical),
        Some("ECR") => ecr::attributes(world, ctx, physical),
        Some("IAM") => iam::attributes(world, ctx, kind, physical),
        Some("Lambda") => lambda::attributes(world, ctx, kind, physical, properties),
        Some("Logs") => json!({ "Arn": ctx.arn("logs", &format!("log-group:{physical}:*")) }),
        Some("S3") => s3::attributes(ctx, kind, physical),
        Some("SageMaker") => sagemaker::attributes(kind, physical),
        _ => Value::Null,
    };
    match attributes {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The physical id that a custom name gives.
pub fn custom_physical(ctx: &Ctx, kind: &str, properties: &Map<String, Value>) -> Option<String> {
    let name = properties.get(schema::name_property(kind)?)?.as_str()?;
    Some(match kind {
        "AWS::SageMaker::Model" => ctx.arn("sagemaker", &format!("model/{name}")),
        "AWS::SageMaker::EndpointConfig" => ctx.arn("sagemaker", &format!("endpoint-config/{name}")),
        "AWS::SageMaker::Endpoint" => ctx.arn("sagemaker", &format!("endpoint/{name}")),
        _ => name.to_owned(),
    })
}

/// The physical id of the existing resource that has the custom name, if there is one.
pub fn existing(world: &mut World, ctx: &Ctx, kind: &str, properties: &Map<String, Value>) -> Option<String> {
    let name = properties.get(schema::name_property(kind)?)?.as_str()?.to_owned();
    let (service, operation, input) = match kind {
        "AWS::ECR::Repository" => ("ecr", "DescribeRepositories", json!({ "repositoryNames": [name] })),
        "AWS::IAM::Role" => ("iam", "GetRole", json!({ "RoleName": name })),
        "AWS::Lambda::Function" => ("lambda", "GetFunction", json!({ "FunctionName": name })),
        "AWS::Logs::LogGroup" => {
            let found = call(world, ctx, "logs", "DescribeLogGroups", json!({ "logGroupNamePrefix": name })).ok()?;
            let groups = found.get("logGroups").and_then(Value::as_array)?;
            return groups.iter().any(|group| group["logGroupName"] == name.as_str()).then_some(name);
        }
        "AWS::S3::Bucket" => ("s3", "HeadBucket", json!({ "Bucket": name })),
        "AWS::SageMaker::Endpoint" => ("sagemaker", "DescribeEndpoint", json!({ "EndpointName": name })),
        "AWS::SageMaker::EndpointConfig" => {
            ("sagemaker", "DescribeEndpointConfig", json!({ "EndpointConfigName": name }))
        }
        "AWS::SageMaker::Model" => ("sagemaker", "DescribeModel", json!({ "ModelName": name })),
        _ => return None,
    };
    call(world, ctx, service, operation, input).ok()?;
    custom_physical(ctx, kind, properties)
}

/// An update in place.
#[derive(Debug, Clone, Copy)]
struct Change<'a> {
    job: Job<'a>,
    physical: &'a str,
    old: &'a Map<String, Value>,
    old_tags: &'a [(String, String)],
}

impl Change<'_> {
    fn wanted(&self, property: &str) -> Option<&Value> {
        self.job.properties.get(property)
    }

    fn differs(&self, property: &str) -> bool {
        self.old.get(property) != self.job.properties.get(property)
    }

    fn any_differs(&self, properties: &[&str]) -> bool {
        properties.iter().any(|property| self.differs(property))
    }

    /// The tags before and after, where they differ.
    fn tags(&self) -> Option<(Tags, Tags)> {
        let before = Job { properties: self.old, tags: self.old_tags, ..self.job };
        let (before, after) = (tags(&before), tags(&self.job));
        (before != after).then_some((before, after))
    }
}

type Tags = Vec<(String, String)>;

/// The resource's own tags, the stack's, and CloudFormation's. The resource's own win.
fn tags(job: &Job<'_>) -> Tags {
    let mut all: Tags = vec![
        ("aws:cloudformation:logical-id".to_owned(), job.logical.to_owned()),
        ("aws:cloudformation:stack-id".to_owned(), job.stack_id.to_owned()),
        ("aws:cloudformation:stack-name".to_owned(), job.stack_name.to_owned()),
    ];
    let own = job
        .properties
        .get("Tags")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|tag| Some((tag.get("Key")?.as_str()?.to_owned(), tag.get("Value")?.as_str()?.to_owned())));
    for (key, value) in job.tags.iter().cloned().chain(own) {
        all.retain(|(known, _)| *known != key);
        all.push((key, value));
    }
    all.sort();
    all
}

fn key_value(tags: &Tags) -> Value {
    tags.iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect()
}

fn as_map(tags: &Tags) -> Value {
    Value::Object(tags.iter().map(|(key, value)| (key.clone(), json!(value))).collect())
}

/// The keys that are in `before` only.
fn removed(before: &Tags, after: &Tags) -> Vec<String> {
    before.iter().map(|(key, _)| key).filter(|key| !after.iter().any(|(k, _)| k == *key)).cloned().collect()
}

fn call(world: &mut World, ctx: &Ctx, service: &str, operation: &str, input: Value) -> Answer {
    // Unit tests play the slow services themselves, to have each turn of an endpoint in hand.
    #[cfg(test)]
    if let Some(answer) = super::tests::services::answer(ctx, service, operation, &input) {
        return answer;
    }
    crate::world::call(world, ctx, service, operation, &input).map_err(|error| {
        // As the handlers, which are written on the Java SDK, show it.
        let told = format!(
            "{} (Service: {}, Status Code: {}, Request ID: {})",
            error.message,
            sdk_name(service),
            error.status,
            uuid::Uuid::new_v4()
        );
        ApiError { message: told, ..error }
    })
}

fn sdk_name(service: &str) -> &str {
    match service {
        "application-autoscaling" => "ApplicationAutoScaling",
        "ecr" => "Ecr",
        "iam" => "Iam",
        "lambda" => "Lambda",
        "logs" => "CloudWatchLogs",
        "s3" => "S3",
        "sagemaker" => "SageMaker",
        other => other,
    }
}

/// The members of the properties that are in the list, as they are.
fn pick(properties: &Map<String, Value>, names: &[&str]) -> Map<String, Value> {
    names.iter().filter_map(|name| Some(((*name).to_owned(), properties.get(*name)?.clone()))).collect()
}

/// A policy document as the text that APIs take.
fn document(value: &Value) -> String {
    super::template::plain(value)
}

fn custom_name(job: &Job<'_>, property: &str) -> Option<String> {
    job.properties.get(property).and_then(Value::as_str).map(str::to_owned)
}
