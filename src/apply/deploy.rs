//! `up` carried out: foundation, artifacts side by side, the service stack, verification, clearing away.

use std::time::Instant;

use serde::Serialize;

use super::follow::{Ended, Watch, follow};
use super::operation::{self, Prepared};
use super::{Run, artifacts, failure, verify};
use crate::cloud::{Endpoint, Map, Stack};
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
    /// Bytes of the model artifact, if it was published now.
    pub model_bytes: Option<u64>,
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
        stack(run, step, None, None).await.map_err(|stopped| stopped.error)?;
        done.changed = true;
    }
    let before = Instant::now();
    let sources = std::mem::take(&mut job.sources);
    let made = artifacts::make(run, job.settings, job.plan, sources).await?;
    done.durations.insert("artifacts", before.elapsed().as_secs_f64());
    done.changed |= made.changed;
    done.uploaded = made.uploaded;
    done.model_bytes = made.model_bytes;
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
    let (result, record) = if last.kind == StepKind::Attach {
        run.say(Event::Phase(format!("{} ({})", last.title, last.stack)));
        done.changed = true;
        let watch = Watch { endpoint: job.plan.target.stack.clone(), container: true };
        (stack(run, last, None, Some(watch)).await, job.world.open_record)
    } else {
        if let Some(n) = job.world.open_record {
            close_abandoned(run, job, n).await?;
        }
        let mut begun = false;
        let result = walk(run, job, steps, &mut begun, done).await;
        (result, begun.then_some(job.plan.target.record))
    };
    let result = match result {
        Ok(()) => after(run, &last.stack, &last.parameters, done).await.map_err(Stopped::ended),
        stopped => stopped,
    };
    match result {
        Ok(()) => {
            settle(run, job, record, Ok(())).await;
            Ok(())
        }
        // What goes on in AWS has no outcome yet; the next run finds it and writes it down.
        Err(stopped) if stopped.goes_on => Err(stopped.error),
        Err(stopped) => {
            settle(run, job, record, Err(&stopped.error)).await;
            Err(stopped.error)
        }
    }
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

/// Why a step did not come to its end.
struct Stopped {
    error: Error,
    /// The operation goes on in AWS, or its end is unknown.
    goes_on: bool,
}

impl Stopped {
    fn ended(error: Error) -> Self {
        // Waiting for the endpoint can be interrupted, too.
        let goes_on = matches!(error.kind(), Kind::Interrupted | Kind::Access);
        Stopped { error, goes_on }
    }
}

/// One step after the other. What a later one cannot do is taken back to before the first.
async fn walk(
    run: &Run<'_>,
    job: &Job<'_>,
    steps: &[Step],
    begun: &mut bool,
    done: &mut Deployed,
) -> std::result::Result<(), Stopped> {
    let Some(last) = steps.last() else { return Ok(()) };
    let mut changed = false;
    for (i, step) in steps.iter().enumerate() {
        run.say(Event::Phase(step.title.clone()));
        let result = one(run, job, step, last, begun, &mut changed).await;
        done.changed |= changed;
        let Err(stopped) = result else { continue };
        let put_back = changed && i > 0 && !stopped.goes_on && !run.keep_on_failure;
        return Err(if put_back { restore(run, job, stopped).await } else { stopped });
    }
    Ok(())
}

/// Prepares, records (before the first execution), executes. Sets `changed` once something was executed.
async fn one(
    run: &Run<'_>,
    job: &Job<'_>,
    step: &Step,
    last: &Step,
    begun: &mut bool,
    changed: &mut bool,
) -> std::result::Result<(), Stopped> {
    let still = |error| Stopped { error, goes_on: false };
    run.cancel.check().map_err(Stopped::ended)?;
    let url = template_url(run, &job.plan.target, step).await.map_err(Stopped::ended)?;
    let Some(prepared) = operation::prepare(run, step, url).await.map_err(Stopped::ended)? else { return Ok(()) };
    if let Err(interrupted) = run.cancel.check() {
        operation::take_back(run, step, &prepared).await;
        return Err(Stopped::ended(interrupted.why("nothing was executed")));
    }
    if !*begun {
        begin(run, job, last, step, &prepared).await.map_err(still)?;
        *begun = true;
    }
    *changed = true;
    let watch = Watch { endpoint: job.plan.target.stack.clone(), container: true };
    executed(run, step, &prepared, Some(watch)).await
}

/// Runs one step of any stack to its end.
async fn stack(
    run: &Run<'_>,
    step: &Step,
    template_url: Option<String>,
    watch: Option<Watch>,
) -> std::result::Result<(), Stopped> {
    if step.kind == StepKind::Attach {
        let ended = follow(run, &step.stack, None, None, watch).await;
        return judged(run, step, ended);
    }
    match operation::prepare(run, step, template_url).await.map_err(Stopped::ended)? {
        Some(prepared) => executed(run, step, &prepared, watch).await,
        None => Ok(()),
    }
}

async fn executed(
    run: &Run<'_>,
    step: &Step,
    prepared: &Prepared,
    watch: Option<Watch>,
) -> std::result::Result<(), Stopped> {
    if let Err(error) = operation::execute(run, step, prepared).await {
        let goes_on = error.kind() == Kind::Busy;
        return Err(Stopped { error, goes_on });
    }
    judged(run, step, follow(run, &step.stack, prepared.seen(), Some(prepared.token()), watch).await)
}

/// An operation that was followed to its end went well or badly; otherwise it goes on without us.
fn judged(run: &Run<'_>, step: &Step, ended: Result<Ended>) -> std::result::Result<(), Stopped> {
    match ended {
        Ok(ended) if ended.good() => Ok(()),
        Ok(ended) => Err(Stopped { error: failure::operation(run, &step.stack, &ended), goes_on: false }),
        Err(error) => Err(Stopped { error, goes_on: true }),
    }
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

/// Writes the outcome of a record; a failure to write it is told, not raised: the next run completes it.
async fn settle(run: &Run<'_>, job: &Job<'_>, record: Option<u32>, result: std::result::Result<(), &Error>) {
    let Some(n) = record else { return };
    let target = &job.plan.target;
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

/// An earlier run began a record and never ended it. Its stack is at rest now, so what became of it can be told: it
/// went well if the stack is complete with exactly the parameters that were recorded, and SageMaker agrees.
async fn close_abandoned(run: &Run<'_>, job: &Job<'_>, n: u32) -> Result<()> {
    let target = &job.plan.target;
    let objects = run.cloud.objects.as_ref();
    let record = record::read(objects, &target.bucket, &target.stack, n).await?;
    let stack = job.world.service.as_ref().map(|s| &s.stack);
    let outcome = Outcome {
        state: became(record.as_ref(), stack, job.world.silent_rollback().is_some()).into(),
        stack_status: stack.map(|s| s.status.clone()),
        ended: (job.now)(),
        reason: Some("completed by a later run".into()),
    };
    record::finish(objects, &target.bucket, &target.stack, n, &outcome).await
}

/// What became of a record without an outcome, judged by its stack at rest.
fn became(record: Option<&Record>, stack: Option<&Stack>, silent_rollback: bool) -> &'static str {
    let good = stack.is_some_and(|stack| {
        matches!(stack.status.as_str(), "CREATE_COMPLETE" | "UPDATE_COMPLETE")
            && record.is_some_and(|record| record.parameters == stack.parameters)
    });
    if good && !silent_rollback { "succeeded" } else { "abandoned" }
}

/// The second of two updates failed: the stack is put back to what it was, autoscaling included.
async fn restore(run: &Run<'_>, job: &Job<'_>, stopped: Stopped) -> Stopped {
    let Some(before) = &job.world.service else { return stopped };
    run.say(Event::Phase("putting autoscaling back as it was".into()));
    let step = Step {
        stack: before.stack.name.clone(),
        kind: StepKind::Update,
        title: "service: as before".into(),
        import_existing: false,
        body: before.body.clone(),
        parameters: before.stack.parameters.clone(),
        tags: plan::user_tags(&before.stack.tags),
        changes: Vec::new(),
    };
    let put_back = match template_url(run, &job.plan.target, &step).await {
        Ok(url) => stack(run, &step, url, None).await,
        Err(error) => Err(Stopped { error, goes_on: false }),
    };
    let error = match put_back {
        Ok(()) => stopped.error.why("autoscaling and its schedules were put back"),
        Err(again) => stopped
            .error
            .why(format!("and autoscaling could not be put back: {}", again.error))
            .next(format!("once the stack is at rest, `{}` sets autoscaling up again", run.resume)),
    };
    Stopped { error, goes_on: false }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn stack_of(status: &str, version: &str) -> Stack {
        Stack {
            name: "app".into(),
            id: "arn".into(),
            status: status.into(),
            reason: None,
            parameters: Map::from([("ModelVersion".into(), version.into())]),
            outputs: Map::new(),
            tags: Map::new(),
            protected: false,
        }
    }

    #[test]
    fn a_record_went_well_only_if_the_stack_came_to_what_it_says() {
        let record = Record {
            n: 2,
            stack: "app".into(),
            verb: "up".into(),
            started: String::new(),
            token: String::new(),
            tool: String::new(),
            parameters: Map::from([("ModelVersion".into(), "v2".into())]),
            template: String::new(),
        };
        let became = |stack: &Stack, silent| became(Some(&record), Some(stack), silent);
        assert_eq!(became(&stack_of("UPDATE_COMPLETE", "v2"), false), "succeeded");
        assert_eq!(became(&stack_of("UPDATE_COMPLETE", "v2"), true), "abandoned", "SageMaker went back");
        assert_eq!(became(&stack_of("UPDATE_COMPLETE", "v1"), false), "abandoned", "only the first of two steps");
        assert_eq!(became(&stack_of("UPDATE_ROLLBACK_COMPLETE", "v1"), false), "abandoned");
        assert_eq!(super::became(None, Some(&stack_of("UPDATE_COMPLETE", "v2")), false), "abandoned");
        assert_eq!(super::became(Some(&record), None, false), "abandoned");
    }
}
