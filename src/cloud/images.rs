//! ECR, as far as we use it.

use async_trait::async_trait;
use bytes::Bytes;

use super::{Map, Written};
use crate::error::Result;

/// An ECR repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Its ARN.
    pub arn: String,
    /// `host/name`.
    pub uri: String,
    /// Whether tags are immutable.
    pub immutable: bool,
}

/// A manifest as the registry keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// `sha256:...`
    pub digest: String,
    /// `application/vnd...`
    pub media_type: String,
    /// The exact bytes.
    pub body: String,
}

/// Push credentials. `Debug` hides the password.
#[derive(Clone)]
pub struct RegistryLogin {
    /// `https://123456789012.dkr.ecr.eu-west-1.amazonaws.com`, or http on loopback.
    pub endpoint: String,
    /// Always `AWS` on ECR.
    pub user: String,
    /// Secret.
    pub password: String,
}

impl std::fmt::Debug for RegistryLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryLogin")
            .field("endpoint", &self.endpoint)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// ECR.
#[async_trait]
pub trait Images: Send + Sync {
    /// DescribeRepositories.
    async fn repository(&self, name: &str) -> Result<Option<Repository>>;
    /// ListTagsForResource of a repository's ARN.
    async fn repository_tags(&self, arn: &str) -> Result<Map>;
    /// BatchGetImage by `tag` or `sha256:...`.
    async fn manifest(&self, repository: &str, reference: &str) -> Result<Option<Manifest>>;
    /// PutImage; [`Written::AlreadyThere`] when the immutable tag exists. Returns the digest as well.
    async fn put_manifest(&self, repository: &str, tag: &str, manifest: &Manifest) -> Result<(Written, String)>;
    /// A blob's bytes (GetDownloadUrlForLayer and one GET); image configs only, they are small. `None` from an
    /// implementation of ECR that does not have the operation.
    async fn blob(&self, repository: &str, digest: &str) -> Result<Option<Bytes>>;
    /// GetAuthorizationToken.
    async fn login(&self) -> Result<RegistryLogin>;
    /// BatchDeleteImage of tags; absent ones are fine.
    async fn delete_tags(&self, repository: &str, tags: &[String]) -> Result<()>;
}
