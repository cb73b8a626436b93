//! `plan`: what `up` would do. Changes nothing.

use serde_json::json;

use super::look::{self, Wanted};
use super::{Context, Done, show};
use crate::cli;
use crate::error::Result;
use crate::fetch;
use crate::plan;
use crate::progress::Event;

/// Runs it.
///
/// # Errors
/// As `up` before it changes anything.
pub async fn run(context: &Context<'_>, args: &cli::Plan) -> Result<Done> {
    let settings = &context.settings;
    // As `up` would, which has no room here for what is missing.
    let note = fetch::without_room(&settings.root, &settings.config, fetch::free)?;
    let stream = settings.config.models.stream || note.is_some();
    note.into_iter().for_each(|note| context.reporter.report(Event::Note(note)));
    let wanted = Wanted::everything().streaming(stream);
    let (_, plan) = look::planned(context, wanted, plan::up).await?;
    let empty = plan.is_empty();
    let text = if empty {
        format!("Nothing to do: {} is as the config says.", plan.target.stack)
    } else {
        show::plan(&plan, context.ui.manner().out)
    };
    let mut data = serde_json::to_value(&plan).unwrap_or_default();
    data["changes"] = json!(!empty);
    let mut done = Done::new(text, data);
    if args.detailed_exitcode && !empty {
        done.exit_code = 2;
    }
    Ok(done)
}
