//! The first parts of an object before the rest is decided: they tell how fast the line is, and stay where they are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};

use super::upload::{Sender, Wanted};
use super::{Options, PartSource, Source};
use crate::cloud::Objects;
use crate::error::Result;
use crate::progress::{Event, Reporter};

/// No part is begun after this time.
const TIME: Duration = Duration::from_secs(3);

/// What became of the first parts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum First {
    /// The whole object is there.
    There,
    /// Some arrived.
    Sent {
        /// How many of those that were asked for, from the first on.
        parts: usize,
        /// Bytes per second.
        rate: f64,
    },
}

/// Begins or continues the upload of an object with these parts of it, for about three seconds or the time that a part
/// takes. [`super::upload`] with the same parts in the beginning finds them and goes on. What an earlier run sent of them
/// is sent again, for otherwise there would be nothing to measure. The source makes no more parts after that.
///
/// # Errors
/// As [`super::upload`].
pub async fn first<S: PartSource>(
    objects: Arc<dyn Objects>,
    bucket: &str,
    key: &str,
    source: &Arc<S>,
    numbers: &[u32],
    options: &Options,
    reporter: &dyn Reporter,
) -> Result<First> {
    let sender = Sender::new(objects, bucket, options, reporter);
    let source: Source = source.clone();
    if sender.existing(key, &source).await?.is_some() {
        return Ok(First::There);
    }
    let total = numbers.iter().map(|&n| source.size(n)).sum();
    reporter.report(Event::Begin { task: options.task, label: "measuring the uplink".into(), total: Some(total) });
    let upload = sender.begun(key).await?.id;
    let wanted = Wanted(source);
    let source = &wanted.0;
    let begun = Instant::now();
    // One at first, and two more for each that has arrived: a slow line is not filled with what ought to have been smaller.
    let mut numbers = numbers.iter();
    let mut under_way = FuturesUnordered::new();
    let (mut parts, mut bytes) = (0, 0);
    loop {
        let most = (1 + 2 * parts).min(options.parallel.max(1));
        while under_way.len() < most && begun.elapsed() < TIME {
            let Some(&number) = numbers.next() else { break };
            under_way.push(sender.one(key, &upload, number, source));
        }
        let Some(sent) = under_way.next().await else { break };
        bytes += sent?;
        parts += 1;
    }
    drop(under_way);
    drop(wanted);
    let rate = bytes as f64 / begun.elapsed().as_secs_f64().max(1e-9);
    let summary = format!("the uplink takes {:.1} MB/s", rate / 1e6);
    reporter.report(Event::End { task: options.task, summary });
    Ok(First::Sent { parts, rate })
}
