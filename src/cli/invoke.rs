//! `invoke`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

pub(super) const EXAMPLES: &str = "\
Examples:
  comfy-deploy invoke 'a happy dog on a hill'
  comfy-deploy invoke 'a cat' --workflow flux1-dev-fp8 --seed 7 -o cat.png
  comfy-deploy invoke 'a cat' --negative blurred --param 4.width=768 --param Sampler.steps=30
  comfy-deploy invoke 'in winter' --workflow sdxl-image-to-image --image house.jpg
  comfy-deploy invoke 'a cat' --seed 1 -n 4       seeds 1 to 4, one file each
  comfy-deploy invoke 'a cat' --curl              the same as a line for a shell

The Function URL is called as status shows it, signed with the profile's credentials (AWS_IAM).";

/// `invoke`.
#[derive(Debug, Clone, Default, Args)]
pub struct Invoke {
    /// What to see in the picture
    #[arg(value_name = "PROMPT")]
    pub prompt: String,
    /// What not to see in it
    #[arg(long, value_name = "TEXT")]
    pub negative: Option<String>,
    /// A deployed workflow by its file name, .json or not [default: workflow_api.json]
    #[arg(long, short = 'w', value_name = "NAME")]
    pub workflow: Option<String>,
    /// Seed, 0 to 18446744073709551615 [default: drawn, and told]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Set an input: NODE is an id, or a title that only one node has; as often as needed
    #[arg(long = "param", value_name = "NODE.INPUT=VALUE")]
    pub params: Vec<String>,
    /// A picture for the next node that loads one, or for NODE; as often as needed
    #[arg(long = "image", value_name = "[NODE=]FILE", value_hint = ValueHint::FilePath)]
    pub images: Vec<String>,
    /// File or directory to write to [default: WORKFLOW-SEED.jpg here]
    #[arg(long = "out", short = 'o', value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub out: Option<PathBuf>,
    /// Pictures to make, one after the other; with --seed the seeds are consecutive
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub count: u32,
    /// What sort of picture [default: by the ending of --out, else jpeg]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// Call the endpoint itself, without URL and function; the workflow is the one on this machine
    #[arg(long)]
    pub direct: bool,
    /// Overwrite files
    #[arg(long, short = 'f')]
    pub force: bool,
    /// Print a curl line that does the same, and call nothing
    #[arg(long, conflicts_with_all = ["direct", "count", "images"])]
    pub curl: bool,
}

/// A picture format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// JPEG.
    #[value(alias = "jpg")]
    Jpeg,
    /// PNG, without loss.
    Png,
    /// WebP, smaller than JPEG.
    Webp,
}

impl Format {
    /// As the function knows it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Jpeg => "jpeg",
            Format::Png => "png",
            Format::Webp => "webp",
        }
    }
}
