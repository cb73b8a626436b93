//! Starting and stopping, faults, and what was seen.

use std::{
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::{
    mpsc::{UnboundedReceiver, unbounded_channel},
    watch,
};

use crate::{
    execute,
    files::Folders,
    http,
    life::{Current, Faults, Life, Message, Work, lock},
    nodes::Registry,
    options::Options,
    seen::{Counts, Seen, SeenPrompt},
    ws,
};

/// Why a stand-in did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It could not listen. ComfyUI ends with this error, too, when the port is taken.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// A folder or a thread could not be made.
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
}

/// A running stand-in for ComfyUI.
///
/// One thread serves and one works on the prompts, as in ComfyUI. Dropping it is a [`StandIn::kill`].
pub struct StandIn {
    options: Options,
    folders: Folders,
    owned: Vec<PathBuf>,
    address: SocketAddr,
    faults: Arc<Faults>,
    seen: Arc<Seen>,
    running: Mutex<Option<Running>>,
}

struct Running {
    life: Arc<Life>,
    server: JoinHandle<()>,
    worker: JoinHandle<()>,
}

/// How a life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Clean,
    Abrupt,
}

impl StandIn {
    /// Starts one. Returns when it listens.
    ///
    /// # Errors
    /// When an address is taken or a folder cannot be made.
    pub fn start(options: Options) -> Result<Self, StartError> {
        let mut owned = Vec::new();
        let mut folder = |given: &Option<PathBuf>, name: &str| -> io::Result<PathBuf> {
            let path = match given {
                Some(path) => std::path::absolute(path)?,
                None => {
                    let path = std::env::temp_dir().join(format!("comfyui-stand-in-{name}-{}", uuid::Uuid::new_v4()));
                    owned.push(path.clone());
                    path
                }
            };
            std::fs::create_dir_all(&path)?;
            Ok(path)
        };
        let folders = Folders {
            output: folder(&options.output, "output")?,
            temp: folder(&options.temp, "temp")?,
            input: folder(&options.input, "input")?,
        };
        let address = SocketAddr::from(([127, 0, 0, 1], options.port));
        let mut stand_in = StandIn {
            options,
            folders,
            owned,
            address,
            faults: Arc::default(),
            seen: Arc::default(),
            running: Mutex::new(None),
        };
        stand_in.delay_history(stand_in.options.history);
        let (running, address) = stand_in.live(stand_in.options.port)?;
        stand_in.address = address;
        stand_in.running = Mutex::new(Some(running));
        Ok(stand_in)
    }

    fn live(&self, port: u16) -> Result<(Running, SocketAddr), StartError> {
        // What an earlier process left.
        empty_folder(&self.folders.temp)?;
        std::thread::sleep(self.options.startup);
        let mut listeners: Vec<TcpListener> = Vec::new();
        let mut port = port;
        for host in &self.options.listen {
            let address = format!("{host}:{port}");
            let failed = |source| StartError::Listen { address: address.clone(), source };
            let place = (host.as_str(), port).to_socket_addrs().map_err(failed)?.next();
            let place = place.ok_or_else(|| failed(io::ErrorKind::AddrNotAvailable.into()))?;
            let listener = TcpListener::bind(place).map_err(failed)?;
            listener.set_nonblocking(true)?;
            port = listener.local_addr()?.port();
            listeners.push(listener);
        }
        let address = match listeners.first() {
            Some(listener) => listener.local_addr()?,
            None => self.address,
        };
        let (messages, inbox) = unbounded_channel();
        let (end, ending) = unbounded_channel();
        let models = self.options.models.clone().pictures(&self.folders.input);
        let life = Arc::new(Life {
            registry: Registry::new(models, self.options.custom_nodes),
            options: self.options.clone(),
            folders: self.folders.clone(),
            seed: self.options.hash_seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0),
            work: Mutex::new(Work::default()),
            wake: Condvar::new(),
            messages,
            sockets: Mutex::default(),
            current: Mutex::new(Current::default()),
            interrupt: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            number: AtomicU64::new(0),
            faults: self.faults.clone(),
            seen: self.seen.clone(),
            end,
            nudge: tokio::sync::Notify::new(),
            cut: watch::Sender::new(0),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let serving = life.clone();
        let server = std::thread::Builder::new().name("comfyui-server".into()).spawn(move || {
            runtime.block_on(serve(serving, listeners, inbox, ending));
            // Drops every connection at once: the peer sees the end of the stream, and no close frame.
            runtime.shutdown_background();
        })?;
        let working = life.clone();
        let worker =
            std::thread::Builder::new().name("comfyui-worker".into()).spawn(move || execute::work(&working))?;
        Ok((Running { life, server, worker }, address))
    }

    fn end(&self, how: End) {
        let Some(running) = lock(&self.running).take() else { return };
        running.life.dead.store(true, Ordering::SeqCst);
        let _ = running.life.end.send(how == End::Clean);
        self.faults.freeze(false);
        // Under the lock, or the worker could look before and sleep after.
        drop(lock(&running.life.work));
        running.life.wake.notify_all();
        // A panic in one of them was reported when it happened.
        let _ = running.server.join();
        let _ = running.worker.join();
        if how == End::Clean {
            let _ = std::fs::remove_dir_all(&self.folders.temp);
        }
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// The port that it listens on, also after a restart.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The folder that saving nodes write to.
    pub fn output_directory(&self) -> &Path {
        &self.folders.output
    }

    /// The folder of previews.
    pub fn temp_directory(&self) -> &Path {
        &self.folders.temp
    }

    /// The folder that LoadImage reads.
    pub fn input_directory(&self) -> &Path {
        &self.folders.input
    }

    /// Ends it as SIGINT does: connections are dropped, the running prompt is lost, `temp` is removed. Does nothing when
    /// it is down.
    pub fn stop(&self) {
        std::thread::sleep(self.options.shutdown);
        self.end(End::Clean);
    }

    /// Ends it as a crash does: connections are dropped without a close frame, everything in memory is lost, files stay.
    /// Does nothing when it is down.
    pub fn kill(&self) {
        self.end(End::Abrupt);
    }

    /// Starts it again on the same port, after killing it if it is up. Queue, history and caches are empty then; faults
    /// and counts are kept.
    ///
    /// # Errors
    /// When the port was taken in between.
    pub fn restart(&self) -> Result<(), StartError> {
        self.kill();
        let (running, _) = self.live(self.port())?;
        *lock(&self.running) = Some(running);
        Ok(())
    }

    /// Whether it is up (frozen is up).
    pub fn is_up(&self) -> bool {
        lock(&self.running).as_ref().is_some_and(|running| !running.server.is_finished())
    }

    /// Stops both threads where they are, as SIGSTOP does: connections are still taken by the operating system, but
    /// nothing is answered and nothing goes on.
    pub fn freeze(&self) {
        self.faults.freeze(true);
        if let Some(running) = lock(&self.running).as_ref() {
            running.life.nudge.notify_one();
            while !self.faults.parked() && !running.server.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Lets it go on after [`StandIn::freeze`].
    pub fn thaw(&self) {
        self.faults.freeze(false);
    }

    /// Drops every WebSocket without a close frame. Prompts go on.
    pub fn cut_sockets(&self) {
        if let Some(running) = lock(&self.running).as_ref() {
            running.life.cut.send_modify(|cuts| *cuts += 1);
        }
    }

    /// Lets every prompt take this long from `execution_success` to its history entry (measured on ComfyUI: 784 ms for
    /// the first prompt after a start, less than 2 ms later). Zero ends that.
    pub fn delay_history(&self, time: Duration) {
        *lock(&self.faults.history_delay) = time;
    }

    /// Deletes all files in the output and temp folders, as a clean-up beside ComfyUI does. Caches still name them.
    ///
    /// # Errors
    /// When one could not be deleted.
    pub fn lose_output_files(&self) -> io::Result<()> {
        empty_folder(&self.folders.output)?;
        empty_folder(&self.folders.temp)
    }

    /// How often what happened.
    pub fn counts(&self) -> Counts {
        self.seen.counts()
    }

    /// The prompts that came in, the last 1,000 of them.
    pub fn prompts(&self) -> Vec<SeenPrompt> {
        self.seen.prompts()
    }

    /// The ids of clients that opened a WebSocket, the last 1,000 of them.
    pub fn clients(&self) -> Vec<String> {
        self.seen.clients()
    }

    /// The ids that were to be interrupted; `None` is an interrupt of whatever runs.
    pub fn interrupts(&self) -> Vec<Option<String>> {
        self.seen.interrupts()
    }

    /// The ids that were to be taken out of the queue.
    pub fn queue_deletes(&self) -> Vec<String> {
        self.seen.queue_deletes()
    }

    /// The ids that were to be taken out of the history.
    pub fn history_deletes(&self) -> Vec<String> {
        self.seen.history_deletes()
    }

    /// The queries of `GET /view`, the last 1,000 of them.
    pub fn views(&self) -> Vec<String> {
        self.seen.views()
    }

    /// Prompts that wait or run; 0 when it is down.
    pub fn remaining(&self) -> usize {
        lock(&self.running).as_ref().map_or(0, |running| lock(&running.life.work).queue.remaining())
    }

    /// Entries in the history; 0 when it is down.
    pub fn history_entries(&self) -> usize {
        lock(&self.running).as_ref().map_or(0, |running| lock(&running.life.work).queue.ended())
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.end(End::Abrupt);
        for folder in &self.owned {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

fn empty_folder(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(folder)
}

async fn serve(
    life: Arc<Life>,
    listeners: Vec<TcpListener>,
    inbox: UnboundedReceiver<Message>,
    mut ending: UnboundedReceiver<bool>,
) {
    let router = http::router(life.clone());
    tokio::spawn(ws::publish(life.clone(), inbox));
    for listener in listeners {
        let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
        let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
            // As aiohttp does; else each answer could wait for the acknowledgement of the one before.
            let _ = stream.set_nodelay(true);
        });
        let router = router.clone();
        tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
    }
    let barrier = async {
        loop {
            life.faults.park();
            life.nudge.notified().await;
        }
    };
    tokio::select! {
        _ = ending.recv() => {}
        () = barrier => {}
    }
}
