//! The command line: clap types, whose doc comments are the help. What a flag means together with the environment
//! and the config file is decided in [`crate::settings`]; nothing else reads these types but `main` and the verbs.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

mod config;
mod gui;
mod invoke;
mod model;
mod scale;
mod workflow;

pub use config::{ConfigAction, ConfigArgs};
pub use gui::Gui;
pub use invoke::{Format, Invoke};
pub use model::{ModelAction, ModelArgs};
pub use scale::{Scale, ScaleAction, ScheduleAction};
pub use workflow::{WorkflowAction, WorkflowArgs};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXIT_CODES: &str = "\
Exit codes:
  0    done, or nothing to do
  1    failed
  2    wrong command line or config (plan --detailed-exitcode: there are changes)
  3    refused at the prompt, or the changes differ from what was confirmed
  4    the stack or the endpoint failed and was rolled back
  5    SageMaker rolled back silently
  6    another operation holds the stack
  7    credentials or a permission
  8    quota or capacity
  130  interrupted

Every flag that a CI job needs has a variable COMFY_DEPLOY_<FLAG>; `comfy-deploy config show --origin`
prints each setting and where it came from.

Examples:
  comfy-deploy up                  deploy, or bring up to date, what comfy-deploy.yaml describes
  comfy-deploy --env prod plan     show what would change in the environment prod
  comfy-deploy --sandbox up        the same, on a stand-in on this machine instead of AWS";

const UP_EXAMPLES: &str = "\
Examples:
  comfy-deploy up                                 show the plan, ask, deploy, wait for InService
  comfy-deploy up --yes --output json             the same in a CI job
  comfy-deploy up --env prod --wait-lock 15m      wait for another deployment of prod to end first
  comfy-deploy up --image-uri comfyui@sha256:...  with a prebuilt image, no builder needed
  comfy-deploy up --keep-on-failure               leave a failed endpoint standing, to look at it";

const PLAN_EXAMPLES: &str = "\
Examples:
  comfy-deploy plan                               what would `up` do
  comfy-deploy plan --detailed-exitcode           0: nothing, 2: changes, 1: error
  comfy-deploy plan --output json                 the plan as data";

const STATUS_EXAMPLES: &str = "\
Examples:
  comfy-deploy status
  comfy-deploy --env prod status --output json";

const UPDATE_MODEL_EXAMPLES: &str = "\
Examples:
  comfy-deploy update-model                       publish models.dir as it is now and move the endpoint to it
  comfy-deploy update-model --version winter      with another label
  comfy-deploy update-model --models ./models-b   from another directory
  comfy-deploy update-model --model-data s3://my-bucket/models/flux.tar.gz
                                                  with a model artifact made elsewhere";

const DESTROY_EXAMPLES: &str = "\
Examples:
  comfy-deploy destroy                            asks for the app's name
  comfy-deploy destroy --confirm comfy            in a script
  comfy-deploy --env test destroy --confirm comfy-test";

const RENDER_EXAMPLES: &str = "\
Examples:
  comfy-deploy render                             both templates, to stdout
  comfy-deploy render --service | less
  comfy-deploy render --out ./rendered            one file per template";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  comfy-deploy completions bash > ~/.local/share/bash-completion/completions/comfy-deploy
  comfy-deploy completions zsh  > \"${fpath[1]}/_comfy-deploy\"
  comfy-deploy completions fish > ~/.config/fish/completions/comfy-deploy.fish";

/// Deploy ComfyUI image generation to Amazon SageMaker from one config file.
#[derive(Debug, Clone, Parser)]
#[command(name = "comfy-deploy", version, styles = STYLES, after_help = EXIT_CODES, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true, propagate_version = false)]
pub struct Cli {
    /// Flags that every verb takes.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Flags that every verb takes, before or after the verb.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The config file [default: comfy-deploy.yaml here or in a parent directory]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Use this overlay of `environments:` in the config; the stack is then named APP-ENV
    #[arg(long, global = true, value_name = "NAME")]
    pub env: Option<String>,
    /// AWS region; there is no default
    #[arg(long, global = true, value_name = "REGION")]
    pub region: Option<String>,
    /// Profile of ~/.aws/config
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// Use the stand-in on this machine instead of AWS: started if absent, or found at URL
    #[arg(long, global = true, value_name = "URL", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub sandbox: Option<String>,
    /// What stdout carries: text for people, or one JSON object
    #[arg(long, global = true, value_name = "FORMAT")]
    pub output: Option<Output>,
    /// Confirm without asking
    #[arg(long, short = 'y', global = true)]
    pub yes: bool,
    /// Never ask; what needs a confirmation then needs --yes
    #[arg(long, global = true)]
    pub no_input: bool,
    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN")]
    pub color: Option<ColorChoice>,
    /// How to show progress: a live screen, plain lines, or nothing
    #[arg(long, global = true, value_name = "HOW")]
    pub progress: Option<ProgressChoice>,
    /// Say more on stderr: -v each step, -vv each AWS call, -vvv everything
    #[arg(long, short = 'v', global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// What stdout carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object: ok, command, version, data, error.
    Json,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR, TERM=dumb or CLICOLOR=0 say otherwise.
    #[default]
    Auto,
    /// Also into files and pipes.
    Always,
    /// Not at all.
    Never,
}

/// How to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ProgressChoice {
    /// A live screen on a terminal, plain lines elsewhere.
    #[default]
    Auto,
    /// A live screen.
    Tty,
    /// One line per change, and a sign of life every 30 seconds.
    Plain,
    /// Nothing.
    None,
}

/// The verbs.
#[derive(Debug, Clone, Subcommand)]
pub enum Verb {
    /// Deploy the app, or bring it up to date, and wait until it serves
    ///
    /// Uploads the models, builds and pushes the inference image, packages the function and creates or updates the
    /// stacks: each only if it changed. Shows the plan and asks once before anything is changed. Interrupted or
    /// failed, the same command continues where it stopped.
    #[command(visible_alias = "deploy", after_help = UP_EXAMPLES)]
    Up(Up),
    /// Show what `up` would do, and change nothing
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(Plan),
    /// Show what is deployed, as AWS sees it now
    #[command(after_help = STATUS_EXAMPLES)]
    Status,
    /// Publish a new model version and move the endpoint to it, nothing else
    ///
    /// The endpoint keeps serving the old model version until the new one is InService. The deployed template is
    /// kept as it is: no other change of the config file goes along.
    #[command(after_help = UPDATE_MODEL_EXAMPLES)]
    UpdateModel(UpdateModel),
    /// Change how many instances the endpoint runs on
    ///
    /// Edits the scalable target and the scaling policy of the deployed stack, nothing else. Copy what you want to
    /// keep into comfy-deploy.yaml: the next `up` applies the file again.
    #[command(after_help = scale::EXAMPLES)]
    Scale(Scale),
    /// Delete the service stack and the models made for it
    ///
    /// The bucket with the model artifacts and the image repository are kept, and named at the end.
    #[command(after_help = DESTROY_EXAMPLES)]
    Destroy(Destroy),
    /// Print the CloudFormation templates and parameters exactly as they would be sent
    #[command(after_help = RENDER_EXAMPLES)]
    Render(Render),
    /// Have the deployed app make a picture, and write it to a file
    ///
    /// The file is written whole or not at all, and none is overwritten without --force. When the app is busy, the same
    /// request is sent again after the time it asks for, some times.
    #[command(after_help = invoke::EXAMPLES)]
    Invoke(Invoke),
    /// The model files: fetch, lock and verify what models.files declares; pack and upload them
    Model(ModelArgs),
    /// Look at the workflows: check them, list them, fill one
    Workflow(WorkflowArgs),
    /// Run ComfyUI with its editor on this machine, to make workflows for the app
    ///
    /// The image is built from the same Dockerfile as the inference image, with the same ComfyUI and custom nodes, and
    /// sees the same models. Needs Docker or podman, and an NVIDIA GPU to be quick; no AWS account. Listens on this
    /// machine only.
    #[command(after_help = gui::EXAMPLES)]
    Gui(Gui),
    /// Look at the config file: check it, show the settings, print its JSON Schema
    #[command(after_help = config::EXAMPLES)]
    Config(ConfigArgs),
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(Completions),
}

impl Verb {
    /// The verb as typed, for the JSON envelope.
    pub fn name(&self) -> &'static str {
        match self {
            Verb::Up(_) => "up",
            Verb::Plan(_) => "plan",
            Verb::Status => "status",
            Verb::UpdateModel(_) => "update-model",
            Verb::Scale(_) => "scale",
            Verb::Destroy(_) => "destroy",
            Verb::Render(_) => "render",
            Verb::Invoke(_) => "invoke",
            Verb::Model(_) => "model",
            Verb::Workflow(_) => "workflow",
            Verb::Gui(_) => "gui",
            Verb::Config(_) => "config",
            Verb::Completions(_) => "completions",
        }
    }

    /// The flags that override the config file, where the verb has them.
    pub fn overrides(&self) -> Option<&Overrides> {
        match self {
            Verb::Up(args) => Some(&args.overrides),
            Verb::Plan(args) => Some(&args.overrides),
            Verb::Render(args) => Some(&args.overrides),
            _ => None,
        }
    }

    /// The flags about waiting, where the verb has them.
    pub fn waiting(&self) -> Option<&Waiting> {
        match self {
            Verb::Up(args) => Some(&args.waiting),
            Verb::UpdateModel(args) => Some(&args.waiting),
            Verb::Scale(args) => Some(&args.waiting),
            Verb::Destroy(args) => Some(&args.waiting),
            _ => None,
        }
    }
}

/// Flags that stand over values of the config file.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Instead of the config file's values")]
pub struct Overrides {
    /// Instance type of the endpoint, ml.FAMILY.SIZE
    #[arg(long, value_name = "TYPE")]
    pub instance_type: Option<String>,
    /// Number of instances
    #[arg(long, value_name = "N")]
    pub instances: Option<String>,
    /// A prebuilt image in ECR; nothing is built
    #[arg(long, value_name = "URI")]
    pub image_uri: Option<String>,
    /// Directory with the models
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub models: Option<PathBuf>,
    /// Label of the model version
    #[arg(long, value_name = "LABEL")]
    pub model_version: Option<String>,
}

/// Flags about how long to wait.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Waiting")]
pub struct Waiting {
    /// Give up waiting after this time; the operation itself goes on in AWS [default: 90m]
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
    /// If another operation holds the stack, wait for it this long instead of stopping [without a time: 10m]
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = false, default_missing_value = "10m")]
    pub wait_lock: Option<String>,
}

/// Flags about what is read and built on this machine.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Local files")]
pub struct Local {
    /// Read and hash every file again instead of trusting size and times
    #[arg(long)]
    pub rehash: bool,
    /// The comfy-handler binary of the function [default: beside comfy-deploy, else built]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub handler: Option<PathBuf>,
}

/// `up`.
#[derive(Debug, Clone, Default, Args)]
pub struct Up {
    /// Values of the config file.
    #[command(flatten)]
    pub overrides: Overrides,
    /// Waiting.
    #[command(flatten)]
    pub waiting: Waiting,
    /// Local files.
    #[command(flatten)]
    pub local: Local,
    /// Build the image even if its tag is in ECR already; the tag moves to the new one, the earlier one stays
    #[arg(long, help_heading = "Local files")]
    pub force_build: bool,
    /// Leave what failed standing instead of rolling back, to look at it
    #[arg(long)]
    pub keep_on_failure: bool,
}

/// `plan`.
#[derive(Debug, Clone, Default, Args)]
pub struct Plan {
    /// Values of the config file.
    #[command(flatten)]
    pub overrides: Overrides,
    /// Local files.
    #[command(flatten)]
    pub local: Local,
    /// Exit with 2 if there are changes, 0 if there are none, 1 on every error
    #[arg(long)]
    pub detailed_exitcode: bool,
}

/// `update-model`.
#[derive(Debug, Clone, Default, Args)]
pub struct UpdateModel {
    /// Label of the new model version [default: models.version of the config]
    #[arg(long = "version", value_name = "LABEL")]
    pub label: Option<String>,
    /// Directory with the models [default: models.dir of the config]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "model_data")]
    pub models: Option<PathBuf>,
    /// A model artifact made elsewhere, s3://bucket/key.tar.gz; nothing is packed or uploaded
    #[arg(long, value_name = "S3_URI")]
    pub model_data: Option<String>,
    /// Read and hash every file again instead of trusting size and times
    #[arg(long)]
    pub rehash: bool,
    /// Leave what failed standing instead of rolling back, to look at it
    #[arg(long)]
    pub keep_on_failure: bool,
    /// Waiting.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// `destroy`.
#[derive(Debug, Clone, Default, Args)]
pub struct Destroy {
    /// The app's name (APP, or APP-ENV with --env), instead of typing it when asked
    #[arg(long, value_name = "NAME")]
    pub confirm: Option<String>,
    /// Delete the foundation stack too. The bucket and the repository in it are retained; the end says how to
    /// remove them by hand
    #[arg(long)]
    pub foundation: bool,
    /// Delete the endpoint's log group, which is kept otherwise
    #[arg(long)]
    pub logs: bool,
    /// Waiting.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// `render`.
#[derive(Debug, Clone, Default, Args)]
pub struct Render {
    /// Only the foundation stack
    #[arg(long, conflicts_with = "service")]
    pub foundation: bool,
    /// Only the service stack
    #[arg(long)]
    pub service: bool,
    /// Write files into this directory instead of stdout
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
    /// Values of the config file.
    #[command(flatten)]
    pub overrides: Overrides,
    /// Local files.
    #[command(flatten)]
    pub local: Local,
}

impl Render {
    /// Whether to print the foundation template: asked for, or neither was.
    pub fn wants_foundation(&self) -> bool {
        self.foundation || !self.service
    }

    /// Whether to print the service template: asked for, or neither was.
    pub fn wants_service(&self) -> bool {
        self.service || !self.foundation
    }
}

/// `completions`.
#[derive(Debug, Clone, Args)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// The completion script of a shell.
pub fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut <Cli as clap::CommandFactory>::command(), "comfy-deploy", &mut script);
    script
}

#[cfg(test)]
mod tests;
