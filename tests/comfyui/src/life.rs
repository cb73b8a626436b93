//! One life of the server, from its start to its end: what the requests, the sockets and the worker share.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use indexmap::IndexMap;
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    files::Folders,
    nodes::Registry,
    options::Options,
    py::{Value, dict, dumps},
    queue::Queue,
    seen::Seen,
    ws::Socket,
};

/// What a message carries.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    /// JSON, as text.
    Text(String),
    /// A binary frame, with its event number in front.
    Binary(Vec<u8>),
}

/// A message on its way to one socket, or to all.
#[derive(Debug)]
pub(crate) struct Message {
    pub payload: Payload,
    pub to: Option<String>,
}

/// Whom the running prompt belongs to.
#[derive(Debug, Default, Clone)]
pub(crate) struct Current {
    pub client: Option<String>,
    pub node: Option<String>,
}

/// The queue with what else wakes the worker.
#[derive(Default)]
pub(crate) struct Work {
    pub queue: Queue,
    /// Somebody asked for the caches to be dropped.
    pub free: bool,
}

/// Faults that tests switch on; they outlast a restart.
#[derive(Default)]
pub(crate) struct Faults {
    frozen: Mutex<bool>,
    thawed: Condvar,
    /// Whether the serving thread stands at the barrier.
    parked: AtomicBool,
    /// How long an ended prompt takes to reach the history.
    pub history_delay: Mutex<Duration>,
}

impl Faults {
    /// Stops everything, as SIGSTOP does, or lets it go on.
    pub fn freeze(&self, frozen: bool) {
        *lock(&self.frozen) = frozen;
        self.thawed.notify_all();
    }

    /// Returns once nothing is frozen; for the serving thread, which [`Faults::parked`] is about.
    pub fn park(&self) {
        let mut frozen = lock(&self.frozen);
        while *frozen {
            self.parked.store(true, Ordering::SeqCst);
            frozen = self.thawed.wait(frozen).unwrap_or_else(PoisonError::into_inner);
        }
        self.parked.store(false, Ordering::SeqCst);
    }

    /// Whether the serving thread stands still.
    pub fn parked(&self) -> bool {
        self.parked.load(Ordering::SeqCst)
    }

    /// Returns once nothing is frozen.
    pub fn wait(&self) {
        let mut frozen = lock(&self.frozen);
        while *frozen {
            frozen = self.thawed.wait(frozen).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The lock, also when a thread panicked with it: a panic must not turn into a hang of the others.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a node did not end well.
#[derive(Debug, PartialEq)]
pub(crate) enum Halt {
    /// Somebody asked for it.
    Interrupted,
    /// The node raised an exception.
    Raised {
        /// The Python type, with its module unless built in.
        kind: String,
        /// What the exception says.
        text: String,
        /// The file, line and function that raised, as a traceback shows them.
        place: String,
    },
    /// The process is gone.
    Dead,
}

/// One life.
pub(crate) struct Life {
    pub options: Options,
    pub registry: Registry,
    pub folders: Folders,
    pub seed: u64,
    pub work: Mutex<Work>,
    pub wake: Condvar,
    pub messages: UnboundedSender<Message>,
    pub sockets: Mutex<IndexMap<String, Arc<Socket>>>,
    pub current: Mutex<Current>,
    pub interrupt: AtomicBool,
    pub dead: AtomicBool,
    pub number: AtomicU64,
    pub faults: Arc<Faults>,
    pub seen: Arc<Seen>,
    /// Tells the thread that serves to end; `true` asks for a clean end.
    pub end: UnboundedSender<bool>,
    /// Brings the serving thread to the barrier.
    pub nudge: tokio::sync::Notify,
    /// Counts up when all sockets are to be cut.
    pub cut: tokio::sync::watch::Sender<u64>,
}

impl Life {
    /// `{"exec_info": {"queue_remaining": N}}`
    pub fn queue_info(&self) -> Value {
        let remaining = lock(&self.work).queue.remaining();
        dict! { "exec_info" => dict! { "queue_remaining" => remaining } }
    }

    /// Tells every socket how many prompts there are.
    pub fn queue_updated(&self) {
        self.send("status", dict! { "status" => self.queue_info() }, None);
    }

    /// Queues a JSON message for one client, or for all.
    pub fn send(&self, event: &str, data: Value, to: Option<String>) {
        let text = dumps(&dict! { "type" => event, "data" => data });
        self.send_payload(Payload::Text(text), to);
    }

    /// Queues a message.
    pub fn send_payload(&self, payload: Payload, to: Option<String>) {
        // Fails only when the serving thread is gone, and then nobody listens.
        let _ = self.messages.send(Message { payload, to });
    }

    /// Whether the client said at first that it takes previews with metadata.
    pub fn takes_metadata(&self, client: Option<&String>) -> bool {
        client.and_then(|id| lock(&self.sockets).get(id).cloned()).is_some_and(|socket| socket.takes_metadata())
    }

    /// Ends the node when somebody asked for that.
    pub fn check(&self) -> Result<(), Halt> {
        self.faults.wait();
        if self.dead.load(Ordering::SeqCst) {
            return Err(Halt::Dead);
        }
        match self.interrupt.swap(false, Ordering::SeqCst) {
            true => Err(Halt::Interrupted),
            false => Ok(()),
        }
    }

    /// Sleeps in the worker. As in Python nothing but the end of the process cuts it short.
    pub fn sleep(&self, time: Duration) -> Result<(), Halt> {
        let end = Instant::now() + time;
        loop {
            self.faults.wait();
            if self.dead.load(Ordering::SeqCst) {
                return Err(Halt::Dead);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(20)));
        }
    }
}
