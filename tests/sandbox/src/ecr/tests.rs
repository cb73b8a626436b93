//! One test or more for each rule, named after it.

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::*;
use crate::world::now_ms;

type Tested = std::io::Result<()>;

struct Sandbox {
    shared: Arc<Shared>,
    _dir: tempfile::TempDir,
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Reply {
    fn header(&self, name: &str) -> String {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
    }

    /// Status, and the code of an error.
    fn code(&self) -> (u16, String) {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        (self.status, body["errors"][0]["code"].as_str().unwrap_or_default().to_owned())
    }
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

impl Sandbox {
    fn new() -> std::io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let world = World { dir: dir.path().to_owned(), url: "http://127.0.0.1:4599".into(), ..Default::default() };
        Ok(Sandbox { shared: Arc::new(Shared::new(world, dir.path().to_owned())), _dir: dir })
    }

    /// With the repository `app`.
    fn with_repository(mutability: &str) -> std::io::Result<Self> {
        let sandbox = Self::new()?;
        assert_eq!(
            sandbox.fails("CreateRepository", json!({"repositoryName": "app", "imageTagMutability": mutability})),
            ""
        );
        Ok(sandbox)
    }

    fn call(&self, operation: &str, input: Value) -> Answer {
        let ctx = Ctx { region: "us-east-1".into(), request_id: "R".into(), now: now_ms() };
        call(&mut self.shared.world.lock(), &ctx, operation, &input)
    }

    /// The error code of an operation; empty if there is none.
    fn fails(&self, operation: &str, input: Value) -> String {
        self.call(operation, input).err().map(|e| e.code).unwrap_or_default()
    }

    fn authorization(&self) -> String {
        let answer = self.call("GetAuthorizationToken", json!({})).expect("a token");
        format!("Basic {}", answer["authorizationData"][0]["authorizationToken"].as_str().unwrap_or_default())
    }

    async fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut request = Request::builder().method(method).uri(target);
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.header("authorization", self.authorization());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_vec())).expect("a request");
        let (parts, body) = registry(Arc::clone(&self.shared), request).await.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body").to_vec();
        Reply { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn layer(&self, bytes: &[u8]) -> String {
        let digest = manifest::digest(bytes);
        let reply = self.send("POST", &format!("/v2/app/blobs/uploads/?digest={digest}"), &[], bytes).await;
        assert_eq!(reply.status, 201);
        digest
    }

    /// The manifest of an image with one layer, which is there.
    async fn image(&self, content: &str) -> String {
        let config = self.layer(b"{}").await;
        let layer = self.layer(content.as_bytes()).await;
        json!({
            "schemaVersion": 2,
            "mediaType": manifest::DOCKER,
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": config, "size": 2},
            "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": layer, "size": content.len()}],
        })
        .to_string()
    }

    fn put(&self, manifest: &str, tag: &str) -> String {
        self.fails("PutImage", json!({"repositoryName": "app", "imageManifest": manifest, "imageTag": tag}))
    }
}

#[test]
fn every_rule_has_a_test() {
    let tests = [include_str!("tests.rs"), include_str!("lifecycle.rs")];
    for rule in RULES {
        let name = rule.id.trim_start_matches("ecr.").replace('-', "_");
        assert!(tests.iter().any(|text| text.contains(&format!("fn {name}"))), "{} has no test", rule.id);
        assert!(!rule.source.is_empty() && rule.text.ends_with('.'));
    }
}

#[tokio::test]
async fn immutable_tag() -> Tested {
    let sandbox = Sandbox::with_repository("IMMUTABLE")?;
    let (one, two) = (sandbox.image("one").await, sandbox.image("two").await);
    assert_eq!(sandbox.put(&one, "t"), "");
    assert_eq!(sandbox.put(&two, "t"), "ImageTagAlreadyExistsException");
    let kind = [("content-type", manifest::DOCKER)];
    let push = async |text: &str, tag: &str| {
        sandbox.send("PUT", &format!("/v2/app/manifests/{tag}"), &kind, text.as_bytes()).await
    };
    assert_eq!(push(&two, "t").await.code(), refused(400, "TAG_INVALID"));
    assert_eq!(push(&one, "t").await.status, 201, "the same image is no change");
    assert_eq!(push(&two, "u").await.status, 201);
    sandbox
        .call("PutImageTagMutability", json!({"repositoryName": "app", "imageTagMutability": "MUTABLE"}))
        .expect("set");
    assert_eq!(sandbox.put(&two, "t"), "");
    let excluding = json!({
        "repositoryName": "app",
        "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
        "imageTagMutabilityExclusionFilters": [{"filterType": "WILDCARD", "filter": "build-*"}],
    });
    sandbox.call("PutImageTagMutability", excluding).expect("set");
    assert_eq!((sandbox.put(&one, "build-1"), sandbox.put(&two, "build-1")), (String::new(), String::new()));
    assert_eq!(sandbox.put(&one, "t"), "ImageTagAlreadyExistsException");
    Ok(())
}

#[tokio::test]
async fn image_exists() -> Tested {
    let sandbox = Sandbox::with_repository("MUTABLE")?;
    let image = sandbox.image("one").await;
    assert_eq!(sandbox.put(&image, "t"), "");
    assert_eq!(sandbox.put(&image, "t"), "ImageAlreadyExistsException");
    assert_eq!(sandbox.put(&image, "u"), "");
    let listed = sandbox.call("ListImages", json!({"repositoryName": "app", "maxResults": 1})).expect("listed");
    assert_eq!(listed["imageIds"][0]["imageTag"], "t");
    let more = json!({"repositoryName": "app", "maxResults": 1, "nextToken": listed["nextToken"]});
    let listed = sandbox.call("ListImages", more).expect("listed");
    assert_eq!((&listed["imageIds"][0]["imageTag"], &listed["nextToken"]), (&json!("u"), &Value::Null));
    Ok(())
}

#[tokio::test]
async fn layers_exist() -> Tested {
    let sandbox = Sandbox::with_repository("MUTABLE")?;
    let image = sandbox.image("one").await;
    let missing = image.replace(&manifest::digest(b"one"), &manifest::digest(b"two"));
    assert_eq!(sandbox.put(&missing, "t"), "LayersNotFoundException");
    let reply =
        sandbox.send("PUT", "/v2/app/manifests/t", &[("content-type", manifest::DOCKER)], missing.as_bytes()).await;
    assert_eq!(reply.code(), refused(404, "MANIFEST_BLOB_UNKNOWN"));
    let index = json!({"schemaVersion": 2, "manifests": [{"digest": manifest::digest(b"no")}]}).to_string();
    assert_eq!(sandbox.put(&index, "t"), "ReferencedImagesNotFoundException");
    let check = json!({"repositoryName": "app", "layerDigests": [manifest::digest(b"one"), manifest::digest(b"two")]});
    let layers = sandbox.call("BatchCheckLayerAvailability", check).expect("checked");
    assert_eq!(layers["layers"][0]["layerAvailability"], "AVAILABLE");
    assert_eq!(layers["layers"][1]["layerAvailability"], "UNAVAILABLE");
    Ok(())
}

#[tokio::test]
async fn digest() -> Tested {
    let sandbox = Sandbox::with_repository("MUTABLE")?;
    let wrong = manifest::digest(b"other");
    let reply = sandbox.send("POST", &format!("/v2/app/blobs/uploads/?digest={wrong}"), &[], b"bytes").await;
    assert_eq!(reply.code(), refused(400, "DIGEST_INVALID"));
    assert_eq!(std::fs::read_dir(upload_dir(&sandbox.shared.dir))?.count(), 0);
    let image = sandbox.image("one").await;
    let input = json!({"repositoryName": "app", "imageManifest": image, "imageDigest": wrong});
    assert_eq!(sandbox.fails("PutImage", input), "ImageDigestDoesNotMatchException");
    let reply = sandbox.send("PUT", &format!("/v2/app/manifests/{wrong}"), &[], image.as_bytes()).await;
    assert_eq!(reply.code(), refused(400, "DIGEST_INVALID"));
    Ok(())
}

#[tokio::test]
async fn repository_not_empty() -> Tested {
    let sandbox = Sandbox::with_repository("MUTABLE")?;
    let image = sandbox.image("one").await;
    assert_eq!(sandbox.put(&image, "t"), "");
    let delete = |force: bool| sandbox.fails("DeleteRepository", json!({"repositoryName": "app", "force": force}));
    assert_eq!(delete(false), "RepositoryNotEmptyException");
    let ids = json!({"repositoryName": "app", "imageIds": [{"imageTag": "t"}, {"imageTag": "no"}]});
    let deleted = sandbox.call("BatchDeleteImage", ids).expect("deleted");
    assert_eq!(
        (&deleted["imageIds"][0]["imageTag"], &deleted["failures"][0]["failureCode"]),
        (&json!("t"), &json!("ImageNotFound"))
    );
    assert_eq!(delete(false), "");
    assert_eq!(delete(true), "RepositoryNotFoundException");
    Ok(())
}

#[test]
fn repository_exists() -> Tested {
    let sandbox = Sandbox::with_repository("MUTABLE")?;
    assert_eq!(sandbox.fails("CreateRepository", json!({"repositoryName": "app"})), "RepositoryAlreadyExistsException");
    for bad in ["A", "a", "a//b", "-a", "a-", "a..b"] {
        assert_eq!(
            sandbox.fails("CreateRepository", json!({"repositoryName": bad})),
            "InvalidParameterException",
            "{bad}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn repository_unknown() -> Tested {
    let sandbox = Sandbox::with_repository("MUTABLE")?;
    assert_eq!(sandbox.send("POST", "/v2/no/blobs/uploads/", &[], b"").await.code(), refused(404, "NAME_UNKNOWN"));
    assert_eq!(sandbox.fails("DescribeImages", json!({"repositoryName": "no"})), "RepositoryNotFoundException");
    Ok(())
}

#[tokio::test]
async fn token() -> Tested {
    let sandbox = Sandbox::new()?;
    let with = async |value: String| sandbox.send("GET", "/v2/", &[("authorization", &value)], b"").await;
    let basic = |pair: String| format!("Basic {}", STANDARD.encode(pair));
    assert_eq!(with(sandbox.authorization()).await.status, 200);
    assert_eq!(with(basic("AWS:made up".into())).await.code(), refused(403, "DENIED"));
    assert_eq!(
        with(basic(format!("AWS:{}", token::sign("us-east-1", now_ms() - 1)))).await.code(),
        refused(403, "DENIED")
    );
    let request = Request::builder().uri("/v2/").body(Body::empty()).expect("a request");
    let response = registry(Arc::clone(&sandbox.shared), request).await;
    assert_eq!(response.status(), 401);
    assert!(response.headers().contains_key("www-authenticate"));
    Ok(())
}

#[tokio::test]
async fn part_too_small() -> Tested {
    let sandbox = Sandbox::with_repository("MUTABLE")?;
    let at = sandbox.send("POST", "/v2/app/blobs/uploads/", &[], b"").await.header("location");
    assert_eq!(sandbox.send("PATCH", &at, &[("content-range", "0-3")], b"0123").await.status, 201);
    let reply = sandbox.send("PATCH", &at, &[("content-range", "4-7")], b"4567").await;
    assert_eq!(reply.code(), refused(400, "BLOB_UPLOAD_INVALID"));
    Ok(())
}

#[tokio::test]
async fn patch_201() -> Tested {
    let sandbox = Sandbox::with_repository("MUTABLE")?;
    let at = sandbox.send("POST", "/v2/app/blobs/uploads/", &[], b"").await.header("location");
    let first = vec![7; 5 << 20];
    let last = first.len() - 1;
    let reply = sandbox.send("PATCH", &at, &[("content-range", &format!("0-{last}"))], &first).await;
    assert_eq!((reply.status, reply.header("range")), (201, format!("0-{last}")));
    let reply = sandbox.send("PATCH", &at, &[], b"more").await;
    assert_eq!((reply.status, reply.header("range")), (201, format!("0-{last}")), "Range stays");
    let reply = sandbox.send("PATCH", &at, &[("content-range", "0-3")], b"more").await;
    assert_eq!(reply.code(), refused(416, "BLOB_UPLOAD_INVALID"));
    let digest = manifest::digest(&[&first[..], b"more"].concat());
    assert_eq!(sandbox.send("PUT", &format!("{at}?digest={digest}"), &[], b"").await.status, 201);
    let reply =
        sandbox.send("GET", &format!("/v2/app/blobs/{digest}"), &[("range", "bytes=5242879-5242881")], b"").await;
    assert_eq!((reply.status, reply.body), (206, vec![7, b'm', b'o']));
    Ok(())
}

#[tokio::test]
async fn references_are_resolved() -> Tested {
    let sandbox = Sandbox::with_repository("MUTABLE")?;
    let image = sandbox.image("one").await;
    assert_eq!(sandbox.put(&image, "t"), "");
    let digest = manifest::digest(image.as_bytes());
    let world = sandbox.shared.world.lock();
    let found = Some((manifest::DOCKER.to_owned(), digest.clone(), image));
    for host in ["127.0.0.1:4599", "123456789012.dkr.ecr.us-east-1.amazonaws.com"] {
        assert_eq!(image_of(&world, "us-east-1", &format!("{host}/app:t")), found);
        assert_eq!(image_of(&world, "us-east-1", &format!("{host}/app@{digest}")), found);
        assert_eq!(image_of(&world, "us-east-1", &format!("{host}/app")), None);
        assert_eq!(image_of(&world, "eu-west-1", &format!("{host}/app:t")), None);
    }
    assert_eq!(image_of(&world, "us-east-1", "docker.io/app:t"), None);
    Ok(())
}

#[tokio::test]
async fn layers_have_urls_and_survive_a_restart() -> Tested {
    let sandbox = Sandbox::with_repository("MUTABLE")?;
    let digest = sandbox.layer(b"content").await;
    let input = json!({"repositoryName": "app", "layerDigest": digest});
    let url = sandbox.call("GetDownloadUrlForLayer", input).expect("a URL")["downloadUrl"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let target = url.strip_prefix("http://127.0.0.1:4599").unwrap_or_default();
    assert_eq!(sandbox.send("GET", target, &[("authorization", "")], b"").await.body, b"content");
    let forged = target.replace("us-east-1", "eu-west-1");
    assert_eq!(sandbox.send("GET", &forged, &[], b"").await.code(), refused(403, "DENIED"));
    let orphan = layer_dir(&sandbox.shared.dir).join("orphan");
    std::fs::write(&orphan, "")?;
    sweep(&sandbox.shared.world.lock());
    assert!(!orphan.exists());
    assert_eq!(sandbox.send("GET", target, &[], b"").await.status, 200);
    Ok(())
}

#[test]
fn wildcards() {
    assert!(wildcard("build-*", "build-1") && wildcard("*", "") && wildcard("a*c*e", "abcde"));
    assert!(!wildcard("build-*", "c-1") && !wildcard("a", "ab"));
}
