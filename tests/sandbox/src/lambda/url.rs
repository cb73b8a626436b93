//! Function URLs.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::function::Function;
use super::{arn, conflict, missing};
use crate::input::pick;
use crate::world::{Answer, Ctx, iso};

const SETTINGS: [&str; 3] = ["AuthType", "Cors", "InvokeMode"];

/// A URL's configuration.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    id: String,
    created: i64,
    modified: i64,
    settings: Map<String, Value>,
}

impl Config {
    fn show(&self, ctx: &Ctx, name: &str) -> Value {
        let mut shown = Value::Object(self.settings.clone());
        shown["FunctionUrl"] = json!(format!("https://{}.lambda-url.{}.on.aws/", self.id, ctx.region));
        shown["FunctionArn"] = json!(arn(ctx, name));
        shown["CreationTime"] = json!(iso(self.created));
        shown["LastModifiedTime"] = json!(iso(self.modified));
        shown
    }
}

pub(super) fn create(function: &mut Function, ctx: &Ctx, name: &str, input: &Value) -> Answer {
    if function.url.is_some() {
        return Err(conflict(format!(
            "Failed to create function url config for [functionArn = {}]. Error message:  FunctionUrlConfig exists for this \
             Lambda function",
            arn(ctx, name)
        )));
    }
    let mut settings = pick(input, &SETTINGS);
    settings.entry("InvokeMode").or_insert(json!("BUFFERED"));
    let id = uuid::Uuid::new_v4().simple().to_string();
    let config = Config { id, created: ctx.now, modified: ctx.now, settings };
    Ok(function.url.insert(config).show(ctx, name))
}

pub(super) fn get(function: &mut Function, ctx: &Ctx, name: &str) -> Answer {
    let found = function.url.as_ref().map(|u| u.show(ctx, name));
    found.ok_or_else(|| missing("The resource you requested does not exist."))
}

pub(super) fn update(function: &mut Function, ctx: &Ctx, name: &str, input: &Value) -> Answer {
    let config = function.url.as_mut().ok_or_else(|| missing("The resource you requested does not exist."))?;
    config.settings.extend(pick(input, &SETTINGS));
    config.modified = ctx.now;
    Ok(config.show(ctx, name))
}

pub(super) fn delete(function: &mut Function) -> Answer {
    match function.url.take() {
        Some(_) => Ok(Value::Null),
        None => Err(missing("The resource you requested does not exist.")),
    }
}
