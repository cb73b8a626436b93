//! `model`: fetch, verify, ls, lock.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Context, Done};
use crate::apply::Cancel;
use crate::apply::pace::interrupted;
use crate::cli::{ModelAction, ModelArgs};
use crate::cloud::Objects;
use crate::config::Compression;
use crate::error::{Error, Kind, Result};
use crate::fetch::{self, Access, Fetched, Hubs, Job, Source, State, Status, Streaming, Streams, http};
use crate::local::cache::DigestCache;
use crate::local::models;
use crate::plan;
use crate::progress::units::bytes;
use crate::progress::{Event, Reporter};
use crate::settings::Settings;
use crate::ui::Ui;

/// Runs it.
///
/// # Errors
/// The verb's.
pub async fn run(mut settings: Settings, args: &ModelArgs, ui: &Ui, cancel: &Cancel, verbose: bool) -> Result<Done> {
    match &args.action {
        ModelAction::Ls => ls(&settings, ui),
        ModelAction::Verify => verify(&settings, ui, cancel).await,
        ModelAction::Fetch | ModelAction::Lock { .. } => {
            let objects = objects(&mut settings, ui, verbose).await?;
            let reporter = ui.reporter();
            let access = access(objects)?;
            // To lock a file that is streamed it is read and not kept; to fetch one means to have it here.
            let streaming = match (&args.action, settings.config.models.stream) {
                (ModelAction::Lock { .. }, true) => Streaming::Always,
                _ => Streaming::Never,
            };
            // Nothing says that what is fetched will ever be deployed.
            let job = job(&settings, &access, &reporter, streaming, &|_| Ok(()));
            let work = async {
                match &args.action {
                    ModelAction::Lock { upgrade } => fetch::lock(&job, upgrade.as_deref()).await,
                    _ => fetch::fetch(&job).await,
                }
            };
            let fetched = until(cancel, work).await?;
            Ok(described(&fetched, matches!(args.action, ModelAction::Lock { .. })))
        }
        ModelAction::Pack { .. } | ModelAction::Push { .. } => unreachable!("answered elsewhere"),
    }
}

/// Whose disk the models must fit on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instance {
    /// The one that the config asks for.
    Configured,
    /// The one that is deployed.
    Deployed,
}

/// Fetches what `up` and `update-model` are about to pack; nothing if the config declares nothing. Says whether large files
/// stay where they are: by the config, or because the disk is too small for them.
///
/// # Errors
/// See [`fetch::fetch`]; what cannot fit on the instance, before anything is fetched.
pub async fn bring(context: &Context<'_>, instance: Instance) -> Result<bool> {
    let Context { settings, cloud, reporter, cancel, .. } = context;
    let models = &settings.config.models;
    if models.uri.is_some() || fetch::wanted(&models.files).is_empty() {
        return Ok(models.stream);
    }
    let deployed = match instance {
        Instance::Configured => None,
        // A stack that cannot be read, or is not there, is told when the account is looked at.
        Instance::Deployed => cloud.stacks.stack(&settings.stack()).await.ok().flatten(),
    };
    let fits = |sizes: &[u64]| match (instance, &deployed) {
        (Instance::Deployed, None) => Ok(()),
        (_, deployed) => {
            let (bytes, stored) = at_least(models.compression(), sizes);
            plan::fits(settings, deployed.as_ref().map(|stack| &stack.parameters), bytes, stored)
        }
    };
    let access = access(Some(cloud.objects.clone()))?;
    let streaming = if models.stream { Streaming::Always } else { Streaming::IfNeeded };
    let fetched = until(cancel, fetch::fetch(&job(settings, &access, reporter, streaming, &fits))).await?;
    if fetched.lock_changed {
        reporter.report(Event::Note("comfy-deploy.lock was written; commit it".into()));
    }
    Ok(models.stream || !fetched.streamed.is_empty())
}

/// Bytes that an artifact with files of these sizes has at least, and with nothing compressed. How far a file shrinks is
/// known when it was seen: until then each that may be compressed could be nothing.
fn at_least(compression: Compression, sizes: &[u64]) -> (u64, u64) {
    let sum =
        |least: u64| sizes.iter().filter(|&&size| size >= least).fold(0, |sum: u64, size| sum.saturating_add(*size));
    let bytes = match compression {
        Compression::Fast | Compression::Best => 0,
        // Larger ones are stored.
        Compression::Auto => sum(fetch::STREAM_LEAST + 1),
        // What is adaptive is planned as if it were stored.
        Compression::None | Compression::Adaptive => sum(0),
    };
    (bytes, sum(0))
}

/// What reads large files where they are.
///
/// # Errors
/// A variable that names no hub.
pub fn streams(objects: Arc<dyn Objects>) -> Result<Streams> {
    Ok(Streams::new(access(Some(objects))?, tokio::runtime::Handle::current()))
}

async fn until<R>(cancel: &Cancel, work: impl Future<Output = Result<R>>) -> Result<R> {
    tokio::select! {
        done = work => done,
        () = cancel.wait() => Err(interrupted().why("what was fetched so far is kept").next("run the same command again: it continues")),
    }
}

fn access(objects: Option<Arc<dyn Objects>>) -> Result<Access> {
    let hubs = Hubs::from_environment(&|name| std::env::var(name).ok())?;
    Ok(Access::new(Arc::new(http::Web::new()?), objects, hubs))
}

fn job<'a>(
    settings: &'a Settings,
    access: &'a Access,
    reporter: &'a Arc<dyn Reporter>,
    streaming: Streaming,
    fits: fetch::Fits<'a>,
) -> Job<'a> {
    Job { root: &settings.root, config: &settings.config, access, reporter, streaming, free: fetch::free, fits }
}

/// A connection to S3, only if a source is there: fetching from elsewhere needs no account.
async fn objects(settings: &mut Settings, ui: &Ui, verbose: bool) -> Result<Option<Arc<dyn Objects>>> {
    let in_s3 = |wanted: &fetch::Wanted| matches!(wanted.source, Source::S3 { .. });
    if !fetch::wanted(&settings.config.models.files).iter().any(in_s3) {
        return Ok(None);
    }
    if settings.region.is_empty() {
        return Err(Error::usage("models.files names objects in S3, and there is no region")
            .next("set it: region: in the config, --region or AWS_REGION"));
    }
    Ok(Some(super::connect(settings, ui, verbose).await?.objects))
}

fn described(fetched: &Fetched, locking: bool) -> Done {
    let mut text = String::new();
    for (path, size) in &fetched.fetched {
        text += &format!("fetched {path}, {}\n", bytes(*size));
    }
    if fetched.fetched.is_empty() && !locking {
        text += match fetched.kept.len() {
            0 => "models.files declares nothing to fetch.\n".to_owned(),
            1 => "The declared file is here.\n".to_owned(),
            n => format!("All {n} declared files are here.\n"),
        }
        .as_str();
    }
    text += if fetched.lock_changed {
        "comfy-deploy.lock was written; commit it.\n"
    } else {
        "comfy-deploy.lock is up to date.\n"
    };
    let data = json!({
        "fetched": fetched.fetched.iter().map(|(path, size)| json!({"path": path, "bytes": size})).collect::<Vec<_>>(),
        "kept": fetched.kept,
        "lock_changed": fetched.lock_changed,
    });
    Done::new(text, data)
}

fn ls(settings: &Settings, ui: &Ui) -> Result<Done> {
    let all = fetch::status(&settings.root, &settings.config)?;
    if all.is_empty() {
        return Ok(Done::new("models.files declares nothing to fetch.", json!({"files": []})));
    }
    let row = |one: &Status| {
        let name = match &one.path {
            Some(path) => path.strip_prefix(&format!("{}/", one.wanted.place.folder)).unwrap_or(path).to_owned(),
            None => "?".into(),
        };
        let size = one.size.map_or("?".into(), bytes);
        vec![name, one.wanted.place.folder.clone(), size, one.state.word().to_owned(), one.wanted.source.to_string()]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let text = ui.table(&["name", "folder", "size", "state", "source"], &rows);
    Ok(Done::new(text, json!({"files": all.iter().map(as_data).collect::<Vec<_>>()})))
}

fn as_data(one: &Status) -> Value {
    json!({
        "path": one.path,
        "folder": one.wanted.place.folder,
        "source": one.wanted.source.to_string(),
        "bytes": one.size,
        "sha256": one.locked.as_ref().map(|locked| &locked.sha256),
        "commit": one.locked.as_ref().and_then(|locked| locked.commit.as_ref()),
        "state": one.state.word(),
    })
}

/// Reads every file anew, whatever the cache says of it.
async fn verify(settings: &Settings, ui: &Ui, cancel: &Cancel) -> Result<Done> {
    let all = fetch::status(&settings.root, &settings.config)?;
    let here = |one: &&Status| matches!(one.state, State::Locked | State::Local | State::Changed);
    let globs: Vec<String> =
        all.iter().filter(here).filter_map(|one| one.path.as_deref().map(fetch::exactly)).collect();
    let mut digests = std::collections::BTreeMap::new();
    if !globs.is_empty() {
        let (root, dir) = (settings.root.clone(), settings.root.join(&settings.config.models.dir));
        let reporter = ui.reporter();
        let scan = tokio::task::spawn_blocking(move || {
            let mut cache = DigestCache::load(&root);
            let tree = models::scan(&dir, &globs, &mut cache, true, reporter.as_ref());
            // What was read need not be read again; a cache that cannot be written costs only time.
            let _ = cache.save();
            tree
        });
        let tree =
            until(cancel, async { scan.await.map_err(|e| Error::failed(format!("reading broke off: {e}")))? }).await?;
        digests.extend(tree.files.into_iter().map(|file| (file.path, hex::encode(file.sha256))));
        ui.finish();
    }
    let (mut text, mut data, mut bad) = (String::new(), Vec::new(), 0);
    for one in &all {
        let found = one.path.as_ref().and_then(|path| digests.get(path));
        let verdict = match (&one.locked, found) {
            (Some(locked), Some(found)) if *found == locked.sha256 => "good",
            (Some(_), Some(_)) => "differs",
            (_, None) if one.state == State::Streamed => "streamed",
            (_, None) => "missing",
            (None, Some(_)) => "not locked",
        };
        bad += usize::from(!matches!(verdict, "good" | "streamed"));
        let name = one.path.clone().unwrap_or_else(|| one.wanted.source.to_string());
        text += &format!("{name}: {verdict}\n");
        data.push(json!({"path": one.path, "verdict": verdict, "sha256": found, "locked": one.locked.as_ref().map(|l| &l.sha256)}));
    }
    if all.is_empty() {
        text += "models.files declares nothing to verify.\n";
    }
    if bad > 0 {
        text += "Put it right with: comfy-deploy model fetch\n";
    }
    let mut done = Done::new(text, json!({"files": data, "bad": bad}));
    if bad > 0 {
        done.exit_code = Kind::Failed.exit_code();
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_compressed_counts_for_nothing_before_it_was_seen() {
        const LARGE: u64 = 40 << 20;
        let sizes = [LARGE, 1 << 20];
        let all = LARGE + (1 << 20);
        assert_eq!(at_least(Compression::None, &sizes), (all, all));
        assert_eq!(at_least(Compression::Auto, &sizes), (LARGE, all));
        assert_eq!(at_least(Compression::Fast, &sizes), (0, all));
        assert_eq!(at_least(Compression::None, &[u64::MAX, 1]), (u64::MAX, u64::MAX), "a hub may say anything");
    }
}
