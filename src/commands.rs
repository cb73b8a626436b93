//! One short file a verb: settings -> observe -> plan -> show -> apply -> result.

pub mod config;
pub mod destroy;
pub mod gui;
pub mod invoke;
pub mod look;
pub mod model;
pub mod model_pack;
pub mod model_push;
pub mod plan;
pub mod render;
pub mod result;
pub mod sandbox;
pub mod scale;
pub mod show;
pub mod status;
pub mod up;
pub mod update_model;
pub mod workflow;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::apply::{Cancel, Run};
use crate::cli::{Cli, ModelAction, ModelArgs, Verb};
use crate::cloud::Cloud;
use crate::cloud::aws::{self, Connection};
use crate::container::Processes;
use crate::error::{Error, Kind, Result};
use crate::progress::Reporter;
use crate::settings::{self, Ambient, Settings};
use crate::ui::Ui;

/// What a verb returns.
pub struct Done {
    /// For people; printed to stdout unless the output is JSON.
    pub text: String,
    /// `data` of the JSON envelope.
    pub data: Value,
    /// The exit code; only `plan --detailed-exitcode` and `workflow check` use another than 0.
    pub exit_code: u8,
}

impl Done {
    /// Success.
    pub fn new(text: impl Into<String>, data: Value) -> Self {
        Done { text: text.into(), data, exit_code: 0 }
    }
}

/// What every verb that talks to AWS has at hand.
pub struct Context<'a> {
    /// The decided settings.
    pub settings: Settings,
    /// The ports.
    pub cloud: Cloud,
    /// The user.
    pub ui: &'a Ui,
    /// Where events go.
    pub reporter: Arc<dyn Reporter>,
    /// Ctrl-C.
    pub cancel: Cancel,
    /// The command that continues after an interruption.
    pub resume: String,
}

impl Context<'_> {
    /// What applying needs.
    pub fn run(&self) -> Run<'_> {
        Run {
            cloud: &self.cloud,
            reporter: self.reporter.clone(),
            cancel: self.cancel.clone(),
            sandbox: self.settings.sandbox.is_some(),
            timeout: self.settings.timeout,
            role_arn: self.settings.config.iam.cloudformation_role_arn.clone(),
            keep_on_failure: self.settings.keep_on_failure,
            scratch: self.scratch(),
            resume: self.resume.clone(),
        }
    }

    /// `.comfy-deploy` beside the config file: caches and what must outlive a rollback.
    pub fn scratch(&self) -> PathBuf {
        self.settings.root.join(".comfy-deploy")
    }
}

/// A connection to the account, or to the sandbox, which is started if it does not run.
///
/// # Errors
/// No credentials, or a sandbox that does not start.
async fn connect(settings: &mut Settings, ui: &Ui, verbose: bool) -> Result<Cloud> {
    if let Some(url) = &settings.sandbox {
        settings.sandbox = Some(sandbox::ensure(url, ui).await?);
    }
    let connection = Connection {
        region: settings.region.clone(),
        profile: settings.profile.clone(),
        sandbox: settings.sandbox.clone(),
        verbose,
    };
    aws::connect(&connection).await
}

/// Runs one verb.
///
/// # Errors
/// The verb's.
pub async fn run(cli: &Cli, ui: &Ui, cancel: Cancel, resume: String) -> Result<Done> {
    match &cli.verb {
        Verb::Config(args) => return config::run(cli, args, ui),
        Verb::Workflow(args) => return workflow::run(cli, args, ui),
        Verb::Model(ModelArgs { action: ModelAction::Pack { dir, out, rehash } }) => {
            let wish = model_pack::Wish { dir: dir.as_deref(), out, rehash: *rehash };
            return model_pack::run(cli, wish, ui, &cancel).await;
        }
        Verb::Completions(args) => {
            let script = String::from_utf8_lossy(&crate::cli::completions(args.shell)).into_owned();
            return Ok(Done::new(script, Value::Null));
        }
        _ => {}
    }
    let mut settings = with_ambient(|ambient| settings::resolve(cli, ambient))?;
    for problem in &settings.warnings.list {
        ui.warn(&settings.warnings.one_line(problem));
    }
    if let Verb::Render(args) = &cli.verb {
        return render::run(&settings, args);
    }
    if let Verb::Gui(args) = &cli.verb {
        return gui::run(&settings, args, ui, &Processes, ui.reporter().as_ref(), &cancel).await;
    }
    if let Verb::Model(args) = &cli.verb
        && !matches!(args.action, ModelAction::Push { .. })
    {
        return model::run(settings, args, ui, &cancel, cli.global.verbose > 1).await;
    }
    let cloud = connect(&mut settings, ui, cli.global.verbose > 1).await?;
    let reporter = ui.reporter();
    let context = Context { settings, cloud, ui, reporter, cancel, resume };
    let done = match &cli.verb {
        Verb::Up(_) => up::run(&context).await,
        Verb::Plan(args) => plan::run(&context, args).await,
        Verb::Status => status::run(&context).await,
        Verb::UpdateModel(args) => update_model::run(&context, args).await,
        Verb::Scale(args) => scale::run(&context, args).await,
        Verb::Destroy(args) => destroy::run(&context, args).await,
        Verb::Invoke(args) => invoke::run(&context, args).await,
        Verb::Model(ModelArgs { action: ModelAction::Push { dry_run, .. } }) => {
            model_push::run(&context, *dry_run).await
        }
        Verb::Model(_)
        | Verb::Gui(_)
        | Verb::Render(_)
        | Verb::Config(_)
        | Verb::Workflow(_)
        | Verb::Completions(_) => {
            unreachable!("answered above")
        }
    };
    done.map_err(|e| match e.kind() {
        Kind::Interrupted if e.hint().is_none() => e.next(format!("to go on: {}", context.resume)),
        _ => e,
    })
}

/// Now, as RFC 3339.
pub fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// What surrounds the process: the only place that reads its environment for the settings.
fn with_ambient<R>(decide: impl FnOnce(&Ambient<'_>) -> Result<R>) -> Result<R> {
    let env = |name: &str| std::env::var(name).ok();
    let cwd =
        std::env::current_dir().map_err(|e| Error::failed("cannot tell the working directory").why(e.to_string()))?;
    let profile_region = |profile: &str| {
        let file = std::env::var_os("AWS_CONFIG_FILE")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".aws/config")))?;
        settings::profile::region(&std::fs::read_to_string(file).ok()?, profile)
    };
    decide(&Ambient { env: &env, cwd: &cwd, profile_region: &profile_region })
}
