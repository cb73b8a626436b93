//! All files of a config: compared with lock and disk, fetched, verified, locked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt};
use tokio::sync::Semaphore;

use super::disk;
use super::download::{Load, Loaded};
use super::get::Access;
use super::journal::{Part, left};
use super::resolve::{self, Remote};
use super::source::Source;
use super::wanted::{Wanted, wanted};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::local::cache::{DigestCache, FileDigest, Stamp};
use crate::local::lockfile::{FILE_NAME, Lock, Locked};
use crate::local::models;
use crate::progress::units::bytes;
use crate::progress::{Event, Reporter, Task};

/// Connections of a run; more do not make a hub faster, and are counted against us.
const CONNECTIONS: usize = 8;
/// Files at a time.
const FILES: usize = 4;
/// How often a file is begun again because it changed while it was read.
const RESTARTS: u32 = 2;

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
}

/// How a declared file stands, by lock and disk alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Here, and as locked as can be told without reading it.
    Locked,
    /// Here, but not in the lock.
    Local,
    /// In the lock, but not here.
    Missing,
    /// Neither in the lock nor here.
    New,
    /// Here with other content than the locked one.
    Changed,
}

impl State {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            State::Locked => "locked",
            State::Local => "not locked",
            State::Missing => "missing",
            State::New => "not fetched",
            State::Changed => "changed",
        }
    }
}

/// A declared file and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The declaration.
    pub wanted: Wanted,
    /// Path in the models directory, if it is known.
    pub path: Option<String>,
    /// Bytes, by the lock or the disk.
    pub size: Option<u64>,
    /// The lock's entry.
    pub locked: Option<Locked>,
    /// How it stands.
    pub state: State,
}

/// How every declared file stands. Reads names and sizes alone.
///
/// # Errors
/// The lock cannot be read.
pub fn status(root: &Path, config: &Config) -> Result<Vec<Status>> {
    let lock = Lock::load(root)?;
    let (dir, cache) = (root.join(&config.models.dir), DigestCache::load(root));
    let one = |wanted: Wanted| {
        let path = wanted.path(&lock);
        let locked = locked(&wanted, &lock).map(|(_, locked)| locked);
        let file = path.as_ref().map(|path| dir.join(path));
        let stamp = file.as_ref().and_then(|file| std::fs::metadata(file).ok()).map(|meta| Stamp::of(&meta));
        let known = file.and_then(|file| cache.get(&file.canonicalize().ok()?, stamp.as_ref()?));
        let state = match (&locked, &stamp) {
            (Some(locked), Some(stamp)) if stamp.size != locked.size => State::Changed,
            (Some(locked), Some(_)) if known.is_some_and(|d| hex::encode(d.sha256) != locked.sha256) => State::Changed,
            (Some(_), Some(_)) => State::Locked,
            (None, Some(_)) => State::Local,
            (Some(_), None) => State::Missing,
            (None, None) => State::New,
        };
        let size = stamp.map(|stamp| stamp.size).or(locked.as_ref().map(|locked| locked.size));
        Status { path, size, locked, state, wanted }
    };
    Ok(wanted(&config.models.files).into_iter().map(one).collect())
}

/// The lock's entry, unless the config asks for other content by now.
fn locked(wanted: &Wanted, lock: &Lock) -> Option<(String, Locked)> {
    let (path, locked) = wanted.locked(lock)?;
    let same = wanted.sha256.as_ref().is_none_or(|sha256| *sha256 == locked.sha256);
    same.then(|| (path, locked.clone()))
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Paths that came, with their bytes.
    pub fetched: Vec<(String, u64)>,
    /// Paths that were there.
    pub kept: Vec<String>,
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
/// now. Files whose hub tells no sha256 are fetched for it.
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
        .map(async |wanted| Ok::<_, Error>((wanted, resolve::resolve(job.access, &wanted.source, None).await?)))
        .buffered(CONNECTIONS)
        .try_collect()
        .await?;
    let mut unknown = Vec::new();
    for (wanted, remote) in resolved {
        let name = wanted.place.name.as_ref().or(remote.name.as_ref());
        match (name, &remote.sha256, remote.size) {
            (Some(name), Some(sha256), Some(size)) => {
                let path = checked_path(wanted, name)?;
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

fn entry(wanted: &Wanted, remote: &Remote, size: u64, sha256: String) -> Locked {
    Locked { source: wanted.source.to_string(), commit: remote.commit.clone(), size, sha256, etag: remote.etag.clone() }
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

fn agrees(wanted: &Wanted, sha256: &str) -> Result<()> {
    match &wanted.sha256 {
        Some(expected) if expected != sha256 => {
            Err(Error::failed(format!("{} is not what the config says", wanted.source))
                .why(format!("its sha256 is {sha256}, models.files says {expected}"))
                .next("find out why; if the new content is right, correct the sha256 in models.files"))
        }
        _ => Ok(()),
    }
}

/// A declared file, its path and entry in the lock, and what its hub says.
type Resolved<'w> = (&'w Wanted, Option<(String, Locked)>, Remote);

/// A file to fetch.
struct Order<'a> {
    wanted: &'a Wanted,
    path: String,
    remote: Remote,
    /// The lock's entry that it must match.
    locked: Option<Locked>,
    /// Whether what stands at its path may be replaced.
    replace: bool,
}

async fn bring(job: &Job<'_>, lock: &Lock, previous: &Lock, files: &[Wanted]) -> Result<Fetched> {
    let dir = job.root.join(&job.config.models.dir);
    let all = wanted(&job.config.models.files);
    let mut lock = lock.clone();
    let mut done = Fetched::default();
    let mut cache = DigestCache::load(job.root);
    let here = digests(job, &dir, files, &lock, &mut cache).await?;

    let mut needed = Vec::new();
    for wanted in files {
        match locked(wanted, &lock) {
            Some((path, locked)) if here.get(&path) == Some(&locked.sha256) => done.kept.push(path),
            locked => needed.push((wanted, locked)),
        }
    }
    let resolved: Vec<Resolved<'_>> = futures::stream::iter(needed)
        .map(async |(wanted, locked)| {
            let commit = locked.as_ref().and_then(|(_, locked)| locked.commit.as_deref());
            let remote = resolve::resolve(job.access, &wanted.source, commit).await?;
            Ok::<_, Error>((wanted, locked, remote))
        })
        .buffered(CONNECTIONS)
        .try_collect()
        .await?;

    let mut tasks = Vec::new();
    for (wanted, locked, mut remote) in resolved {
        let known = wanted.place.path().or_else(|| locked.as_ref().map(|(path, _)| path.clone()));
        let path = match (known, &remote.name) {
            (Some(path), _) => path,
            (None, Some(name)) => checked_path(wanted, name)?,
            (None, None) => return Err(Error::failed(format!("cannot fetch {}", wanted.source)).why("it has no name")),
        };
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
        let (current, before) = (here.get(&path), previous.files.get(&path));
        let ours = locked.is_some() || before.is_some_and(|before| current == Some(&before.sha256));
        match (current, expected) {
            (Some(current), Some(expected)) if current == expected => {
                let size = std::fs::metadata(dir.join(&path)).map(|meta| meta.len()).unwrap_or_default();
                lock.files.insert(path.clone(), entry(wanted, &remote, size, current.clone()));
                done.kept.push(path);
                continue;
            }
            (Some(_), Some(_)) if !ours => return Err(in_the_way(&dir.join(&path), wanted)),
            (Some(_), _) if locked.is_some() => {
                let text = format!("{path} is not what {FILE_NAME} says; fetching it again");
                job.reporter.report(Event::Note(text));
            }
            _ => {}
        }
        remote.size = remote.size.or(locked.as_ref().map(|locked| locked.size));
        tasks.push(Order { wanted, path, remote, locked, replace: ours });
    }
    let outcome = load_all(job, &dir, &tasks, &mut lock, &mut cache, &mut done).await;
    done.lock_changed = save(job, lock, &all)?;
    if let Err(e) = cache.save() {
        job.reporter.report(Event::Warning(format!("the file digests are not kept: {e}")));
    }
    outcome.map(|()| done)
}

fn moved(wanted: &Wanted, locked: &Locked) -> Error {
    let at = locked
        .commit
        .as_ref()
        .map_or(String::new(), |commit| format!(" at commit {}", &commit[..commit.len().min(12)]));
    Error::failed(format!("{}{at} is not what {FILE_NAME} says", wanted.source))
        .why(format!("its content changed: locked are {} with sha256 {}", bytes(locked.size), locked.sha256))
        .next("find out why; to take the new content: comfy-deploy model lock --upgrade, then model fetch")
}

fn in_the_way(file: &Path, wanted: &Wanted) -> Error {
    Error::failed(format!("{} is another file than {}", file.display(), wanted.source))
        .why("it was not fetched by this tool, so it is not replaced")
        .next("move it away, or give the fetched one another name with `to`")
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
    Ok(scanned?.files.into_iter().map(|file| (file.path, hex::encode(file.digest.sha256))).collect())
}

async fn load_all(
    job: &Job<'_>,
    dir: &Path,
    tasks: &[Order<'_>],
    lock: &mut Lock,
    cache: &mut DigestCache,
    done: &mut Fetched,
) -> Result<()> {
    if tasks.is_empty() {
        return Ok(());
    }
    let rest = |task: &Order<'_>| {
        let have = left(&dir.join(&task.path), task.remote.identity().as_deref());
        task.remote.size.unwrap_or_default().saturating_sub(have)
    };
    disk::check(dir, tasks.iter().map(rest).sum())?;
    let total = tasks.iter().map(|task| task.remote.size).sum::<Option<u64>>();
    let label = match tasks {
        [one] => format!("{} from {}", one.path, one.wanted.source.place()),
        many => format!("{} files", many.len()),
    };
    job.reporter.report(Event::Begin { task: Task::Fetch, label, total });
    let counts = Mutex::new(vec![0u64; tasks.len()]);
    let permits = Semaphore::new(CONNECTIONS);
    let mut loads = futures::stream::iter(tasks.iter().enumerate())
        .map(|(n, task)| {
            let (counts, permits) = (&counts, &permits);
            async move {
                let progress = move |bytes: u64| {
                    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                    counts[n] = bytes;
                    job.reporter.report(Event::Bytes { task: Task::Fetch, done: counts.iter().sum() });
                };
                load(job, dir, task, permits, &progress).await.map(|loaded| (task, loaded))
            }
        })
        .buffer_unordered(FILES);
    while let Some(outcome) = loads.next().await {
        let (task, (size, digest)) = outcome?;
        let target = dir.join(&task.path);
        if let Ok(target) = target.canonicalize() {
            // A digest that is not kept is only made again.
            let _ = cache.put_own(&target, digest);
        }
        lock.files.insert(task.path.clone(), entry(task.wanted, &task.remote, size, hex::encode(digest.sha256)));
        done.fetched.push((task.path.clone(), size));
    }
    done.fetched.sort();
    let came = bytes(done.fetched.iter().map(|(_, size)| size).sum());
    job.reporter.report(Event::End {
        task: Task::Fetch,
        summary: format!("{} fetched and verified, {came}", files(tasks.len())),
    });
    Ok(())
}

fn files(n: usize) -> String {
    if n == 1 { "1 file".into() } else { format!("{n} files") }
}

/// One file, from its source to its place.
async fn load(
    job: &Job<'_>,
    dir: &Path,
    task: &Order<'_>,
    permits: &Semaphore,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(u64, FileDigest)> {
    let (target, source) = (dir.join(&task.path), &task.wanted.source);
    if let Source::Local(path) = source {
        return copy(task, &resolve::local(job.root, path), &target).await;
    }
    let mut remote = task.remote.clone();
    for restart in 0..=RESTARTS {
        let Some(address) = remote.address.as_ref().map(resolve::AddressOf::get) else {
            return Err(Error::failed(format!("cannot fetch {source}")).why("it has no address"));
        };
        let identity = remote.identity();
        let part = Part::open(&target, identity.as_deref(), remote.size.unwrap_or_default())?;
        let resumed = part.resumed;
        let load = Load::new(job.access, source, &remote, permits, part, progress);
        let loaded = load.run(&address).await?;
        let part = load.into_part();
        match loaded {
            Loaded::Whole(size) => {
                let digest = hash(&part).await?;
                match verdict(task, &remote, size, &digest) {
                    Ok(()) => return place(task, part, &target, size, digest),
                    // The part of an earlier run may be what is wrong.
                    Err(_) if resumed && restart < RESTARTS => part.discard(),
                    Err(e) => {
                        part.discard();
                        return Err(e);
                    }
                }
            }
            Loaded::Changed => {
                let commit = task.locked.as_ref().and_then(|locked| locked.commit.as_deref());
                let now = resolve::resolve(job.access, source, commit).await?;
                let same = now.identity() == identity && now.size == remote.size;
                if let Some(locked) = task.locked.as_ref().filter(|_| !same) {
                    part.discard();
                    return Err(moved(task.wanted, locked));
                }
                tracing::debug!("{source} changed while it was read; beginning again");
                part.discard();
                remote = now;
            }
        }
    }
    Err(Error::failed(format!("cannot fetch {source}"))
        .why("it changes again and again while it is read")
        .next("try again later, or name a revision or a sha256 in models.files"))
}

/// Whether what came is what was meant.
fn verdict(task: &Order<'_>, remote: &Remote, size: u64, digest: &FileDigest) -> Result<()> {
    let sha256 = hex::encode(digest.sha256);
    agrees(task.wanted, &sha256)?;
    if let Some(locked) = task.locked.as_ref().filter(|locked| locked.sha256 != sha256) {
        return Err(moved(task.wanted, locked));
    }
    match &remote.sha256 {
        Some(expected) if *expected != sha256 => Err(Error::failed(format!("{} arrived damaged", task.wanted.source))
            .why(format!("{} came with sha256 {sha256}, its hub says {expected}", bytes(size)))
            .next("run the same command again; it begins this file anew")),
        _ => Ok(()),
    }
}

fn place(task: &Order<'_>, part: Part, target: &Path, size: u64, digest: FileDigest) -> Result<(u64, FileDigest)> {
    if target.exists() && !task.replace {
        // Only now is it known what the source holds.
        let here = std::fs::File::open(target).and_then(|mut file| {
            let mut hasher = HashWriter::default();
            std::io::copy(&mut file, &mut hasher).map(|_| hasher.finish())
        });
        if !here.is_ok_and(|here| here == digest.sha256) {
            return Err(in_the_way(target, task.wanted));
        }
        part.discard();
        return Ok((size, digest));
    }
    part.finish(target)?;
    Ok((size, digest))
}

#[derive(Default)]
struct HashWriter(sha2::Sha256);

impl HashWriter {
    fn finish(self) -> [u8; 32] {
        sha2::Digest::finalize(self.0).into()
    }
}

impl std::io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        sha2::Digest::update(&mut self.0, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// All digests of a part: hashed once, for the lock and for whatever packs it.
async fn hash(part: &Part) -> Result<FileDigest> {
    // Its length in the end; a part of unknown size grew as it came.
    let path = part.path().to_owned();
    read(path).await
}

async fn read(path: PathBuf) -> Result<FileDigest> {
    // Dropped with the run, it tells the thread to stop.
    struct Stop(Arc<AtomicBool>);
    impl Drop for Stop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = Stop(Arc::new(AtomicBool::new(false)));
    let stopped = stop.0.clone();
    let digest = tokio::task::spawn_blocking(move || {
        let meta = std::fs::metadata(&path).map_err(|e| Error::io("read", &path, &e))?;
        let mut buffer = vec![0; 1 << 20];
        models::read_one(&path, &Stamp::of(&meta), &mut buffer, |_| !stopped.load(Ordering::Relaxed))
    })
    .await
    .map_err(|e| Error::failed(format!("reading a file broke off: {e}")))??;
    drop(stop);
    digest.ok_or_else(crate::apply::pace::interrupted)
}

/// A file of this machine.
async fn copy(task: &Order<'_>, from: &Path, target: &Path) -> Result<(u64, FileDigest)> {
    let (source, to) = (from.to_owned(), target.to_owned());
    let part = tokio::task::spawn_blocking(move || -> Result<Part> {
        let meta = std::fs::metadata(&source).map_err(|e| {
            Error::usage(format!("cannot read {}", source.display()))
                .why(e.to_string())
                .next("correct `source` in models.files")
        })?;
        if !meta.is_file() {
            return Err(Error::usage(format!("{} is not a file", source.display())).next("name one file in `source`"));
        }
        let part = Part::open(&to, None, meta.len())?;
        // Shares the blocks where the file system can.
        std::fs::copy(&source, part.path()).map_err(|e| Error::io("copy", &source, &e).next("free some disk space"))?;
        Ok(part)
    })
    .await
    .map_err(|e| Error::failed(format!("copying a file broke off: {e}")))??;
    let digest = hash(&part).await?;
    let size = std::fs::metadata(part.path()).map(|meta| meta.len()).unwrap_or_default();
    match verdict(task, &task.remote, size, &digest) {
        Ok(()) => place(task, part, target, size, digest),
        Err(e) => {
            part.discard();
            Err(e)
        }
    }
}

/// Writes the lock without what is no longer declared.
fn save(job: &Job<'_>, mut lock: Lock, all: &[Wanted]) -> Result<bool> {
    let declared: BTreeSet<String> = all.iter().filter_map(|wanted| wanted.path(&lock)).collect();
    lock.files.retain(|path, _| declared.contains(path));
    lock.follow(&job.config.comfyui);
    lock.save(job.root)
}
