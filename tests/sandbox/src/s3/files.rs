//! Bytes between streams and files. Hashing and disk work happen on a blocking thread, a few chunks behind
//! the network.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;

use super::checksums::Hasher;
use super::state::Extent;

/// Chunks between the network and the disk.
const QUEUE: usize = 32;
/// Bytes read at once.
const BLOCK: usize = 256 * 1024;

/// Why a body could not be stored.
#[derive(Debug)]
pub enum Failure<E> {
    /// The client's side.
    Body(E),
    /// The disk's side.
    Disk(io::Error),
}

/// Appends a body to a file (made if missing) and hashes it on the way. After a failure the file holds a part of
/// the body.
pub async fn receive<S, E>(path: PathBuf, mut hasher: Hasher, body: S) -> Result<Hasher, Failure<E>>
where
    S: Stream<Item = Result<Bytes, E>>,
{
    let (sender, mut receiver) = mpsc::channel::<Bytes>(QUEUE);
    let writer = tokio::task::spawn_blocking(move || -> io::Result<Hasher> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let mut file = io::BufWriter::with_capacity(1 << 20, file);
        while let Some(chunk) = receiver.blocking_recv() {
            hasher.update(&chunk);
            file.write_all(&chunk)?;
        }
        file.flush()?;
        Ok(hasher)
    });
    let mut failed = None;
    let mut body = std::pin::pin!(body);
    while let Some(chunk) = body.next().await {
        match chunk {
            // The writer is gone when the disk failed; its error says more.
            Ok(chunk) => {
                if sender.send(chunk).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    drop(sender);
    let hasher = writer.await.map_err(|e| Failure::Disk(io::Error::other(e)))?.map_err(Failure::Disk)?;
    match failed {
        None => Ok(hasher),
        Some(error) => Err(Failure::Body(error)),
    }
}

/// The part of these extents that holds `len` bytes from `start`.
pub fn slice(extents: &[Extent], start: u64, len: u64) -> Vec<Extent> {
    let (mut skip, mut left) = (start, len);
    let mut out = Vec::new();
    for extent in extents {
        if left == 0 {
            break;
        }
        if skip >= extent.len {
            skip -= extent.len;
            continue;
        }
        let take = left.min(extent.len - skip);
        out.push(Extent { file: extent.file.clone(), offset: extent.offset + skip, len: take });
        (skip, left) = (0, left - take);
    }
    out
}

/// All bytes of these extents.
pub fn read_all(dir: &Path, extents: &[Extent]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    each_block(dir, extents, |block| {
        out.extend_from_slice(&block);
        true
    })?;
    Ok(out)
}

/// Hashes these extents.
pub async fn hash(dir: PathBuf, extents: Vec<Extent>, mut hasher: Hasher) -> io::Result<Hasher> {
    let work = move || {
        each_block(&dir, &extents, |block| {
            hasher.update(&block);
            true
        })?;
        Ok(hasher)
    };
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Streams these extents.
pub fn stream(dir: PathBuf, extents: Vec<Extent>) -> Blocks {
    let (sender, receiver) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let result = each_block(&dir, &extents, |block| sender.blocking_send(Ok(block)).is_ok());
        if let Err(error) = result {
            // Nobody listens when the client went away first.
            let _ = sender.blocking_send(Err(error));
        }
    });
    Blocks(receiver)
}

/// A stream of file contents.
#[derive(Debug)]
pub struct Blocks(mpsc::Receiver<io::Result<Bytes>>);

impl Stream for Blocks {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

/// Reads extents one after the other.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    extents: std::vec::IntoIter<Extent>,
    current: Option<io::Take<File>>,
}

impl Reader {
    /// `dir` is where the files lie.
    pub fn new(dir: PathBuf, extents: Vec<Extent>) -> Reader {
        Reader { dir, extents: extents.into_iter(), current: None }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(current) = &mut self.current {
                let read = current.read(buffer)?;
                if read > 0 || buffer.is_empty() {
                    return Ok(read);
                }
                if current.limit() > 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            let Some(extent) = self.extents.next() else { return Ok(0) };
            let mut file = File::open(self.dir.join(&extent.file))?;
            file.seek(SeekFrom::Start(extent.offset))?;
            self.current = Some(file.take(extent.len));
        }
    }
}

/// Calls `take` with block after block until it says false.
fn each_block(dir: &Path, extents: &[Extent], mut take: impl FnMut(Bytes) -> bool) -> io::Result<()> {
    for extent in extents {
        let mut file = File::open(dir.join(&extent.file))?;
        file.seek(SeekFrom::Start(extent.offset))?;
        let mut left = extent.len;
        while left > 0 {
            let mut block = vec![0; BLOCK.min(usize::try_from(left).unwrap_or(BLOCK))];
            file.read_exact(&mut block)?;
            left -= block.len() as u64;
            if !take(block.into()) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Removes these files. One that is gone already is no error.
pub fn remove(dir: &Path, files: &[String]) {
    for file in files {
        if let Err(error) = std::fs::remove_file(dir.join(file))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("{file} could not be removed: {error}");
        }
    }
}

/// Removes all files of a directory but these.
pub fn sweep(dir: &Path, keep: &HashSet<String>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
    remove(dir, &names.filter(|n| !keep.contains(n)).collect::<Vec<_>>());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(file: &str, offset: u64, len: u64) -> Extent {
        Extent { file: file.into(), offset, len }
    }

    #[test]
    fn slices_cross_extents() {
        let all = [extent("a", 10, 5), extent("b", 0, 5), extent("c", 2, 5)];
        assert_eq!(slice(&all, 0, 15), all);
        assert_eq!(slice(&all, 3, 4), [extent("a", 13, 2), extent("b", 0, 2)]);
        assert_eq!(slice(&all, 5, 5), [extent("b", 0, 5)]);
        assert_eq!(slice(&all, 14, 1), [extent("c", 6, 1)]);
        assert!(slice(&all, 3, 0).is_empty());
    }

    #[tokio::test]
    async fn what_was_received_is_read_back() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let body = futures::stream::iter([Ok::<_, ()>(Bytes::from("hello ")), Ok(Bytes::from("world"))]);
        let hasher = receive(dir.path().join("f"), Hasher::new(true, &[]), body).await.expect("stored");
        assert_eq!((hasher.size(), hasher.finish().md5.as_str()), (11, "5eb63bbbe01eeed093cb22bb8f5acdc3"));
        assert_eq!(read_all(dir.path(), &[extent("f", 6, 5), extent("f", 0, 5)])?, b"worldhello");
        let mut read = Vec::new();
        Reader::new(dir.path().to_owned(), vec![extent("f", 6, 5), extent("f", 0, 5)]).read_to_end(&mut read)?;
        assert_eq!(read, b"worldhello");
        assert!(Reader::new(dir.path().to_owned(), vec![extent("f", 6, 50)]).read_to_end(&mut read).is_err());
        let failing = futures::stream::iter([Ok(Bytes::from("x")), Err("gone")]);
        let error = receive(dir.path().join("g"), Hasher::new(true, &[]), failing).await;
        assert!(matches!(error, Err(Failure::Body("gone"))));
        sweep(dir.path(), &HashSet::from(["f".to_owned()]));
        assert!(dir.path().join("f").exists() && !dir.path().join("g").exists());
        Ok(())
    }
}
