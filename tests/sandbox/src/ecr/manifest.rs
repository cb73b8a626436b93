//! What a manifest says.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Docker image manifest, schema 2.
pub const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A manifest taken apart.
#[derive(Debug, PartialEq)]
pub struct Manifest {
    /// One of the four that ECR takes.
    pub media_type: String,
    /// Of the bytes.
    pub digest: String,
    /// Configuration and layers that must be there.
    pub blobs: Vec<String>,
    /// Layers' bytes.
    pub size: u64,
    /// Of an index.
    pub children: Vec<String>,
    /// Of the configuration.
    pub artifact_type: Option<String>,
}

/// `sha256:...` of bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Takes a manifest apart. The media type is the one given (Content-Type, imageManifestMediaType), or its own.
pub fn parse(body: &str, given: Option<&str>) -> Result<Manifest, String> {
    let value: Value = serde_json::from_str(body).map_err(|e| format!("the manifest is not JSON: {e}"))?;
    if value["schemaVersion"] != 2 {
        return Err("manifest schema version 2 is expected".to_owned());
    }
    let own = value["mediaType"].as_str();
    let guessed = if value["manifests"].is_array() { OCI_INDEX } else { OCI };
    let media_type = own.or(given.filter(|g| *g != "application/json")).unwrap_or(guessed);
    if own.is_some_and(|own| given.is_some_and(|given| given != own && given != "application/json")) {
        return Err("the manifest's mediaType is not the media type it was sent with".to_owned());
    }
    let digest_of = |d: &Value| d["digest"].as_str().map(str::to_owned);
    let list = |name: &str| value[name].as_array().cloned().unwrap_or_default();
    let (mut blobs, mut size, mut children) = (Vec::new(), 0, Vec::new());
    match media_type {
        DOCKER | OCI => {
            blobs.push(digest_of(&value["config"]).ok_or("the manifest has no config")?);
            // A layer with URLs lies elsewhere.
            for layer in list("layers").iter().filter(|l| l["urls"].as_array().is_none_or(Vec::is_empty)) {
                blobs.push(digest_of(layer).ok_or("a layer has no digest")?);
                size += layer["size"].as_u64().ok_or("a layer has no size")?;
            }
        }
        DOCKER_LIST | OCI_INDEX => {
            for child in list("manifests") {
                children.push(digest_of(&child).ok_or("a manifest of the index has no digest")?);
            }
        }
        other => return Err(format!("media type {other} is not supported")),
    }
    let artifact_type = value["config"]["mediaType"].as_str().map(str::to_owned);
    let (media_type, digest) = (media_type.to_owned(), digest(body.as_bytes()));
    Ok(Manifest { media_type, digest, blobs, size, children, artifact_type })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_are_told_apart() -> Result<(), String> {
        let image = json!({"schemaVersion": 2, "config": {"digest": "sha256:c", "mediaType": "m"},
            "layers": [{"digest": "sha256:a", "size": 3}, {"digest": "sha256:b", "size": 4, "urls": ["http://x"]}]});
        let parsed = parse(&image.to_string(), Some(DOCKER))?;
        assert_eq!((parsed.media_type.as_str(), parsed.size), (DOCKER, 3));
        assert_eq!(parsed.blobs, ["sha256:c", "sha256:a"]);
        assert_eq!(parse(&image.to_string(), None)?.media_type, OCI);
        let index = json!({"schemaVersion": 2, "manifests": [{"digest": "sha256:d"}]}).to_string();
        assert_eq!(
            (parse(&index, None)?.media_type.as_str(), parse(&index, None)?.children),
            (OCI_INDEX, vec!["sha256:d".to_owned()])
        );
        for bad in ["", "{}", r#"{"schemaVersion":1}"#, r#"{"schemaVersion":2,"mediaType":"x/y"}"#] {
            assert!(parse(bad, None).is_err(), "{bad}");
        }
        let labelled = json!({"schemaVersion": 2, "mediaType": OCI, "config": {"digest": "sha256:c"}}).to_string();
        assert!(parse(&labelled, Some(DOCKER)).is_err());
        Ok(())
    }
}
