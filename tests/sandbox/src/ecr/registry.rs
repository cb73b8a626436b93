//! The registry's protocol (OCI distribution specification) as ECR speaks it: routes, tokens, manifests, tags.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use serde_json::json;

use super::images::{self, Refused};
use super::{Repository, repositories, token};
use crate::world::{ACCOUNT, Shared, World, now_ms};

mod blobs;

pub use blobs::Upload;

/// The largest manifest, in bytes (ECR service quotas: 4 MiB).
const MANIFEST_LIMIT: usize = 4 << 20;

/// A refusal in the registry's words.
#[derive(Debug, PartialEq)]
struct Denied {
    status: u16,
    code: &'static str,
    message: String,
}

fn denied(status: u16, code: &'static str, message: impl Into<String>) -> Denied {
    Denied { status, code, message: message.into() }
}

type Outcome = Result<Response<Body>, Denied>;

/// What a path names.
#[derive(Debug, PartialEq)]
enum Route<'a> {
    Version,
    Uploads(&'a str),
    Upload(&'a str, &'a str),
    Blob(&'a str, &'a str),
    Manifest(&'a str, &'a str),
    Tags(&'a str),
    /// What GetDownloadUrlForLayer points at.
    SignedLayer,
}

fn route(path: &str) -> Option<Route<'_>> {
    let rest = path.strip_prefix("/v2")?;
    match rest {
        "" | "/" => return Some(Route::Version),
        "/_layer" => return Some(Route::SignedLayer),
        _ => {}
    }
    let rest = rest.strip_prefix('/')?;
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return Some(Route::Tags(name));
    }
    if let Some(name) = rest.strip_suffix("/blobs/uploads").or_else(|| rest.strip_suffix("/blobs/uploads/")) {
        return Some(Route::Uploads(name));
    }
    let (head, last) = rest.rsplit_once('/')?;
    if let Some(name) = head.strip_suffix("/blobs/uploads") {
        return Some(Route::Upload(name, last));
    }
    if let Some(name) = head.strip_suffix("/blobs") {
        return Some(Route::Blob(name, last));
    }
    head.strip_suffix("/manifests").map(|name| Route::Manifest(name, last))
}

/// One request with the region that its token is for.
struct Call {
    shared: Arc<Shared>,
    region: String,
}

impl Call {
    fn with<T>(&self, name: &str, work: impl FnOnce(&mut Repository) -> Result<T, Denied>) -> Result<T, Denied> {
        work(repository(&mut self.shared.world.lock(), &self.region, name)?)
    }
}

fn repository<'a>(world: &'a mut World, region: &str, name: &str) -> Result<&'a mut Repository, Denied> {
    repositories::find(world, region, name).map_err(|e| denied(404, "NAME_UNKNOWN", e.message))
}

/// One request.
pub async fn handle(shared: Arc<Shared>, request: Request<Body>) -> Response<Body> {
    let outcome = answer(shared, request).await;
    let mut response = outcome.unwrap_or_else(|denied| {
        let body = json!({"errors": [{"code": denied.code, "message": denied.message}]}).to_string();
        let mut response = respond(denied.status, Body::from(body));
        set(&mut response, "content-type", "application/json; charset=utf-8");
        if denied.status == 401 {
            set(&mut response, "www-authenticate", "Basic realm=\"sandbox\",service=\"ecr.amazonaws.com\"");
        }
        response
    });
    set(&mut response, "docker-distribution-api-version", "registry/2.0");
    response
}

async fn answer(shared: Arc<Shared>, request: Request<Body>) -> Outcome {
    let path = request.uri().path().to_owned();
    let route = route(&path).ok_or_else(|| denied(404, "UNSUPPORTED", "The operation is unsupported."))?;
    if route == Route::SignedLayer {
        return blobs::signed(&shared, request.uri().query(), request.headers());
    }
    let authorization = request.headers().get("authorization").and_then(|v| v.to_str().ok());
    let region = token::region_of(authorization, now_ms()).map_err(|why| {
        // A token that is over or made up is a denial, none at all a challenge.
        let status = if authorization.is_some() { 403 } else { 401 };
        denied(status, if status == 403 { "DENIED" } else { "UNAUTHORIZED" }, why)
    })?;
    let call = Call { shared, region };
    let method = request.method().clone();
    match (route, method) {
        (Route::Version, Method::GET | Method::HEAD) => Ok(respond(200, Body::from("{}"))),
        (Route::Uploads(name), Method::POST) => blobs::begin(&call, name, request).await,
        (Route::Upload(name, id), Method::PATCH) => blobs::append(&call, name, id, request).await,
        (Route::Upload(name, id), Method::PUT) => blobs::finish(&call, name, id, request).await,
        (Route::Upload(name, id), Method::GET) => blobs::status(&call, name, id),
        (Route::Upload(name, id), Method::DELETE) => blobs::cancel(&call, name, id),
        (Route::Blob(name, digest), Method::GET | Method::HEAD) => blobs::get(&call, name, digest, request.headers()),
        (Route::Manifest(name, reference), Method::GET | Method::HEAD) => {
            get_manifest(&call, name, reference, request.headers())
        }
        (Route::Manifest(name, reference), Method::PUT) => put_manifest(&call, name, reference, request).await,
        (Route::Tags(name), Method::GET) => {
            let query = request.uri().query().unwrap_or_default();
            tags(&call, name, query)
        }
        _ => Err(denied(405, "UNSUPPORTED", "The operation is unsupported.")),
    }
}

fn respond(status: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

fn set(response: &mut Response<Body>, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// One parameter of a query, decoded.
fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let mut pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    percent_encoding::percent_decode_str(value).decode_utf8().ok().map(|v| v.into_owned())
}

fn get_manifest(call: &Call, name: &str, reference: &str, headers: &HeaderMap) -> Outcome {
    let (digest, image) = call.with(name, |repository| {
        let found = repository.find(reference).map(|(digest, image)| (digest.to_owned(), image.clone()));
        found.ok_or_else(|| denied(404, "MANIFEST_UNKNOWN", "Requested image not found"))
    })?;
    let accepted: Vec<_> = headers.get_all("accept").iter().filter_map(|v| v.to_str().ok()).collect();
    let accepted = accepted.join(",");
    let fits = |kind: &str| kind.split(';').next().is_some_and(|k| k.trim() == image.media_type || k.trim() == "*/*");
    if !accepted.is_empty() && !accepted.split(',').any(fits) {
        let message = format!("Requested image is of media type {}, which is not accepted", image.media_type);
        return Err(denied(404, "MANIFEST_UNKNOWN", message));
    }
    let length = image.body.len();
    let mut response = respond(200, Body::from(image.body));
    set(&mut response, "content-type", &image.media_type);
    set(&mut response, "content-length", &length.to_string());
    set(&mut response, "docker-content-digest", &digest);
    Ok(response)
}

async fn put_manifest(call: &Call, name: &str, reference: &str, request: Request<Body>) -> Outcome {
    let kind = request.headers().get("content-type").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let body = axum::body::to_bytes(request.into_body(), MANIFEST_LIMIT).await;
    let body = body.map_err(|e| denied(400, "MANIFEST_INVALID", format!("the manifest could not be read: {e}")))?;
    let body = String::from_utf8(body.to_vec()).map_err(|e| denied(400, "MANIFEST_INVALID", e.to_string()))?;
    let digest = reference.contains(':').then_some(reference);
    let tag = digest.is_none().then_some(reference);
    if tag.is_some_and(|t| !images::valid_tag(t)) {
        return Err(denied(400, "TAG_INVALID", "The image tag is not valid"));
    }
    let stored =
        call.with(name, |repository| match images::put(repository, &body, kind.as_deref(), digest, tag, now_ms()) {
            Ok(manifest) => Ok(manifest.digest),
            Err(Refused::Exists(digest)) => Ok(digest),
            Err(Refused::Invalid(why)) => Err(denied(400, "MANIFEST_INVALID", why)),
            Err(Refused::Digest(actual)) => {
                Err(denied(400, "DIGEST_INVALID", format!("The digest of the image manifest is {actual}")))
            }
            Err(Refused::Layers(missing)) => {
                let message = format!("Image requires Layer(s) '[{}]' which could not be found", missing.join(", "));
                Err(denied(404, "MANIFEST_BLOB_UNKNOWN", message))
            }
            Err(Refused::Children(missing)) => {
                Err(denied(404, "MANIFEST_UNKNOWN", format!("Images '[{}]' do not exist", missing.join(", "))))
            }
            Err(Refused::Immutable(tag)) => Err(denied(400, "TAG_INVALID", images::immutable_message(name, &tag))),
        })?;
    call.shared.touch();
    let mut response = respond(201, Body::empty());
    set(&mut response, "docker-content-digest", &stored);
    set(&mut response, "location", &format!("/v2/{name}/manifests/{stored}"));
    Ok(response)
}

fn tags(call: &Call, name: &str, query: &str) -> Outcome {
    let most = parameter(Some(query), "n").and_then(|n| n.parse().ok()).unwrap_or(1000).clamp(1, 1000);
    let last = parameter(Some(query), "last").unwrap_or_default();
    let (page, more) = call.with(name, |repository| {
        let mut rest = repository.image_tags.keys().filter(|t| **t > last).cloned();
        let page: Vec<_> = rest.by_ref().take(most).collect();
        Ok((page, rest.next().is_some()))
    })?;
    let mut response = respond(200, Body::from(json!({"name": name, "tags": page}).to_string()));
    set(&mut response, "content-type", "application/json; charset=utf-8");
    if let (true, Some(end)) = (more, page.last()) {
        set(&mut response, "link", &format!("</v2/{name}/tags/list?n={most}&last={end}>; rel=\"next\""));
    }
    Ok(response)
}

/// The registry that answers, as errors call it.
fn in_registry(what: &str, name: &str) -> String {
    format!("{what} in the repository with name '{name}' in the registry with id '{ACCOUNT}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(route("/v2/"), Some(Route::Version));
        assert_eq!(route("/v2/a/b/blobs/uploads/"), Some(Route::Uploads("a/b")));
        assert_eq!(route("/v2/a/blobs/uploads/x1"), Some(Route::Upload("a", "x1")));
        assert_eq!(route("/v2/a/blobs/sha256:0"), Some(Route::Blob("a", "sha256:0")));
        assert_eq!(route("/v2/a/manifests/v1"), Some(Route::Manifest("a", "v1")));
        assert_eq!(route("/v2/a/tags/list"), Some(Route::Tags("a")));
        assert_eq!(route("/v2/a"), None);
        assert_eq!(route("/v3/"), None);
    }

    #[test]
    fn parameters_are_decoded() {
        assert_eq!(parameter(Some("a=1&digest=sha256%3Aff"), "digest").as_deref(), Some("sha256:ff"));
        assert_eq!(parameter(Some("a=1"), "b"), None);
        assert_eq!(parameter(None, "b"), None);
    }
}
