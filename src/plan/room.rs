//! Whether a model artifact fits where it goes and how long its way there may take, known before any byte moves.

use super::LocalModel;
use super::service::DOWNLOAD_TIMEOUT;
use crate::cloud::Map;
use crate::config::Packaging;
use crate::config::rules::instances;
use crate::error::{Error, Result};
use crate::settings::Settings;

/// Bytes of a GB as disks and EC2 count.
const GB: u64 = 1_000_000_000;

/// Bytes of a GiB as EBS counts.
const GIB: u64 = 1 << 30;

/// Seconds that download and extraction get whatever the size: an instance that starts in a busy zone, or a bucket of
/// another region, is slow for reasons that no size knows. With it, artifacts up to 40 GB have the same.
const TIMEOUT_MIN: u64 = 1200;

/// Most seconds that SageMaker allows (API reference, ModelDataDownloadTimeoutInSeconds: 60 to 3600).
const TIMEOUT_MAX: u64 = 3600;

/// Bytes a second that download and extraction are reckoned to manage together. S3 delivers more; one core inflates
/// about as much of a compressed archive.
const PACE: u64 = 100_000_000;

/// How much longer than reckoned it may take.
const SLACK: u64 = 3;

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

impl<'a> Place<'a> {
    /// The instance that the config asks for.
    pub(super) fn configured(settings: &'a Settings, download_timeout: Option<u32>) -> Self {
        let endpoint = &settings.config.endpoint;
        Place {
            instance_type: &endpoint.instance_type,
            volume_gb: endpoint.volume_gb.map(u64::from),
            download_timeout: download_timeout.map(u64::from),
        }
    }

    /// The instance of a stack with these parameters.
    pub(super) fn deployed(parameters: &'a Map) -> Self {
        let number = |name: &str| parameters.get(name).and_then(|n| n.parse().ok()).filter(|&n| n > 0);
        Place {
            instance_type: parameters.get("SageMakerInstanceType").map_or("", String::as_str),
            volume_gb: number("VolumeSizeInGB"),
            download_timeout: number(DOWNLOAD_TIMEOUT),
        }
    }
}

/// Seconds for download and extraction of an artifact: what the config says, else by its size, in whole minutes. An
/// archive whose size is not known beforehand counts as what it would have with nothing compressed.
pub(super) fn download_timeout(configured: Option<u32>, bytes: Option<u64>) -> u32 {
    let by_size = || {
        let seconds = bytes.unwrap_or(0).div_ceil(PACE).saturating_mul(SLACK).clamp(TIMEOUT_MIN, TIMEOUT_MAX);
        // At most 3600.
        seconds.next_multiple_of(60) as u32
    };
    configured.unwrap_or_else(by_size)
}

/// What goes there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Bytes of the objects in S3.
    pub bytes: u64,
    /// Whether they may be fewer.
    pub at_most: bool,
    /// What they would be with nothing compressed, about as many as are extracted from them.
    pub stored: u64,
}

impl Load {
    /// Of an artifact that is made here.
    pub(super) fn of(model: &LocalModel) -> Option<Self> {
        match *model {
            LocalModel::Tree { bytes, at_most, stored, .. } => Some(Load { bytes, at_most, stored }),
            LocalModel::External { .. } | LocalModel::Keep => None,
        }
    }

    /// Of one of which is only known what it has at least, with and without compression.
    pub(super) fn at_least(bytes: u64, stored: u64) -> Self {
        Load { bytes, at_most: false, stored }
    }
}

/// Refuses what cannot fit; says what is tight.
pub(super) fn check(place: Place<'_>, packaging: Packaging, load: Load) -> Result<Option<String>> {
    let Load { bytes, at_most, stored } = load;
    let local = instances::known().find(|t| t.name == place.instance_type).map_or(0, |t| u64::from(t.nvme_gb));
    let disk = match place.volume_gb {
        _ if local > 0 => Some(local * GB),
        Some(volume) => Some(volume * GIB),
        // An unknown type without a volume in the config: nobody here knows its disk.
        None => None,
    };
    // The archive is there until it is extracted.
    let needed = match packaging {
        Packaging::Tar => bytes.saturating_add(stored),
        Packaging::Uncompressed => bytes,
    };
    // What is compressed at sending may be less; whether it is less enough, packing tells.
    let unsure = at_most && stored <= disk.unwrap_or(0);
    if let Some(disk) = disk.filter(|&disk| needed > disk) {
        let gb = |n: u64| n.div_ceil(GB);
        let next = match (packaging, stored <= disk) {
            (Packaging::Tar, true) if unsure => {
                "find out how much exactly with `comfy-deploy model pack -o /dev/null` (compression: adaptive cannot know), or choose a larger instance type or volume"
            }
            (Packaging::Tar, true) => {
                "set models.packaging: uncompressed, which needs the space once, or choose a larger instance type or volume"
            }
            _ => "choose an instance type with more disk (endpoint.instance_type), or leave models out (models.files)",
        };
        return Err(Error::usage(format!(
            "the models need {}{} GB on the instance, and {} has {} GB",
            if at_most { "up to " } else { "" },
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
        let most = if at_most { "up to " } else { "" };
        let tight = format!("The models must arrive at {most}{rate} MB/s to be there within {timeout} s");
        match (bytes / BRISK / 1_000_000).next_multiple_of(60).min(TIMEOUT_MAX) {
            roomy if roomy > timeout => format!("{tight}; {roomy} s would leave room (endpoint.download_timeout)."),
            _ => format!("{tight}, and SageMaker allows no more; leave models out (models.files) if that fails."),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before anything was fetched: refused is only what cannot fit, however well it compresses.
    #[test]
    fn what_is_known_before_files_are_here_refuses_only_what_never_fits() {
        let config = "endpoint: {instance_type: ml.g4dn.xlarge}\n";
        let settings = crate::plan::tests::settings(config);
        let fits = |deployed: Option<&Map>, bytes: u64, stored: u64| {
            crate::plan::fits(&settings, deployed, bytes * GB, stored * GB)
        };
        // 125 GB of disk, by the table.
        assert!(fits(None, 62, 62).is_ok() && fits(None, 0, 125).is_ok());
        for (bytes, stored) in [(63, 63), (0, 126)] {
            let e = fits(None, bytes, stored).unwrap_err();
            assert!(e.to_string().contains("ml.g4dn.xlarge has 125 GB"), "{e}");
        }
        // An update of the models goes to the instance that is there, whatever the config asks for by now.
        let deployed = [("SageMakerInstanceType", "ml.p3.2xlarge"), ("VolumeSizeInGB", "400")];
        let deployed = deployed.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert!(fits(Some(&deployed), 200, 200).is_ok() && fits(Some(&deployed), 220, 220).is_err());
        assert!(fits(Some(&Map::new()), 999, 999).is_ok(), "of a stack that says nothing nothing is known");
    }

    fn on(instance_type: &str, volume_gb: Option<u64>, packaging: Packaging, gb: u64) -> Result<Option<String>> {
        let load = Load { bytes: gb * GB, at_most: false, stored: gb * GB };
        check(Place { instance_type, volume_gb, download_timeout: Some(1200) }, packaging, load)
    }

    #[test]
    fn a_compressed_archive_needs_its_own_space_and_that_of_the_files() {
        let place = Place { instance_type: "ml.g4dn.xlarge", volume_gb: None, download_timeout: None };
        let on = |bytes: u64, stored: u64, at_most| {
            check(place, Packaging::Tar, Load { bytes: bytes * GB, at_most, stored: stored * GB })
        };
        assert!(on(45, 80, false).is_ok());
        let e = on(46, 80, false).unwrap_err();
        assert!(e.to_string().contains("need 126 GB") && e.hint().unwrap_or_default().contains("uncompressed"), "{e}");
        // An upper bound that does not fit is no proof: the way to one is told.
        let e = on(80, 80, true).unwrap_err();
        assert!(e.to_string().contains("up to 160 GB") && e.hint().unwrap_or_default().contains("model pack"), "{e}");
        let e = on(130, 130, true).unwrap_err();
        assert!(e.hint().unwrap_or_default().contains("more disk"), "{e}");
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

    #[test]
    fn the_timeout_follows_the_size_within_limits_unless_the_config_says_one() {
        let by_size = |gb: u64| download_timeout(None, Some(gb * GB));
        assert_eq!([0, 7, 40].map(by_size), [1200; 3]);
        assert_eq!([41, 50, 100, 120, 500].map(by_size), [1260, 1500, 3000, 3600, 3600]);
        assert_eq!(download_timeout(None, Some(u64::MAX)), 3600);
        assert_eq!(download_timeout(None, None), 1200, "an artifact that nobody could measure");
        assert_eq!(download_timeout(Some(60), Some(500 * GB)), 60);
    }

    /// What was derived is only worth a word when even the most is not enough.
    #[test]
    fn a_derived_timeout_is_tight_only_at_the_limit() {
        let derived = |gb: u64| {
            let seconds = u64::from(download_timeout(None, Some(gb * GB)));
            let place = Place { instance_type: "ml.p3.2xlarge", volume_gb: None, download_timeout: Some(seconds) };
            check(place, Packaging::Uncompressed, Load { bytes: gb * GB, at_most: false, stored: gb * GB }).unwrap()
        };
        for gb in 0..=180 {
            assert_eq!(derived(gb), None, "{gb} GB");
        }
        let note = derived(200).unwrap();
        assert!(note.contains("55 MB/s") && note.contains("allows no more"), "{note}");
    }
}
