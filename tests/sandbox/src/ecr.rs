//! ECR: the API, and the registry that container tools push to and pull from. Layers lie in files named by
//! their digest; manifests are part of the state.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::rules::Rule;
use crate::s3::files;
use crate::world::{ACCOUNT, Answer, ApiError, Ctx, Shared, World};

mod images;
mod lifecycle;
mod manifest;
mod registry;
mod repositories;
mod rules;
mod token;

/// What ECR refuses, with sources.
pub const RULES: &[Rule] = rules::RULES;

/// The service's state.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// By name.
    pub repositories: BTreeMap<String, Repository>,
    /// Layer uploads in progress by id. A restart forgets them, and clients begin anew.
    #[serde(skip)]
    uploads: BTreeMap<String, registry::Upload>,
}

/// A repository.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Repository {
    /// Milliseconds since 1970.
    pub created: i64,
    /// As the API spells it.
    pub mutability: String,
    /// Tag filters that are excluded from the mutability, with `*` for anything.
    pub exclusions: Vec<String>,
    /// Whether images are scanned when pushed.
    pub scan_on_push: bool,
    /// As given.
    pub encryption: Value,
    /// Text of the lifecycle policy.
    pub lifecycle: Option<String>,
    /// Text of the repository policy.
    pub policy: Option<String>,
    /// AWS tags.
    pub tags: BTreeMap<String, String>,
    /// Sizes in bytes by digest.
    pub layers: BTreeMap<String, u64>,
    /// By digest.
    pub images: BTreeMap<String, Image>,
    /// Digests by image tag.
    pub image_tags: BTreeMap<String, String>,
}

/// An image or an index.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Image {
    /// Of the manifest.
    pub media_type: String,
    /// The manifest's bytes.
    pub body: String,
    /// Milliseconds since 1970.
    pub pushed: i64,
    /// Bytes of its layers.
    pub size: u64,
}

/// One operation, input and output as in the API's JSON.
pub fn call(world: &mut World, ctx: &Ctx, operation: &str, input: &Value) -> Answer {
    if let Some(registry) = input["registryId"].as_str().filter(|id| *id != ACCOUNT) {
        let name = input["repositoryName"].as_str().unwrap_or_default();
        return Err(repositories::not_found(name, registry));
    }
    match operation {
        "GetAuthorizationToken" => token::get(world, ctx),
        "GetDownloadUrlForLayer"
        | "BatchCheckLayerAvailability"
        | "BatchDeleteImage"
        | "BatchGetImage"
        | "DescribeImages"
        | "ListImages"
        | "PutImage" => images::call(world, ctx, operation, input),
        _ => repositories::call(world, ctx, operation, input),
    }
}

/// One request of the registry's protocol, below `/v2/`.
pub async fn registry(shared: Arc<Shared>, request: Request<Body>) -> Response<Body> {
    registry::handle(shared, request).await
}

/// Media type and digest of the manifest that an image reference names; see [`image_of`].
pub fn manifest_of(world: &World, region: &str, image_uri: &str) -> Option<(String, String)> {
    image_of(world, region, image_uri).map(|(media_type, digest, _)| (media_type, digest))
}

/// Media type, digest and bytes of the manifest that an image reference (`host/repo:tag` or
/// `host/repo@sha256:...`) names in this account's registry of the region. The host is the sandbox's own or the
/// one AWS would give it.
pub fn image_of(world: &World, region: &str, image_uri: &str) -> Option<(String, String, String)> {
    let (host, rest) = image_uri.split_once('/')?;
    let own = host == host_of(&world.url) || host == format!("{ACCOUNT}.dkr.ecr.{region}.amazonaws.com");
    own.then(|| image_in(world, region, rest)).flatten()
}

/// The same of `repo:tag` or `repo@sha256:...`, without a host.
pub(crate) fn image_in(world: &World, region: &str, image: &str) -> Option<(String, String, String)> {
    let (name, reference) = match image.split_once('@') {
        // With both a tag and a digest, the digest counts.
        Some((name, digest)) => (name.split(':').next()?, digest),
        None => image.rsplit_once(':').unwrap_or((image, "latest")),
    };
    let repository = world.regions.get(region)?.ecr.repositories.get(name)?;
    let (digest, image) = repository.find(reference)?;
    Some((image.media_type.clone(), digest.to_owned(), image.body.clone()))
}

/// Removes layers that nothing refers to and uploads that a crash cut off. For the start only.
pub fn sweep(world: &World) {
    let repositories = world.regions.values().flat_map(|r| r.ecr.repositories.values());
    let used: HashSet<_> = repositories.flat_map(|r| r.layers.keys()).map(|d| file_name(d)).collect();
    files::sweep(&layer_dir(&world.dir), &used);
    files::sweep(&upload_dir(&world.dir), &HashSet::new());
}

impl Repository {
    /// Digest and image of a tag or digest.
    pub fn find(&self, reference: &str) -> Option<(&str, &Image)> {
        let digest = self.image_tags.get(reference).map_or(reference, String::as_str);
        self.images.get_key_value(digest).map(|(digest, image)| (digest.as_str(), image))
    }

    /// The tags of an image.
    fn tags_of(&self, digest: &str) -> Vec<&str> {
        self.image_tags.iter().filter(|(_, d)| *d == digest).map(|(tag, _)| tag.as_str()).collect()
    }

    /// Whether a tag, once pushed, stays.
    fn immutable(&self, tag: &str) -> bool {
        let excluded = self.exclusions.iter().any(|filter| wildcard(filter, tag));
        match self.mutability.as_str() {
            "IMMUTABLE" => true,
            "IMMUTABLE_WITH_EXCLUSION" => !excluded,
            "MUTABLE_WITH_EXCLUSION" => excluded,
            _ => false,
        }
    }
}

/// Whether `*` in the filter can stand for something that makes it the text.
fn wildcard(filter: &str, text: &str) -> bool {
    match filter.split_once('*') {
        None => filter == text,
        Some((start, rest)) => text
            .strip_prefix(start)
            .is_some_and(|tail| (0..=tail.len()).any(|at| tail.is_char_boundary(at) && wildcard(rest, &tail[at..]))),
    }
}

/// `127.0.0.1:4599` of `http://127.0.0.1:4599`.
fn host_of(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, host)| host).trim_end_matches('/')
}

/// Where the layers and configs lie, below a state directory.
pub(crate) fn layer_dir(dir: &Path) -> PathBuf {
    dir.join("ecr")
}

fn upload_dir(dir: &Path) -> PathBuf {
    dir.join("ecr-uploads")
}

/// The file of a layer.
pub(crate) fn file_name(digest: &str) -> String {
    digest.trim_start_matches("sha256:").to_owned()
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new("InvalidParameterException", message)
}

#[cfg(test)]
mod tests;
