//! `render`: prints exactly what would be sent, without a single call.

use serde_json::json;

use super::Done;
use crate::cli;
use crate::error::{Error, Result};
use crate::settings::Settings;
use crate::stack;

/// Runs it.
///
/// # Errors
/// When a file cannot be written.
pub fn run(settings: &Settings, args: &cli::Render) -> Result<Done> {
    let mut templates = Vec::new();
    if args.wants_foundation() {
        templates.push((settings.foundation(), stack::foundation(settings)));
    }
    if args.wants_service() {
        templates.push((settings.stack(), stack::service(settings)));
    }
    let data = json!({"templates": templates.iter().map(|(name, t)| (name.clone(), json!(t.body))).collect::<serde_json::Map<_, _>>()});
    let Some(dir) = &args.out else {
        // One template is printed as it is sent; two as YAML documents.
        let text = templates.iter().map(|(_, t)| t.body.trim_end().to_owned()).collect::<Vec<_>>().join("\n---\n");
        return Ok(Done::new(format!("{text}\n"), data));
    };
    std::fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, &e))?;
    let mut text = String::new();
    for (name, template) in &templates {
        let file = dir.join(format!("{name}.template.yaml"));
        std::fs::write(&file, &template.body).map_err(|e| Error::io("write", &file, &e))?;
        text.push_str(&format!("{}\n", file.display()));
    }
    Ok(Done::new(text, data))
}
