use serde_json::{Value, json};

use super::append;
use crate::testing::{NOW, ctx, refusal, world};
use crate::world::{Answer, World, call};

fn logs(world: &mut World, operation: &str, input: Value) -> Answer {
    call(world, &ctx(), "logs", operation, &input)
}

fn with_lines() -> World {
    let mut world = world();
    for (i, line) in ["starting", "ERROR no model", "stopped"].iter().enumerate() {
        append(&mut world, "us-east-1", "/g", "s", NOW + i as i64, &[(*line).to_owned()]);
    }
    world
}

#[test]
fn group_exists_also_when_a_service_made_it() {
    let mut world = with_lines();
    let refused = refusal(logs(&mut world, "CreateLogGroup", json!({"logGroupName": "/g"})));
    assert_eq!(refused, "ResourceAlreadyExistsException: The specified log group already exists");
}

#[test]
fn retention_days() {
    let mut world = with_lines();
    let set = |days: i64| json!({"logGroupName": "/g", "retentionInDays": days});
    assert!(refusal(logs(&mut world, "PutRetentionPolicy", set(2))).starts_with("InvalidParameterException"));
    logs(&mut world, "PutRetentionPolicy", set(14)).unwrap();
    let shown = logs(&mut world, "DescribeLogGroups", json!({"logGroupNamePrefix": "/g"})).unwrap();
    assert_eq!(shown["logGroups"][0]["retentionInDays"], 14);
}

#[test]
fn group_missing() {
    let mut world = world();
    for operation in ["DeleteLogGroup", "FilterLogEvents", "DescribeLogStreams"] {
        let refused = refusal(logs(&mut world, operation, json!({"logGroupName": "/none"})));
        assert_eq!(refused, "ResourceNotFoundException: The specified log group does not exist.");
    }
}

#[test]
fn events_are_filtered_by_time_and_pattern() {
    let mut world = with_lines();
    let found = logs(&mut world, "FilterLogEvents", json!({"logGroupName": "/g", "startTime": NOW + 1})).unwrap();
    assert_eq!(found["events"].as_array().unwrap().len(), 2);
    for (pattern, count) in
        [("ERROR", 1), ("?starting ?stopped", 2), ("-ERROR", 2), ("\"no model\"", 1), ("ERROR stopped", 0)]
    {
        let input = json!({"logGroupName": "/g", "filterPattern": pattern});
        let found = logs(&mut world, "FilterLogEvents", input).unwrap();
        assert_eq!(found["events"].as_array().unwrap().len(), count, "{pattern}");
    }
}

#[test]
fn tokens_walk_through_a_stream_and_then_stay() {
    let mut world = with_lines();
    let (mut seen, mut token) = (Vec::new(), Value::Null);
    loop {
        let mut input = json!({"logGroupName": "/g", "logStreamName": "s", "limit": 2, "startFromHead": true});
        if !token.is_null() {
            input["nextToken"] = token.clone();
        }
        let got = logs(&mut world, "GetLogEvents", input).unwrap();
        seen.extend(got["events"].as_array().unwrap().iter().map(|e| e["message"].clone()));
        if got["nextForwardToken"] == token {
            break;
        }
        token = got["nextForwardToken"].clone();
    }
    assert_eq!(seen, ["starting", "ERROR no model", "stopped"]);
    let tail =
        logs(&mut world, "GetLogEvents", json!({"logGroupName": "/g", "logStreamName": "s", "limit": 1})).unwrap();
    assert_eq!(tail["events"][0]["message"], "stopped");
}

#[test]
fn a_long_stream_loses_its_oldest_lines() {
    let mut world = world();
    for i in 0..=super::KEPT {
        append(&mut world, "us-east-1", "g", "s", NOW, &[format!("{i}")]);
    }
    let events = &world.region("us-east-1").logs.groups["g"].streams["s"].events;
    assert_eq!((events.len(), events[0].1.as_str()), (super::KEPT, "1"));
}
