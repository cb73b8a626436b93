//! `model`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

const PACK_EXAMPLES: &str = "\
Examples:
  comfy-deploy model pack                              model.tar.gz in the working directory
  comfy-deploy model pack -o - | tar tzf -             to standard output
  comfy-deploy model pack --dir ~/models -o /mnt/model.tar.gz";

const PUSH_EXAMPLES: &str = "\
Examples:
  comfy-deploy model push                   upload the models, ready for the next up
  comfy-deploy model push --dry-run         what would be copied and what sent
  comfy-deploy model push --output json     the same, for scripts

Interrupted, the same command continues where it stopped.";

/// `model`.
#[derive(Debug, Clone, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct ModelArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: ModelAction,
}

/// What `model` does.
#[derive(Debug, Clone, Subcommand)]
pub enum ModelAction {
    /// Write the model artifact into a file, byte for byte as it would be uploaded
    ///
    /// The same files give the same bytes on every machine. Nothing is asked of AWS.
    #[command(after_help = PACK_EXAMPLES)]
    Pack {
        /// Directory with the models [default: models.dir of the config file]
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
        /// Where to write; - is standard output
        #[arg(short, long = "out", value_name = "FILE", default_value = "model.tar.gz", value_hint = ValueHint::FilePath)]
        out: PathBuf,
    },
    /// Upload the models, and deploy nothing
    ///
    /// Files that an earlier artifact in the bucket has are copied there; only what is new is sent.
    #[command(after_help = PUSH_EXAMPLES)]
    Push {
        /// Tell what would be copied and sent, and send nothing
        #[arg(long)]
        dry_run: bool,
        /// Read and hash every file again instead of trusting size and times
        #[arg(long)]
        rehash: bool,
    },
}
