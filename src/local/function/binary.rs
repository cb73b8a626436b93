//! Whether a binary can run on Lambda's `provided.al2023`.

use std::path::Path;

use object::LittleEndian as LE;
use object::elf;
use object::read::elf::{Dyn, FileHeader, ProgramHeader, SectionTable};

use crate::config::Architecture;
use crate::error::{Error, Result};

/// The glibc of Amazon Linux 2023.
const GLIBC: (u32, u32) = (2, 34);

/// Shared libraries that the runtime has, up to the first dot.
const LIBRARIES: [&str; 9] =
    ["libc", "libm", "libgcc_s", "libpthread", "libdl", "librt", "libutil", "ld-linux-x86-64", "ld-linux-aarch64"];

type Header = elf::FileHeader64<LE>;

/// Checks a handler, and says what it was built for.
pub(super) fn check(path: &Path, bytes: &[u8], wanted: Option<Architecture>) -> Result<Architecture> {
    let facts = Facts::read(bytes).map_err(|why| {
        Error::usage(format!("{} is not a Linux executable", path.display()))
            .why(why)
            .next("name the comfy-handler binary (64-bit ELF, x86_64 or arm64) with --handler FILE")
    })?;
    let architecture = facts.architecture;
    if let Some(wanted) = wanted.filter(|&w| w != architecture) {
        let (found, wanted) = (name(architecture), name(wanted));
        return Err(Error::usage(format!("{} is built for {found}, the config asks for {wanted}", path.display()))
            .next(format!("set lambda.architecture to {found}, or name a {wanted} build with --handler FILE")));
    }
    let rebuild = || {
        format!(
            "build it statically (cargo build --release -p comfy-handler --target {}-unknown-linux-musl) and name it with --handler FILE",
            if architecture == Architecture::Arm64 { "aarch64" } else { "x86_64" }
        )
    };
    let cannot = |why: String| {
        Error::usage(format!("{} cannot run on Lambda (provided.al2023)", path.display())).why(why).next(rebuild())
    };
    if let Some(loader) = facts.interpreter.filter(|i| i != loader(architecture)) {
        return Err(cannot(format!("it needs the loader {loader}, which Amazon Linux 2023 does not have")));
    }
    let known = |library: &str| LIBRARIES.contains(&library.split('.').next().unwrap_or(library));
    if let Some(library) = facts.libraries.iter().find(|l| !known(l)) {
        return Err(cannot(format!("it needs the library {library}, which Amazon Linux 2023 does not have")));
    }
    if let Some((version, text)) = facts.versions.iter().filter_map(|v| Some((glibc(v)?, v))).max()
        && version > GLIBC
    {
        return Err(cannot(format!("it needs {text}; Amazon Linux 2023 has glibc {}.{}", GLIBC.0, GLIBC.1)));
    }
    Ok(architecture)
}

fn name(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "x86_64",
        Architecture::Arm64 => "arm64",
    }
}

fn loader(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "/lib64/ld-linux-x86-64.so.2",
        Architecture::Arm64 => "/lib/ld-linux-aarch64.so.1",
    }
}

/// `GLIBC_2.34` or `GLIBC_2.2.5` as numbers; names of other kinds are nothing.
fn glibc(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_prefix("GLIBC_")?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// What the ELF file says.
#[derive(Debug)]
struct Facts {
    architecture: Architecture,
    interpreter: Option<String>,
    libraries: Vec<String>,
    /// Versions that the loader insists on; it lets weak ones be absent.
    versions: Vec<String>,
}

impl Facts {
    /// The error is a reason that fits behind "is not a Linux executable:".
    fn read(bytes: &[u8]) -> Result<Self, String> {
        if !bytes.starts_with(&elf::ELFMAG) {
            return Err("it is not an ELF file".into());
        }
        if bytes.get(4) != Some(&elf::ELFCLASS64) || bytes.get(5) != Some(&elf::ELFDATA2LSB) {
            return Err("it is not for a 64-bit little-endian processor".into());
        }
        let broken = |e: object::read::Error| format!("the ELF file is damaged: {e}");
        let header = Header::parse(bytes).map_err(broken)?;
        let architecture = match header.e_machine(LE) {
            elf::EM_X86_64 => Architecture::X86_64,
            elf::EM_AARCH64 => Architecture::Arm64,
            other => return Err(format!("it is for another processor (e_machine {other})")),
        };
        if !matches!(header.e_type(LE), elf::ET_EXEC | elf::ET_DYN) || header.e_entry(LE) == 0 {
            return Err("it is an object file or a library".into());
        }
        let mut interpreter = None;
        for segment in header.program_headers(LE, bytes).map_err(broken)? {
            if let Some(path) = segment.interpreter(LE, bytes).map_err(broken)? {
                interpreter = Some(String::from_utf8_lossy(path).into_owned());
            }
        }
        let sections = header.sections(LE, bytes).map_err(broken)?;
        let libraries = libraries(&sections, bytes).map_err(broken)?;
        let versions = versions(&sections, bytes).map_err(broken)?;
        Ok(Facts { architecture, interpreter, libraries, versions })
    }
}

/// DT_NEEDED.
fn libraries(sections: &SectionTable<'_, Header>, bytes: &[u8]) -> object::read::Result<Vec<String>> {
    let mut names = Vec::new();
    if let Some((entries, strings)) = sections.dynamic(LE, bytes)? {
        let strings = sections.strings(LE, bytes, strings)?;
        for entry in entries.iter().take_while(|e| e.tag32(LE) != Some(elf::DT_NULL)) {
            if entry.tag32(LE) == Some(elf::DT_NEEDED) {
                names.push(String::from_utf8_lossy(entry.string(LE, strings)?).into_owned());
            }
        }
    }
    Ok(names)
}

/// `.gnu.version_r` without the weak ones.
fn versions(sections: &SectionTable<'_, Header>, bytes: &[u8]) -> object::read::Result<Vec<String>> {
    let mut names = Vec::new();
    if let Some((mut needs, strings)) = sections.gnu_verneed(LE, bytes)? {
        let strings = sections.strings(LE, bytes, strings)?;
        while let Some((_, mut versions)) = needs.next()? {
            while let Some(version) = versions.next()? {
                if version.vna_flags.get(LE) & elf::VER_FLG_WEAK == 0 {
                    names.push(String::from_utf8_lossy(version.name(LE, strings)?).into_owned());
                }
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(glibc("GLIBC_2.2.5"), Some((2, 2)));
        assert!(glibc("GLIBC_2.4") < glibc("GLIBC_2.34"));
        assert_eq!(glibc("GCC_3.0"), None);
        assert_eq!(glibc("GLIBC_PRIVATE"), None);
    }

    /// This test's own binary, with the machine, the class or a version name patched.
    fn own() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    fn error(bytes: &[u8], wanted: Option<Architecture>) -> Error {
        check(Path::new("h"), bytes, wanted).unwrap_err()
    }

    #[test]
    fn what_lambda_cannot_run_is_refused_with_the_reason() {
        assert!(error(b"#!/bin/sh\n", None).to_string().contains("not an ELF file"));
        assert!(error(&own()[..40], None).to_string().contains("damaged"));

        let mut other = own();
        other[4] = elf::ELFCLASS32;
        assert!(error(&other, None).to_string().contains("64-bit"));

        let mut other = own();
        other[18] = elf::EM_RISCV as u8;
        assert!(error(&other, None).to_string().contains("another processor"));

        let mut other = own();
        other[24..32].fill(0);
        assert!(error(&other, None).to_string().contains("library"));
    }

    #[test]
    fn the_architecture_is_that_of_the_binary_unless_the_config_says_otherwise() {
        let mut intel = own();
        intel[18] = elf::EM_X86_64 as u8;
        let e = error(&intel, Some(Architecture::Arm64));
        assert!(e.to_string().contains("x86_64") && e.to_string().contains("arm64"), "{e}");
        assert!(e.hint().unwrap_or_default().contains("lambda.architecture"));
    }

    #[test]
    fn a_newer_glibc_and_a_foreign_loader_are_refused() {
        let bytes = own();
        let facts = Facts::read(&bytes).unwrap();
        let newest = facts.versions.iter().filter(|v| glibc(v).is_some()).max_by_key(|v| glibc(v)).unwrap().clone();
        // The same length, so that no offset moves.
        let newer = format!("GLIBC_9.{}", "9".repeat(newest.len() - "GLIBC_9.".len()));
        let e = error(&replaced(&bytes, &newest, &newer), None);
        assert!(e.to_string().contains(&newer), "{e}");
        assert!(e.hint().unwrap_or_default().contains("musl"));

        let loader = facts.interpreter.unwrap();
        let e = error(&replaced(&bytes, &loader, &loader.replace("ld-linux", "ld-other")), None);
        assert!(e.to_string().contains("ld-other"), "{e}");

        let e = error(&replaced(&bytes, "libc.so.6", "libq.so.6"), None);
        assert!(e.to_string().contains("libq.so.6"), "{e}");
    }

    fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for at in memchr(bytes, from.as_bytes()) {
            out[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
        out
    }

    fn memchr(haystack: &[u8], needle: &[u8]) -> Vec<usize> {
        // Names end with a zero byte, which keeps GLIBC_2.3 apart from GLIBC_2.34.
        let whole = [needle, &[0]].concat();
        (0..haystack.len() - whole.len())
            .filter(|&i| haystack[i] == whole[0] && haystack[i..i + whole.len()] == whole[..])
            .collect()
    }
}
