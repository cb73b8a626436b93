//! `compression: adaptive`: how each file is kept is decided by what finishes first here and now.
//!
//! The first parts are sent as they are, and tell how fast the uplink is. A piece of each kind of file tells how fast this
//! machine compresses it and how far. Whatever is not sent yet is then kept in the way that ends first. The decision is
//! remembered until the object is there, so that a run that broke off is continued and not begun anew.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::{Artifact, Lengths, Older, compressed, laid_out};
use crate::cloud::Objects;
use crate::config::Compression;
use crate::error::{Error, Result};
use crate::pack::{Archive, Codec, Contents, Trial, shrinks, trial};
use crate::progress::{Event, Reporter, units};
use crate::transfer::{self, First, Options, PartSource};

/// Of the parts that are to be sent, at most one of so many measures the uplink: those are not compressed any more.
const SHARE: usize = 4;

/// What files may be deflated with. Level 9 takes a multiple of the time for a percent at best (see `pack::choice`).
const CODECS: [Codec; 2] = [Codec::Deflate2, Codec::Deflate6];

/// What was decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Bytes per second, where they were measured.
    pub uplink: Option<f64>,
    /// How files are kept that are not stored: (codec, number of them).
    pub compressed: Vec<(&'static str, usize)>,
    /// One sentence: what, and why.
    pub text: String,
}

/// Where it goes.
pub(super) struct Line<'a> {
    pub objects: Arc<dyn Objects>,
    pub artifact: &'a Artifact,
    pub key: &'a str,
    pub options: &'a Options,
}

/// The archive with everything decided. Its first parts may be sent already. Nothing is decided if the object is there.
///
/// # Errors
/// As [`transfer::first`]; a file that changed.
pub(super) async fn decide(
    line: &Line<'_>,
    archive: Archive,
    older: Option<Older>,
    reporter: &dyn Reporter,
) -> Result<(Archive, Option<Decision>)> {
    let Line { objects, artifact, key, options } = line;
    let (contents, part_size) = (archive.contents().clone(), archive.part_size());
    let mut lengths = artifact.lengths.load();
    let identity = artifact.manifest().identity()?;
    let remembered = lengths.choice(&identity).filter(|codecs| codecs.len() == artifact.tree.files.len());
    let continued = match remembered {
        Some(codecs) => {
            let open = objects.open_uploads(&artifact.bucket, key).await?;
            open.iter().any(|upload| upload.key == *key).then(|| codecs.to_vec())
        }
        None => None,
    };
    let (codecs, uplink, why) = match continued {
        Some(codecs) => (codecs, None, "as the run decided that is continued here".to_owned()),
        None => {
            let archive = Arc::new(archive);
            let numbers = to_measure(&archive, options.parallel);
            if numbers.is_empty() {
                (
                    as_auto(&archive),
                    None,
                    "too little is sent to measure the uplink; files are compressed as with auto".into(),
                )
            } else {
                let bucket = &artifact.bucket;
                let sent = transfer::first(objects.clone(), bucket, key, &archive, &numbers, options, reporter).await?;
                let First::Sent { parts, rate } = sent else {
                    let archive = Arc::into_inner(archive).unwrap_or_else(|| Archive::new(contents, part_size));
                    return Ok((archive, None));
                };
                let end = numbers[..parts].last().map_or(0, |&n| archive.end_of(n));
                (quickest(archive, end, rate).await?, Some(rate), format!("the uplink takes {:.1} MB/s", rate / 1e6))
            }
        }
    };
    let decided = contents.recoded(&codecs);
    lengths.choose(&identity, Some(codecs));
    if let Err(e) = lengths.save() {
        reporter.report(Event::Warning(format!("an upload that breaks off is decided anew: {e}")));
    }
    let mut known = decided;
    known.known(&mut lengths);
    let decision = told(&known, uplink, &why);
    reporter.report(Event::Note(decision.text.clone()));
    let (archive, _) = laid_out(known, part_size, older, lengths, reporter).await?;
    Ok((archive, Some(decision)))
}

/// The object is there: the next artifact is decided anew.
pub(super) fn forget(artifact: &Artifact) -> Result<()> {
    // Also with --rehash: what this run found out is true.
    let mut lengths = Lengths { rehash: false, ..artifact.lengths.clone() }.load();
    lengths.choose(&artifact.manifest().identity()?, None);
    // A choice that stays is looked at only beside an upload that is open.
    if let Err(e) = lengths.save() {
        tracing::debug!("the choice stays: {e}");
    }
    Ok(())
}

fn told(contents: &Contents, uplink: Option<f64>, why: &str) -> Decision {
    let compressed = compressed(contents);
    let counts: Vec<String> = compressed.iter().map(|(codec, n)| format!("{n} by {codec}")).collect();
    let what = match counts.as_slice() {
        [] => "every file is stored".to_owned(),
        counts => {
            let (n, plain, _) = contents.deflated();
            let files = if n == 1 { "1 file is".into() } else { format!("{n} files are") };
            format!("{files} compressed ({}, {})", units::bytes(plain), counts.join(", "))
        }
    };
    Decision { uplink, compressed, text: format!("compression: {what}, for {why}") }
}

/// The numbers of the first parts that are sent and not copied, as many as are under way at a time.
fn to_measure(archive: &Archive, parallel: usize) -> Vec<u32> {
    let sent: Vec<u32> = (1..=archive.count()).filter(|&n| archive.copy(n).is_none()).collect();
    // One alone is an object in one request, without parts.
    if archive.count() < 2 { Vec::new() } else { sent[..parallel.min(sent.len() / SHARE)].to_vec() }
}

/// What files would be kept as that are not copied, if nothing is measured.
fn as_auto(archive: &Archive) -> Vec<Codec> {
    let contents = archive.contents();
    let auto = Contents::new(contents.tree().clone(), Compression::Auto).codecs();
    let mine = contents.codecs().into_iter().zip(auto).zip(archive.copied_files());
    mine.map(|((mine, auto), copied)| if copied { mine } else { auto }).collect()
}

/// Compresses a piece of each kind of file whose content begins at `end` or later, and says how each file is kept best
/// when `uplink` bytes go out in a second.
async fn quickest(archive: Arc<Archive>, end: u64, uplink: f64) -> Result<Vec<Codec>> {
    let work = tokio::task::spawn_blocking(move || {
        let contents = archive.contents();
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get) as f64;
        let files = &contents.tree().files;
        let mut codecs = contents.codecs();
        // What shrinks alike, compresses alike: one trial for each percent, and the largest file for it.
        let mut free: Vec<usize> = (0..files.len()).filter(|&n| shrinks(files[n].gain())).collect();
        let (starts, copied) = (archive.starts(), archive.copied_files());
        free.retain(|&n| starts[n] >= end && !copied[n]);
        free.sort_by_key(|&n| std::cmp::Reverse(files[n].size));
        let mut trials: BTreeMap<u8, Vec<(Codec, Trial)>> = BTreeMap::new();
        for n in free {
            let gain = files[n].gain();
            if let std::collections::btree_map::Entry::Vacant(entry) = trials.entry(gain) {
                let tried = CODECS.iter().map(|&codec| Ok((codec, trial(contents, n, codec)?)));
                entry.insert(tried.collect::<Result<_>>()?);
            }
            codecs[n] = best(uplink, cores, &trials[&gain]);
        }
        Ok(codecs)
    });
    work.await.map_err(|e| Error::failed(format!("compressing broke off: {e}")))?
}

/// The codec with which a file of that kind is there first.
fn best(uplink: f64, cores: f64, trials: &[(Codec, Trial)]) -> Codec {
    let stored = (Codec::Stored, seconds(uplink, cores, None));
    let tried = trials.iter().map(|(codec, trial)| (*codec, seconds(uplink, cores, Some(trial))));
    tried.fold(stored, |best, next| if next.1 < best.1 { next } else { best }).0
}

/// Seconds for a plain byte: the slower of making and sending it, after it was compressed once before to know its length.
fn seconds(uplink: f64, cores: f64, trial: Option<&Trial>) -> f64 {
    match trial {
        None => 1.0 / uplink,
        Some(Trial { ratio, speed }) => {
            let compress = 1.0 / (speed * cores);
            (ratio / uplink).max(compress) + compress
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_the_uplink_the_harder_it_compresses() {
        const MB: f64 = 1e6;
        // As bf16 weights, and as text.
        let weights = [(Codec::Deflate2, 0.79, 80.0), (Codec::Deflate6, 0.78, 60.0)];
        let text = [(Codec::Deflate2, 0.31, 200.0), (Codec::Deflate6, 0.28, 90.0)];
        let best = |uplink: f64, trials: [(Codec, f64, f64); 2]| {
            let trials = trials.map(|(codec, ratio, speed)| (codec, Trial { ratio, speed: speed * MB }));
            best(uplink * MB, 4.0, &trials)
        };
        assert_eq!(best(1000.0, weights), Codec::Stored);
        assert_eq!(best(80.0, weights), Codec::Stored);
        assert_eq!(best(40.0, weights), Codec::Deflate2);
        assert_eq!(best(1.0, weights), Codec::Deflate6);
        assert_eq!(best(1000.0, text), Codec::Stored);
        assert_eq!(best(200.0, text), Codec::Deflate2);
        assert_eq!(best(1.0, text), Codec::Deflate6);
    }
}
