//! What requests do to versions of objects. No input and output.

use rand::RngExt as _;
use s3s::dto::{ETag, ETagCondition};

use super::control;
use super::state::{Bucket, Version, Versioning};
use crate::world::{ApiError, World};

/// Conditions of a read or a copy.
#[derive(Debug, Default)]
pub struct Conditions {
    /// If-Match.
    pub matches: Option<ETagCondition>,
    /// If-None-Match.
    pub none_match: Option<ETagCondition>,
    /// If-Modified-Since, milliseconds since 1970.
    pub modified_since: Option<i64>,
    /// If-Unmodified-Since, milliseconds since 1970.
    pub unmodified_since: Option<i64>,
}

/// 412.
pub fn precondition_failed() -> ApiError {
    ApiError::new("PreconditionFailed", "At least one of the pre-conditions you specified did not hold").status(412)
}

fn no_such_key() -> ApiError {
    ApiError::new("NoSuchKey", "The specified key does not exist.").status(404)
}

fn holds(condition: &ETagCondition, etag: &str) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(wanted) => wanted.value() == etag,
    }
}

impl Conditions {
    /// Checks them as RFC 9110 orders them. `copy` turns 304 into 412, as copies have no 304.
    pub fn check(&self, version: &Version, copy: bool) -> Result<(), ApiError> {
        // Dates have whole seconds.
        let modified = version.modified / 1000 * 1000;
        let not_modified = || {
            if copy { precondition_failed() } else { ApiError::new("NotModified", "Not Modified").status(304) }
        };
        match (&self.matches, self.unmodified_since) {
            (Some(condition), _) if !holds(condition, &version.etag) => return Err(precondition_failed()),
            (None, Some(since)) if modified > since => return Err(precondition_failed()),
            _ => {}
        }
        match (&self.none_match, self.modified_since) {
            (Some(condition), _) if holds(condition, &version.etag) => Err(not_modified()),
            (None, Some(since)) if modified <= since => Err(not_modified()),
            _ => Ok(()),
        }
    }
}

/// The version asked for, or the current one.
pub fn find<'a>(bucket: &'a Bucket, key: &str, id: Option<&str>) -> Result<&'a Version, ApiError> {
    let versions = bucket.objects.get(key).ok_or_else(no_such_key);
    match id {
        None => versions?.last().filter(|v| !v.marker).ok_or_else(no_such_key),
        Some(id) => {
            let no_version = || ApiError::new("NoSuchVersion", "The specified version does not exist.").status(404);
            let version = versions.ok().and_then(|vs| vs.iter().find(|v| v.id == id)).ok_or_else(no_version)?;
            if version.marker {
                return Err(ApiError::new(
                    "MethodNotAllowed",
                    "The specified method is not allowed against this resource.",
                )
                .status(405));
            }
            Ok(version)
        }
    }
}

/// Whether a write with these conditions may happen. `since` is the count of deletions when it began.
pub fn may_write(
    world: &World,
    bucket: &str,
    key: &str,
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
    since: u64,
) -> Result<(), ApiError> {
    if if_match.is_none() && if_none_match.is_none() {
        return Ok(());
    }
    if if_none_match.is_some_and(|c| !c.is_any()) {
        return Err(ApiError::new(
            "NotImplemented",
            "A header you provided implies functionality that is not implemented: If-None-Match takes only *",
        )
        .status(501));
    }
    if world.s3.deletions.after(since, bucket, key) {
        return Err(ApiError::new(
            "ConditionalRequestConflict",
            "The conditional request cannot succeed due to a conflicting operation against this resource.",
        )
        .status(409));
    }
    let current = world.s3.buckets.get(bucket).and_then(|b| b.current(key));
    if if_none_match.is_some() && current.is_some() {
        return Err(precondition_failed());
    }
    match (if_match, current) {
        (Some(_), None) => Err(no_such_key()),
        (Some(condition), Some(version)) if !holds(condition, &version.etag) => Err(precondition_failed()),
        _ => Ok(()),
    }
}

/// Stores a version as the current one and returns its id, if the bucket keeps versions.
pub fn put(world: &mut World, bucket: &str, key: &str, mut version: Version) -> Result<Option<String>, ApiError> {
    let now = version.modified;
    let found = control::bucket(world, bucket)?;
    let versioning = found.versioning;
    version.id = if versioning == Versioning::Enabled { new_id() } else { "null".to_owned() };
    let id = version.id.clone();
    let versions = found.objects.entry(key.to_owned()).or_default();
    let replaced = if versioning == Versioning::Enabled { Vec::new() } else { take(versions, "null") };
    versions.push(version);
    world.s3.discard(replaced.iter().flat_map(|v| &v.extents), now);
    Ok((versioning != Versioning::Off).then_some(id))
}

/// What a deletion did.
#[derive(Debug, Default, PartialEq)]
pub struct Deleted {
    /// The version removed, or the delete marker made.
    pub version: Option<String>,
    /// Whether that is a delete marker.
    pub marker: bool,
}

/// Deletes the current version or one by id.
pub fn delete(world: &mut World, bucket: &str, key: &str, id: Option<&str>, now: i64) -> Result<Deleted, ApiError> {
    let found = control::bucket(world, bucket)?;
    let versioning = found.versioning;
    let versions = found.objects.entry(key.to_owned()).or_default();
    let mut out = Deleted::default();
    let removed = match (id, versioning) {
        (Some(id), _) => {
            let removed = take(versions, id);
            out.version = Some(id.to_owned());
            out.marker = removed.iter().any(|v| v.marker);
            removed
        }
        (None, Versioning::Off) => take(versions, "null"),
        (None, _) => {
            let (id, removed) = if versioning == Versioning::Enabled {
                (new_id(), Vec::new())
            } else {
                ("null".to_owned(), take(versions, "null"))
            };
            versions.push(Version { id: id.clone(), marker: true, modified: now, ..Default::default() });
            out = Deleted { version: Some(id), marker: true };
            removed
        }
    };
    if versions.is_empty() {
        found.objects.remove(key);
    }
    world.s3.discard(removed.iter().flat_map(|v| &v.extents), now);
    world.s3.deletions.note(bucket, key);
    Ok(out)
}

/// Changes the tags of a version.
pub fn version_mut<'a>(
    world: &'a mut World,
    bucket: &str,
    key: &str,
    id: Option<&str>,
) -> Result<&'a mut Version, ApiError> {
    let bucket = control::bucket(world, bucket)?;
    let id = find(bucket, key, id)?.id.clone();
    bucket.objects.get_mut(key).and_then(|vs| vs.iter_mut().find(|v| v.id == id)).ok_or_else(no_such_key)
}

fn take(versions: &mut Vec<Version>, id: &str) -> Vec<Version> {
    versions.extract_if(.., |v| v.id == id).collect()
}

/// An ETag as crate `s3s` writes it.
pub fn etag(value: &str) -> ETag {
    ETag::Strong(value.to_owned())
}

/// A version id, upload id or file name: 32 letters and digits.
pub fn new_id() -> String {
    let mut rng = rand::rng();
    (0..32).map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[rng.random_range(0..36)])).collect()
}
