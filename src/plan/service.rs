//! The steps that bring the service stack to where it should be.

use serde::Serialize;

use super::{AFTER_BUILD, Local, LocalModel, Target, World, busy, room, service_tags};
use crate::cloud::{Map, Stack};
use crate::config::Architecture;
use crate::error::{Error, Result};
use crate::settings::Settings;
use crate::stack::{self, Artifacts, ModelData, ResourceChange};

/// One stack operation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Stack name.
    pub stack: String,
    /// What is done to it.
    pub kind: StepKind,
    /// What it is for, in a few words.
    pub title: String,
    /// Adopt resources of these names that exist already. Only for what outlives its stack by design.
    #[serde(skip)]
    pub import_existing: bool,
    /// The template, as it will be sent.
    #[serde(skip)]
    pub body: String,
    /// Every parameter's value.
    #[serde(skip)]
    pub parameters: Map,
    /// Stack tags.
    #[serde(skip)]
    pub tags: Map,
    /// Per resource what changes.
    pub changes: Vec<ResourceChange>,
}

/// What is done to a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// It does not exist, or is an empty shell from an interrupted run.
    Create,
    /// Its first creation failed: it is deleted and created again.
    Recreate,
    /// It is changed.
    Update,
    /// The very same operation is running already: it is followed.
    Attach,
}

/// What can be done with a stack in its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Empty shell.
    Create,
    /// Must be deleted first.
    Recreate,
    /// Can be updated.
    Update,
    /// An operation is running.
    Busy,
}

/// Sorts CloudFormation's stack states.
///
/// # Errors
/// UPDATE_ROLLBACK_FAILED, which only a person can end; [`crate::error::Kind::Busy`] while it is being deleted, for
/// then there is nothing to follow to a good end.
pub fn readiness(stack: &Stack) -> Result<Readiness> {
    Ok(match stack.status.as_str() {
        "REVIEW_IN_PROGRESS" => Readiness::Create,
        "ROLLBACK_COMPLETE" | "ROLLBACK_FAILED" | "CREATE_FAILED" | "DELETE_FAILED" => Readiness::Recreate,
        "UPDATE_ROLLBACK_FAILED" => {
            return Err(Error::failed(format!("the stack {} is in UPDATE_ROLLBACK_FAILED: its last rollback did not finish", stack.name))
                .why(stack.reason.clone().unwrap_or_default())
                .next(format!(
                    "mend the cause, then: aws cloudformation continue-update-rollback --stack-name {0} && aws cloudformation wait stack-rollback-complete --stack-name {0}",
                    stack.name
                )));
        }
        "DELETE_IN_PROGRESS" => return Err(busy(&stack.name, &stack.status)),
        _ if stack.busy() => Readiness::Busy,
        _ => Readiness::Update,
    })
}

/// Refuses to update a stack whose endpoint somebody deleted: without it every run would find nothing to do, and a
/// changed endpoint would fail with its rollback failing as well.
///
/// # Errors
/// [`crate::error::Kind::Failed`].
pub(super) fn has_endpoint(world: &World) -> Result<()> {
    let Some(lost) = world.lost_endpoint() else { return Ok(()) };
    Err(Error::failed(lost).why("an update of the stack cannot make it again; nothing was changed").next(
        "delete the rest and deploy anew (models and images are kept): comfy-deploy destroy, then comfy-deploy up",
    ))
}

/// The steps; none when the stack is as wanted. `image` is `None` while it is still to be built.
pub(super) fn steps(
    settings: &Settings,
    local: &Local,
    world: &World,
    target: &Target,
    image: Option<&str>,
) -> Result<Vec<Step>> {
    let artifacts = artifacts(settings, local, target, world, image.unwrap_or(AFTER_BUILD))?;
    let mut rendered = stack::service(settings);
    let pseudo = world.pseudo(&target.stack, &target.region);

    let deployed = match &world.service {
        // There is nothing to compare with, and nothing to attach to.
        Some(d) if d.stack.status == "DELETE_IN_PROGRESS" => return Err(busy(&target.stack, &d.stack.status)),
        Some(d) => match readiness(&d.stack)? {
            Readiness::Create | Readiness::Recreate => None,
            Readiness::Update | Readiness::Busy => {
                has_endpoint(world)?;
                Some((d, stack::parse(&d.body)?))
            }
        },
        None => None,
    };
    let label = &settings.config.models.version;
    let mut parameters = stack::service_parameters(settings, &artifacts, label);
    let live = deployed.as_ref().map(|(d, template)| stack::Deployed { template, parameters: &d.stack.parameters });
    let version = stack::settle(&mut rendered, &mut parameters, live, &pseudo, label, u64::from(target.record))?;
    if !version.new && world.silent_rollback().is_some() {
        // SageMaker went back behind the stack's back: only a new name makes it move again.
        parameters.insert("ModelVersion".into(), stack::model_version(label, &version.hash, u64::from(target.record)));
    }

    let step = |kind, body: String, parameters: Map, changes, title: &str| Step {
        stack: target.stack.clone(),
        kind,
        title: title.into(),
        import_existing: false,
        body,
        parameters,
        tags: service_tags(settings),
        changes,
    };
    let Some((deployed, template)) = deployed else {
        let new = stack::evaluate(&rendered.value, &parameters, &pseudo)?;
        let recreate = match &world.service {
            Some(d) => readiness(&d.stack)? == Readiness::Recreate,
            None => false,
        };
        let kind = if recreate { StepKind::Recreate } else { StepKind::Create };
        return Ok(vec![step(
            kind,
            rendered.body,
            parameters,
            stack::diff(None, &new),
            "service: endpoint and function",
        )]);
    };

    let current = &deployed.stack.parameters;
    let old = stack::evaluate(&template, current, &pseudo)?;
    let new = stack::evaluate(&rendered.value, &parameters, &pseudo)?;
    let mut changes = stack::diff(Some(&old), &new);
    if service_tags(settings) != user_tags(&deployed.stack.tags) {
        changes = stack::with_stack_tags(changes, &new);
    }
    if deployed.stack.busy() {
        return match changes.is_empty() {
            true => Ok(vec![step(StepKind::Attach, rendered.body, parameters, changes, "service: already under way")]),
            false => Err(busy(&target.stack, &deployed.stack.status)),
        };
    }
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    if stack::split_instance_type_change(&old, &new) {
        let mut off = current.clone();
        off.insert("SageMakerAutoScaling".into(), "false".into());
        let without = stack::evaluate(&template, &off, &pseudo)?;
        return Ok(vec![
            Step {
                tags: user_tags(&deployed.stack.tags),
                ..step(
                    StepKind::Update,
                    deployed.body.clone(),
                    off,
                    stack::diff(Some(&old), &without),
                    "service: autoscaling off for the change of instance type",
                )
            },
            step(
                StepKind::Update,
                rendered.body,
                parameters,
                stack::diff(Some(&without), &new),
                "service: new instance type",
            ),
        ]);
    }
    Ok(vec![step(StepKind::Update, rendered.body, parameters, changes, "service: endpoint and function")])
}

/// A stack's tags without those that AWS adds.
pub fn user_tags(tags: &Map) -> Map {
    tags.iter().filter(|(k, _)| !k.starts_with("aws:")).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// The artifacts as parameters name them.
fn artifacts(settings: &Settings, local: &Local, target: &Target, world: &World, image: &str) -> Result<Artifacts> {
    let current = world.service.as_ref().map(|s| &s.stack.parameters);
    let model = match &local.model {
        LocalModel::Tree { key, .. } => {
            ModelData { bucket: target.bucket.clone(), key: key.clone(), packaging: settings.config.models.packaging }
        }
        LocalModel::External { bucket, key } => {
            ModelData { bucket: bucket.clone(), key: key.clone(), packaging: settings.config.models.packaging }
        }
        LocalModel::Keep => ModelData {
            bucket: target.bucket.clone(),
            key: current.and_then(|p| p.get("ModelDataS3Key").cloned()).ok_or_else(|| {
                Error::usage(format!("the stack {} does not exist, so there is no model to keep", target.stack))
                    .next("comfy-deploy up")
            })?,
            packaging: settings.config.models.packaging,
        },
    };
    let registry = super::ImageName::parse(image).host.to_owned();
    let image = image.strip_prefix(&registry).unwrap_or(image).trim_start_matches('/').to_owned();
    Ok(Artifacts {
        bucket: target.bucket.clone(),
        model,
        image,
        registry,
        function_key: local.function.as_ref().map(|f| f.key.clone()),
        architecture: local.function.as_ref().map_or(Architecture::X86_64, |f| f.architecture),
        download_timeout: download_timeout(settings, &local.model, world),
    })
}

/// Seconds for download and extraction of a model artifact; for one that stays, as deployed unless the config says it.
pub(super) fn download_timeout(settings: &Settings, model: &LocalModel, world: &World) -> u32 {
    let configured = settings.config.endpoint.download_timeout;
    let deployed = || deployed_timeout(&world.service.as_ref()?.stack.parameters);
    match model {
        LocalModel::Keep => configured.or_else(deployed).unwrap_or_else(|| room::download_timeout(None, None)),
        _ => room::download_timeout(configured, model.bytes(world)),
    }
}

/// The same of a stack with these parameters.
pub(super) fn deployed_timeout(parameters: &Map) -> Option<u32> {
    parameters.get(DOWNLOAD_TIMEOUT)?.parse().ok()
}

/// The parameter for it.
pub(super) const DOWNLOAD_TIMEOUT: &str = "ModelDataDownloadTimeout";
