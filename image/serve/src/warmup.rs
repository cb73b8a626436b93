//! The first job of a new ComfyUI, so that the first caller does not pay for loading the model.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::cli::DEFAULT_WARMUP;
use crate::job::Jobs;
use crate::problem::Problem;
use crate::prompt::Prompt;
use crate::record::Trace;
use crate::request::{self, Request};
use crate::upload::upload;

/// How often a warm-up is tried that failed for no reason of its own.
const TRIES: u32 = 3;
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(2);

/// What to warm up with.
#[derive(Debug, Clone)]
pub(crate) struct Warmup {
    request: Request,
    /// Of the file.
    bytes: usize,
}

impl Warmup {
    /// Reads the workflow; none when the default file is missing.
    ///
    /// # Errors
    /// A file that was named is missing, or one that is there is not a workflow.
    pub(crate) fn load(path: PathBuf) -> Result<Option<Self>, String> {
        let wrong =
            |why: String| format!("the warm-up workflow {}: {why}; correct it, or set WARMUP=off", path.display());
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(cause) if cause.kind() == ErrorKind::NotFound && path == Path::new(DEFAULT_WARMUP) => return Ok(None),
            Err(cause) => return Err(wrong(cause.to_string())),
        };
        let request = request::parse(&text).map_err(|problem| wrong(problem.message))?;
        Ok(Some(Warmup { request, bytes: text.len() }))
    }

    /// Runs it to its end, however long that takes: SageMaker's own limit of the start decides. A workflow that fails
    /// is reported and that is all: real requests may bring what it lacks.
    pub(crate) async fn run(&self, jobs: &Jobs) {
        let begun = Instant::now();
        tracing::info!("warming up");
        for attempt in 1..=TRIES {
            match self.once(jobs).await {
                Ok(()) => {
                    tracing::info!(duration_ms = begun.elapsed().as_millis() as u64, "warm");
                    return;
                }
                Err(problem) if problem.status.is_server_error() && attempt < TRIES => {
                    tracing::warn!(code = problem.code, "the warm-up did not end and is tried again");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(problem) => return report(&problem),
            }
        }
    }

    async fn once(&self, jobs: &Jobs) -> Result<(), Problem> {
        let (submission, _uploads) = upload(jobs, self.request.clone()).await?;
        let prompt = Prompt::new(submission, self.bytes).await?;
        jobs.run(&prompt, false, &Trace::default()).await.map(drop)
    }
}

fn report(problem: &Problem) {
    tracing::error!(
        code = problem.code,
        node = problem.node.as_ref().map(|(id, class)| format!("{id} ({class})")),
        "the warm-up workflow failed; the first request will load the model: {}",
        problem.message
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        assert!(Warmup::load(DEFAULT_WARMUP.into()).expect("not there").is_none());
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("w.json");
        assert!(Warmup::load(path.clone()).expect_err("missing").contains("WARMUP=off"));
        std::fs::write(&path, "{}").expect("written");
        assert!(Warmup::load(path.clone()).expect_err("empty").contains("no nodes"));
        std::fs::write(&path, r#"{"1":{"class_type":"A","inputs":{}}}"#).expect("written");
        assert!(Warmup::load(path).expect("a workflow").is_some());
    }
}
