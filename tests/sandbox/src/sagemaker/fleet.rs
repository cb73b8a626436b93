//! What an endpoint config means in instances: its variants, their images, the quota they need.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Endpoint, Kind, Noun, models, refused};
use crate::input::{last, text};
use crate::world::{ApiError, Ctx, World};
use crate::{quotas, s3};

/// The fleet of one variant.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Variant {
    /// Name.
    pub name: String,
    /// Model name.
    pub model: String,
    /// As the model says it.
    pub image: String,
    /// By digest; as `image` for registries that are not the sandbox's.
    pub resolved: String,
    /// Instance type.
    pub instance_type: String,
    /// Instances that serve.
    pub current: i64,
    /// Instances that should.
    pub desired: i64,
    /// Traffic weight.
    pub weight: f64,
    /// RoutingConfig and the like, as given.
    pub routing: Option<Value>,
    /// When the fleet was resolved, milliseconds since 1970.
    pub since: i64,
    /// ContainerStartupHealthCheckTimeoutInSeconds, if given.
    pub startup: Option<u64>,
}

impl Variant {
    /// As DescribeEndpoint shows it, without status.
    pub(super) fn show(&self) -> Value {
        let mut shown = json!({
            "VariantName": self.name,
            "DeployedImages": [{
                "SpecifiedImage": self.image,
                "ResolvedImage": self.resolved,
                "ResolutionTime": crate::world::epoch(self.since),
            }],
            "CurrentWeight": self.weight,
            "DesiredWeight": self.weight,
            "CurrentInstanceCount": self.current,
            "DesiredInstanceCount": self.desired,
        });
        if let Some(routing) = &self.routing {
            shown["RoutingConfig"] = routing.clone();
        }
        shown
    }
}

impl Endpoint {
    /// Live fleets and those being made.
    pub(super) fn fleets(&self) -> impl Iterator<Item = &Variant> {
        let coming = match self.operation.as_ref().map(|o| &o.kind) {
            Some(Kind::Deploy { variants, .. }) => variants.as_slice(),
            _ => &[],
        };
        self.variants.iter().chain(coming)
    }

    /// Whether the config is the live one or the one being deployed.
    pub(super) fn uses_config(&self, name: &str) -> bool {
        let coming = match self.operation.as_ref().map(|o| &o.kind) {
            Some(Kind::Deploy { config, .. }) => Some(config.as_str()),
            _ => None,
        };
        self.config == name || coming == Some(name)
    }
}

/// The fleets of a config, everything checked that must be there to start them.
pub(super) fn resolve(world: &mut World, ctx: &Ctx, config: &str) -> Result<Vec<Variant>, ApiError> {
    let state = &world.region(&ctx.region).sagemaker;
    let made = state.configs.get(config).ok_or_else(|| Noun::Config.missing(ctx, config))?;
    let mut found = Vec::new();
    for variant in made.input["ProductionVariants"].as_array().into_iter().flatten() {
        let name = last(text(variant, "ModelName"));
        let model = state.models.get(name).ok_or_else(|| Noun::Model.missing(ctx, name))?;
        found.push((variant.clone(), name.to_owned(), model.input.clone()));
    }
    let mut fleets = Vec::new();
    for (variant, model_name, model) in found {
        let role = text(&model, "ExecutionRoleArn");
        models::check_role(world, role)?;
        let mut images = Vec::new();
        for container in models::containers(&model) {
            let image = text(container, "Image");
            let digest = models::check_image(world, ctx, image)?;
            check_data(world, ctx, container, role)?;
            images.push((image.to_owned(), resolved(image, digest)));
        }
        let (image, resolved) = images.into_iter().next().unwrap_or_default();
        let count = variant["InitialInstanceCount"].as_i64().unwrap_or(1);
        fleets.push(Variant {
            name: text(&variant, "VariantName").to_owned(),
            model: model_name,
            image,
            resolved,
            instance_type: text(&variant, "InstanceType").to_owned(),
            current: 0,
            desired: count,
            weight: variant["InitialVariantWeight"].as_f64().unwrap_or(1.0),
            routing: variant.get("RoutingConfig").filter(|r| !r.is_null()).cloned(),
            since: ctx.now,
            startup: variant["ContainerStartupHealthCheckTimeoutInSeconds"].as_u64(),
        });
    }
    Ok(fleets)
}

fn resolved(image: &str, digest: Option<String>) -> String {
    match digest {
        None => image.to_owned(),
        Some(digest) => {
            let repository = image.split('@').next().unwrap_or(image);
            // A colon after the last slash starts the tag; one before it is a port.
            let slash = repository.rfind('/').unwrap_or(0);
            let end = repository[slash..].find(':').map_or(repository.len(), |colon| slash + colon);
            format!("{}@{digest}", &repository[..end])
        }
    }
}

fn check_data(world: &World, ctx: &Ctx, container: &Value, role: &str) -> Result<(), ApiError> {
    let additional = container["AdditionalModelDataSources"].as_array().into_iter().flatten();
    let sources = std::iter::once(&container["ModelDataSource"]).chain(additional);
    let mut wanted: Vec<(&str, bool)> =
        sources.map(|s| &s["S3DataSource"]).map(|s| (text(s, "S3Uri"), s["S3DataType"] == "S3Prefix")).collect();
    wanted.push((text(container, "ModelDataUrl"), false));
    for (uri, prefix) in wanted.into_iter().filter(|(uri, _)| !uri.is_empty()) {
        let Some((bucket, key)) = uri.strip_prefix("s3://").and_then(|rest| rest.split_once('/')) else {
            return Err(refused(format!("Invalid S3 URI {uri}.")));
        };
        let there = if prefix { s3::any_under(world, bucket, key) } else { s3::exists(world, bucket, key).is_some() };
        if !there {
            return Err(refused(format!(
                "Could not access model data at {uri}. Please ensure that the role \"{role}\" exists and that its trust \
                 relationship policy allows the action \"sts:AssumeRole\" for the service principal \
                 \"sagemaker.amazonaws.com\". Also ensure that the role has \"s3:GetObject\" permissions and that the \
                 object is located in {}.",
                ctx.region
            )));
        }
    }
    Ok(())
}

/// Refuses fleets that do not fit beside what runs already.
pub(super) fn check_quota(world: &mut World, ctx: &Ctx, fleets: &[Variant]) -> Result<(), ApiError> {
    let mut delta: BTreeMap<&str, i64> = BTreeMap::new();
    for variant in fleets {
        *delta.entry(&variant.instance_type).or_default() += variant.desired;
    }
    for (kind, delta) in delta {
        let endpoints = world.region(&ctx.region).sagemaker.endpoints.values();
        let used: i64 = endpoints
            .flat_map(Endpoint::fleets)
            .filter(|v| v.instance_type == kind)
            .map(|v| v.current.max(v.desired))
            .sum();
        let most = quotas::endpoint_limit(world, &ctx.region, kind);
        if used + delta > most {
            return Err(ApiError::new(
                "ResourceLimitExceeded",
                format!(
                    "The account-level service limit '{kind} for endpoint usage' is {most} Instances, with current \
                     utilization of {used} Instances and a request delta of {delta} Instances. Please use AWS Service \
                     Quotas to request an increase for this quota. If AWS Service Quotas is not available, contact AWS \
                     support to request an increase for this quota."
                ),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_resolved_image_has_no_tag_and_keeps_its_port() {
        for (image, wanted) in [
            ("h:5000/a/b:tag", "h:5000/a/b@sha256:1"),
            ("h/a", "h/a@sha256:1"),
            ("h/a@sha256:1", "h/a@sha256:1"),
            ("h/a:t@sha256:1", "h/a@sha256:1"),
        ] {
            assert_eq!(super::resolved(image, Some("sha256:1".into())), wanted);
        }
        assert_eq!(super::resolved("h/a:t", None), "h/a:t");
    }
}
