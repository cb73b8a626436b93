//! CloudWatch Logs: groups, their retention, and the lines that containers wrote.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::input::{limit, page, string_map, strings, text};
use crate::rules::Rule;
use crate::world::{Answer, ApiError, Ctx, World};

/// What CloudWatch Logs refuses.
pub const RULES: &[Rule] = &[
    Rule {
        id: "logs.group-exists",
        source: "API model: CreateLogGroup, ResourceAlreadyExistsException",
        text: "A log group that exists, also one that a service made by itself, cannot be created.",
    },
    Rule {
        id: "logs.retention-days",
        source: "API model: PutRetentionPolicy, RetentionInDays",
        text: "Retention is one of 23 numbers of days.",
    },
    Rule {
        id: "logs.group-missing",
        source: "API model: PutRetentionPolicy, DeleteLogGroup, FilterLogEvents, ResourceNotFoundException",
        text: "What is asked of a log group that does not exist is refused.",
    },
];

/// Allowed values of retentionInDays (API model: RetentionInDays).
const RETENTION: [i64; 23] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653, 4018];

/// The service's state.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    groups: BTreeMap<String, Group>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Group {
    created: i64,
    retention: Option<i64>,
    kms: Option<String>,
    class: Option<String>,
    tags: BTreeMap<String, String>,
    streams: BTreeMap<String, Stream>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Stream {
    created: i64,
    /// (milliseconds since 1970, line), in order.
    events: Vec<(i64, String)>,
}

/// Lines that a stream keeps. CloudWatch keeps all; here they are a part of the state, which is saved as a whole.
const KEPT: usize = 10_000;

/// Writes lines as a service does: the group and the stream are made if they are not there. The oldest lines of a long
/// stream go.
pub fn append(world: &mut World, region: &str, group: &str, stream: &str, now: i64, lines: &[String]) {
    let groups = &mut world.region(region).logs.groups;
    let group = groups.entry(group.to_owned()).or_insert_with(|| Group { created: now, ..Group::default() });
    let stream = group.streams.entry(stream.to_owned()).or_insert_with(|| Stream { created: now, ..Stream::default() });
    stream.events.extend(lines.iter().map(|line| (now, line.clone())));
    let over = stream.events.len().saturating_sub(KEPT);
    stream.events.drain(..over);
}

/// One operation, input and output as in the API's JSON.
pub fn call(world: &mut World, ctx: &Ctx, operation: &str, input: &Value) -> Answer {
    let groups = &mut world.region(&ctx.region).logs.groups;
    // `logGroupIdentifier` may be a name or an ARN, and ARNs of groups end in `:*` in some places.
    let identifier = ["logGroupName", "logGroupIdentifier", "resourceArn"]
        .iter()
        .find_map(|m| input[*m].as_str())
        .map(|id| id.split(":log-group:").last().unwrap_or(id).trim_end_matches(":*").to_owned())
        .unwrap_or_default();
    match operation {
        "CreateLogGroup" => create(groups, ctx, input),
        "DeleteLogGroup" => {
            find(groups, &identifier)?;
            groups.remove(&identifier);
            Ok(Value::Null)
        }
        "PutRetentionPolicy" => {
            let days = input["retentionInDays"].as_i64().unwrap_or_default();
            if !RETENTION.contains(&days) {
                let text = format!(
                    "1 validation error detected: Value '{days}' at 'retentionInDays' failed to satisfy constraint: \
                     Member must satisfy enum value set: {RETENTION:?}"
                );
                return Err(ApiError::new("InvalidParameterException", text));
            }
            find(groups, &identifier)?.retention = Some(days);
            Ok(Value::Null)
        }
        "DeleteRetentionPolicy" => {
            find(groups, &identifier)?.retention = None;
            Ok(Value::Null)
        }
        "DescribeLogGroups" => describe_groups(groups, ctx, input),
        "DescribeLogStreams" => describe_streams(find(groups, &identifier)?, ctx, &identifier, input),
        "FilterLogEvents" => filter(find(groups, &identifier)?, input),
        "GetLogEvents" => get(find(groups, &identifier)?, input),
        "TagResource" => {
            find(groups, &identifier)?.tags.extend(string_map(&input["tags"]));
            Ok(Value::Null)
        }
        "UntagResource" => {
            let group = find(groups, &identifier)?;
            for key in strings(&input["tagKeys"]) {
                group.tags.remove(&key);
            }
            Ok(Value::Null)
        }
        "ListTagsForResource" => Ok(json!({"tags": find(groups, &identifier)?.tags})),
        other => Err(ApiError::new(
            "UnknownOperationException",
            format!("the sandbox has no CloudWatch Logs operation {other}"),
        )),
    }
}

fn find<'a>(groups: &'a mut BTreeMap<String, Group>, name: &str) -> Result<&'a mut Group, ApiError> {
    groups
        .get_mut(name)
        .ok_or_else(|| ApiError::new("ResourceNotFoundException", "The specified log group does not exist."))
}

fn create(groups: &mut BTreeMap<String, Group>, ctx: &Ctx, input: &Value) -> Answer {
    let name = text(input, "logGroupName");
    if groups.contains_key(name) {
        return Err(ApiError::new("ResourceAlreadyExistsException", "The specified log group already exists"));
    }
    let group = Group {
        created: ctx.now,
        kms: input["kmsKeyId"].as_str().map(str::to_owned),
        class: input["logGroupClass"].as_str().map(str::to_owned),
        tags: string_map(&input["tags"]),
        ..Group::default()
    };
    groups.insert(name.to_owned(), group);
    Ok(Value::Null)
}

fn describe_groups(groups: &BTreeMap<String, Group>, ctx: &Ctx, input: &Value) -> Answer {
    let prefix = text(input, "logGroupNamePrefix");
    let pattern = text(input, "logGroupNamePattern").to_lowercase();
    let named = strings(&input["logGroupIdentifiers"]);
    let fits = |name: &str| {
        name.starts_with(prefix)
            && name.to_lowercase().contains(&pattern)
            && (named.is_empty() || named.iter().any(|n| n.split(":log-group:").last() == Some(name)))
    };
    let shown = groups.iter().filter(|(name, _)| fits(name)).map(|(name, group)| {
        let arn = ctx.arn("logs", &format!("log-group:{name}"));
        let bytes: usize = group.streams.values().flat_map(|s| &s.events).map(|(_, line)| line.len()).sum();
        let mut shown = json!({
            "logGroupName": name,
            "creationTime": group.created,
            "metricFilterCount": 0,
            "arn": format!("{arn}:*"),
            "logGroupArn": arn,
            "storedBytes": bytes,
            "logGroupClass": group.class.as_deref().unwrap_or("STANDARD"),
        });
        if let Some(days) = group.retention {
            shown["retentionInDays"] = json!(days);
        }
        if let Some(key) = &group.kms {
            shown["kmsKeyId"] = json!(key);
        }
        shown
    });
    paged("logGroups", shown.collect(), limit(input, "limit", 50), input)
}

fn describe_streams(group: &Group, ctx: &Ctx, name: &str, input: &Value) -> Answer {
    let prefix = text(input, "logStreamNamePrefix");
    let mut streams: Vec<(&String, &Stream)> = group.streams.iter().filter(|(n, _)| n.starts_with(prefix)).collect();
    if input["orderBy"] == "LastEventTime" {
        streams.sort_by_key(|(_, s)| s.events.last().map(|e| e.0));
    }
    if input["descending"] == true {
        streams.reverse();
    }
    let shown = streams.into_iter().map(|(stream, s)| {
        let mut shown = json!({
            "logStreamName": stream,
            "creationTime": s.created,
            "arn": ctx.arn("logs", &format!("log-group:{name}:log-stream:{stream}")),
            "storedBytes": 0,
        });
        if let (Some(first), Some(last)) = (s.events.first(), s.events.last()) {
            shown["firstEventTimestamp"] = json!(first.0);
            shown["lastEventTimestamp"] = json!(last.0);
            shown["lastIngestionTime"] = json!(last.0);
        }
        shown
    });
    paged("logStreams", shown.collect(), limit(input, "limit", 50), input)
}

fn in_time(input: &Value, at: i64) -> bool {
    input["startTime"].as_i64().is_none_or(|start| at >= start) && input["endTime"].as_i64().is_none_or(|end| at < end)
}

/// Filter patterns: terms that all occur, `"quoted phrases"`, `?either ?or`, `-without`.
fn matches(pattern: &str, line: &str) -> bool {
    let Ok(term) = Regex::new(r#"([-?]?)(?:"([^"]*)"|(\S+))"#) else { return true };
    let (mut any, mut either) = (false, false);
    for found in term.captures_iter(pattern) {
        let text = found.get(2).or_else(|| found.get(3)).map_or("", |m| m.as_str());
        let has = line.contains(text);
        match &found[1] {
            "?" => {
                any = true;
                either |= has;
            }
            "-" if has => return false,
            "" if !has => return false,
            _ => {}
        }
    }
    !any || either
}

fn filter(group: &Group, input: &Value) -> Answer {
    let (names, prefix) = (strings(&input["logStreamNames"]), text(input, "logStreamNamePrefix"));
    let pattern = text(input, "filterPattern");
    let mut events: Vec<(i64, &str, usize, &str)> = group
        .streams
        .iter()
        .filter(|(name, _)| (names.is_empty() || names.contains(name)) && name.starts_with(prefix))
        .flat_map(|(name, s)| {
            s.events.iter().enumerate().map(move |(i, (at, line))| (*at, name.as_str(), i, line.as_str()))
        })
        .filter(|(at, _, _, line)| in_time(input, *at) && matches(pattern, line))
        .collect();
    events.sort();
    let shown = events.into_iter().map(|(at, stream, i, line)| {
        json!({"logStreamName": stream, "timestamp": at, "message": line, "ingestionTime": at, "eventId": format!("{at}-{stream}-{i}")})
    });
    paged("events", shown.collect(), limit(input, "limit", 10_000), input)
}

fn get(group: &Group, input: &Value) -> Answer {
    let stream = group
        .streams
        .get(text(input, "logStreamName"))
        .ok_or_else(|| ApiError::new("ResourceNotFoundException", "The specified log stream does not exist."))?;
    let events: Vec<&(i64, String)> = stream.events.iter().filter(|(at, _)| in_time(input, *at)).collect();
    let limit = limit(input, "limit", 10_000);
    // Tokens are `f/<position>` and `b/<position>`; the same token comes back when there is nothing more.
    let token = input["nextToken"].as_str();
    let position = |t: &str| t.get(2..).and_then(|n| n.parse::<usize>().ok()).unwrap_or(0).min(events.len());
    let (start, end) = match token {
        Some(t) if t.starts_with("b/") => (position(t).saturating_sub(limit), position(t)),
        Some(t) => (position(t), (position(t) + limit).min(events.len())),
        None if input["startFromHead"] == true => (0, limit.min(events.len())),
        None => (events.len().saturating_sub(limit), events.len()),
    };
    let shown: Vec<Value> = events[start..end]
        .iter()
        .map(|(at, line)| json!({"timestamp": at, "message": line, "ingestionTime": at}))
        .collect();
    Ok(json!({"events": shown, "nextForwardToken": format!("f/{end}"), "nextBackwardToken": format!("b/{start}")}))
}

fn paged(member: &str, items: Vec<Value>, limit: usize, input: &Value) -> Answer {
    let (items, next) = page(items, limit, &input["nextToken"], "InvalidParameterException")?;
    let mut answer = json!({member: items});
    if let Some(next) = next {
        answer["nextToken"] = json!(next);
    }
    Ok(answer)
}
