//! How long deflated files are, found out before the archive is laid out: every piece is compressed, and only its length
//! kept.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Codec;
use super::contents::{Contents, Length, plain};
use super::deflate::{PIECE, count};
use super::pieces::make;
use super::read::{Open, Read};
use super::streams::Streams;
use crate::error::{Error, Kind, Result};
use crate::local::lengths::LengthCache;
use crate::progress::{Event, Reporter, Task, units};

/// More threads make no disk faster.
const THREADS_MAX: usize = 8;

/// Fewer bytes are done before anybody has read what is going on.
const ANNOUNCED: u64 = 32 << 20;

/// Time between two writings of what was found out, so that a run that is killed has not worked for nothing.
const SAVED: Duration = Duration::from_secs(20);

/// A file that is being measured.
struct Job {
    n: usize,
    lens: Vec<u32>,
    left: usize,
}

/// What the threads share.
struct Found<'a> {
    jobs: Vec<Job>,
    done: HashMap<([u8; 32], Codec), Arc<[u32]>>,
    cache: &'a mut LengthCache,
    saved: Instant,
    failed: Option<Error>,
}

/// Finds every length that is not known, and keeps it in `cache`. Blocking, on all cores.
///
/// # Errors
/// A file that cannot be read or that changed; [`Kind::Interrupted`] once `stop` is set.
pub fn measure(
    contents: &Contents,
    cache: &mut LengthCache,
    reporter: &dyn Reporter,
    stop: &AtomicBool,
) -> Result<Contents> {
    let mut contents = contents.clone();
    contents.known(cache);
    let unknown = contents.unknown();
    if unknown.is_empty() {
        return Ok(contents);
    }
    let tree = contents.tree.clone();
    // Each content once, wherever it is.
    let mut first = HashMap::new();
    for &n in &unknown {
        first.entry((tree.files[n].sha256, contents.codec(n))).or_insert(n);
    }
    let mut wanted: Vec<usize> = first.into_values().collect();
    wanted.sort_unstable();
    let pieces = |n: usize| count(plain(&tree.files[n])) as usize;
    let jobs: Vec<Job> = wanted.iter().map(|&n| Job { n, lens: vec![0; pieces(n)], left: pieces(n) }).collect();
    let steps: Vec<(usize, u64)> =
        jobs.iter().enumerate().flat_map(|(job, j)| (0..j.lens.len() as u64).map(move |piece| (job, piece))).collect();
    let numbers: Vec<(usize, u32)> =
        jobs.iter().map(|job| (job.n, contents.codec(job.n).level().unwrap_or_default())).collect();
    let total: u64 = wanted.iter().map(|&n| tree.files[n].size).sum();
    let told = total >= ANNOUNCED;
    if told {
        let label = format!("compressing {}, to know how long the archive is", files(wanted.len()));
        reporter.report(Event::Begin { task: Task::Model, label, total: Some(total) });
    }
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    // Nothing that is compressed is elsewhere.
    let streams = Streams::new(&tree, |_| false);
    let read = Read::default();
    let found = Mutex::new(Found { jobs, done: HashMap::new(), cache, saved: Instant::now(), failed: None });
    let work = || {
        let mut open = Open::new(&tree, &read, &streams);
        while let Some(&(job, number)) = steps.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (n, level) = numbers[job];
            let made = match stop.load(Ordering::Relaxed) {
                true => Err(Error::new(Kind::Interrupted, "interrupted")),
                false => make(n, number, level, &mut open),
            };
            let mut found = found.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let kept = made.and_then(|made| {
                let file = &mut found.jobs[job];
                // Less than 2 MiB.
                file.lens[number as usize] = made.len() as u32;
                file.left -= 1;
                if file.left == 0 { keep(&mut found, job, &contents, &read) } else { Ok(()) }
            });
            if let Err(e) = kept {
                found.failed.get_or_insert(e);
            }
            if found.failed.is_some() {
                return;
            }
            drop(found);
            if told {
                let done = done.fetch_add(PIECE, Ordering::Relaxed) + PIECE;
                reporter.report(Event::Bytes { task: Task::Model, done: done.min(total) });
            }
        }
        // That the last file is still what it was.
        if let Err(e) = open.close() {
            found.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).failed.get_or_insert(e);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).clamp(1, THREADS_MAX);
    std::thread::scope(|scope| {
        for _ in 1..threads.min(steps.len()) {
            scope.spawn(work);
        }
        work();
    });
    let found = found.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    save(found.cache, reporter);
    if let Some(e) = found.failed {
        return Err(e);
    }
    for n in unknown {
        if let Some(lens) = found.done.get(&(tree.files[n].sha256, contents.codec(n))) {
            contents.set(n, Length::Pieces(lens.clone()));
        }
    }
    if told {
        let (n, plain, kept) = contents.deflated();
        let summary = format!("{}, {}, compress to {}", files(n), units::bytes(plain), units::bytes(kept));
        reporter.report(Event::End { task: Task::Model, summary });
    }
    Ok(contents)
}

/// What compressing a piece of a file came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// Bytes that are left of one.
    pub ratio: f64,
    /// Bytes per second of one core.
    pub speed: f64,
}

/// Compresses a piece from the middle of file `n`. Blocking.
///
/// # Errors
/// A file that cannot be read or that changed.
pub fn trial(contents: &Contents, n: usize, codec: Codec) -> Result<Trial> {
    let read = Read::default();
    let streams = Streams::new(&contents.tree, |_| false);
    let mut open = Open::new(&contents.tree, &read, &streams);
    let (number, level) = (count(plain(open.model(n))) / 2, codec.level().unwrap_or_default());
    let bytes = PIECE.min(plain(open.model(n)) - number * PIECE) as f64;
    // Once to have it in memory.
    make(n, number, level, &mut open)?;
    let begun = Instant::now();
    let made = make(n, number, level, &mut open)?;
    let speed = bytes / begun.elapsed().as_secs_f64().max(1e-9);
    open.close()?;
    Ok(Trial { ratio: made.len() as f64 / bytes, speed })
}

/// Keeps the lengths of a file of which every piece was made, if it was the right file.
fn keep(found: &mut Found<'_>, job: usize, contents: &Contents, read: &Read) -> Result<()> {
    let n = found.jobs[job].n;
    read.verify_one(&contents.tree, n)?;
    let lens: Arc<[u32]> = std::mem::take(&mut found.jobs[job].lens).into();
    let (sha256, codec) = (contents.tree.files[n].sha256, contents.codec(n));
    found.cache.put(&sha256, codec, lens.clone());
    found.done.insert((sha256, codec), lens);
    if found.saved.elapsed() > SAVED {
        // It is tried again in the end, and told then.
        let _ = found.cache.save();
        found.saved = Instant::now();
    }
    Ok(())
}

fn save(cache: &mut LengthCache, reporter: &dyn Reporter) {
    if let Err(e) = cache.save() {
        reporter.report(Event::Warning(format!("the lengths of compressed files are not kept: {e}")));
    }
}

fn files(n: usize) -> String {
    if n == 1 { "1 file".into() } else { format!("{n} files") }
}
