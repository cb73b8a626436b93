//! What of an archive can be copied from an older one, and in which parts. Pure arithmetic on ranges.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;

const MIB: u64 = 1 << 20;

/// Smallest part of an S3 multipart upload, the last excepted ("Amazon S3 multipart upload limits").
const PART_MIN: u64 = 5 * MIB;

/// Most bytes that one UploadPartCopy copies (same place).
const COPY_MAX: u64 = 5 << 30;

/// What one request copies: S3 copies parts side by side, so a few large ones are slower than many of this size.
const COPY: u64 = 256 * MIB;

/// Most parts of an object (same place).
const PARTS_MAX: usize = 10_000;

/// A part of a new object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedPart {
    /// Its bytes in the new object.
    pub range: Range<u64>,
    /// Where the same bytes begin in the old object, if they are copied from there.
    pub copy: Option<u64>,
}

impl PlannedPart {
    /// Bytes.
    pub fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Never true of a planned part.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }
}

/// A stretch of an object, and what it holds: equal keys mean equal bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch<K> {
    pub key: K,
    pub range: Range<u64>,
}

/// The parts of the new object: copied where the old one has the same bytes, and sent in parts of at most `part_size`
/// bytes (10 MiB or more) elsewhere. `None` if nothing is worth copying. Both objects are rows of stretches without
/// gaps, from 0.
pub(super) fn parts<K: Eq + Hash>(new: &[Stretch<K>], old: &[Stretch<K>], part_size: u64) -> Option<Vec<PlannedPart>> {
    let runs = matched(new, old);
    let total = runs.last().map_or(0, |r| r.range.end);
    // Copying less costs bytes but saves parts, and copying nothing always fits.
    let mut least = PART_MIN;
    while least <= total {
        let runs = grouped(runs.clone(), least);
        if !runs.iter().any(|r| r.copy.is_some()) {
            return None;
        }
        // The more parts are copied, the larger they may have to be.
        let mut copy = COPY;
        while copy <= COPY_MAX {
            let parts: Vec<PlannedPart> = runs.iter().flat_map(|run| cut(run, copy, part_size)).collect();
            if parts.len() <= PARTS_MAX {
                return Some(parts);
            }
            copy *= 4;
        }
        least *= 2;
    }
    None
}

/// Each stretch with its place in the old object; those that lie behind each other in both become one.
fn matched<K: Eq + Hash>(new: &[Stretch<K>], old: &[Stretch<K>]) -> Vec<PlannedPart> {
    let mut places: HashMap<&K, Vec<&Range<u64>>> = HashMap::new();
    for stretch in old {
        places.entry(&stretch.key).or_default().push(&stretch.range);
    }
    let mut runs: Vec<PlannedPart> = Vec::new();
    for stretch in new {
        let len = stretch.range.end - stretch.range.start;
        let next = runs.last().and_then(|run| Some(run.copy? + run.len()));
        let there = places.get(&stretch.key).map(Vec::as_slice).unwrap_or_default();
        let there = there.iter().filter(|r| r.end - r.start == len).map(|r| r.start);
        // Of several copies the one that goes on where the last stretch ended.
        let copy = there.clone().find(|&at| Some(at) == next).or_else(|| there.min());
        append(&mut runs, PlannedPart { range: stretch.range.clone(), copy });
    }
    runs
}

/// Adds a run, as a part of the last one if it continues it.
fn append(runs: &mut Vec<PlannedPart>, run: PlannedPart) {
    if run.is_empty() {
        return;
    }
    if let Some(last) = runs.last_mut() {
        let continues = match (last.copy, run.copy) {
            (Some(a), Some(b)) => a + last.len() == b,
            (None, None) => true,
            _ => false,
        };
        if continues {
            last.range.end = run.range.end;
            return;
        }
    }
    runs.push(run);
}

/// Makes every run but the last at least as long as a part must be: short copies are sent, and short runs that are sent
/// take bytes from the copy behind them. A copy has at least `least` bytes.
fn grouped(runs: Vec<PlannedPart>, least: u64) -> Vec<PlannedPart> {
    let mut out: Vec<PlannedPart> = Vec::new();
    for mut run in runs {
        if run.copy.is_some()
            && let Some(last) = out.last_mut().filter(|last| last.copy.is_none() && last.len() < PART_MIN)
        {
            let taken = (PART_MIN - last.len()).min(run.len());
            last.range.end += taken;
            run = PlannedPart { range: run.range.start + taken..run.range.end, copy: run.copy.map(|at| at + taken) };
        }
        if run.copy.is_some() && run.len() < least {
            run.copy = None;
        }
        append(&mut out, run);
    }
    out
}

/// Cuts a run into parts, none of them too small: copies into parts of about the same size, all else into parts of `send`
/// bytes, so that where they begin does not depend on what comes later.
fn cut(run: &PlannedPart, copy: u64, send: u64) -> impl Iterator<Item = PlannedPart> + use<> {
    let copied = run.copy.is_some();
    let most = if copied { copy } else { send.max(2 * PART_MIN) };
    let len = run.len();
    let count = len.div_ceil(most);
    let (start, from) = (run.range.start, run.copy);
    let edge = move |n: u64| match count - n {
        // Products in 128 bits: a length of terabytes times thousands of parts.
        _ if copied => (u128::from(len) * u128::from(n) / u128::from(count.max(1))) as u64,
        0 => len,
        // The last two share what they have, if the last one would be too small.
        1 if n > 0 && len - n * most < PART_MIN => (len + (n - 1) * most) / 2,
        _ => n * most,
    };
    (0..count)
        .map(move |n| PlannedPart { range: start + edge(n)..start + edge(n + 1), copy: from.map(|at| at + edge(n)) })
}

#[cfg(test)]
mod tests;
