//! `config`.

use clap::{Args, Subcommand};

pub(super) const EXAMPLES: &str = "\
Examples:
  comfy-deploy config check                       every problem of the config file at once
  comfy-deploy config show --origin               each setting, and what decided it
  comfy-deploy config schema > comfy-deploy.schema.json
                                                  for the editor: # yaml-language-server: $schema=...";

/// `config`.
#[derive(Debug, Clone, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: ConfigAction,
}

/// What `config` does.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigAction {
    /// Print the JSON Schema of comfy-deploy.yaml
    Schema,
    /// Print the settings in force: file, overlay, variables and flags together
    Show {
        /// Say beside each value what decided it
        #[arg(long)]
        origin: bool,
    },
    /// Check the config file and every overlay in it, and say nothing if they are right
    Check,
}
