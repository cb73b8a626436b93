//! The decision: which file, which overlay, which flags and variables, which region.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::{Cli, ModelAction, ModelArgs, Verb};
use crate::config::load::{self, Loaded, Override};
use crate::config::problem::Problems;
use crate::config::tree::{Node, Origin};
use crate::error::{Error, Result};

use super::{App, Settings, duration, show};

/// Waiting longer than this for one operation is a decision, not a default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(90 * 60);
/// The region of the stand-in when nothing names one: it has no bills that could land in the wrong place.
const SANDBOX_REGION: &str = "us-east-1";

/// The variables that are read, and what they stand for.
pub const VARIABLES: &[(&str, &str)] = &[
    ("COMFY_DEPLOY_CONFIG", "--config"),
    ("COMFY_DEPLOY_ENV", "--env"),
    ("COMFY_DEPLOY_REGION", "--region"),
    ("COMFY_DEPLOY_PROFILE", "--profile"),
    ("COMFY_DEPLOY_SANDBOX", "--sandbox[=URL]"),
    ("COMFY_DEPLOY_OUTPUT", "--output"),
    ("COMFY_DEPLOY_YES", "--yes"),
    ("COMFY_DEPLOY_NO_INPUT", "--no-input"),
    ("COMFY_DEPLOY_COLOR", "--color"),
    ("COMFY_DEPLOY_PROGRESS", "--progress"),
    ("COMFY_DEPLOY_TIMEOUT", "--timeout"),
    ("COMFY_DEPLOY_WAIT_LOCK", "--wait-lock"),
    ("COMFY_DEPLOY_KEEP_ON_FAILURE", "--keep-on-failure"),
    ("COMFY_DEPLOY_REHASH", "--rehash"),
    ("COMFY_DEPLOY_FORCE_BUILD", "--force-build"),
    ("COMFY_DEPLOY_HANDLER", "--handler"),
    ("COMFY_DEPLOY_INSTANCE_TYPE", "--instance-type"),
    ("COMFY_DEPLOY_INSTANCES", "--instances"),
    ("COMFY_DEPLOY_IMAGE_URI", "--image-uri"),
    ("COMFY_DEPLOY_MODELS_DIR", "--models"),
    ("COMFY_DEPLOY_MODELS_VERSION", "--model-version"),
    ("COMFY_DEPLOY_MODELS_URI", "update-model --model-data"),
];

/// What surrounds the program: variables, the working directory, the region of a profile.
pub struct Ambient<'a> {
    /// An environment variable; set but empty counts as unset.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The working directory.
    pub cwd: &'a Path,
    /// The `region` of a profile in ~/.aws/config.
    pub profile_region: &'a dyn Fn(&str) -> Option<String>,
}

impl Ambient<'_> {
    fn var(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    fn switch(&self, name: &'static str) -> Result<bool> {
        switch(name, self.var(name))
    }
}

/// A variable that is on or off.
pub(crate) fn switch(name: &str, value: Option<String>) -> Result<bool> {
    match value.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "0" | "false" | "no" | "off") => Ok(false),
        Some("1" | "true" | "yes" | "on") => Ok(true),
        Some(other) => {
            Err(Error::usage(format!("{name} is `{other}`")).why("allowed: 1 or 0").next(format!("unset {name}")))
        }
    }
}

/// A flag, else its variable.
fn pick(
    flag: Option<String>,
    flag_name: &'static str,
    ambient: &Ambient<'_>,
    variable: &'static str,
) -> Option<(String, Origin)> {
    match flag {
        Some(value) => Some((value, Origin::Flag(flag_name))),
        None => ambient.var(variable).map(|value| (value, Origin::Variable(variable))),
    }
}

fn text(path: Option<&PathBuf>) -> Option<String> {
    path.map(|p| p.to_string_lossy().into_owned())
}

/// Decides everything.
///
/// # Errors
/// [`crate::error::Kind::Usage`] with every problem of the file, the flags and the variables.
pub fn resolve(cli: &Cli, ambient: &Ambient<'_>) -> Result<Settings> {
    let (file, shown) = config_file(cli, ambient)?;
    let source = load::read(&file, &shown)?;
    let environment = pick(cli.global.env.clone(), "--env", ambient, "COMFY_DEPLOY_ENV").map(|(value, _)| value);
    let loaded = load::load(source.clone(), environment.as_deref(), overrides(cli, ambient))?;
    let Loaded { config, tree, warnings } = loaded;

    let sandbox = pick(cli.global.sandbox.clone(), "--sandbox", ambient, "COMFY_DEPLOY_SANDBOX")
        .and_then(|(value, _)| sandbox_url(&value));
    if let Some(url) = &sandbox {
        loopback(url)?;
    }
    let profile = pick(cli.global.profile.clone(), "--profile", ambient, "COMFY_DEPLOY_PROFILE")
        .map(|(value, _)| value)
        .or_else(|| ambient.var("AWS_PROFILE"));
    let mut origins = Vec::new();
    show::leaves(&tree, crate::config::tree::Path::default(), &mut origins);
    let mut origins: Vec<(String, String)> =
        origins.into_iter().map(|(path, origin)| (path, show::spoken(&origin, Some(&source)))).collect();
    let region = match config.region.clone() {
        Some(region) => region,
        // Runs on this machine and asks AWS nothing; models in S3 ask for it themselves.
        None if matches!(cli.verb, Verb::Gui(_) | Verb::Model(_)) => String::new(),
        None => {
            let (region, origin) = ambient_region(ambient, profile.as_deref(), sandbox.is_some(), &source.name)?;
            origins.push(("region".into(), origin));
            region
        }
    };

    let waiting = cli.verb.waiting();
    let timeout = pick(waiting.and_then(|w| w.timeout.clone()), "--timeout", ambient, "COMFY_DEPLOY_TIMEOUT");
    let timeout = time(timeout)?.unwrap_or(DEFAULT_TIMEOUT);
    if timeout.is_zero() {
        return Err(Error::usage("--timeout is 0").why("allowed: as in 90m, at least 1s"));
    }
    let wait_lock = pick(waiting.and_then(|w| w.wait_lock.clone()), "--wait-lock", ambient, "COMFY_DEPLOY_WAIT_LOCK");
    let wait_lock = time(wait_lock)?.filter(|time| !time.is_zero());

    let (rehash, handler, keep, force) = match &cli.verb {
        Verb::Up(up) => (up.local.rehash, up.local.handler.as_ref(), up.keep_on_failure, up.force_build),
        Verb::Plan(plan) => (plan.local.rehash, plan.local.handler.as_ref(), false, false),
        Verb::Render(render) => (render.local.rehash, render.local.handler.as_ref(), false, false),
        Verb::UpdateModel(update) => (update.rehash, None, update.keep_on_failure, false),
        Verb::Model(ModelArgs { action: ModelAction::Push { rehash, .. } }) => (*rehash, None, false, false),
        _ => (false, None, false, false),
    };
    let handler = pick(text(handler), "--handler", ambient, "COMFY_DEPLOY_HANDLER");
    let root = file.parent().unwrap_or(ambient.cwd).to_path_buf();
    Ok(Settings {
        config,
        root,
        file,
        environment,
        region,
        profile,
        sandbox,
        yes: cli.global.yes || ambient.switch("COMFY_DEPLOY_YES")?,
        timeout,
        wait_lock,
        keep_on_failure: keep || ambient.switch("COMFY_DEPLOY_KEEP_ON_FAILURE")?,
        rehash: rehash || ambient.switch("COMFY_DEPLOY_REHASH")?,
        force_build: force || ambient.switch("COMFY_DEPLOY_FORCE_BUILD")?,
        handler: handler.map(|(path, _)| ambient.cwd.join(path)),
        origins,
        warnings,
    })
}

/// The app without what only AWS needs: no region has to be known. `None` if no config file was named and there is none
/// here.
///
/// # Errors
/// [`crate::error::Kind::Usage`] with every problem of the file, the flags and the variables.
pub fn app(cli: &Cli, ambient: &Ambient<'_>) -> Result<Option<App>> {
    let named = pick(text(cli.global.config.as_ref()), "--config", ambient, "COMFY_DEPLOY_CONFIG").is_some();
    if !named && load::find(ambient.cwd).is_err() {
        return Ok(None);
    }
    let (file, shown) = config_file(cli, ambient)?;
    let environment = pick(cli.global.env.clone(), "--env", ambient, "COMFY_DEPLOY_ENV").map(|(value, _)| value);
    let loaded = load::load(load::read(&file, &shown)?, environment.as_deref(), overrides(cli, ambient))?;
    let root = file.parent().unwrap_or(ambient.cwd).to_path_buf();
    Ok(Some(App { config: loaded.config, root, warnings: loaded.warnings }))
}

/// Every problem of the config file, for `config check`: each overlay is tried in turn, not only the chosen one.
///
/// # Errors
/// [`crate::error::Kind::Usage`] if there is an error; the warnings otherwise.
pub fn config_problems(cli: &Cli, ambient: &Ambient<'_>) -> Result<Vec<Problems>> {
    let (file, shown) = config_file(cli, ambient)?;
    let source = load::read(&file, &shown)?;
    let chosen = pick(cli.global.env.clone(), "--env", ambient, "COMFY_DEPLOY_ENV").map(|(value, _)| value);
    let base = load::load(source.clone(), chosen.as_deref(), Vec::new())?;
    let names: Vec<String> = base.config.environments.keys().cloned().collect();
    let mut warnings = vec![base.warnings];
    for name in names {
        warnings.push(load::load(source.clone(), Some(&name), Vec::new())?.warnings);
    }
    Ok(warnings)
}

/// The file, absolute, and its name for messages.
fn config_file(cli: &Cli, ambient: &Ambient<'_>) -> Result<(PathBuf, String)> {
    if let Some((given, _)) = pick(text(cli.global.config.as_ref()), "--config", ambient, "COMFY_DEPLOY_CONFIG") {
        return Ok((ambient.cwd.join(&given), given));
    }
    let file = load::find(ambient.cwd)?;
    let shown = match file.parent().and_then(|dir| ambient.cwd.strip_prefix(dir).ok()) {
        Some(below) => format!("{}{}", "../".repeat(below.components().count()), load::FILE_NAME),
        None => file.display().to_string(),
    };
    Ok((file, shown))
}

/// What flags and variables set in the config.
fn overrides(cli: &Cli, ambient: &Ambient<'_>) -> Vec<Override> {
    let mut set: Vec<Override> = Vec::new();
    let flags = cli.verb.overrides();
    let update = match &cli.verb {
        Verb::UpdateModel(update) => Some(update),
        _ => None,
    };
    let mut put = |keys: &'static [&'static str], value: Option<(String, Origin)>, plain: bool| {
        if let Some((value, origin)) = value {
            set.push((keys, if plain { Node::plain(value, origin) } else { Node::text(value, origin) }));
        }
    };
    put(&["region"], pick(cli.global.region.clone(), "--region", ambient, "COMFY_DEPLOY_REGION"), false);
    let instance_type = flags.and_then(|f| f.instance_type.clone());
    put(
        &["endpoint", "instance_type"],
        pick(instance_type, "--instance-type", ambient, "COMFY_DEPLOY_INSTANCE_TYPE"),
        false,
    );
    let instances = flags.and_then(|f| f.instances.clone());
    put(&["endpoint", "instances"], pick(instances, "--instances", ambient, "COMFY_DEPLOY_INSTANCES"), true);
    let image = flags.and_then(|f| f.image_uri.clone());
    put(&["image", "uri"], pick(image, "--image-uri", ambient, "COMFY_DEPLOY_IMAGE_URI"), false);
    let (version, version_flag) = match update {
        Some(update) => (update.label.clone(), "--version"),
        None => (flags.and_then(|f| f.model_version.clone()), "--model-version"),
    };
    put(&["models", "version"], pick(version, version_flag, ambient, "COMFY_DEPLOY_MODELS_VERSION"), false);

    let data = pick(update.and_then(|u| u.model_data.clone()), "--model-data", ambient, "COMFY_DEPLOY_MODELS_URI");
    let dir_flag = update.and_then(|u| u.models.as_ref()).or_else(|| flags.and_then(|f| f.models.as_ref()));
    let dir = pick(text(dir_flag), "--models", ambient, "COMFY_DEPLOY_MODELS_DIR");
    // Naming a directory means it, also when the file names an artifact in S3; and the other way round a flag
    // stands over a variable.
    if let Some((dir, origin)) = dir.filter(|(_, origin)| data.is_none() || matches!(origin, Origin::Flag(_))) {
        let absolute = ambient.cwd.join(dir).to_string_lossy().into_owned();
        set.push((&["models", "uri"], Node::plain("", origin.clone())));
        set.push((&["models", "dir"], Node::text(absolute, origin)));
    } else if let Some((uri, origin)) = data {
        set.push((&["models", "uri"], Node::text(uri, origin)));
    }
    set
}

/// `AWS_REGION`, `AWS_DEFAULT_REGION`, the profile's region; never a guess.
fn ambient_region(ambient: &Ambient<'_>, profile: Option<&str>, sandbox: bool, file: &str) -> Result<(String, String)> {
    let found = ["AWS_REGION", "AWS_DEFAULT_REGION"]
        .into_iter()
        .find_map(|name| ambient.var(name).map(|value| (value, name.to_owned())))
        .or_else(|| {
            let name = profile.unwrap_or("default");
            (ambient.profile_region)(name).map(|region| (region, format!("profile {name}")))
        });
    match found {
        Some((region, origin)) if crate::config::check::is_match(crate::config::REGION_PATTERN, &region) => {
            Ok((region, origin))
        }
        Some((region, origin)) => Err(Error::usage(format!("the region is `{region}`, from {origin}"))
            .why("allowed: a region code, as in eu-central-1")),
        None if sandbox => Ok((SANDBOX_REGION.into(), "--sandbox".into())),
        None => Err(Error::usage("there is no region")
            .why("a GPU in the wrong region is an expensive guess, so there is no default")
            .next(format!(
                "add `region: eu-central-1` (yours) to {file}, or use --region, COMFY_DEPLOY_REGION or AWS_REGION"
            ))),
    }
}

/// `--sandbox` alone is empty: started or found later. `COMFY_DEPLOY_SANDBOX=1` means the same.
fn sandbox_url(value: &str) -> Option<String> {
    match value.to_ascii_lowercase().as_str() {
        "" | "1" | "true" | "yes" | "on" => Some(String::new()),
        "0" | "false" | "no" | "off" => None,
        _ => Some(value.trim_end_matches('/').to_owned()),
    }
}

/// The sandbox is on this machine; anything else could be a real account.
fn loopback(url: &str) -> Result<()> {
    let address = url.strip_prefix("http://").map(|rest| rest.replace("localhost", "127.0.0.1"));
    let address = address.and_then(|a| a.parse::<std::net::SocketAddr>().ok());
    if url.is_empty() || address.is_some_and(|a| a.ip().is_loopback()) {
        return Ok(());
    }
    Err(Error::usage(format!("--sandbox={url} is not on this machine"))
        .why("allowed: http://127.0.0.1:PORT, so that a real account is out of reach")
        .next("--sandbox alone starts or finds it"))
}

fn time(value: Option<(String, Origin)>) -> Result<Option<Duration>> {
    let Some((text, origin)) = value else { return Ok(None) };
    let name = show::spoken(&origin, None);
    duration::parse(&text).map(Some).map_err(|why| Error::usage(format!("{name}: {why}")))
}
