//! Everything a verb needs to know, decided once: flags over `COMFY_DEPLOY_*` over file over default.
//! After this nobody reads flags, environment or YAML.

pub mod duration;
pub mod profile;
mod resolve;
pub mod show;

use std::path::PathBuf;
use std::time::Duration;

use crate::config::Config;
use crate::config::problem::Problems;

pub(crate) use resolve::switch;
pub use resolve::{Ambient, VARIABLES, app, config_problems, resolve};

/// The decided settings of one run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The config with overlay, environment and flags applied.
    pub config: Config,
    /// The config file.
    pub file: PathBuf,
    /// Directory of the config file; relative paths start here.
    pub root: PathBuf,
    /// `--env`.
    pub environment: Option<String>,
    /// The region.
    pub region: String,
    /// `--profile` or AWS_PROFILE, for the SDK.
    pub profile: Option<String>,
    /// `--sandbox`: the stand-in's URL, empty to start or find one; real AWS is out of reach then.
    pub sandbox: Option<String>,
    /// `--yes`.
    pub yes: bool,
    /// The own deadline of an operation.
    pub timeout: Duration,
    /// How long to wait for another operation on the stack; none = do not wait.
    pub wait_lock: Option<Duration>,
    /// `--keep-on-failure`.
    pub keep_on_failure: bool,
    /// `--rehash`.
    pub rehash: bool,
    /// `--force-build`.
    pub force_build: bool,
    /// `--handler FILE`: the comfy-handler binary, absolute or from the working directory.
    pub handler: Option<PathBuf>,
    /// Where each value that is not from the file came from: (path, origin), for `config show --origin`.
    pub origins: Vec<(String, String)>,
    /// Problems that do not stop the run, for the user to read.
    pub warnings: Problems,
}

/// The app, for verbs that look at files alone.
#[derive(Debug, Clone)]
pub struct App {
    /// The config with overlay, environment and flags applied.
    pub config: Config,
    /// Directory of the config file; relative paths start here.
    pub root: PathBuf,
    /// Problems that do not stop the run, for the user to read.
    pub warnings: Problems,
}

impl Settings {
    /// Name of the service stack and of everything in it: `app` or `app-env`.
    pub fn stack(&self) -> String {
        match &self.environment {
            Some(env) => format!("{}-{env}", self.config.app),
            None => self.config.app.clone(),
        }
    }

    /// Name of the foundation stack, shared by the app's environments.
    pub fn foundation(&self) -> String {
        format!("{}-foundation", self.config.app)
    }

    /// Name of the ECR repository.
    pub fn repository(&self) -> &str {
        self.config.image.repository.as_deref().unwrap_or(&self.config.app)
    }
}

#[cfg(test)]
impl Settings {
    /// Settings as a run with nothing but a config would have.
    pub fn for_tests(config: Config) -> Self {
        Settings {
            region: config.region.clone().unwrap_or_default(),
            config,
            file: PathBuf::from("comfy-deploy.yaml"),
            root: PathBuf::from("."),
            environment: None,
            profile: None,
            sandbox: None,
            yes: true,
            timeout: Duration::from_secs(60),
            wait_lock: None,
            keep_on_failure: false,
            rehash: false,
            force_build: false,
            handler: None,
            origins: Vec::new(),
            warnings: Problems::new(None, Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests;
