//! Where the comfy-handler binary is, or how to get it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::progress::{Event, Reporter, Task};

/// Lines of cargo's output that are repeated in the error when it fails.
const LAST_LINES: usize = 30;

/// The handler, as far as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handler {
    /// This file.
    Found(PathBuf),
    /// It has to be built in this source checkout: [`build_handler`].
    Build(PathBuf),
}

/// The source checkout this program was built from, if it is still there.
pub fn checkout() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("workflows/handler/Cargo.toml").is_file().then_some(root)
}

/// The file given by `flag`; else `comfy-handler` or `bootstrap` in the directory of the program `exe`; else a build
/// in the source `checkout`.
///
/// # Errors
/// None of these is there.
pub fn find_handler(flag: Option<&Path>, exe: Option<&Path>, checkout: Option<&Path>) -> Result<Handler> {
    if let Some(file) = flag {
        return match file.is_file() {
            true => Ok(Handler::Found(file.to_owned())),
            false => Err(Error::usage(format!("there is no file {}", file.display()))
                .next("name the comfy-handler binary with --handler FILE")),
        };
    }
    let beside = exe.and_then(Path::parent);
    let found = ["comfy-handler", "bootstrap"].iter().filter_map(|name| Some(beside?.join(name))).find(|f| f.is_file());
    match (found, checkout) {
        (Some(file), _) => Ok(Handler::Found(file)),
        (None, Some(root)) => Ok(Handler::Build(root.to_owned())),
        (None, None) => Err(Error::usage("the comfy-handler binary is not there").next(
            "put comfy-handler beside the comfy-deploy binary, or name it with --handler FILE, or set lambda.enabled: false",
        )),
    }
}

/// Builds the handler in a source checkout, with the profile made for it, and returns the binary. Blocking; cargo's own lines are
/// reported as they come.
pub fn build_handler(checkout: &Path, reporter: &dyn Reporter) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    reporter.report(Event::Begin { task: Task::Function, label: "building comfy-handler".into(), total: None });
    let mut child = Command::new(&cargo)
        .args([
            "build",
            "--profile",
            "function",
            "--package",
            "comfy-handler",
            "--message-format",
            "json-render-diagnostics",
        ])
        .current_dir(checkout)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| no_cargo(&cargo, &e))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    // Both pipes are read at once, or cargo blocks on the one that is full.
    let (messages, last) = std::thread::scope(|scope| {
        let lines = scope.spawn(|| follow(stderr, reporter));
        let mut messages = String::new();
        let read = stdout.map_or(Ok(0), |mut out| out.read_to_string(&mut messages));
        (read.map(|_| messages), lines.join().unwrap_or_default())
    });
    let status = child.wait().map_err(|e| Error::failed("cargo was lost").why(e.to_string()))?;
    let built = messages.ok().as_deref().and_then(executable);
    match built.filter(|_| status.success()) {
        Some(file) => {
            reporter.report(Event::End { task: Task::Function, summary: format!("built {}", file.display()) });
            Ok(file)
        }
        None => Err(Error::failed("comfy-handler could not be built")
            .why(if last.is_empty() { status.to_string() } else { last.join("\n") })
            .next(advice(&last))),
    }
}

/// Cargo does not start.
fn no_cargo(cargo: &OsStr, cause: &std::io::Error) -> Error {
    let error = Error::failed("comfy-handler has to be built, and cargo cannot be run");
    match cause.kind() {
        std::io::ErrorKind::NotFound => error.why(format!("there is no {} on the PATH", cargo.display())),
        _ => error.why(cause.to_string()),
    }
    .next("install Rust (https://rustup.rs), or name a built comfy-handler with --handler FILE")
}

/// What to do about a failed build, by what cargo said last.
fn advice(last: &[String]) -> &'static str {
    let says = |words: &str| last.iter().any(|line| line.contains(words));
    if says("rustup could not choose a version of cargo") || says("no default toolchain") {
        "rustup default stable, then run the same command again; or name a built binary with --handler FILE"
    } else if says("requires rustc") || says("is not supported by the following packages") {
        "rustup update, then run the same command again; or name a built binary with --handler FILE"
    } else if says("linker `") {
        "install a C compiler (Debian: apt-get install gcc), or name a built binary with --handler FILE"
    } else {
        "correct what cargo says, or name a built binary with --handler FILE"
    }
}

/// Reports lines, and returns the last ones.
fn follow(stream: Option<impl Read>, reporter: &dyn Reporter) -> Vec<String> {
    let mut last = Vec::new();
    let Some(stream) = stream else { return last };
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        reporter.report(Event::Line { task: Task::Function, line: text.clone() });
        if last.len() == LAST_LINES {
            last.remove(0);
        }
        last.push(text);
        line.clear();
    }
    last
}

/// The path of the handler in cargo's messages, one JSON object per line.
fn executable(messages: &str) -> Option<PathBuf> {
    messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|message| {
        let ours = message["reason"] == "compiler-artifact" && message["target"]["name"] == "comfy-handler";
        ours.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_then_what_is_beside_then_a_checkout() {
        let dir = tempfile::tempdir().unwrap();
        let exe = dir.path().join("comfy-deploy");
        let flag = dir.path().join("mine");
        let find = |flag: Option<&Path>, checkout| find_handler(flag, Some(&exe), checkout);

        let e = find(None, None).unwrap_err();
        assert!(e.hint().unwrap_or_default().contains("--handler"), "{e}");
        assert!(find(Some(&flag), None).is_err(), "a file that was named must be there");

        let root = Path::new("/src");
        assert_eq!(find(None, Some(root)).unwrap(), Handler::Build(root.into()));

        std::fs::write(dir.path().join("bootstrap"), "").unwrap();
        assert_eq!(find(None, Some(root)).unwrap(), Handler::Found(dir.path().join("bootstrap")));
        std::fs::write(dir.path().join("comfy-handler"), "").unwrap();
        assert_eq!(find(None, Some(root)).unwrap(), Handler::Found(dir.path().join("comfy-handler")));
        std::fs::write(&flag, "").unwrap();
        assert_eq!(find(Some(&flag), None).unwrap(), Handler::Found(flag.clone()));
    }

    #[test]
    fn a_missing_cargo_and_a_failed_build_say_what_to_install() {
        let missing = no_cargo(OsStr::new("cargo"), &std::io::Error::from(std::io::ErrorKind::NotFound));
        assert!(missing.to_string().contains("there is no cargo on the PATH"), "{missing}");
        assert!(missing.hint().unwrap_or_default().contains("https://rustup.rs"));
        for (line, word) in [
            ("error: rustup could not choose a version of cargo to run", "rustup default"),
            ("error: package `comfy-handler` requires rustc 1.95", "rustup update"),
            ("error: linker `cc` not found", "gcc"),
            ("error[E0308]: mismatched types", "correct"),
        ] {
            assert!(advice(&[line.to_owned()]).contains(word), "{line}");
        }
    }

    #[test]
    fn the_executable_is_found_in_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"serde"},"executable":null}
not json
{"reason":"compiler-artifact","target":{"name":"comfy-handler"},"executable":"/t/release/comfy-handler"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages), Some("/t/release/comfy-handler".into()));
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
    }
}
