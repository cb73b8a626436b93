//! What the tools print: kept for the error, and read for its cause.

use std::collections::VecDeque;

/// Lines in the error of a failed build.
pub(super) const LAST_LINES: usize = 30;

/// The end of a tool's output, without secrets.
#[derive(Debug, Default)]
pub(super) struct Tail {
    lines: VecDeque<String>,
    secrets: Vec<String>,
    cause: Option<Cause>,
}

/// A cause that has its own advice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The registry did not accept the credentials, or they expired meanwhile.
    Refused,
    /// No space left, here or in the engine.
    DiskFull,
    /// A step ran out of memory and was killed.
    OutOfMemory,
    /// The engine went away.
    EngineGone,
    /// A base image or package source cannot be reached.
    Network,
}

impl Tail {
    /// Lines are kept with these strings removed.
    pub(super) fn hiding(secrets: Vec<String>) -> Self {
        Tail { secrets: secrets.into_iter().filter(|s| !s.is_empty()).collect(), ..Tail::default() }
    }

    /// Takes a line and returns it as it may be shown.
    pub(super) fn take(&mut self, line: &str) -> String {
        let mut line = line.to_owned();
        for secret in &self.secrets {
            if line.contains(secret.as_str()) {
                line = line.replace(secret.as_str(), "***");
            }
        }
        // The last recognised cause wins: a retry inside the tool may have got further than the first one.
        if let Some(cause) = recognise(&line) {
            self.cause = Some(cause);
        }
        if self.lines.len() == LAST_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.clone());
        line
    }

    /// The recognised cause.
    pub(super) fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// The kept lines.
    pub(super) fn text(&self) -> String {
        self.lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

fn recognise(line: &str) -> Option<Cause> {
    let line = line.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| line.contains(word));
    if has(&["no space left on device", "disk quota exceeded"]) {
        Some(Cause::DiskFull)
    } else if has(&[
        "401 unauthorized",
        "unauthorized:",
        "authorization failed",
        "authentication required",
        "no basic auth credentials",
        "authorization token has expired",
        "invalid username/password",
        "403 forbidden",
        "requested access to the resource is denied",
    ]) || (line.contains("denied") && line.contains("token"))
    {
        Some(Cause::Refused)
    } else if has(&["exit code: 137", "exit status 137", "signal: killed", "cannot allocate memory"]) {
        Some(Cause::OutOfMemory)
    } else if has(&[
        "cannot connect to the docker daemon",
        "error reading from server: eof",
        "is the docker daemon running",
    ]) {
        Some(Cause::EngineGone)
    } else if has(&[
        "no such host",
        "temporary failure in name resolution",
        "could not resolve host",
        "tls handshake timeout",
    ]) {
        Some(Cause::Network)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes() {
        for (line, cause) in [
            ("write /var/lib/docker/tmp/x: no space left on device", Some(Cause::DiskFull)),
            ("unauthorized: authentication required", Some(Cause::Refused)),
            ("denied: Your authorization token has expired. Reauthenticate and try again.", Some(Cause::Refused)),
            ("no basic auth credentials", Some(Cause::Refused)),
            ("unexpected status: 401 Unauthorized", Some(Cause::Refused)),
            ("did not complete successfully: exit code: 137", Some(Cause::OutOfMemory)),
            ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", Some(Cause::EngineGone)),
            ("dial tcp: lookup registry.example: no such host", Some(Cause::Network)),
            ("step 3/7: RUN make", None),
            ("chmod: permission denied", None),
        ] {
            assert_eq!(recognise(line), cause, "{line}");
        }
    }

    #[test]
    fn keeps_the_last_lines_without_secrets() {
        let mut tail = Tail::hiding(vec!["s3cret".into(), String::new()]);
        for n in 0..100 {
            tail.take(&format!("line {n}"));
        }
        assert_eq!(tail.take("Authorization: Basic s3cret!"), "Authorization: Basic ***!");
        let text = tail.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[29]), (LAST_LINES, "line 71", "Authorization: Basic ***!"));
    }
}
