//! `model`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

const FETCH_EXAMPLES: &str = "\
Examples:
  comfy-deploy model fetch                        what models.files declares and is not here yet
  HF_TOKEN=... comfy-deploy model fetch           with access to gated models
  comfy-deploy model fetch --output json          what came, as data

Interrupted, the same command continues. Variables: HF_TOKEN, HF_ENDPOINT, CIVITAI_API_TOKEN.";

const LOCK_EXAMPLES: &str = "\
Examples:
  comfy-deploy model lock                         lock what is declared and not locked yet
  comfy-deploy model lock --upgrade               lock everything anew, as the sources are now
  comfy-deploy model lock --upgrade checkpoints/flux1-dev-fp8.safetensors
                                                  one file; `model ls` shows the names";

const VERIFY_EXAMPLES: &str = "\
Examples:
  comfy-deploy model verify                       exit code 1 if a file is missing or differs";

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
    /// Fetch the model files that the config declares and that are not here yet
    ///
    /// From Hugging Face, Civitai, the web and S3 into models.dir: in ranges side by side, continued after a break,
    /// verified by sha256. comfy-deploy.lock keeps what came, and from then on the same bytes come or an error. `up`
    /// does this by itself.
    #[command(after_help = FETCH_EXAMPLES)]
    Fetch,
    /// Read every declared file and compare it with comfy-deploy.lock
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify,
    /// List the declared files: where they go, how large they are, whether they are locked and here
    #[command(visible_alias = "list")]
    Ls,
    /// Lock what the sources are now, without fetching where their hub tells the sha256
    #[command(after_help = LOCK_EXAMPLES)]
    Lock {
        /// Lock these files anew, or all of them, as their sources are now
        #[arg(long, value_name = "FILE", num_args = 0..)]
        upgrade: Option<Vec<String>>,
    },
    /// Write the model artifact into a file, byte for byte as it would be uploaded
    ///
    /// The same files give the same bytes on every machine. Nothing is asked of AWS. With models.compression: adaptive,
    /// which needs an uplink, files are packed as with auto.
    #[command(after_help = PACK_EXAMPLES)]
    Pack {
        /// Directory with the models [default: models.dir of the config file]
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
        /// Where to write; - is standard output
        #[arg(short, long = "out", value_name = "FILE", default_value = "model.tar.gz", value_hint = ValueHint::FilePath)]
        out: PathBuf,
        /// Read and hash every file again instead of trusting size and times
        #[arg(long)]
        rehash: bool,
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
