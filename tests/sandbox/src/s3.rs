//! S3: the protocol from crate `s3s`, behind it a storage that keeps objects as lists of extents of files,
//! so that completing or copying a multipart upload moves no bytes.
//!
//! - `state`: what is kept, and the files below it.
//! - `control`: bucket settings by API name, for the wire and CloudFormation both.
//! - `objects`, `multipart`, `listing`: what requests do to the state. No input and output.
//! - `checksums`, `files`: bytes.
//! - `protocol`: the S3 trait; `gate`: what is checked before any operation.

use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode};
use serde_json::Value;

use crate::rules::Rule;
use crate::world::{Answer, Ctx, Shared, World};

pub mod checksums;
mod control;
pub mod files;
mod gate;
mod json;
mod listing;
mod multipart;
mod objects;
mod protocol;
mod rules;
pub mod state;

pub use state::State;

/// What S3 refuses, with sources.
pub const RULES: &[Rule] = rules::RULES;

/// The account that owns buckets made by [`add_foreign_bucket`].
pub const FOREIGN_ACCOUNT: &str = "999999999999";

/// One operation of the control plane, input and output as in the API's JSON: the member that carries the
/// settings lies beside `Bucket`.
pub fn call(world: &mut World, ctx: &Ctx, operation: &str, input: &Value) -> Answer {
    control::call(world, ctx, operation, input)
}

/// One HTTP request of S3's protocol. Signatures are verified.
pub async fn handle(shared: Arc<Shared>, request: Request<Body>) -> Response<Body> {
    protocol::handle(shared, request).await
}

/// The bytes of the current version of an object.
pub fn read(world: &World, bucket: &str, key: &str) -> Option<Vec<u8>> {
    let object = world.s3.buckets.get(bucket)?.current(key)?;
    files::read_all(&directory(&world.dir), &object.extents).ok()
}

/// The size in bytes of the current version of an object.
pub fn exists(world: &World, bucket: &str, key: &str) -> Option<u64> {
    Some(world.s3.buckets.get(bucket)?.current(key)?.size)
}

/// Whether any current object's key starts so.
pub fn any_under(world: &World, bucket: &str, prefix: &str) -> bool {
    let Some(bucket) = world.s3.buckets.get(bucket) else { return false };
    bucket.objects.keys().any(|key| key.starts_with(prefix) && bucket.current(key).is_some())
}

/// An object's bytes, to be read after the state is free again.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Of the version.
    pub etag: String,
    extents: Vec<state::Extent>,
}

impl Reading {
    /// Opens it. `blobs` is where the bytes lie. Blocks when read.
    pub fn open(&self, blobs: &Path) -> impl std::io::Read + use<> {
        files::Reader::new(blobs.to_owned(), self.extents.clone())
    }
}

/// The current version of an object, to be read later.
pub fn reading(world: &World, bucket: &str, key: &str) -> Option<Reading> {
    let object = world.s3.buckets.get(bucket)?.current(key)?;
    Some(Reading { etag: object.etag.clone(), extents: object.extents.clone() })
}

/// The keys of the current objects that start so.
pub fn keys_under(world: &World, bucket: &str, prefix: &str) -> Vec<String> {
    let Some(bucket) = world.s3.buckets.get(bucket) else { return Vec::new() };
    let keys = bucket.objects.range(prefix.to_owned()..).map(|(key, _)| key).take_while(|k| k.starts_with(prefix));
    keys.filter(|key| bucket.current(key).is_some()).cloned().collect()
}

/// Makes a bucket that belongs to another account: every access is denied, in every region.
pub fn add_foreign_bucket(world: &mut World, name: &str) {
    let bucket = state::Bucket { owner: FOREIGN_ACCOUNT.to_owned(), ..Default::default() };
    world.s3.buckets.insert(name.to_owned(), bucket);
}

/// Removes files that nothing refers to, as a crash leaves them. For the start only: an upload in flight has
/// a file that nothing refers to yet.
pub fn sweep(world: &World) {
    files::sweep(&directory(&world.dir), &world.s3.files());
}

/// Where the bytes lie.
pub(crate) fn directory(dir: &Path) -> std::path::PathBuf {
    dir.join("s3")
}

/// An answer without a body that says the server failed.
pub(crate) fn internal_error() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response.headers_mut().insert("connection", HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests;
