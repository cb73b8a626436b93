//! (desired, local, world) -> [`Plan`]. Pure and synchronous: no clock, no files, no SDK.
//!
//! Names are content, so object keys and the image tag are known here. Only the image *digest*, and the
//! model version that derives from it, is known after the build when no image with that tag exists yet;
//! [`Plan::service_for`] finishes the plan then, by the same rules.

mod edit;
mod growth;
mod image_name;
mod room;
mod service;
#[cfg(test)]
pub(crate) mod tests;
mod world;

use serde::Serialize;

pub use edit::{Scale, scale, update_model};
pub use growth::Growth;
pub use image_name::ImageName;
pub use service::{Step, StepKind, user_tags};
pub use world::{Deployed, Existing, World};

use crate::cloud::Map;
use crate::config::Architecture;
use crate::error::{Error, Kind, Result};
use crate::settings::Settings;
use crate::stack::{self, ResourceChange};

/// What stands for the image's digest until it is known.
pub const AFTER_BUILD: &str = "(known after build)";

/// The tag that marks everything that belongs to one service stack.
pub const STACK_TAG: &str = "comfy-deploy:stack";
/// The tag that marks everything that belongs to one app.
pub const APP_TAG: &str = "comfy-deploy:app";

/// What is on disk, or named in the config instead of being made from disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Local {
    /// The model artifact.
    pub model: LocalModel,
    /// The inference image.
    pub image: LocalImage,
    /// The function package, unless the function is off.
    pub function: Option<LocalFunction>,
}

/// The model artifact that is wanted.
#[derive(Debug, Clone, PartialEq)]
pub enum LocalModel {
    /// Made from a directory.
    Tree {
        /// Identity: sha256 of the content manifest, hex.
        id: String,
        /// `models/<24 hex>/model.tar.gz`, or a prefix ending in `/`.
        key: String,
        /// Bytes of the artifact.
        bytes: u64,
        /// Whether it may have fewer: how far files compress is known once they were compressed.
        at_most: bool,
        /// What it would have with nothing compressed.
        stored: u64,
        /// Number of files.
        files: usize,
    },
    /// An artifact in S3 that was made elsewhere.
    External {
        /// Its bucket.
        bucket: String,
        /// Its key.
        key: String,
    },
    /// Whatever is deployed stays (update of something else).
    Keep,
}

impl LocalModel {
    /// Bytes of the artifact in S3, where they are known; with nothing compressed, so that nothing that is made from
    /// them changes when it becomes known how far files compress.
    fn bytes(&self, world: &World) -> Option<u64> {
        match self {
            LocalModel::Tree { stored, .. } => Some(*stored),
            LocalModel::External { .. } => world.model_bytes,
            LocalModel::Keep => None,
        }
    }
}

/// The inference image that is wanted.
#[derive(Debug, Clone, PartialEq)]
pub enum LocalImage {
    /// Built from a context.
    Context {
        /// `c-<24 hex>`.
        tag: String,
    },
    /// Prebuilt.
    Prebuilt {
        /// As in the config.
        uri: String,
    },
    /// Whatever is deployed stays.
    Keep,
}

/// The function package that is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalFunction {
    /// `functions/<24 hex>/function.zip`.
    pub key: String,
    /// Of the zip.
    pub bytes: u64,
    /// Of the binary.
    pub architecture: Architecture,
}

/// What is to be done. A value: showing it, comparing it and carrying it out are somebody else's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Where.
    pub target: Target,
    /// The bucket and the repository.
    pub foundation: Option<Step>,
    /// The inference image.
    pub image: ImagePlan,
    /// The model artifact.
    pub model: ModelPlan,
    /// The function package.
    pub function: Option<FunctionPlan>,
    /// The service stack, as far as it is known now.
    pub service: Vec<Step>,
    /// Stacks whose termination protection is switched on or off.
    pub protection: Vec<Protection>,
    /// More instances than now, for the quota check.
    pub growth: Option<Growth>,
    /// What the user should know before saying yes.
    pub notes: Vec<String>,
}

/// Where a plan applies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Target {
    /// Twelve digits.
    pub account: String,
    /// Region.
    pub region: String,
    /// The service stack; also the endpoint's name.
    pub stack: String,
    /// The foundation stack.
    pub foundation: String,
    /// The bucket of the artifacts.
    pub bucket: String,
    /// The ECR repository.
    pub repository: String,
    /// Number of the next deployment record.
    pub record: u32,
}

/// A change of termination protection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Protection {
    /// Stack name.
    pub stack: String,
    /// On or off.
    pub on: bool,
}

/// What happens to the image.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum ImagePlan {
    /// As deployed.
    Keep,
    /// Named in the config.
    Prebuilt {
        /// As in the config.
        given: String,
        /// `repo@sha256:...` where the registry is our own, else as given.
        uri: String,
    },
    /// The repository has it.
    Present {
        /// `c-...`
        tag: String,
        /// `sha256:...`
        digest: String,
    },
    /// Build and push.
    Build {
        /// `c-...`
        tag: String,
        /// `sha256:...` of the image that has the tag now and loses it to the new one (`--force-build`).
        instead_of: Option<String>,
    },
}

/// What happens to the model artifact.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum ModelPlan {
    /// As deployed.
    Keep,
    /// Made elsewhere.
    External {
        /// Bucket.
        bucket: String,
        /// Key.
        key: String,
    },
    /// S3 has it.
    Present {
        /// Identity.
        id: String,
        /// Key.
        key: String,
        /// Bytes.
        bytes: u64,
        /// Whether it may have fewer.
        at_most: bool,
    },
    /// Pack and upload.
    Upload {
        /// Identity.
        id: String,
        /// Key.
        key: String,
        /// Bytes.
        bytes: u64,
        /// Whether it may have fewer.
        at_most: bool,
        /// Files in it.
        files: usize,
    },
}

impl ModelPlan {
    /// Of the artifact of a tree: identity and key, bytes and whether it may have fewer, and files. One that is in S3 is as
    /// large as it is there.
    fn of_tree(world: &World, (id, key): (&str, &str), (bytes, at_most): (u64, bool), files: usize) -> Self {
        let (id, key) = (id.to_owned(), key.to_owned());
        match (world.model_present, world.model_bytes) {
            (true, Some(bytes)) => ModelPlan::Present { id, key, bytes, at_most: false },
            (true, None) => ModelPlan::Present { id, key, bytes, at_most },
            (false, _) => ModelPlan::Upload { id, key, bytes, at_most, files },
        }
    }
}

/// What happens to the function package.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FunctionPlan {
    /// Key.
    pub key: String,
    /// Bytes.
    pub bytes: u64,
    /// Whether S3 lacks it.
    pub upload: bool,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.foundation.is_none()
            && !matches!(self.image, ImagePlan::Build { .. })
            && !matches!(self.model, ModelPlan::Upload { .. })
            && !self.function.as_ref().is_some_and(|f| f.upload)
            && self.service.is_empty()
            && self.protection.is_empty()
    }

    /// Every change of every step, in order.
    pub fn changes(&self) -> impl Iterator<Item = &ResourceChange> {
        self.foundation.iter().chain(&self.service).flat_map(|step| &step.changes)
    }

    /// The steps of the service stack once the image is known. Equal to [`Plan::service`] when it always was.
    pub fn service_for(&self, settings: &Settings, local: &Local, world: &World, image: &str) -> Result<Vec<Step>> {
        service::steps(settings, local, world, &self.target, Some(image))
    }
}

/// Plans one `up`.
///
/// # Errors
/// [`Kind::Busy`] when another operation holds a stack or the endpoint, [`Kind::Failed`] when a stack is in a
/// state that only a person can end, and whatever rendering finds.
pub fn up(settings: &Settings, local: &Local, world: &World) -> Result<Plan> {
    let target = target(settings, world);
    let mut notes = Vec::new();
    let foundation = foundation(settings, world, &target)?;
    if foundation.as_ref().is_some_and(|step| matches!(step.kind, StepKind::Create | StepKind::Recreate)) {
        for existing in &world.existing {
            notes.push(adopted(settings, existing)?);
        }
    }
    let image = match &local.image {
        LocalImage::Keep => ImagePlan::Keep,
        LocalImage::Prebuilt { uri } => ImagePlan::Prebuilt {
            given: uri.clone(),
            uri: match &world.image {
                Some(digest) => ImageName::parse(uri).at(digest),
                None => uri.clone(),
            },
        },
        LocalImage::Context { tag } => match &world.image {
            Some(digest) if !settings.force_build => ImagePlan::Present { tag: tag.clone(), digest: digest.clone() },
            existing => ImagePlan::Build { tag: tag.clone(), instead_of: existing.clone() },
        },
    };
    let model = match &local.model {
        LocalModel::Keep => ModelPlan::Keep,
        LocalModel::External { bucket, key } => ModelPlan::External { bucket: bucket.clone(), key: key.clone() },
        LocalModel::Tree { id, key, bytes, at_most, files, .. } => {
            ModelPlan::of_tree(world, (id, key), (*bytes, *at_most), *files)
        }
    };
    notes.extend(room_for(settings, &local.model, world)?);
    let function = local.function.as_ref().map(|f| FunctionPlan {
        key: f.key.clone(),
        bytes: f.bytes,
        upload: !world.function_present,
    });
    let known = match &image {
        ImagePlan::Build { .. } => None,
        ImagePlan::Keep => world.service.as_ref().and_then(|s| s.stack.parameters.get("ModelEcrImage").cloned()),
        ImagePlan::Prebuilt { uri, .. } => Some(uri.clone()),
        ImagePlan::Present { digest, .. } => Some(format!("{}@{digest}", settings.repository())),
    };
    let service = service::steps(settings, local, world, &target, known.as_deref())?;
    if service.len() > 1 {
        notes.push(
            "the instance type changes while autoscaling is on: autoscaling is taken off first and put back \
             afterwards, in two stack updates, because SageMaker refuses the change otherwise"
                .into(),
        );
    }
    if let Some(note) = world.silent_rollback() {
        notes.push(note);
    }
    let growth = growth::growth(world, &service);
    let protection = protection(settings, world, &target);
    Ok(Plan { target, foundation, image, model, function, service, protection, growth, notes })
}

/// Whether a model artifact fits on the instance that the config asks for and can be there in time; what is tight is the
/// answer.
///
/// # Errors
/// It cannot fit.
pub fn room_for(settings: &Settings, model: &LocalModel, world: &World) -> Result<Option<String>> {
    let Some(load) = room::Load::of(model) else { return Ok(None) };
    let timeout = service::download_timeout(settings, model, world);
    room::check(room::Place::configured(settings, Some(timeout)), settings.config.models.packaging, load)
}

/// Refuses models that cannot fit, before they are here: when only is known how many `bytes` the artifact has at least, and
/// how many at least with nothing compressed (`stored`). They go to the instance of the `deployed` parameters, if there are
/// any, else to the one of the config. Whatever this refuses, [`up`] or [`update_model`] would refuse in the end.
///
/// # Errors
/// They cannot fit.
pub fn fits(settings: &Settings, deployed: Option<&Map>, bytes: u64, stored: u64) -> Result<()> {
    let place = match deployed {
        Some(parameters) => room::Place::deployed(parameters),
        None => room::Place::configured(settings, None),
    };
    let place = room::Place { download_timeout: None, ..place };
    room::check(place, settings.config.models.packaging, room::Load::at_least(bytes, stored)).map(drop)
}

/// Where the plan applies, from settings and world.
fn target(settings: &Settings, world: &World) -> Target {
    Target {
        account: world.account.clone(),
        region: settings.region.clone(),
        stack: settings.stack(),
        foundation: settings.foundation(),
        bucket: stack::bucket_name(settings, &world.account),
        repository: settings.repository().to_owned(),
        record: world.last_record + 1,
    }
}

/// The tags of the service stack: the user's and ours. No time, commit or tool version: they would change every
/// resource at every run.
pub fn service_tags(settings: &Settings) -> Map {
    let mut tags = settings.config.tags.clone();
    tags.insert(APP_TAG.into(), settings.config.app.clone());
    tags.insert(STACK_TAG.into(), settings.stack());
    tags
}

/// The tags of the foundation stack.
fn foundation_tags(settings: &Settings) -> Map {
    let mut tags = settings.config.tags.clone();
    tags.insert(APP_TAG.into(), settings.config.app.clone());
    tags
}

/// Creates the foundation stack, or updates it when its template changed. Environments share it, so a value that
/// only differs because another environment made it (tags) is no difference.
fn foundation(settings: &Settings, world: &World, target: &Target) -> Result<Option<Step>> {
    let rendered = stack::foundation(settings);
    let parameters = stack::foundation_parameters(settings, &world.account);
    let pseudo = world.pseudo(&target.foundation, &target.region);
    let new = stack::evaluate(&rendered.value, &parameters, &pseudo)?;
    let step = |kind, changes| Step {
        stack: target.foundation.clone(),
        kind,
        body: rendered.body.clone(),
        parameters: parameters.clone(),
        tags: foundation_tags(settings),
        changes,
        title: "foundation: bucket and repository".into(),
        import_existing: true,
    };
    let Some(deployed) = &world.foundation else {
        return Ok(Some(step(StepKind::Create, stack::diff(None, &new))));
    };
    match service::readiness(&deployed.stack)? {
        service::Readiness::Create => Ok(Some(step(StepKind::Create, stack::diff(None, &new)))),
        service::Readiness::Recreate => Ok(Some(step(StepKind::Recreate, stack::diff(None, &new)))),
        service::Readiness::Busy if deployed.stack.status == "DELETE_IN_PROGRESS" => {
            Err(busy(&target.foundation, &deployed.stack.status))
        }
        service::Readiness::Busy => Ok(Some(step(StepKind::Attach, Vec::new()))),
        service::Readiness::Update => {
            let old = stack::evaluate(&stack::parse(&deployed.body)?, &deployed.stack.parameters, &pseudo)?;
            let changes = stack::diff(Some(&old), &new);
            Ok((!changes.is_empty()).then(|| step(StepKind::Update, changes)))
        }
    }
}

/// What was there before the foundation stack becomes part of it, if it may.
///
/// # Errors
/// [`Kind::Refused`] when it belongs to another app.
fn adopted(settings: &Settings, existing: &Existing) -> Result<String> {
    let Existing { what, name, app } = existing;
    match app {
        Some(app) if *app != settings.config.app => Err(Error::new(
            Kind::Refused,
            format!("the {what} {name} belongs to another app: its tag {APP_TAG} is {app}"),
        )
        .why("the foundation stack would take it over")
        .next("choose another app name, or name your own with storage.bucket and image.repository")),
        Some(_) => Ok(format!("the {what} {name} is there from before; it is taken back into the foundation stack")),
        None => Ok(format!(
            "the {what} {name} exists already and has no tag of an app; it is adopted into the foundation stack as it is"
        )),
    }
}

/// The service stack follows the config. The foundation may hold another environment's artifacts, so it is only ever
/// switched on here.
fn protection(settings: &Settings, world: &World, target: &Target) -> Vec<Protection> {
    let on = settings.config.protect;
    let is = |deployed: &Option<Deployed>| deployed.as_ref().is_some_and(|d| d.stack.protected);
    let mut changes = Vec::new();
    if is(&world.service) != on {
        changes.push(Protection { stack: target.stack.clone(), on });
    }
    if on && !is(&world.foundation) {
        changes.push(Protection { stack: target.foundation.clone(), on });
    }
    changes
}

/// The error for a stack that somebody else is changing.
pub fn busy(stack: &str, status: &str) -> Error {
    Error::new(Kind::Busy, format!("another operation holds the stack {stack} ({status})"))
        .next("wait for it with --wait-lock 30m, or look at it with `comfy-deploy status`")
}
