//! One object, in one request or in parts.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crc_fast::{CrcAlgorithm, checksum_combine};
use futures::stream::{StreamExt, TryStreamExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::pace::Pace;
use super::patience::Patience;
use super::retry::{retrying, slow_down};
use super::stop::{Stop, conflict};
use super::{CopySource, MIB, Options, Part, PartSource, Source, crc64_text, crc64_value};
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
    /// Of its bytes those that were copied from another object, or had arrived in an earlier run.
    pub spared: u64,
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
    pace: Pace,
    patience: Patience,
    done: AtomicU64,
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
        let pace = Pace::new(options.parallel);
        let (patience, done) = (Patience::new(options.patience), AtomicU64::new(0));
        Sender { objects, bucket, options, put, reporter, memory, permits, pace, patience, done }
    }

    /// Sends one object, unless it is there.
    pub(super) async fn send(&self, key: &str, source: &Source) -> Result<Uploaded> {
        if let Some(there) = self.existing(key, source).await? {
            self.progress(source.total());
            return Ok(there);
        }
        let mut source = Wanted(source.clone());
        for _ in 0..ROUNDS {
            let source = &mut source.0;
            let before = self.done.load(Ordering::Relaxed);
            let sent =
                if source.count() == 1 { self.single(key, source).await } else { self.multipart(key, source).await };
            match sent {
                Ok(uploaded) => return Ok(uploaded),
                Err(Stop::Source(e)) => return Err(e),
                Err(Stop::Service(e)) if e.hint().is_some() => return Err(e),
                Err(Stop::Service(e)) => {
                    return Err(e.next("run the same command again; it sends only what is missing"));
                }
                Err(Stop::Base(e)) => {
                    if source.copies() {
                        let name = key.rsplit('/').next().unwrap_or(key);
                        let what = format!("{name} is sent as a whole, for nothing can be copied: {e}");
                        self.reporter.report(Event::Warning(what));
                    }
                    let Some(whole) = whole(source).await? else { return Err(e) };
                    std::mem::replace(source, whole).abandon();
                    self.done.store(before, Ordering::Relaxed);
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
    pub(super) async fn existing(&self, key: &str, source: &Source) -> Result<Option<Uploaded>> {
        let Some(head) = self.retrying(|| self.objects.head(self.bucket, key)).await? else { return Ok(None) };
        let other_sum = matches!((source.crc64nvme(), &head.crc64nvme), (Some(a), Some(b)) if crc64_text(a) != *b);
        if source.fixed() && (head.size != source.total() || other_sum) {
            let (bucket, size, total) = (self.bucket, head.size, source.total());
            return Err(Error::failed(format!("s3://{bucket}/{key} is there with other content"))
                .why(format!("it has {size} bytes; what belongs there has {total}, and keys are made of the content"))
                .next(format!("delete it (aws s3 rm s3://{bucket}/{key}), then run the same command again")));
        }
        Ok(Some(Uploaded { bytes: head.size, crc64nvme: head.crc64nvme, already: true, spared: head.size }))
    }

    /// One PutObject, or one CopyObject.
    async fn single(&self, key: &str, source: &Source) -> Result<Uploaded, Stop> {
        if let Some((from, range)) = source.copy(1) {
            return self.copied(key, source, &from, range.end - range.start).await;
        }
        let _permit = self.permit(source.size(1)).await.map_err(Stop::Service)?;
        let part = produce(source, 1).await.map_err(Stop::Source)?;
        source.verify(part.crc64nvme).map_err(Stop::Source)?;
        self.companion(source).await?;
        let again = |e: &Error| e.is_transient() || conflict(e);
        let bytes = part.body.len() as u64;
        let put = || self.patience.wait(bytes, self.objects.put(self.bucket, key, part.body.clone(), &self.put));
        let written = self.in_lane(again, put).await.map_err(Stop::Service)?;
        self.progress(bytes);
        let already = written == Written::AlreadyThere;
        Ok(Uploaded { bytes, crc64nvme: Some(crc64_text(part.crc64nvme)), already, spared: 0 })
    }

    /// One CopyObject. What was copied is compared with what was meant, and removed if it is something else.
    async fn copied(&self, key: &str, source: &Source, from: &CopySource, bytes: u64) -> Result<Uploaded, Stop> {
        let copy = || self.objects.copy(self.bucket, key, from, &self.put);
        let sum = self.in_lane(Error::is_transient, copy).await.map_err(Stop::of_copy)?;
        let wanted = source.crc64nvme().map(crc64_text);
        if let (Some(wanted), Some(sum)) = (&wanted, &sum)
            && wanted != sum
        {
            self.retrying(|| self.objects.delete(self.bucket, key)).await.map_err(Stop::Service)?;
            return Err(Stop::Base(Error::failed(format!("{} is not what its manifest says", from.key))));
        }
        self.progress(bytes);
        Ok(Uploaded { bytes, crc64nvme: sum.or(wanted), already: false, spared: bytes })
    }

    /// Writes what must be there before the object is.
    async fn companion(&self, source: &Source) -> Result<(), Stop> {
        let Some(companion) = source.companion().map_err(Stop::Source)? else { return Ok(()) };
        let put = PutOptions { content_type: Some("application/json".into()), ..self.put.clone() };
        if !source.fixed() {
            // A run that broke off may have left one that belongs to other bytes.
            let read = || self.objects.get(self.bucket, &companion.key);
            if self.retrying(read).await.map_err(Stop::Service)?.is_some_and(|there| there != companion.body) {
                self.retrying(|| self.objects.delete(self.bucket, &companion.key)).await.map_err(Stop::Service)?;
            }
        }
        let write = || self.objects.put(self.bucket, &companion.key, companion.body.clone(), &put);
        let again = |e: &Error| self.again(e) || conflict(e);
        retrying(self.options.attempts, self.options.back_off, again, write).await.map_err(Stop::Service)?;
        Ok(())
    }

    /// Of two runs that make other bytes for one key, one's object is there, and both wrote a companion: that of the
    /// object stays. None is better than the other one.
    async fn settle(&self, source: &Source, ours: bool) -> Result<(), Stop> {
        if ours {
            return self.companion(source).await;
        }
        let Some(companion) = source.companion().map_err(Stop::Source)? else { return Ok(()) };
        let read = || self.objects.get(self.bucket, &companion.key);
        if self.retrying(read).await.map_err(Stop::Service)?.is_some_and(|there| there == companion.body) {
            self.retrying(|| self.objects.delete(self.bucket, &companion.key)).await.map_err(Stop::Service)?;
        }
        Ok(())
    }

    async fn multipart(&self, key: &str, source: &Source) -> Result<Uploaded, Stop> {
        let Begun { id, have, earlier } = self.begun(key).await.map_err(Stop::Service)?;
        let outcome = self.parts(key, &id, have, source).await;
        if earlier && matches!(&outcome, Ok(uploaded) if !uploaded.already) {
            self.encrypted_as_wanted(key).await?;
        }
        if matches!(outcome, Err(Stop::Source(_))) && !source.again() {
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

    /// An upload of this key, and the parts that it has: the one that an earlier run got furthest with, or a new one.
    pub(super) async fn begun(&self, key: &str) -> Result<Begun> {
        match self.interrupted(key).await? {
            Some((id, have)) => Ok(Begun { id, have, earlier: true }),
            None => {
                let begin = || self.objects.begin_upload(self.bucket, key, &self.put);
                Ok(Begun { id: self.retrying(begin).await?, have: HashMap::new(), earlier: false })
            }
        }
    }

    /// How an object is encrypted is decided when its upload is begun, and S3 tells it of none that is under way. One
    /// that was begun before the key was chosen is removed, and sent anew.
    async fn encrypted_as_wanted(&self, key: &str) -> Result<(), Stop> {
        let Some(wanted) = &self.put.kms_key_arn else { return Ok(()) };
        let head = self.retrying(|| self.objects.head(self.bucket, key)).await.map_err(Stop::Service)?;
        let Some(other) = head.and_then(|head| head.encrypted_with).filter(|with| with != wanted) else {
            return Ok(());
        };
        self.retrying(|| self.objects.delete(self.bucket, key)).await.map_err(Stop::Service)?;
        self.reporter.report(Event::Warning(format!(
            "the upload that was continued had been begun with the encryption {other}; it begins anew with {wanted}"
        )));
        Err(Stop::Gone { completing: false })
    }

    /// One part of an upload that goes on later. Returns its bytes.
    pub(super) async fn one(&self, key: &str, id: &str, number: u32, source: &Source) -> Result<u64> {
        match self.part(key, id, number, None, source).await {
            Ok(sent) => Ok(sent.part.size),
            Err(Stop::Source(e)) => {
                if !source.again() {
                    self.abort(key, id).await;
                }
                Err(e)
            }
            Err(Stop::Gone { .. }) => {
                Err(Error::failed(format!("the upload of s3://{}/{key} disappeared", self.bucket))
                    .why("something else aborted or completed it")
                    .next("run the same command again"))
            }
            Err(Stop::Base(e) | Stop::Service(e)) if e.hint().is_some() => Err(e),
            Err(Stop::Base(e) | Stop::Service(e)) => {
                Err(e.next("run the same command again; it sends only what is missing"))
            }
        }
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
        let mut sent: Vec<SentPart> = futures::stream::iter(1..=source.count())
            .map(|number| self.part(key, id, number, have.get(&number), source))
            .buffer_unordered(self.options.parallel.max(1))
            .try_collect()
            .await?;
        sent.sort_unstable_by_key(|sent| sent.part.number);
        let (mut crc, mut bytes, mut spared) = (0, 0, 0);
        for SentPart { part, sum, new } in &sent {
            crc = if bytes == 0 { *sum } else { checksum_combine(CrcAlgorithm::Crc64Nvme, crc, *sum, part.size) };
            bytes += part.size;
            spared += if *new { 0 } else { part.size };
        }
        // With copies in it, it may be the copies that are not what they should be; all else shows again when the
        // whole is sent.
        source.verify(crc).map_err(|e| if source.copies() { Stop::Base(e) } else { Stop::Source(e) })?;
        self.companion(source).await?;
        let parts: Vec<PartDone> = sent.into_iter().map(|sent| sent.part).collect();
        let text = crc64_text(crc);
        let mut tries = 0;
        let complete = || {
            tries += 1;
            self.objects.complete_upload(self.bucket, key, id, &parts, &text, bytes, true)
        };
        let written = self.retrying(complete).await.map_err(|e| Stop::of(e, true))?;
        let mut ours = true;
        if written == Written::AlreadyThere {
            // Somebody was faster. What is there must still be what belongs there, and our parts are of no use.
            let there = self.existing(key, source).await.map_err(Stop::Service)?;
            ours = there.is_none_or(|there| there.crc64nvme.as_ref() == Some(&text));
            self.abort(key, id).await;
        }
        if !source.fixed() {
            self.settle(source, ours).await?;
        }
        // After a try whose answer was lost, it is most likely ours.
        let already = written == Written::AlreadyThere && tries == 1;
        Ok(Uploaded { bytes, crc64nvme: Some(text), already, spared })
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
    ) -> Result<SentPart, Stop> {
        let size = source.size(number);
        if let Some((from, range)) = source.copy(number) {
            return self.copied_part(key, id, number, from, range).await;
        }
        let _permit = self.permit(size).await.map_err(Stop::Service)?;
        let part = produce(source, number).await.map_err(Stop::Source)?;
        let text = crc64_text(part.crc64nvme);
        if let Some(have) = have.filter(|h| h.size == size && h.crc64nvme == text) {
            self.progress(size);
            return Ok(SentPart { part: have.clone(), sum: part.crc64nvme, new: false });
        }
        let send = || async {
            let (objects, body, text) = (self.objects.clone(), part.body.clone(), text.clone());
            let (bucket, key, id) = (self.bucket.to_owned(), key.to_owned(), id.to_owned());
            // A task of its own, because signing and encrypting are work, and one task runs on one core at a time.
            let sent = task(async move { objects.upload_part(&bucket, &key, &id, number, body, &text).await });
            self.patience.wait(size, sent).await
        };
        let mut done = self.in_lane(Error::is_transient, send).await.map_err(|e| Stop::of(e, false))?;
        done.size = size;
        self.progress(size);
        Ok(SentPart { part: done, sum: part.crc64nvme, new: true })
    }

    /// Copies one part. It is copied again in every run: that sends nothing, and nothing here could say whether what an
    /// earlier run left is right.
    async fn copied_part(
        &self,
        key: &str,
        id: &str,
        number: u32,
        from: CopySource,
        range: Range<u64>,
    ) -> Result<SentPart, Stop> {
        let copy = || self.objects.copy_part(self.bucket, key, id, number, &from, range.clone());
        let part = self.in_lane(Error::is_transient, copy).await.map_err(Stop::of_copy)?;
        let sum = crc64_value(&part.crc64nvme).ok_or_else(|| {
            Stop::Base(Error::failed(format!("{} cannot be checked", from.key)).why("S3 does not say its CRC64NVME"))
        })?;
        self.progress(part.size);
        Ok(SentPart { part, sum, new: false })
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

    /// A request that moves bytes. Each try takes a lane of its own: what S3 asked to come slower waits like all else.
    async fn in_lane<T, F: Future<Output = Result<T>>>(
        &self,
        again: impl Fn(&Error) -> bool,
        mut call: impl FnMut() -> F,
    ) -> Result<T> {
        retrying(self.options.attempts, self.options.back_off, again, || self.pace.run(call())).await
    }

    /// A request that moves none, or few.
    pub(super) async fn retrying<T, F: Future<Output = Result<T>>>(&self, call: impl FnMut() -> F) -> Result<T> {
        retrying(self.options.attempts, self.options.back_off, |e| self.again(e), call).await
    }

    /// Whether to try again; slower, if that is what S3 asks for.
    fn again(&self, error: &Error) -> bool {
        if slow_down(error) {
            self.pace.slower();
        }
        error.is_transient()
    }
}

/// A source as long as its parts are wanted. Threads that make parts are not ended with the future that waits for them.
pub(super) struct Wanted(pub(super) Source);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// An upload in parts, which is open.
pub(super) struct Begun {
    pub(super) id: String,
    /// The parts that it has, by number.
    have: HashMap<u32, PartDone>,
    /// Whether an earlier run began it.
    earlier: bool,
}

/// A part that is there.
struct SentPart {
    part: PartDone,
    sum: u64,
    /// Whether its bytes went out now.
    new: bool,
}

/// Makes a part on a thread where it may block.
async fn produce(source: &Source, number: u32) -> Result<Part> {
    let source = source.clone();
    match tokio::task::spawn_blocking(move || source.produce(number)).await {
        Ok(part) => part,
        Err(e) => Err(Error::failed("a part could not be made").why(e.to_string())),
    }
}

/// The source without its copies, made on a thread where it may block.
async fn whole(source: &Source) -> Result<Option<Source>> {
    let source = source.clone();
    match tokio::task::spawn_blocking(move || source.whole()).await {
        Ok(whole) => whole,
        Err(e) => Err(Error::failed("nothing can be sent as a whole").why(e.to_string())),
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
