//! One file's bytes into its `.part`: ranges side by side, each continued where it broke off.

use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use reqwest::Url;
use tokio::sync::Semaphore;

use super::answer::Fault;
use super::get::{Access, Address, Got, Patience};
use super::http::{Request, Response};
use super::journal::Part;
use super::resolve::{Remote, total};
use super::source::Source;
use crate::error::{Error, Result};

/// Bytes of one range: enough that its request does not count, few enough that a large file is spread over every
/// connection to its end.
const PIECE: u64 = 32 << 20;
/// The same for S3, whose answers are held in memory.
const S3_PIECE: u64 = 8 << 20;
/// Bytes that are gathered before they are written.
const WRITE: usize = 1 << 20;
/// Connections of one file; the permits bound those of all.
const SIDE_BY_SIDE: usize = 8;

/// How the loading ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Loaded {
    /// Everything is in the part, so many bytes.
    Whole(u64),
    /// The server has other content than the one that was begun.
    Changed,
}

/// A file being loaded.
pub(super) struct Load<'a> {
    pub(super) access: &'a Access,
    pub(super) source: &'a Source,
    pub(super) remote: &'a Remote,
    /// Connections of this run.
    pub(super) permits: &'a Semaphore,
    part: Mutex<Part>,
    /// The signed address behind the redirects, while it is valid.
    target: Mutex<Option<Url>>,
    /// Told how many bytes this file has by now.
    progress: &'a (dyn Fn(u64) + Sync),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Load<'a> {
    pub(super) fn new(
        access: &'a Access,
        source: &'a Source,
        remote: &'a Remote,
        permits: &'a Semaphore,
        part: Part,
        progress: &'a (dyn Fn(u64) + Sync),
    ) -> Self {
        progress(part.done());
        Load { access, source, remote, permits, part: Mutex::new(part), target: Mutex::new(None), progress }
    }

    pub(super) fn into_part(self) -> Part {
        self.part.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads what is missing.
    ///
    /// # Errors
    /// It does not come, however often it is asked for; the disk.
    pub(super) async fn run(&self, address: &Address) -> Result<Loaded> {
        let Some(size) = self.remote.size.filter(|_| self.remote.identity().is_some()) else {
            return self.stream(address).await;
        };
        let most = if matches!(address, Address::S3(..)) { S3_PIECE } else { PIECE };
        let missing = lock(&self.part).missing(most);
        let mut pieces = missing.into_iter();
        // The first answer tells whether the server knows ranges.
        if let Some(first) = pieces.next() {
            let rest = futures::stream::iter(pieces.map(|piece| self.piece(address, piece, false)))
                .buffer_unordered(SIDE_BY_SIDE);
            let mut all = futures::stream::once(self.piece(address, first, true)).chain(rest).boxed();
            while let Some(outcome) = all.next().await {
                match outcome {
                    Ok(Piece::Done) => {}
                    Ok(Piece::NoRanges) => {
                        drop(all);
                        return self.stream(address).await;
                    }
                    Ok(Piece::Changed) => return Ok(Loaded::Changed),
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(Loaded::Whole(size))
    }

    /// One range, asked for again from where it broke off.
    async fn piece(&self, address: &Address, (from, to): (u64, u64), first: bool) -> Result<Piece> {
        let mut at = from;
        let mut patience = Patience::new(self.access.pause);
        while at < to {
            let before = at;
            let outcome = self.attempt(address, &mut at, to, first && before == from).await;
            if at > before {
                patience.refresh();
            }
            match outcome {
                Ok(Piece::Done) => {}
                Ok(other) => return Ok(other),
                Err(Fault::Changed) => return Ok(Piece::Changed),
                Err(fault) => {
                    if matches!(fault, Fault::Expired(_)) {
                        *lock(&self.target) = None;
                    }
                    patience.endure(self.source, fault).await?;
                }
            }
        }
        Ok(Piece::Done)
    }

    async fn attempt(&self, address: &Address, at: &mut u64, to: u64, first: bool) -> Result<Piece, Fault> {
        let _permit = self.permits.acquire().await.map_err(|_| Fault::Broken("the run is over".into()))?;
        let begun = lock(&self.part).etag();
        let mut got = self.open(address, Some((*at, to)), begun.as_deref()).await?;
        let response = &mut got.response;
        let etag = response.header("etag").map(str::to_owned);
        if !is_range(response, *at, begun.as_deref(), self.remote.size)? {
            return if first { Ok(Piece::NoRanges) } else { Err(Fault::Broken("the server ignored a range".into())) };
        }
        if begun.is_none() {
            lock(&self.part).set_etag(etag);
        }
        let mut buffer = BytesMut::with_capacity(WRITE);
        let mut came = *at;
        let ended = loop {
            match response.body.chunk().await {
                Ok(Some(chunk)) => {
                    let fits = usize::try_from(to - came).unwrap_or(usize::MAX).min(chunk.len());
                    buffer.extend_from_slice(&chunk[..fits]);
                    came += fits as u64;
                    if came == to {
                        break Ok(Piece::Done);
                    }
                    if buffer.len() >= WRITE {
                        self.write(at, buffer.split().freeze()).await?;
                    }
                }
                Ok(None) => break Err(Fault::Broken("the answer ended early".into())),
                Err(broken) => break Err(Fault::Broken(broken.0)),
            }
        };
        // What came is kept, whatever came after it.
        self.write(at, buffer.freeze()).await?;
        ended
    }

    /// The whole in one answer, where ranges are not known or the content cannot be told from another.
    async fn stream(&self, address: &Address) -> Result<Loaded> {
        let mut patience = Patience::new(self.access.pause);
        loop {
            lock(&self.part).restart()?;
            match self.streamed(address).await {
                Ok(size) => return Ok(Loaded::Whole(size)),
                Err(Fault::Changed) => return Ok(Loaded::Changed),
                Err(fault) => patience.endure(self.source, fault).await?,
            }
        }
    }

    async fn streamed(&self, address: &Address) -> Result<u64, Fault> {
        let _permit = self.permits.acquire().await.map_err(|_| Fault::Broken("the run is over".into()))?;
        *lock(&self.target) = None;
        let mut got = self.open(address, None, None).await?;
        let size = total(&got.response);
        if let (Some(size), Some(expected)) = (size, self.remote.size)
            && size != expected
        {
            return Err(Fault::Changed);
        }
        let mut at = 0;
        while let Some(chunk) = got.response.body.chunk().await.map_err(|broken| Fault::Broken(broken.0))? {
            self.write(&mut at, chunk).await?;
        }
        match size.or(self.remote.size) {
            Some(size) if at != size => Err(Fault::Broken("the answer ended early".into())),
            _ => Ok(at),
        }
    }

    async fn open(&self, address: &Address, range: Option<(u64, u64)>, etag: Option<&str>) -> Result<Got, Fault> {
        let url = match address {
            Address::S3(bucket, key) => return self.access.object(self.source, (bucket, key), range, etag).await,
            Address::Web(url) => url,
        };
        let signed = lock(&self.target).clone();
        let request = Request {
            range,
            // A weak ETag says nothing about bytes, and If-Range does not take one.
            if_range: etag.filter(|etag| etag.starts_with('"')).map(str::to_owned),
            ..Request::get(signed.unwrap_or_else(|| url.clone()))
        };
        let got = self.access.once(self.source, self.remote.commit.is_some(), request, url, false).await?;
        lock(&self.target).clone_from(&got.url);
        Ok(got)
    }

    /// Writes bytes at their place and notes them.
    async fn write(&self, at: &mut u64, bytes: Bytes) -> Result<(), Fault> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (from, to) = (*at, *at + bytes.len() as u64);
        let (file, path) = {
            let part = lock(&self.part);
            (part.file.clone(), part.path().to_owned())
        };
        let written = tokio::task::spawn_blocking(move || file.write_all_at(&bytes, from)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(e)) => {
                let next = "free some disk space, then run the same command again: it continues";
                return Err(Error::io("write", &path, &e).next(next).into());
            }
            Err(_) => return Err(Fault::Broken("the run is over".into())),
        }
        *at = to;
        let done = {
            let mut part = lock(&self.part);
            part.arrived(from, to);
            part.done()
        };
        (self.progress)(done);
        Ok(())
    }
}

/// Whether an answer is the range from `at` on of the content that was begun, which has an ETag and a size; if not, it is
/// the whole: the server knows no ranges.
pub(super) fn is_range(response: &Response, at: u64, begun: Option<&str>, size: Option<u64>) -> Result<bool, Fault> {
    if let (Some(begun), Some(etag)) = (begun, response.header("etag"))
        && begun != etag
    {
        return Err(Fault::Changed);
    }
    if response.status != 206 {
        return Ok(false);
    }
    let starts = response.header("content-range").and_then(|range| {
        range.trim_start_matches("bytes").trim().split(['-', '/']).next()?.trim().parse::<u64>().ok()
    });
    if starts != Some(at) {
        return Err(Fault::Broken("the server sent another range than was asked for".into()));
    }
    if total(response).is_some_and(|total| Some(total) != size) {
        return Err(Fault::Changed);
    }
    Ok(true)
}

/// How a range ended.
enum Piece {
    Done,
    NoRanges,
    Changed,
}
