//! What a stack is wanted to be: a checked template with its parameters, conditions decided.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::expand::{Mention, Scope, mentions};
use super::template::{Template, plain};
use super::{Fail, Parameter, invalid, params, schema};
use crate::world::{ACCOUNT, ApiError, Ctx};

/// A template and everything given with it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// As sent.
    pub text: String,
    pub description: Option<String>,
    pub(super) parameters: Vec<Parameter>,
    pub scope: Scope,
    /// Those whose condition holds.
    pub resources: BTreeMap<String, Wanted>,
    /// Those whose condition holds.
    pub outputs: BTreeMap<String, Value>,
    pub tags: Vec<(String, String)>,
    pub capabilities: Vec<String>,
    pub role_arn: Option<String>,
    pub notification_arns: Vec<String>,
    /// The declared properties, before conditions: what a change set compares to say whether the template changed.
    pub declared: BTreeMap<String, Value>,
}

/// A resource as the template has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Wanted {
    /// The type.
    pub kind: String,
    /// Branches chosen, other functions still in.
    pub properties: Map<String, Value>,
    pub depends: BTreeSet<String>,
    pub deletion_policy: String,
    pub replace_policy: String,
    pub metadata: Value,
}

/// What a request says beside the template.
#[derive(Debug, Clone, Default)]
pub struct Given<'a> {
    pub parameters: &'a [Value],
    pub(super) previous: Option<&'a [Parameter]>,
    pub tags: Vec<(String, String)>,
    pub capabilities: Vec<String>,
    pub role_arn: Option<String>,
    pub notification_arns: Vec<String>,
}

const MEMBERS: &[&str] = &[
    "Condition",
    "CreationPolicy",
    "DeletionPolicy",
    "DependsOn",
    "Metadata",
    "Properties",
    "Type",
    "UpdatePolicy",
    "UpdateReplacePolicy",
];
const PSEUDO: &[&str] = &[
    "AWS::AccountId",
    "AWS::NoValue",
    "AWS::NotificationARNs",
    "AWS::Partition",
    "AWS::Region",
    "AWS::StackId",
    "AWS::StackName",
    "AWS::URLSuffix",
];

/// All that can be said of a template without parameter values, as ValidateTemplate does.
pub fn check(template: &Template) -> Result<(), Fail> {
    params::check_declarations(template)?;
    let mut strange = BTreeSet::new();
    for (name, resource) in template.members("Resources") {
        if !params::alphanumeric(name) {
            return Err(invalid(format!("Template format error: Resource name {name} is non alphanumeric.")));
        }
        let Some(members) = resource.as_object() else {
            return Err(invalid(format!(
                "Template format error: [/Resources/{name}] Every Resources object must be an object."
            )));
        };
        let Some(kind) = members.get("Type").and_then(Value::as_str) else {
            return Err(invalid(format!(
                "Template format error: [/Resources/{name}] Every Resources object must contain a Type member."
            )));
        };
        if let Some(unknown) = members.keys().find(|key| !MEMBERS.contains(&key.as_str())) {
            return Err(invalid(format!("Invalid template resource property '{unknown}'")));
        }
        if schema::of(kind).is_none() {
            strange.insert(kind);
        }
        if members.get("Properties").is_some_and(|properties| !properties.is_object()) {
            return Err(invalid("Template format error: Properties member must be an object."));
        }
        for (member, allowed) in [
            ("DeletionPolicy", &["Delete", "Retain", "RetainExceptOnCreate"][..]),
            ("UpdateReplacePolicy", &["Delete", "Retain"]),
        ] {
            if let Some(policy) = members.get(member)
                && !policy.as_str().is_some_and(|policy| allowed.contains(&policy))
            {
                return Err(invalid(format!(
                    "Template format error: Unrecognized {member} {} for resource {name}",
                    plain(policy)
                )));
            }
        }
    }
    if !strange.is_empty() {
        let names: Vec<&str> = strange.into_iter().collect();
        return Err(invalid(format!("Template format error: Unrecognized resource types: [{}]", names.join(", "))));
    }
    check_mentions(template)?;
    check_cycles(template)
}

fn check_mentions(template: &Template) -> Result<(), Fail> {
    let conditions = template.section("Conditions");
    let mut found = BTreeSet::new();
    for (_, body) in template.members("Conditions") {
        mentions(body, &mut found)?;
    }
    for mention in &found {
        match mention {
            Mention::Name(name) if !is_parameter(template, name) && !PSEUDO.contains(&name.as_str()) => {
                return Err(invalid(format!(
                    "Template format error: Unresolved dependencies [{name}]. Cannot reference resources in the Conditions block of the template"
                )));
            }
            Mention::Attribute(..) => {
                return Err(invalid(
                    "Template format error: Conditions can only be boolean operations on parameters and other conditions",
                ));
            }
            _ => {}
        }
    }
    check_conditions(&found, conditions, "Conditions")?;
    for block in ["Resources", "Outputs"] {
        let (mut found, mut depended) = (BTreeSet::new(), BTreeSet::new());
        for (name, body) in template.members(block) {
            if block == "Outputs" {
                check_output(name, body)?;
            }
            if let Some(condition) = body.get("Condition") {
                found.insert(Mention::Condition(plain(condition)));
            }
            for member in ["Properties", "Value", "Export", "Metadata"] {
                if let Some(inner) = body.get(member) {
                    mentions(inner, &mut found)?;
                }
            }
            depended.extend(depends_on(body)?);
        }
        let mut unresolved: Vec<&str> =
            depended.iter().filter(|name| !is_resource(template, name)).map(String::as_str).collect();
        for mention in &found {
            match mention {
                Mention::Name(name) => {
                    let known =
                        is_resource(template, name) || is_parameter(template, name) || PSEUDO.contains(&name.as_str());
                    if !known {
                        unresolved.push(name);
                    }
                }
                Mention::Attribute(resource, attribute) => {
                    let Some(body) = template.section("Resources").and_then(|all| all.get(resource)) else {
                        return Err(invalid(format!(
                            "Template error: instance of Fn::GetAtt references undefined resource {resource}"
                        )));
                    };
                    let kind = body.get("Type").and_then(Value::as_str).unwrap_or_default();
                    if !schema::has_attribute(kind, attribute) {
                        return Err(invalid(format!(
                            "Template error: resource {resource} does not support attribute type {attribute} in Fn::GetAtt"
                        )));
                    }
                }
                Mention::Condition(_) => {}
            }
        }
        if !unresolved.is_empty() {
            return Err(invalid(format!(
                "Template format error: Unresolved resource dependencies [{}] in the {block} block of the template",
                unresolved.join(", ")
            )));
        }
        check_conditions(&found, conditions, block)?;
    }
    Ok(())
}

fn check_conditions(
    found: &BTreeSet<Mention>,
    conditions: Option<&Map<String, Value>>,
    block: &str,
) -> Result<(), Fail> {
    for mention in found {
        if let Mention::Condition(name) = mention
            && !conditions.is_some_and(|all| all.contains_key(name))
        {
            return Err(invalid(format!(
                "Template format error: Unresolved condition dependency {name} in the {block} block of the template"
            )));
        }
    }
    Ok(())
}

fn check_output(name: &str, body: &Value) -> Result<(), Fail> {
    if !params::alphanumeric(name) {
        return Err(invalid(format!("Template format error: Output name {name} is non alphanumeric.")));
    }
    let Some(members) = body.as_object() else {
        return Err(invalid(format!(
            "Template format error: [/Outputs/{name}] Every Outputs member must be an object."
        )));
    };
    if !members.contains_key("Value") {
        return Err(invalid(format!(
            "Template format error: Every Outputs member must contain a Value object. [/Outputs/{name}]"
        )));
    }
    match members.keys().find(|key| !["Condition", "Description", "Export", "Value"].contains(&key.as_str())) {
        Some(unknown) => Err(invalid(format!("Invalid template output property '{unknown}'"))),
        None => Ok(()),
    }
}

fn depends_on(body: &Value) -> Result<Vec<String>, Fail> {
    match body.get("DependsOn") {
        None => Ok(Vec::new()),
        Some(Value::String(name)) => Ok(vec![name.clone()]),
        Some(Value::Array(names)) if names.iter().all(Value::is_string) => Ok(names.iter().map(plain).collect()),
        Some(_) => Err(invalid("Template format error: DependsOn must be a string or list of strings.")),
    }
}

fn is_parameter(template: &Template, name: &str) -> bool {
    template.section("Parameters").is_some_and(|all| all.contains_key(name))
}

fn is_resource(template: &Template, name: &str) -> bool {
    template.section("Resources").is_some_and(|all| all.contains_key(name))
}

/// The resources that a value mentions.
pub fn resources_in(value: &Value) -> Result<BTreeSet<String>, Fail> {
    let mut found = BTreeSet::new();
    mentions(value, &mut found)?;
    Ok(found
        .into_iter()
        .filter_map(|mention| match mention {
            Mention::Name(name) | Mention::Attribute(name, _) => Some(name),
            Mention::Condition(_) => None,
        })
        .collect())
}

fn check_cycles(template: &Template) -> Result<(), Fail> {
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, body) in template.members("Resources") {
        let mut depends = match body.get("Properties") {
            Some(properties) => resources_in(properties)?,
            None => BTreeSet::new(),
        };
        depends.extend(depends_on(body)?);
        depends.retain(|name| is_resource(template, name));
        edges.insert(name.clone(), depends);
    }
    // Takes away what nothing waits for, until only circles are left: first from below, then from above.
    loop {
        let free: Vec<String> = edges
            .iter()
            .filter(|(name, depends)| {
                !depends.iter().any(|d| edges.contains_key(d))
                    || !edges.values().any(|others| others.contains(name.as_str()))
            })
            .map(|(name, _)| name.clone())
            .collect();
        if free.is_empty() {
            break;
        }
        edges.retain(|name, _| !free.contains(name));
    }
    if edges.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = edges.into_keys().collect();
    Err(invalid(format!("Template error: Circular dependency between resources: [{}]", names.join(", "))))
}

/// The capabilities a template needs, and the types that need them.
pub fn capabilities(template: &Template) -> (Vec<&'static str>, Vec<String>) {
    let mut kinds = BTreeSet::new();
    let mut named = false;
    for (_, body) in template.members("Resources") {
        let kind = body.get("Type").and_then(Value::as_str).unwrap_or_default();
        if kind.starts_with("AWS::IAM::") {
            kinds.insert(kind.to_owned());
            named |= schema::name_property(kind)
                .is_some_and(|name| body.get("Properties").is_some_and(|properties| properties.get(name).is_some()));
        }
    }
    let needed = match (kinds.is_empty(), named) {
        (true, _) => Vec::new(),
        (false, true) => vec!["CAPABILITY_NAMED_IAM"],
        (false, false) => vec!["CAPABILITY_IAM"],
    };
    (needed, kinds.into_iter().collect())
}

/// A template with everything given, checked.
pub fn build(ctx: &Ctx, stack_name: &str, stack_id: &str, text: String, given: Given<'_>) -> Result<Spec, Fail> {
    let template = Template::parse(&text)?;
    check(&template)?;
    let parameters = params::decide(&template, given.parameters, given.previous)?;
    let (needed, _) = capabilities(&template);
    let has = |name: &str| given.capabilities.iter().any(|given| given == name);
    // The named one includes the other.
    let enough = needed.iter().all(|name| has(name) || has("CAPABILITY_NAMED_IAM"));
    if !enough {
        return Err(ApiError::new(
            "InsufficientCapabilitiesException",
            format!("Requires capabilities : [{}]", needed.join(", ")),
        ));
    }
    let mut values = params::values(&template, &parameters);
    for (name, value) in [
        ("AWS::AccountId", json!(ACCOUNT)),
        ("AWS::NotificationARNs", json!(given.notification_arns)),
        ("AWS::Partition", json!("aws")),
        ("AWS::Region", json!(ctx.region)),
        ("AWS::StackId", json!(stack_id)),
        ("AWS::StackName", json!(stack_name)),
        ("AWS::URLSuffix", json!("amazonaws.com")),
    ] {
        values.insert(name.to_owned(), value);
    }
    let scope = Scope::new(&template, values)?;
    let holds = |body: &Value| match body.get("Condition").and_then(Value::as_str) {
        Some(name) => scope.conditions.get(name).copied().unwrap_or(false),
        None => true,
    };
    let present: BTreeSet<&String> =
        template.members("Resources").filter(|(_, body)| holds(body)).map(|(name, _)| name).collect();
    let (mut resources, mut declared) = (BTreeMap::new(), BTreeMap::new());
    for (name, body) in template.members("Resources").filter(|(_, body)| holds(body)) {
        let properties = body.get("Properties").cloned().unwrap_or_else(|| json!({}));
        let reduced = scope.reduce(&properties)?.unwrap_or_else(|| json!({}));
        let used: BTreeSet<String> =
            resources_in(&reduced)?.into_iter().filter(|name| is_resource(&template, name)).collect();
        refuse_absent(&used, &present, "Resources")?;
        let mut depends = used;
        depends.extend(depends_on(body)?.into_iter().filter(|name| present.contains(name)));
        let policy = |member: &str| body.get(member).and_then(Value::as_str).map(str::to_owned);
        let Value::Object(properties_now) = reduced else {
            return Err(invalid("Template format error: Properties member must be an object."));
        };
        resources.insert(
            name.clone(),
            Wanted {
                kind: body.get("Type").map(plain).unwrap_or_default(),
                properties: properties_now,
                depends,
                deletion_policy: policy("DeletionPolicy").unwrap_or_else(|| "Delete".to_owned()),
                replace_policy: policy("UpdateReplacePolicy").unwrap_or_else(|| "Delete".to_owned()),
                metadata: body.get("Metadata").cloned().unwrap_or(Value::Null),
            },
        );
        declared.insert(name.clone(), properties);
    }
    if resources.is_empty() {
        return Err(invalid("Template format error: At least one Resources member must be defined."));
    }
    let mut outputs = BTreeMap::new();
    for (name, body) in template.members("Outputs").filter(|(_, body)| holds(body)) {
        let body = scope.reduce(body)?.unwrap_or(Value::Null);
        let used: BTreeSet<String> = resources_in(body.get("Value").unwrap_or(&Value::Null))?
            .into_iter()
            .filter(|name| is_resource(&template, name))
            .collect();
        refuse_absent(&used, &present, "Outputs")?;
        outputs.insert(name.clone(), body);
    }
    Ok(Spec {
        description: template.description().map(str::to_owned),
        text,
        parameters,
        scope,
        resources,
        outputs,
        tags: given.tags,
        capabilities: given.capabilities,
        role_arn: given.role_arn,
        notification_arns: given.notification_arns,
        declared,
    })
}

fn refuse_absent(used: &BTreeSet<String>, present: &BTreeSet<&String>, block: &str) -> Result<(), Fail> {
    let absent: Vec<&str> = used.iter().filter(|name| !present.contains(name)).map(String::as_str).collect();
    if absent.is_empty() {
        return Ok(());
    }
    Err(invalid(format!(
        "Template format error: Unresolved resource dependencies [{}] in the {block} block of the template",
        absent.join(", ")
    )))
}
