//! One build and push with any of the tools.

mod steps;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use super::credentials::{Credentials, UserSetup};
use super::detect::Tool;
use super::output::{Cause, LAST_LINES, Tail};
use super::runner::{Cancel, Exit, Invocation, Runner};
use crate::cloud::{Images, RegistryLogin};
use crate::error::{Error, Kind, Result};
use crate::local::image::ImageContext;
use crate::progress::{Event, Reporter, Task};
pub(super) use steps::local_build;
use steps::{Files, Purpose, steps};

/// What a build left in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// `sha256:...` of the pushed manifest, where the tool says it. The registry's word counts, not this.
    pub digest: Option<String>,
}

/// A build tag that nobody used before: `<repository uri>:build-<16 hex>`.
pub fn build_reference(repository_uri: &str) -> String {
    format!("{repository_uri}:build-{:016x}", rand::random::<u64>())
}

/// Builds the context and pushes it as `reference` (`registry/repository:tag`).
///
/// The login is fetched here and once more when the registry refuses it. It exists only in a directory of mode 0700
/// that is removed before this function returns, also when its future is dropped. The tool's lines are reported as
/// [`Event::Line`] while they come.
///
/// # Errors
/// The tool failed, with its last lines and, where it is recognised, the cause; cancelled; no login.
pub async fn build_and_push(
    tool: &Tool,
    context: &ImageContext,
    reference: &str,
    images: &dyn Images,
    runner: &dyn Runner,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<Built> {
    let place = Place { parent: private_parent(), user: UserSetup::here() };
    Run { tool, context, reference, images, runner, reporter, cancel }.build_and_push(place).await
}

/// Where credentials are kept, and what the user has set up.
struct Place {
    parent: PathBuf,
    user: UserSetup,
}

/// In memory where there is such a directory.
fn private_parent() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_dir());
    runtime.unwrap_or_else(std::env::temp_dir)
}

struct Run<'a> {
    tool: &'a Tool,
    context: &'a ImageContext,
    reference: &'a str,
    images: &'a dyn Images,
    runner: &'a dyn Runner,
    reporter: &'a dyn Reporter,
    cancel: &'a Cancel,
}

impl Run<'_> {
    async fn build_and_push(&self, place: Place) -> Result<Built> {
        let host = self.reference.split('/').next().unwrap_or_default();
        let mut login = self.images.login().await?;
        let insecure = plain_http(host, &login)?;
        let credentials = Credentials::create(&place.parent, place.user)?;
        credentials.write(host, &login)?;
        let files = Files {
            auth: credentials.auth_file(),
            digest: credentials.scratch("digest"),
            metadata: credentials.scratch("metadata.json"),
        };
        let mut digest = None;
        let mut failed = None;
        for step in steps(self.tool, self.context, self.reference, insecure, &files) {
            let mut invocation = step.invocation;
            invocation.env.extend(credentials.env().clone());
            if step.purpose == Purpose::CleanUp {
                // A name that stays in the tool's own store is no reason to fail.
                let _ = self.attempt(&invocation, &login, false).await;
                continue;
            }
            if failed.is_some() {
                continue;
            }
            let mut outcome = self.attempt(&invocation, &login, step.purpose != Purpose::Digest).await?;
            if step.purpose == Purpose::Push && outcome.refused() {
                self.reporter
                    .report(Event::Note("the registry refused the login; trying once more with a new one".into()));
                login = self.images.login().await?;
                credentials.write(host, &login)?;
                outcome = self.attempt(&invocation, &login, true).await?;
            }
            match outcome.exit {
                Exit::Code(0) => {
                    if step.purpose == Purpose::Digest {
                        digest = steps::repo_digest(&outcome.stdout, self.reference);
                    }
                }
                Exit::Cancelled => {
                    return Err(Error::new(Kind::Interrupted, "interrupted while the inference image was built")
                        .next("run the same command again; finished steps are in the tool's cache"));
                }
                // Only for information: the image is pushed, and the registry knows its digest.
                _ if step.purpose == Purpose::Digest => {}
                _ => failed = Some(self.explain(&invocation, &outcome)),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(Built { digest: digest.or_else(|| steps::digest_of(&files)) }),
        }
    }

    async fn attempt(&self, invocation: &Invocation, login: &RegistryLogin, show: bool) -> Result<Outcome> {
        let mut tail = Tail::hiding(vec![login.password.clone()]);
        let mut stdout = String::new();
        let exit = self
            .runner
            .run(invocation, self.cancel, &mut |stream, line| {
                let line = tail.take(line);
                if show {
                    self.reporter.report(Event::Line { task: Task::Image, line });
                } else if stream == super::runner::Stream::Out {
                    stdout.push_str(&line);
                }
            })
            .await
            .map_err(|cause| {
                Error::failed(format!("cannot start {}", invocation.program))
                    .why(cause.to_string())
                    .next("see image.builder in the config for the other container tools")
            })?;
        Ok(Outcome { exit, tail, stdout })
    }

    fn explain(&self, invocation: &Invocation, outcome: &Outcome) -> Error {
        let verb = invocation.args.iter().find(|arg| *arg != "buildx").map(|arg| arg.to_string_lossy());
        let verb = verb.as_deref().unwrap_or_default();
        let how = match outcome.exit {
            Exit::Code(code) => format!("exit code {code}"),
            Exit::Signal(signal) => format!("signal {signal}"),
            Exit::Cancelled | Exit::TimedOut => "no exit code".into(),
        };
        let name = self.tool.kind.name();
        let pushing = verb == "push";
        let what = if pushing { "the push of the inference image" } else { "the build of the inference image" };
        let mut error = Error::failed(format!("{what} failed: {name} {verb} ended with {how}"));
        let text = outcome.tail.text();
        if !text.is_empty() {
            error = error.why(format!("its last {LAST_LINES} lines were\n{text}"));
        }
        match outcome.tail.cause() {
            Some(Cause::Refused) if pushing || self.tool.pushes_while_building() => error.kind_is(Kind::Access).next(
                "the registry refuses the push even with a new login: the credentials need ecr:GetAuthorizationToken, \
                 ecr:BatchCheckLayerAvailability, ecr:InitiateLayerUpload, ecr:UploadLayerPart, ecr:CompleteLayerUpload and \
                 ecr:PutImage on the repository",
            ),
            Some(Cause::Refused) => error.kind_is(Kind::Access).next(
                "a registry refuses the login for a base image: log in there with the container tool, or use another base",
            ),
            Some(Cause::DiskFull) => error.next(format!(
                "the disk is full (an image of 10 GB needs 20 to 60 GB while it is built); free some with `{}` and run the \
                 same command again",
                self.tool.prune_command()
            )),
            Some(Cause::OutOfMemory) => {
                error.next("a step was killed, most likely for lack of memory; give the container engine more")
            }
            Some(Cause::EngineGone) => error.next("start the container engine and run the same command again"),
            Some(Cause::Network) => error.next("check the network (and proxies) of the container engine, then run it again"),
            None => error.next("mend the Dockerfile or its context and run the same command again"),
        }
    }
}

struct Outcome {
    exit: Exit,
    tail: Tail,
    stdout: String,
}

impl Outcome {
    fn refused(&self) -> bool {
        matches!(self.exit, Exit::Code(code) if code != 0) && self.tail.cause() == Some(Cause::Refused)
    }
}

/// Whether to speak plain http with `host`: only where the login says so, and only on this machine.
fn plain_http(host: &str, login: &RegistryLogin) -> Result<bool> {
    let (scheme, rest) = login.endpoint.split_once("://").unwrap_or(("https", &login.endpoint));
    let endpoint = rest.trim_end_matches('/');
    if endpoint != host {
        return Err(Error::failed(format!("the registry's login is for {endpoint}, the image goes to {host}"))
            .why("a password is only sent to the registry that it is for"));
    }
    match scheme {
        "https" => Ok(false),
        "http" if is_loopback(host) => Ok(true),
        _ => Err(Error::failed(format!("the registry {} is not reached over https", login.endpoint))
            .why("a password over plain http is allowed on this machine only")),
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
