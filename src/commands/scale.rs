//! `scale`: bounds and recurring schedules, through the stack, touching the scalable target and the policy only.

use serde_json::json;

use super::look::{self, Wanted};
use super::{Context, Done, up};
use crate::cli::{self, ScaleAction, ScheduleAction};
use crate::cloud::observe;
use crate::config::ScheduleEntry;
use crate::error::{Error, Result};
use crate::plan::{self, Scale};
use crate::stack;

/// Runs it.
///
/// # Errors
/// As `up`; [`crate::error::Kind::Usage`] for schedules without autoscaling.
pub async fn run(context: &Context<'_>, args: &cli::Scale) -> Result<Done> {
    let what = match &args.action {
        ScaleAction::Set { min, max } => {
            if *min == Some(0) {
                return Err(Error::usage("a real-time endpoint cannot scale to zero: --min must be at least 1"));
            }
            Scale::Set { min: *min, max: *max }
        }
        ScaleAction::Off => Scale::Off,
        ScaleAction::Schedule(ScheduleAction::Ls) => return list(context).await,
        ScaleAction::Schedule(ScheduleAction::Rm { name }) => Scale::Remove(name.clone()),
        ScaleAction::Schedule(ScheduleAction::Add { name, when, timezone, min, max }) => {
            let entry = ScheduleEntry {
                name: name.clone(),
                when: when.clone(),
                timezone: timezone.clone(),
                min: *min,
                max: *max,
            };
            super::config::check_schedule(&context.settings, &entry)?;
            Scale::Add(entry)
        }
    };
    let (look, plan) =
        look::planned(context, Wanted::nothing(), |settings, _, world| plan::scale(settings, world, &what)).await?;
    let mut done = up::carry_out(context, "scale", look, &plan).await?;
    if !plan.is_empty() {
        done.text.push_str("\nTo keep this at the next `up`, write it into comfy-deploy.yaml under autoscaling.\n");
    }
    Ok(done)
}

/// The schedules of the deployed template.
async fn list(context: &Context<'_>) -> Result<Done> {
    let caller = context.cloud.identity.caller().await?;
    observe::check_account(&context.settings, &caller.account)?;
    let name = context.settings.stack();
    let Some(stack) = context.cloud.stacks.stack(&name).await? else {
        return Err(
            Error::usage(format!("there is no stack {name} in {}", context.settings.region)).next("comfy-deploy up")
        );
    };
    let template = stack::parse(&context.cloud.stacks.template(&name).await?)?;
    let schedules = stack::edit::schedules(&template);
    let on = stack.parameters.get("SageMakerAutoScaling").is_some_and(|v| v == "true");
    let mut text = String::new();
    for s in &schedules {
        let bound = |b: Option<u32>| b.map_or_else(|| "-".to_owned(), |b| b.to_string());
        text.push_str(&format!(
            "{}  {}  {}  min {}  max {}\n",
            s.name,
            s.when,
            s.timezone.as_deref().unwrap_or("UTC"),
            bound(s.min),
            bound(s.max)
        ));
    }
    if schedules.is_empty() {
        text.push_str("No scaling schedules.\n");
    }
    if !on {
        text.push_str("Autoscaling is off.\n");
    }
    Ok(Done::new(text, json!({"autoscaling": on, "schedules": schedules})))
}
