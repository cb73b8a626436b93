//! What the API keeps of function URLs.
//!
//! `FunctionUrl` is `http://127.0.0.1:<port>/_function-urls/<url-id>/` and not AWS's
//! `https://<url-id>.lambda-url.<region>.on.aws/`: whoever follows what GetFunctionUrlConfig or a stack's output says
//! must arrive here, with any client, and neither that name nor `*.localhost` resolves to loopback in every one. AWS's
//! form works too, with `Host` set or `curl --resolve`.

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
    /// The id in the URL.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// AuthType or InvokeMode.
    pub(super) fn setting(&self, name: &str) -> String {
        self.settings.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    fn show(&self, at: &str, ctx: &Ctx, name: &str) -> Value {
        let mut shown = Value::Object(self.settings.clone());
        shown["FunctionUrl"] = json!(format!("{at}{}{}/", super::urls::PREFIX, self.id));
        shown["FunctionArn"] = json!(arn(ctx, name));
        shown["CreationTime"] = json!(iso(self.created));
        shown["LastModifiedTime"] = json!(iso(self.modified));
        shown
    }
}

pub(super) fn create(function: &mut Function, at: &str, ctx: &Ctx, name: &str, input: &Value) -> Answer {
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
    Ok(function.url.insert(config).show(at, ctx, name))
}

pub(super) fn get(function: &mut Function, at: &str, ctx: &Ctx, name: &str) -> Answer {
    let found = function.url.as_ref().map(|u| u.show(at, ctx, name));
    found.ok_or_else(|| missing("The resource you requested does not exist."))
}

pub(super) fn update(function: &mut Function, at: &str, ctx: &Ctx, name: &str, input: &Value) -> Answer {
    let config = function.url.as_mut().ok_or_else(|| missing("The resource you requested does not exist."))?;
    config.settings.extend(pick(input, &SETTINGS));
    config.modified = ctx.now;
    Ok(config.show(at, ctx, name))
}

pub(super) fn delete(function: &mut Function) -> Answer {
    match function.url.take() {
        Some(_) => Ok(Value::Null),
        None => Err(missing("The resource you requested does not exist.")),
    }
}
