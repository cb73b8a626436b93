//! Instance types: what is known of SageMaker's GPU types, and which types bring their own disk.

use crate::config::problem::Problem;
use crate::config::tree::Path;
use crate::config::{Config, check};

/// The GPU types that SageMaker hosts on: vCPU, memory, GPU, local NVMe, and the regions that offer them. From the
/// EC2 instance data and SageMaker's price list of summer 2026.
const TABLE: &str = include_str!("../instances.csv");

/// Families with local NVMe whose names do not say so by a `d`.
const NVME_FAMILIES: [&str; 11] = ["g5", "g6", "g6e", "gr6", "g7e", "p5", "p5e", "p5en", "trn1", "trn1n", "trn2"];

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceType {
    /// `ml.g5.xlarge`
    pub name: &'static str,
    /// Number of GPUs.
    pub gpus: u32,
    /// Local NVMe over all disks, GB.
    pub nvme_gb: u32,
    row: &'static str,
}

impl InstanceType {
    /// Whether a region offers it, where that is known.
    pub fn offered_in(&self, region: &str) -> Option<bool> {
        let column = header().position(|name| name.strip_prefix("hosting_") == Some(region))?;
        self.row.split(',').nth(column).map(|cell| cell == "yes")
    }
}

fn header() -> impl Iterator<Item = &'static str> {
    TABLE.lines().next().unwrap_or_default().split(',')
}

/// All known types.
pub fn known() -> impl Iterator<Item = InstanceType> {
    let column = |wanted: &str| header().position(|name| name == wanted).unwrap_or(usize::MAX);
    let (gpus, nvme) = (column("gpu_count"), column("nvme_gb"));
    TABLE.lines().skip(1).map(move |row| {
        let cell = |n: usize| row.split(',').nth(n).unwrap_or_default();
        InstanceType {
            name: cell(0),
            gpus: cell(gpus).parse().unwrap_or(0),
            nvme_gb: cell(nvme).parse().unwrap_or(0),
            row,
        }
    })
}

/// Whether a type has local NVMe: by the table, else by its family's name.
pub fn has_nvme(instance_type: &str) -> bool {
    if let Some(row) = known().find(|t| t.name == instance_type) {
        return row.nvme_gb > 0;
    }
    let family = instance_type.split('.').nth(1).unwrap_or_default();
    // In EC2's names a `d` behind the generation stands for a disk: g4dn, p4d, m5d, c6id.
    let attributes =
        family.trim_start_matches(|c: char| c.is_ascii_lowercase()).trim_start_matches(|c: char| c.is_ascii_digit());
    NVME_FAMILIES.contains(&family) || attributes.contains('d')
}

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let name = &config.endpoint.instance_type;
    let path = Path::of("endpoint.instance_type");
    match known().find(|t| t.name == name) {
        Some(row) => {
            if let Some(region) = config.region.as_deref().filter(|region| row.offered_in(region) == Some(false)) {
                problems.push(
                    Problem::warning(
                        path,
                        format!("`{name}` was not offered for endpoints in {region} when this was built"),
                    )
                    .label(format!("maybe not in {region}"))
                    .help("If AWS refuses it, choose another type or region."),
                );
            }
        }
        None => {
            let names: Vec<&str> = known().map(|t| t.name).collect();
            let near = check::nearest(name, names.iter().copied()).filter(|near| strsim::levenshtein(name, near) <= 2);
            let label = near.map_or("unknown type".to_owned(), |near| format!("did you mean `{near}`?"));
            problems.push(
                Problem::warning(path, format!("`{name}` is not among the GPU types known here"))
                    .label(label)
                    .help("It is tried all the same: AWS may have added it since. ComfyUI needs a GPU."),
            );
        }
    }
    if config.endpoint.volume_gb.is_some() && has_nvme(name) {
        problems.push(
            Problem::error(Path::of("endpoint.volume_gb"), format!("`endpoint.volume_gb` cannot be set for {name}"))
                .label("remove this line")
                .help(match known().find(|t| t.name == name) {
                    Some(row) => format!(
                        "This type brings {} GB of local NVMe, which SageMaker uses instead of an EBS volume. Remove the key, or choose a larger size of the type.",
                        row.nvme_gb
                    ),
                    None => "Types of this family bring local NVMe, which SageMaker uses instead of an EBS volume. Remove the key.".to_owned(),
                }),
        );
    }
}
