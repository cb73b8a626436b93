//! ECR.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_sdk_ecr::types::{ImageFailureCode, ImageIdentifier, ImageTagMutability};
use base64::Engine;
use bytes::{Bytes, BytesMut};

use super::connect::is_loopback_http;
use super::errors::{Context, causes, code, is_missing, message};
use crate::cloud::{Images, Manifest, Map, RegistryLogin, Repository, Written};
use crate::error::{Error, Result, ServiceError};

/// What is accepted from BatchGetImage: without the list ECR converts or refuses.
const MEDIA_TYPES: [&str; 4] = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
];
/// An image config is some ten kilobytes; more than this is not one, in bytes.
const BLOB_LIMIT: usize = 4 << 20;
/// For a small download.
const BLOB_TIMEOUT: Duration = Duration::from_secs(60);

/// [`Images`] on ECR.
pub(super) struct Ecr {
    client: aws_sdk_ecr::Client,
    http: reqwest::Client,
    context: Arc<Context>,
}

impl Ecr {
    pub(super) fn new(client: aws_sdk_ecr::Client, context: Arc<Context>) -> Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .timeout(BLOB_TIMEOUT)
            .build()
            .map_err(|e| Error::failed("cannot set up the HTTP client").why(causes(&e)))?;
        Ok(Ecr { client, http, context })
    }
}

/// `sha256:...` is a digest, everything else a tag (tags cannot contain a colon).
fn identifier(reference: &str) -> ImageIdentifier {
    let builder = ImageIdentifier::builder();
    if reference.contains(':') { builder.image_digest(reference).build() } else { builder.image_tag(reference).build() }
}

/// User and password from an authorization token.
fn decode(token: &str) -> Option<(String, String)> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(token).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[async_trait]
impl Images for Ecr {
    async fn repository(&self, name: &str) -> Result<Option<Repository>> {
        match self.client.describe_repositories().repository_names(name).send().await {
            Ok(answer) => Ok(answer.repositories.unwrap_or_default().into_iter().next().map(|r| Repository {
                arn: r.repository_arn.unwrap_or_default(),
                uri: r.repository_uri.unwrap_or_default(),
                immutable: matches!(
                    r.image_tag_mutability,
                    Some(ImageTagMutability::Immutable | ImageTagMutability::ImmutableWithExclusion)
                ),
            })),
            Err(e) if code(&e) == "RepositoryNotFoundException" => Ok(None),
            Err(e) => {
                Err(self.context.explain("ecr:DescribeRepositories", format!("cannot look at repository {name}"), &e))
            }
        }
    }

    async fn repository_tags(&self, arn: &str) -> Result<Map> {
        let answer = self.client.list_tags_for_resource().resource_arn(arn).send().await;
        let answer = answer.map_err(|e| {
            self.context.explain("ecr:ListTagsForResource", format!("cannot read the tags of {arn}"), &e)
        })?;
        Ok(answer.tags.unwrap_or_default().into_iter().map(|t| (t.key, t.value)).collect())
    }

    async fn manifest(&self, repository: &str, reference: &str) -> Result<Option<Manifest>> {
        let what = || format!("cannot read image {reference} of repository {repository}");
        let answer = self
            .client
            .batch_get_image()
            .repository_name(repository)
            .image_ids(identifier(reference))
            .set_accepted_media_types(Some(MEDIA_TYPES.map(str::to_owned).to_vec()))
            .send()
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(e) if code(&e) == "RepositoryNotFoundException" => return Ok(None),
            Err(e) => return Err(self.context.explain("ecr:BatchGetImage", what(), &e)),
        };
        if let Some(image) = answer.images.unwrap_or_default().into_iter().next() {
            let id = image.image_id.unwrap_or_else(|| ImageIdentifier::builder().build());
            let (Some(digest), Some(body)) = (id.image_digest, image.image_manifest) else {
                return Err(Error::failed(what()).why("ECR answered without a digest or manifest"));
            };
            let media_type = image.image_manifest_media_type.unwrap_or_else(|| media_type_of(&body));
            return Ok(Some(Manifest { digest, media_type, body }));
        }
        match answer.failures.unwrap_or_default().into_iter().next() {
            None => Ok(None),
            Some(failure) if failure.failure_code == Some(ImageFailureCode::ImageNotFound) => Ok(None),
            Some(failure) => Err(Error::service(
                what(),
                ServiceError {
                    operation: "ecr:BatchGetImage".into(),
                    code: failure.failure_code.map(|c| c.as_str().to_owned()).unwrap_or_default(),
                    message: failure.failure_reason.unwrap_or_default(),
                    ..ServiceError::default()
                },
            )),
        }
    }

    async fn put_manifest(&self, repository: &str, tag: &str, manifest: &Manifest) -> Result<(Written, String)> {
        let what = || format!("cannot put tag {tag} into repository {repository}");
        let answer = self
            .client
            .put_image()
            .repository_name(repository)
            .image_tag(tag)
            .image_manifest(&manifest.body)
            .image_manifest_media_type(&manifest.media_type)
            .send()
            .await;
        match answer {
            Ok(answer) => {
                let digest = answer.image.and_then(|i| i.image_id).and_then(|id| id.image_digest);
                let digest = digest.unwrap_or_else(|| manifest.digest.clone());
                Ok((Written::Created, digest))
            }
            // The same manifest under the same tag, or another one under an immutable tag: what is there has its own digest.
            Err(e) if matches!(code(&e).as_str(), "ImageAlreadyExistsException" | "ImageTagAlreadyExistsException") => {
                match self.manifest(repository, tag).await? {
                    Some(there) => Ok((Written::AlreadyThere, there.digest)),
                    None => Err(self.context.explain("ecr:PutImage", what(), &e)),
                }
            }
            Err(e) => Err(self.context.explain("ecr:PutImage", what(), &e)),
        }
    }

    async fn blob(&self, repository: &str, digest: &str) -> Result<Option<Bytes>> {
        let what = || format!("cannot read {digest} of repository {repository}");
        let call = self.client.get_download_url_for_layer().repository_name(repository).layer_digest(digest);
        // An implementation that lacks it may say so with a 500, which is not worth a minute of repeating.
        let few = aws_sdk_ecr::Config::builder().retry_config(RetryConfig::standard());
        let answer = match call.customize().config_override(few).send().await {
            Ok(answer) => answer,
            Err(e) if is_missing(&e) => {
                tracing::debug!("this ECR hands out no layers: {}", message(&e));
                return Ok(None);
            }
            Err(e) => return Err(self.context.explain("ecr:GetDownloadUrlForLayer", what(), &e)),
        };
        let url = answer.download_url.ok_or_else(|| Error::failed(what()).why("ECR answered without an URL"))?;
        if !url.starts_with("https://") && !is_loopback_http(&url) {
            return Err(Error::failed(what()).why("ECR answered with an URL that is not https"));
        }
        // The URL is signed, so it must not appear in a message.
        let lost = |e: reqwest::Error| {
            self.context.unreachable("ecr:GetDownloadUrlForLayer", what(), causes(&e.without_url()))
        };
        let mut answer =
            self.http.get(&url).send().await.and_then(reqwest::Response::error_for_status).map_err(lost)?;
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(lost)? {
            if body.len() + chunk.len() > BLOB_LIMIT {
                return Err(
                    Error::failed(what()).why(format!("it is larger than {BLOB_LIMIT} bytes, so no image config"))
                );
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Some(body.freeze()))
    }

    async fn login(&self) -> Result<RegistryLogin> {
        const WHAT: &str = "cannot log in to ECR";
        let answer = self
            .client
            .get_authorization_token()
            .send()
            .await
            .map_err(|e| self.context.explain("ecr:GetAuthorizationToken", WHAT, &e))?;
        let data = answer.authorization_data.unwrap_or_default().into_iter().next();
        let login = data.and_then(|data| {
            let (user, password) = decode(data.authorization_token.as_deref()?)?;
            Some(RegistryLogin { endpoint: data.proxy_endpoint?, user, password })
        });
        login.ok_or_else(|| Error::failed(WHAT).why("ECR answered without a usable token"))
    }

    async fn delete_tags(&self, repository: &str, tags: &[String]) -> Result<()> {
        let what = || format!("cannot delete tags of repository {repository}");
        // BatchDeleteImage takes at most 100.
        for tags in tags.chunks(100) {
            let ids = tags.iter().map(|tag| ImageIdentifier::builder().image_tag(tag).build()).collect();
            let answer =
                self.client.batch_delete_image().repository_name(repository).set_image_ids(Some(ids)).send().await;
            let answer = match answer {
                Ok(answer) => answer,
                Err(e) if code(&e) == "RepositoryNotFoundException" => return Ok(()),
                Err(e) => return Err(self.context.explain("ecr:BatchDeleteImage", what(), &e)),
            };
            let real = answer.failures.unwrap_or_default().into_iter().find(|f| {
                !matches!(
                    f.failure_code,
                    Some(ImageFailureCode::ImageNotFound | ImageFailureCode::ImageTagDoesNotMatchDigest)
                )
            });
            if let Some(failure) = real {
                return Err(Error::failed(what()).why(failure.failure_reason.unwrap_or_default()));
            }
        }
        Ok(())
    }
}

/// The media type a manifest names itself; OCI manifests need not.
fn media_type_of(body: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    match json.get("mediaType").and_then(|m| m.as_str()) {
        Some(media_type) => media_type.to_owned(),
        None if json.get("manifests").is_some() => MEDIA_TYPES[3].to_owned(),
        None => MEDIA_TYPES[2].to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_user_and_password() {
        // `AWS:a:b`: only the first colon separates.
        assert_eq!(decode("QVdTOmE6Yg=="), Some(("AWS".into(), "a:b".into())));
        assert_eq!(decode("QVdT"), None);
        assert_eq!(decode("%"), None);
    }

    #[test]
    fn references_are_tags_or_digests() {
        assert_eq!(identifier("c-12").image_tag(), Some("c-12"));
        assert_eq!(identifier("sha256:12").image_digest(), Some("sha256:12"));
        assert_eq!(identifier("sha256:12").image_tag(), None);
    }

    #[test]
    fn a_manifest_without_a_type_is_oci() {
        assert_eq!(media_type_of("{\"mediaType\":\"x\"}"), "x");
        assert_eq!(media_type_of("{\"manifests\":[]}"), "application/vnd.oci.image.index.v1+json");
        assert_eq!(media_type_of("{\"layers\":[]}"), "application/vnd.oci.image.manifest.v1+json");
    }
}
