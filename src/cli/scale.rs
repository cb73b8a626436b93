//! `scale`.

use clap::{Args, Subcommand};

use super::Waiting;

pub(super) const EXAMPLES: &str = "\
Examples:
  comfy-deploy scale set --min 1 --max 4
  comfy-deploy scale off
  comfy-deploy scale schedule add night --when 'cron(0 20 * * ? *)' --timezone Europe/Berlin --max 1
  comfy-deploy scale schedule rm night
  comfy-deploy scale schedule ls";

/// `scale`.
#[derive(Debug, Clone, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Scale {
    /// Waiting.
    #[command(flatten)]
    pub waiting: Waiting,
    /// What to do.
    #[command(subcommand)]
    pub action: ScaleAction,
}

/// What `scale` does.
#[derive(Debug, Clone, Subcommand)]
pub enum ScaleAction {
    /// Set the fewest and the most instances, switching autoscaling on if it is off
    Set {
        /// Fewest instances, at least 1
        #[arg(long, value_name = "N", required_unless_present = "max")]
        min: Option<u32>,
        /// Most instances
        #[arg(long, value_name = "N")]
        max: Option<u32>,
    },
    /// Switch autoscaling off; the endpoint keeps the instances it has
    Off,
    /// Recurring changes of the fewest and the most instances
    #[command(subcommand, arg_required_else_help = true)]
    Schedule(ScheduleAction),
}

/// What `scale schedule` does.
#[derive(Debug, Clone, Subcommand)]
pub enum ScheduleAction {
    /// Add a scaling schedule, or replace the one of this name
    Add {
        /// Its name
        name: String,
        /// 'cron(minute hour day-of-month month day-of-week year)' or 'rate(n unit)'
        #[arg(long, value_name = "EXPRESSION")]
        when: String,
        /// IANA time zone of the cron expression, as in Europe/Berlin [default: UTC]
        #[arg(long, value_name = "ZONE")]
        timezone: Option<String>,
        /// Fewest instances from then on, at least 1
        #[arg(long, value_name = "N", required_unless_present = "max")]
        min: Option<u32>,
        /// Most instances from then on
        #[arg(long, value_name = "N")]
        max: Option<u32>,
    },
    /// Remove a scaling schedule
    #[command(visible_alias = "remove")]
    Rm {
        /// Its name
        name: String,
    },
    /// List the scaling schedules that are deployed
    #[command(visible_alias = "list")]
    Ls,
}
