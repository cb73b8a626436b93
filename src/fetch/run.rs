//! All files of a config: compared with lock and disk, fetched, locked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use super::disk;
use super::get::Access;
use super::load::{Order, agrees, entry, files, in_the_way, load_all, moved, needed};
use super::resolve::{self, Remote};
use super::source::Source;
use super::stream::{Streams, size_unknown, streamable, whole_only};
use super::wanted::{Wanted, wanted};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::local::cache::DigestCache;
use crate::local::lockfile::{FILE_NAME, Lock, Locked, Placed};
use crate::local::models;
use crate::progress::units::bytes;
use crate::progress::{Event, Reporter, Task};

/// Connections of a run; more do not make a hub faster, and are counted against us.
pub(super) const CONNECTIONS: usize = 8;

/// Refuses files that could not be deployed: by the sizes of all that are declared, as far as they are known, before any
/// of them is loaded.
pub type Fits<'a> = &'a (dyn Fn(&[u64]) -> Result<()> + Sync);

/// What fetching works on.
pub struct Job<'a> {
    /// Directory of the config file.
    pub root: &'a Path,
    /// The config.
    pub config: &'a Config,
    /// The world.
    pub access: &'a Access,
    /// Where events go.
    pub reporter: &'a Arc<dyn Reporter>,
    /// Which files stay where they are.
    pub streaming: Streaming,
    /// Bytes that can be written where a directory is: [`super::free`].
    pub free: fn(&Path) -> Option<u64>,
    /// Whether they can be deployed.
    pub fits: Fits<'a>,
}

/// Which files are not fetched but locked only, to be read from their source by whoever needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streaming {
    /// None.
    Never,
    /// All large ones that are not here, if the disk is too small for them.
    IfNeeded,
    /// All large ones that are not here.
    Always,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Paths that came, with their bytes.
    pub fetched: Vec<(String, u64)>,
    /// Paths that were there.
    pub kept: Vec<String>,
    /// Paths that stay where they are, with their bytes.
    pub streamed: Vec<(String, u64)>,
    /// Whether the lock was written.
    pub lock_changed: bool,
}

/// Brings every declared file into the models directory, and the lock up to date.
///
/// # Errors
/// The first file that cannot be had, or is not what the lock or the config says; what came before it is kept and locked.
pub async fn fetch(job: &Job<'_>) -> Result<Fetched> {
    let lock = Lock::load(job.root)?;
    bring(job, &lock, &lock.clone(), &wanted(&job.config.models.files)).await
}

/// Locks what is not locked yet; with `upgrade` the files named (all, if none is) are locked anew, as their sources are
/// now. Files whose hub tells no sha256 are fetched for it, or, if they are to be streamed, read.
///
/// # Errors
/// As [`fetch`]; a name that no declared file has.
pub async fn lock(job: &Job<'_>, upgrade: Option<&[String]>) -> Result<Fetched> {
    let previous = Lock::load(job.root)?;
    let all = wanted(&job.config.models.files);
    let mut lock = previous.clone();
    if let Some(names) = upgrade {
        for wanted in chosen(&all, names, &previous)? {
            if let Some(path) = wanted.path(&previous) {
                lock.files.remove(&path);
            }
        }
    }
    let unlocked: Vec<&Wanted> = all.iter().filter(|wanted| locked(wanted, &lock).is_none()).collect();
    let resolved: Vec<(&Wanted, Remote)> = futures::stream::iter(unlocked)
        .map(async |wanted| Ok::<_, Error>((wanted, ask(job, wanted, None).await?)))
        .buffered(CONNECTIONS)
        .try_collect()
        .await?;
    let mut unknown = Vec::new();
    let mut taken = Taken::of(&all, &lock);
    for (wanted, remote) in resolved {
        let name = wanted.place.name.as_ref().or(remote.name.as_ref());
        match (name, &remote.sha256, remote.size) {
            (Some(name), Some(sha256), Some(size)) => {
                let path = checked_path(wanted, name)?;
                taken.take(&path, wanted)?;
                agrees(wanted, sha256)?;
                lock.files.insert(path, entry(wanted, &remote, size, sha256.clone()));
            }
            _ => unknown.push(wanted.clone()),
        }
    }
    if !unknown.is_empty() {
        return bring(job, &lock, &previous, &unknown).await;
    }
    Ok(Fetched { lock_changed: save(job, lock, &all)?, ..Fetched::default() })
}

/// The declared files that are named by path, file name or source; all if no name is given.
fn chosen<'w>(all: &'w [Wanted], names: &[String], lock: &Lock) -> Result<Vec<&'w Wanted>> {
    if names.is_empty() {
        return Ok(all.iter().collect());
    }
    let called = |wanted: &Wanted, name: &str| {
        let path = wanted.path(lock).unwrap_or_default();
        path == name || path.rsplit('/').next() == Some(name) || wanted.source.to_string() == name
    };
    let mut chosen = Vec::new();
    for name in names {
        let before = chosen.len();
        chosen.extend(all.iter().filter(|wanted| called(wanted, name)));
        if chosen.len() == before {
            let known: Vec<String> = all.iter().filter_map(|wanted| wanted.path(lock)).collect();
            return Err(Error::usage(format!("models.files declares no file `{name}`"))
                .why(format!("declared: {}", known.join(", ")))
                .next("name a file as `comfy-deploy model ls` shows it"));
        }
    }
    Ok(chosen)
}

/// The path with a name that a hub said, which is not believed unseen.
fn checked_path(wanted: &Wanted, name: &str) -> Result<String> {
    let path = wanted.place.with(name);
    match super::check_path(&path) {
        Ok(()) if !name.contains('/') || wanted.place.name.is_some() => Ok(path),
        _ => Err(Error::failed(format!("cannot fetch {}", wanted.source))
            .why(format!("its hub calls it {name:?}, which is no file name"))
            .next(format!("choose a name in models.files: to: {}/NAME", wanted.place.folder))),
    }
}

/// Which declared file has which path. Two that a hub calls the same show only when it was asked.
struct Taken<'w>(BTreeMap<String, &'w Source>);

impl<'w> Taken<'w> {
    /// As far as the config and the lock say.
    fn of(all: &'w [Wanted], lock: &Lock) -> Self {
        Taken(all.iter().filter_map(|wanted| Some((wanted.path(lock)?, &wanted.source))).collect())
    }

    fn take(&mut self, path: &str, wanted: &'w Wanted) -> Result<()> {
        match self.0.insert(path.to_owned(), &wanted.source) {
            Some(other) if *other != wanted.source => {
                Err(Error::usage(format!("{other} and {} are both to be {path}", wanted.source))
                    .why("their hub has the same name for both")
                    .next(format!("choose a name for one of them in models.files: to: {}/NAME", wanted.place.folder)))
            }
            _ => Ok(()),
        }
    }
}

/// What a declared file is at its source. One of this machine is measured here, where its directory is known.
async fn ask(job: &Job<'_>, wanted: &Wanted, commit: Option<&str>) -> Result<Remote> {
    let remote = resolve::resolve(job.access, &wanted.source, commit).await?;
    let Source::Local(path) = &wanted.source else { return Ok(remote) };
    // What is wrong with it is told when it is copied.
    let meta = std::fs::metadata(resolve::local(job.root, path)).ok().filter(std::fs::Metadata::is_file);
    Ok(Remote { size: meta.map(|meta| meta.len()), ..remote })
}

/// A declared file, its path and entry in the lock, and what its hub says.
type Resolved<'w> = (&'w Wanted, Option<(String, Locked)>, Remote);

async fn bring(job: &Job<'_>, lock: &Lock, previous: &Lock, files: &[Wanted]) -> Result<Fetched> {
    let dir = job.root.join(&job.config.models.dir);
    let all = wanted(&job.config.models.files);
    let mut lock = lock.clone();
    let mut done = Fetched::default();
    let (mut cache, mut placed) = (DigestCache::load(job.root), Placed::load(job.root));
    let here = digests(job, &dir, files, &lock, &mut cache).await?;
    let always = job.streaming == Streaming::Always;

    let (mut needed, mut sizes) = (Vec::new(), Vec::new());
    for wanted in files {
        match locked(wanted, &lock) {
            Some((path, locked)) if here.get(&path) == Some(&locked.sha256) => {
                sizes.push(locked.size);
                done.kept.push(path);
            }
            Some((path, locked)) if always && streamable(&job.config.models, &wanted.source, locked.size) => {
                sizes.push(locked.size);
                done.streamed.push((path, locked.size));
            }
            locked => needed.push((wanted, locked)),
        }
    }
    let resolved: Vec<Resolved<'_>> = futures::stream::iter(needed)
        .map(async |(wanted, locked)| {
            let commit = locked.as_ref().and_then(|(_, locked)| locked.commit.as_deref());
            let remote = ask(job, wanted, commit).await?;
            Ok::<_, Error>((wanted, locked, remote))
        })
        .buffered(CONNECTIONS)
        .try_collect()
        .await?;

    let mut tasks = Vec::new();
    let mut taken = Taken::of(&all, &lock);
    for (wanted, locked, mut remote) in resolved {
        let known = wanted.place.path().or_else(|| locked.as_ref().map(|(path, _)| path.clone()));
        let path = match (known, &remote.name) {
            (Some(path), _) => path,
            (None, Some(name)) => checked_path(wanted, name)?,
            (None, None) => return Err(Error::failed(format!("cannot fetch {}", wanted.source)).why("it has no name")),
        };
        taken.take(&path, wanted)?;
        if let Some(sha256) = &remote.sha256 {
            agrees(wanted, sha256)?;
        }
        let locked = locked.map(|(_, locked)| locked);
        if let Some(locked) = &locked {
            let other = remote.sha256.as_ref().is_some_and(|sha256| *sha256 != locked.sha256)
                || remote.size.is_some_and(|size| size != locked.size);
            if other {
                return Err(moved(wanted, locked));
            }
        }
        let expected = wanted.sha256.as_ref().or(remote.sha256.as_ref());
        let expected = expected.or(locked.as_ref().map(|locked| &locked.sha256));
        let (current, before) = (here.get(&path), previous.files.get(&path));
        let ours = before.is_some_and(|before| current == Some(&before.sha256)) || placed.has(&dir.join(&path));
        match (current, expected) {
            (Some(current), Some(expected)) if current == expected => {
                let size = std::fs::metadata(dir.join(&path)).map(|meta| meta.len()).unwrap_or_default();
                lock.files.insert(path.clone(), entry(wanted, &remote, size, current.clone()));
                sizes.push(size);
                done.kept.push(path);
                continue;
            }
            (Some(_), Some(_)) if !ours => return Err(in_the_way(&dir.join(&path), wanted)),
            (Some(_), _) if locked.is_some() => {
                job.reporter
                    .report(Event::Note(format!("{path} is not what {FILE_NAME} says; its source is asked again")));
            }
            _ => {}
        }
        remote.size = remote.size.or(locked.as_ref().map(|locked| locked.size));
        sizes.extend(remote.size);
        tasks.push(Order { wanted, path, remote, locked, replace: ours });
    }
    if !tasks.is_empty() {
        (job.fits)(&sizes)?;
    }
    let (tasks, streamed) = leave(job, &dir, tasks)?;
    let outcome = match lock_streamed(job, &streamed, &mut lock, &mut done).await {
        Ok(()) => load_all(job, &dir, &tasks, &mut lock, (&mut cache, &mut placed), &mut done).await,
        Err(e) => Err(e),
    };
    // What came is locked also when a later file failed. Its error says more than any that follows from it: a disk that is
    // full has no room for the lock either.
    let saved = save(job, lock, &all);
    for (what, kept) in [("file digests are", cache.save()), ("list of fetched files is", placed.save())] {
        if let Err(e) = kept {
            job.reporter.report(Event::Warning(format!("the {what} not kept: {e}")));
        }
    }
    outcome?;
    done.lock_changed = saved?;
    Ok(done)
}

/// Parts what is ordered into what is fetched and what is streamed.
fn leave<'w>(job: &Job<'_>, dir: &Path, tasks: Vec<Order<'w>>) -> Result<(Vec<Order<'w>>, Vec<Order<'w>>)> {
    let (needed, free) = (needed(dir, &tasks), (job.free)(dir));
    match job.streaming {
        Streaming::Never => return Ok((tasks, Vec::new())),
        Streaming::IfNeeded if disk::fits(needed, free) => return Ok((tasks, Vec::new())),
        Streaming::IfNeeded | Streaming::Always => {}
    }
    let mut fetched = Vec::new();
    let mut streamed = Vec::new();
    for task in tasks {
        let (source, always) = (&task.wanted.source, job.streaming == Streaming::Always);
        match task.remote.size {
            None if always && !matches!(source, Source::Local(_)) => return Err(size_unknown(source)),
            Some(size) if streamable(&job.config.models, source, size) && task.remote.whole_only => match always {
                true => return Err(whole_only(source)),
                false => fetched.push(task),
            },
            Some(size) if streamable(&job.config.models, source, size) => streamed.push(task),
            _ => fetched.push(task),
        }
    }
    if job.streaming == Streaming::IfNeeded && !streamed.is_empty() {
        let sizes: Vec<u64> = streamed.iter().filter_map(|task| task.remote.size).collect();
        job.reporter.report(Event::Note(no_room(dir, needed, free, &sizes)));
    }
    Ok((fetched, streamed))
}

/// The note that files of these sizes are streamed, because the disk has no room for what is missing.
pub(super) fn no_room(dir: &Path, needed: u64, free: Option<u64>, streamed: &[u64]) -> String {
    format!(
        "the models need {}, but {} has {} free, so {} ({}) will be streamed into the upload and not kept here",
        bytes(needed),
        dir.display(),
        bytes(free.unwrap_or_default()),
        files(streamed.len()),
        bytes(streamed.iter().sum())
    )
}

/// Locks what is streamed. What no hub and no config says the sha256 of, is read once for it.
async fn lock_streamed(job: &Job<'_>, streamed: &[Order<'_>], lock: &mut Lock, done: &mut Fetched) -> Result<()> {
    let streams = Streams::new(job.access.clone(), tokio::runtime::Handle::current());
    for task in streamed {
        let size = task.remote.size.unwrap_or_default();
        let known = task.locked.as_ref().map(|locked| &locked.sha256);
        let known = known.or(task.remote.sha256.as_ref()).or(task.wanted.sha256.as_ref());
        let sha256 = match known {
            Some(sha256) => sha256.clone(),
            None => {
                let label = format!("reading {} once to lock it; nothing is kept", task.path);
                job.reporter.report(Event::Begin { task: Task::Fetch, label, total: Some(size) });
                let progress = |done| job.reporter.report(Event::Bytes { task: Task::Fetch, done });
                let sha256 = streams.hash(task.wanted, &task.remote, size, &progress).await?;
                job.reporter.report(Event::End { task: Task::Fetch, summary: format!("{} locked", task.path) });
                sha256
            }
        };
        lock.files.insert(task.path.clone(), entry(task.wanted, &task.remote, size, sha256));
        done.streamed.push((task.path.clone(), size));
    }
    Ok(())
}

/// sha256 of the files that are here, by path; from the cache where it knows them.
async fn digests(
    job: &Job<'_>,
    dir: &Path,
    files: &[Wanted],
    lock: &Lock,
    cache: &mut DigestCache,
) -> Result<BTreeMap<String, String>> {
    let paths: Vec<String> = files.iter().filter_map(|wanted| wanted.path(lock)).collect();
    let here: Vec<String> = paths.into_iter().filter(|path| dir.join(path).is_file()).collect();
    if here.is_empty() {
        return Ok(BTreeMap::new());
    }
    let globs: Vec<String> = here.iter().map(|path| super::wanted::exactly(path)).collect();
    let (dir, reporter) = (dir.to_owned(), job.reporter.clone());
    let mut taken = std::mem::take(cache);
    let (scanned, given) = tokio::task::spawn_blocking(move || {
        let scanned = models::scan(&dir, &globs, &mut taken, false, reporter.as_ref());
        (scanned, taken)
    })
    .await
    .map_err(|e| Error::failed(format!("reading local files broke off: {e}")))?;
    *cache = given;
    Ok(scanned?.files.into_iter().map(|file| (file.path, hex::encode(file.sha256))).collect())
}

/// The lock's entry, unless the config asks for other content by now.
pub(super) fn locked(wanted: &Wanted, lock: &Lock) -> Option<(String, Locked)> {
    let (path, locked) = wanted.locked(lock)?;
    let same = wanted.sha256.as_ref().is_none_or(|sha256| *sha256 == locked.sha256);
    same.then(|| (path, locked.clone()))
}

/// Writes the lock without what is no longer declared.
fn save(job: &Job<'_>, mut lock: Lock, all: &[Wanted]) -> Result<bool> {
    let declared: BTreeSet<String> = all.iter().filter_map(|wanted| wanted.path(&lock)).collect();
    lock.files.retain(|path, _| declared.contains(path));
    lock.follow(&job.config.comfyui);
    lock.save(job.root)
}
