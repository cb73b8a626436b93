//! `up` carried out: foundation, artifacts side by side, the service stack, verification, clearing away.

use std::time::Instant;

use serde::Serialize;

use super::follow::{Watch, follow};
use super::operation::{self, Prepared};
use super::{Run, artifacts, failure, verify};
use crate::cloud::{Endpoint, Map};
use crate::error::{Error, Kind, Result};
use crate::local::sources::Sources;
use crate::plan::{self, ImagePlan, Local, Plan, Step, StepKind, World};
use crate::progress::Event;
use crate::record::{self, Outcome, Record};
use crate::settings::Settings;

/// What a deployment did.
#[derive(Debug, Default, Serialize)]
pub struct Deployed {
    /// Whether anything in AWS was changed.
    pub changed: bool,
    /// The image as `repo@sha256:...`, or as given.
    pub image: String,
    /// Whether a builder ran.
    pub built: bool,
    /// Bytes of the model artifact that were sent.
    pub uploaded: u64,
    /// CRC64NVME of the model artifact, if it was sent now.
    pub crc64nvme: Option<String>,
    /// Models and endpoint configs that were cleared away.
    pub cleared: Vec<String>,
    /// Seconds per part of the work.
    pub durations: std::collections::BTreeMap<&'static str, f64>,
    /// The live endpoint.
    #[serde(skip)]
    pub endpoint: Option<Endpoint>,
}

/// Everything that a deployment needs beside its [`Run`].
pub struct Job<'a> {
    /// The decided settings.
    pub settings: &'a Settings,
    /// The confirmed plan.
    pub plan: &'a Plan,
    /// What the plan was made from.
    pub local: &'a Local,
    /// What the plan was made from.
    pub world: &'a World,
    /// The files behind `local`.
    pub sources: Sources,
    /// The verb, for the record.
    pub verb: &'static str,
    /// RFC 3339, now.
    pub now: fn() -> String,
}

/// Carries a plan out.
///
/// # Errors
/// Of every kind; each says how to go on.
pub async fn deploy(run: &Run<'_>, mut job: Job<'_>) -> Result<Deployed> {
    let begun = Instant::now();
    let mut done = Deployed::default();
    if let Some(step) = &job.plan.foundation {
        run.say(Event::Phase(format!("{} ({})", step.title, step.stack)));
        stack(run, step, None, None).await?;
        done.changed = true;
    }
    let before = Instant::now();
    let sources = std::mem::take(&mut job.sources);
    let made = artifacts::make(run, job.settings, job.plan, sources).await?;
    done.durations.insert("artifacts", before.elapsed().as_secs_f64());
    done.changed |= made.changed;
    done.uploaded = made.uploaded;
    done.crc64nvme = made.crc64nvme;
    done.built = made.built;
    done.image = made.image.unwrap_or_else(|| deployed_image(job.world));

    let steps = match job.plan.image {
        ImagePlan::Build { .. } => job.plan.service_for(job.settings, job.local, job.world, &done.image)?,
        _ => job.plan.service.clone(),
    };
    let before = Instant::now();
    service(run, &job, &steps, &mut done).await?;
    for change in &job.plan.protection {
        run.cloud.stacks.protect(&change.stack, change.on).await?;
        done.changed = true;
    }
    done.durations.insert("service", before.elapsed().as_secs_f64());
    done.durations.insert("total", begun.elapsed().as_secs_f64());
    Ok(done)
}

/// The steps of the service stack, the record around them, and what comes after.
async fn service(run: &Run<'_>, job: &Job<'_>, steps: &[Step], done: &mut Deployed) -> Result<()> {
    let Some(last) = steps.last() else { return Ok(()) };
    let target = &job.plan.target;
    let watch = Watch { endpoint: target.stack.clone() };
    if last.kind == StepKind::Attach {
        done.changed = true;
        run.say(Event::Phase(format!("{} ({})", last.title, last.stack)));
        let ended = follow(run, &last.stack, None, None, Some(watch)).await?;
        let result = match ended.good() {
            true => after(run, &last.stack, &last.parameters, done).await,
            false => Err(failure::operation(run, &last.stack, &ended)),
        };
        return settled(run, job, result).await;
    }
    if let Some(n) = job.world.open_record {
        close_abandoned(run, job, n).await?;
    }
    for (i, step) in steps.iter().enumerate() {
        run.cancel.check()?;
        run.say(Event::Phase(step.title.clone()));
        let url = template_url(run, target, step).await?;
        let Some(prepared) = operation::prepare(run, step, url).await? else { continue };
        if i == 0 {
            begin(run, job, last, step, &prepared).await?;
        }
        done.changed = true;
        // An error here is no outcome: the operation goes on without us, or was never begun. A later run tells which.
        let ended = operation::execute(run, step, &prepared, Some(watch.clone())).await?;
        if ended.good() {
            continue;
        }
        let error = failure::operation(run, &step.stack, &ended);
        let error = if i > 0 { restore(run, job, error).await } else { error };
        return settled(run, job, Err(error)).await;
    }
    let outcome = after(run, &last.stack, &last.parameters, done).await;
    settled(run, job, outcome).await
}

/// Writes the outcome unless we leave before it is known.
async fn settled(run: &Run<'_>, job: &Job<'_>, result: Result<()>) -> Result<()> {
    if !matches!(&result, Err(e) if matches!(e.kind(), Kind::Interrupted | Kind::Access)) {
        settle(run, job, result.as_ref().map(|_| ())).await;
    }
    result
}

/// What a run that was killed after its stack was done had no time for: verification, clearing away, the outcome.
///
/// # Errors
/// As [`deploy`].
pub async fn complete(run: &Run<'_>, job: Job<'_>) -> Result<Deployed> {
    let mut done = Deployed { image: deployed_image(job.world), ..Deployed::default() };
    let (Some(n), Some(service)) = (job.world.open_record, &job.world.service) else { return Ok(done) };
    run.say(Event::Phase(format!("completing deployment {n}, which was interrupted")));
    after(run, &job.plan.target.stack, &service.stack.parameters, &mut done).await?;
    close_abandoned(run, &job, n).await?;
    Ok(done)
}

/// Runs one step of any stack to its end.
async fn stack(run: &Run<'_>, step: &Step, template_url: Option<String>, watch: Option<Watch>) -> Result<()> {
    if step.kind == StepKind::Attach {
        let ended = follow(run, &step.stack, None, None, watch).await?;
        return if ended.good() { Ok(()) } else { Err(failure::operation(run, &step.stack, &ended)) };
    }
    let Some(prepared) = operation::prepare(run, step, template_url).await? else { return Ok(()) };
    let ended = operation::execute(run, step, &prepared, watch).await?;
    if ended.good() { Ok(()) } else { Err(failure::operation(run, &step.stack, &ended)) }
}

/// A template over the limit of a request body goes through the bucket.
async fn template_url(run: &Run<'_>, target: &plan::Target, step: &Step) -> Result<Option<String>> {
    if step.body.len() <= operation::BODY_LIMIT {
        return Ok(None);
    }
    let key = format!("templates/{}-{:06}.json", target.stack, target.record);
    let body = bytes::Bytes::from(step.body.clone());
    run.cloud.objects.put(&target.bucket, &key, body, &crate::cloud::PutOptions::default()).await?;
    Ok(Some(format!("https://{}.s3.{}.amazonaws.com/{key}", target.bucket, target.region)))
}

/// The record that is the lock. If somebody else was faster, the prepared change set is taken back.
async fn begin(run: &Run<'_>, job: &Job<'_>, last: &Step, step: &Step, prepared: &Prepared) -> Result<()> {
    let target = &job.plan.target;
    let record = Record {
        n: target.record,
        stack: target.stack.clone(),
        verb: job.verb.into(),
        started: (job.now)(),
        token: prepared.token().to_owned(),
        tool: env!("CARGO_PKG_VERSION").into(),
        parameters: last.parameters.clone(),
        template: last.body.clone(),
    };
    let begun = record::begin(run.cloud.objects.as_ref(), &target.bucket, &record).await;
    if begun.is_err() {
        operation::abandon(run, step, prepared).await;
    }
    begun
}

/// Writes the outcome of the record; a failure to write it is told, not raised: the next run completes it.
async fn settle(run: &Run<'_>, job: &Job<'_>, result: std::result::Result<(), &Error>) {
    let target = &job.plan.target;
    let n = match (&job.world.open_record, job.plan.service.last().map(|s| s.kind)) {
        (Some(n), Some(StepKind::Attach)) => *n,
        (None, Some(StepKind::Attach)) => return,
        _ => target.record,
    };
    let status = run.cloud.stacks.stack(&target.stack).await.ok().flatten().map(|s| s.status);
    let outcome = Outcome {
        state: if result.is_ok() { "succeeded" } else { "failed" }.into(),
        stack_status: status,
        ended: (job.now)(),
        reason: result.err().map(ToString::to_string),
    };
    if let Err(e) = record::finish(run.cloud.objects.as_ref(), &target.bucket, &target.stack, n, &outcome).await {
        run.say(Event::Warning(format!("the outcome of deployment {n} is not recorded: {e}")));
    }
}

/// An earlier run began a record and never ended it. Its stack is at rest now, so what became of it can be told.
async fn close_abandoned(run: &Run<'_>, job: &Job<'_>, n: u32) -> Result<()> {
    let target = &job.plan.target;
    let service = job.world.service.as_ref().map(|s| &s.stack);
    let status = service.map(|s| s.status.clone());
    let objects = run.cloud.objects.as_ref();
    let record = record::read(objects, &target.bucket, &target.stack, n).await?;
    // A good status alone may be that of the deployment before: the killed run may not have come to execute anything.
    let good = service.zip(record).is_some_and(|(stack, record)| {
        matches!(stack.status.as_str(), "CREATE_COMPLETE" | "UPDATE_COMPLETE") && stack.parameters == record.parameters
    });
    let outcome = Outcome {
        state: if good { "succeeded" } else { "abandoned" }.into(),
        stack_status: status,
        ended: (job.now)(),
        reason: Some("completed by a later run".into()),
    };
    record::finish(run.cloud.objects.as_ref(), &target.bucket, &target.stack, n, &outcome).await
}

/// The second of two updates failed: the stack is put back to what it was, autoscaling included.
async fn restore(run: &Run<'_>, job: &Job<'_>, error: Error) -> Error {
    let Some(before) = &job.world.service else { return error };
    run.say(Event::Phase("putting autoscaling back as it was".into()));
    let step = Step {
        stack: before.stack.name.clone(),
        kind: StepKind::Update,
        title: "service: as before".into(),
        body: before.body.clone(),
        parameters: before.stack.parameters.clone(),
        tags: before
            .stack
            .tags
            .iter()
            .filter(|(k, _)| !k.starts_with("aws:"))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
        changes: Vec::new(),
    };
    match stack(run, &step, None, None).await {
        Ok(()) => error.why("autoscaling and its schedules were put back"),
        Err(e) => error.why(format!("and autoscaling could not be put back: {e}")),
    }
}

/// Verification, log retention, clearing away.
async fn after(run: &Run<'_>, name: &str, parameters: &Map, done: &mut Deployed) -> Result<()> {
    let version = parameters.get("ModelVersion").cloned().unwrap_or_default();
    let config = format!("{name}-{version}");
    let image = parameters.get("ModelEcrImage").cloned().unwrap_or_default();
    let live = verify::endpoint(run, name, &config, &image).await?;
    verify::keep_logs(run, name).await;
    let tags = Map::from([(plan::STACK_TAG.to_owned(), name.to_owned())]);
    done.cleared = verify::clear(run, name, &tags, &[&config]).await;
    done.endpoint = Some(live);
    Ok(())
}

/// The image that the stack runs now.
fn deployed_image(world: &World) -> String {
    world.service.as_ref().and_then(|s| s.stack.parameters.get("ModelEcrImage").cloned()).unwrap_or_default()
}
