//! Pictures that come with a workflow, for its LoadImage nodes.

use crate::job::{Jobs, Submission};
use crate::outputs::File;
use crate::problem::Problem;
use crate::request::{self, Request};

/// Pictures that came with a request; removed when this is dropped.
pub(crate) struct Uploads {
    jobs: Jobs,
    files: Vec<File>,
}

impl Drop for Uploads {
    fn drop(&mut self) {
        let (jobs, files) = (self.jobs.clone(), std::mem::take(&mut self.files));
        if !files.is_empty() && tokio::runtime::Handle::try_current().is_ok() {
            self.jobs.chores.spawn(async move { jobs.disk.remove_uploads(&files).await });
        }
    }
}

/// Gives ComfyUI the pictures of a request, each under a name that no other request uses.
pub(crate) async fn upload(jobs: &Jobs, request: Request) -> Result<(Submission, Uploads), Problem> {
    let Request { submission, images } = request;
    let mut uploads = Uploads { jobs: jobs.clone(), files: Vec::new() };
    if images.is_empty() {
        return Ok((submission, uploads));
    }
    let mut workflow = submission.workflow.into_value();
    let request = uuid::Uuid::new_v4().simple().to_string();
    for image in images {
        let stored = format!("{request}-{}", image.name);
        if request::rename(&mut workflow, &image.name, &stored) == 0 {
            let message = format!("no node names the picture {}; put its name into a LoadImage node", image.name);
            return Err(Problem::bad_request("unused_image", message));
        }
        uploads.files.push(File { filename: stored.clone(), subfolder: String::new(), kind: "input".into() });
        let answer = jobs.comfy.upload(&stored, &image.bytes).await.map_err(|cause| {
            tracing::warn!("{cause}");
            Problem::not_ready("ComfyUI does not take pictures; try again in a few seconds")
        })?;
        if !answer.status.is_success() {
            let message = format!("ComfyUI answered {} to the picture {}", answer.status, image.name);
            return Err(Problem::internal("comfyui_error", message));
        }
    }
    let workflow = comfy_workflow::Workflow::from_value(workflow)
        .map_err(|why| Problem::bad_request("invalid_workflow", why.to_string()))?;
    Ok((Submission { workflow, ..submission }, uploads))
}
