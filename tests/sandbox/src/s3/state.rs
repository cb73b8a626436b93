//! What S3 keeps. The bytes lie in files; everything here is small.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::checksums::{Algorithm, Checksum};

/// How long a file outlives its last use, in milliseconds: longer than the state takes to reach the disk, so a
/// crash never finds a state that names a removed file, and long enough for a download in flight to open it.
const GRACE: i64 = 60_000;

/// All buckets; names are global.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// By name.
    pub buckets: BTreeMap<String, Bucket>,
    /// Files that may have lost their last use, and when (milliseconds since 1970).
    pub garbage: Vec<(String, i64)>,
    /// How often anything was deleted, for conditional writes in flight.
    #[serde(skip)]
    pub deletions: Deletions,
}

/// The latest deletion of each key while the sandbox runs.
#[derive(Debug, Default, Clone)]
pub struct Deletions {
    count: u64,
    by_key: BTreeMap<(String, String), u64>,
}

impl Deletions {
    /// The number of deletions so far.
    pub fn now(&self) -> u64 {
        self.count
    }

    /// Notes one.
    pub fn note(&mut self, bucket: &str, key: &str) {
        self.count += 1;
        self.by_key.insert((bucket.to_owned(), key.to_owned()), self.count);
    }

    /// Whether the key was deleted after `since`.
    pub fn after(&self, since: u64, bucket: &str, key: &str) -> bool {
        self.by_key.get(&(bucket.to_owned(), key.to_owned())).is_some_and(|at| *at > since)
    }
}

/// A bucket.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Bucket {
    /// Empty for a bucket that answers in every region (somebody else's).
    pub region: String,
    /// Account id.
    pub owner: String,
    /// Milliseconds since 1970.
    pub created: i64,
    /// Whether versions are kept.
    pub versioning: Versioning,
    /// The rest, by the API's member name (`Policy`, `LifecycleConfiguration`, ...).
    pub settings: BTreeMap<String, Value>,
    /// Versions of each key, the current one last.
    pub objects: BTreeMap<String, Vec<Version>>,
    /// Multipart uploads in progress by id.
    pub uploads: BTreeMap<String, Upload>,
}

/// The versioning state of a bucket.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Versioning {
    /// Never enabled.
    #[default]
    Off,
    /// Every write makes a version.
    Enabled,
    /// Writes replace the version `null`; older versions stay.
    Suspended,
}

/// A range of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// File name below the data directory.
    pub file: String,
    /// Bytes from the file's start.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// A version of an object, or a delete marker.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Version {
    /// Version id, or `null`.
    pub id: String,
    /// A delete marker has nothing below.
    pub marker: bool,
    /// Milliseconds since 1970.
    pub modified: i64,
    /// Bytes.
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    /// Where the bytes are, in order.
    pub extents: Vec<Extent>,
    /// Sizes and checksums of the parts it was completed from; empty if it was put whole.
    pub parts: Vec<CompletedPart>,
    /// Of the whole object.
    pub checksum: Option<Checksum>,
    /// What the writer said about it.
    pub about: About,
}

/// A part of a completed upload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompletedPart {
    /// As uploaded.
    pub number: i32,
    /// Bytes.
    pub size: u64,
    /// Base64.
    pub checksum: Option<String>,
}

/// Headers, metadata and tags of an object.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// Content-Type.
    pub content_type: Option<String>,
    /// Content-Encoding.
    pub content_encoding: Option<String>,
    /// Content-Disposition.
    pub content_disposition: Option<String>,
    /// Content-Language.
    pub content_language: Option<String>,
    /// Cache-Control.
    pub cache_control: Option<String>,
    /// Storage class, if not STANDARD.
    pub storage_class: Option<String>,
    /// Server-side encryption, if not the bucket's.
    pub encryption: Option<String>,
    /// KMS key.
    pub kms_key: Option<String>,
    /// `x-amz-meta-*`.
    pub metadata: BTreeMap<String, String>,
    /// Object tags.
    pub tags: BTreeMap<String, String>,
}

/// A multipart upload in progress.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Upload {
    /// Object key.
    pub key: String,
    /// Milliseconds since 1970.
    pub initiated: i64,
    /// As asked for; none means that S3 adds its own CRC64NVME.
    pub algorithm: Option<Algorithm>,
    /// One value of the whole object instead of a checksum of checksums.
    pub full_object: bool,
    /// What the object will carry.
    pub about: About,
    /// By part number.
    pub parts: BTreeMap<i32, UploadedPart>,
}

impl Upload {
    /// What its parts are summed with.
    pub fn effective(&self) -> Algorithm {
        self.algorithm.unwrap_or(Algorithm::Crc64Nvme)
    }
}

/// A part of an upload in progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UploadedPart {
    /// MD5, hexadecimal.
    pub etag: String,
    /// Bytes.
    pub size: u64,
    /// Milliseconds since 1970.
    pub modified: i64,
    /// With the upload's algorithm, base64.
    pub checksum: String,
    /// Where the bytes are.
    pub extents: Vec<Extent>,
}

impl Bucket {
    /// The current version of a key, if it is not a delete marker.
    pub fn current(&self, key: &str) -> Option<&Version> {
        self.objects.get(key)?.last().filter(|v| !v.marker)
    }

    fn extents(&self) -> impl Iterator<Item = &Extent> {
        let objects = self.objects.values().flatten().flat_map(|v| &v.extents);
        objects.chain(self.uploads.values().flat_map(|u| u.parts.values()).flat_map(|p| &p.extents))
    }
}

impl State {
    /// Every file in use.
    pub fn files(&self) -> HashSet<String> {
        self.buckets.values().flat_map(Bucket::extents).map(|e| e.file.clone()).collect()
    }

    /// Notes that these extents lost a user.
    pub fn discard<'a>(&mut self, extents: impl IntoIterator<Item = &'a Extent>, now: i64) {
        self.garbage.extend(extents.into_iter().map(|e| (e.file.clone(), now)));
    }

    /// Takes out the files that have been unused for long enough to be removed.
    pub fn collect(&mut self, now: i64) -> Vec<String> {
        if !self.garbage.iter().any(|(_, at)| at + GRACE <= now) {
            return Vec::new();
        }
        let (due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.garbage).into_iter().partition(|(_, at)| at + GRACE <= now);
        self.garbage = rest;
        let used = self.files();
        let waiting: HashSet<&String> = self.garbage.iter().map(|(file, _)| file).collect();
        let mut files: Vec<_> =
            due.into_iter().map(|(file, _)| file).filter(|f| !used.contains(f) && !waiting.contains(f)).collect();
        files.sort();
        files.dedup();
        files
    }
}
