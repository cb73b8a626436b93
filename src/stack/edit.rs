//! Changes to a *deployed* template. `scale` edits what is there instead of rendering anew, so that a newer
//! version of this program cannot bring other changes along.

use serde_json::{Map as Object, Value, json};

use super::{Rendered, ids, properties_mut};
use crate::config::ScheduleEntry;
use crate::error::{Error, Result};

/// The scaling schedules of a template, in its order. Empty when there are none.
pub fn schedules(template: &Value) -> Vec<ScheduleEntry> {
    let actions = template
        .get("Resources")
        .and_then(|r| r.get(ids::SCALABLE_TARGET))
        .and_then(|t| t.get("Properties"))
        .and_then(|p| p.get("ScheduledActions"))
        .and_then(Value::as_array);
    actions.into_iter().flatten().filter_map(schedule).collect()
}

/// Sets the scaling schedules: all of them, in the given order.
///
/// Fails when the template has no scalable target to carry them.
pub fn set_schedules(template: &mut Value, entries: &[ScheduleEntry]) -> Result<()> {
    let Some(properties) = properties_mut(template, ids::SCALABLE_TARGET) else {
        return Err(Error::failed(format!("the deployed template has no resource {}", ids::SCALABLE_TARGET))
            .why("scaling schedules are part of it")
            .next("run `comfy-deploy up`, which renders the whole template, then try again"));
    };
    if entries.is_empty() {
        properties.shift_remove("ScheduledActions");
    } else {
        properties.insert("ScheduledActions".into(), scheduled_actions(entries));
    }
    Ok(())
}

/// The text to send.
pub fn to_body(template: &Value) -> String {
    Rendered::new(template.clone()).body
}

/// `ScheduledActions` of a scalable target.
pub(super) fn scheduled_actions(entries: &[ScheduleEntry]) -> Value {
    entries
        .iter()
        .map(|entry| {
            let mut bounds = Object::new();
            for (name, bound) in [("MinCapacity", entry.min), ("MaxCapacity", entry.max)] {
                if let Some(bound) = bound {
                    bounds.insert(name.into(), bound.into());
                }
            }
            let mut action = Object::new();
            action.insert("ScheduledActionName".into(), entry.name.as_str().into());
            action.insert("Schedule".into(), entry.when.as_str().into());
            if let Some(zone) = &entry.timezone {
                action.insert("Timezone".into(), zone.as_str().into());
            }
            action.insert("ScalableTargetAction".into(), json!(bounds));
            Value::Object(action)
        })
        .collect()
}

fn schedule(action: &Value) -> Option<ScheduleEntry> {
    let text = |name: &str| action.get(name).and_then(Value::as_str).map(str::to_owned);
    let bound = |name: &str| {
        let value = action.get("ScalableTargetAction")?.get(name)?;
        // A hand-written template may carry the number as a string.
        value.as_u64().or_else(|| value.as_str()?.parse().ok()).and_then(|n| u32::try_from(n).ok())
    };
    Some(ScheduleEntry {
        name: text("ScheduledActionName")?,
        when: text("Schedule")?,
        timezone: text("Timezone"),
        min: bound("MinCapacity"),
        max: bound("MaxCapacity"),
    })
}
