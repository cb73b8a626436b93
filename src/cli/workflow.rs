//! `workflow`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

const CHECK_EXAMPLES: &str = "\
Examples:
  comfy-deploy workflow check                     all workflows of the app
  comfy-deploy workflow check new.json            a file, before it goes to the workflows
  comfy-deploy workflow check --output json       the findings as data
  comfy-deploy workflow check --strict            fail on warnings too

An error is what ComfyUI would refuse or fail at, a warning what probably goes wrong, a note what
cannot be known here. Errors end with exit code 2.";

const FILL_EXAMPLES: &str = "\
Examples:
  comfy-deploy workflow fill flux1-dev-fp8.json --positive 'a happy dog on a hill' > ready.json
  comfy-deploy workflow fill workflow_api.json --positive 'a cat' --negative 'blurred' --seed 7 \\
      --param 4.width=768 --param Sampler.steps=30";

/// `workflow`.
#[derive(Debug, Clone, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct WorkflowArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: WorkflowAction,
}

/// What `workflow` does.
#[derive(Debug, Clone, Subcommand)]
pub enum WorkflowAction {
    /// Find everything in workflows that ComfyUI would refuse, before anything is deployed
    ///
    /// Links, types, limits and choices are checked against the node classes of ComfyUI itself, model files against
    /// models.dir. Nothing is run, and no call is made.
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        /// Workflows in API format [default: all of the app]
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        files: Vec<PathBuf>,
        /// Let warnings fail too
        #[arg(long)]
        strict: bool,
    },
    /// List the workflows of the app: what they load, and whether something is wrong with them
    #[command(visible_alias = "list")]
    Ls,
    /// Put prompts, a seed and values into a workflow, and print it
    ///
    /// Does what the function does with a request, so the result can be queued in ComfyUI or sent to the endpoint.
    #[command(after_help = FILL_EXAMPLES)]
    Fill {
        /// A workflow in API format: a file, or the name of one of the app's
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Text for POSITIVE_PROMPT_PLACEHOLDER (or POSITIVE_PROMT_PLACEHOLDER)
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        positive: String,
        /// Text for NEGATIVE_PROMPT_PLACEHOLDER
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        negative: String,
        /// Seed, 0 to 18446744073709551615 [default: drawn, and told]
        #[arg(long, value_name = "N")]
        seed: Option<u64>,
        /// Set an input: NODE is an id, or a title that only one node has; as often as needed
        #[arg(long = "param", value_name = "NODE.INPUT=VALUE")]
        params: Vec<String>,
    },
}
