//! Whether there is room, asked before any byte moves.

use std::path::Path;

use crate::error::{Error, Result};
use crate::progress::units::bytes;

/// Left free beside what is fetched.
const SPARE: u64 = 64 << 20;

/// Bytes that this user may still write where `dir` is or will be; none if the file system does not tell, which then says
/// so when it is full.
pub fn free(dir: &Path) -> Option<u64> {
    let there = dir.ancestors().find(|dir| dir.exists())?;
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    let stat = rustix::fs::statvfs(there).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Whether so much can be written where so much is free.
pub(super) fn fits(needed: u64, free: Option<u64>) -> bool {
    needed == 0 || free.is_none_or(|free| needed.saturating_add(SPARE) <= free)
}

/// # Errors
/// There is too little.
pub(super) fn check(dir: &Path, needed: u64, free: Option<u64>) -> Result<()> {
    if fits(needed, free) {
        return Ok(());
    }
    let free = free.unwrap_or_default();
    Err(Error::failed(format!("the models need {}, but {} has {} free", bytes(needed), dir.display(), bytes(free)))
        .next("free some space, or put models.dir on another disk; nothing was fetched"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_room_is_told_with_both_numbers() {
        let error = check(Path::new("models"), 20_000_000_000, Some(14_000_000_000)).expect_err("too little");
        assert!(error.to_string().contains("20.0 GB") && error.to_string().contains("14.0 GB"), "{error}");
        assert!(check(Path::new("models"), 0, Some(0)).is_ok());
        assert!(check(Path::new("models"), u64::MAX, None).is_ok());
        assert!(check(Path::new("/"), u64::MAX, free(Path::new("/"))).is_err());
        let dir = tempfile::tempdir().expect("directory").path().join("not/there/yet");
        assert!(check(&dir, 1, free(&dir)).is_ok() && free(&dir).is_some());
    }
}
