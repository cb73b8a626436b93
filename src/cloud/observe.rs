//! Reads everything a plan needs, in two rounds of parallel calls. Changes nothing.

use super::{BucketState, Cloud};
use crate::container;
use crate::error::{Error, Kind, Result};
use crate::plan::{APP_TAG, Deployed, Existing, ImageName, Local, LocalImage, LocalModel, World};
use crate::record;
use crate::settings::Settings;
use crate::stack;

/// The part of the world that does not depend on local content. Begun beside the scan of local files.
pub struct Account {
    world: World,
}

/// First round: who we are, the stacks, the endpoint.
///
/// # Errors
/// [`Kind::Access`] in the wrong account; whatever AWS says.
pub async fn account(settings: &Settings, cloud: &Cloud) -> Result<Account> {
    let caller = cloud.identity.caller().await?;
    check_account(settings, &caller.account)?;
    let (service, foundation) = (settings.stack(), settings.foundation());
    let (service, foundation, endpoint) =
        tokio::try_join!(deployed(cloud, &service), deployed(cloud, &foundation), cloud.endpoints.endpoint(&service))?;
    let world = World {
        account: caller.account,
        foundation,
        service,
        bucket: None,
        existing: Vec::new(),
        image: None,
        model_present: false,
        model_bytes: None,
        model_crc64nvme: None,
        function_present: false,
        endpoint,
        config: None,
        scaling: None,
        last_record: 0,
        open_record: None,
    };
    Ok(Account { world })
}

/// Second round: what is there of the wanted content, and the records.
///
/// # Errors
/// [`Kind::Access`] when the bucket is somebody else's; whatever AWS says.
pub async fn content(settings: &Settings, cloud: &Cloud, account: Account, local: &Local) -> Result<World> {
    let mut world = account.world;
    let bucket = stack::bucket_name(settings, &world.account);
    let adopted = settings.config.storage.bucket.is_some();
    let ready = world
        .foundation
        .as_ref()
        .is_some_and(|f| f.stack.status.ends_with("_COMPLETE") && !f.stack.status.starts_with("ROLLBACK"));
    if adopted || !ready {
        // Before the foundation makes it, or when it is the user's, the bucket must be looked at itself.
        world.bucket = Some(bucket_state(cloud, &bucket, adopted).await?);
    }
    let made_anew = world.foundation.as_ref().is_none_or(|f| !f.stack.busy()) && !ready;
    let owned = world.bucket == Some(BucketState::Owned);
    if made_anew {
        world.existing = existing(settings, cloud, (owned && !adopted).then_some(bucket.as_str())).await?;
    }
    if !ready && !owned {
        // No bucket, so nothing in it. What was made elsewhere must be there already: without it the stack would only
        // fail later, and slowly.
        world.model_bytes = external_model(cloud, local).await?.and_then(|found| found.bytes);
        world.image = image(settings, cloud, &world, local).await?;
        return Ok(world);
    }
    let model = async {
        match &local.model {
            LocalModel::Tree { key, .. } => model_marker(cloud, &bucket, key).await,
            LocalModel::External { .. } => external_model(cloud, local).await,
            LocalModel::Keep => Ok(Some(Found::default())),
        }
    };
    let function = async {
        match &local.function {
            Some(f) => Ok(cloud.objects.head(&bucket, &f.key).await?.is_some()),
            None => Ok(true),
        }
    };
    let image = image(settings, cloud, &world, local);
    let stack = settings.stack();
    let records = record::latest(cloud.objects.as_ref(), &bucket, &stack);
    let (model, function, image, records) = tokio::try_join!(model, function, image, records)?;
    world.model_present = model.is_some();
    if let Some(found) = model {
        (world.model_bytes, world.model_crc64nvme) = (found.bytes, found.crc64nvme);
    }
    world.function_present = function;
    world.image = image;
    world.last_record = records.n;
    world.open_record = (!records.ended).then_some(records.n);
    Ok(world)
}

/// What S3 says of a model artifact that is there.
#[derive(Default)]
struct Found {
    /// Bytes of its objects; absent where only its last object was looked at.
    bytes: Option<u64>,
    /// CRC64NVME, base64.
    crc64nvme: Option<String>,
}

/// The model artifact that was made elsewhere; nothing if none is named.
async fn external_model(cloud: &Cloud, local: &Local) -> Result<Option<Found>> {
    let LocalModel::External { bucket, key } = &local.model else { return Ok(None) };
    match model_marker(cloud, bucket, key).await? {
        Some(found) if found.bytes.is_none() => {
            let bytes = cloud.objects.list(bucket, key).await?.iter().map(|object| object.size).sum();
            Ok(Some(Found { bytes: Some(bytes), ..found }))
        }
        Some(found) => Ok(Some(found)),
        None => Err(Error::usage(format!("there is no model artifact s3://{bucket}/{key}"))
            .next("check models.uri, or let comfy-deploy make the artifact from models.dir")),
    }
}

/// The digest of the wanted image, where our own registry has it. A prebuilt one is judged as well, unless it is
/// deployed already.
async fn image(settings: &Settings, cloud: &Cloud, world: &World, local: &Local) -> Result<Option<String>> {
    let uri = match &local.image {
        LocalImage::Keep => return Ok(None),
        LocalImage::Context { tag } => {
            return Ok(cloud.images.manifest(settings.repository(), tag).await?.map(|m| m.digest));
        }
        LocalImage::Prebuilt { uri } => uri,
    };
    let name = ImageName::parse(uri);
    if !own_registry(settings, world, name.host) {
        return Ok(None);
    }
    let deployed = world.service.as_ref().and_then(|s| s.stack.parameters.get("ModelEcrImage"));
    let trusted = deployed.and_then(|image| image.split_once('@')).map(|(_, digest)| digest);
    match container::inspect(cloud.images.as_ref(), name.repository, name.reference, trusted).await? {
        Some(digest) => Ok(Some(digest)),
        None => Err(Error::usage(format!("there is no image {uri} in ECR in this account and region")).next(format!(
            "check image.uri (aws ecr list-images --repository-name {} shows what is there), or leave it out and \
             comfy-deploy builds the image",
            name.repository
        ))),
    }
}

/// Whether images of this host are in ECR of this account and region.
fn own_registry(settings: &Settings, world: &World, host: &str) -> bool {
    let pseudo = world.pseudo("", &settings.region);
    host.is_empty()
        || host == format!("{}.dkr.ecr.{}.{}", pseudo.account, pseudo.region, pseudo.url_suffix)
        || settings.sandbox.as_ref().is_some_and(|url| url.trim_end_matches('/').ends_with(&format!("//{host}")))
}

/// What the foundation stack would make but is there, and whose it is.
async fn existing(settings: &Settings, cloud: &Cloud, bucket: Option<&str>) -> Result<Vec<Existing>> {
    let app = |tags: super::Map| tags.get(APP_TAG).cloned();
    let bucket = async {
        let Some(name) = bucket else { return Ok(None) };
        let tags = cloud.objects.bucket_tags(name).await?;
        Ok(Some(Existing { what: "bucket", name: name.to_owned(), app: app(tags) }))
    };
    let repository = async {
        let name = settings.repository();
        let Some(found) = cloud.images.repository(name).await? else { return Ok(None) };
        let tags = cloud.images.repository_tags(&found.arn).await?;
        Ok::<_, Error>(Some(Existing { what: "repository", name: name.to_owned(), app: app(tags) }))
    };
    let (bucket, repository) = tokio::try_join!(bucket, repository)?;
    Ok(bucket.into_iter().chain(repository).collect())
}

/// What `status` shows beyond a plan's needs: the live config and the scalable target.
///
/// # Errors
/// Whatever AWS says.
pub async fn details(cloud: &Cloud, world: &mut World) -> Result<()> {
    let Some(endpoint) = &world.endpoint else { return Ok(()) };
    let variant = endpoint.variants.first().map_or("AllTraffic", |v| v.name.as_str());
    let (config, scaling) =
        tokio::try_join!(cloud.endpoints.config(&endpoint.config), cloud.scaling.target(&endpoint.name, variant))?;
    world.config = config;
    world.scaling = scaling;
    Ok(())
}

/// The artifact, if it is there. A prefix that we made is complete when its content manifest, which is written last, is
/// there.
async fn model_marker(cloud: &Cloud, bucket: &str, key: &str) -> Result<Option<Found>> {
    let Some(prefix) = key.strip_suffix('/') else {
        let head = cloud.objects.head(bucket, key).await?;
        return Ok(head.map(|h| Found { bytes: Some(h.size), crc64nvme: h.crc64nvme }));
    };
    match prefix.strip_suffix("/files").filter(|p| p.starts_with("models/")) {
        Some(ours) => Ok(cloud.objects.head(bucket, &format!("{ours}/manifest.json")).await?.map(|_| Found::default())),
        None => {
            let objects = cloud.objects.list(bucket, key).await?;
            let bytes = objects.iter().map(|object| object.size).sum();
            Ok((!objects.is_empty()).then_some(Found { bytes: Some(bytes), crc64nvme: None }))
        }
    }
}

async fn deployed(cloud: &Cloud, name: &str) -> Result<Option<Deployed>> {
    let Some(stack) = cloud.stacks.stack(name).await? else { return Ok(None) };
    let body = match stack.status.as_str() {
        // An empty shell has no template worth comparing with.
        "REVIEW_IN_PROGRESS" | "ROLLBACK_COMPLETE" | "ROLLBACK_FAILED" | "CREATE_FAILED" | "DELETE_FAILED"
        | "DELETE_IN_PROGRESS" => String::new(),
        _ => cloud.stacks.template(name).await?,
    };
    Ok(Some(Deployed { stack, body }))
}

async fn bucket_state(cloud: &Cloud, bucket: &str, adopted: bool) -> Result<BucketState> {
    let state = cloud.objects.bucket(bucket).await?;
    match state {
        BucketState::Owned => {}
        BucketState::Absent if !adopted => {}
        BucketState::Absent => {
            return Err(Error::usage(format!("storage.bucket names {bucket}, which does not exist"))
                .next("create it, or leave storage.bucket out and the foundation stack makes one"));
        }
        BucketState::Forbidden => {
            return Err(Error::new(
                Kind::Access,
                format!("the bucket {bucket} belongs to somebody else, or may not be looked at"),
            )
            .next("choose another with storage.bucket, or another app name"));
        }
        BucketState::Elsewhere => {
            return Err(Error::usage(format!("the bucket {bucket} is in another region"))
                .next("SageMaker needs the model artifact in the endpoint's region: choose a bucket there"));
        }
    }
    Ok(state)
}

/// Refuses the wrong account before anything else is looked at.
///
/// # Errors
/// [`Kind::Access`].
pub fn check_account(settings: &Settings, account: &str) -> Result<()> {
    match &settings.config.expected_account {
        Some(expected) if expected != account => {
            let who = settings
                .profile
                .as_ref()
                .map_or_else(|| "the credentials found".to_owned(), |p| format!("profile {p}"));
            Err(Error::new(
                Kind::Access,
                format!("wrong account: {who} belong to {account}, the config expects {expected}"),
            )
            .next("choose other credentials with --profile, or correct expected_account"))
        }
        _ => Ok(()),
    }
}
