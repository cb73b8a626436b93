//! With a script in the tools' place that writes down its arguments and environment.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use super::*;
use crate::cloud::{Manifest, Repository, Written};
use crate::container::detect::ToolKind;
use crate::container::runner::{OnLine, Processes};

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const PASSWORD: &str = "t0ken-of-the-registry";

/// Hands out logins and counts them.
struct Logins {
    endpoint: String,
    handed_out: AtomicU32,
}

#[async_trait]
impl Images for Logins {
    async fn repository(&self, _: &str) -> Result<Option<Repository>> {
        Ok(None)
    }
    async fn repository_tags(&self, _: &str) -> Result<crate::cloud::Map> {
        Ok(crate::cloud::Map::new())
    }
    async fn manifest(&self, _: &str, _: &str) -> Result<Option<Manifest>> {
        Ok(None)
    }
    async fn put_manifest(&self, _: &str, _: &str, _: &Manifest) -> Result<(Written, String)> {
        Err(Error::failed("not here"))
    }
    async fn blob(&self, _: &str, _: &str) -> Result<Option<Bytes>> {
        Err(Error::failed("not here"))
    }
    async fn login(&self) -> Result<RegistryLogin> {
        let n = self.handed_out.fetch_add(1, Ordering::SeqCst);
        Ok(RegistryLogin { endpoint: self.endpoint.clone(), user: "AWS".into(), password: format!("{PASSWORD}-{n}") })
    }
    async fn delete_tags(&self, _: &str, _: &[String]) -> Result<()> {
        Ok(())
    }
}

/// Runs the script instead of the tool.
struct Script {
    dir: tempfile::TempDir,
}

#[async_trait]
impl Runner for Script {
    async fn run(&self, invocation: &Invocation, cancel: &Cancel, line: &mut OnLine<'_>) -> io::Result<Exit> {
        let mut invocation = invocation.clone();
        invocation.args.insert(0, invocation.program.clone().into());
        invocation.program = self.dir.path().join("tool").to_string_lossy().into_owned();
        invocation.env.insert("LOG".into(), self.dir.path().as_os_str().to_owned());
        Processes.run(&invocation, cancel, line).await
    }
}

#[derive(Default)]
struct Events(Mutex<Vec<Event>>);

impl Reporter for Events {
    fn report(&self, event: Event) {
        self.0.lock().expect("lock").push(event);
    }
}

/// A build with `script` in the tool's place.
struct Case {
    script: Script,
    parent: tempfile::TempDir,
    logins: Logins,
    events: Events,
    tool: Tool,
    context: ImageContext,
    stop: watch::Sender<bool>,
}

impl Case {
    fn new(kind: ToolKind, script: &str) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let tool = dir.path().join("tool");
        let record = "#!/bin/sh\necho \"$@\" >>\"$LOG/args\"\nenv >>\"$LOG/env\"\n\
                      cat \"$DOCKER_CONFIG/config.json\" >>\"$LOG/config\"\necho >>\"$LOG/config\"\n";
        fs::write(&tool, format!("{record}{script}\n")).expect("script");
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("chmod");
        let context = ImageContext {
            tag: "c-0".into(),
            dir: "/app/image".into(),
            dockerfile: "/app/image/Dockerfile".into(),
            ignore_file: Some("/app/image/.dockerignore".into()),
            build_args: [("COMFYUI_GIT_REF".to_owned(), "abc".to_owned())].into(),
            target: Some("inference".into()),
            platform: "linux/amd64".into(),
            files: 1,
            bytes: 1,
        };
        Case {
            script: Script { dir },
            parent: tempfile::tempdir().expect("temporary directory"),
            logins: Logins { endpoint: format!("https://{HOST}"), handed_out: AtomicU32::new(0) },
            events: Events::default(),
            tool: Tool { kind, version: "1".into(), isolation: Some("chroot".into()), ask_for_buildkit: false },
            context,
            stop: watch::channel(false).0,
        }
    }

    async fn run_as(&self, reference: &str) -> Result<Built> {
        let place = Place { parent: self.parent.path().to_owned(), user: UserSetup::default() };
        let cancel = self.stop.subscribe();
        let run = Run {
            tool: &self.tool,
            context: &self.context,
            reference,
            images: &self.logins,
            runner: &self.script,
            reporter: &self.events,
            cancel: &cancel,
        };
        let result = run.build_and_push(place).await;
        assert!(is_empty(self.parent.path()), "the credentials stay");
        result
    }

    async fn run(&self) -> Result<Built> {
        self.run_as(&format!("{HOST}/app:build-1")).await
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.script.dir.path().join(name)).unwrap_or_default()
    }
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).expect("readable").count() == 0
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[tokio::test]
async fn buildx_makes_schema_2_and_tells_the_digest() {
    let script = "while [ $# -gt 0 ]; do [ \"$1\" = --metadata-file ] && \
                  echo '{\"containerimage.digest\":\"sha256:abc\"}' >\"$2\"; shift; done; echo '#1 DONE' >&2";
    let case = Case::new(ToolKind::Buildx, script);
    let built = case.run().await.expect("built");
    assert_eq!(built.digest.as_deref(), Some("sha256:abc"));
    let args = case.log("args");
    assert_eq!(args.lines().count(), 1);
    for part in [
        "docker buildx build --progress plain ",
        &format!("--output type=image,name={HOST}/app:build-1,push=true,oci-mediatypes=false --metadata-file"),
        "--provenance=false --sbom=false",
        "--platform linux/amd64",
        "--file /app/image/Dockerfile",
        "--target inference",
        "--build-arg COMFYUI_GIT_REF=abc",
    ] {
        assert!(args.contains(part), "{part} is not in {args}");
    }
    assert!(args.trim_end().ends_with("/app/image"), "{args}");
    assert!(!args.contains("insecure"));
    let events = case.events.0.lock().expect("lock");
    assert_eq!(*events, [Event::Line { task: Task::Image, line: "#1 DONE".into() }]);
}

#[tokio::test]
async fn no_tool_sees_the_token_in_arguments_or_environment() {
    for kind in [ToolKind::Buildx, ToolKind::Docker, ToolKind::Podman, ToolKind::Buildah] {
        let case = Case::new(kind, "");
        case.run().await.expect("built");
        let encoded = case.log("config");
        let auth = encoded.split("\"auth\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a login");
        for log in ["args", "env"] {
            let text = case.log(log);
            assert!(!text.is_empty() && !text.contains(PASSWORD) && !text.contains(auth), "{kind:?}: {text}");
        }
    }
}

#[tokio::test]
async fn docker_builds_pushes_asks_and_cleans_up() {
    let script = format!("case \"$2\" in image) echo '[\"other@sha256:x\",\"{HOST}/app@sha256:abc\"]';; esac");
    let mut case = Case::new(ToolKind::Docker, &script);
    case.tool.ask_for_buildkit = true;
    assert_eq!(case.run().await.expect("built").digest.as_deref(), Some("sha256:abc"));
    let args = case.log("args");
    let lines: Vec<_> = args.lines().collect();
    assert_eq!(lines.len(), 4, "{args}");
    assert!(lines[0].starts_with("docker build --platform linux/amd64 "), "{args}");
    assert!(lines[0].contains("--tag localhost/comfy-deploy/app:last"), "{args}");
    assert_eq!(lines[1], format!("docker push {HOST}/app:build-1"));
    assert_eq!(lines[3], format!("docker image rm {HOST}/app:build-1"));
    assert!(case.log("env").contains("DOCKER_BUILDKIT=1"));
}

#[tokio::test]
async fn buildah_and_podman_are_told_the_format_twice() {
    for (kind, name) in [(ToolKind::Buildah, "buildah"), (ToolKind::Podman, "podman")] {
        let script = "while [ $# -gt 0 ]; do [ \"$1\" = --digestfile ] && echo sha256:abc >\"$2\"; shift; done";
        let case = Case::new(kind, script);
        assert_eq!(case.run().await.expect("built").digest.as_deref(), Some("sha256:abc"));
        let args = case.log("args");
        let lines: Vec<_> = args.lines().collect();
        assert!(lines[0].starts_with(&format!("{name} build --format docker --layers --isolation chroot --authfile ")));
        assert!(lines[0].contains("--ignorefile /app/image/.dockerignore"), "{args}");
        assert!(lines[1].starts_with(&format!("{name} push --format v2s2 --authfile ")), "{args}");
        assert_eq!(lines[2], format!("{name} rmi {HOST}/app:build-1"));
        assert!(!args.contains("tls-verify"), "{args}");
    }
}

#[tokio::test]
async fn plain_http_on_loopback_only() {
    for (kind, flag) in [(ToolKind::Buildx, ",registry.insecure=true"), (ToolKind::Buildah, "--tls-verify=false")] {
        let mut case = Case::new(kind, "");
        case.logins.endpoint = "http://127.0.0.1:5055".into();
        case.run_as("127.0.0.1:5055/app:build-1").await.expect("built");
        assert!(case.log("args").contains(flag));
    }
    let mut case = Case::new(ToolKind::Buildah, "");
    case.logins.endpoint = "http://registry.example".into();
    let error = case.run_as("registry.example/app:build-1").await.expect_err("refused");
    assert!(error.to_string().contains("plain http"), "{error}");
    let error = case.run().await.expect_err("refused");
    assert!(error.to_string().contains("only sent to the registry that it is for"), "{error}");
    assert_eq!(case.log("args"), "");
    for (host, expected) in
        [("localhost:1", true), ("[::1]:80", true), ("127.8.9.1", true), ("127.evil.example", false), ("::1", false)]
    {
        assert_eq!(is_loopback(host), expected, "{host}");
    }
}

#[tokio::test]
async fn a_refused_push_gets_one_new_login() {
    let script = "case \"$2\" in push) if [ -e \"$LOG/once\" ]; then exit 0; fi; touch \"$LOG/once\"; \
                  echo 'denied: Your authorization token has expired. Reauthenticate and try again.' >&2; exit 1;; esac";
    let case = Case::new(ToolKind::Docker, script);
    case.run().await.expect("built");
    assert_eq!(case.logins.handed_out.load(Ordering::SeqCst), 2);
    let args = case.log("args");
    assert_eq!((count(&args, "docker build"), count(&args, "docker push")), (1, 2));
    let config = case.log("config");
    let logins: std::collections::BTreeSet<_> = config.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(logins.len(), 2, "the second login was not used");

    let case = Case::new(ToolKind::Buildx, "echo 'unexpected status: 401 Unauthorized' >&2; exit 1");
    let error = case.run().await.expect_err("refused");
    assert_eq!((error.kind(), case.logins.handed_out.load(Ordering::SeqCst)), (Kind::Access, 2));
    assert!(error.hint().is_some_and(|hint| hint.contains("ecr:PutImage")));
    assert_eq!(count(&case.log("args"), "buildx build"), 2);
}

#[tokio::test]
async fn a_failed_build_shows_its_last_lines_and_is_not_pushed() {
    let script = "case \"$2\" in build) i=0; while [ $i -lt 50 ]; do echo \"step $i\"; i=$((i+1)); done; exit 7;; esac";
    let case = Case::new(ToolKind::Buildah, script);
    let error = case.run().await.expect_err("failed");
    let text = error.to_string();
    assert!(text.contains("exit code 7") && text.contains("step 49") && text.contains("step 20\n"), "{text}");
    assert!(!text.contains("step 19\n"), "{text}");
    let args = case.log("args");
    assert_eq!((count(&args, " push "), count(&args, " rmi ")), (0, 1), "{args}");
    assert_eq!(case.logins.handed_out.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_full_disk_is_recognised() {
    let script = "case \"$2\" in build) echo 'write /var/tmp/x: no space left on device' >&2; exit 1;; esac";
    let error = Case::new(ToolKind::Podman, script).run().await.expect_err("failed");
    assert!(error.hint().is_some_and(|hint| hint.contains("disk is full") && hint.contains("podman system prune")));
}

#[tokio::test]
async fn cancelling_and_dropping_leave_no_credentials() {
    let case = Case::new(ToolKind::Buildah, "sleep 60");
    let stop = case.stop.clone();
    let (result, ()) = tokio::join!(case.run(), async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        stop.send_replace(true);
    });
    assert_eq!(result.expect_err("cancelled").kind(), Kind::Interrupted);

    let case = Case::new(ToolKind::Buildah, "sleep 60");
    let dropped = tokio::time::timeout(std::time::Duration::from_millis(300), case.run()).await;
    assert!(dropped.is_err());
    assert!(!case.log("config").is_empty(), "the tool was not started yet");
    assert!(is_empty(case.parent.path()), "the credentials stay");
}

#[tokio::test]
async fn a_tool_that_vanished_says_so() {
    let case = Case::new(ToolKind::Buildah, "");
    fs::remove_file(case.script.dir.path().join("tool")).expect("removed");
    let error = case.run().await.expect_err("nothing to run");
    assert!(error.to_string().starts_with("cannot start "), "{error}");
}

#[test]
fn build_tags_are_unique() {
    let (a, b) = (build_reference("host/app"), build_reference("host/app"));
    assert!(a.starts_with("host/app:build-") && a != b, "{a} {b}");
}
