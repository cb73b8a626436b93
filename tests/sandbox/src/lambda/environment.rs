//! Execution environments: the extracted package as a process with Lambda's environment, and nothing else of the
//! sandbox's own.

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use parking_lot::Mutex;
use rustix::process::Signal;

use super::function::Plan;
use super::package::{self, Machine};
use super::runtime_api::Runtime;
use crate::iam::identity::{self, Question};
use crate::process::{Process, worded};
use crate::world::{ACCOUNT, Shared, now_ms};

/// How long credentials of the role live (AWS: up to 12 hours).
const CREDENTIALS: i64 = 12 * 3600 * 1000;
/// Lines that the tail of an invocation keeps; the last 4 KB of them are shown.
const TAIL: usize = 400;

/// A process that takes invocations one after the other. Dropping it kills the process group.
#[derive(Debug)]
pub(super) struct Environment {
    pub process: Process,
    pub runtime: Runtime,
    pub revision: String,
    pub log: Log,
    /// How long the start took; taken by the first REPORT line.
    pub init: Option<Duration>,
}

/// Why an environment or an invocation failed, as the caller is told.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    /// As `Runtime.ExitError`.
    pub kind: String,
    pub text: String,
    /// The runtime's own words instead.
    pub body: Option<Bytes>,
    /// `error` or `timeout`, for the REPORT line.
    pub status: &'static str,
}

impl Failure {
    pub(super) fn new(kind: &str, text: impl Into<String>) -> Failure {
        Failure { kind: kind.to_owned(), text: text.into(), body: None, status: "error" }
    }

    /// `Task timed out after 3.00 seconds` (AWS doc: Troubleshoot execution issues in Lambda).
    pub(super) fn timeout(limit: Duration) -> Failure {
        let text = format!("Task timed out after {:.2} seconds", limit.as_secs_f64());
        Failure { status: "timeout", ..Failure::new("Sandbox.Timedout", text) }
    }

    pub(super) fn exited(status: std::process::ExitStatus) -> Failure {
        let text = if status.success() {
            "Runtime exited without providing a reason".to_owned()
        } else {
            format!("Runtime exited with error: {}", worded(status))
        };
        Failure::new("Runtime.ExitError", text)
    }
}

/// Where the lines of an environment go.
#[derive(Clone)]
pub(super) struct Log {
    shared: Arc<Shared>,
    region: String,
    group: String,
    stream: String,
    /// Whether the role may write logs at all.
    allowed: bool,
    tail: Arc<Mutex<Vec<String>>>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("group", &self.group).field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Log {
    /// A new stream of the function's log group.
    pub(super) fn new(shared: &Arc<Shared>, plan: &Plan) -> Log {
        let today = jiff::Timestamp::now().strftime("%Y/%m/%d").to_string();
        let allowed = {
            let world = shared.world.lock();
            let caller =
                identity::Caller::Role { arn: plan.role.clone(), session: plan.name.clone(), id: String::new() };
            let resource = format!("arn:aws:logs:{}:{ACCOUNT}:log-group:{}:log-stream:x", plan.region, plan.log_group);
            // AWS doc: Lambda execution role. Without these two a function runs and nobody sees its lines.
            ["logs:CreateLogStream", "logs:PutLogEvents"].iter().all(|action| {
                identity::allowed(&world, &caller, &[], Question { action, resource: &resource, context: &[] })
            })
        };
        Log {
            shared: shared.clone(),
            region: plan.region.clone(),
            group: plan.log_group.clone(),
            stream: format!("{today}/[$LATEST]{}", uuid::Uuid::new_v4().simple()),
            allowed,
            tail: Arc::default(),
        }
    }

    pub(super) fn line(&self, line: impl Into<String>) {
        let line = line.into();
        if self.allowed {
            let lines = [line.clone()];
            crate::logs::append(
                &mut self.shared.world.lock(),
                &self.region,
                &self.group,
                &self.stream,
                now_ms(),
                &lines,
            );
            self.shared.touch();
        }
        let mut tail = self.tail.lock();
        if tail.len() >= TAIL {
            tail.remove(0);
        }
        tail.push(line);
    }

    /// Starts a new tail.
    pub(super) fn cut(&self) {
        self.tail.lock().clear();
    }

    /// The last 4 KB of the invocation's lines (API model: InvocationResponse.LogResult).
    pub(super) fn tail(&self) -> String {
        let text = self.tail.lock().iter().map(|l| format!("{l}\n")).collect::<String>();
        let mut start = text.len().saturating_sub(4096);
        while !text.is_char_boundary(start) {
            start += 1;
        }
        text[start..].to_owned()
    }
}

impl Environment {
    /// Starts a process. The failure is what Lambda says of a package that cannot be started.
    pub(super) async fn start(shared: &Arc<Shared>, plan: &Plan, log: &Log) -> Result<Environment, Failure> {
        let internal = |error: io::Error| Failure::new("Sandbox.Failure", error.to_string());
        let (state, sha) = (shared.dir.clone(), plan.sha256.clone());
        let extracted = tokio::task::spawn_blocking(move || package::extract(&state, &sha)).await;
        let task = extracted.map_err(|e| internal(io::Error::other(e)))?.map_err(internal)?;
        let program = task.join("bootstrap");
        let entry = |text: &str| Failure::new("Runtime.InvalidEntrypoint", text);
        if !program.exists() {
            return Err(entry("Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]"));
        }
        let machine = package::machine(&program, &plan.architecture);
        if machine == Machine::Wrong {
            return Err(entry("fork/exec /var/task/bootstrap: exec format error"));
        }
        let runtime = Runtime::listen().await.map_err(internal)?;
        let command = command(shared, plan, &program, &task, &runtime.address, log);
        let sink = log.clone();
        let started = shared.live.spawner.start(command, Signal::KILL, Box::new(move |line| sink.line(line))).await;
        let process = started.map_err(|error| {
            let text = match error.raw_os_error() {
                // On AWS it would run: no words of Lambda's.
                Some(8) if machine == Machine::Elsewhere => {
                    let text = format!(
                        "this machine cannot run a function for {}; install qemu-user-static, or deploy to the sandbox \
                         with this machine's architecture",
                        plan.architecture
                    );
                    return Failure::new("Sandbox.OtherMachine", text);
                }
                Some(8) => "exec format error".to_owned(),
                Some(13) => "permission denied".to_owned(),
                Some(2) => "no such file or directory".to_owned(),
                _ => error.to_string(),
            };
            entry(&format!("fork/exec /var/task/bootstrap: {text}"))
        })?;
        Ok(Environment { process, runtime, revision: plan.revision.clone(), log: log.clone(), init: None })
    }

    /// Waits until the runtime asks for its first invocation.
    pub(super) async fn ready(&mut self, limit: Duration) -> Result<(), Failure> {
        let started = Instant::now();
        let (mut waiting, mut failed) = (self.runtime.waiting.clone(), self.runtime.failed.clone());
        let outcome = tokio::select! {
            biased;
            Ok(error) = failed.wait_for(Option::is_some) => {
                let (kind, body) = error.clone().unwrap_or_default();
                Err(Failure { body: Some(body), ..Failure::new(&kind, "the runtime reported that its start failed") })
            }
            Ok(_) = waiting.wait_for(|w| *w) => Ok(()),
            status = self.process.wait() => {
                // The error may have been reported just before.
                match self.runtime.failed.borrow().clone() {
                    Some((kind, body)) => Err(Failure { body: Some(body), ..Failure::new(&kind, "") }),
                    None => Err(Failure::exited(status)),
                }
            }
            () = tokio::time::sleep(limit) => Err(Failure::timeout(limit)),
        };
        self.init = Some(started.elapsed());
        outcome
    }
}

/// The process with the variables of an OS-only runtime (AWS doc: Using Lambda environment variables) and one
/// addition: AWS_ENDPOINT_URL, so that its SDK calls the sandbox.
fn command(shared: &Shared, plan: &Plan, program: &Path, task: &Path, api: &str, log: &Log) -> Command {
    let (session, url) = {
        let mut world = shared.world.lock();
        let url = world.url.clone();
        (identity::assume(&mut world, &plan.role, &plan.name, now_ms(), CREDENTIALS), url)
    };
    let mut command = Command::new(program);
    command.env_clear().current_dir(task).envs(&plan.environment);
    let memory = plan.memory.to_string();
    let task = task.to_string_lossy();
    for (name, value) in [
        ("_HANDLER", plan.handler.as_str()),
        ("AWS_REGION", &plan.region),
        ("AWS_DEFAULT_REGION", &plan.region),
        ("AWS_LAMBDA_FUNCTION_NAME", &plan.name),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", &memory),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
        ("AWS_LAMBDA_LOG_GROUP_NAME", &log.group),
        ("AWS_LAMBDA_LOG_STREAM_NAME", &log.stream),
        ("AWS_LAMBDA_RUNTIME_API", api),
        ("LAMBDA_TASK_ROOT", &task),
        ("LAMBDA_RUNTIME_DIR", "/var/runtime"),
        ("TZ", ":UTC"),
        ("LANG", "en_US.UTF-8"),
        ("AWS_ENDPOINT_URL", &url),
    ] {
        command.env(name, value);
    }
    // The function's own values win over these two on AWS too.
    for (name, value) in [("PATH", "/usr/local/bin:/usr/bin:/bin:/opt/bin"), ("LD_LIBRARY_PATH", "")] {
        if !plan.environment.contains_key(name) && !value.is_empty() {
            command.env(name, value);
        }
    }
    if let Some(session) = session {
        command.env("AWS_ACCESS_KEY_ID", session.key);
        command.env("AWS_SECRET_ACCESS_KEY", session.secret);
        command.env("AWS_SESSION_TOKEN", session.token);
    }
    command
}
