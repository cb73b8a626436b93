//! The JSON Schema of the config file: for editors, and for the checker, so that both say the same.

use std::sync::LazyLock;

use serde_json::Value as Json;

use super::Config;

/// The schema.
pub fn schema() -> &'static Json {
    static SCHEMA: LazyLock<Json> = LazyLock::new(|| {
        let mut schema = schemars::schema_for!(Config).to_value();
        if let Some(object) = schema.as_object_mut() {
            object.insert("title".into(), "comfy-deploy.yaml".into());
        }
        schema
    });
    &SCHEMA
}

/// The schema as `config schema` prints it.
pub fn schema_text() -> String {
    // A value made of maps, strings and numbers always serialises.
    let mut text = serde_json::to_string_pretty(schema()).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
