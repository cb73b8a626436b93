//! Layers: streamed to disk, hashed on the way, never whole in memory.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Request, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Call, Denied, Outcome, denied, in_registry, parameter, repository, respond, set};
use crate::ecr::{file_name, layer_dir, token, upload_dir};
use crate::s3::checksums::{Algorithm, Hasher};
use crate::s3::files::{self, Failure};
use crate::s3::state::Extent;
use crate::world::{Shared, now_ms};

/// The smallest chunk but the last, in bytes (dotnet/sdk-container-builds#424).
const SMALLEST_CHUNK: u64 = 5 * 1024 * 1024;

/// A layer on its way in.
#[derive(Debug)]
pub struct Upload {
    repository: String,
    /// None while a chunk comes in.
    hasher: Option<Hasher>,
    /// Bytes so far.
    size: u64,
    /// Bytes of the first chunk: what `Range` goes on to say.
    first: u64,
    /// Bytes of the latest chunk.
    latest: u64,
}

fn unknown(id: &str) -> Denied {
    denied(404, "BLOB_UPLOAD_UNKNOWN", format!("The upload with id '{id}' was not found"))
}

fn with_upload<T>(
    call: &Call,
    name: &str,
    id: &str,
    work: impl FnOnce(&mut Upload) -> Result<T, Denied>,
) -> Result<T, Denied> {
    let mut world = call.shared.world.lock();
    repository(&mut world, &call.region, name)?;
    let upload = world.region(&call.region).ecr.uploads.get_mut(id);
    work(upload.filter(|u| u.repository == name).ok_or_else(|| unknown(id))?)
}

fn accepted(status: u16, name: &str, id: &str, size: u64) -> Response<Body> {
    let mut response = respond(status, Body::empty());
    set(&mut response, "location", &format!("/v2/{name}/blobs/uploads/{id}"));
    set(&mut response, "docker-upload-uuid", id);
    set(&mut response, "range", &format!("0-{}", size.saturating_sub(1)));
    set(&mut response, "content-length", "0");
    response
}

fn created(name: &str, digest: &str) -> Response<Body> {
    let mut response = respond(201, Body::empty());
    set(&mut response, "location", &format!("/v2/{name}/blobs/{digest}"));
    set(&mut response, "docker-content-digest", digest);
    set(&mut response, "content-length", "0");
    response
}

/// POST: a mount, a whole layer, or the beginning of an upload.
pub async fn begin(call: &Call, name: &str, request: Request<Body>) -> Outcome {
    let query = request.uri().query().map(str::to_owned);
    let mount = parameter(query.as_deref(), "mount");
    let id = uuid::Uuid::new_v4().to_string();
    {
        let mut world = call.shared.world.lock();
        repository(&mut world, &call.region, name)?;
        let from = parameter(query.as_deref(), "from");
        if let (Some(digest), Some(from)) = (mount, from) {
            let size = repository(&mut world, &call.region, &from).ok().and_then(|r| r.layers.get(&digest).copied());
            if let Some(size) = size {
                repository(&mut world, &call.region, name)?.layers.insert(digest.clone(), size);
                return Ok(created(name, &digest));
            }
        }
        let hasher = Some(Hasher::new(false, &[Algorithm::Sha256]));
        let upload = Upload { repository: name.to_owned(), hasher, size: 0, first: 0, latest: 0 };
        world.region(&call.region).ecr.uploads.insert(id.clone(), upload);
    }
    if parameter(query.as_deref(), "digest").is_some() {
        return finish(call, name, &id, request).await;
    }
    Ok(accepted(202, name, &id, 0))
}

/// Takes a chunk. Returns the bytes of the upload and of its first chunk.
async fn receive(call: &Call, name: &str, id: &str, request: Request<Body>) -> Result<(u64, u64), Denied> {
    let range = request.headers().get("content-range").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let hasher = with_upload(call, name, id, |upload| {
        let start = range.as_deref().map(|r| r.trim_start_matches("bytes ").split('-').next().unwrap_or_default());
        if start.is_some_and(|s| s.parse() != Ok(upload.size)) {
            let message = format!("The chunk does not begin where the upload ends, at {}", upload.size);
            return Err(denied(416, "BLOB_UPLOAD_INVALID", message));
        }
        upload.hasher.take().ok_or_else(|| denied(409, "BLOB_UPLOAD_INVALID", "Another chunk is being uploaded"))
    })?;
    let before = hasher.size();
    let path = upload_dir(&call.shared.dir).join(id);
    let received = files::receive(path, hasher, request.into_body().into_data_stream()).await;
    match received {
        Ok(hasher) => with_upload(call, name, id, |upload| {
            let chunk = hasher.size() - before;
            if chunk > 0 {
                if before > 0 && upload.latest < SMALLEST_CHUNK {
                    let message = format!("LayerPartTooSmall: part of {} bytes before the last", upload.latest);
                    return Err(denied(400, "BLOB_UPLOAD_INVALID", message));
                }
                if before == 0 {
                    upload.first = chunk;
                }
                upload.latest = chunk;
            }
            upload.size = hasher.size();
            upload.hasher = Some(hasher);
            Ok((upload.size, upload.first))
        }),
        Err(failure) => {
            // A broken chunk ends the upload: what is in the file cannot be told.
            forget(call, id);
            let message = match failure {
                Failure::Body(error) => format!("the body broke off: {error}"),
                Failure::Disk(error) => format!("the sandbox's disk: {error}"),
            };
            Err(denied(500, "BLOB_UPLOAD_INVALID", message))
        }
    }
}

fn forget(call: &Call, id: &str) {
    call.shared.world.lock().region(&call.region).ecr.uploads.remove(id);
    files::remove(&upload_dir(&call.shared.dir), &[id.to_owned()]);
}

/// PATCH. ECR answers 201, and its Range stays at the first chunk (aws/containers-roadmap#2831).
pub async fn append(call: &Call, name: &str, id: &str, request: Request<Body>) -> Outcome {
    let (_, first) = receive(call, name, id, request).await?;
    Ok(accepted(201, name, id, first))
}

/// PUT: the rest, if any, and the digest.
pub async fn finish(call: &Call, name: &str, id: &str, request: Request<Body>) -> Outcome {
    let digest = parameter(request.uri().query(), "digest").unwrap_or_default();
    if !digest.strip_prefix("sha256:").is_some_and(|h| h.len() == 64 && h.bytes().all(|b| b.is_ascii_hexdigit())) {
        return Err(denied(400, "DIGEST_INVALID", "the digest is missing or not sha256"));
    }
    let (size, _) = receive(call, name, id, request).await?;
    let hasher = with_upload(call, name, id, |upload| upload.hasher.take().ok_or_else(|| unknown(id)))?;
    let value = hasher.finish().sums.remove(&Algorithm::Sha256).and_then(|v| STANDARD.decode(v).ok());
    let actual = format!("sha256:{}", hex::encode(value.unwrap_or_default()));
    if actual != digest {
        forget(call, id);
        return Err(denied(400, "DIGEST_INVALID", format!("The layer has the digest {actual}")));
    }
    let (from, directory) = (upload_dir(&call.shared.dir).join(id), layer_dir(&call.shared.dir));
    let to = directory.join(file_name(&digest));
    // The file is there before the state says so.
    let moved = std::fs::create_dir_all(&directory).and_then(|()| std::fs::rename(from, to));
    forget(call, id);
    moved.map_err(|e| denied(500, "BLOB_UPLOAD_INVALID", format!("the sandbox's disk: {e}")))?;
    call.with(name, |repository| {
        repository.layers.insert(digest.clone(), size);
        Ok(())
    })?;
    call.shared.touch();
    Ok(created(name, &digest))
}

/// GET of an upload.
pub fn status(call: &Call, name: &str, id: &str) -> Outcome {
    let first = with_upload(call, name, id, |upload| Ok(upload.first))?;
    Ok(accepted(204, name, id, first))
}

/// DELETE of an upload.
pub fn cancel(call: &Call, name: &str, id: &str) -> Outcome {
    with_upload(call, name, id, |_| Ok(()))?;
    forget(call, id);
    Ok(respond(204, Body::empty()))
}

/// GET and HEAD of a layer.
pub fn get(call: &Call, name: &str, digest: &str, headers: &HeaderMap) -> Outcome {
    let size = call.with(name, |repository| {
        let missing = || denied(404, "BLOB_UNKNOWN", in_registry(&format!("The layer '{digest}' is not"), name));
        repository.layers.get(digest).copied().ok_or_else(missing)
    })?;
    send(&call.shared, digest, size, headers)
}

fn send(shared: &Shared, digest: &str, size: u64, headers: &HeaderMap) -> Outcome {
    let range = headers.get("range").and_then(|v| v.to_str().ok()).and_then(|r| s3s::dto::Range::parse(r).ok());
    let (start, end) = match range {
        None => (0, size),
        Some(range) => {
            let bytes = range.check(size).map_err(|_| denied(416, "RANGE_INVALID", "the range is not in the layer"))?;
            (bytes.start, bytes.end)
        }
    };
    let extent = Extent { file: file_name(digest), offset: start, len: end - start };
    let stream = files::stream(layer_dir(&shared.dir), vec![extent]);
    let mut response = respond(if range.is_some() { 206 } else { 200 }, Body::from_stream(stream));
    set(&mut response, "content-type", "application/octet-stream");
    set(&mut response, "content-length", &(end - start).to_string());
    set(&mut response, "docker-content-digest", digest);
    set(&mut response, "accept-ranges", "bytes");
    if range.is_some() {
        set(&mut response, "content-range", &format!("bytes {start}-{}/{size}", end.saturating_sub(1)));
    }
    Ok(response)
}

/// What GetDownloadUrlForLayer points at: the query is the signature.
pub fn signed(shared: &Arc<Shared>, query: Option<&str>, headers: &HeaderMap) -> Outcome {
    let forbidden = |why: &str| denied(403, "DENIED", why);
    let signed = query.unwrap_or_default();
    let text = token::verify(signed, now_ms()).map_err(forbidden)?;
    let (region, digest) = text.split_once('/').ok_or_else(|| forbidden("the URL names no layer"))?;
    let size = {
        let world = shared.world.lock();
        let repositories = world.regions.get(region).map(|r| &r.ecr.repositories);
        repositories.into_iter().flatten().find_map(|(_, r)| r.layers.get(digest).copied())
    };
    let size = size.ok_or_else(|| denied(404, "BLOB_UNKNOWN", "the layer is gone"))?;
    send(shared, digest, size, headers)
}
