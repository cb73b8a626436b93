//! The model artifact into S3: what of it can be copied from an artifact that is there, and the rest from disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::StreamExt;

use crate::cloud::{CopySource, Listed, Map, ObjectHead, Objects, PutOptions};
use crate::config::{Compression, Packaging};
use crate::error::{Error, Result};
use crate::local::lengths::LengthCache;
use crate::local::models::{ModelTree, Origin};
use crate::pack::{ARCHIVE, Archive, Codec, Contents, FileParts, INDEX, Index, Layout, Manifest, PREFIX};
use crate::progress::{Event, Reporter, units};
use crate::transfer::{self, FileUpload, Options, PartSource, Uploaded};

/// Older artifacts that are looked at, the newest: the one before this one is among them however many there are.
const CANDIDATES: usize = 64;

/// Requests under way while older artifacts are looked at.
const LOOKS: usize = 8;

/// A smaller file is sent sooner than it is found and copied.
const COPY_FROM: u64 = 1 << 20;

/// Seconds after which an upload of other models is taken as left behind: longer than any upload that still runs. 250 GB
/// at 1 MB/s take as long. Whatever a bucket of ours still has after a week, its lifecycle rule aborts.
const STALE: i64 = 3 * 24 * 60 * 60;

/// What is to be published, and where.
#[derive(Clone)]
pub struct Artifact {
    /// Where.
    pub bucket: String,
    /// What.
    pub tree: Arc<ModelTree>,
    /// As one archive, or file by file.
    pub packaging: Packaging,
    /// Of the archive.
    pub compression: Compression,
    /// Where the lengths of compressed files are kept from run to run.
    pub lengths: Lengths,
    /// SSE-KMS with this key.
    pub kms_key_arn: Option<String>,
    /// Seconds since 1970.
    pub now: i64,
}

/// What is known of compressed files from earlier runs.
#[derive(Debug, Clone, Default)]
pub struct Lengths {
    /// Directory of the config file; nothing is kept without one.
    pub root: Option<PathBuf>,
    /// Whether what is kept is not believed.
    pub rehash: bool,
}

impl Lengths {
    fn load(&self) -> LengthCache {
        match &self.root {
            Some(root) if self.rehash => LengthCache::anew(root),
            Some(root) => LengthCache::load(root),
            None => LengthCache::in_memory(),
        }
    }
}

impl Artifact {
    fn manifest(&self) -> Manifest {
        Manifest::of(&self.tree, self.compression)
    }
}

/// An artifact with a decision for every byte of it: copied or sent. Nothing was written yet.
pub struct Prepared {
    artifact: Artifact,
    /// Key of the archive, or prefix of the files.
    pub key: String,
    /// Bytes of all objects.
    pub bytes: u64,
    /// Of them those that are copied.
    pub copied: u64,
    /// Whether it may be fewer: how the files are compressed is decided when the uplink was measured.
    pub at_most: bool,
    /// Requests that move bytes.
    pub parts: u64,
    /// The artifacts that are copied from: their keys, or of files their prefixes.
    pub from: Vec<String>,
    what: What,
}

impl Prepared {
    /// Bytes that are sent.
    pub fn sent(&self) -> u64 {
        self.bytes - self.copied
    }

    /// How files are kept that are not stored: (codec, number of them), where that is decided.
    pub fn compressed(&self) -> Vec<(&'static str, usize)> {
        match &self.what {
            What::Archive(archive, _) if !self.at_most => compressed(archive.contents()),
            _ => Vec::new(),
        }
    }

    /// One sentence.
    pub fn summary(&self) -> String {
        let most = if self.at_most { "at most " } else { "" };
        let (sent, copied) = (format!("{most}{}", units::bytes(self.sent())), units::bytes(self.copied));
        match self.from.as_slice() {
            [] => format!("{sent} are sent, nothing is copied"),
            [one] => format!("{copied} are copied from {one}, {sent} are sent"),
            more => format!("{copied} are copied from {} older artifacts, {sent} are sent", more.len()),
        }
    }
}

/// An artifact that is there now.
#[derive(Debug)]
pub struct Published {
    /// Its objects. The bytes that were not sent are in [`Uploaded::spared`].
    pub uploaded: Uploaded,
    /// What `compression: adaptive` decided, if there was something to decide.
    pub decision: Option<Decision>,
}

/// How files are kept that are not stored: (codec, number of them).
fn compressed(contents: &Contents) -> Vec<(&'static str, usize)> {
    let mut counts = BTreeMap::new();
    for codec in contents.codecs().into_iter().filter(|codec| *codec != Codec::Stored) {
        *counts.entry(codec).or_insert(0) += 1;
    }
    counts.into_iter().map(|(codec, n): (Codec, usize)| (codec.name(), n)).collect()
}

/// An older archive to copy from.
type Older = (CopySource, Index);

enum What {
    /// As far as it is decided, and what it is copied from.
    Archive(Box<Archive>, Option<Older>),
    Files(Vec<FileUpload>),
}

/// Looks for what can be copied. Reads only. If older artifacts cannot be looked at, all is sent, and a warning says so.
///
/// # Errors
/// An artifact that is too large.
pub async fn prepare(objects: Arc<dyn Objects>, artifact: Artifact, reporter: &dyn Reporter) -> Result<Prepared> {
    let key = artifact.manifest().key(artifact.packaging)?;
    match artifact.packaging {
        Packaging::Tar => archive(objects.as_ref(), artifact, key, reporter).await,
        Packaging::Uncompressed => files(objects.as_ref(), artifact, key, reporter).await,
    }
}

/// Sends and copies.
///
/// # Errors
/// As [`transfer::upload`].
pub async fn publish(objects: Arc<dyn Objects>, prepared: Prepared, reporter: &dyn Reporter) -> Result<Published> {
    let Prepared { artifact, key, what, .. } = prepared;
    abandon(objects.as_ref(), &artifact, &key, reporter).await;
    let manifest = artifact.manifest();
    let metadata = Map::from([("comfy-deploy-id".to_owned(), manifest.identity()?)]);
    let put = PutOptions { metadata, kms_key_arn: artifact.kms_key_arn.clone(), ..PutOptions::default() };
    match what {
        What::Archive(archive, older) => {
            let put = PutOptions { content_type: Some("application/gzip".into()), ..put };
            let options = Options { put, ..Options::default() };
            if !archive.contents().open() {
                let uploaded = transfer::upload(objects, &artifact.bucket, &key, *archive, &options, reporter).await?;
                return Ok(Published { uploaded, decision: None });
            }
            let line = adaptive::Line { objects: objects.clone(), artifact: &artifact, key: &key, options: &options };
            let (archive, decision) = adaptive::decide(&line, *archive, older, reporter).await?;
            let uploaded = transfer::upload(objects, &artifact.bucket, &key, archive, &options, reporter).await?;
            adaptive::forget(&artifact)?;
            Ok(Published { uploaded, decision })
        }
        What::Files(files) => {
            let options = Options { put, ..Options::default() };
            let (last, body) = (manifest.manifest_key()?, Bytes::from(manifest.canonical()?));
            let bucket = &artifact.bucket;
            let uploaded = transfer::upload_files(objects, bucket, files, (&last, body), &options, reporter).await?;
            Ok(Published { uploaded, decision: None })
        }
    }
}

/// Aborts uploads of other models that were begun long ago: their parts are billed. As well as it can, and only those of
/// this program: the bucket may be one that others use, too.
async fn abandon(objects: &dyn Objects, artifact: &Artifact, own: &str, reporter: &dyn Reporter) {
    let open = match objects.open_uploads(&artifact.bucket, PREFIX).await {
        Ok(open) => open,
        Err(e) => return tracing::debug!("unfinished uploads are not looked at: {e}"),
    };
    let mut aborted = 0;
    for upload in open {
        if upload.key.starts_with(own) || !Manifest::has_key(&upload.key) || upload.initiated > artifact.now - STALE {
            continue;
        }
        match objects.abort_upload(&artifact.bucket, &upload.key, &upload.upload_id).await {
            Ok(()) => aborted += 1,
            Err(e) => tracing::debug!(key = upload.key, "an unfinished upload stays: {e}"),
        }
    }
    if aborted > 0 {
        reporter.report(Event::Note(format!(
            "{aborted} unfinished uploads of other models, older than three days, aborted"
        )));
    }
}

async fn archive(objects: &dyn Objects, artifact: Artifact, key: String, reporter: &dyn Reporter) -> Result<Prepared> {
    let mut contents = Contents::new(artifact.tree.clone(), artifact.compression);
    let mut lengths = artifact.lengths.load();
    contents.known(&mut lengths);
    // How long it is at most; the size of parts must not depend on what is found out later.
    let longest = Layout::new(&contents).total;
    let part_size = transfer::part_size(longest)?;
    let found = if longest <= part_size || objects.head(&artifact.bucket, &key).await?.is_some() {
        None
    } else {
        older(objects, &artifact.bucket, (&contents, part_size), &key, reporter).await.unwrap_or_else(|e| {
            reporter.report(Event::Warning(format!("the whole artifact is sent, for older ones cannot be read: {e}")));
            None
        })
    };
    let (archive, _) = laid_out(contents, part_size, found.clone(), lengths, reporter).await?;
    let from =
        if archive.copied() > 0 { found.iter().map(|(source, _)| source.key.clone()).collect() } else { Vec::new() };
    let (bytes, copied, parts) = (archive.layout().total, archive.copied(), u64::from(archive.count()));
    let at_most = archive.contents().open();
    Ok(Prepared { artifact, key, bytes, copied, at_most, parts, from, what: What::Archive(Box::new(archive), found) })
}

/// The archive of these contents, copied as far as possible from an older one. What is copied need not be compressed
/// here, for the older one's index says how long it is.
async fn laid_out(
    contents: Contents,
    part_size: u64,
    older: Option<Older>,
    lengths: LengthCache,
    reporter: &dyn Reporter,
) -> Result<(Archive, LengthCache)> {
    let Some((source, index)) = older else {
        let (contents, lengths) = measured(contents, lengths, reporter).await?;
        return Ok((Archive::new(contents, part_size), lengths));
    };
    let (contents, lengths) = measured(contents.beside(&index), lengths, reporter).await?;
    let whole = Archive::new(contents, part_size);
    match whole.copying(source, index) {
        Some(archive) => Ok((archive, lengths)),
        // What was told is of no use without the archive that it is copied from.
        None => {
            let (contents, lengths) = measured(whole.contents().untold(), lengths, reporter).await?;
            Ok((Archive::new(contents, part_size), lengths))
        }
    }
}

/// The older archive that most can be copied from: where it is, and its index. One that cannot be read is as good as none.
///
/// # Errors
/// There is none, and at least one could not be read.
async fn older(
    objects: &dyn Objects,
    bucket: &str,
    (contents, part_size): (&Contents, u64),
    own: &str,
    reporter: &dyn Reporter,
) -> Result<Option<Older>> {
    let listed = listed(objects, bucket).await?;
    let keys: BTreeSet<&str> = listed.iter().map(|object| object.key.as_str()).collect();
    let archives = listed.iter().map(|object| object.key.as_str()).filter(|key| *key != own);
    let (with, without): (Vec<&str>, Vec<&str>) = archives
        .filter_map(|key| key.strip_suffix(ARCHIVE))
        .partition(|base| keys.contains(&*format!("{base}{INDEX}")));
    let mut unusable = without.len();
    let mut unread: Vec<Error> = Vec::new();
    let orphans = listed.iter().filter_map(|object| object.key.strip_suffix(INDEX));
    let orphans = orphans.filter(|base| !keys.contains(&*format!("{base}{ARCHIVE}"))).count();
    let read = |base: String| async move {
        let text = objects.get(bucket, &format!("{base}{INDEX}")).await?;
        Ok::<_, Error>(text.and_then(|text| Index::parse(&text)).map(|index| (format!("{base}{ARCHIVE}"), index)))
    };
    let bases: Vec<String> = with.into_iter().take(CANDIDATES).map(str::to_owned).collect();
    let mut found: Vec<(String, Index, u64)> = Vec::new();
    let mut looks = futures::stream::iter(bases.into_iter().map(read)).buffered(LOOKS);
    while let Some(candidate) = looks.next().await {
        let candidate = match candidate {
            Ok(candidate) => candidate,
            Err(e) => {
                unread.push(e);
                continue;
            }
        };
        if let Some((key, index)) = candidate {
            // Lengths that are not known yet are those of files that would not be copied anyway.
            let new = Archive::new(contents.beside(&index), part_size);
            let unchecked = CopySource { key: key.clone(), etag: String::new(), version_id: None };
            let copied = new.copying(unchecked, index.clone()).map_or(0, |archive| archive.copied());
            found.push((key, index, copied));
        } else {
            unusable += 1;
        }
    }
    drop(looks);
    found.retain(|(_, _, copied)| *copied > 0);
    found.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.0.cmp(&b.0)));
    for (key, index, _) in found {
        let head = match objects.head(bucket, &key).await {
            Ok(head) => head,
            Err(e) => {
                unread.push(e);
                continue;
            }
        };
        match head {
            Some(head) if head.size == index.size && head.crc64nvme.as_ref() == Some(&index.crc64nvme) => {
                if let Some(source) = source(&key, head) {
                    return Ok(Some((source, index)));
                }
            }
            // An S3 without CRC64NVME: nothing that is copied could be checked.
            Some(head) if head.crc64nvme.is_none() => {
                tracing::debug!(key, "no checksum, so nothing is copied from it");
                unusable += 1;
            }
            Some(_) => reporter.report(Event::Warning(format!(
                "nothing is copied from {key}: it is not the archive that its index describes"
            ))),
            None => reporter.report(Event::Warning(format!("nothing is copied from {key}: it is gone"))),
        }
    }
    if let Some(e) = unread.pop() {
        return Err(e);
    }
    let reasons = [
        (unusable, "have no index to copy by, or one of another version of comfy-deploy"),
        (orphans, "are gone, or were never finished, and have left an index"),
    ];
    let reasons = reasons.iter().filter(|(count, _)| *count > 0).map(|(count, why)| format!("{count} {why}"));
    let reasons = reasons.collect::<Vec<_>>().join("; ");
    if !reasons.is_empty() {
        reporter.report(Event::Note(format!("the whole artifact is sent: of the older ones {reasons}")));
    }
    Ok(None)
}

/// What there is of artifacts, the newest first.
async fn listed(objects: &dyn Objects, bucket: &str) -> Result<Vec<Listed>> {
    let mut listed = objects.list(bucket, PREFIX).await?;
    listed.sort_by_key(|object| std::cmp::Reverse(object.modified));
    Ok(listed)
}

async fn files(objects: &dyn Objects, artifact: Artifact, key: String, reporter: &dyn Reporter) -> Result<Prepared> {
    let tree = &artifact.tree;
    let sources = if tree.files.iter().any(|f| f.size >= COPY_FROM) {
        older_files(objects, &artifact, &key).await.unwrap_or_else(|e| {
            reporter.report(Event::Warning(format!("every file is sent, for older artifacts cannot be read: {e}")));
            BTreeMap::new()
        })
    } else {
        BTreeMap::new()
    };
    let (mut uploads, mut from) = (Vec::new(), Vec::new());
    let (mut bytes, mut copied, mut parts) = (0, 0, 0);
    for (n, file) in tree.files.iter().enumerate() {
        let lost = || Error::failed(format!("{} is not in the tree any more", file.path)).next("please report this");
        let part_size = transfer::part_size(file.size)?;
        let mut source = FileParts::new(tree.clone(), n, part_size).ok_or_else(lost)?;
        if let Some((older, sum)) = sources.get(&n) {
            source = source.copying(older.clone(), *sum);
            copied += file.size;
            from.push(older.key.strip_suffix(&file.path).unwrap_or(&older.key).to_owned());
        }
        bytes += file.size;
        parts += u64::from(source.count());
        uploads.push(FileUpload { key: format!("{key}{}", file.path), source: Box::new(source) });
    }
    from.sort();
    from.dedup();
    Ok(Prepared { artifact, key, bytes, copied, at_most: false, parts, from, what: What::Files(uploads) })
}

/// By number of the file, where an older artifact has the same content, and its CRC-64/NVME there.
async fn older_files(
    objects: &dyn Objects,
    artifact: &Artifact,
    own: &str,
) -> Result<BTreeMap<usize, (CopySource, Option<u64>)>> {
    let bucket = &artifact.bucket;
    let listed = listed(objects, bucket).await?;
    let sizes: BTreeMap<&str, u64> = listed.iter().map(|object| (object.key.as_str(), object.size)).collect();
    let manifests = listed
        .iter()
        .map(|object| &object.key)
        .filter(|key| key.ends_with("/manifest.json") && !key.contains("/files/"));
    let read = |key: String| async move {
        let text = objects.get(bucket, &key).await?;
        let base = key.trim_end_matches("manifest.json").to_owned();
        Ok::<_, Error>(text.and_then(|t| serde_json::from_slice::<Manifest>(&t).ok()).map(|manifest| (base, manifest)))
    };
    let mut places: BTreeMap<String, String> = BTreeMap::new();
    let mut unread: Vec<Error> = Vec::new();
    let wanted = manifests.take(CANDIDATES).cloned();
    let mut looks = futures::stream::iter(wanted.map(read)).buffered(LOOKS);
    while let Some(candidate) = looks.next().await {
        let (base, manifest) = match candidate {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            Err(e) => {
                unread.push(e);
                continue;
            }
        };
        for file in manifest.files {
            let key = format!("{base}files/{}", file.path);
            if sizes.get(&*key) == Some(&file.size) && !key.starts_with(own) {
                places.entry(file.sha256).or_insert(key);
            }
        }
    }
    drop(looks);
    let large = artifact.tree.files.iter().enumerate().filter(|(_, f)| f.size >= COPY_FROM);
    let found: Vec<_> = large
        .filter_map(|(n, file)| {
            let crc = match &file.origin {
                Origin::Disk(disk) => Some(transfer::crc64_text(disk.crc64nvme)),
                // Not known before it is read: its artifact's manifest says what it is, and was written when all was right.
                Origin::Remote(_) => None,
            };
            Some((n, crc, places.get(&hex::encode(file.sha256))?.clone()))
        })
        .collect();
    let check = |(n, crc, key): (usize, Option<String>, String)| async move {
        let head = objects.head(bucket, &key).await?;
        let head = head.filter(|head| crc.is_none() || head.crc64nvme == crc);
        let sum = head.as_ref().and_then(|head| transfer::crc64_value(head.crc64nvme.as_ref()?));
        Ok::<_, Error>(head.and_then(|head| source(&key, head)).map(|source| (n, (source, sum))))
    };
    let checked: Vec<_> = futures::stream::iter(found.into_iter().map(check)).buffered(LOOKS).collect().await;
    let mut sources = BTreeMap::new();
    for outcome in checked {
        match outcome {
            Ok(found) => sources.extend(found),
            Err(e) => unread.push(e),
        }
    }
    match unread.pop() {
        Some(e) if sources.is_empty() => Err(e),
        _ => Ok(sources),
    }
}

fn source(key: &str, head: ObjectHead) -> Option<CopySource> {
    Some(CopySource { key: key.to_owned(), etag: head.etag?, version_id: head.version_id })
}

mod adaptive;
mod measured;

pub use adaptive::Decision;
use measured::measured;

#[cfg(test)]
mod tests;
