//! Models and endpoint configs: made once, never changed.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Made, Noun, refused};
use crate::input::{last, tags, text};
use crate::world::{ACCOUNT, Answer, ApiError, Ctx, World, epoch};
use crate::{ecr, iam};

/// The only manifest that SageMaker pulls.
const DOCKER_V2: &str = "application/vnd.docker.distribution.manifest.v2+json";

pub(super) fn create_model(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let name = text(input, "ModelName");
    if world.region(&ctx.region).sagemaker.models.contains_key(name) {
        return Err(Noun::Model.taken(ctx, name));
    }
    let containers = containers(input);
    if containers.is_empty() || !input["PrimaryContainer"].is_null() && !input["Containers"].is_null() {
        return Err(refused("You must specify either PrimaryContainer or Containers, and not both."));
    }
    check_role(world, text(input, "ExecutionRoleArn"))?;
    for container in containers {
        check_container(world, ctx, container)?;
    }
    make(world, ctx, Noun::Model, name, input)
}

pub(super) fn create_config(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let name = text(input, "EndpointConfigName");
    let state = &world.region(&ctx.region).sagemaker;
    if state.configs.contains_key(name) {
        return Err(Noun::Config.taken(ctx, name));
    }
    let mut seen = BTreeSet::new();
    for variant in input["ProductionVariants"].as_array().into_iter().flatten() {
        let variant_name = text(variant, "VariantName");
        if !seen.insert(variant_name) {
            return Err(refused(format!("Duplicate variant name \"{variant_name}\" in the endpoint configuration.")));
        }
        let model = last(text(variant, "ModelName"));
        if !state.models.contains_key(model) {
            return Err(Noun::Model.missing(ctx, model));
        }
        if !variant["ServerlessConfig"].is_null() {
            return Err(refused("The sandbox hosts no serverless variants."));
        }
        if variant["InstanceType"].is_null() || variant["InitialInstanceCount"].is_null() {
            return Err(refused(format!(
                "InstanceType and InitialInstanceCount are required for the production variant \"{variant_name}\"."
            )));
        }
    }
    if !input["ExecutionRoleArn"].is_null() {
        check_role(world, text(input, "ExecutionRoleArn"))?;
    }
    make(world, ctx, Noun::Config, name, input)
}

fn make(world: &mut World, ctx: &Ctx, noun: Noun, name: &str, input: &Value) -> Answer {
    let mut kept = input.clone();
    if let Some(members) = kept.as_object_mut() {
        members.remove("Tags");
        members.retain(|_, v| !v.is_null());
    }
    let arn = noun.arn(ctx, name);
    let state = &mut world.region(&ctx.region).sagemaker;
    let made = Made { created: ctx.now, input: kept };
    match noun {
        Noun::Model => state.models.insert(name.to_owned(), made),
        _ => state.configs.insert(name.to_owned(), made),
    };
    state.tags.insert(arn.clone(), tags(&input["Tags"]));
    Ok(json!({format!("{}Arn", noun.names().0): arn}))
}

/// A model's containers, however they were given.
pub(super) fn containers(model: &Value) -> Vec<&Value> {
    let primary = Some(&model["PrimaryContainer"]).filter(|c| !c.is_null());
    primary.into_iter().chain(model["Containers"].as_array().into_iter().flatten()).collect()
}

pub(super) fn check_role(world: &World, arn: &str) -> Result<(), ApiError> {
    if iam::trusts(world, arn, "sagemaker.amazonaws.com") {
        return Ok(());
    }
    Err(refused(format!(
        "Could not assume role {arn}. Please ensure that the role exists and allows principal \
         'sagemaker.amazonaws.com' to assume the role."
    )))
}

fn check_container(world: &World, ctx: &Ctx, container: &Value) -> Result<(), ApiError> {
    let image = text(container, "Image");
    if image.is_empty() {
        return Err(refused("The sandbox needs an Image for each container."));
    }
    check_image(world, ctx, image)?;
    if !container["ModelDataUrl"].is_null() && !container["ModelDataSource"].is_null() {
        return Err(refused("ModelDataUrl and ModelDataSource cannot be specified at the same time."));
    }
    let source = &container["ModelDataSource"]["S3DataSource"];
    if source["S3DataType"] == "S3Prefix" && !text(source, "S3Uri").ends_with('/') {
        return Err(refused(format!(
            "S3Uri {} must end with a forward slash when S3DataType is S3Prefix.",
            text(source, "S3Uri")
        )));
    }
    Ok(())
}

/// The digest of an image. Images of other registries (AWS's own containers) are taken as there.
pub(super) fn check_image(world: &World, ctx: &Ctx, image: &str) -> Result<Option<String>, ApiError> {
    let host = image.split('/').next().unwrap_or_default();
    let foreign = host.contains(".dkr.ecr.") && !host.starts_with(&format!("{ACCOUNT}."));
    if foreign {
        return Ok(None);
    }
    match ecr::manifest_of(world, &ctx.region, image) {
        None => Err(refused(format!("Requested image {image} not found."))),
        Some((kind, digest)) if kind == DOCKER_V2 => Ok(Some(digest)),
        Some((kind, _)) => Err(refused(format!(
            "Unsupported manifest media type {kind} for image {image}. Ensure that valid manifest media type is used \
             for specified image."
        ))),
    }
}

pub(super) fn describe(world: &mut World, ctx: &Ctx, noun: Noun, input: &Value) -> Answer {
    let name = noun.name(input);
    let state = &world.region(&ctx.region).sagemaker;
    let found = if noun == Noun::Model { state.models.get(name) } else { state.configs.get(name) };
    let made = found.ok_or_else(|| noun.missing(ctx, name))?;
    let mut shown = made.input.clone();
    shown[format!("{}Arn", noun.names().0)] = json!(noun.arn(ctx, name));
    shown["CreationTime"] = epoch(made.created);
    if noun == Noun::Model && shown["EnableNetworkIsolation"].is_null() {
        shown["EnableNetworkIsolation"] = json!(false);
    }
    Ok(shown)
}

pub(super) fn delete_model(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let name = Noun::Model.name(input).to_owned();
    let state = &mut world.region(&ctx.region).sagemaker;
    if !state.models.contains_key(&name) {
        return Err(Noun::Model.missing(ctx, &name));
    }
    if let Some((user, _)) = state.endpoints.iter().find(|(_, e)| e.fleets().any(|v| v.model == name)) {
        return Err(refused(format!(
            "Cannot delete model \"{}\" because endpoint \"{}\" uses it.",
            Noun::Model.arn(ctx, &name),
            Noun::Endpoint.arn(ctx, user)
        )));
    }
    state.models.remove(&name);
    state.tags.remove(&Noun::Model.arn(ctx, &name));
    Ok(Value::Null)
}

pub(super) fn delete_config(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let name = Noun::Config.name(input).to_owned();
    let state = &mut world.region(&ctx.region).sagemaker;
    if !state.configs.contains_key(&name) {
        return Err(Noun::Config.missing(ctx, &name));
    }
    if let Some((user, _)) = state.endpoints.iter().find(|(_, e)| e.uses_config(&name)) {
        return Err(refused(format!(
            "Cannot delete endpoint configuration \"{}\" because endpoint \"{}\" uses it.",
            Noun::Config.arn(ctx, &name),
            Noun::Endpoint.arn(ctx, user)
        )));
    }
    state.configs.remove(&name);
    state.tags.remove(&Noun::Config.arn(ctx, &name));
    Ok(Value::Null)
}
