//! Deployment packages: kept as uploaded when the function is made, extracted when it runs.
//!
//! Lambda copies the zip file when the function is created or updated; what happens to the object in S3 afterwards
//! changes nothing (AWS doc: Deploying Lambda functions as .zip file archives).

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// Bytes of a package and its layers when extracted (AWS doc: Lambda quotas).
const UNZIPPED: u64 = 262_144_000;

/// Where packages and what was extracted from them lie.
fn directory(state: &Path) -> PathBuf {
    state.join("lambda")
}

/// A SHA-256 in base64 as a file name.
fn name(sha256: &str) -> String {
    STANDARD.decode(sha256).map(|bytes| URL_SAFE_NO_PAD.encode(bytes)).unwrap_or_default()
}

fn zip(state: &Path, sha256: &str) -> PathBuf {
    directory(state).join(name(sha256)).with_extension("zip")
}

/// Keeps a package. A world without a directory, as unit tests of the rules have it, keeps none and runs nothing.
pub(super) fn keep(state: &Path, sha256: &str, bytes: &[u8]) -> io::Result<()> {
    let path = zip(state, sha256);
    if state.as_os_str().is_empty() || path.exists() {
        return Ok(());
    }
    fs::create_dir_all(directory(state))?;
    let part = path.with_extension("part");
    fs::write(&part, bytes)?;
    fs::rename(&part, &path)
}

/// Extracts a package, once, and returns the directory.
pub(super) fn extract(state: &Path, sha256: &str) -> io::Result<PathBuf> {
    let target = directory(state).join(name(sha256));
    if target.is_dir() {
        return Ok(target);
    }
    let part = directory(state).join(format!("{}.{}.part", name(sha256), uuid::Uuid::new_v4().simple()));
    let done = unpack(&zip(state, sha256), &part).and_then(|()| fs::rename(&part, &target));
    if done.is_err() {
        let _ = fs::remove_dir_all(&part);
    }
    match done {
        // Another environment of the same function was faster.
        Err(_) if target.is_dir() => Ok(target),
        Err(error) => Err(error),
        Ok(()) => Ok(target),
    }
}

fn unpack(zip: &Path, target: &Path) -> io::Result<()> {
    let mut archive = zip::ZipArchive::new(File::open(zip)?).map_err(io::Error::other)?;
    fs::create_dir_all(target)?;
    let mut left = UNZIPPED;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(io::Error::other)?;
        let inside = entry.enclosed_name().ok_or_else(|| io::Error::other("a name leads out of the package"))?;
        let path = target.join(inside);
        if entry.is_dir() {
            fs::create_dir_all(&path)?;
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = File::create(&path)?;
        let written = io::copy(&mut io::Read::take(&mut entry, left + 1), &mut file)?;
        left = left
            .checked_sub(written)
            .ok_or_else(|| io::Error::other(format!("the package is over {UNZIPPED} bytes when extracted")))?;
        // A zip made without modes gives none; then nothing can be executed, as on AWS.
        let mode = entry.unix_mode().unwrap_or(0o644) & 0o777;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode | 0o400))?;
    }
    Ok(())
}

/// Removes what no function uses. For the start only.
pub(super) fn sweep<'a>(state: &Path, used: impl Iterator<Item = &'a str>) {
    let keep: HashSet<String> = used.map(name).flat_map(|n| [format!("{n}.zip"), n]).collect();
    let Ok(entries) = fs::read_dir(directory(state)) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|n| keep.contains(n)) {
            continue;
        }
        let path = entry.path();
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "could not be removed");
        }
    }
}

/// What Lambda would say of an executable for another architecture than the function's, and what only the sandbox
/// says: that this machine is none of that architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Machine {
    /// A script, or right for the function and for this machine.
    Right,
    /// Lambda's machine could not run it.
    Wrong,
    /// Lambda's machine could, this one perhaps not.
    Elsewhere,
}

/// Looks at an executable.
pub(super) fn machine(program: &Path, architecture: &str) -> Machine {
    let mut head = [0; 20];
    let read = File::open(program).and_then(|mut f| io::Read::read_exact(&mut f, &mut head));
    // A script is short, and has no architecture.
    if read.is_err() || !head.starts_with(b"\x7fELF") {
        return Machine::Right;
    }
    let number = |arm| if arm { AARCH64 } else { X86_64 };
    let given = u16::from_le_bytes([head[18], head[19]]);
    if given != number(architecture == "arm64") {
        Machine::Wrong
    } else if given != number(cfg!(target_arch = "aarch64")) {
        Machine::Elsewhere
    } else {
        Machine::Right
    }
}

/// e_machine (ELF specification).
const X86_64: u16 = 62;
const AARCH64: u16 = 183;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_for_one_machine() {
        let dir = tempfile::tempdir().unwrap();
        let look = |bytes: &[u8], architecture: &str| {
            let path = dir.path().join("bootstrap");
            fs::write(&path, bytes).unwrap();
            machine(&path, architecture)
        };
        let elf = |number: u16| {
            let mut bytes = b"\x7fELF".to_vec();
            bytes.resize(64, 0);
            bytes[18..20].copy_from_slice(&number.to_le_bytes());
            bytes
        };
        let here = cfg!(target_arch = "aarch64");
        let (own, other) = if here { ("arm64", "x86_64") } else { ("x86_64", "arm64") };
        let (own_number, other_number) = if here { (AARCH64, X86_64) } else { (X86_64, AARCH64) };
        assert_eq!(look(&elf(own_number), own), Machine::Right);
        assert_eq!(look(&elf(own_number), other), Machine::Wrong);
        assert_eq!(look(&elf(other_number), other), Machine::Elsewhere);
        assert_eq!(look(&elf(40), own), Machine::Wrong);
        assert_eq!(look(b"#!/bin/sh\n", other), Machine::Right);
    }

    #[test]
    fn what_no_function_has_is_swept() {
        let state = tempfile::tempdir().unwrap();
        let names = ["AAAA", "BBBB"];
        names.iter().for_each(|n| keep(state.path(), n, b"PK").unwrap());
        sweep(state.path(), ["AAAA"].into_iter());
        assert!(zip(state.path(), "AAAA").exists() && !zip(state.path(), "BBBB").exists());
    }
}
