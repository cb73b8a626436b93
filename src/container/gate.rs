//! The gate between what a builder pushed and what is deployed.

use super::manifest::{Verdict, check, check_config, config_digest, digest};
use crate::cloud::{Images, Manifest, Written};
use crate::error::{Error, Result};

/// What becomes of an image that has the final tag already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is taken instead of the new one: another run was faster.
    Take,
    /// The tag moves to the new one; the old one gets the tag of [`earlier_tag`], for an endpoint may still start
    /// instances from it.
    MoveTag,
}

/// The tag of an image that lost `tag` to a newer one: never expired, as `tag` itself.
pub fn earlier_tag(tag: &str, digest: &str) -> String {
    let hex = digest.trim_start_matches("sha256:");
    format!("{tag}-{}", hex.get(..8).unwrap_or(hex))
}

/// Judges a prebuilt image in our own registry without changing anything, and returns the digest of the image for
/// linux/amd64. `None` when it is not there. An image whose digest is `trusted` was judged before.
///
/// # Errors
/// [`crate::error::Kind::Usage`] when SageMaker would refuse it, with the reason.
pub async fn inspect(
    images: &dyn Images,
    repository: &str,
    reference: &str,
    trusted: Option<&str>,
) -> Result<Option<String>> {
    let refuse = |reason: String| {
        Error::usage(format!("SageMaker would refuse the image {repository} ({reference})"))
            .why(reason)
            .next("push it as Docker v2 schema 2 for linux/amd64 with an ENTRYPOINT, as skopeo copy --format v2s2 or docker build --provenance=false does, or let comfy-deploy build it (image.context)")
    };
    let Some(mut manifest) = images.manifest(repository, reference).await? else { return Ok(None) };
    if let Verdict::Index(child) = check(&manifest) {
        manifest = read(images, repository, &child).await?;
    }
    match check(&manifest) {
        Verdict::Ok => {}
        Verdict::Repair(_) => return Err(refuse(format!("it has an OCI manifest ({})", manifest.media_type))),
        Verdict::Index(_) => return Err(refuse("it is an index of an index".into())),
        Verdict::Refuse(reason) => return Err(refuse(reason)),
    }
    if trusted != Some(manifest.digest.as_str()) {
        let named = config_digest(&manifest).ok_or_else(|| refuse("its manifest names no image config".into()))?;
        // Where nobody hands out the config, SageMaker is the one who finds out.
        if let Some(config) = images.blob(repository, &named).await? {
            check_config(&config).map_err(refuse)?;
        }
    }
    Ok(Some(manifest.digest))
}

/// Reads what is under `reference` (a build tag or a digest), repairs it where only the media types are wrong, checks it,
/// and puts it under `final_tag`; a build tag is removed afterwards. Returns the digest to deploy.
///
/// When `final_tag` exists already, `existing` decides: final tags exist for verified images only, so the one that is
/// there can be taken.
///
/// # Errors
/// The image is not there; SageMaker would refuse it, with the reason; a call failed.
pub async fn gate(
    images: &dyn Images,
    repository: &str,
    reference: &str,
    final_tag: &str,
    existing: Existing,
) -> Result<String> {
    let verified = verify(images, repository, reference).await;
    let result = match verified {
        Ok(manifest) => publish(images, repository, final_tag, &manifest, existing).await,
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
    if let Some(config) = images.blob(repository, &named).await? {
        if digest(&config) != named {
            return Err(refuse(format!("its config {named} arrived damaged")));
        }
        check_config(&config).map_err(refuse)?;
    }
    Ok(manifest)
}

async fn read(images: &dyn Images, repository: &str, reference: &str) -> Result<Manifest> {
    images.manifest(repository, reference).await?.ok_or_else(|| {
        Error::failed(format!("the image {repository} has no {reference} in the registry"))
            .why("the container tool said that it pushed it")
            .next("run the command again; if it stays so, compare the registry of the push with the repository's URI")
    })
}

async fn publish(
    images: &dyn Images,
    repository: &str,
    tag: &str,
    manifest: &Manifest,
    existing: Existing,
) -> Result<String> {
    let (written, digest) = images.put_manifest(repository, tag, manifest).await?;
    if written == Written::Created {
        return Ok(digest);
    }
    // Asked again: an adapter may only know the digest of what it tried to put.
    let Some(there) = images.manifest(repository, tag).await? else { return Ok(digest) };
    if there.digest == manifest.digest || existing == Existing::Take {
        return Ok(there.digest);
    }
    // The old image must have another name before it loses this one: deleting an image's last tag deletes the image.
    images.put_manifest(repository, &earlier_tag(tag, &there.digest), &there).await?;
    images.delete_tags(repository, &[tag.to_owned()]).await?;
    let (_, digest) = images.put_manifest(repository, tag, manifest).await?;
    Ok(digest)
}

#[cfg(test)]
mod tests;
