//! `gui`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

pub(super) const EXAMPLES: &str = "\
Examples:
  comfy-deploy gui                                build it, and serve http://127.0.0.1:8188
  comfy-deploy gui --port 9000 --models ./try     with other models, beside another ComfyUI
  comfy-deploy gui --dry-run                      print the commands of the container tool

Workflows, settings and pictures are kept in ./gui-data. Save a workflow in API format (Workflow >
Export (API)) into workflows/ to deploy it. Ctrl-C stops ComfyUI; that is exit code 0.";

/// `gui`.
#[derive(Debug, Clone, Args)]
pub struct Gui {
    /// Port on 127.0.0.1
    #[arg(long, value_name = "PORT", default_value_t = 8188, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Directory with the models [default: models.dir of the config]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub models: Option<PathBuf>,
    /// Directory for workflows, settings and pictures [default: gui-data beside the config file]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data: Option<PathBuf>,
    /// Do not use a GPU
    #[arg(long)]
    pub cpu: bool,
    /// Print the commands and run nothing
    #[arg(long, visible_alias = "print")]
    pub dry_run: bool,
}
