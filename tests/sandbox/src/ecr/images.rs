//! Images and layers of a repository.

use serde_json::{Value, json};

use super::manifest::{self, Manifest};
use super::{Image, Repository, invalid, repositories, token};
use crate::world::{ACCOUNT, Answer, ApiError, Ctx, World, epoch};

/// How long a layer's URL works, in milliseconds.
const URL_LIFETIME: i64 = 60 * 60 * 1000;

/// Why an image is not taken.
#[derive(Debug, PartialEq)]
pub enum Refused {
    /// The manifest cannot be read, or is of an unknown kind.
    Invalid(String),
    /// Not the digest it was sent with.
    Digest(String),
    /// These are not in the repository.
    Layers(Vec<String>),
    /// An index names these, which are not in the repository.
    Children(Vec<String>),
    /// The tag stays on another image.
    Immutable(String),
    /// The same image has the tag already.
    Exists(String),
}

/// Stores a manifest under its digest, and a tag on it.
pub fn put(
    repository: &mut Repository,
    body: &str,
    media_type: Option<&str>,
    digest: Option<&str>,
    tag: Option<&str>,
    now: i64,
) -> Result<Manifest, Refused> {
    let manifest = manifest::parse(body, media_type).map_err(Refused::Invalid)?;
    if digest.is_some_and(|d| d != manifest.digest) {
        return Err(Refused::Digest(manifest.digest));
    }
    let missing = |wanted: &[String], there: &dyn Fn(&String) -> bool| -> Vec<String> {
        wanted.iter().filter(|d| !there(d)).cloned().collect()
    };
    let layers = missing(&manifest.blobs, &|d| repository.layers.contains_key(d));
    if !layers.is_empty() {
        return Err(Refused::Layers(layers));
    }
    let children = missing(&manifest.children, &|d| repository.images.contains_key(d));
    if !children.is_empty() {
        return Err(Refused::Children(children));
    }
    match tag.and_then(|tag| Some((tag, repository.image_tags.get(tag)?))) {
        Some((_, current)) if *current == manifest.digest => return Err(Refused::Exists(manifest.digest)),
        Some((tag, _)) if repository.immutable(tag) => return Err(Refused::Immutable(tag.to_owned())),
        None if tag.is_none() && repository.images.contains_key(&manifest.digest) => {
            return Err(Refused::Exists(manifest.digest));
        }
        _ => {}
    }
    let image =
        Image { media_type: manifest.media_type.clone(), body: body.to_owned(), pushed: now, size: manifest.size };
    repository.images.entry(manifest.digest.clone()).or_insert(image);
    if let Some(tag) = tag {
        repository.image_tags.insert(tag.to_owned(), manifest.digest.clone());
    }
    Ok(manifest)
}

/// One operation.
pub fn call(world: &mut World, ctx: &Ctx, operation: &str, input: &Value) -> Answer {
    let url = world.url.clone();
    let name = input["repositoryName"].as_str().unwrap_or_default();
    let repository = repositories::find(world, &ctx.region, name)?;
    match operation {
        "PutImage" => put_image(repository, ctx, name, input),
        "BatchGetImage" => batch_get(repository, name, input),
        "BatchDeleteImage" => batch_delete(repository, input),
        "DescribeImages" => describe(repository, name, input),
        "ListImages" => list(repository, input),
        "BatchCheckLayerAvailability" => {
            let digests = input["layerDigests"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let layer = |digest: &str| match repository.layers.get(digest) {
                Some(size) => json!({"layerDigest": digest, "layerAvailability": "AVAILABLE", "layerSize": size}),
                None => json!({"layerDigest": digest, "layerAvailability": "UNAVAILABLE"}),
            };
            Ok(json!({"layers": digests.map(layer).collect::<Vec<_>>(), "failures": []}))
        }
        _ => {
            let digest = input["layerDigest"].as_str().unwrap_or_default();
            if !repository.layers.contains_key(digest) {
                return Err(ApiError::new(
                    "LayerInaccessibleException",
                    format!("The layer with digest '{digest}' is not in the repository with name '{name}'"),
                ));
            }
            let signed = token::sign(&format!("{}/{digest}", ctx.region), ctx.now + URL_LIFETIME);
            Ok(json!({"layerDigest": digest, "downloadUrl": format!("{url}/v2/_layer?{signed}")}))
        }
    }
}

fn put_image(repository: &mut Repository, ctx: &Ctx, name: &str, input: &Value) -> Answer {
    let body = input["imageManifest"].as_str().ok_or_else(|| invalid("Missing required parameter: imageManifest"))?;
    let tag = input["imageTag"].as_str();
    if tag.is_some_and(|t| !valid_tag(t)) {
        return Err(invalid("Invalid parameter at 'imageTag' failed to satisfy constraint"));
    }
    let (kind, digest) = (input["imageManifestMediaType"].as_str(), input["imageDigest"].as_str());
    let manifest = put(repository, body, kind, digest, tag, ctx.now).map_err(|refused| match refused {
        Refused::Invalid(why) => {
            invalid(format!("Invalid parameter at 'ImageManifest' failed to satisfy constraint: '{why}'"))
        }
        Refused::Digest(actual) => ApiError::new(
            "ImageDigestDoesNotMatchException",
            format!("The digest of the image manifest is {actual}"),
        ),
        Refused::Layers(missing) => ApiError::new(
            "LayersNotFoundException",
            format!("Image requires Layer(s) '[{}]' which could not be found in the repository", missing.join(", ")),
        ),
        Refused::Children(missing) => ApiError::new(
            "ReferencedImagesNotFoundException",
            format!("Images with digests '[{}]' required for pushing image into repository with name '{name}' in the registry with id '{ACCOUNT}' do not exist", missing.join(", ")),
        ),
        Refused::Immutable(tag) => ApiError::new("ImageTagAlreadyExistsException", immutable_message(name, &tag)),
        Refused::Exists(digest) => ApiError::new(
            "ImageAlreadyExistsException",
            format!("Image with digest '{digest}' and tag '{}' already exists in the repository with name '{name}' in registry with id '{ACCOUNT}'", tag.unwrap_or("null")),
        ),
    })?;
    let image = repository.images.get(&manifest.digest).cloned().unwrap_or_default();
    Ok(json!({"image": image_json(name, &manifest.digest, tag, &image)}))
}

/// What both the API and the registry say.
pub fn immutable_message(name: &str, tag: &str) -> String {
    format!(
        "The image tag '{tag}' already exists in the '{name}' repository and cannot be overwritten because the tag is immutable."
    )
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
pub fn valid_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128 && tag.chars().next().is_some_and(word) && tag.chars().all(|c| word(c) || c == '.' || c == '-')
}

fn image_json(name: &str, digest: &str, tag: Option<&str>, image: &Image) -> Value {
    let mut id = json!({"imageDigest": digest});
    if let Some(tag) = tag {
        id["imageTag"] = json!(tag);
    }
    json!({
        "registryId": ACCOUNT,
        "repositoryName": name,
        "imageId": id,
        "imageManifest": image.body,
        "imageManifestMediaType": image.media_type,
    })
}

/// The image that an id names, or the failure in the API's words.
fn resolve<'a>(repository: &'a Repository, id: &Value) -> Result<(&'a str, &'a Image), Value> {
    let failure = |code: &str, reason: &str| json!({"imageId": id, "failureCode": code, "failureReason": reason});
    let (digest, tag) = (id["imageDigest"].as_str(), id["imageTag"].as_str());
    let Some(wanted) = digest.or(tag) else {
        return Err(failure("MissingDigestAndTag", "Invalid request parameters: both tag and digest cannot be null"));
    };
    if digest.is_some_and(|d| !d.starts_with("sha256:") || d.len() != 71) {
        return Err(failure(
            "InvalidImageDigest",
            "Invalid request parameters: image digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'",
        ));
    }
    let found = repository.find(wanted).ok_or_else(|| failure("ImageNotFound", "Requested image not found"))?;
    if digest.is_some() && tag.is_some_and(|t| repository.image_tags.get(t).map(String::as_str) != digest) {
        return Err(failure("ImageTagDoesNotMatchDigest", "Tag does not match digest"));
    }
    Ok(found)
}

fn ids(input: &Value) -> Result<&Vec<Value>, ApiError> {
    input["imageIds"]
        .as_array()
        .filter(|ids| (1..=100).contains(&ids.len()))
        .ok_or_else(|| invalid("Invalid parameter at 'imageIds': 1 to 100 are expected"))
}

fn batch_get(repository: &Repository, name: &str, input: &Value) -> Answer {
    let accepted: Vec<_> = input["acceptedMediaTypes"].as_array().into_iter().flatten().collect();
    let (mut images, mut failures) = (Vec::new(), Vec::new());
    for id in ids(input)? {
        match resolve(repository, id) {
            Ok((_, image)) if !accepted.is_empty() && !accepted.contains(&&json!(image.media_type)) => {
                failures.push(json!({
                    "imageId": id,
                    "failureCode": "ImageNotFound",
                    "failureReason": "Requested image not found in any of the accepted media types",
                }));
            }
            Ok((digest, image)) => images.push(image_json(name, digest, id["imageTag"].as_str(), image)),
            Err(failure) => failures.push(failure),
        }
    }
    Ok(json!({"images": images, "failures": failures}))
}

fn batch_delete(repository: &mut Repository, input: &Value) -> Answer {
    let (mut deleted, mut failures) = (Vec::new(), Vec::new());
    for id in ids(input)? {
        let digest = match resolve(repository, id) {
            Ok((digest, _)) => digest.to_owned(),
            Err(failure) => {
                failures.push(failure);
                continue;
            }
        };
        let referrers = repository
            .images
            .iter()
            .filter(|(_, i)| manifest::parse(&i.body, Some(&i.media_type)).is_ok_and(|m| m.children.contains(&digest)));
        let referrers: Vec<_> = referrers.map(|(d, _)| d.clone()).collect();
        // A tag goes alone while the image has others.
        let alone = id["imageDigest"].is_null() && repository.tags_of(&digest).len() > 1;
        if !alone && !referrers.is_empty() {
            failures.push(json!({
                "imageId": id,
                "failureCode": "ImageReferencedByManifestList",
                "failureReason": format!("Requested image referenced by manifest list: [{}]", referrers.join(", ")),
            }));
            continue;
        }
        if alone {
            let tag = id["imageTag"].as_str().unwrap_or_default();
            repository.image_tags.remove(tag);
            deleted.push(json!({"imageDigest": digest, "imageTag": tag}));
            continue;
        }
        let tags: Vec<_> = repository.tags_of(&digest).into_iter().map(str::to_owned).collect();
        if tags.is_empty() {
            deleted.push(json!({"imageDigest": digest}));
        }
        for tag in tags {
            repository.image_tags.remove(&tag);
            deleted.push(json!({"imageDigest": digest, "imageTag": tag}));
        }
        remove(repository, &digest);
    }
    Ok(json!({"imageIds": deleted, "failures": failures}))
}

/// Removes an image and the layers that only it used. Their files go at the next start.
fn remove(repository: &mut Repository, digest: &str) {
    let blobs =
        |image: &Image| manifest::parse(&image.body, Some(&image.media_type)).map(|m| m.blobs).unwrap_or_default();
    let Some(image) = repository.images.remove(digest) else { return };
    let used: Vec<_> = repository.images.values().flat_map(blobs).collect();
    for blob in blobs(&image).into_iter().filter(|b| !used.contains(b)) {
        repository.layers.remove(&blob);
    }
}

fn describe(repository: &Repository, name: &str, input: &Value) -> Answer {
    let detail = |digest: &str, image: &Image| {
        let mut out = json!({
            "registryId": ACCOUNT,
            "repositoryName": name,
            "imageDigest": digest,
            "imageSizeInBytes": image.size,
            "imagePushedAt": epoch(image.pushed),
            "imageManifestMediaType": image.media_type,
        });
        let tags = repository.tags_of(digest);
        if !tags.is_empty() {
            out["imageTags"] = json!(tags);
        }
        if let Some(kind) = manifest::parse(&image.body, Some(&image.media_type)).ok().and_then(|m| m.artifact_type) {
            out["artifactMediaType"] = json!(kind);
        }
        out
    };
    if let Some(ids) = input["imageIds"].as_array().filter(|ids| !ids.is_empty()) {
        let one = |id: &Value| match resolve(repository, id) {
            Ok((digest, image)) => Ok(detail(digest, image)),
            Err(_) => {
                let text = |v: &Value| v.as_str().map_or("null".to_owned(), |t| format!("'{t}'"));
                Err(ApiError::new(
                    "ImageNotFoundException",
                    format!(
                        "The image with imageId {{imageDigest:{}, imageTag:{}}} does not exist within the repository with name '{name}' in the registry with id '{ACCOUNT}'",
                        text(&id["imageDigest"]),
                        text(&id["imageTag"])
                    ),
                ))
            }
        };
        return Ok(json!({"imageDetails": ids.iter().map(one).collect::<Result<Vec<_>, _>>()?}));
    }
    let wanted = |digest: &str| match input["filter"]["tagStatus"].as_str() {
        Some("TAGGED") => !repository.tags_of(digest).is_empty(),
        Some("UNTAGGED") => repository.tags_of(digest).is_empty(),
        _ => true,
    };
    let all = repository.images.iter().filter(|(d, _)| wanted(d)).map(|(d, i)| (d.clone(), detail(d, i)));
    repositories::page(input, all.collect(), "imageDetails", 100)
}

fn list(repository: &Repository, input: &Value) -> Answer {
    let mut all = Vec::new();
    let status = input["filter"]["tagStatus"].as_str().unwrap_or("ANY");
    for digest in repository.images.keys() {
        let tags = repository.tags_of(digest);
        if tags.is_empty() && status != "TAGGED" {
            all.push((digest.clone(), json!({"imageDigest": digest})));
        }
        for tag in tags.iter().filter(|_| status != "UNTAGGED") {
            all.push((format!("{digest} {tag}"), json!({"imageDigest": digest, "imageTag": tag})));
        }
    }
    repositories::page(input, all, "imageIds", 100)
}
