//! A credential directory of our own for one build: nothing is written into the user's, nothing is passed in
//! arguments or variables, and it disappears when dropped.
//!
//! `DOCKER_CONFIG` replaces the whole directory, so what the user has there beside credentials must be brought along:
//! plugins (buildx is one), contexts, builders, proxies, and the logins that base images need.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::leftovers;
use crate::cloud::RegistryLogin;
use crate::error::{Error, Result};

/// Prefix of the directories; the process id follows.
const PREFIX: &str = "comfy-deploy-login-";

/// What the user has set up for container tools.
#[derive(Debug, Clone, Default)]
pub(super) struct UserSetup {
    /// `$DOCKER_CONFIG` or `~/.docker`, if it exists.
    pub(super) docker_dir: Option<PathBuf>,
    /// More files with `auths`: podman's and buildah's. The first that knows a host wins.
    pub(super) auth_files: Vec<PathBuf>,
    /// `BUILDX_CONFIG` is set.
    pub(super) buildx_config: bool,
    /// `DOCKER_HOST` or `DOCKER_CONTEXT` is set.
    pub(super) engine_chosen: bool,
}

impl UserSetup {
    /// From the environment of this process.
    pub(super) fn here() -> Self {
        let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = var("HOME").map(PathBuf::from);
        let docker = var("DOCKER_CONFIG").map(PathBuf::from).or_else(|| home.as_ref().map(|home| home.join(".docker")));
        let mut auth_files = Vec::new();
        if let Some(file) = var("REGISTRY_AUTH_FILE") {
            auth_files.push(file.into());
        }
        if let Some(dir) = var("XDG_RUNTIME_DIR") {
            auth_files.push(PathBuf::from(dir).join("containers/auth.json"));
        }
        auth_files.push(format!("/run/containers/{}/auth.json", rustix::process::getuid().as_raw()).into());
        UserSetup {
            docker_dir: docker.filter(|dir| dir.is_dir()),
            auth_files,
            buildx_config: var("BUILDX_CONFIG").is_some(),
            engine_chosen: var("DOCKER_HOST").is_some() || var("DOCKER_CONTEXT").is_some(),
        }
    }
}

/// The directory. `config.json` in it is a docker config and a containers auth file at once.
#[derive(Debug)]
pub(super) struct Credentials {
    dir: PathBuf,
    env: BTreeMap<String, OsString>,
    user: UserSetup,
}

impl Credentials {
    /// Makes the directory below `parent` (the system's temporary directory), readable by this user alone.
    pub(super) fn create(parent: &Path, user: UserSetup) -> Result<Self> {
        sweep(parent);
        let name = format!("{PREFIX}{}-{:016x}", std::process::id(), rand::random::<u64>());
        let dir = parent.join(name);
        fs::DirBuilder::new().mode(0o700).create(&dir).map_err(|cause| {
            Error::io("create", &dir, &cause)
                .why("the registry's login is kept there while the image is built and pushed")
                .next("make room there, or set XDG_RUNTIME_DIR or TMPDIR to a directory that can be written to")
        })?;
        let mut env = BTreeMap::from([("DOCKER_CONFIG".to_owned(), dir.clone().into_os_string())]);
        // From here on `this` removes the directory whatever happens.
        leftovers::begin_login(&dir);
        let mut this = Credentials { dir, env: BTreeMap::new(), user };
        if let Some(docker) = &this.user.docker_dir {
            for name in ["cli-plugins", "contexts", "buildx"] {
                let original = docker.join(name);
                if original.is_dir() {
                    let link = this.dir.join(name);
                    let original = original.canonicalize().unwrap_or(original);
                    symlink(original, &link).map_err(|cause| Error::io("create", &link, &cause))?;
                }
            }
            if !this.user.buildx_config {
                env.insert("BUILDX_CONFIG".into(), docker.join("buildx").into_os_string());
            }
            if !this.user.engine_chosen
                && let Some(Value::String(context)) = read_json(&docker.join("config.json")).remove("currentContext")
                && context != "default"
            {
                env.insert("DOCKER_CONTEXT".into(), context.into());
            }
        }
        this.env = env;
        Ok(this)
    }

    /// Writes (again) the login for `host`, readable by this user alone.
    pub(super) fn write(&self, host: &str, login: &RegistryLogin) -> Result<()> {
        let path = self.auth_file();
        let text = self.config(host, login).to_string();
        let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|cause| Error::io("write", &path, &cause))
    }

    /// The variables that point the tools here.
    pub(super) fn env(&self) -> &BTreeMap<String, OsString> {
        &self.env
    }

    /// `--authfile` of podman and buildah.
    pub(super) fn auth_file(&self) -> PathBuf {
        self.dir.join("config.json")
    }

    /// A file that goes away with the directory.
    pub(super) fn scratch(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Our login, and the user's for other hosts. A credential store is turned into a helper per host: for a store
    /// the tools would not look into our file at all.
    fn config(&self, host: &str, login: &RegistryLogin) -> Value {
        let mut auths = Map::new();
        let mut helpers = Map::new();
        let mut config = Map::new();
        let mut sources = Vec::new();
        if let Some(docker) = &self.user.docker_dir {
            sources.push(docker.join("config.json"));
        }
        sources.extend(self.user.auth_files.iter().cloned());
        for source in sources {
            let mut theirs = read_json(&source);
            let store = theirs.remove("credsStore");
            if let Some(Value::Object(map)) = theirs.remove("credHelpers") {
                for (name, helper) in map {
                    helpers.entry(name).or_insert(helper);
                }
            }
            if let Some(Value::Object(map)) = theirs.remove("auths") {
                for (name, auth) in map {
                    match &store {
                        Some(store @ Value::String(_)) => {
                            helpers.entry(name).or_insert_with(|| store.clone());
                        }
                        _ => {
                            auths.entry(name).or_insert(auth);
                        }
                    }
                }
            }
            if let Some(proxies) = theirs.remove("proxies") {
                config.entry("proxies").or_insert(proxies);
            }
        }
        // Also under https://: two entries for one host are how stale tokens win.
        let ours = |name: &String| {
            let name = name.strip_prefix("https://").or_else(|| name.strip_prefix("http://")).unwrap_or(name);
            name.split('/').next() == Some(host)
        };
        auths.retain(|name, _| !ours(name));
        helpers.retain(|name, _| !ours(name));
        let secret = STANDARD.encode(format!("{}:{}", login.user, login.password));
        auths.insert(host.to_owned(), json!({ "auth": secret }));
        config.insert("auths".into(), auths.into());
        if !helpers.is_empty() {
            config.insert("credHelpers".into(), helpers.into());
        }
        config.into()
    }
}

impl Drop for Credentials {
    fn drop(&mut self) {
        leftovers::end_login(&self.dir);
        // `remove_dir_all` removes links, not what they point to.
        if let Err(cause) = fs::remove_dir_all(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %cause, "cannot remove the credential directory");
        }
    }
}

/// Removes what runs that were killed with SIGKILL left behind.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|rest| rest.split('-').next());
        let Some(pid) = pid.and_then(|pid| pid.parse().ok()).and_then(rustix::process::Pid::from_raw) else { continue };
        // Only "no such process" is proof; a directory of another user is not ours to remove, and fails.
        if rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A JSON object, or nothing: a file of the user's that cannot be read is as good as none.
fn read_json(path: &Path) -> Map<String, Value> {
    match fs::read(path).map(|bytes| serde_json::from_slice(&bytes)) {
        Ok(Ok(Value::Object(map))) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

    fn login(password: &str) -> RegistryLogin {
        RegistryLogin { endpoint: format!("https://{HOST}"), user: "AWS".into(), password: password.into() }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("exists").permissions().mode() & 0o777
    }

    #[test]
    fn private_and_gone_afterwards() {
        let parent = tempfile::tempdir().expect("temporary directory");
        let credentials = Credentials::create(parent.path(), UserSetup::default()).expect("created");
        credentials.write(HOST, &login("one")).expect("written");
        credentials.write(HOST, &login("two")).expect("written again");
        let file = credentials.auth_file();
        assert_eq!((mode(&credentials.dir), mode(&file)), (0o700, 0o600));
        let config = Value::Object(read_json(&file));
        assert_eq!(config, json!({"auths": {HOST: {"auth": STANDARD.encode("AWS:two")}}}));
        assert_eq!(credentials.env()["DOCKER_CONFIG"], credentials.dir.clone().into_os_string());
        drop(credentials);
        assert_eq!(fs::read_dir(parent.path()).expect("readable").count(), 0);
    }

    #[test]
    fn gone_after_a_panic() {
        let parent = tempfile::tempdir().expect("temporary directory");
        let result = std::panic::catch_unwind(|| {
            let _credentials = Credentials::create(parent.path(), UserSetup::default()).expect("created");
            panic!("on purpose");
        });
        assert!(result.is_err());
        assert_eq!(fs::read_dir(parent.path()).expect("readable").count(), 0);
    }

    #[test]
    fn leftovers_of_killed_runs_are_swept() {
        let parent = tempfile::tempdir().expect("temporary directory");
        let mut child = std::process::Command::new("true").spawn().expect("runs");
        let dead = parent.path().join(format!("{PREFIX}{}-0", child.id()));
        child.wait().expect("ends");
        let alive = parent.path().join(format!("{PREFIX}{}-0", std::process::id()));
        let other = parent.path().join("something-else");
        for dir in [&dead, &alive, &other] {
            fs::create_dir(dir).expect("mkdir");
        }
        drop(Credentials::create(parent.path(), UserSetup::default()).expect("created"));
        assert_eq!((dead.exists(), alive.exists(), other.exists()), (false, true, true));
    }

    #[test]
    fn what_the_user_has_is_brought_along() {
        let parent = tempfile::tempdir().expect("temporary directory");
        let docker = tempfile::tempdir().expect("temporary directory");
        fs::create_dir(docker.path().join("cli-plugins")).expect("mkdir");
        fs::write(docker.path().join("cli-plugins/docker-buildx"), "").expect("file");
        let theirs = json!({
            "auths": {"https://index.docker.io/v1/": {}, format!("https://{HOST}"): {"auth": "stale"}},
            "credsStore": "desktop",
            "credHelpers": {HOST: "ecr-login", "gcr.io": "gcloud"},
            "proxies": {"default": {"httpProxy": "http://proxy:3128"}},
            "currentContext": "colima",
            "HttpHeaders": {"X": "y"},
        });
        fs::write(docker.path().join("config.json"), theirs.to_string()).expect("file");
        let podman = docker.path().join("auth.json");
        fs::write(&podman, json!({"auths": {"quay.io": {"auth": "q"}}}).to_string()).expect("file");
        let user = UserSetup {
            docker_dir: Some(docker.path().to_owned()),
            auth_files: vec![podman, "/nonexistent".into()],
            ..UserSetup::default()
        };
        let credentials = Credentials::create(parent.path(), user.clone()).expect("created");
        credentials.write(HOST, &login("p")).expect("written");
        assert_eq!(
            Value::Object(read_json(&credentials.auth_file())),
            json!({
                "proxies": {"default": {"httpProxy": "http://proxy:3128"}},
                "auths": {"quay.io": {"auth": "q"}, HOST: {"auth": STANDARD.encode("AWS:p")}},
                "credHelpers": {"gcr.io": "gcloud", "https://index.docker.io/v1/": "desktop"},
            })
        );
        assert!(credentials.scratch("cli-plugins/docker-buildx").exists());
        assert_eq!(credentials.env()["DOCKER_CONTEXT"], "colima");
        assert_eq!(credentials.env()["BUILDX_CONFIG"], docker.path().join("buildx").into_os_string());
        drop(credentials);
        assert!(docker.path().join("cli-plugins/docker-buildx").exists(), "the user's own was removed");

        let chosen = UserSetup { engine_chosen: true, buildx_config: true, ..user };
        let credentials = Credentials::create(parent.path(), chosen).expect("created");
        assert_eq!(credentials.env().keys().collect::<Vec<_>>(), ["DOCKER_CONFIG"]);
    }
}
