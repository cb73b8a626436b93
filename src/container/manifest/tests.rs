use proptest::prelude::*;

use super::*;

fn descriptor(kind: &str, n: u64) -> Value {
    json!({"mediaType": kind, "digest": format!("sha256:{n:064x}"), "size": n})
}

fn image(kind: &str, config: &str, layers: &[&str]) -> Manifest {
    let layers: Vec<_> = layers.iter().zip(2..).map(|(kind, n)| descriptor(kind, n)).collect();
    let mut body = json!({"schemaVersion": 2, "config": descriptor(config, 1), "layers": layers});
    body["annotations"] = json!({"org.opencontainers.image.created": "now"});
    manifest(kind, &body)
}

fn manifest(kind: &str, body: &Value) -> Manifest {
    let body = body.to_string();
    Manifest { digest: digest(body.as_bytes()), media_type: kind.into(), body }
}

fn reason(verdict: Verdict) -> String {
    match verdict {
        Verdict::Refuse(reason) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn schema_2_passes() {
    let good = image(DOCKER_MANIFEST, DOCKER_CONFIG, &[DOCKER_LAYER, DOCKER_LAYER]);
    assert_eq!(check(&good), Verdict::Ok);
    assert_eq!(config_digest(&good), Some(format!("sha256:{:064x}", 1)));
}

#[test]
fn oci_with_gzip_layers_is_repaired() {
    let oci = image(OCI_MANIFEST, OCI_CONFIG, &[OCI_LAYER, OCI_LAYER]);
    let Verdict::Repair(repaired) = check(&oci) else { panic!("not repaired") };
    assert_eq!(repaired.media_type, DOCKER_MANIFEST);
    assert_eq!(repaired.digest, digest(repaired.body.as_bytes()));
    assert_eq!(check(&repaired), Verdict::Ok);
    assert_eq!(config_digest(&repaired), config_digest(&oci));
    let body: Value = serde_json::from_str(&repaired.body).expect("JSON");
    assert_eq!(
        body,
        json!({
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": descriptor(DOCKER_CONFIG, 1),
            "layers": [descriptor(DOCKER_LAYER, 2), descriptor(DOCKER_LAYER, 3)],
        })
    );
    // The same every time, so that a repeated run finds its own image.
    assert_eq!(check(&oci), Verdict::Repair(repaired));
}

#[test]
fn what_cannot_be_repaired_is_refused() {
    let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
    let docker_zstd = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    for (bad, why) in [
        (image(OCI_MANIFEST, OCI_CONFIG, &[OCI_LAYER, zstd]), "zstd"),
        (image(DOCKER_MANIFEST, DOCKER_CONFIG, &[docker_zstd]), "zstd"),
        (image(DOCKER_MANIFEST, DOCKER_CONFIG, &[foreign]), "not kept in this registry"),
        (image(OCI_MANIFEST, OCI_CONFIG, &["application/vnd.oci.image.layer.v1.tar"]), "layer.v1.tar"),
        (image(OCI_MANIFEST, "application/vnd.oci.empty.v1+json", &[OCI_LAYER]), "config"),
        (image(OCI_MANIFEST, OCI_CONFIG, &[]), "no layers"),
        // What the registry says and what the body holds must agree.
        (image(DOCKER_MANIFEST, OCI_CONFIG, &[OCI_LAYER]), "config"),
        (image("application/vnd.docker.distribution.manifest.v1+json", DOCKER_CONFIG, &[]), "manifest.v1"),
        (manifest(DOCKER_MANIFEST, &json!({"schemaVersion": 1})), "schema version"),
        (manifest(OCI_MANIFEST, &json!({"schemaVersion": 2, "artifactType": "application/x"})), "artifact"),
        (manifest(OCI_MANIFEST, &json!({"schemaVersion": 2, "layers": []})), "no image config"),
        (manifest(OCI_MANIFEST, &json!([])), "not a JSON object"),
        (manifest(OCI_INDEX, &json!({"manifests": []})), "linux/amd64"),
    ] {
        let got = reason(check(&bad));
        assert!(got.contains(why), "expected {why}: {got}");
    }
    let mut broken = image(OCI_MANIFEST, OCI_CONFIG, &[OCI_LAYER]);
    broken.body = broken.body.replace("\"size\":2", "\"size\":-2");
    assert!(reason(check(&broken)).contains("without digest or size"));
}

#[test]
fn the_image_of_an_index() {
    let entry = |digest: &str, os: &str, architecture: &str| {
        json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": 1,
               "platform": {"os": os, "architecture": architecture}})
    };
    let mut v3 = entry("sha256:v3", "linux", "amd64");
    v3["platform"]["variant"] = json!("v3");
    let mut attestation = entry("sha256:odd", "linux", "amd64");
    attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let entries = json!([
        entry("sha256:att", "unknown", "unknown"),
        attestation,
        entry("sha256:arm", "linux", "arm64"),
        v3,
        entry("sha256:amd", "linux", "amd64"),
    ]);
    for kind in [OCI_INDEX, DOCKER_LIST] {
        let index = manifest(kind, &json!({"schemaVersion": 2, "manifests": entries}));
        assert_eq!(check(&index), Verdict::Index("sha256:amd".into()));
    }
    let only_v3 = manifest(OCI_INDEX, &json!({"manifests": [entries[3]]}));
    assert_eq!(check(&only_v3), Verdict::Index("sha256:v3".into()));
    let none = manifest(OCI_INDEX, &json!({"manifests": [entries[0], entries[1], entries[2]]}));
    assert!(reason(check(&none)).contains("linux/amd64"));
}

#[test]
fn configs() {
    let config = |os: &str, architecture: &str, entrypoint: Value| {
        json!({"os": os, "architecture": architecture, "config": {"Entrypoint": entrypoint}}).to_string()
    };
    let good = config("linux", "amd64", json!(["comfy-serve"]));
    assert_eq!(check_config(good.as_bytes()), Ok(()));
    for (bad, why) in [
        (config("linux", "arm64", json!(["x"])), "linux/arm64"),
        (config("windows", "amd64", json!(["x"])), "windows/amd64"),
        (config("linux", "amd64", json!([])), "ENTRYPOINT"),
        (config("linux", "amd64", Value::Null), "ENTRYPOINT"),
        ("{}".into(), "(none)/(none)"),
        ("x".into(), "not JSON"),
    ] {
        let got = check_config(bad.as_bytes()).expect_err("refused");
        assert!(got.contains(why), "{got}");
    }
}

proptest! {
    /// A repair changes types and nothing else: the same blobs, in the same order, and it passes.
    #[test]
    fn repairs_keep_every_blob(sizes in prop::collection::vec(0u64..=u64::MAX, 1..20)) {
        let mut body: Value = serde_json::from_str(&image(OCI_MANIFEST, OCI_CONFIG, &[]).body).expect("JSON");
        body["layers"] = sizes.iter().map(|size| descriptor(OCI_LAYER, *size)).collect();
        let Verdict::Repair(repaired) = check(&manifest(OCI_MANIFEST, &body)) else { panic!("not repaired") };
        prop_assert_eq!(check(&repaired), Verdict::Ok);
        let after: Value = serde_json::from_str(&repaired.body).expect("JSON");
        let blobs = |body: &Value| -> Vec<(Value, Value)> {
            let layers = body["layers"].as_array().cloned().unwrap_or_default();
            layers.iter().map(|layer| (layer["digest"].clone(), layer["size"].clone())).collect()
        };
        prop_assert_eq!(blobs(&after), blobs(&body));
        prop_assert_eq!(&after["config"]["digest"], &body["config"]["digest"]);
    }

    /// Whatever a registry holds, the judgement does not panic.
    #[test]
    fn anything_is_judged(kind in prop::sample::select(vec![DOCKER_MANIFEST, OCI_MANIFEST, OCI_INDEX, "x"]), body in ".{0,200}") {
        let manifest = Manifest { digest: "sha256:0".into(), media_type: kind.into(), body: body.clone() };
        prop_assert!(matches!(check(&manifest), Verdict::Refuse(_)));
        prop_assert!(check_config(body.as_bytes()).is_err());
    }
}
