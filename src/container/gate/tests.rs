use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::cloud::{RegistryLogin, Repository};
use crate::container::manifest::DOCKER_MANIFEST;

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A repository in memory: manifests by tag and digest, blobs by digest.
#[derive(Default)]
struct Memory {
    manifests: Mutex<BTreeMap<String, Manifest>>,
    blobs: BTreeMap<String, Vec<u8>>,
    cannot_delete: bool,
    /// As an ECR without GetDownloadUrlForLayer.
    hands_out_nothing: bool,
}

impl Memory {
    fn push(&self, tag: &str, media_type: &str, body: &Value) -> String {
        let body = body.to_string();
        let manifest = Manifest { digest: digest(body.as_bytes()), media_type: media_type.into(), body };
        let mut manifests = self.manifests.lock().expect("lock");
        manifests.insert(manifest.digest.clone(), manifest.clone());
        manifests.insert(tag.into(), manifest.clone());
        manifest.digest
    }

    fn tags(&self) -> Vec<String> {
        self.manifests.lock().expect("lock").keys().filter(|k| !k.starts_with("sha256:")).cloned().collect()
    }

    /// With an image config; returns the config's descriptor, less its media type.
    fn with_config(config: &Value) -> (Self, Value) {
        let bytes = config.to_string().into_bytes();
        let digest = digest(&bytes);
        let descriptor = json!({"digest": digest, "size": bytes.len()});
        (Memory { blobs: BTreeMap::from([(digest, bytes)]), ..Memory::default() }, descriptor)
    }
}

#[async_trait]
impl Images for Memory {
    async fn repository(&self, _: &str) -> Result<Option<Repository>> {
        Ok(None)
    }
    async fn repository_tags(&self, _: &str) -> Result<crate::cloud::Map> {
        Ok(crate::cloud::Map::new())
    }
    async fn manifest(&self, _: &str, reference: &str) -> Result<Option<Manifest>> {
        Ok(self.manifests.lock().expect("lock").get(reference).cloned())
    }
    async fn put_manifest(&self, _: &str, tag: &str, manifest: &Manifest) -> Result<(Written, String)> {
        let mut manifests = self.manifests.lock().expect("lock");
        if manifests.contains_key(tag) {
            return Ok((Written::AlreadyThere, manifest.digest.clone()));
        }
        manifests.insert(tag.into(), manifest.clone());
        Ok((Written::Created, manifest.digest.clone()))
    }
    async fn blob(&self, _: &str, digest: &str) -> Result<Option<Bytes>> {
        if self.hands_out_nothing {
            return Ok(None);
        }
        let found = self.blobs.get(digest).cloned().map(Bytes::from).ok_or_else(|| Error::failed("no such blob"))?;
        Ok(Some(found))
    }
    async fn login(&self) -> Result<RegistryLogin> {
        Err(Error::failed("no login"))
    }
    async fn delete_tags(&self, _: &str, tags: &[String]) -> Result<()> {
        if self.cannot_delete {
            return Err(Error::failed("not allowed"));
        }
        self.manifests.lock().expect("lock").retain(|tag, _| !tags.contains(tag));
        Ok(())
    }
}

fn good_config() -> Value {
    json!({"os": "linux", "architecture": "amd64", "config": {"Entrypoint": ["comfy-serve"]}})
}

fn oci(config: &Value) -> Value {
    let mut config = config.clone();
    config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
    json!({"schemaVersion": 2, "config": config, "layers": [
        {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": "sha256:aa", "size": 5}]})
}

fn docker(config: &Value) -> Value {
    let mut config = config.clone();
    config["mediaType"] = json!("application/vnd.docker.container.image.v1+json");
    json!({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": config, "layers": [
        {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": "sha256:aa", "size": 5}]})
}

#[tokio::test]
async fn a_good_image_keeps_its_digest() {
    let (memory, config) = Memory::with_config(&good_config());
    let pushed = memory.push("build-1", DOCKER_MANIFEST, &docker(&config));
    assert_eq!(gate(&memory, "app", "build-1", "c-1", Existing::Take).await.expect("passes"), pushed);
    assert_eq!(memory.tags(), ["c-1"]);
}

#[tokio::test]
async fn an_oci_image_is_repaired_also_inside_an_index() {
    let (memory, config) = Memory::with_config(&good_config());
    let child = memory.push("build-1", OCI, &oci(&config));
    memory.push(
        "build-2",
        INDEX,
        &json!({"manifests": [
        {"digest": child, "platform": {"os": "linux", "architecture": "amd64"}}]}),
    );
    let first = gate(&memory, "app", "build-1", "c-1", Existing::Take).await.expect("passes");
    let second = gate(&memory, "app", "build-2", "c-2", Existing::Take).await.expect("passes");
    assert_eq!(first, second);
    assert_ne!(first, child);
    assert_eq!(memory.tags(), ["c-1", "c-2"]);
    let put = memory.manifest("app", "c-1").await.expect("answers").expect("there");
    assert_eq!(put.media_type, DOCKER_MANIFEST);
}

#[tokio::test]
async fn the_faster_run_wins() {
    let (memory, config) = Memory::with_config(&good_config());
    let theirs = memory.push("c-1", DOCKER_MANIFEST, &json!({"theirs": true}));
    memory.push("build-1", DOCKER_MANIFEST, &docker(&config));
    assert_eq!(gate(&memory, "app", "build-1", "c-1", Existing::Take).await.expect("passes"), theirs);
}

#[tokio::test]
async fn refused_images_never_get_the_final_tag() {
    let arm = json!({"os": "linux", "architecture": "arm64", "config": {"Entrypoint": ["x"]}});
    let (memory, config) = Memory::with_config(&arm);
    memory.push("build-1", DOCKER_MANIFEST, &docker(&config));
    let error = gate(&memory, "app", "build-1", "c-1", Existing::Take).await.expect_err("refused");
    assert!(error.to_string().contains("linux/arm64"), "{error}");
    assert_eq!(memory.tags(), Vec::<String>::new());

    let (mut memory, config) = Memory::with_config(&good_config());
    memory.blobs.values_mut().for_each(|bytes| bytes.push(b' '));
    memory.push("build-1", DOCKER_MANIFEST, &docker(&config));
    let error = gate(&memory, "app", "build-1", "c-1", Existing::Take).await.expect_err("refused");
    assert!(error.to_string().contains("damaged"), "{error}");

    let nested = Memory::default();
    let inner = nested.push("x", INDEX, &json!({"manifests": []}));
    nested.push(
        "build-1",
        INDEX,
        &json!({"manifests": [
        {"digest": inner, "platform": {"os": "linux", "architecture": "amd64"}}]}),
    );
    assert!(gate(&nested, "app", "build-1", "c-1", Existing::Take).await.is_err());
    assert_eq!(nested.tags(), ["x"]);
}

#[tokio::test]
async fn what_is_not_there_says_so() {
    let error = gate(&Memory::default(), "app", "build-1", "c-1", Existing::Take).await.expect_err("absent");
    assert!(error.to_string().contains("has no build-1"), "{error}");
}

#[tokio::test]
async fn a_build_tag_that_stays_is_no_failure_and_digests_are_not_deleted() {
    let (mut memory, config) = Memory::with_config(&good_config());
    memory.cannot_delete = true;
    let pushed = memory.push("build-1", DOCKER_MANIFEST, &docker(&config));
    assert_eq!(gate(&memory, "app", "build-1", "c-1", Existing::Take).await.expect("passes"), pushed);
    memory.cannot_delete = false;
    assert_eq!(gate(&memory, "app", &pushed, "c-2", Existing::Take).await.expect("passes"), pushed);
    assert!(memory.manifest("app", &pushed).await.expect("answers").is_some());
}

#[tokio::test]
async fn a_forced_build_takes_the_tag_over_and_the_earlier_image_stays() {
    let (memory, config) = Memory::with_config(&good_config());
    let earlier = memory.push("c-1", DOCKER_MANIFEST, &json!({"earlier": true}));
    let pushed = memory.push("build-1", DOCKER_MANIFEST, &docker(&config));
    assert_eq!(gate(&memory, "app", "build-1", "c-1", Existing::MoveTag).await.expect("passes"), pushed);
    let kept = earlier_tag("c-1", &earlier);
    assert_eq!(memory.tags(), ["c-1".to_owned(), kept.clone()]);
    assert_eq!(memory.manifest("app", "c-1").await.expect("answers").expect("there").digest, pushed);
    assert_eq!(memory.manifest("app", &kept).await.expect("answers").expect("there").digest, earlier);
    // The same image again moves nothing.
    memory.push("build-2", DOCKER_MANIFEST, &docker(&config));
    assert_eq!(gate(&memory, "app", "build-2", "c-1", Existing::MoveTag).await.expect("passes"), pushed);
    assert_eq!(memory.tags().len(), 2);
}

#[tokio::test]
async fn where_nobody_hands_out_the_config_the_manifest_decides() {
    let (mut memory, config) = Memory::with_config(&json!({"os": "linux", "architecture": "arm64"}));
    let pushed = memory.push("build-1", DOCKER_MANIFEST, &docker(&config));
    assert!(inspect(&memory, "app", "build-1", None).await.is_err(), "the config says what is wrong");
    memory.hands_out_nothing = true;
    assert_eq!(inspect(&memory, "app", "build-1", None).await.expect("passes"), Some(pushed.clone()));
    memory.push("oci", OCI, &oci(&config));
    assert!(inspect(&memory, "app", "oci", None).await.is_err());
    assert_eq!(gate(&memory, "app", "build-1", "c-1", Existing::Take).await.expect("passes"), pushed);
}

#[tokio::test]
async fn a_prebuilt_image_is_judged_but_never_changed() {
    let (memory, config) = Memory::with_config(&good_config());
    let good = memory.push("v1", DOCKER_MANIFEST, &docker(&config));
    memory.push("oci", OCI, &oci(&config));
    assert_eq!(inspect(&memory, "app", "v1", None).await.expect("passes"), Some(good.clone()));
    assert_eq!(inspect(&memory, "app", "v2", None).await.expect("absent"), None);
    let refused = inspect(&memory, "app", "oci", None).await.expect_err("refused");
    assert!(refused.reasons()[0].contains("OCI"), "{refused}");
    assert_eq!(refused.kind(), crate::error::Kind::Usage);
    assert_eq!(memory.tags(), ["oci", "v1"]);

    let (arm, config) =
        Memory::with_config(&json!({"os": "linux", "architecture": "arm64", "config": {"Entrypoint": ["x"]}}));
    let digest = arm.push("v1", DOCKER_MANIFEST, &docker(&config));
    assert!(inspect(&arm, "app", "v1", None).await.is_err());
    // What is deployed was judged then; its config is not read again.
    assert_eq!(inspect(&arm, "app", "v1", Some(&digest)).await.expect("trusted"), Some(digest));
}
