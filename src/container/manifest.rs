//! Which manifests SageMaker accepts. Pure.
//!
//! CreateModel takes Docker image manifests of version 2, schema 2, and answers "Unsupported manifest media type" to
//! every OCI manifest and index. An OCI manifest with gzip layers differs only in its media types, so it is repaired
//! without touching a blob.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::cloud::Manifest;

/// Docker version 2, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What to do with a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// SageMaker accepts it.
    Ok,
    /// SageMaker would accept this one, which has the same blobs.
    Repair(Manifest),
    /// An index; this is its linux/amd64 image.
    Index(String),
    /// Nothing can be done about it; the reason.
    Refuse(String),
}

/// Judges a manifest by itself; [`check_config`] judges the image config that it names.
pub fn check(manifest: &Manifest) -> Verdict {
    let Ok(Value::Object(body)) = serde_json::from_str::<Value>(&manifest.body) else {
        return Verdict::Refuse("its manifest is not a JSON object".into());
    };
    // The registry's word counts: an OCI body need not name its own type.
    match manifest.media_type.as_str() {
        DOCKER_MANIFEST => match layers(&body, DOCKER_CONFIG, DOCKER_LAYER) {
            Ok(_) => Verdict::Ok,
            Err(reason) => Verdict::Refuse(reason),
        },
        OCI_MANIFEST => match layers(&body, OCI_CONFIG, OCI_LAYER) {
            Ok((config, layers)) => Verdict::Repair(docker_manifest(&config, &layers)),
            Err(reason) => Verdict::Refuse(reason),
        },
        OCI_INDEX | DOCKER_LIST => match child(&body) {
            Some(digest) => Verdict::Index(digest),
            None => Verdict::Refuse("it is an index without an image for linux/amd64".into()),
        },
        other => Verdict::Refuse(format!("its manifest has the media type {other}")),
    }
}

/// A blob that a manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Blob {
    digest: String,
    size: u64,
}

/// Digest of the image config that a (Docker or OCI image) manifest names.
pub fn config_digest(manifest: &Manifest) -> Option<String> {
    let body: Value = serde_json::from_str(&manifest.body).ok()?;
    Some(body.get("config")?.get("digest")?.as_str()?.to_owned())
}

/// The config and the layers, if all are of the wanted types.
fn layers(body: &Map<String, Value>, config_type: &str, layer_type: &str) -> Result<(Blob, Vec<Blob>), String> {
    if body.get("schemaVersion").and_then(Value::as_u64) != Some(2) {
        return Err("its manifest is not of schema version 2".into());
    }
    if body.get("artifactType").is_some_and(|t| t.as_str().is_some_and(|t| !t.is_empty())) {
        return Err("it is an OCI artifact, not an image".into());
    }
    let config = body.get("config").ok_or("its manifest names no image config")?;
    let found = media_type(config);
    if found != config_type {
        return Err(format!("its config has the media type {found}"));
    }
    let layers = body.get("layers").and_then(Value::as_array).ok_or("its manifest has no layers")?;
    let mut blobs = Vec::with_capacity(layers.len());
    for layer in layers {
        let found = media_type(layer);
        if found != layer_type {
            let why = if found.contains("zstd") {
                ": zstd layers are not supported; build without compression=zstd"
            } else if found.contains("foreign") || found.contains("nondistributable") {
                ": it is not kept in this registry"
            } else {
                ""
            };
            return Err(format!("a layer has the media type {found}{why}"));
        }
        blobs.push(blob(layer)?);
    }
    if blobs.is_empty() {
        return Err("it has no layers".into());
    }
    Ok((blob(config)?, blobs))
}

fn media_type(descriptor: &Value) -> &str {
    descriptor.get("mediaType").and_then(Value::as_str).unwrap_or("(none)")
}

fn blob(descriptor: &Value) -> Result<Blob, String> {
    let digest = descriptor.get("digest").and_then(Value::as_str);
    let size = descriptor.get("size").and_then(Value::as_u64);
    match (digest, size) {
        (Some(digest), Some(size)) => Ok(Blob { digest: digest.to_owned(), size }),
        _ => Err("its manifest names a blob without digest or size".into()),
    }
}

/// Annotations and the like are left out: schema 2 has no place for them.
fn docker_manifest(config: &Blob, layers: &[Blob]) -> Manifest {
    let descriptor = |kind: &str, blob: &Blob| json!({"mediaType": kind, "size": blob.size, "digest": blob.digest});
    let body = json!({
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": descriptor(DOCKER_CONFIG, config),
        "layers": layers.iter().map(|layer| descriptor(DOCKER_LAYER, layer)).collect::<Vec<_>>(),
    })
    .to_string();
    Manifest { digest: digest(body.as_bytes()), media_type: DOCKER_MANIFEST.into(), body }
}

/// `sha256:...` of some bytes.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The linux/amd64 image of an index. Attestations are listed as images of the platform unknown/unknown.
fn child(body: &Map<String, Value>) -> Option<String> {
    let entries = body.get("manifests")?.as_array()?;
    let fits = |entry: &&Value| {
        let platform = |key| entry.get("platform").and_then(|p| p.get(key)).and_then(Value::as_str);
        let attestation = entry.pointer("/annotations/vnd.docker.reference.type").is_some();
        platform("os") == Some("linux") && platform("architecture") == Some("amd64") && !attestation
    };
    let digest = |entry: &Value| Some(entry.get("digest")?.as_str()?.to_owned());
    // A plain amd64 image runs everywhere; amd64/v3 only on some processors.
    let plain = |entry: &&Value| entry.pointer("/platform/variant").is_none();
    entries.iter().filter(fits).find(plain).or_else(|| entries.iter().find(fits)).and_then(digest)
}

/// Judges the image config: SageMaker's GPU instances run linux/amd64, and it starts the image as
/// `docker run IMAGE serve`, so without an entrypoint the word `serve` would be the program.
///
/// # Errors
/// The reason for refusing the image.
pub fn check_config(blob: &[u8]) -> Result<(), String> {
    let config: Value = serde_json::from_slice(blob).map_err(|_| "its config is not JSON")?;
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or("(none)").to_owned();
    let (os, architecture) = (text("os"), text("architecture"));
    if os != "linux" || architecture != "amd64" {
        return Err(format!("it is built for {os}/{architecture}, not linux/amd64"));
    }
    match config.pointer("/config/Entrypoint").and_then(Value::as_array) {
        Some(entrypoint) if !entrypoint.is_empty() => Ok(()),
        _ => Err("it has no ENTRYPOINT; SageMaker runs it with the argument `serve`".into()),
    }
}

#[cfg(test)]
mod tests;
