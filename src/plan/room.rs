//! Whether a model artifact fits where it goes, known before any byte moves.

use crate::config::Packaging;
use crate::config::rules::instances;
use crate::error::{Error, Result};

/// Bytes of a GB as disks and EC2 count.
const GB: u64 = 1_000_000_000;

/// Bytes of a GiB as EBS counts.
const GIB: u64 = 1 << 30;

/// A download that must be faster than this, in MB/s, is worth a word: not all instance types sustain more together with
/// extracting on one core.
const BRISK: u64 = 50;

/// Where an artifact goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub instance_type: &'a str,
    /// Of the EBS volume, GiB.
    pub volume_gb: Option<u64>,
    /// Seconds for download and extraction.
    pub download_timeout: Option<u64>,
}

/// Refuses what cannot fit; says what is tight. `bytes` are those of the objects in S3.
pub(super) fn check(place: Place<'_>, packaging: Packaging, bytes: u64) -> Result<Option<String>> {
    let local = instances::known().find(|t| t.name == place.instance_type).map_or(0, |t| u64::from(t.nvme_gb));
    let disk = match place.volume_gb {
        _ if local > 0 => Some(local * GB),
        Some(volume) => Some(volume * GIB),
        // An unknown type without a volume in the config: nobody here knows its disk.
        None => None,
    };
    // The archive is there until it is extracted; stored blocks make the two about the same size.
    let needed = match packaging {
        Packaging::Tar => bytes.saturating_mul(2),
        Packaging::Uncompressed => bytes,
    };
    if let Some(disk) = disk.filter(|&disk| needed > disk) {
        let gb = |n: u64| n.div_ceil(GB);
        let next = match (packaging, bytes <= disk) {
            (Packaging::Tar, true) => {
                "set models.packaging: uncompressed, which needs the space once, or choose a larger instance type or volume"
            }
            _ => "choose an instance type with more disk (endpoint.instance_type), or leave models out (models.files)",
        };
        return Err(Error::usage(format!(
            "the models need {} GB on the instance, and {} has {} GB",
            gb(needed),
            place.instance_type,
            disk / GB
        ))
        .why(match packaging {
            Packaging::Tar => "the archive and what is extracted from it are there at the same time",
            Packaging::Uncompressed => "all files are downloaded before the container starts",
        })
        .next(next));
    }
    let Some(timeout) = place.download_timeout.filter(|&t| t > 0) else { return Ok(None) };
    let rate = bytes / timeout / 1_000_000;
    Ok((rate > BRISK).then(|| {
        format!(
            "The models must arrive at {rate} MB/s to be there within {timeout} s; {} s would leave room (endpoint.download_timeout).",
            (bytes / BRISK / 1_000_000).next_multiple_of(60).clamp(timeout, 3600)
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(instance_type: &str, volume_gb: Option<u64>, packaging: Packaging, gb: u64) -> Result<Option<String>> {
        check(Place { instance_type, volume_gb, download_timeout: Some(1200) }, packaging, gb * GB)
    }

    #[test]
    fn archives_need_their_space_twice() {
        // 125 GB of local disk, by the table.
        assert!(on("ml.g4dn.xlarge", None, Packaging::Tar, 62).is_ok());
        let e = on("ml.g4dn.xlarge", None, Packaging::Tar, 63).unwrap_err();
        assert!(e.to_string().contains("126 GB") && e.hint().unwrap_or_default().contains("uncompressed"), "{e}");
        assert!(on("ml.g4dn.xlarge", None, Packaging::Uncompressed, 125).is_ok());
        assert!(on("ml.g4dn.xlarge", None, Packaging::Uncompressed, 126).is_err());
    }

    #[test]
    fn a_volume_counts_in_gib_and_nothing_is_said_of_unknown_disks() {
        assert!(on("ml.p3.2xlarge", Some(100), Packaging::Tar, 53).is_ok());
        assert!(on("ml.p3.2xlarge", Some(100), Packaging::Tar, 54).is_err());
        assert!(on("ml.p3.2xlarge", None, Packaging::Tar, 59).is_ok());
    }

    #[test]
    fn a_tight_timeout_is_told() {
        assert_eq!(on("ml.p3.2xlarge", None, Packaging::Tar, 60).unwrap(), None);
        let note = on("ml.p3.2xlarge", None, Packaging::Tar, 120).unwrap().unwrap();
        assert!(note.contains("100 MB/s") && note.contains("2400 s"), "{note}");
    }
}
