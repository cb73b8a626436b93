//! MD5 and the checksums of S3, computed while bytes pass by, and combined from those of parts.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::CrcAlgorithm;
use md5::Md5;
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// A checksum algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Algorithm {
    /// ISO-HDLC.
    Crc32,
    /// Castagnoli.
    Crc32c,
    /// The one S3 adds by itself.
    Crc64Nvme,
    /// Only as a checksum of checksums in multipart uploads.
    Sha1,
    /// Only as a checksum of checksums in multipart uploads.
    Sha256,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Algorithm; 5] =
        [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme, Algorithm::Sha1, Algorithm::Sha256];

    /// As the API writes it.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "CRC32",
            Algorithm::Crc32c => "CRC32C",
            Algorithm::Crc64Nvme => "CRC64NVME",
            Algorithm::Sha1 => "SHA1",
            Algorithm::Sha256 => "SHA256",
        }
    }

    /// By the API's name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        Algorithm::ALL.into_iter().find(|a| a.name().eq_ignore_ascii_case(name))
    }

    /// The header that carries a value.
    pub fn header(self) -> String {
        format!("x-amz-checksum-{}", self.name().to_ascii_lowercase())
    }

    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Algorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Algorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Algorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Algorithm::Sha1 | Algorithm::Sha256 => None,
        }
    }

    /// Whether the value of a whole can be computed from those of its parts.
    pub fn combines(self) -> bool {
        self.crc().is_some()
    }

    fn width(self) -> usize {
        match self {
            Algorithm::Crc32 | Algorithm::Crc32c => 4,
            Algorithm::Crc64Nvme => 8,
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 => 32,
        }
    }

    /// Whether this is a value of the algorithm in base64.
    pub fn well_formed(self, value: &str) -> bool {
        STANDARD.decode(value).is_ok_and(|bytes| bytes.len() == self.width())
    }
}

/// The checksum of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    /// How.
    pub algorithm: Algorithm,
    /// Of the whole object, or else of its parts' checksums.
    pub full_object: bool,
    /// Base64; of parts with `-N` behind it.
    pub value: String,
}

impl Checksum {
    /// As the API writes the type.
    pub fn type_name(&self) -> &'static str {
        type_name(self.full_object)
    }
}

/// As the API writes the type.
pub fn type_name(full_object: bool) -> &'static str {
    if full_object { "FULL_OBJECT" } else { "COMPOSITE" }
}

/// The value of a whole from the values and sizes of its parts, in order.
pub fn combine(algorithm: Algorithm, parts: &[(String, u64)]) -> Option<String> {
    let crc = algorithm.crc()?;
    let mut values = parts.iter().map(|(value, size)| Some((number(value, algorithm.width())?, *size)));
    let (mut whole, _) = values.next()??;
    for part in values {
        let (value, size) = part?;
        whole = crc_fast::checksum_combine(crc, whole, value, size);
    }
    Some(encode_number(whole, algorithm.width()))
}

/// The checksum of the parts' checksums, with their number.
pub fn composite(algorithm: Algorithm, parts: &[(String, u64)]) -> Option<String> {
    let mut hasher = Hasher::new(false, &[algorithm]);
    for (value, _) in parts {
        hasher.update(&STANDARD.decode(value).ok()?);
    }
    let value = hasher.finish().sums.remove(&algorithm)?;
    Some(format!("{value}-{}", parts.len()))
}

/// The ETag of an object made of parts with these MD5s.
pub fn multipart_etag<'a>(parts: impl ExactSizeIterator<Item = &'a str>) -> Option<String> {
    let count = parts.len();
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(hex::decode(part).ok()?);
    }
    Some(format!("{}-{count}", hex::encode(md5.finalize())))
}

fn number(value: &str, width: usize) -> Option<u64> {
    let bytes = STANDARD.decode(value).ok().filter(|b| b.len() == width)?;
    Some(bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
}

fn encode_number(value: u64, width: usize) -> String {
    STANDARD.encode(&value.to_be_bytes()[8 - width..])
}

/// What a [`Hasher`] found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sums {
    /// Bytes.
    pub size: u64,
    /// Hexadecimal; empty if not asked for.
    pub md5: String,
    /// Base64.
    pub sums: BTreeMap<Algorithm, String>,
}

/// Computes what is asked for while bytes pass by.
#[derive(Debug, Clone)]
pub struct Hasher {
    size: u64,
    md5: Option<Md5>,
    sha1: Option<Sha1>,
    sha256: Option<Sha256>,
    crcs: Vec<(Algorithm, crc_fast::Digest)>,
}

impl Hasher {
    /// For MD5 if asked, and these algorithms.
    pub fn new(md5: bool, algorithms: &[Algorithm]) -> Self {
        let crcs = Algorithm::ALL.into_iter().filter(|a| algorithms.contains(a));
        Hasher {
            size: 0,
            md5: md5.then(Md5::new),
            sha1: algorithms.contains(&Algorithm::Sha1).then(Sha1::new),
            sha256: algorithms.contains(&Algorithm::Sha256).then(Sha256::new),
            crcs: crcs.filter_map(|a| Some((a, crc_fast::Digest::new(a.crc()?)))).collect(),
        }
    }

    /// More bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        if let Some(sha1) = &mut self.sha1 {
            sha1.update(bytes);
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
        for (_, crc) in &mut self.crcs {
            crc.update(bytes);
        }
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The values.
    pub fn finish(self) -> Sums {
        let mut sums: BTreeMap<_, _> =
            self.crcs.iter().map(|(a, crc)| (*a, encode_number(crc.finalize(), a.width()))).collect();
        if let Some(sha1) = self.sha1 {
            sums.insert(Algorithm::Sha1, STANDARD.encode(sha1.finalize()));
        }
        if let Some(sha256) = self.sha256 {
            sums.insert(Algorithm::Sha256, STANDARD.encode(sha256.finalize()));
        }
        let md5 = self.md5.map(|md5| hex::encode(md5.finalize())).unwrap_or_default();
        Sums { size: self.size, md5, sums }
    }
}

#[cfg(test)]
mod tests;
