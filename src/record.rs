//! Deployment records: `deployments/<stack>/<n>.json`, created with If-None-Match before anything is executed,
//! which makes them the lock; the outcome is a second object, so a record is never rewritten.

use serde::{Deserialize, Serialize};

use crate::cloud::{Map, Objects, PutOptions, Written};
use crate::error::{Error, Kind, Result};

/// One deployment, as it was begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Number; 1 is the first.
    pub n: u32,
    /// Service stack.
    pub stack: String,
    /// The verb that began it.
    pub verb: String,
    /// RFC 3339.
    pub started: String,
    /// The ClientRequestToken of its stack operation.
    pub token: String,
    /// Version of the tool.
    pub tool: String,
    /// Every parameter.
    pub parameters: Map,
    /// The template as sent.
    pub template: String,
}

/// How a deployment ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// `succeeded`, `failed` or `abandoned`.
    pub state: String,
    /// The stack's status then.
    pub stack_status: Option<String>,
    /// RFC 3339.
    pub ended: String,
    /// The first reason, if it failed.
    pub reason: Option<String>,
}

/// What the record folder says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latest {
    /// Number of the newest record; 0 when there is none.
    pub n: u32,
    /// Whether it has an outcome.
    pub ended: bool,
}

fn folder(stack: &str) -> String {
    format!("deployments/{stack}/")
}

fn key(stack: &str, n: u32) -> String {
    format!("deployments/{stack}/{n:06}.json")
}

fn outcome_key(stack: &str, n: u32) -> String {
    format!("deployments/{stack}/{n:06}.outcome.json")
}

/// The newest record: one list call.
///
/// # Errors
/// What S3 says.
pub async fn latest(objects: &dyn Objects, bucket: &str, stack: &str) -> Result<Latest> {
    let names = objects.list(bucket, &folder(stack)).await?;
    Ok(newest(stack, names.iter().map(|object| object.key.as_str())))
}

fn newest<'a>(stack: &str, keys: impl Iterator<Item = &'a str>) -> Latest {
    let folder = folder(stack);
    let mut latest = Latest::default();
    let mut outcomes = std::collections::BTreeSet::new();
    for name in keys.filter_map(|k| k.strip_prefix(&folder)) {
        if let Some(n) = name.strip_suffix(".outcome.json").and_then(|n| n.parse::<u32>().ok()) {
            outcomes.insert(n);
        } else if let Some(n) = name.strip_suffix(".json").and_then(|n| n.parse::<u32>().ok()) {
            latest.n = latest.n.max(n);
        }
    }
    latest.ended = latest.n == 0 || outcomes.contains(&latest.n);
    latest
}

/// Reads a record; `None` when there is none or it cannot be read as one.
///
/// # Errors
/// What S3 says.
pub async fn read(objects: &dyn Objects, bucket: &str, stack: &str, n: u32) -> Result<Option<Record>> {
    let body = objects.get(bucket, &key(stack, n)).await?;
    Ok(body.and_then(|b| serde_json::from_slice(&b).ok()))
}

/// Creates a record: the lock.
///
/// # Errors
/// [`Kind::Busy`] when another run has taken the number.
pub async fn begin(objects: &dyn Objects, bucket: &str, record: &Record) -> Result<()> {
    let body = serde_json::to_vec_pretty(record).map_err(|e| Error::failed(e.to_string()))?;
    match objects.put(bucket, &key(&record.stack, record.n), body.into(), &json(true)).await? {
        Written::Created => Ok(()),
        Written::AlreadyThere => {
            Err(Error::new(Kind::Busy, format!("another run has begun deployment {} of {}", record.n, record.stack))
                .next("wait for it with --wait-lock 30m, or look at it with `comfy-deploy status`"))
        }
    }
}

/// Writes the outcome of a record; the first one to write it wins.
///
/// # Errors
/// What S3 says.
pub async fn finish(objects: &dyn Objects, bucket: &str, stack: &str, n: u32, outcome: &Outcome) -> Result<()> {
    let body = serde_json::to_vec_pretty(outcome).map_err(|e| Error::failed(e.to_string()))?;
    objects.put(bucket, &outcome_key(stack, n), body.into(), &json(true)).await?;
    Ok(())
}

fn json(if_absent: bool) -> PutOptions {
    PutOptions { content_type: Some("application/json".into()), if_absent, ..PutOptions::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_record_counts_and_only_its_own_outcome_ends_it() {
        let none = newest("app", std::iter::empty());
        assert_eq!(none, Latest { n: 0, ended: true });
        let keys =
            ["deployments/app/000001.json", "deployments/app/000001.outcome.json", "deployments/app/000002.json"];
        assert_eq!(newest("app", keys.into_iter()), Latest { n: 2, ended: false });
        let more = keys.into_iter().chain(["deployments/app/000002.outcome.json", "deployments/app/notes.txt"]);
        assert_eq!(newest("app", more), Latest { n: 2, ended: true });
    }
}
