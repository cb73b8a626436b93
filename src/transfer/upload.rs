//! One object, in one request or in parts.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crc_fast::{CrcAlgorithm, checksum_combine};
use futures::stream::{StreamExt, TryStreamExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::retry::{retrying, transient};
use super::{MIB, Options, Part, PartSource, Source, crc64_text};
use crate::cloud::{Objects, PartDone, PutOptions, Written};
use crate::error::{Error, Result};
use crate::progress::{Event, Reporter};

/// How often an upload is begun anew when S3 says that it is gone (a lifecycle rule, another run) or in conflict.
const ROUNDS: u32 = 3;

/// An object that is there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// Bytes.
    pub bytes: u64,
    /// Base64, of the whole object; absent only if the object was there before and S3 does not know it.
    pub crc64nvme: Option<String>,
    /// Whether it was there before, so that nothing was sent in the end.
    pub already: bool,
}

/// Sends one object, unless it is there. Finished parts of an interrupted run are found and not sent again.
///
/// Nothing is ever overwritten: keys are content, so an object that is there is the one that was to be sent, and one of
/// another size is an error. Dropping the future stops the requests and keeps the finished parts.
///
/// # Errors
/// What the source says (the upload is aborted then: its content exists no more), or S3 (finished parts are kept).
pub async fn upload(
    objects: Arc<dyn Objects>,
    bucket: &str,
    key: &str,
    source: impl PartSource,
    options: &Options,
    reporter: &dyn Reporter,
) -> Result<Uploaded> {
    let sender = Sender::new(objects, bucket, options, reporter);
    let source: Source = Arc::new(source);
    let name = key.rsplit('/').next().unwrap_or(key);
    let total = source.total();
    reporter.report(Event::Begin { task: options.task, label: format!("uploading {name}"), total: Some(total) });
    let uploaded = sender.send(key, &source).await?;
    let summary = if uploaded.already { format!("{name} was there already") } else { format!("{name} uploaded") };
    reporter.report(Event::End { task: options.task, summary });
    Ok(uploaded)
}

/// What all uploads of one call share.
pub(super) struct Sender<'a> {
    objects: Arc<dyn Objects>,
    bucket: &'a str,
    options: &'a Options,
    put: PutOptions,
    reporter: &'a dyn Reporter,
    /// One permit per MiB.
    memory: Semaphore,
    permits: u32,
    done: AtomicU64,
}

/// Why an upload stopped.
enum Stop {
    /// The content cannot be made any more.
    Source(Error),
    /// S3 does not know the upload, or not any longer. `completing`: it may have been completed, the answer was lost.
    Gone { completing: bool },
    /// Anything else.
    Service(Error),
}

impl Stop {
    fn of(error: Error, completing: bool) -> Self {
        if error.is_aws("NoSuchUpload") || (completing && conflict(&error)) {
            Stop::Gone { completing }
        } else {
            Stop::Service(error)
        }
    }
}

/// Another conditional write of the same key was under way (409).
fn conflict(error: &Error) -> bool {
    error.is_aws("ConditionalRequestConflict")
}

impl<'a> Sender<'a> {
    pub(super) fn new(
        objects: Arc<dyn Objects>,
        bucket: &'a str,
        options: &'a Options,
        reporter: &'a dyn Reporter,
    ) -> Self {
        let permits = u32::try_from(options.memory / MIB).unwrap_or(u32::MAX).clamp(1, 1 << 20);
        let put = PutOptions { if_absent: true, ..options.put.clone() };
        let memory = Semaphore::new(permits as usize);
        Sender { objects, bucket, options, put, reporter, memory, permits, done: AtomicU64::new(0) }
    }

    /// Sends one object, unless it is there.
    pub(super) async fn send(&self, key: &str, source: &Source) -> Result<Uploaded> {
        if let Some(there) = self.existing(key, source).await? {
            self.progress(source.total());
            return Ok(there);
        }
        if source.count() == 1 {
            return self.single(key, source).await;
        }
        for _ in 0..ROUNDS {
            let before = self.done.load(Ordering::Relaxed);
            match self.multipart(key, source).await {
                Ok(uploaded) => return Ok(uploaded),
                Err(Stop::Source(e)) => return Err(e),
                Err(Stop::Service(e)) if e.hint().is_some() => return Err(e),
                Err(Stop::Service(e)) => {
                    return Err(e.next("run the same command again; it sends only what is missing"));
                }
                Err(Stop::Gone { completing }) => {
                    if let Some(there) = self.existing(key, source).await? {
                        return Ok(Uploaded { already: !completing, ..there });
                    }
                    self.done.store(before, Ordering::Relaxed);
                }
            }
        }
        Err(Error::failed(format!("the upload of s3://{}/{key} disappeared {ROUNDS} times", self.bucket))
            .why("something else aborts it, or writes the same key")
            .next("look for another run or a lifecycle rule that aborts incomplete uploads, then run the same command again"))
    }

    /// The object, if it is there.
    async fn existing(&self, key: &str, source: &Source) -> Result<Option<Uploaded>> {
        let Some(head) = self.retrying(|| self.objects.head(self.bucket, key)).await? else { return Ok(None) };
        let other_sum = matches!((source.crc64nvme(), &head.crc64nvme), (Some(a), Some(b)) if crc64_text(a) != *b);
        if head.size != source.total() || other_sum {
            let (bucket, size, total) = (self.bucket, head.size, source.total());
            return Err(Error::failed(format!("s3://{bucket}/{key} is there with other content"))
                .why(format!("it has {size} bytes; what belongs there has {total}, and keys are made of the content"))
                .next(format!("delete it (aws s3 rm s3://{bucket}/{key}), then run the same command again")));
        }
        Ok(Some(Uploaded { bytes: head.size, crc64nvme: head.crc64nvme, already: true }))
    }

    /// One PutObject.
    async fn single(&self, key: &str, source: &Source) -> Result<Uploaded> {
        let _permit = self.permit(source.size(1)).await?;
        let part = produce(source, 1).await?;
        source.verify(part.crc64nvme)?;
        let again = |e: &Error| transient(e) || conflict(e);
        let put = || self.objects.put(self.bucket, key, part.body.clone(), &self.put);
        let written = retrying(self.options.attempts, self.options.back_off, again, put).await?;
        let bytes = part.body.len() as u64;
        self.progress(bytes);
        let already = written == Written::AlreadyThere;
        Ok(Uploaded { bytes, crc64nvme: Some(crc64_text(part.crc64nvme)), already })
    }

    async fn multipart(&self, key: &str, source: &Source) -> Result<Uploaded, Stop> {
        let (id, have) = match self.interrupted(key).await.map_err(Stop::Service)? {
            Some(found) => found,
            None => {
                let begin = || self.objects.begin_upload(self.bucket, key, &self.put);
                (self.retrying(begin).await.map_err(Stop::Service)?, HashMap::new())
            }
        };
        let outcome = self.parts(key, &id, have, source).await;
        if matches!(outcome, Err(Stop::Source(_))) {
            // There will be no such content again: nothing to go on with.
            self.abort(key, &id).await;
        }
        if outcome.is_ok() {
            // Left by other runs of the same content; S3 bills them until they are aborted.
            for other in self.objects.open_uploads(self.bucket, key).await.unwrap_or_default() {
                if other.key == key && other.upload_id != id {
                    self.abort(key, &other.upload_id).await;
                }
            }
        }
        outcome
    }

    /// Aborts as well as it can: the bucket's lifecycle rule does it otherwise.
    async fn abort(&self, key: &str, id: &str) {
        if let Err(e) = self.retrying(|| self.objects.abort_upload(self.bucket, key, id)).await {
            tracing::warn!(key, error = %e, "cannot abort the upload");
        }
    }

    /// The upload of this key that an earlier run got furthest with, and its parts.
    async fn interrupted(&self, key: &str) -> Result<Option<(String, HashMap<u32, PartDone>)>> {
        let mut best = None;
        let mut most = 0;
        for open in self.retrying(|| self.objects.open_uploads(self.bucket, key)).await? {
            if open.key != key {
                continue;
            }
            let parts = match self.retrying(|| self.objects.parts(self.bucket, key, &open.upload_id)).await {
                Ok(parts) => parts,
                Err(e) if e.is_aws("NoSuchUpload") => continue,
                Err(e) => return Err(e),
            };
            let bytes: u64 = parts.iter().map(|p| p.size).sum();
            if best.is_none() || bytes > most {
                most = bytes;
                best = Some((open.upload_id, parts.into_iter().map(|p| (p.number, p)).collect()));
            }
        }
        Ok(best)
    }

    /// Sends what is missing, and completes.
    async fn parts(
        &self,
        key: &str,
        id: &str,
        have: HashMap<u32, PartDone>,
        source: &Source,
    ) -> Result<Uploaded, Stop> {
        let mut sent: Vec<(PartDone, u64)> = futures::stream::iter(1..=source.count())
            .map(|number| self.part(key, id, number, have.get(&number), source))
            .buffer_unordered(self.options.parallel.max(1))
            .try_collect()
            .await?;
        sent.sort_unstable_by_key(|(part, _)| part.number);
        let (mut crc, mut bytes) = (0, 0);
        for (part, sum) in &sent {
            crc = if bytes == 0 { *sum } else { checksum_combine(CrcAlgorithm::Crc64Nvme, crc, *sum, part.size) };
            bytes += part.size;
        }
        source.verify(crc).map_err(Stop::Source)?;
        let parts: Vec<PartDone> = sent.into_iter().map(|(part, _)| part).collect();
        let text = crc64_text(crc);
        let mut tries = 0;
        let complete = || {
            tries += 1;
            self.objects.complete_upload(self.bucket, key, id, &parts, &text, bytes, true)
        };
        let written = self.retrying(complete).await.map_err(|e| Stop::of(e, true))?;
        if written == Written::AlreadyThere {
            // Somebody was faster. What is there must still be what belongs there, and our parts are of no use.
            self.existing(key, source).await.map_err(Stop::Service)?;
            self.abort(key, id).await;
        }
        // After a try whose answer was lost, it is most likely ours.
        Ok(Uploaded { bytes, crc64nvme: Some(text), already: written == Written::AlreadyThere && tries == 1 })
    }

    /// Makes one part, and sends it unless S3 has it. Making is local and cheap, and only what was made now can be
    /// compared with what an earlier run sent.
    async fn part(
        &self,
        key: &str,
        id: &str,
        number: u32,
        have: Option<&PartDone>,
        source: &Source,
    ) -> Result<(PartDone, u64), Stop> {
        let size = source.size(number);
        let _permit = self.permit(size).await.map_err(Stop::Service)?;
        let part = produce(source, number).await.map_err(Stop::Source)?;
        let text = crc64_text(part.crc64nvme);
        if let Some(have) = have.filter(|h| h.size == size && h.crc64nvme == text) {
            self.progress(size);
            return Ok((have.clone(), part.crc64nvme));
        }
        let send = || {
            let (objects, body, text) = (self.objects.clone(), part.body.clone(), text.clone());
            let (bucket, key, id) = (self.bucket.to_owned(), key.to_owned(), id.to_owned());
            // A task of its own, because signing and encrypting are work, and one task runs on one core at a time.
            task(async move { objects.upload_part(&bucket, &key, &id, number, body, &text).await })
        };
        let mut done = self.retrying(send).await.map_err(|e| Stop::of(e, false))?;
        done.size = size;
        self.progress(size);
        Ok((done, part.crc64nvme))
    }

    /// Room for a part. One that is larger than all the room there is waits until it is alone.
    async fn permit(&self, size: u64) -> Result<tokio::sync::SemaphorePermit<'_>> {
        let wanted = u32::try_from(size.div_ceil(MIB)).unwrap_or(u32::MAX).clamp(1, self.permits);
        self.memory.acquire_many(wanted).await.map_err(|e| Error::failed("the upload was stopped").why(e.to_string()))
    }

    fn progress(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.reporter.report(Event::Bytes { task: self.options.task, done });
    }

    pub(super) async fn retrying<T, F: Future<Output = Result<T>>>(&self, call: impl FnMut() -> F) -> Result<T> {
        retrying(self.options.attempts, self.options.back_off, transient, call).await
    }
}

/// Makes a part on a thread where it may block.
async fn produce(source: &Source, number: u32) -> Result<Part> {
    let source = source.clone();
    match tokio::task::spawn_blocking(move || source.produce(number)).await {
        Ok(part) => part,
        Err(e) => Err(Error::failed("a part could not be made").why(e.to_string())),
    }
}

/// Runs a future as a task that ends when this one is dropped.
async fn task<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let mut set = JoinSet::new();
    set.spawn(work);
    match set.join_next().await {
        Some(Ok(result)) => result,
        Some(Err(e)) => Err(Error::failed("a request was not finished").why(e.to_string())),
        None => Err(Error::failed("a request was not begun")),
    }
}
