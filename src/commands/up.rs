//! `up`: everything the config file describes, deployed and verified.

use std::time::Instant;

use super::look::{self, Look, Wanted};
use super::{Context, Done, model, now, result, show};
use crate::apply::deploy::{self, Job};
use crate::apply::failure;
use crate::error::{Error, Kind, Result};
use crate::plan::{self, Growth, Plan, StepKind};
use crate::progress::Event;

/// Runs it.
///
/// # Errors
/// See [`crate::error::Kind`]; each says how to go on.
pub async fn run(context: &Context<'_>) -> Result<Done> {
    let begun = Instant::now();
    let stream = model::bring(context, model::Instance::Configured).await?;
    loop {
        let (look, plan) = look::planned(context, Wanted::everything().streaming(stream), plan::up).await?;
        match carry_out(context, "up", look, &plan).await {
            // Another run was faster after all were asked: its changes are waited for, and the rest is planned anew.
            Err(e) if e.kind() == Kind::Busy && context.settings.wait_lock.is_some_and(|w| begun.elapsed() < w) => {
                context.reporter.report(Event::Phase(format!("waiting: {e}")));
                look::pause(context).await?;
            }
            ended => return ended,
        }
    }
}

/// Quota, plan shown, one confirmation, deployment, result. Shared by every verb that deploys.
///
/// # Errors
/// See [`run`].
pub async fn carry_out(context: &Context<'_>, verb: &'static str, look: Look, plan: &Plan) -> Result<Done> {
    let Look { local, world, sources } = look;
    if plan.is_empty() {
        let run = context.run();
        let job = Job { settings: &context.settings, plan, local: &local, world: &world, sources, verb, now };
        let done = deploy::complete(&run, job).await?;
        let stack = world.service.as_ref().map(|s| s.stack.clone());
        let (text, data) = result::describe(context, plan, &world, stack.as_ref(), &done);
        return Ok(Done::new(format!("Nothing to do: {} is as the config says.\n\n{text}", plan.target.stack), data));
    }
    if let Some(growth) = &plan.growth {
        quota(context, growth).await?;
    }
    context.ui.talk(&show::plan(plan, context.ui.manner().err));
    for step in plan.foundation.iter().chain(&plan.service).filter(|s| s.kind == StepKind::Recreate) {
        explain_failure(context, &step.stack).await?;
    }
    if !context.ui.confirm("Deploy this?", &|| context.cancel.is_set())? {
        return Err(Error::new(Kind::Refused, "not confirmed; nothing was changed"));
    }
    let run = context.run();
    let job = Job { settings: &context.settings, plan, local: &local, world: &world, sources, verb, now };
    let done = deploy::deploy(&run, job).await?;
    let stack = context.cloud.stacks.stack(&plan.target.stack).await?;
    let (text, data) = result::describe(context, plan, &world, stack.as_ref(), &done);
    Ok(Done::new(text, data))
}

/// Refuses before any byte moves when the account cannot run so many instances.
async fn quota(context: &Context<'_>, growth: &Growth) -> Result<()> {
    let Some(limit) = context.cloud.quotas.endpoint_usage(&growth.instance_type).await? else { return Ok(()) };
    let used = context.cloud.endpoints.instances_in_use(&growth.instance_type).await?;
    let needed = used + growth.instances;
    if (needed as f64) <= limit {
        return Ok(());
    }
    let name = format!("{} for endpoint usage", growth.instance_type);
    Err(Error::new(Kind::Quota, format!("the quota \"{name}\" is {limit}, but {needed} are needed"))
        .why(format!("{used} in use, {} more for this deployment (a blue-green update runs old and new side by side)", growth.instances))
        .next(format!(
            "ask for more: aws service-quotas request-service-quota-increase --service-code sagemaker --desired-value {needed} --region {} \
             --quota-code $(aws service-quotas list-service-quotas --service-code sagemaker --region {0} --query \"Quotas[?QuotaName=='{name}'].QuotaCode\" --output text)",
            context.settings.region
        )))
}

/// A stack whose first creation failed is deleted and made again: the user sees why it failed before it is gone.
async fn explain_failure(context: &Context<'_>, stack: &str) -> Result<()> {
    let events = context.cloud.stacks.events(stack, None).await?;
    let cause = failure::root_cause(&events).map_or_else(|| "its events do not say why".to_owned(), failure::line);
    context.ui.talk(&format!("The first creation of {stack} failed and it can only be deleted and made again. It failed because of\n  {cause}\n"));
    Ok(())
}
