//! `plan`: what `up` would do. Changes nothing.

use serde_json::json;

use super::look::{self, Wanted};
use super::{Context, Done, show};
use crate::cli;
use crate::error::Result;
use crate::plan;

/// Runs it.
///
/// # Errors
/// As `up` before it changes anything.
pub async fn run(context: &Context<'_>, args: &cli::Plan) -> Result<Done> {
    let wanted = Wanted::everything().streaming(context.settings.config.models.stream);
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
