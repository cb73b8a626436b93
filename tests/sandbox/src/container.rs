//! Containers of images that the sandbox's registry has: what stands behind endpoints where an engine works.
//!
//! - `engine`: which engine works here, tried with an empty image.
//! - `image`: an image as the registry has it; `unpack` makes a file system of its layers.
//! - `docker`: docker and podman, which take the image from the sandbox and publish a port on loopback.
//! - `runc`: no engine at all: a bundle, a file system that goes away with the container, and a network with nothing but
//!   loopback, which `network` reaches into.
//!
//! All run an image as SageMaker does: `serve` in place of its CMD, the model's environment, /opt/ml/model read-only.

mod docker;
mod engine;
mod image;
mod network;
mod runc;
mod unpack;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::OnceCell;

pub use engine::{Choice, Engine};
pub use image::Image;
pub use network::Network;

use crate::process::{Process, Sink, Spawner};
use crate::world::World;

/// The port that SageMaker speaks to (AWS doc: Use your own inference code with hosting services).
const PORT: u16 = 8080;
/// What SageMaker gives a container in place of its CMD (AWS doc: as above).
const SERVE: &str = "serve";
/// Where a container finds its model (AWS doc: as above).
const MODEL: &str = "/opt/ml/model";

/// Where a server of this machine listens.
#[derive(Debug, Clone)]
pub enum Place {
    /// In this machine's own network.
    Here(SocketAddr),
    /// In a network of its own.
    Inside(Network, SocketAddr),
}

impl Place {
    /// As it goes into a Host header.
    pub fn address(&self) -> SocketAddr {
        match self {
            Place::Here(address) | Place::Inside(_, address) => *address,
        }
    }

    /// A connection to it.
    pub async fn connect(&self) -> io::Result<tokio::net::TcpStream> {
        match self {
            Place::Here(address) => tokio::net::TcpStream::connect(address).await,
            Place::Inside(network, address) => network.socket().await?.connect(*address).await,
        }
    }
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Place::Here(address)
    }
}

/// The engine, once it is known which one works.
#[derive(Debug, Default)]
pub struct Containers {
    choice: Choice,
    found: OnceCell<Option<Engine>>,
    /// Images are made one at a time: the instances of a fleet want the same one.
    making: tokio::sync::Mutex<()>,
}

impl Containers {
    /// With this choice; nothing is tried before it is asked for.
    pub fn new(choice: Choice) -> Self {
        Containers { choice, ..Containers::default() }
    }

    /// Whether one engine was chosen, and no other will do.
    pub fn chosen(&self) -> bool {
        !matches!(self.choice, Choice::Auto | Choice::None)
    }

    /// The engine that runs images; none where comfy-serve stands for them.
    pub async fn engine(&self) -> Option<Engine> {
        self.found.get_or_init(|| async { engine::find(self.choice).await.ok().flatten() }).await.clone()
    }

    /// The engine, or why the chosen one does not run images.
    pub async fn require(&self) -> Result<Option<Engine>, String> {
        let found = engine::find(self.choice).await?;
        Ok(self.found.get_or_init(|| async { found }).await.clone())
    }
}

/// One container to be started.
#[derive(Debug)]
pub struct Order<'a> {
    /// What it is made of.
    pub image: &'a Image,
    /// Its name, unique on this machine.
    pub name: &'a str,
    /// A directory for this container alone.
    pub dir: &'a Path,
    /// The sandbox's state directory.
    pub state: &'a Path,
    /// What lies at /opt/ml/model.
    pub model: Option<&'a Path>,
    /// The model's, over the image's.
    pub environment: &'a BTreeMap<String, String>,
}

/// Why a container does not run.
#[derive(Debug)]
pub enum NotStarted {
    /// `docker run IMAGE serve` cannot work with this image.
    Never(String),
    /// Another time it may.
    Now(io::Error),
}

impl From<io::Error> for NotStarted {
    fn from(error: io::Error) -> Self {
        NotStarted::Now(error)
    }
}

/// A container, or a process that stands for one. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    process: Process,
    place: Option<Place>,
    /// The container's first process, where that is no child of ours.
    first: Option<OwnedFd>,
    /// What ends by force what killing the process would leave.
    force: Option<Command>,
}

impl Running {
    /// A process that listens by itself.
    pub fn native(process: Process, address: SocketAddr) -> Self {
        Running { process, place: Some(address.into()), first: None, force: None }
    }

    /// Where it listens; none if it ended before anybody could tell.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// How it ended; none while it runs.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// Waits for its end.
    pub async fn wait(&self) -> ExitStatus {
        self.process.wait().await
    }

    /// Waits until what it wrote is in the log.
    pub async fn drained(&self) {
        self.process.drained(Duration::from_secs(1)).await;
    }

    /// Asks it to end, kills it when the time is over, and waits until what it wrote is in the log.
    pub async fn stop(mut self, grace: Duration) {
        self.process.signal(Signal::TERM);
        if tokio::time::timeout(grace, self.process.wait()).await.is_err() {
            self.kill();
            self.process.signal(Signal::KILL);
            self.process.wait().await;
        }
        self.drained().await;
    }
}

impl Running {
    /// Ends what is in the container. Waits for it: who asks may end next, and the container would stay.
    fn kill(&mut self) {
        if let Some(first) = &self.first {
            let _ = rustix::process::pidfd_send_signal(first, Signal::KILL);
        }
        if let Some(mut force) = self.force.take() {
            let _ = force.status();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.process.ended().is_none() {
            self.kill();
        }
    }
}

/// Starts a container with an engine. Both outputs go to `sink`.
pub async fn start(
    containers: &Containers,
    engine: &Engine,
    spawner: &Spawner,
    order: &Order<'_>,
    sink: Sink,
) -> Result<Running, NotStarted> {
    match engine {
        Engine::Docker(tool) => {
            let making = containers.making.lock().await;
            let name = docker::load(tool, order.image, order.state).await?;
            drop(making);
            docker::start(tool, &name, spawner, order, sink).await
        }
        Engine::Runc(program) => {
            let making = containers.making.lock().await;
            let root = unpacked(order).await?;
            drop(making);
            runc::start(program, &root, spawner, order, sink).await
        }
    }
}

/// The file system of an image, made once for all its containers.
async fn unpacked(order: &Order<'_>) -> io::Result<PathBuf> {
    let (image, target) = (order.image.clone(), images(order.state).join(order.image.name()));
    let blobs = crate::ecr::layer_dir(order.state);
    let work = tokio::task::spawn_blocking(move || unpack::image(&image, &blobs, &target).map(|()| target));
    work.await.map_err(io::Error::other)?
}

fn images(state: &Path) -> PathBuf {
    state.join("images")
}

/// Removes what a sandbox that was killed left behind, and images that are in no repository any more. For the start only.
pub fn sweep(world: &World) {
    if world.dir.as_os_str().is_empty() {
        return;
    }
    runc::sweep(&world.dir);
    let repositories = world.regions.values().flat_map(|r| r.ecr.repositories.values());
    let kept: Vec<String> = repositories.flat_map(|r| r.images.keys()).map(|d| image::name(d)).collect();
    for entry in std::fs::read_dir(images(&world.dir)).into_iter().flatten().flatten() {
        if !kept.iter().any(|name| entry.file_name() == name.as_str())
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(dir = %entry.path().display(), %error, "could not be removed");
        }
    }
}
