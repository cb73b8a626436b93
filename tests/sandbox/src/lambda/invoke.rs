//! Invocations: concurrency, execution environments and their reuse, time limits, the log lines around it all.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::environment::{Environment, Failure, Log};
use super::function::Plan;
use super::runtime_api::{Chunk, Job, RESPONSE, Reply};
use crate::world::{ApiError, Shared, World, now_ms};

/// How long the start may take before the first invocation (AWS doc: Lambda execution environment lifecycle).
const INIT: Duration = Duration::from_secs(10);
/// How often memory is looked at.
const WATCH: Duration = Duration::from_millis(50);

/// All environments.
#[derive(Debug, Default)]
pub struct Environments {
    idle: Mutex<HashMap<Key, Vec<Environment>>>,
    busy: Arc<Mutex<HashMap<Key, i64>>>,
}

/// Region and name of a function.
type Key = (String, String);

/// One of the executions that may go on at once.
struct Slot(Arc<Mutex<HashMap<Key, i64>>>, Key);

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(count) = self.0.lock().get_mut(&self.1) {
            *count -= 1;
        }
    }
}

impl Environments {
    /// Ends what waits for invocations of functions that are gone or changed.
    pub(crate) fn sweep(&self, world: &World) {
        let mut idle = self.idle.lock();
        idle.retain(|(region, name), environments| {
            let current = super::revision(world, region, name);
            environments.retain(|e| Some(e.revision.as_str()) == current && e.process.ended().is_none());
            !environments.is_empty()
        });
    }

    /// Ends everything that waits. What runs an invocation ends with the request.
    pub(crate) fn clear(&self) {
        self.idle.lock().clear();
    }

    fn enter(&self, plan: &Plan) -> Result<Slot, ApiError> {
        let key = plan.key();
        let mut busy = self.busy.lock();
        let running = busy.get(&key).copied().unwrap_or_default();
        let throttled = |reason: &str| {
            // The reason is a member of its own: the wire takes the text apart again.
            Err(ApiError::new("TooManyRequestsException", "Rate Exceeded.").status(429).reason(reason))
        };
        match plan.reserved {
            Some(reserved) if running >= reserved => {
                return throttled("ReservedFunctionConcurrentInvocationLimitExceeded");
            }
            None if busy.values().sum::<i64>() >= plan.unreserved => {
                return throttled("ConcurrentInvocationLimitExceeded");
            }
            _ => {}
        }
        *busy.entry(key.clone()).or_default() += 1;
        Ok(Slot(self.busy.clone(), key))
    }

    fn take(&self, plan: &Plan) -> Option<Environment> {
        let mut idle = self.idle.lock();
        let environments = idle.get_mut(&plan.key())?;
        environments.retain(|e| e.revision == plan.revision && e.process.ended().is_none());
        environments.pop()
    }

    fn put(&self, plan: &Plan, environment: Environment) {
        self.idle.lock().entry(plan.key()).or_default().push(environment);
    }
}

/// What to run.
#[derive(Debug)]
pub(crate) struct Call {
    pub plan: Plan,
    pub payload: Bytes,
    /// JSON of the client context.
    pub context: Option<String>,
    pub request_id: String,
    pub trace: String,
}

/// How an invocation ended, or goes on.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A whole answer and the tail of the log.
    Answered { body: Bytes, kind: Option<String>, log: String },
    /// A function error: its JSON and the tail of the log.
    Failed { body: Bytes, log: String },
    /// An answer under way.
    Streamed { body: mpsc::Receiver<Chunk>, kind: Option<String> },
}

/// Runs a function. Returns when the answer is complete and the environment is free again, or, for a stream, when the
/// answer begins. The environment goes on when the caller goes away.
pub(crate) async fn invoke(shared: &Arc<Shared>, call: Call) -> Result<Outcome, ApiError> {
    let slot = shared.live.lambda.enter(&call.plan)?;
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(run(shared.clone(), call, slot, sender));
    receiver.await.map_err(|_| ApiError::new("ServiceException", "An internal error occurred.").status(500))
}

async fn run(shared: Arc<Shared>, call: Call, slot: Slot, told: oneshot::Sender<Outcome>) {
    let plan = &call.plan;
    let limit = Duration::from_secs(plan.timeout);
    let environment = match shared.live.lambda.take(plan) {
        Some(environment) => {
            environment.log.cut();
            Ok(environment)
        }
        None => begin(&shared, plan, limit).await,
    };
    let (log, mut environment, early) = match environment {
        Ok(environment) => (environment.log.clone(), Some(environment), None),
        Err((log, failure)) => (log, None, Some(failure)),
    };
    log.line(format!("START RequestId: {} Version: $LATEST", call.request_id));
    let started = Instant::now();
    let mut told = Some(told);
    let result = match (&environment, early) {
        (Some(environment), _) => converse(environment, &call, limit, &mut told).await,
        (None, failure) => Err(failure.unwrap_or_else(|| Failure::new("Sandbox.Failure", "no environment"))),
    };
    // Cut to what its lines may still say.
    if let Some(environment) = environment.as_ref().filter(|e| e.process.ended().is_some()) {
        environment.process.drained(Duration::from_secs(1)).await;
    }
    if let Err(failure) = &result {
        if failure.status == "timeout" {
            log.line(format!("{} {} {}", crate::world::iso(now_ms()), call.request_id, failure.text));
        } else if failure.body.is_none() {
            log.line(format!("RequestId: {} Error: {}\n{}", call.request_id, failure.text, failure.kind));
        }
    }
    log.line(format!("END RequestId: {}", call.request_id));
    log.line(report(&call, environment.as_mut(), started.elapsed(), result.as_ref().err()));
    // The environment is free before the caller knows, so that the next request finds it.
    match (environment, &result) {
        (Some(environment), Ok(_)) if environment.process.ended().is_none() => {
            shared.live.lambda.put(plan, environment);
        }
        (environment, _) => drop(environment),
    }
    drop(slot);
    let outcome = match result {
        Ok(Some(Ended::Answered(body, kind))) => Outcome::Answered { body, kind, log: log.tail() },
        Ok(Some(Ended::Refused(body))) => Outcome::Failed { body, log: log.tail() },
        // The stream's caller has been told.
        Ok(None) => return,
        Err(failure) => Outcome::Failed { body: worded(&failure, &call.request_id), log: log.tail() },
    };
    if let Some(told) = told {
        let _ = told.send(outcome);
    }
}

/// An answer that is complete.
enum Ended {
    Answered(Bytes, Option<String>),
    /// The function's own error.
    Refused(Bytes),
}

/// Starts an environment. One that fails is started again within the invocation, with the function's own time limit
/// (AWS doc: Lambda execution environment lifecycle, Failures during the Init phase).
async fn begin(shared: &Arc<Shared>, plan: &Plan, limit: Duration) -> Result<Environment, (Log, Failure)> {
    let log = Log::new(shared, plan);
    let mut last = None;
    for (phase, most) in [("init", INIT), ("invoke", limit)] {
        let started = Instant::now();
        let attempt = async {
            let mut environment = Environment::start(shared, plan, &log).await?;
            match environment.ready(most).await {
                Ok(()) => Ok(environment),
                Err(failure) => {
                    environment.process.signal(rustix::process::Signal::KILL);
                    environment.process.drained(Duration::from_secs(1)).await;
                    Err(failure)
                }
            }
        };
        match attempt.await {
            Ok(environment) => return Ok(environment),
            Err(failure) => {
                let kind =
                    if failure.status == "error" { format!("\tError Type: {}", failure.kind) } else { String::new() };
                log.line(format!(
                    "INIT_REPORT Init Duration: {:.2} ms\tPhase: {phase}\tStatus: {}{kind}",
                    millis(started.elapsed()),
                    failure.status
                ));
                last = Some(failure);
            }
        }
    }
    Err((log, last.unwrap_or_else(|| Failure::new("Sandbox.Failure", "no attempt"))))
}

/// Hands the event over and waits for the end of the invocation: the answer, and the runtime's next request.
/// A stream is told at its begin, and `None` returned at its end.
async fn converse(
    environment: &Environment,
    call: &Call,
    limit: Duration,
    told: &mut Option<oneshot::Sender<Outcome>>,
) -> Result<Option<Ended>, Failure> {
    let (reply, mut answer) = oneshot::channel();
    let job = Job {
        id: call.request_id.clone(),
        payload: call.payload.clone(),
        deadline: now_ms().saturating_add(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX)),
        arn: call.plan.arn.clone(),
        trace: call.trace.clone(),
        context: call.context.clone(),
        reply,
    };
    let deadline = tokio::time::Instant::now() + limit;
    let mut waiting = environment.runtime.waiting.clone();
    if !environment.runtime.give(job).await {
        return Err(Failure::new("Sandbox.Failure", "the runtime API ended"));
    }
    let reply = guarded(environment, call, deadline, limit, async {
        match (&mut answer).await {
            Ok(reply) => reply,
            // The runtime asked for its next event without an answer to this one: nothing is wrong until the deadline.
            Err(_) => std::future::pending().await,
        }
    })
    .await?;
    let ended = match reply {
        Reply::Whole { body, kind } => Some(Ended::Answered(body, kind)),
        Reply::Error { body } => Some(Ended::Refused(body)),
        Reply::TooLarge => Some(Ended::Refused(Bytes::from(
            json!({
                "errorType": "Function.ResponseSizeTooLarge",
                "errorMessage": format!("Response payload size exceeded maximum allowed payload size ({RESPONSE} bytes)."),
            })
            .to_string(),
        ))),
        Reply::Stream { mut body, kind } => {
            let (sender, receiver) = mpsc::channel(4);
            if let Some(told) = told.take() {
                let _ = told.send(Outcome::Streamed { body: receiver, kind });
            }
            let mut last = None;
            let pumped = guarded(environment, call, deadline, limit, async {
                while let Some(chunk) = body.recv().await {
                    match chunk {
                        Chunk::Data(_) => drop(sender.send(chunk).await),
                        chunk => last = Some(chunk),
                    }
                }
            })
            .await;
            let ended = match pumped {
                Ok(()) => free(environment, call, deadline, limit, &mut waiting).await,
                Err(failure) => Err(failure),
            };
            if let Err(failure) = &ended {
                last = Some(Chunk::Failed(failure.kind.clone(), failure.text.clone()));
            }
            if let Some(last) = last {
                let _ = sender.send(last).await;
            }
            return ended.map(|()| None);
        }
    };
    free(environment, call, deadline, limit, &mut waiting).await?;
    Ok(ended)
}

/// Waits until the runtime asks for its next event.
async fn free(
    environment: &Environment,
    call: &Call,
    deadline: tokio::time::Instant,
    limit: Duration,
    waiting: &mut tokio::sync::watch::Receiver<bool>,
) -> Result<(), Failure> {
    let next = async {
        let _ = waiting.wait_for(|w| *w).await;
    };
    guarded(environment, call, deadline, limit, next).await
}

/// Does something of an invocation as long as the process lives, in its time and its memory.
async fn guarded<T>(
    environment: &Environment,
    call: &Call,
    deadline: tokio::time::Instant,
    limit: Duration,
    work: impl Future<Output = T>,
) -> Result<T, Failure> {
    let most = u64::try_from(call.plan.memory).unwrap_or_default() << 20;
    let mut watch = tokio::time::interval(WATCH);
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return Ok(done),
            status = environment.process.wait() => return Err(Failure::exited(status)),
            () = tokio::time::sleep_until(deadline) => return Err(Failure::timeout(limit)),
            _ = watch.tick() => {
                if environment.process.peak_memory() > most {
                    // The kernel kills what goes over the memory size; the runtime is told nothing.
                    environment.process.signal(rustix::process::Signal::KILL);
                }
            }
        }
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn report(call: &Call, environment: Option<&mut Environment>, took: Duration, failure: Option<&Failure>) -> String {
    let (init, peak) = match environment {
        Some(environment) => (environment.init.take(), environment.process.peak_memory()),
        // Nothing ran; Lambda's own share is shown (aws/aws-lambda-go#554).
        None => (None, 3 << 20),
    };
    let memory = call.plan.memory;
    let used = i64::try_from(peak.div_ceil(1 << 20)).unwrap_or(memory);
    // Since August 2025 the start is billed too (AWS blog: standardizes billing for the INIT phase).
    let billed = (millis(took) + init.map_or(0.0, millis)).ceil();
    let mut line = format!(
        "REPORT RequestId: {}\tDuration: {:.2} ms\tBilled Duration: {billed} ms\tMemory Size: {memory} MB\tMax Memory Used: {} MB",
        call.request_id,
        millis(took),
        used.min(memory)
    );
    if let Some(init) = init {
        line.push_str(&format!("\tInit Duration: {:.2} ms", millis(init)));
    }
    match failure {
        Some(failure) if failure.status == "timeout" => line.push_str("\tStatus: timeout"),
        Some(failure) => line.push_str(&format!("\tStatus: error\tError Type: {}", failure.kind)),
        None => {}
    }
    line
}

/// The JSON that the caller gets (aws/aws-lambda-go#554 and others).
fn worded(failure: &Failure, request_id: &str) -> Bytes {
    match &failure.body {
        Some(body) => body.clone(),
        None => {
            let text = format!("RequestId: {request_id} Error: {}", failure.text);
            Bytes::from(json!({"errorType": failure.kind, "errorMessage": text}).to_string())
        }
    }
}
