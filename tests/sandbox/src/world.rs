//! The whole state as one value, and the context of a request.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{cfn, ecr, faults, iam, lambda, logs, models, quotas, s3, sagemaker, scaling, sts};

/// The one account.
pub const ACCOUNT: &str = "123456789012";
/// Access key id and secret key both.
pub const KEY: &str = "sandbox";

/// Who asks, when, and where.
#[derive(Debug, Clone)]
pub struct Ctx {
    /// From the credential scope.
    pub region: String,
    /// Of this request; goes into the answer and into errors.
    pub request_id: String,
    /// Milliseconds since 1970, real time.
    pub now: i64,
}

impl Ctx {
    /// An ARN of this account and region.
    pub fn arn(&self, service: &str, resource: &str) -> String {
        format!("arn:aws:{service}:{}:{ACCOUNT}:{resource}", self.region)
    }
}

/// An error as the service words it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// The error code.
    pub code: String,
    /// The message.
    pub message: String,
    /// More than the code says: the Reason of Lambda's throttling.
    pub reason: Option<String>,
}

impl ApiError {
    /// A 400 with this code and message.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        ApiError { status: 400, code: code.into(), message: message.into(), reason: None }
    }

    /// With a reason beside the message.
    #[must_use]
    pub fn reason(mut self, reason: &str) -> Self {
        self.reason = Some(reason.to_owned());
        self
    }

    /// With another HTTP status.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }
}

/// What every operation returns.
pub type Answer = Result<Value, ApiError>;

/// The whole state.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct World {
    /// Real seconds that one AWS second takes; 1 is AWS's own pace.
    pub time_scale: f64,
    /// `http://127.0.0.1:4599`, set at every start.
    pub url: String,
    /// Where the blobs lie, set at every start.
    #[serde(skip)]
    pub dir: PathBuf,
    /// Whether endpoints run, and become InService when their instances do. Set at every start.
    #[serde(skip)]
    pub endpoints_run: bool,
    /// What tests asked to break.
    pub faults: faults::Faults,
    /// Global.
    pub iam: iam::State,
    /// Global; a bucket knows its region.
    pub s3: s3::State,
    /// The rest, a region each.
    pub regions: BTreeMap<String, Region>,
}

/// The services of one region.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Region {
    /// CloudFormation.
    pub cfn: cfn::State,
    /// ECR.
    pub ecr: ecr::State,
    /// Lambda.
    pub lambda: lambda::State,
    /// CloudWatch Logs.
    pub logs: logs::State,
    /// Service Quotas.
    pub quotas: quotas::State,
    /// SageMaker.
    pub sagemaker: sagemaker::State,
    /// Application Auto Scaling.
    pub scaling: scaling::State,
}

impl World {
    /// The services of a region; made at the first use.
    pub fn region(&mut self, name: &str) -> &mut Region {
        self.regions.entry(name.to_owned()).or_default()
    }

    /// Milliseconds of real time that so many AWS seconds take here.
    pub fn millis(&self, aws_seconds: f64) -> i64 {
        (aws_seconds * self.time_scale * 1000.0) as i64
    }

    /// Moves everything that takes time up to `now` (milliseconds since 1970). True if anything moved.
    pub fn tick(&mut self, now: i64) -> bool {
        let moved = sagemaker::tick(self, now) | scaling::tick(self, now) | lambda::tick(self, now);
        // Last, for it looks at what the others became.
        cfn::tick(self, now) | moved
    }
}

/// Calls an operation by its API name, as the wire and CloudFormation's providers do.
/// `service` is the signing name (`sagemaker`, `iam`, `ecr`, `application-autoscaling`, `lambda`, `logs`, `s3`, ...).
pub fn call(world: &mut World, ctx: &Ctx, service: &str, operation: &str, input: &Value) -> Answer {
    models::check(service, operation, input)?;
    match service {
        "application-autoscaling" => scaling::call(world, ctx, operation, input),
        "cloudformation" => cfn::call(world, ctx, operation, input),
        "ecr" => ecr::call(world, ctx, operation, input),
        "iam" => iam::call(world, ctx, operation, input),
        "lambda" => lambda::call(world, ctx, operation, input),
        "logs" => logs::call(world, ctx, operation, input),
        "s3" => s3::call(world, ctx, operation, input),
        "sagemaker" => sagemaker::call(world, ctx, operation, input),
        "servicequotas" => quotas::call(world, ctx, operation, input),
        "sts" => sts::call(world, ctx, operation, input),
        other => Err(ApiError::new("UnknownService", format!("the sandbox has no service {other}"))),
    }
}

/// What every connection shares.
#[derive(Debug)]
pub struct Shared {
    /// The state. Never held across an await.
    pub world: Mutex<World>,
    /// Where the state and the blobs live.
    pub dir: PathBuf,
    /// What runs: processes of functions and endpoints.
    pub live: crate::live::Live,
    /// How often each `service:Operation` was called since the start.
    calls: Mutex<BTreeMap<String, u64>>,
    /// Something changed since the last save.
    dirty: AtomicBool,
}

impl Shared {
    /// A state with its directory, nothing called yet.
    pub fn new(world: World, dir: PathBuf) -> Self {
        let world = Mutex::new(world);
        Shared { world, dir, live: Default::default(), calls: Mutex::default(), dirty: AtomicBool::new(false) }
    }

    /// Counts a call, and answers with the error that a test ordered for it, if any. Every protocol asks this once
    /// it knows the operation, before it does anything.
    pub fn enter(&self, service: &str, operation: &str) -> Result<(), ApiError> {
        *self.calls.lock().entry(format!("{service}:{operation}")).or_default() += 1;
        let fault = self.world.lock().faults.take(|what| match what {
            faults::What::Throttle { service: s, operation: o }
            | faults::What::Error { service: s, operation: o, .. } => s == service && (o == operation || o == "*"),
            _ => false,
        });
        match fault {
            None => Ok(()),
            Some(what) => {
                self.touch();
                Err(match what {
                    faults::What::Error { code, message, status, .. } => {
                        ApiError { status, code, message, reason: None }
                    }
                    _ => throttled(service),
                })
            }
        }
    }

    /// Says that the state has to be saved.
    pub fn touch(&self) {
        self.dirty.store(true, Ordering::Release);
    }

    /// Whether the state has to be saved; asking resets it.
    pub fn take_dirty(&self) -> bool {
        self.dirty.swap(false, Ordering::AcqRel)
    }

    /// Calls per `service:Operation` since the start or the last `forget_calls`.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.calls.lock().clone()
    }

    /// Starts counting anew.
    pub fn forget_calls(&self) {
        self.calls.lock().clear();
    }
}

/// How each service says that it is asked too often.
fn throttled(service: &str) -> ApiError {
    match service {
        "s3" => ApiError::new("SlowDown", "Please reduce your request rate.").status(503),
        "lambda" => ApiError::new("TooManyRequestsException", "Rate Exceeded.").status(429),
        "cloudformation" | "iam" | "sts" => ApiError::new("Throttling", "Rate exceeded"),
        _ => ApiError::new("ThrottlingException", "Rate exceeded"),
    }
}

/// Milliseconds since 1970 now.
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// A time as the JSON protocols carry it: seconds since 1970 with three decimals.
pub fn epoch(ms: i64) -> Value {
    Value::from(ms as f64 / 1000.0)
}

/// A time as the query protocol and S3 carry it: ISO 8601 in UTC with milliseconds.
pub fn iso(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}
