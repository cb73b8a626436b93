//! `config`: schema, show, check. No call is made.

use serde_json::json;

use super::{Done, with_ambient};
use crate::cli::{Cli, ConfigAction, ConfigArgs};
use crate::config::schema;
use crate::error::{Error, Result};
use crate::settings;
use crate::ui::Ui;

/// Runs it.
///
/// # Errors
/// What is wrong with the config file.
pub fn run(cli: &Cli, args: &ConfigArgs, ui: &Ui) -> Result<Done> {
    match &args.action {
        ConfigAction::Schema => Ok(Done::new(schema::schema_text(), schema::schema().clone())),
        ConfigAction::Show { origin } => {
            let settings = with_ambient(|ambient| settings::resolve(cli, ambient))?;
            let mut data = json!({"file": settings.file, "settings": settings.to_json()?});
            if *origin {
                data["origins"] = settings
                    .origins
                    .iter()
                    .map(|(path, origin)| (path.clone(), json!(origin)))
                    .collect::<serde_json::Map<_, _>>()
                    .into();
            }
            Ok(Done::new(settings.show(*origin)?, data))
        }
        ConfigAction::Check => {
            let problems = with_ambient(|ambient| settings::config_problems(cli, ambient))?;
            let warnings: Vec<String> =
                problems.iter().flat_map(|p| p.list.iter().map(|one| p.one_line(one))).collect();
            warnings.iter().for_each(|w| ui.warn(w));
            let text =
                if warnings.is_empty() { "The config is good.\n" } else { "The config is good, with warnings.\n" };
            Ok(Done::new(text, json!({"warnings": warnings})))
        }
    }
}

/// The error for a value that was given on the command line instead of in the file.
///
/// # Errors
/// Every problem of the schedule.
pub fn check_schedule(settings: &settings::Settings, entry: &crate::config::ScheduleEntry) -> Result<()> {
    let mut config = settings.config.clone();
    config.autoscaling.enabled = true;
    config.autoscaling.schedule = vec![entry.clone()];
    let problems = crate::config::rules::validate(&config, settings.environment.as_deref());
    let wrong = problems.into_iter().find(|p| p.is_error() && p.path.to_string().starts_with("autoscaling.schedule"));
    match wrong {
        None => Ok(()),
        Some(p) => {
            let error = Error::usage(format!("the scaling schedule {} is not valid", entry.name)).why(p.what.clone());
            Err(match p.help {
                Some(help) => error.next(help),
                None => error,
            })
        }
    }
}
