//! Operations on templates.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{missing, named, template_text};
use crate::cfn::template::Template;
use crate::cfn::{invalid, params, schema, spec, text};
use crate::world::{Answer, Ctx, World};

pub(super) fn validate(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let body = template_text(world, ctx, input)?
        .ok_or_else(|| invalid("Either Template URL or Template Body must be specified."))?;
    let template = Template::parse(&body)?;
    spec::check(&template)?;
    let mut answer = json!({ "Parameters": params::describe(&template, false) });
    if let Some(description) = template.description() {
        answer["Description"] = json!(description);
    }
    add_capabilities(&template, &mut answer);
    Ok(answer)
}

fn add_capabilities(template: &Template, answer: &mut Value) {
    let (needed, kinds) = spec::capabilities(template);
    if !needed.is_empty() {
        answer["Capabilities"] = json!(needed);
        answer["CapabilitiesReason"] =
            json!(format!("The following resource(s) require capabilities: [{}]", kinds.join(", ")));
    }
}

pub(super) fn get(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let body = if input.get("ChangeSetName").is_some() {
        super::change_sets::find(world, ctx, input)?.spec.text.clone()
    } else {
        let name = text(input, "StackName").ok_or_else(|| invalid("StackName is required"))?.to_owned();
        let state = &world.region(&ctx.region).cfn;
        let stack = state.find(&name).ok_or_else(|| missing(&name))?;
        stack.spec.text.clone()
    };
    // Without transforms the processed template is the original one.
    Ok(json!({ "TemplateBody": body, "StagesAvailable": ["Original", "Processed"] }))
}

pub(super) fn summary(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let body = match template_text(world, ctx, input)? {
        Some(body) => body,
        None => named(world, ctx, input)?.spec.text.clone(),
    };
    let template = Template::parse(&body)?;
    spec::check(&template)?;
    let mut kinds: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for (logical, resource) in template.members("Resources") {
        kinds.entry(resource["Type"].as_str().unwrap_or_default()).or_default().push(logical);
    }
    let identifiers: Vec<Value> = kinds
        .iter()
        .filter_map(|(kind, logical)| {
            let schema = schema::of(kind)?;
            Some(json!({
                "ResourceType": kind,
                "LogicalResourceIds": logical,
                "ResourceIdentifiers": schema.primary_identifier,
            }))
        })
        .collect();
    let types: BTreeSet<&str> = kinds.keys().copied().collect();
    let mut answer = json!({
        "Parameters": params::describe(&template, true),
        "ResourceTypes": types,
        "Version": "2010-09-09",
        "DeclaredTransforms": [],
        "ResourceIdentifierSummaries": identifiers,
    });
    if let Some(description) = template.description() {
        answer["Description"] = json!(description);
    }
    if let Some(metadata) = template.raw("Metadata") {
        answer["Metadata"] = json!(metadata.to_string());
    }
    add_capabilities(&template, &mut answer);
    Ok(answer)
}
