//! Whether there is room, asked before any byte moves.

use std::path::Path;

use crate::error::{Error, Result};
use crate::progress::units::bytes;

/// Left free beside what is fetched.
const SPARE: u64 = 64 << 20;

/// Bytes that this user may still write where `dir` is or will be.
fn free(dir: &Path) -> Option<u64> {
    let there = dir.ancestors().find(|dir| dir.exists())?;
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    let stat = rustix::fs::statvfs(there).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// # Errors
/// There is too little.
pub(super) fn check(dir: &Path, needed: u64) -> Result<()> {
    match free(dir) {
        Some(free) => enough(dir, needed, free),
        // A file system that does not tell says so when it is full.
        None => Ok(()),
    }
}

fn enough(dir: &Path, needed: u64, free: u64) -> Result<()> {
    if needed == 0 || needed.saturating_add(SPARE) <= free {
        return Ok(());
    }
    Err(Error::failed(format!("the models need {}, but {} has {} free", bytes(needed), dir.display(), bytes(free)))
        .next("free some space, or put models.dir on another disk; nothing was fetched"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_room_is_told_with_both_numbers() {
        let error = enough(Path::new("models"), 20_000_000_000, 14_000_000_000).expect_err("too little");
        assert!(error.to_string().contains("20.0 GB") && error.to_string().contains("14.0 GB"), "{error}");
        assert!(enough(Path::new("models"), 0, 0).is_ok());
        assert!(check(Path::new("/"), u64::MAX).is_err());
        let dir = tempfile::tempdir().expect("directory");
        assert!(check(&dir.path().join("not/there/yet"), 1).is_ok());
    }
}
