//! Plans that edit the *deployed* template and parameters, so that a newer tool cannot smuggle other changes in.

use serde_json::Value;

use super::service::{DOWNLOAD_TIMEOUT, Readiness, deployed_timeout, download_timeout, has_endpoint, readiness};
use super::{Deployed, ImagePlan, LocalModel, ModelPlan, Plan, Step, StepKind, World, busy, room, target};
use crate::cloud::Map;
use crate::config::ScheduleEntry;
use crate::error::{Error, Kind, Result};
use crate::settings::Settings;
use crate::stack::{self, ModelData};

/// What `scale` changes.
#[derive(Debug, Clone, PartialEq)]
pub enum Scale {
    /// New bounds; turns autoscaling on if it is off.
    Set {
        /// Fewest instances; as deployed if absent.
        min: Option<u32>,
        /// Most instances; as deployed if absent.
        max: Option<u32>,
    },
    /// No autoscaling.
    Off,
    /// Adds a scaling schedule, or replaces the one of that name.
    Add(ScheduleEntry),
    /// Removes a scaling schedule.
    Remove(String),
}

/// The resources that `scale` may touch.
const SCALING: [&str; 2] = ["ComfyUIScalableTarget", "ComfyUIScalingPolicy"];

/// Plans one `scale`.
///
/// # Errors
/// [`Kind::Usage`] without a stack, or when autoscaling is off for a schedule; [`Kind::Refused`] when anything but the
/// scalable target and the policy would change.
pub fn scale(settings: &Settings, world: &World, what: &Scale) -> Result<Plan> {
    let (deployed, mut template) = settled(settings, world)?;
    let mut parameters = deployed.stack.parameters.clone();
    let on = parameters.get("SageMakerAutoScaling").is_some_and(|v| v == "true");
    let needs_on = || {
        Error::usage("autoscaling is off, so there is nothing a scaling schedule could change")
            .next("comfy-deploy scale set --min 1 --max 3")
    };
    match what {
        Scale::Set { min, max } => {
            parameters.insert("SageMakerAutoScaling".into(), "true".into());
            let mut bound = |name: &str, value: &Option<u32>| -> u32 {
                if let Some(value) = value {
                    parameters.insert(name.into(), value.to_string());
                }
                parameters.get(name).and_then(|v| v.parse().ok()).unwrap_or(1)
            };
            let (min, max) = (bound("MinCapacity", min), bound("MaxCapacity", max));
            if min > max {
                return Err(Error::usage(format!("the fewest instances ({min}) would be more than the most ({max})"))
                    .next(format!("comfy-deploy scale set --min {min} --max {min}")));
            }
        }
        Scale::Off => {
            parameters.insert("SageMakerAutoScaling".into(), "false".into());
        }
        Scale::Add(entry) => {
            if !on {
                return Err(needs_on());
            }
            let mut schedules = stack::edit::schedules(&template);
            schedules.retain(|s| s.name != entry.name);
            schedules.push(entry.clone());
            stack::edit::set_schedules(&mut template, &schedules)?;
        }
        Scale::Remove(name) => {
            let mut schedules = stack::edit::schedules(&template);
            let before = schedules.len();
            schedules.retain(|s| s.name != *name);
            // While an operation runs, it may be the one that removes it.
            if schedules.len() == before && !deployed.stack.busy() {
                let known: Vec<String> = schedules.into_iter().map(|s| s.name).collect();
                return Err(Error::usage(format!("there is no scaling schedule {name}"))
                    .why(if known.is_empty() {
                        "there are none".into()
                    } else {
                        format!("there are: {}", known.join(", "))
                    })
                    .next("comfy-deploy scale schedule ls"));
            }
            stack::edit::set_schedules(&mut template, &schedules)?;
        }
    }
    let plan = edited(settings, world, deployed, &template, parameters, "service: scaling")?;
    if let Some(other) = plan.changes().find(|c| !SCALING.contains(&c.logical_id.as_str())) {
        return Err(Error::new(
            Kind::Refused,
            format!("this would also touch {} ({}); nothing was changed", other.logical_id, other.kind),
        )
        .next("comfy-deploy plan"));
    }
    Ok(plan)
}

/// Plans one `update-model`: a new model artifact under a new model version, and nothing else.
///
/// # Errors
/// [`Kind::Usage`] without a stack; [`Kind::Busy`].
pub fn update_model(settings: &Settings, model: &LocalModel, world: &World) -> Result<Plan> {
    let (deployed, template) = settled(settings, world)?;
    let target = target(settings, world);
    let pseudo = world.pseudo(&target.stack, &target.region);
    let mut parameters = deployed.stack.parameters.clone();
    let place = |parameters: &mut Map, bucket: &str, key: &str| {
        let packaging = settings.config.models.packaging;
        let model = ModelData { bucket: bucket.to_owned(), key: key.to_owned(), packaging };
        // The stack's own bucket, which need not be the one that the config names by now.
        let own = parameters.get("DeploymentBucket").cloned().unwrap_or_default();
        parameters.extend(stack::model_parameters(&model, &own));
    };
    let model_plan = match model {
        LocalModel::Keep => ModelPlan::Keep,
        LocalModel::External { bucket, key } => {
            place(&mut parameters, bucket, key);
            ModelPlan::External { bucket: bucket.clone(), key: key.clone() }
        }
        LocalModel::Tree { id, key, bytes, at_most, files, .. } => {
            place(&mut parameters, &target.bucket, key);
            ModelPlan::of_tree(world, (id, key), (*bytes, *at_most), *files)
        }
    };
    let moved =
        ["ModelDataBucket", "ModelDataS3Key"].iter().any(|p| parameters.get(*p) != deployed.stack.parameters.get(*p));
    // Another artifact has its own time to arrive; an older template may have none to set.
    if moved && deployed_timeout(&parameters).is_some() {
        parameters.insert(DOWNLOAD_TIMEOUT.into(), download_timeout(settings, model, world).to_string());
    }
    let tight = match room::Load::of(model) {
        Some(load) => room::check(room::Place::deployed(&parameters), settings.config.models.packaging, load)?,
        None => None,
    };
    let label = &settings.config.models.version;
    let hash = stack::version_hash(&template, &parameters, &pseudo)?;
    let live = stack::version_hash(&template, &deployed.stack.parameters, &pseudo)?;
    let current = deployed.stack.parameters.get("ModelVersion").and_then(|v| stack::parse_model_version(v));
    let same = current.is_some_and(|(l, ..)| l == label) && hash == live && world.silent_rollback().is_none();
    if !same {
        parameters.insert("ModelVersion".into(), stack::model_version(label, &hash, u64::from(target.record)));
        parameters.insert("RetainDesiredCount".into(), "true".into());
    }
    let mut plan = edited(settings, world, deployed, &template, parameters, "service: model")?;
    plan.model = model_plan;
    plan.notes.extend(tight);
    plan.growth = super::growth::growth(world, &plan.service);
    Ok(plan)
}

/// The deployed stack, at rest or while an operation runs that may be the very same.
fn settled<'w>(settings: &Settings, world: &'w World) -> Result<(&'w Deployed, Value)> {
    let absent = || {
        Error::usage(format!("there is no stack {} in {}", settings.stack(), settings.region)).next("comfy-deploy up")
    };
    let deployed = world.service.as_ref().ok_or_else(absent)?;
    match readiness(&deployed.stack)? {
        Readiness::Busy if deployed.stack.status == "DELETE_IN_PROGRESS" => {
            Err(busy(&deployed.stack.name, &deployed.stack.status))
        }
        Readiness::Update | Readiness::Busy => {
            has_endpoint(world)?;
            Ok((deployed, stack::parse(&deployed.body)?))
        }
        Readiness::Create | Readiness::Recreate => {
            Err(absent().why(format!("its first creation did not finish ({})", deployed.stack.status)))
        }
    }
}

/// A plan of one step on the deployed stack.
fn edited(
    settings: &Settings,
    world: &World,
    deployed: &Deployed,
    template: &Value,
    parameters: Map,
    title: &str,
) -> Result<Plan> {
    let target = target(settings, world);
    let pseudo = world.pseudo(&target.stack, &target.region);
    let original = stack::parse(&deployed.body)?;
    let old = stack::evaluate(&original, &deployed.stack.parameters, &pseudo)?;
    let new = stack::evaluate(template, &parameters, &pseudo)?;
    let changes = stack::diff(Some(&old), &new);
    let body = if original == *template { deployed.body.clone() } else { stack::edit::to_body(template) };
    if deployed.stack.busy() && !changes.is_empty() {
        return Err(busy(&deployed.stack.name, &deployed.stack.status));
    }
    let (kind, title) = match deployed.stack.busy() {
        true => (StepKind::Attach, "service: already under way"),
        false => (StepKind::Update, title),
    };
    let step = Step {
        stack: target.stack.clone(),
        kind,
        title: title.into(),
        import_existing: false,
        body,
        parameters,
        tags: super::service::user_tags(&deployed.stack.tags),
        changes,
    };
    let service = if step.kind == StepKind::Update && step.changes.is_empty() { Vec::new() } else { vec![step] };
    Ok(Plan {
        target,
        foundation: None,
        image: ImagePlan::Keep,
        model: ModelPlan::Keep,
        function: None,
        service,
        protection: Vec::new(),
        growth: None,
        notes: world.silent_rollback().into_iter().collect(),
    })
}
