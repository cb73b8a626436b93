//! The instances of endpoints as processes: one container each, made and ended so that they follow the state.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::Request;
use http_body_util::Full;
use parking_lot::Mutex;
use rustix::process::Signal;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::artifact::{self, Source};
use super::wanted::{self, Key, Wanted};
use crate::container::{self, Containers, Image, NotStarted, Order, Place, Running};
use crate::process::worded;
use crate::world::{Shared, World, iso, now_ms};

/// Between SIGTERM and SIGKILL (AWS doc: Use your own inference code with hosting services).
const GRACE: Duration = Duration::from_secs(30);
/// How long instances may take to end when the sandbox does.
const LAST_GRACE: Duration = Duration::from_secs(5);
/// How long an answer to /ping may take (AWS doc: as above).
const PING: Duration = Duration::from_secs(2);
/// Between two pings, and between the end of a container and its next start.
const INTERVAL: Duration = Duration::from_millis(200);

/// How the instances of endpoints run.
#[derive(Debug, Clone)]
pub struct Serving {
    /// What runs the images that the sandbox's registry has.
    pub containers: Arc<Containers>,
    /// The comfy-serve binary, which stands for an image that nothing runs.
    pub comfy_serve: PathBuf,
    /// The ComfyUI behind that binary.
    pub comfyui: Comfyui,
    /// In the place of ContainerStartupHealthCheckTimeoutInSeconds, whose smallest value is longer than a test may take.
    pub startup: Option<Duration>,
    /// In the place of the 60 seconds of an invocation, for tests.
    pub invocation: Option<Duration>,
}

/// Which ComfyUI an instance has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comfyui {
    /// One that runs already; all instances share it.
    Url(String),
    /// One for each instance: this command, with `--listen 127.0.0.1 --port PORT` and, for a model with data,
    /// `--extra-model-paths-config FILE` behind it.
    Command(Vec<String>),
}

/// Where an instance is.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// Not yet answering /ping.
    Starting,
    /// Serving here.
    Ready(Place),
    /// Never to serve, with the reason that DescribeEndpoint shows.
    Failed(String),
}

#[derive(Debug)]
struct Instance {
    phase: watch::Receiver<Phase>,
    /// What it runs, in words; empty before it runs anything.
    runs: watch::Receiver<String>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    /// Requests that it works on.
    busy: Arc<()>,
}

/// All instances. Dropping it kills them.
#[derive(Debug, Default)]
pub struct Fleet {
    settings: std::sync::OnceLock<Serving>,
    running: Mutex<HashMap<Key, Instance>>,
    ending: Mutex<Vec<JoinHandle<()>>>,
    turn: std::sync::atomic::AtomicUsize,
    models: artifact::Users,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.abort();
    }
}

/// A free instance, taken for one request.
#[derive(Debug)]
pub(super) struct Taken {
    pub place: Place,
    _busy: Arc<()>,
}

impl Fleet {
    /// Makes endpoints run. Before the first request.
    pub(crate) fn serve(&self, serving: Serving) {
        let _ = self.settings.set(serving);
    }

    /// How endpoints run; none where they are simulated.
    pub fn serving(&self) -> Option<&Serving> {
        self.settings.get()
    }

    /// Starts what is missing, ends what is not wanted any more, and tells the state how its deployments go.
    pub(crate) fn follow(shared: &Arc<Shared>, world: &mut World) {
        let fleet = &shared.live.fleet;
        let Some(serving) = fleet.settings.get() else { return };
        let wanted = wanted::list(world);
        let mut running = fleet.running.lock();
        let gone: Vec<Key> = running.keys().filter(|k| !wanted.contains_key(k)).cloned().collect();
        for key in gone {
            if let Some(instance) = running.remove(&key) {
                let _ = instance.stop.send(true);
                let mut ending = fleet.ending.lock();
                ending.retain(|task| !task.is_finished());
                ending.push(instance.task);
            }
        }
        for (key, wanted) in &wanted {
            if running.contains_key(key) {
                continue;
            }
            let (told, phase) = watch::channel(Phase::Starting);
            let (runs_told, runs) = watch::channel(String::new());
            let (stop, stopped) = watch::channel(false);
            let host = Host {
                shared: shared.clone(),
                serving: serving.clone(),
                key: key.clone(),
                wanted: wanted.clone(),
                told,
                runs: runs_told,
                stopped,
            };
            let task = tokio::spawn(host.live());
            running.insert(key.clone(), Instance { phase, runs, stop, task, busy: Arc::new(()) });
        }
        let phases = running.iter().map(|(key, i)| (key.clone(), i.phase.borrow().clone())).collect();
        if wanted::tell(world, &phases) {
            shared.touch();
        }
    }

    /// All instances, and what each of them runs.
    pub(crate) fn describe(&self) -> serde_json::Value {
        let running = self.running.lock();
        let mut all: Vec<_> = running.iter().collect();
        all.sort_by_key(|(k, _)| (&k.region, &k.endpoint, &k.variant, k.since, k.index));
        let shown = all.iter().map(|(k, i)| {
            json!({"region": k.region, "endpoint": k.endpoint, "variant": k.variant, "runs": *i.runs.borrow(),
                "serves": matches!(*i.phase.borrow(), Phase::Ready(_))})
        });
        shown.collect()
    }

    /// An instance of a variant for one request: in turn, or the one with the least to do.
    pub(super) fn take(&self, region: &str, endpoint: &str, variant: &str, least: bool) -> Option<Taken> {
        let running = self.running.lock();
        let mut ready: Vec<(&Key, &Instance, Place)> = running
            .iter()
            .filter(|(k, _)| k.region == region && k.endpoint == endpoint && k.variant == variant)
            .filter_map(|(k, i)| match &*i.phase.borrow() {
                Phase::Ready(place) => Some((k, i, place.clone())),
                _ => None,
            })
            .collect();
        // While two fleets run, the older one serves.
        let oldest = ready.iter().map(|(k, ..)| k.since).min()?;
        ready.retain(|(k, ..)| k.since == oldest);
        ready.sort_by_key(|(k, ..)| k.index);
        let turn = self.turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % ready.len();
        ready.rotate_left(turn);
        let chosen =
            if least { ready.iter().min_by_key(|(_, i, _)| Arc::strong_count(&i.busy)) } else { ready.first() };
        chosen.map(|(_, instance, place)| Taken { place: place.clone(), _busy: instance.busy.clone() })
    }

    /// Ends everything in good order, and by force when that takes too long.
    pub(crate) async fn end(&self) {
        let tasks: Vec<JoinHandle<()>> = {
            let mut running = self.running.lock();
            let tasks = running.drain().map(|(_, instance)| {
                let _ = instance.stop.send(true);
                instance.task
            });
            tasks.chain(self.ending.lock().drain(..)).collect()
        };
        let aborts: Vec<_> = tasks.iter().map(JoinHandle::abort_handle).collect();
        let _ = tokio::time::timeout(LAST_GRACE, futures::future::join_all(tasks)).await;
        aborts.iter().for_each(tokio::task::AbortHandle::abort);
    }

    /// Kills everything.
    pub(crate) fn abort(&self) {
        self.running.lock().drain().for_each(|(_, instance)| instance.task.abort());
        self.ending.lock().drain(..).for_each(|task| task.abort());
    }
}

/// Removes what a sandbox that was killed left behind. For the start only.
pub fn sweep(world: &World) {
    if !world.dir.as_os_str().is_empty() {
        artifact::clear(&models(&world.dir));
        artifact::clear(&world.dir.join("instances"));
    }
}

fn models(state: &Path) -> PathBuf {
    state.join("models")
}

/// What keeps one instance alive.
struct Host {
    shared: Arc<Shared>,
    serving: Serving,
    key: Key,
    wanted: Wanted,
    told: watch::Sender<Phase>,
    runs: watch::Sender<String>,
    stopped: watch::Receiver<bool>,
}

impl Host {
    async fn live(self) {
        let Some(source) = self.wanted.source.clone() else { return self.run(None).await };
        let _use = self.shared.live.fleet.models.hold(models(&self.shared.dir).join(source.digest()));
        match self.prepare(source).await {
            Ok(model) => self.run(Some(model)).await,
            Err(reason) => drop(self.told.send_replace(Phase::Failed(reason))),
        }
    }

    async fn prepare(&self, source: Source) -> Result<PathBuf, String> {
        let (models, blobs) = (models(&self.shared.dir), crate::s3::directory(&self.shared.dir));
        let prepared = tokio::task::spawn_blocking(move || artifact::prepare(&models, &blobs, &source)).await;
        match prepared {
            Ok(Ok(dir)) => Ok(dir),
            Ok(Err(refusal)) => Err(refusal.0),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Runs the container until it is not wanted any more, again and again when it ends by itself, as the repeated first
    /// lines in the logs of failing endpoints show. What SageMaker does about pings that fail later is not documented:
    /// nothing is done here.
    async fn run(&self, model: Option<PathBuf>) {
        let limit = self.serving.startup.unwrap_or(self.wanted.startup);
        let mut stopped = self.stopped.clone();
        let mut deadline = Some(Instant::now() + limit);
        let dir = self.shared.dir.join("instances").join(&self.wanted.instance);
        loop {
            let started = tokio::select! {
                started = self.start(&dir, model.as_deref()) => started,
                () = asked(&mut stopped) => break,
            };
            let running = match started {
                Ok(running) => Some(running),
                Err(NotStarted::Never(why)) => {
                    self.log(format!("{} the container cannot start: {why}", iso(now_ms())));
                    // aws-samples/comfyui-on-amazon-sagemaker#2.
                    self.fail(format!(
                        "CannotStartContainerError. Please ensure the model container for variant {} starts correctly when \
                         invoked with 'docker run <image> serve'",
                        self.key.variant
                    ));
                    break;
                }
                Err(NotStarted::Now(error)) => {
                    self.log(format!("{} the container does not start: {error}", iso(now_ms())));
                    None
                }
            };
            let ended = tokio::select! {
                ended = self.watch(running.as_ref(), &mut deadline) => ended,
                () = asked(&mut stopped) => {
                    if let Some(running) = running {
                        running.stop(GRACE).await;
                    }
                    break;
                }
            };
            if matches!(ended, End::TooLate) {
                if let Some(running) = running {
                    running.stop(GRACE).await;
                }
                self.fail(format!(
                    "The primary container for production variant {} did not pass the ping health check. Please check \
                     CloudWatch logs for this endpoint.",
                    self.key.variant
                ));
                break;
            }
            self.told.send_replace(Phase::Starting);
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = asked(&mut stopped) => break,
            }
        }
        let _ = tokio::fs::remove_dir_all(&dir).await;
    }

    fn fail(&self, reason: String) {
        self.told.send_replace(Phase::Failed(reason));
    }

    /// Watches one run of the container. `deadline` is there until the first good ping.
    async fn watch(&self, running: Option<&Running>, deadline: &mut Option<Instant>) -> End {
        let mut ready = false;
        loop {
            if deadline.is_some_and(|d| Instant::now() >= d) {
                return End::TooLate;
            }
            let Some(running) = running else { return End::Again };
            if let Some(status) = running.ended() {
                running.drained().await;
                self.log(format!("{} the container ended: {}", iso(now_ms()), worded(status)));
                return End::Again;
            }
            if let Some(place) = running.place().filter(|_| !ready)
                && ping(place).await
            {
                ready = true;
                *deadline = None;
                self.told.send_replace(Phase::Ready(place.clone()));
            }
            tokio::select! {
                _ = running.wait() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Starts the image where an engine works and the registry has it, else comfy-serve for it.
    async fn start(&self, dir: &Path, model: Option<&Path>) -> Result<Running, NotStarted> {
        tokio::fs::create_dir_all(dir).await?;
        let Some(engine) = self.serving.containers.engine().await else { return self.start_native(dir, model).await };
        let image = Image::find(&self.shared.world.lock(), &self.key.region, &self.wanted.image);
        let Some(image) = image.filter(|_| engine.executes(&self.wanted.instance_type)) else {
            return self.start_native(dir, model).await;
        };
        // It is started, and ends at once.
        image.check_machine(&self.shared.dir, &self.wanted.instance_type)?;
        self.runs.send_replace(format!("{engine} runs {}", self.wanted.image));
        // The name of a run that ended may still be taken.
        let run = uuid::Uuid::new_v4().simple().to_string();
        let order = Order {
            image: &image,
            name: &format!("{}-{}", self.wanted.instance, &run[..8]),
            dir,
            state: &self.shared.dir,
            model,
            environment: &self.wanted.environment,
        };
        let (containers, spawner) = (&self.serving.containers, &self.shared.live.spawner);
        container::start(containers, &engine, spawner, &order, Box::new(self.logger())).await
    }

    async fn start_native(&self, dir: &Path, model: Option<&Path>) -> Result<Running, NotStarted> {
        tokio::fs::create_dir_all(dir.join("tmp")).await?;
        let address = free_port().await?;
        let mut command = Command::new(&self.serving.comfy_serve);
        command.current_dir(dir).env_clear();
        for name in ["PATH", "LANG", "LD_LIBRARY_PATH"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("HOME", dir).env("TMPDIR", dir.join("tmp")).envs(&self.wanted.environment);
        // What the container's own file system and port are in SageMaker.
        command.env("COMFY_SERVE_LISTEN", address.to_string());
        if let Some(model) = model {
            command.env("COMFY_SERVE_MODEL_DIR", model);
        }
        command.arg("serve");
        match &self.serving.comfyui {
            Comfyui::Url(url) => {
                command.arg("--no-spawn").env("COMFY_SERVE_COMFYUI_URL", url);
            }
            Comfyui::Command(words) => {
                let port = free_port().await?.port().to_string();
                command.env("COMFY_SERVE_COMFYUI_URL", format!("http://127.0.0.1:{port}"));
                command.arg("--").args(words).args(["--listen", "127.0.0.1", "--port", &port]);
                if let Some(model) = model {
                    let paths = dir.join("extra_model_paths.yaml");
                    tokio::fs::write(&paths, model_paths(model)).await?;
                    command.arg("--extra-model-paths-config").arg(paths);
                }
            }
        }
        self.runs.send_replace(format!("comfy-serve stands for {}", self.wanted.image));
        // SIGTERM, so that comfy-serve ends its ComfyUI, which is in a group of its own.
        let process = self.shared.live.spawner.start(command, Signal::TERM, Box::new(self.logger())).await?;
        Ok(Running::native(process, address))
    }

    fn logger(&self) -> impl FnMut(String) + Send + use<> {
        let (shared, region) = (self.shared.clone(), self.key.region.clone());
        let group = format!("/aws/sagemaker/Endpoints/{}", self.key.endpoint);
        let stream = format!("{}/{}", self.key.variant, self.wanted.instance);
        move |line| {
            crate::logs::append(&mut shared.world.lock(), &region, &group, &stream, now_ms(), &[line]);
            shared.touch();
        }
    }

    fn log(&self, line: String) {
        (self.logger())(line);
    }
}

/// How one run of a container ended.
enum End {
    /// To be started again.
    Again,
    /// It did not answer in time.
    TooLate,
}

/// The image's own list of model folders, for the directory that stands for /opt/ml/model.
fn model_paths(model: &Path) -> String {
    const IMAGE: &str = include_str!("../../../../image/extra_model_paths.yaml");
    // A path as YAML takes it, whatever is in it.
    let quoted = serde_json::Value::from(model.to_string_lossy()).to_string();
    IMAGE.replace("base_path: /opt/ml/model", &format!("base_path: {quoted}"))
}

/// Waits until the instance is to end.
async fn asked(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

async fn ping(to: &Place) -> bool {
    let request = Request::get("/ping").header("host", to.address().to_string()).body(Full::new(Bytes::new()));
    let Ok(request) = request else { return false };
    let answer = tokio::time::timeout(PING, crate::http::send(to.clone(), request, 1 << 20)).await;
    matches!(answer, Ok(Ok(response)) if response.status() == 200)
}

/// A port that was free a moment ago; a container that finds it taken ends, and is started with another one.
async fn free_port() -> std::io::Result<SocketAddr> {
    tokio::net::TcpListener::bind("127.0.0.1:0").await?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_model_folders_are_those_of_the_directory() {
        let text = model_paths(Path::new("/state/a \"b\": c"));
        let parsed: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        let folders = parsed.as_object().unwrap().values().next().unwrap();
        assert_eq!(folders["base_path"], "/state/a \"b\": c");
        assert!(folders["checkpoints"].is_string());
    }
}
