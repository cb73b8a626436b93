//! The two stacks: embedded templates, typed parameters, rendering, evaluation, differences.
//!
//! Everything here is pure. [`foundation`] and [`service`] turn settings into the template that is sent,
//! [`foundation_parameters`] and [`service_parameters`] into its parameters, [`settle`] fits both to what is
//! deployed, [`evaluate`] fills them in as CloudFormation would, and [`diff`] says what an update would do.

mod create_only;
mod diff;
pub mod edit;
mod evaluate;
mod invoker_policy;
mod parameters;
mod version;
mod yaml;

#[cfg(test)]
mod tests;

use serde_json::{Map as Object, Value, json};

pub use create_only::CREATE_ONLY;
pub use diff::{Action, ResourceChange, diff, split_instance_type_change, with_stack_tags};
pub use evaluate::{Evaluated, Pseudo, Resource, canonical, evaluate};
pub use invoker_policy::invoker_policy;
pub use parameters::{
    Artifacts, LOG_RETENTION_DAYS, ModelData, bucket_name, foundation_parameters, model_parameters, service_parameters,
};
pub use version::{
    Deployed, Version, keep_deployment_properties, model_version, parse_model_version, settle, version_hash,
};
pub use yaml::parse;

use crate::settings::Settings;

/// The foundation template as it lies in `templates/`.
pub const FOUNDATION: &str = include_str!("../templates/foundation.yaml");
/// The service template as it lies in `templates/`.
pub const SERVICE: &str = include_str!("../templates/service.yaml");

/// The one variant of the endpoint. Constant, because SageMaker matches variants by name.
pub const VARIANT: &str = "AllTraffic";

/// Bytes of a template that fit into a request (CloudFormation's limit of TemplateBody).
pub const MAX_BODY: usize = 51_200;

/// Logical ids of the service stack that the code itself speaks of.
pub mod ids {
    /// The endpoint's role.
    pub const EXECUTION_ROLE: &str = "ComfyUIModelExecutionRole";
    /// The model.
    pub const MODEL: &str = "ComfyUIModel";
    /// The endpoint config.
    pub const ENDPOINT_CONFIG: &str = "ComfyUIEndpointConfig";
    /// The endpoint.
    pub const ENDPOINT: &str = "ComfyUIEndpoint";
    /// The scalable target with the scaling schedules.
    pub const SCALABLE_TARGET: &str = "ComfyUIScalableTarget";
    /// The scaling policy.
    pub const SCALING_POLICY: &str = "ComfyUIScalingPolicy";
    /// The function.
    pub const FUNCTION: &str = "ComfyUIFunction";
    /// The Function URL.
    pub const FUNCTION_URL: &str = "ComfyUIFunctionUrl";
}

/// A template, ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// Exactly the text that is sent: YAML, or minified JSON when the YAML is larger than [`MAX_BODY`].
    pub body: String,
    /// The same with every function in its long form.
    pub value: Value,
}

impl Rendered {
    /// A template's text.
    pub fn new(value: Value) -> Self {
        let yaml = yaml::emit(&value);
        let body = if yaml.len() <= MAX_BODY { yaml } else { value.to_string() };
        Rendered { body, value }
    }
}

/// The foundation template. It needs nothing that parameters cannot express.
pub fn foundation(_settings: &Settings) -> Rendered {
    Rendered::new(embedded(FOUNDATION))
}

/// The service template with what parameters cannot express: subnets and security groups, the container's
/// environment, scaling schedules.
pub fn service(settings: &Settings) -> Rendered {
    let config = &settings.config;
    let mut template = embedded(SERVICE);
    if let Some(vpc) = &config.endpoint.vpc {
        *property(&mut template, ids::MODEL, "VpcConfig") =
            json!({ "SecurityGroupIds": vpc.security_groups, "Subnets": vpc.subnets });
        if let Value::Array(policies) = property(&mut template, ids::EXECUTION_ROLE, "Policies") {
            policies.push(network_policy());
        }
    }
    if !config.endpoint.environment.is_empty() {
        property(&mut template, ids::MODEL, "PrimaryContainer")["Environment"] = json!(config.endpoint.environment);
    }
    if config.autoscaling.enabled && !config.autoscaling.schedule.is_empty() {
        *property(&mut template, ids::SCALABLE_TARGET, "ScheduledActions") =
            edit::scheduled_actions(&config.autoscaling.schedule);
    }
    Rendered::new(template)
}

/// Parses an embedded template; that they parse is tested.
fn embedded(text: &str) -> Value {
    parse(text).expect("the embedded templates are valid")
}

/// A property's place, made if absent. Only for templates that hold the resource.
fn property<'a>(template: &'a mut Value, resource: &str, name: &str) -> &'a mut Value {
    &mut template["Resources"][resource]["Properties"][name]
}

/// The properties of a resource of any template, if it has them.
fn properties_mut<'a>(template: &'a mut Value, resource: &str) -> Option<&'a mut Object<String, Value>> {
    template.get_mut("Resources")?.get_mut(resource)?.get_mut("Properties")?.as_object_mut()
}

/// What SageMaker needs to attach the endpoint to a VPC (the list in the documentation of CreateModel's
/// execution role permissions). The describing actions know no resource, and the interfaces get their ids
/// only when they are made.
fn network_policy() -> Value {
    json!({
        "PolicyName": "network",
        "PolicyDocument": {
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Action": [
                    "ec2:CreateNetworkInterface",
                    "ec2:CreateNetworkInterfacePermission",
                    "ec2:DeleteNetworkInterface",
                    "ec2:DeleteNetworkInterfacePermission",
                    "ec2:DescribeDhcpOptions",
                    "ec2:DescribeNetworkInterfaces",
                    "ec2:DescribeSecurityGroups",
                    "ec2:DescribeSubnets",
                    "ec2:DescribeVpcs"
                ],
                "Resource": "*"
            }]
        }
    })
}
