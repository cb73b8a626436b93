//! One prompt in ComfyUI, from submission to its end, however the end becomes known; and nothing of it left there.

use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedRwLockReadGuard, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::comfy::{Answer, Unreachable};
use crate::explain;
use crate::job::{Jobs, Presence, Report};
use crate::line::{Event, Line, strings};
use crate::outputs::{File, files};
use crate::problem::Problem;
use crate::prompt::Prompt;
use crate::queue::{Look, Taken};
use crate::record::Trace;

/// Between two looks into the history while the socket is there, which tells the end by itself.
const LOOK: Duration = Duration::from_secs(1);
/// Without the socket.
const LOOK_OFTEN: Duration = Duration::from_millis(100);
/// Between two looks for the job in the queue as well, in case that somebody else removed it.
const LOOK_AT_QUEUE: Duration = Duration::from_secs(3);
/// How long the history entry may take after the message of the end. 784 ms were measured between the message of
/// success and the entry after a start of ComfyUI.
const ENTRY_LIMIT: Duration = Duration::from_secs(5);
/// How long the answer to the submission of a job that has ended is waited for; it may be lost.
const ANSWER_LIMIT: Duration = Duration::from_millis(250);
/// Failed looks in a row, with nobody listening, after which ComfyUI counts as gone.
const ABSENCES: u32 = 3;
/// How long a cancelled job is pursued: until the model that it loads is loaded, or a frozen ComfyUI thaws.
const PURSUIT: Duration = Duration::from_secs(300);
/// After so long it is asked for less often: it will take its time.
const PATIENCE: Duration = Duration::from_secs(10);
/// A job that is not there so many looks in a row, half a second apart, is not coming any more.
const UNKNOWNS: u32 = 4;

/// A prompt that ended well. What it left in ComfyUI is cleaned up when this is dropped.
pub(crate) struct Run {
    pub(crate) report: Report,
    tidy: Tidy,
}

impl Run {
    /// The prompt's id; everything that was wanted of it was fetched.
    pub(crate) fn finish(self, jobs: &Jobs) -> String {
        // Opened off the way, for the next request.
        let lines = jobs.lines.clone();
        jobs.chores.spawn(async move { lines.refill().await });
        self.tidy.prompt_id.clone()
    }
}

/// Submits a prompt under ids of its own, and follows it to its end.
pub(crate) async fn run(jobs: &Jobs, prompt: &Prompt, trace: &Trace) -> Result<Run, Problem> {
    let mut presence = jobs.presence.clone();
    let present = presence.as_ref().map(|presence| *presence.borrow());
    if present.is_some_and(|presence| !presence.up) {
        return Err(Problem::not_ready("ComfyUI is being started; try again in a few seconds"));
    }
    // An id of our own: messages can come before the answer to the POST, and the answer can get lost.
    let prompt_id = uuid::Uuid::new_v4().to_string();
    // Opened first, so that no message is missed. Without it the history tells the end.
    let line = jobs.lines.take().await;
    let client_id = line.as_ref().map_or_else(|| uuid::Uuid::new_v4().to_string(), |line| line.client_id.clone());
    let body = prompt.body(&prompt_id, &client_id);
    let mut follower = Follower {
        jobs,
        taken: None,
        prompt_id: prompt_id.clone(),
        complete: line.is_some(),
        line,
        socket_savers: &prompt.socket_savers,
        report: Report::default(),
        trace,
        node: String::new(),
        begun: Instant::now(),
        verdict: Verdict::None,
    };
    trace.submitted(&prompt_id);
    let mut tidy = Tidy { jobs: jobs.clone(), prompt_id, left: Left::Job, inside: Some(jobs.enter().await) };
    let ended = tokio::select! {
        ended = follower.follow(body) => ended,
        () = gone(&mut presence, present) => Err(Stop::Nowhere(Problem::lost("ComfyUI ended while the job ran; it is being restarted"))),
    };
    let mut report = follower.report;
    if !follower.complete {
        report.lost = prompt.socket_savers.clone();
    }
    match ended {
        Ok(()) => {
            let made = files(&report.outputs, |node| !report.cached.contains(node)).collect();
            tidy.left = Left::Traces(made);
            Ok(Run { report, tidy })
        }
        Err(Stop::Nowhere(problem)) => {
            tidy.left = Left::Nothing;
            Err(problem)
        }
        Err(Stop::Ended(problem)) => {
            let made = files(&report.outputs, |node| !report.cached.contains(node)).collect();
            tidy.left = Left::Traces(made);
            Err(problem)
        }
    }
}

/// Until ComfyUI's process ends or was replaced.
async fn gone(presence: &mut Option<watch::Receiver<Presence>>, before: Option<Presence>) {
    if let Some(presence) = presence
        && presence.wait_for(|presence| Some(*presence) != before).await.is_ok()
    {
        return;
    }
    // Not ours; or nobody tells any more, because the server stops, and ComfyUI lives as long as there are requests.
    std::future::pending().await
}

/// Why following ended without success, by what may be left in ComfyUI.
enum Stop {
    /// Nothing at all.
    Nowhere(Problem),
    /// The job ended there.
    Ended(Problem),
}

enum Verdict {
    None,
    Succeeded,
    Failed(Problem),
}

struct Follower<'a> {
    jobs: &'a Jobs,
    prompt_id: String,
    /// Since ComfyUI said that it took the job.
    taken: Option<Taken>,
    line: Option<Line>,
    /// Every message since the submission was seen.
    complete: bool,
    socket_savers: &'a [String],
    report: Report,
    trace: &'a Trace,
    /// The one that runs.
    node: String,
    begun: Instant,
    verdict: Verdict,
}

impl Follower<'_> {
    async fn follow(&mut self, body: Bytes) -> Result<(), Stop> {
        let mut submission = std::pin::pin!(self.jobs.comfy.submit(body));
        // Whether ComfyUI's answer is outstanding; and whether it got lost, so that the job may be there or not.
        let (mut pending, mut unsure) = (true, false);
        let (mut absences, mut unknowns) = (0, 0);
        let mut next_look = Instant::now() + if self.line.is_some() { LOOK } else { LOOK_OFTEN };
        let mut next_queue = Instant::now() + LOOK_AT_QUEUE;
        loop {
            tokio::select! {
                answer = &mut submission, if pending => {
                    pending = false;
                    match answer {
                        Ok(answer) if answer.status == StatusCode::OK => self.accepted(&answer),
                        Ok(answer) => return Err(Stop::Nowhere(explain::refused(&answer))),
                        Err(cause @ Unreachable::Absent(_)) => {
                            tracing::warn!("{cause}");
                            return Err(Stop::Nowhere(Problem::not_ready("ComfyUI is not there; try again in a few seconds")));
                        }
                        Err(cause @ Unreachable::Silent(_)) => {
                            tracing::warn!("the answer to a workflow was lost: {cause}");
                            unsure = true;
                            next_look = Instant::now();
                            next_queue = next_look;
                        }
                    }
                }
                event = next(&mut self.line, &self.prompt_id) => match event {
                    Some(event) => if self.take(event) {
                        // A short job can end before the answer is here, which tells of nodes that were left out.
                        if pending
                            && let Ok(Ok(answer)) = timeout(ANSWER_LIMIT, &mut submission).await
                        {
                            self.accepted(&answer);
                        }
                        return self.end().await;
                    },
                    None => {
                        // Not opened again: what was missed does not come again, and the history has it all.
                        (self.line, self.complete) = (None, false);
                        next_look = Instant::now();
                    }
                },
                () = sleep_until(next_look) => {
                    let with_queue = !pending && Instant::now() >= next_queue;
                    match self.look(with_queue).await {
                        Ok(Look::Ended(entry)) => return self.ended(&entry),
                        Ok(Look::Queued) => (absences, unknowns) = (0, 0),
                        Ok(Look::Unknown) => {
                            absences = 0;
                            unknowns += 1;
                            // An answer that got lost may belong to a request that is still being read.
                            if !unsure || unknowns >= UNKNOWNS {
                                return Err(Stop::Nowhere(Problem::lost(
                                    "ComfyUI does not know the job any more: it was restarted, or somebody removed the job",
                                )));
                            }
                        }
                        Err(Unreachable::Absent(cause)) => {
                            absences += 1;
                            if absences >= ABSENCES {
                                tracing::warn!(cause, "ComfyUI is gone");
                                return Err(Stop::Nowhere(Problem::lost("ComfyUI is gone, and the job with it")));
                            }
                        }
                        // Frozen or busy: the deadline is the limit.
                        Err(Unreachable::Silent(_)) => absences = 0,
                    }
                    let now = Instant::now();
                    next_look = now + match (&self.line, unsure || absences > 0) {
                        (_, true) => Duration::from_millis(500),
                        (Some(_), false) => LOOK,
                        (None, false) => LOOK_OFTEN,
                    };
                    if with_queue {
                        next_queue = now + if unsure { Duration::from_millis(500) } else { LOOK_AT_QUEUE };
                    }
                }
            }
        }
    }

    /// Into the history, and for the job in the queue when asked to; one that was not looked for there counts as queued.
    async fn look(&self, with_queue: bool) -> Result<Look, Unreachable> {
        match (with_queue, &self.taken) {
            (true, Some(taken)) => self.jobs.queue.check(&self.prompt_id, taken).await,
            (true, None) => self.jobs.queue.look(&self.prompt_id).await,
            (false, _) => Ok(self.jobs.comfy.history(&self.prompt_id).await?.map_or(Look::Queued, Look::Ended)),
        }
    }

    /// ComfyUI took the prompt, or the valid part of it.
    fn accepted(&mut self, answer: &Answer) {
        self.taken = Some(self.jobs.queue.taken());
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let errors = body.get("node_errors").and_then(Value::as_object);
        self.report.invalid_nodes = errors.into_iter().flatten().map(|(id, _)| id.clone()).collect();
    }

    /// Notes an event; true when it is the last one.
    fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Started => {
                let queued = self.begun.elapsed();
                self.report.queued = Some(queued);
                self.trace.started(queued);
            }
            Event::Cached(nodes) => self.report.cached.extend(nodes),
            Event::Executing(node) => self.node = node,
            Event::Executed(node, output) => {
                self.report.outputs.insert(node, output);
            }
            Event::Picture(kind, bytes) if self.socket_savers.contains(&self.node) => {
                self.report.frames.push((self.node.clone(), kind, bytes));
            }
            // A preview.
            Event::Picture(..) => {}
            Event::Failed(error) => self.verdict = Verdict::Failed(explain::failed(&error)),
            Event::Interrupted => self.verdict = Verdict::Failed(explain::interrupted()),
            Event::Succeeded => self.verdict = Verdict::Succeeded,
            Event::Ended => return true,
        }
        false
    }

    /// The last message came.
    async fn end(&mut self) -> Result<(), Stop> {
        match std::mem::replace(&mut self.verdict, Verdict::None) {
            // With every message seen there is nothing that the history could add.
            Verdict::Succeeded if self.complete => return Ok(()),
            Verdict::Failed(problem) => return Err(Stop::Ended(problem)),
            Verdict::Succeeded | Verdict::None => {}
        }
        let begun = Instant::now();
        while begun.elapsed() < ENTRY_LIMIT {
            match self.jobs.comfy.history(&self.prompt_id).await {
                Ok(Some(entry)) => return self.ended(&entry),
                Ok(None) => {}
                Err(cause) => tracing::debug!(%cause, "no history"),
            }
            sleep(Duration::from_millis(20)).await;
        }
        Err(Stop::Nowhere(Problem::lost("the job ended, but ComfyUI does not know how")))
    }

    /// The history has it.
    fn ended(&mut self, entry: &Value) -> Result<(), Stop> {
        let none = Map::new();
        self.report.outputs = entry.get("outputs").and_then(Value::as_object).unwrap_or(&none).clone();
        let messages = entry.pointer("/status/messages").and_then(Value::as_array);
        for message in messages.into_iter().flatten() {
            if message.get(0).and_then(Value::as_str) == Some("execution_cached") {
                self.report.cached.extend(strings(message.pointer("/1/nodes")));
            }
        }
        match explain::of_entry(entry) {
            None => Ok(()),
            Some(problem) => Err(Stop::Ended(problem)),
        }
    }
}

async fn next(line: &mut Option<Line>, prompt_id: &str) -> Option<Event> {
    match line {
        Some(line) => line.next(prompt_id).await,
        None => std::future::pending().await,
    }
}

/// What a prompt may have left in ComfyUI.
enum Left {
    /// The job itself, waiting or running.
    Job,
    /// A history entry and these files.
    Traces(Vec<File>),
    Nothing,
}

/// Cleans up when dropped, in the background.
struct Tidy {
    jobs: Jobs,
    prompt_id: String,
    left: Left,
    /// Until the job is certain not to be in ComfyUI.
    inside: Option<OwnedRwLockReadGuard<()>>,
}

impl Drop for Tidy {
    fn drop(&mut self) {
        let (jobs, prompt_id) = (self.jobs.clone(), std::mem::take(&mut self.prompt_id));
        let left = std::mem::replace(&mut self.left, Left::Nothing);
        if matches!(left, Left::Nothing) || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let inside = self.inside.take();
        // From now on, before the request's own count ends: a model that is being loaded is loaded to its end.
        let busy = matches!(left, Left::Job).then(|| jobs.health.pursuit());
        self.jobs.chores.spawn(async move {
            let _until_it_is_gone = (inside, busy);
            match left {
                Left::Traces(files) => tidy(&jobs, &prompt_id, files).await,
                Left::Job => pursue(&jobs, &prompt_id).await,
                Left::Nothing => {}
            }
        });
    }
}

/// Removes a history entry and files: ten thousand entries are kept otherwise, each with its whole workflow, and all
/// files for ever.
async fn tidy(jobs: &Jobs, prompt_id: &str, files: Vec<File>) {
    tokio::join!(jobs.comfy.forget(prompt_id), jobs.disk.remove(files));
}

/// Takes a job out of ComfyUI, wherever it is. Asked again and again: a node notices late, a model that is being
/// loaded not at all, and a request that ComfyUI has not read yet becomes a job only later.
async fn pursue(jobs: &Jobs, prompt_id: &str) {
    let begun = Instant::now();
    let mut unknowns = 0;
    while begun.elapsed() < PURSUIT {
        jobs.comfy.cancel(prompt_id).await;
        let pause = match begun.elapsed() {
            soon if soon < LOOK && unknowns == 0 => LOOK_OFTEN,
            late if late > PATIENCE && unknowns == 0 => PATIENCE / 5,
            _ => LOOK / 2,
        };
        sleep(pause).await;
        match jobs.queue.look(prompt_id).await {
            Ok(Look::Ended(entry)) => {
                let none = Map::new();
                let outputs = entry.get("outputs").and_then(Value::as_object).unwrap_or(&none);
                // A cached node's file belongs to another job, and is gone or its business.
                let cached: Vec<String> = entry
                    .pointer("/status/messages")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter(|message| message.get(0) == Some(&json!("execution_cached")))
                    .flat_map(|message| strings(message.pointer("/1/nodes")))
                    .collect();
                let made = files(outputs, |node| !cached.iter().any(|other| other == node)).collect();
                return tidy(jobs, prompt_id, made).await;
            }
            Ok(Look::Queued) => unknowns = 0,
            Ok(Look::Unknown) => {
                unknowns += 1;
                if unknowns >= UNKNOWNS {
                    return;
                }
            }
            Err(Unreachable::Absent(_)) => return,
            Err(Unreachable::Silent(_)) => {}
        }
    }
    tracing::warn!(prompt_id, "a cancelled job is still in ComfyUI");
}
