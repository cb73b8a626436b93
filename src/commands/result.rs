//! What a deployment leaves behind, as text and as `data` of the JSON envelope.

use std::fmt::Write;

use serde_json::{Value, json};

use super::Context;
use super::sandbox::DEFAULT_URL;
use super::show::limit;
use crate::apply::deploy::Deployed;
use crate::cloud::Stack;
use crate::plan::{ModelPlan, Plan, World};
use crate::settings::Settings;

/// Both forms.
pub fn describe(
    context: &Context<'_>,
    plan: &Plan,
    world: &World,
    stack: Option<&Stack>,
    done: &Deployed,
) -> (String, Value) {
    let t = &plan.target;
    let empty = crate::cloud::Map::new();
    let parameters = stack.map_or(&empty, |s| &s.parameters);
    let outputs = stack.map_or(&empty, |s| &s.outputs);
    let endpoint = done.endpoint.as_ref().or(world.endpoint.as_ref());
    let version = parameters.get("ModelVersion").cloned().unwrap_or_default();
    let url = outputs.get("ComfyUIFunctionUrl").cloned();
    let (repository, digest) = match done.image.rsplit_once('@') {
        Some((repository, digest)) => (repository.to_owned(), Some(digest.to_owned())),
        None => (done.image.clone(), None),
    };
    let (id, key, bytes) = match &plan.model {
        ModelPlan::Present { id, key, bytes, at_most } | ModelPlan::Upload { id, key, bytes, at_most, .. } => {
            // Now that it is there, its size is known.
            let bytes = done.model_bytes.map_or((*bytes, *at_most), |bytes| (bytes, false));
            (Some(id.clone()), key.clone(), Some(bytes))
        }
        ModelPlan::External { key, .. } => (None, key.clone(), None),
        ModelPlan::Keep => (None, parameters.get("ModelDataS3Key").cloned().unwrap_or_default(), None),
    };
    let bucket = match &plan.model {
        ModelPlan::External { bucket, .. } => bucket.clone(),
        _ => parameters.get("ModelDataBucket").filter(|b| !b.is_empty()).unwrap_or(&t.bucket).clone(),
    };
    let crc = done.crc64nvme.clone().or_else(|| world.model_crc64nvme.clone());
    let instance_type = parameters.get("SageMakerInstanceType").cloned();

    let mut text = String::new();
    if let Some(e) = endpoint {
        let _ = writeln!(
            text,
            "endpoint   {} {} on {} ({})",
            e.name,
            e.status,
            instance_type.as_deref().unwrap_or("?"),
            e.config
        );
    }
    let _ = writeln!(
        text,
        "model      {version}{}\n           s3://{bucket}\n           {key}",
        bytes.map_or(String::new(), |(b, at_most)| format!(", {}", limit(b, at_most)))
    );
    let _ = writeln!(text, "image      {}", super::show::short(&done.image));
    match &url {
        Some(url) => {
            let auth = match parameters.get("LambdaUrlAuthType").map(String::as_str) {
                Some("NONE") => "anybody who knows the URL can call it",
                _ => "callers sign their requests (AWS_IAM)",
            };
            let _ = writeln!(text, "function   {url}\n           {auth}");
        }
        None => {
            let _ = writeln!(text, "function   no URL");
        }
    }
    if done.changed {
        let how = flags(&context.settings);
        let direct = if url.is_some() { "" } else { " --direct" };
        let _ = writeln!(text, "\nMake a picture:  comfy-deploy{how} invoke{direct} \"a happy dog on a hill\"");
        let _ = writeln!(text, "Look again with: comfy-deploy{how} status");
    }

    let data = json!({
        "account": t.account,
        "region": t.region,
        "stacks": {"foundation": t.foundation, "service": t.stack},
        "changed": done.changed,
        "endpoint": endpoint.map(|e| json!({
            "name": e.name,
            "arn": e.arn,
            "status": e.status,
            "config": e.config,
            "variant": e.variants.first().map(|v| v.name.clone()),
            "instance_type": instance_type,
        })),
        "model": {"version": version, "bucket": bucket, "key": key, "id": id, "crc64nvme": crc, "bytes": bytes.map(|(b, _)| b), "uploaded": done.uploaded},
        "image": {"repository": repository, "tag": tag(plan), "digest": digest, "built": done.built},
        "function": {"name": outputs.get("FunctionName"), "url": url, "auth": parameters.get("LambdaUrlAuthType")},
        "cleared": done.cleared,
        "durations": done.durations,
    });
    (text, data)
}

/// The flags that another verb needs to find the same app.
fn flags(settings: &Settings) -> String {
    let mut flags = String::new();
    if let Some(url) = &settings.sandbox {
        flags.push_str(if url == DEFAULT_URL { " --sandbox" } else { " --sandbox=" });
        flags.push_str(if url == DEFAULT_URL { "" } else { url });
    }
    if let Some(name) = &settings.environment {
        flags.push_str(&format!(" --env {name}"));
    }
    flags
}

fn tag(plan: &Plan) -> Option<String> {
    match &plan.image {
        crate::plan::ImagePlan::Build { tag, .. } | crate::plan::ImagePlan::Present { tag, .. } => Some(tag.clone()),
        _ => None,
    }
}
