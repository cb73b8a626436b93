//! A workflow through ComfyUI: submit, follow, fetch, and run again what is cached but gone.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{StatusCode, header};
use comfy_workflow::Workflow;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedRwLockReadGuard, OwnedSemaphorePermit, RwLock, Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::comfy::Comfy;
use crate::disk::{Directories, Disk};
use crate::follow;
use crate::health::Health;
use crate::kept::{Content, Fingerprint, Kept};
use crate::line::Lines;
use crate::outputs::{File, Found, Frame, Item, found, media_type};
use crate::problem::Problem;
use crate::prompt::Prompt;
use crate::queue::Queue;
use crate::record::Trace;

/// Between two sweeps of the folders that jobs left.
const SWEEP: Duration = Duration::from_secs(5);
/// The media type of what has none.
const UNKNOWN: &str = "application/octet-stream";

/// What a job sends, apart from ids.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Submission {
    pub(crate) workflow: Workflow,
    /// `extra_data` and `partial_execution_targets`, as the page sends them.
    pub(crate) extra: Map<String, Value>,
}

/// What a job made, for the caller.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Output {
    pub(crate) node: String,
    pub(crate) filename: Option<String>,
    pub(crate) content: Content,
}

/// A job that succeeded.
#[derive(Debug)]
pub(crate) struct Done {
    /// Its id in ComfyUI; the last one when it was run twice.
    pub(crate) prompt_id: String,
    /// From submission until it ran, where known.
    pub(crate) queued: Option<Duration>,
    /// At least one.
    pub(crate) outputs: Vec<Output>,
    /// Nodes that ComfyUI left out because they are invalid.
    pub(crate) invalid_nodes: Vec<String>,
}

/// What a run left in ComfyUI.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) outputs: Map<String, Value>,
    /// Nodes whose result was there before.
    pub(crate) cached: HashSet<String>,
    pub(crate) frames: Vec<Frame>,
    /// Nodes whose pictures come on the socket alone and may be missing, because it broke.
    pub(crate) lost: Vec<String>,
    pub(crate) queued: Option<Duration>,
    pub(crate) invalid_nodes: Vec<String>,
}

/// Whether ComfyUI's process lives, and how often it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Presence {
    pub(crate) up: bool,
    pub(crate) starts: u64,
}

/// Runs jobs.
#[derive(Debug, Clone)]
pub(crate) struct Jobs {
    pub(crate) comfy: Comfy,
    pub(crate) lines: Lines,
    pub(crate) queue: Arc<Queue>,
    pub(crate) disk: Arc<Disk>,
    /// Read by each job for as long as it may be in ComfyUI.
    inside: Arc<RwLock<()>>,
    kept: Arc<Mutex<Kept>>,
    /// For each job whose outputs are fetched and converted at a time.
    turns: Arc<Semaphore>,
    /// Cancelling and cleaning up, which no caller waits for.
    pub(crate) chores: TaskTracker,
    /// None when somebody else starts ComfyUI.
    pub(crate) presence: Option<watch::Receiver<Presence>>,
    pub(crate) health: Arc<Health>,
}

impl Jobs {
    pub(crate) fn new(
        comfy: Comfy,
        directories: Directories,
        presence: Option<watch::Receiver<Presence>>,
        health: Arc<Health>,
    ) -> Self {
        Jobs {
            lines: Lines::new(comfy.clone()),
            queue: Arc::new(Queue::new(comfy.clone())),
            comfy,
            disk: Arc::new(Disk::new(directories)),
            inside: Arc::default(),
            kept: Arc::default(),
            turns: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from))),
            chores: TaskTracker::new(),
            presence,
            health,
        }
    }

    /// Runs a workflow and fetches its first output, or all of them. When the future is dropped, because the caller
    /// went away or the deadline passed, the job is taken out of ComfyUI.
    ///
    /// Who gets the outputs holds a turn, to be given back when they are converted: there is one for each core, as more
    /// conversions at a time would not be faster, and what waits for its turn waits on ComfyUI's disk, not in memory.
    pub(crate) async fn run(
        &self,
        prompt: &Prompt,
        all: bool,
        trace: &Trace,
    ) -> Result<(Done, OwnedSemaphorePermit), Problem> {
        let (nodes, fingerprint) = (&prompt.nodes, &prompt.fingerprint);
        let mut run = follow::run(self, prompt, trace).await?;
        self.forget(fingerprint, &run.report);
        let queued = run.report.queued;
        let wanted = wanted(&run.report, nodes, all)?;
        let mut fetched = Vec::with_capacity(wanted.len());
        let mut gone = Vec::new();
        let turn = self.turn().await?;
        for found in &wanted {
            let output = self.fetch(found, &run.report, fingerprint).await?;
            if output.is_none() {
                gone.push(found.node.clone());
            }
            fetched.push(output);
        }
        if gone.is_empty() {
            let invalid_nodes = std::mem::take(&mut run.report.invalid_nodes);
            let prompt_id = run.finish(self);
            let outputs = fetched.into_iter().flatten().collect();
            return Ok((Done { prompt_id, queued, outputs, invalid_nodes }, turn));
        }
        // Others need not wait while these nodes run.
        drop(turn);
        let again = prompt.again(gone.clone(), run.finish(self)).await?;
        let run = follow::run(self, &again, trace).await?;
        self.forget(fingerprint, &run.report);
        let again = self::wanted(&run.report, nodes, all)?;
        let turn = self.turn().await?;
        let mut outputs = Vec::with_capacity(again.len());
        for found in &again {
            // What ran again is fetched again, also what was there: the name can be that of another picture.
            let mut before = wanted.iter().zip(&fetched).filter(|(other, _)| !gone.contains(&other.node));
            let same = before.find_map(|(other, output)| (other == found).then(|| output.clone()).flatten());
            let output = match same {
                Some(output) => Some(output),
                None => self.fetch(found, &run.report, fingerprint).await?,
            };
            outputs.push(output.ok_or_else(|| {
                Problem::internal("output_gone", format!("the output of node {} was made, but is gone", found.node))
            })?);
        }
        let invalid_nodes = run.report.invalid_nodes.clone();
        Ok((Done { prompt_id: run.finish(self), queued, outputs, invalid_nodes }, turn))
    }

    /// To be held for as long as a job may be in ComfyUI.
    pub(crate) async fn enter(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.inside).read_owned().await
    }

    /// Removes the folders that jobs left, for ever, when none can be about to write there: neither one of ours nor
    /// somebody else's.
    pub(crate) async fn sweep(self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            if self.disk.has_left() {
                let empty = self.comfy.remaining().await.is_ok_and(|remaining| remaining == 0);
                // The next job waits for the moment that it takes; nobody waits for jobs.
                let alone = if empty { self.inside.try_write().ok() } else { None };
                self.disk.sweep(alone.is_some()).await;
            }
        }
    }

    /// What nodes made before that ran now is nobody's any more.
    fn forget(&self, of: &Fingerprint, report: &Report) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.forget(of, |node| !report.cached.contains(node));
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        turn.map_err(|_| Problem::internal("crashed", "nothing is converted any more; this is a defect of comfy-serve"))
    }

    /// The bytes of an output; none when its file is gone.
    async fn fetch(&self, found: &Found, report: &Report, of: &Fingerprint) -> Result<Option<Output>, Problem> {
        let plain = |content_type: &str, bytes| Content { content_type: content_type.to_owned(), bytes };
        let (filename, content) = match &found.item {
            Item::Text(text) => (None, Some(plain("text/plain; charset=utf-8", text.clone().into()))),
            Item::Picture(kind, bytes) => (None, Some(plain(kind, bytes.clone()))),
            Item::File(file) => (Some(file.filename.clone()), self.fetch_file(found, file, report, of).await?),
        };
        Ok(content.map(|content| Output { node: found.node.clone(), filename, content }))
    }

    async fn fetch_file(
        &self,
        found: &Found,
        file: &File,
        report: &Report,
        of: &Fingerprint,
    ) -> Result<Option<Content>, Problem> {
        let removes = self.disk.removes(file);
        if removes && report.cached.contains(&found.node) {
            // Its file was removed after use, and the name may be another job's by now.
            return Ok(self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(of, &found.node, file));
        }
        // From the disk where that is known: a ComfyUI that computes answers late, and sends it through two more buffers.
        let content = match self.disk.read(file).await {
            Some(bytes) => {
                let content_type = media_type(&file.filename).unwrap_or(UNKNOWN);
                Some(Content { content_type: content_type.to_owned(), bytes })
            }
            None => self.view(found, file).await?,
        };
        if let Some(content) = content.as_ref().filter(|_| removes) {
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).put(*of, &found.node, file, content);
        }
        Ok(content)
    }

    /// An output from ComfyUI; none when its file is gone.
    async fn view(&self, found: &Found, file: &File) -> Result<Option<Content>, Problem> {
        let answer = self.comfy.view(file).await.map_err(|cause| Problem::lost(cause.to_string()))?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status => {
                let message = format!("the output of node {} was made, but reading it ended with {status}", found.node);
                return Err(Problem::internal("output_unreadable", message));
            }
        }
        let said = answer.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = match said {
            None | Some(UNKNOWN) => media_type(&file.filename).unwrap_or(UNKNOWN),
            Some(said) => said,
        };
        Ok(Some(Content { content_type: content_type.to_owned(), bytes: answer.body }))
    }
}

/// The outputs that the caller gets.
fn wanted(report: &Report, nodes: &[String], all: bool) -> Result<Vec<Found>, Problem> {
    let mut found = found(&report.outputs, &report.frames, nodes);
    let place = |node: &String| nodes.iter().position(|other| other == node);
    if let Some(lost) = report.lost.iter().map(place).min() {
        // What is missing does not matter if it would not have been the first.
        let first = found.first().filter(|first| !all && first.item.is_saved() && place(&first.node) < lost);
        if first.is_none() {
            return Err(Problem::lost(
                "the connection to ComfyUI broke before a picture came that is sent on it alone",
            ));
        }
    }
    if found.is_empty() {
        let message = "the workflow ran, but made nothing that can be returned; add a node that saves, like SaveImage";
        let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "no_output", message);
        return Err(problem.details(json!({"nodes_with_outputs": report.outputs.keys().collect::<Vec<_>>()})));
    }
    if !all {
        found.truncate(1);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_to_return_is_the_workflows_fault_unless_it_was_lost() {
        let problem = wanted(&Report::default(), &[], false).expect_err("nothing");
        assert_eq!((problem.status.as_u16(), problem.code), (422, "no_output"));
        let lost = Report { lost: vec!["7".into()], ..Report::default() };
        let problem = wanted(&lost, &["7".into()], false).expect_err("lost");
        assert_eq!((problem.status.as_u16(), problem.code), (503, "job_lost"));
    }

    #[test]
    fn what_was_lost_matters_if_it_would_be_the_answer() {
        let report = |kind: &str| {
            let outputs = json!({"5": {"images": [{"filename": "a.png", "subfolder": "", "type": kind}]}});
            let outputs = outputs.as_object().expect("an object").clone();
            Report { outputs, lost: vec!["7".into()], ..Report::default() }
        };
        let [before, after] = [["5", "7"], ["7", "5"]].map(|nodes| nodes.map(str::to_owned));
        assert_eq!(wanted(&report("output"), &before, false).map(|found| found.len()), Ok(1));
        // The lost one may come first, is wanted too, or is saved and this one previewed.
        for (kind, nodes, all) in [("output", &after, false), ("output", &before, true), ("temp", &before, false)] {
            assert_eq!(wanted(&report(kind), nodes, all).map_err(|problem| problem.code), Err("job_lost"));
        }
    }
}
