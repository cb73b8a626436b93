//! Files that go from their hub to whoever wants their bytes, and are never on this disk.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use reqwest::Url;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use super::answer::Fault;
use super::download::is_range;
use super::get::{Access, Address, Patience};
use super::http::{Body, Request};
use super::load::moved;
use super::resolve::{self, AddressOf, Remote};
use super::run::CONNECTIONS;
use super::source::Source;
use super::wanted::Wanted;
use crate::config::Models;
use crate::error::{Error, Kind, Result};
use crate::local::lockfile::Locked;
use crate::local::models::{ModelFile, RemoteBytes, RemoteFile, Stop, Unread};

/// Files up to here are fetched also where others are streamed: they take no room, are asked for once instead of in every
/// run, and may be compressed, which has to look at them before.
pub const LEAST: u64 = 32 << 20;
/// Bytes of a range that is hashed without being kept; as many as there are connections are held in memory.
const PIECE: u64 = 8 << 20;
/// Bytes of one answer of S3, which is held in memory.
const S3_PIECE: u64 = 2 << 20;
/// How often a file's place is asked for again because the server has other content there.
const RENEWALS: u32 = 3;

/// Whether a declared file of this size can be streamed: if it need not be seen to know how it is kept in the artifact.
pub fn streamable(models: &Models, source: &Source, size: u64) -> bool {
    size > LEAST && !matches!(source, Source::Local(_)) && !models.compression().looks_at_every_file()
}

/// A declared file in the lock that is streamed unless it is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Streamable {
    /// Path in the models directory.
    pub path: String,
    /// The declaration.
    pub wanted: Wanted,
    /// What it must be.
    pub locked: Locked,
}

/// What all streamed files of a run share.
#[derive(Clone)]
pub struct Streams {
    access: Access,
    handle: Handle,
    /// Connections under way at a time.
    permits: Arc<Semaphore>,
}

impl Streams {
    /// Asks by `access`, on the runtime of `handle`.
    pub fn new(access: Access, handle: Handle) -> Self {
        Streams { access, handle, permits: Arc::new(Semaphore::new(CONNECTIONS)) }
    }

    /// The file, to be read from its source.
    ///
    /// # Errors
    /// A lock that was not read by [`crate::local::lockfile::Lock::parse`].
    pub fn file(&self, file: &Streamable) -> Result<ModelFile> {
        let Streamable { path, wanted, locked } = file;
        let mut sha256 = [0; 32];
        hex::decode_to_slice(&locked.sha256, &mut sha256)
            .map_err(|e| Error::failed(format!("the sha256 of {path} cannot be read")).why(e.to_string()))?;
        let streamed = self.streamed(wanted, locked.size, Some(locked.clone()), None);
        Ok(ModelFile::remote(path.clone(), locked.size, sha256, Arc::new(streamed)))
    }

    fn streamed(&self, wanted: &Wanted, size: u64, locked: Option<Locked>, place: Option<Place>) -> Streamed {
        Streamed(Arc::new(Inner {
            streams: self.clone(),
            wanted: wanted.clone(),
            size,
            locked,
            place: Mutex::new(place),
        }))
    }

    /// The sha256 of a file whose hub does not tell it: all of it is read, side by side, and nothing is kept.
    ///
    /// # Errors
    /// It does not come, or changes.
    pub(super) async fn hash(
        &self,
        wanted: &Wanted,
        remote: &Remote,
        size: u64,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<String> {
        let place = Place::of(&wanted.source, remote.clone())?;
        let file = self.streamed(wanted, size, None, Some(place));
        let pieces = (0..size.div_ceil(PIECE)).map(|n| n * PIECE..size.min((n + 1) * PIECE));
        let mut pieces = futures::stream::iter(pieces)
            .map(|range| {
                let mut pull = file.pull(range.clone(), Stop::default());
                async move {
                    let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
                    while pull.at < pull.to {
                        bytes.extend_from_slice(&pull.next().await.map_err(|unread| unread.error)?);
                    }
                    Ok::<_, Error>(bytes)
                }
            })
            .buffered(CONNECTIONS);
        let (mut sha256, mut done) = (Sha256::new(), 0);
        while let Some(piece) = pieces.try_next().await? {
            done += piece.len() as u64;
            // Some hundredths of a second, in which the other pieces could come.
            sha256 = tokio::task::spawn_blocking(move || sha256.chain_update(&piece))
                .await
                .map_err(|e| Error::failed(format!("hashing broke off: {e}")))?;
            progress(done);
        }
        Ok(hex::encode(sha256.finalize()))
    }
}

/// Where a file's bytes are, and what is known of that place.
#[derive(Debug, Clone)]
struct Place {
    remote: Remote,
    address: AddressOf,
    /// The signed address behind the redirects, while it is valid.
    signed: Option<Url>,
    /// Of the place itself, which may have another than the hub; with its quotes.
    etag: Option<String>,
    renewed: u32,
}

impl Place {
    fn of(source: &Source, remote: Remote) -> Result<Self> {
        let what = || Error::failed(format!("cannot stream {source}"));
        if remote.whole_only {
            return Err(whole_only(source));
        }
        let address = remote.address.clone().ok_or_else(|| what().why("it has no address"))?;
        // S3 describes an object where it keeps it; of a file on the web only the answer with its bytes says its ETag.
        let etag = match &address {
            AddressOf::S3(..) => remote.etag.as_ref().map(|etag| format!("\"{etag}\"")),
            AddressOf::Web(_) => None,
        };
        Ok(Place { remote, address, signed: None, etag, renewed: 0 })
    }
}

/// The error for a server that does not send ranges.
pub(super) fn whole_only(source: &Source) -> Error {
    Error::usage(format!("cannot stream {source}"))
        .why("its server sends whole files only, and parts of an upload are made side by side")
        .next("fetch it on a disk with room for it (models.stream: false, then comfy-deploy model fetch), or keep it in S3")
}

/// The error for a file of which nobody says how large it is.
pub(super) fn size_unknown(source: &Source) -> Error {
    Error::usage(format!("cannot stream {source}")).why("its server does not say how large it is").next(
        "fetch it on a disk with room for it (models.stream: false, then comfy-deploy model fetch), or keep it in S3",
    )
}

/// A file where it is. Clones share what is known of its place.
#[derive(Clone)]
struct Streamed(Arc<Inner>);

struct Inner {
    streams: Streams,
    wanted: Wanted,
    size: u64,
    /// What it must be; none while that is being found out.
    locked: Option<Locked>,
    place: Mutex<Option<Place>>,
}

impl std::fmt::Debug for Streamed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Streamed").field(&self.0.wanted.source).finish()
    }
}

impl RemoteFile for Streamed {
    fn source(&self) -> String {
        self.0.wanted.source.to_string()
    }

    fn open(&self, range: Range<u64>, stop: &Stop) -> Box<dyn RemoteBytes> {
        Box::new(self.pull(range, stop.clone()))
    }
}

impl Streamed {
    fn pull(&self, range: Range<u64>, stop: Stop) -> Pull {
        let patience = Patience::new(self.0.streams.access.pause);
        let file = self.clone();
        Pull { file, at: range.start, to: range.end, answer: None, rest: Bytes::new(), patience, stop }
    }

    /// Where it is, asked for once.
    async fn place(&self) -> Result<Place, Unread> {
        let mut place = self.0.place.lock().await;
        if let Some(place) = &*place {
            return Ok(place.clone());
        }
        let new = self.resolve().await?;
        Ok(place.insert(new).clone())
    }

    async fn resolve(&self) -> Result<Place, Unread> {
        let (source, locked) = (&self.0.wanted.source, self.0.locked.as_ref());
        let commit = locked.and_then(|locked| locked.commit.as_deref());
        let again = |error| Unread { error, again: true };
        let remote = resolve::resolve(&self.0.streams.access, source, commit).await.map_err(again)?;
        if let Some(locked) = locked {
            let other = remote.sha256.as_ref().is_some_and(|sha256| *sha256 != locked.sha256)
                || remote.size.is_some_and(|size| size != locked.size);
            if other {
                return Err(Unread { error: moved(&self.0.wanted, locked), again: false });
            }
        }
        Place::of(source, remote).map_err(again)
    }

    /// The server has other content than the one that was begun, at a place that was `seen`. The hub says whether it is
    /// still the same file, kept in another way.
    async fn renew(&self, seen: &Place) -> Result<(), Unread> {
        let mut place = self.0.place.lock().await;
        if place.as_ref().is_some_and(|place| place.renewed != seen.renewed) {
            return Ok(());
        }
        let now = self.resolve().await?;
        // Without a sha256 of the hub's an ETag is all there is to tell contents apart.
        let same = now.remote.sha256.is_some() || now.remote.etag == seen.remote.etag;
        if !same || seen.renewed >= RENEWALS {
            let source = &self.0.wanted.source;
            let error = match &self.0.locked {
                Some(locked) => moved(&self.0.wanted, locked),
                None => Error::failed(format!("{source} changed while it was read")).next("run the same command again"),
            };
            return Err(Unread { error, again: false });
        }
        *place = Some(Place { renewed: seen.renewed + 1, ..now });
        Ok(())
    }

    /// A range of it, or the beginning of that.
    async fn answer(&self, place: &Place, from: u64, to: u64) -> Result<Answer, Fault> {
        let Inner { streams, wanted, size, .. } = &*self.0;
        let closed = || Fault::Broken("the run is over".into());
        let permit = streams.permits.clone().acquire_owned().await.map_err(|_| closed())?;
        let etag = place.etag.as_deref();
        let (got, to) = match place.address.get() {
            Address::S3(bucket, key) => {
                let to = to.min(from + S3_PIECE);
                let object = streams.access.object(&wanted.source, (&bucket, &key), Some((from, to)), etag);
                (object.await?, to)
            }
            Address::Web(url) => {
                let request = Request {
                    range: Some((from, to)),
                    // A weak ETag says nothing about bytes, and If-Range does not take one.
                    if_range: etag.filter(|etag| etag.starts_with('"')).map(str::to_owned),
                    ..Request::get(place.signed.clone().unwrap_or_else(|| url.clone()))
                };
                let commit = place.remote.commit.is_some();
                (streams.access.once(&wanted.source, commit, request, &url, false).await?, to)
            }
        };
        if !is_range(&got.response, from, etag, Some(*size))? {
            return Err(Fault::Fatal(whole_only(&wanted.source)));
        }
        let mut known = self.0.place.lock().await;
        if let Some(known) = known.as_mut().filter(|known| known.renewed == place.renewed) {
            known.signed.clone_from(&got.url);
            // Several ranges may be asked for before the first answer says what the content is called.
            match (&known.etag, got.response.header("etag")) {
                (Some(known), Some(new)) if known != new => return Err(Fault::Changed),
                (None, Some(new)) => known.etag = Some(new.to_owned()),
                _ => {}
            }
        }
        Ok(Answer { body: got.response.body, to, _permit: permit })
    }

    /// A signed address is not valid any more.
    async fn expired(&self, seen: &Place) {
        if let Some(place) = self.0.place.lock().await.as_mut().filter(|place| place.signed == seen.signed) {
            place.signed = None;
        }
    }
}

/// An answer that brings bytes.
struct Answer {
    body: Box<dyn Body>,
    /// Where it ends.
    to: u64,
    _permit: OwnedSemaphorePermit,
}

/// A range of a file, while it is read.
struct Pull {
    file: Streamed,
    at: u64,
    to: u64,
    answer: Option<Answer>,
    /// What came and was not asked for yet.
    rest: Bytes,
    patience: Patience,
    stop: Stop,
}

impl Pull {
    /// The next bytes; at least one.
    async fn next(&mut self) -> Result<Bytes, Unread> {
        loop {
            let mut answer = match self.answer.take() {
                Some(answer) => answer,
                None => self.ask().await?,
            };
            let fault = match answer.body.chunk().await {
                Ok(Some(chunk)) => {
                    let fits = usize::try_from(answer.to - self.at).unwrap_or(usize::MAX).min(chunk.len());
                    self.at += fits as u64;
                    if self.at < answer.to {
                        self.answer = Some(answer);
                    }
                    if fits > 0 {
                        self.patience.refresh();
                        return Ok(chunk.slice(..fits));
                    }
                    continue;
                }
                Ok(None) => Fault::Broken("the answer ended early".into()),
                Err(broken) => Fault::Broken(broken.0),
            };
            drop(answer);
            self.endure(fault).await?;
        }
    }

    /// Asks until there is an answer, within reason.
    async fn ask(&mut self) -> Result<Answer, Unread> {
        loop {
            let place = self.file.place().await?;
            match self.file.answer(&place, self.at, self.to).await {
                Ok(answer) => return Ok(answer),
                Err(Fault::Changed) => self.file.renew(&place).await?,
                Err(fault) => {
                    if matches!(fault, Fault::Expired(_)) {
                        self.file.expired(&place).await;
                    }
                    self.endure(fault).await?;
                }
            }
        }
    }

    async fn endure(&mut self, fault: Fault) -> Result<(), Unread> {
        let source = &self.file.0.wanted.source;
        self.patience.endure(source, fault).await.map_err(|error| Unread { error, again: true })
    }
}

impl RemoteBytes for Pull {
    fn read(&mut self, out: &mut [u8]) -> Result<(), Unread> {
        let mut done = 0;
        while done < out.len() {
            if self.rest.is_empty() {
                let (handle, stop) = (self.file.0.streams.handle.clone(), self.stop.clone());
                self.rest = handle.block_on(async {
                    tokio::select! {
                        biased;
                        () = stop.wait() => {
                            Err(Unread { error: Error::new(Kind::Interrupted, "interrupted"), again: true })
                        }
                        next = self.next() => next,
                    }
                })?;
            }
            let len = self.rest.len().min(out.len() - done);
            out[done..done + len].copy_from_slice(&self.rest.split_to(len));
            done += len;
        }
        Ok(())
    }
}
