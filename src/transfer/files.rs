//! Many objects below one prefix, complete once a last one is there.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};

use super::upload::Sender;
use super::{Options, PartSource, Source, Uploaded};
use crate::cloud::{Objects, PutOptions};
use crate::error::Result;
use crate::progress::{Event, Reporter};

/// Objects under way at a time. Their parts share one budget; this only lets small ones overlap.
const FILES: usize = 8;

/// One object to send.
pub struct FileUpload {
    /// Its key.
    pub key: String,
    /// Its bytes.
    pub source: Box<dyn PartSource>,
}

/// Sends every file, unless it is there, and then `last` (key and bytes), whose presence says that all are there: if it
/// is there at the start, nothing is sent. Returns the sum of all bytes; the checksum is absent, for there is no one
/// object.
///
/// # Errors
/// As [`super::upload`]. Files that were sent stay; the next run does not send them again.
pub async fn upload_files(
    objects: Arc<dyn Objects>,
    bucket: &str,
    files: Vec<FileUpload>,
    last: (&str, Bytes),
    options: &Options,
    reporter: &dyn Reporter,
) -> Result<Uploaded> {
    let sender = Sender::new(objects.clone(), bucket, options, reporter);
    let files: Vec<(String, Source)> = files.into_iter().map(|f| (f.key, Arc::from(f.source))).collect();
    let bytes = files.iter().map(|(_, source)| source.total()).sum();
    let (last_key, last_body) = last;
    if sender.retrying(|| objects.head(bucket, last_key)).await?.is_some() {
        return Ok(Uploaded { bytes, crc64nvme: None, already: true, spared: bytes });
    }
    let label = format!("uploading {} files", files.len());
    reporter.report(Event::Begin { task: options.task, label, total: Some(bytes) });
    let sent: Vec<Uploaded> = futures::stream::iter(&files)
        .map(|(key, source)| sender.send(key, source))
        .buffer_unordered(FILES)
        .try_collect()
        .await?;
    let put = PutOptions { if_absent: true, content_type: Some("application/json".into()), ..options.put.clone() };
    sender.retrying(|| objects.put(bucket, last_key, last_body.clone(), &put)).await?;
    let new = sent.iter().filter(|u| !u.already).count();
    reporter.report(Event::End { task: options.task, summary: format!("{new} of {} files uploaded", sent.len()) });
    let spared = sent.iter().map(|u| u.spared).sum();
    Ok(Uploaded { bytes, crc64nvme: None, already: false, spared })
}
