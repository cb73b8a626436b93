//! Files from their sources to their places: loaded or copied, hashed, compared, renamed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use tokio::sync::Semaphore;

use super::disk;
use super::download::{Load, Loaded};
use super::journal::{Part, left};
use super::resolve::{self, Remote};
use super::run::{CONNECTIONS, Fetched, Job};
use super::source::Source;
use super::wanted::Wanted;
use crate::error::{Error, Result};
use crate::local::cache::{DigestCache, FileDigest, Stamp};
use crate::local::lockfile::{FILE_NAME, Lock, Locked, Placed};
use crate::local::models;
use crate::progress::units::bytes;
use crate::progress::{Event, Task};

/// Files at a time.
const FILES: usize = 4;
/// How often a file is begun again because it changed while it was read.
const RESTARTS: u32 = 2;

/// A file to fetch.
pub(super) struct Order<'a> {
    /// The declaration.
    pub(super) wanted: &'a Wanted,
    /// Its path in the models directory.
    pub(super) path: String,
    /// What its hub says.
    pub(super) remote: Remote,
    /// The lock's entry that it must match.
    pub(super) locked: Option<Locked>,
    /// Whether what stands at its path may be replaced.
    pub(super) replace: bool,
}

/// A file that came.
struct Came {
    /// Bytes.
    size: u64,
    /// What is in it.
    digest: FileDigest,
    /// Whether it was put in its place; not if the same stood there already.
    placed: bool,
    /// What its hub said of what came, which is not what was ordered if it changed meanwhile.
    remote: Remote,
}

/// Bytes that are still to be written for these.
pub(super) fn needed(dir: &Path, tasks: &[Order<'_>]) -> u64 {
    let rest = |task: &Order<'_>| {
        let have = left(&dir.join(&task.path), task.remote.identity().as_deref());
        task.remote.size.unwrap_or_default().saturating_sub(have)
    };
    // A hub may say anything.
    tasks.iter().map(rest).fold(0, u64::saturating_add)
}

/// Fetches what is ordered; what came is in `lock`, `cache`, `placed` and `done`, also when a later file fails.
pub(super) async fn load_all(
    job: &Job<'_>,
    dir: &Path,
    tasks: &[Order<'_>],
    lock: &mut Lock,
    (cache, placed): (&mut DigestCache, &mut Placed),
    done: &mut Fetched,
) -> Result<()> {
    if tasks.is_empty() {
        return Ok(());
    }
    disk::check(dir, needed(dir, tasks), (job.free)(dir))?;
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
        let (task, Came { size, digest, placed: put, remote }) = outcome?;
        let target = dir.join(&task.path);
        if put {
            placed.put(&target);
            // Now, so that a run that is killed later knows its own files again; that it cannot be written is told in the end.
            let _ = placed.save();
        }
        if let Ok(target) = target.canonicalize() {
            // A digest that is not kept is only made again.
            let _ = cache.put_own(&target, digest);
        }
        lock.files.insert(task.path.clone(), entry(task.wanted, &remote, size, hex::encode(digest.sha256)));
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

/// So many files, in words.
pub(super) fn files(n: usize) -> String {
    if n == 1 { "1 file".into() } else { format!("{n} files") }
}

/// One file, from its source to its place.
async fn load(
    job: &Job<'_>,
    dir: &Path,
    task: &Order<'_>,
    permits: &Semaphore,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Came> {
    let (target, source) = (dir.join(&task.path), &task.wanted.source);
    if let Source::Local(path) = source {
        let copied = copy(task, &resolve::local(job.root, path), &target).await?;
        progress(copied.size);
        return Ok(copied);
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
                    Ok(()) => return place(task, remote, part, &target, (size, digest)),
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

fn place(
    task: &Order<'_>,
    remote: Remote,
    part: Part,
    target: &Path,
    (size, digest): (u64, FileDigest),
) -> Result<Came> {
    if target.exists() && !task.replace {
        // Only now is it known what the source holds.
        let here = std::fs::File::open(target).and_then(|mut file| {
            let mut hasher = HashWriter::default();
            std::io::copy(&mut file, &mut hasher).map(|_| hasher.finish())
        });
        if !here.is_ok_and(|here| here == digest.sha256) {
            // What was loaded need not be loaded again when the other file is gone.
            if matches!(task.wanted.source, Source::Local(_)) {
                part.discard();
            }
            return Err(in_the_way(target, task.wanted));
        }
        part.discard();
        return Ok(Came { size, digest, placed: false, remote });
    }
    part.finish(target)?;
    Ok(Came { size, digest, placed: true, remote })
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
async fn copy(task: &Order<'_>, from: &Path, target: &Path) -> Result<Came> {
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
        // Into the file that is open and not to its name: a copy has the mode of its source, and one that may only be read
        // could not be begun anew after a kill. Shares the blocks where the file system can.
        let copied = std::fs::File::open(&source)
            .and_then(|mut from| std::io::copy(&mut from, &mut &*part.file))
            .and_then(|bytes| part.file.set_len(bytes));
        if let Err(e) = copied {
            // A copy is not continued: half of one only takes the room that was missing.
            part.discard();
            return Err(Error::io("copy", &source, &e).next("make it readable for this user, or free some disk space"));
        }
        Ok(part)
    })
    .await
    .map_err(|e| Error::failed(format!("copying a file broke off: {e}")))??;
    let digest = hash(&part).await?;
    let size = std::fs::metadata(part.path()).map(|meta| meta.len()).unwrap_or_default();
    match verdict(task, &task.remote, size, &digest) {
        Ok(()) => place(task, task.remote.clone(), part, target, (size, digest)),
        Err(e) => {
            part.discard();
            Err(e)
        }
    }
}

/// What the lock says of a file.
pub(super) fn entry(wanted: &Wanted, remote: &Remote, size: u64, sha256: String) -> Locked {
    Locked { source: wanted.source.to_string(), commit: remote.commit.clone(), size, sha256, etag: remote.etag.clone() }
}

/// Whether a sha256 is the one that the config asks for, if it asks.
pub(super) fn agrees(wanted: &Wanted, sha256: &str) -> Result<()> {
    match &wanted.sha256 {
        Some(expected) if expected != sha256 => {
            Err(Error::failed(format!("{} is not what the config says", wanted.source))
                .why(format!("its sha256 is {sha256}, models.files says {expected}"))
                .next("find out why; if the new content is right, correct the sha256 in models.files"))
        }
        _ => Ok(()),
    }
}

/// The source has other content than the lock.
pub(super) fn moved(wanted: &Wanted, locked: &Locked) -> Error {
    let at = locked
        .commit
        .as_ref()
        .map_or(String::new(), |commit| format!(" at commit {}", &commit[..commit.len().min(12)]));
    Error::failed(format!("{}{at} is not what {FILE_NAME} says", wanted.source))
        .why(format!("its content changed: locked are {} with sha256 {}", bytes(locked.size), locked.sha256))
        .next("find out why; to take the new content: comfy-deploy model lock --upgrade, then model fetch")
}

/// A file of somebody else stands where one would go.
pub(super) fn in_the_way(file: &Path, wanted: &Wanted) -> Error {
    Error::failed(format!("{} is another file than {}", file.display(), wanted.source))
        .why("it was not fetched by this tool on this machine, so it is not replaced")
        .next(
            "remove it or move it away and run the same command again, or give the fetched one another name with `to`",
        )
}
