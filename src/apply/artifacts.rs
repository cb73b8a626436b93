//! Image, model artifact and function package, made and sent side by side.

use std::sync::Arc;

use futures::future::{FusedFuture, FutureExt};

use super::Run;
use super::publish::{self, Artifact, Lengths};
use crate::cloud::{PutOptions, Written};
use crate::container::{self, Builders, Processes};
use crate::error::{Error, Kind, Result};
use crate::local::models::ModelTree;
use crate::local::sources::Sources;
use crate::plan::{ImagePlan, ModelPlan, Plan};
use crate::progress::units::bytes;
use crate::progress::{Event, Task};
use crate::settings::Settings;
use crate::transfer::Uploaded;

/// What was made.
#[derive(Debug, Default)]
pub struct Made {
    /// Whether anything was sent.
    pub changed: bool,
    /// The image to deploy; `None` = as deployed.
    pub image: Option<String>,
    /// Whether a builder ran.
    pub built: bool,
    /// Bytes of the model artifact that were sent.
    pub uploaded: u64,
    /// Bytes of the model artifact, if it was published now.
    pub model_bytes: Option<u64>,
    /// CRC64NVME of the model artifact, base64.
    pub crc64nvme: Option<String>,
}

/// Makes and sends what the plan says. When one of the three fails the others stop; what they finished is kept, and the
/// next run continues from there.
///
/// # Errors
/// Of the first that fails; [`Kind::Interrupted`].
pub async fn make(run: &Run<'_>, settings: &Settings, plan: &Plan, sources: Sources) -> Result<Made> {
    run.cancel.check()?;
    let Sources { model, image, function } = sources;
    let uploads = matches!(plan.model, ModelPlan::Upload { .. }) || plan.function.as_ref().is_some_and(|f| f.upload);
    match (matches!(plan.image, ImagePlan::Build { .. }), uploads) {
        (true, true) => run.say(Event::Phase("building the image and uploading".into())),
        (true, false) => run.say(Event::Phase("building the image".into())),
        (false, true) => run.say(Event::Phase("uploading".into())),
        (false, false) => {}
    }
    let image = self::image(run, settings, plan, image).fuse();
    tokio::pin!(image);
    let work = async {
        tokio::try_join!(
            self::model(run, settings, plan, model),
            &mut image,
            self::function(run, settings, plan, function.map(|f| f.zip)),
        )
    };
    let done = tokio::select! {
        done = work => Some(done?),
        () = run.cancel.wait() => None,
    };
    let Some((model, (image, built), function)) = done else {
        // Requests are dropped without harm, but a builder that is killed leaves its working containers behind: it is
        // asked to end, and given the time for it.
        if !image.is_terminated() {
            let _ = image.await;
        }
        return Err(super::pace::interrupted()
            .why("what was uploaded so far is kept")
            .next(format!("continue with: {}", run.resume)));
    };
    let made = Made { changed: built || function, image, built, ..Made::default() };
    let Some(model) = model else { return Ok(made) };
    Ok(Made {
        changed: made.changed || !model.already,
        uploaded: if model.already { 0 } else { model.bytes - model.spared },
        model_bytes: Some(model.bytes),
        crc64nvme: model.crc64nvme,
        ..made
    })
}

/// The model artifact; nothing if it is not to be published.
async fn model(
    run: &Run<'_>,
    settings: &Settings,
    plan: &Plan,
    tree: Option<Arc<ModelTree>>,
) -> Result<Option<Uploaded>> {
    let ModelPlan::Upload { .. } = &plan.model else { return Ok(None) };
    let artifact = Artifact {
        bucket: plan.target.bucket.clone(),
        tree: tree.ok_or_else(|| lost("the model tree"))?,
        packaging: settings.config.models.packaging,
        compression: settings.config.models.compression(),
        lengths: Lengths { root: Some(settings.root.clone()), rehash: settings.rehash },
        kms_key_arn: settings.config.storage.kms_key_arn.clone(),
        now: jiff::Timestamp::now().as_second(),
    };
    let objects = run.cloud.objects.clone();
    let prepared = publish::prepare(objects.clone(), artifact, run.reporter.as_ref()).await?;
    if prepared.copied > 0 {
        run.say(Event::Note(prepared.summary()));
    }
    Ok(Some(publish::publish(objects, prepared, run.reporter.as_ref()).await?.uploaded))
}

/// The image: (reference to deploy, whether a builder ran).
async fn image(
    run: &Run<'_>,
    settings: &Settings,
    plan: &Plan,
    context: Option<crate::local::image::ImageContext>,
) -> Result<(Option<String>, bool)> {
    let repository = &plan.target.repository;
    let tag = match &plan.image {
        ImagePlan::Keep => return Ok((None, false)),
        ImagePlan::Prebuilt { uri, .. } => return Ok((Some(uri.clone()), false)),
        ImagePlan::Present { digest, .. } => return Ok((Some(format!("{repository}@{digest}")), false)),
        ImagePlan::Build { tag, .. } => tag,
    };
    let existing = if settings.force_build { container::Existing::MoveTag } else { container::Existing::Take };
    let context = context.ok_or_else(|| lost("the build context"))?;
    let runner = Processes;
    let tool = Builders::detect(settings.config.image.builder, &runner).await?;
    let found = run.cloud.images.repository(repository).await?.ok_or_else(|| {
        Error::failed(format!("there is no ECR repository {repository}"))
            .next("the foundation stack makes it: comfy-deploy up")
    })?;
    run.say(Event::Begin {
        task: Task::Image,
        label: format!("building the image with {}", tool.kind.name()),
        total: None,
    });
    let reference = container::build_reference(&found.uri);
    let cancel = run.cancel.receiver();
    container::build_and_push(
        &tool,
        &context,
        &reference,
        run.cloud.images.as_ref(),
        &runner,
        run.reporter.as_ref(),
        &cancel,
    )
    .await?;
    let build_tag = reference.rsplit_once(':').map_or(reference.as_str(), |(_, t)| t);
    let digest = container::gate(run.cloud.images.as_ref(), repository, build_tag, tag, existing).await?;
    run.say(Event::End { task: Task::Image, summary: format!("{repository}:{tag} pushed") });
    Ok((Some(format!("{repository}@{digest}")), true))
}

/// The function package; whether it was sent.
async fn function(run: &Run<'_>, settings: &Settings, plan: &Plan, zip: Option<bytes::Bytes>) -> Result<bool> {
    let Some(wanted) = plan.function.as_ref().filter(|f| f.upload) else { return Ok(false) };
    let zip = zip.ok_or_else(|| lost("the function package"))?;
    run.say(Event::Begin {
        task: Task::Function,
        label: "uploading the function".into(),
        total: Some(zip.len() as u64),
    });
    let put = PutOptions {
        content_type: Some("application/zip".into()),
        if_absent: true,
        kms_key_arn: settings.config.storage.kms_key_arn.clone(),
        ..PutOptions::default()
    };
    let written = run.cloud.objects.put(&plan.target.bucket, &wanted.key, zip, &put).await?;
    run.say(Event::End { task: Task::Function, summary: format!("uploaded, {}", bytes(wanted.bytes)) });
    Ok(written == Written::Created)
}

fn lost(what: &str) -> Error {
    Error::new(Kind::Failed, format!("{what} was not read although the plan needs it")).next("please report this")
}
