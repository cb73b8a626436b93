//! The gate between what a builder pushed and what is deployed.

use super::manifest::{Verdict, check, check_config, config_digest, digest};
use crate::cloud::{Images, Manifest, Written};
use crate::error::{Error, Result};

/// Reads what is under `reference` (a build tag or a digest), repairs it where only the media types are wrong, checks it,
/// and puts it under `final_tag`; a build tag is removed afterwards. Returns the digest to deploy.
///
/// When `final_tag` exists already (another run was faster), its digest is taken: final tags exist for verified images
/// only.
///
/// # Errors
/// The image is not there; SageMaker would refuse it, with the reason; a call failed.
pub async fn gate(images: &dyn Images, repository: &str, reference: &str, final_tag: &str) -> Result<String> {
    let verified = verify(images, repository, reference).await;
    let result = match verified {
        Ok(manifest) => publish(images, repository, final_tag, &manifest).await,
        Err(error) => Err(error),
    };
    if !reference.starts_with("sha256:") {
        // A build tag that stays is expired by the repository's lifecycle; not worth failing for.
        if let Err(cause) = images.delete_tags(repository, &[reference.to_owned()]).await {
            tracing::debug!(%cause, reference, "the build tag stays");
        }
    }
    result
}

/// Follows an index to its image, repairs, and checks manifest and config.
async fn verify(images: &dyn Images, repository: &str, reference: &str) -> Result<Manifest> {
    let refuse = |reason: String| {
        Error::failed(format!("the image {repository} ({reference}) cannot be used"))
            .why(reason)
            .next("SageMaker takes Docker v2 schema 2 images for linux/amd64 with gzip layers and an ENTRYPOINT")
    };
    let mut manifest = read(images, repository, reference).await?;
    if let Verdict::Index(child) = check(&manifest) {
        manifest = read(images, repository, &child).await?;
    }
    let manifest = match check(&manifest) {
        Verdict::Ok => manifest,
        Verdict::Repair(repaired) => repaired,
        Verdict::Index(_) => return Err(refuse("it is an index of an index".into())),
        Verdict::Refuse(reason) => return Err(refuse(reason)),
    };
    let named = config_digest(&manifest).ok_or_else(|| refuse("its manifest names no image config".into()))?;
    let config = images.blob(repository, &named).await?;
    if digest(&config) != named {
        return Err(refuse(format!("its config {named} arrived damaged")));
    }
    check_config(&config).map_err(refuse)?;
    Ok(manifest)
}

async fn read(images: &dyn Images, repository: &str, reference: &str) -> Result<Manifest> {
    images.manifest(repository, reference).await?.ok_or_else(|| {
        Error::failed(format!("the image {repository} has no {reference} in the registry"))
            .why("the container tool said that it pushed it")
            .next("run the command again; if it stays so, compare the registry of the push with the repository's URI")
    })
}

async fn publish(images: &dyn Images, repository: &str, tag: &str, manifest: &Manifest) -> Result<String> {
    match images.put_manifest(repository, tag, manifest).await? {
        (Written::Created, digest) => Ok(digest),
        (Written::AlreadyThere, digest) => {
            // Asked again: an adapter may only know the digest of what it tried to put.
            let there = images.manifest(repository, tag).await?;
            Ok(there.map_or(digest, |manifest| manifest.digest))
        }
    }
}

#[cfg(test)]
mod tests;
