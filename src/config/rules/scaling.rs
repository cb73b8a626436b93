//! Autoscaling and its schedules.

use jiff::tz::TimeZoneDatabase;

use super::cron;
use crate::config::problem::Problem;
use crate::config::tree::Path;
use crate::config::{Autoscaling, Config, ScalingGoal, ScheduleEntry, check};

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let scaling = &config.autoscaling;
    let path = Path::of("autoscaling");
    if scaling.min > scaling.max {
        problems.push(
            Problem::error(
                path.key("min"),
                format!("`autoscaling.min` is {}, above `autoscaling.max`, which is {}", scaling.min, scaling.max),
            )
            .label("above max")
            .help(format!("Allowed: 1 to {}. Or raise `autoscaling.max`.", scaling.max)),
        );
    }
    if !scaling.enabled {
        if !scaling.schedule.is_empty() {
            problems.push(
                Problem::error(path.key("schedule"), "`autoscaling.schedule` is set, but autoscaling is off")
                    .on_key()
                    .label("would never run")
                    .help("Set `autoscaling.enabled: true` (with `target: none` for schedules alone), or remove the schedule."),
            );
        }
    } else {
        let instances = config.endpoint.instances;
        if scaling.min <= scaling.max && !(scaling.min..=scaling.max).contains(&instances) {
            problems.push(
                Problem::warning(
                    Path::of("endpoint.instances"),
                    format!(
                        "`endpoint.instances` is {instances}, outside `autoscaling` {} to {}",
                        scaling.min, scaling.max
                    ),
                )
                .label("moved into the range at once")
                .help("The endpoint starts with this number and is then scaled into the range."),
            );
        }
        if matches!(scaling.target, ScalingGoal::Off(_)) && scaling.schedule.is_empty() {
            problems.push(
                Problem::warning(path.key("target"), "autoscaling has neither a target nor a schedule")
                    .label("nothing scales")
                    .help("Set `target` to a number of concurrent requests, or add a schedule."),
            );
        }
    }
    for (n, entry) in scaling.schedule.iter().enumerate() {
        let at = path.key("schedule").index(n);
        if scaling.schedule[..n].iter().any(|other| other.name == entry.name) {
            problems.push(
                Problem::error(at.key("name"), format!("there are two schedules named `{}`", entry.name))
                    .label("the second one")
                    .help("Names of schedules must differ."),
            );
        }
        entry_problems(entry, &at, problems);
        bounds(scaling, entry, &at, problems);
    }
}

/// What is wrong with one schedule by itself. Also for schedules that a flag describes.
pub fn entry_problems(entry: &ScheduleEntry, at: &Path, problems: &mut Vec<Problem>) {
    let name = &entry.name;
    if name.trim() != name || name.chars().any(|c| c.is_control() || matches!(c, ':' | '/' | '|')) {
        problems.push(
            Problem::error(at.key("name"), format!("`{name}` cannot be the name of a schedule"))
                .label("not allowed")
                .help("Allowed: 1 to 256 characters without : / | and without blanks at the ends."),
        );
    }
    if let Err(why) = cron::check(&entry.when) {
        problems.push(
            Problem::error(at.key("when"), format!("`{}` is `{}`", at.key("when"), entry.when))
                .label(why.label)
                .help(why.help),
        );
    }
    if let Some(zone) = &entry.timezone {
        if entry.when.starts_with("rate(") {
            problems.push(
                Problem::error(at.key("timezone"), format!("`{}` has no meaning with a rate", at.key("timezone")))
                    .label("remove it")
                    .help("A time zone applies to cron expressions only."),
            );
        }
        let zones = TimeZoneDatabase::bundled();
        if zones.get(zone).is_err() {
            let known: Vec<String> = zones.available().map(|name| name.to_string()).collect();
            let near = check::nearest(zone, known.iter().map(String::as_str));
            let label = near.map_or("unknown".to_owned(), |near| format!("did you mean `{near}`?"));
            problems.push(
                Problem::error(at.key("timezone"), format!("`{}` is `{zone}`", at.key("timezone")))
                    .label(label)
                    .help("Allowed: an IANA time zone, as in Europe/Berlin or UTC."),
            );
        }
    }
    match (entry.min, entry.max) {
        (None, None) => problems.push(
            Problem::error(at.clone(), format!("the schedule `{name}` sets neither `min` nor `max`"))
                .label("changes nothing")
                .help("Give at least one of `min` and `max`."),
        ),
        (Some(min), Some(max)) if min > max => problems.push(
            Problem::error(at.key("min"), format!("`{}` is {min}, above its `max`, which is {max}", at.key("min")))
                .label("above max")
                .help(format!("Allowed: 1 to {max}.")),
        ),
        _ => {}
    }
}

/// A bound that is given alone meets the other bound of the target: AWS refuses a maximum below the minimum.
fn bounds(scaling: &Autoscaling, entry: &ScheduleEntry, at: &Path, problems: &mut Vec<Problem>) {
    let others = |other: fn(&ScheduleEntry) -> bool| scaling.schedule.iter().any(|e| e.name != entry.name && other(e));
    match (entry.min, entry.max) {
        (Some(min), None) if min > scaling.max && !others(|e| e.max.is_some()) => problems.push(
            Problem::error(
                at.key("min"),
                format!("`{}` is {min}, above `autoscaling.max`, which is {}", at.key("min"), scaling.max),
            )
            .label("above max")
            .help("Give this schedule a `max` too, or raise `autoscaling.max`."),
        ),
        (None, Some(max)) if max < scaling.min && !others(|e| e.min.is_some()) => problems.push(
            Problem::error(
                at.key("max"),
                format!("`{}` is {max}, below `autoscaling.min`, which is {}", at.key("max"), scaling.min),
            )
            .label("below min")
            .help("Give this schedule a `min` too, or lower `autoscaling.min`."),
        ),
        _ => {}
    }
}
