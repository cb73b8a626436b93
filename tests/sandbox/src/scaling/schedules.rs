//! Scheduled actions: kept, and fired at their minute of real time.

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::schedule::{self, Schedule};
use super::{DIMENSION, NAMESPACE, check_bounds, invalid, not_found, paged, target};
use crate::input::{pick, strings, text};
use crate::world::{ACCOUNT, Answer, ApiError, Ctx, World, epoch};

/// Most scheduled actions of one target (AWS doc: Quotas for Application Auto Scaling).
const MOST: usize = 200;
/// One minute in milliseconds.
const MINUTE: i64 = 60_000;

/// A scheduled action.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Action {
    created: i64,
    arn: String,
    /// Schedule, Timezone, StartTime, EndTime and ScalableTargetAction as given.
    settings: Value,
    /// The last minute that was looked at, milliseconds since 1970.
    seen: i64,
}

pub(super) fn put(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let (resource, name) = (text(input, "ResourceId"), text(input, "ScheduledActionName"));
    let target = target(world, ctx, resource)?;
    // An existing action keeps what is not given.
    let mut settings = target.schedules.get(name).map_or(json!({}), |a| a.settings.clone());
    for (member, value) in pick(input, &["Schedule", "Timezone", "StartTime", "EndTime", "ScalableTargetAction"]) {
        settings[member] = value;
    }
    let expression = text(&settings, "Schedule");
    if schedule::parse(expression).is_none() {
        return Err(invalid(format!(
            "Schedule expression {expression:?} is not valid: it is at(yyyy-mm-ddThh:mm:ss), rate(value unit) or \
             cron(minutes hours day-of-month month day-of-week year)"
        )));
    }
    if let Some(zone) = settings["Timezone"].as_str().filter(|z| schedule::zone(z).is_none()) {
        return Err(invalid(format!("Timezone {zone} is not valid")));
    }
    let action = &settings["ScalableTargetAction"];
    let (min, max) = (action["MinCapacity"].as_i64(), action["MaxCapacity"].as_i64());
    match (min, max) {
        (None, None) => {
            return Err(invalid("Either MinCapacity or MaxCapacity must be specified in the scalable target action"));
        }
        (Some(min), Some(max)) => check_bounds(min, max)?,
        (None, Some(max)) => check_bounds(target.min, max)?,
        // A minimum alone lifts the maximum when it fires.
        (Some(min), None) => check_bounds(min, min)?,
    }
    if !target.schedules.contains_key(name) && target.schedules.len() >= MOST {
        return Err(ApiError::new("LimitExceededException", format!("Maximum number of scheduled actions is {MOST}.")));
    }
    let kept = target.schedules.entry(name.to_owned()).or_insert_with(|| Action {
        created: ctx.now,
        arn: format!(
            "arn:aws:autoscaling:{}:{ACCOUNT}:scheduledAction:{}:resource/{NAMESPACE}/{resource}:scheduledActionName/{name}",
            ctx.region,
            uuid::Uuid::new_v4()
        ),
        ..Action::default()
    });
    kept.settings = settings;
    kept.seen = ctx.now.div_euclid(MINUTE) * MINUTE;
    Ok(json!({}))
}

pub(super) fn delete(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let (resource, name) = (text(input, "ResourceId"), text(input, "ScheduledActionName"));
    let targets = &mut world.region(&ctx.region).scaling.targets;
    match targets.get_mut(resource).and_then(|t| t.schedules.remove(name)) {
        Some(_) => Ok(json!({})),
        None => Err(not_found("No scheduled action found", resource, &format!(", scheduled action name: {name}"))),
    }
}

pub(super) fn describe(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let (wanted, names) = (input["ResourceId"].as_str(), strings(&input["ScheduledActionNames"]));
    let mut shown = Vec::new();
    for (resource, target) in &world.region(&ctx.region).scaling.targets {
        for (name, action) in &target.schedules {
            if wanted.is_some_and(|w| w != resource) || !names.is_empty() && !names.contains(name) {
                continue;
            }
            let mut row = json!({
                "ScheduledActionName": name,
                "ScheduledActionARN": action.arn,
                "ServiceNamespace": NAMESPACE,
                "ResourceId": resource,
                "ScalableDimension": DIMENSION,
                "CreationTime": epoch(action.created),
            });
            for (member, value) in action.settings.as_object().into_iter().flatten() {
                row[member] = value.clone();
            }
            shown.push(row);
        }
    }
    paged("ScheduledActions", shown, input)
}

/// Applies the actions whose minute has come since the last look, and removes those that can never fire again.
pub(super) fn fire(world: &mut World, region: &str, now: i64) -> bool {
    let mut moved = false;
    let this_minute = now.div_euclid(MINUTE) * MINUTE;
    for target in world.region(region).scaling.targets.values_mut() {
        let (mut bounds, mut over) = ((target.min, target.max), Vec::new());
        for (name, action) in &mut target.schedules {
            if action.seen >= this_minute {
                continue;
            }
            // After a long sleep only the last hour is caught up with.
            let from = action.seen.max(this_minute - 60 * MINUTE) + MINUTE;
            action.seen = this_minute;
            let Some(schedule) = schedule::parse(text(&action.settings, "Schedule")) else { continue };
            let zone = action.settings["Timezone"].as_str().and_then(schedule::zone).unwrap_or(TimeZone::UTC);
            let (start, end) = (time(&action.settings["StartTime"]), time(&action.settings["EndTime"]));
            let since = start.unwrap_or(action.created);
            let due = (0..).map(|i| from + i * MINUTE).take_while(|m| *m <= this_minute).any(|minute| {
                start.is_none_or(|s| minute >= s)
                    && end.is_none_or(|e| minute < e)
                    && schedule.fires(minute, &zone, since)
            });
            if due {
                let wanted = &action.settings["ScalableTargetAction"];
                let min = wanted["MinCapacity"].as_i64().unwrap_or(bounds.0);
                let max = wanted["MaxCapacity"].as_i64().unwrap_or(bounds.1.max(min));
                bounds = (min.min(max), max);
                moved = true;
            }
            if end.is_some_and(|e| now >= e) || due && matches!(schedule, Schedule::At(_)) {
                over.push(name.clone());
            }
        }
        (target.min, target.max) = bounds;
        moved |= !over.is_empty();
        for name in over {
            target.schedules.remove(&name);
        }
    }
    moved
}

/// A timestamp member in milliseconds: JSON sends seconds, CloudFormation ISO 8601.
fn time(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.parse::<jiff::Timestamp>().ok().map(|t| t.as_millisecond()),
        other => other.as_f64().map(|seconds| (seconds * 1000.0) as i64),
    }
}
