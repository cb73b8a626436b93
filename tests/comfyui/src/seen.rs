//! What came in, for tests to look at.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
};

use crate::life::lock;

/// How many requests of each kind are kept in full; all are counted.
const KEPT: usize = 1_000;

/// A prompt that came in, accepted or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenPrompt {
    /// The status of the answer.
    pub status: u16,
    /// The id, when it was accepted.
    pub prompt_id: Option<String>,
    /// The id of the client, when it named one.
    pub client_id: Option<String>,
    /// The body.
    pub body: bytes::Bytes,
}

/// How often what happened, since the start and over all restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// `POST /prompt`, accepted or not.
    pub prompts: u64,
    /// Prompts that ended, in whatever way.
    pub ended: u64,
    /// Nodes that really ran.
    pub nodes_run: u64,
    /// `GET /view`
    pub views: u64,
    /// `GET /queue`
    pub queue_looks: u64,
    /// WebSockets that were opened.
    pub sockets_opened: u64,
    /// WebSockets that are open now.
    pub sockets_open: usize,
    /// Requests of any kind.
    pub requests: u64,
}

/// The record.
#[derive(Default)]
pub(crate) struct Seen {
    prompts: Mutex<VecDeque<SeenPrompt>>,
    interrupts: Mutex<VecDeque<Option<String>>>,
    queue_deletes: Mutex<VecDeque<String>>,
    history_deletes: Mutex<VecDeque<String>>,
    views: Mutex<VecDeque<String>>,
    clients: Mutex<VecDeque<String>>,
    prompt_count: AtomicU64,
    pub ended: AtomicU64,
    pub nodes_run: AtomicU64,
    pub queue_looks: AtomicU64,
    view_count: AtomicU64,
    sockets_opened: AtomicU64,
    sockets_open: AtomicUsize,
    pub requests: AtomicU64,
}

fn keep<T>(list: &Mutex<VecDeque<T>>, item: T) {
    let mut list = lock(list);
    if list.len() == KEPT {
        list.pop_front();
    }
    list.push_back(item);
}

fn all<T: Clone>(list: &Mutex<VecDeque<T>>) -> Vec<T> {
    lock(list).iter().cloned().collect()
}

impl Seen {
    pub fn prompt(&self, prompt: SeenPrompt) {
        self.prompt_count.fetch_add(1, SeqCst);
        keep(&self.prompts, prompt);
    }

    pub fn interrupt(&self, id: Option<String>) {
        keep(&self.interrupts, id);
    }

    pub fn queue_delete(&self, id: &str) {
        keep(&self.queue_deletes, id.to_owned());
    }

    pub fn history_delete(&self, id: &str) {
        keep(&self.history_deletes, id.to_owned());
    }

    pub fn view(&self, query: &str) {
        self.view_count.fetch_add(1, SeqCst);
        keep(&self.views, query.to_owned());
    }

    pub fn socket_opened(&self, client: &str) {
        self.sockets_opened.fetch_add(1, SeqCst);
        self.sockets_open.fetch_add(1, SeqCst);
        keep(&self.clients, client.to_owned());
    }

    pub fn socket_closed(&self) {
        self.sockets_open.fetch_sub(1, SeqCst);
    }

    pub fn counts(&self) -> Counts {
        Counts {
            prompts: self.prompt_count.load(SeqCst),
            ended: self.ended.load(SeqCst),
            nodes_run: self.nodes_run.load(SeqCst),
            views: self.view_count.load(SeqCst),
            queue_looks: self.queue_looks.load(SeqCst),
            sockets_opened: self.sockets_opened.load(SeqCst),
            sockets_open: self.sockets_open.load(SeqCst),
            requests: self.requests.load(SeqCst),
        }
    }

    pub fn prompts(&self) -> Vec<SeenPrompt> {
        all(&self.prompts)
    }
    pub fn interrupts(&self) -> Vec<Option<String>> {
        all(&self.interrupts)
    }
    pub fn queue_deletes(&self) -> Vec<String> {
        all(&self.queue_deletes)
    }
    pub fn history_deletes(&self) -> Vec<String> {
        all(&self.history_deletes)
    }
    pub fn views(&self) -> Vec<String> {
        all(&self.views)
    }
    pub fn clients(&self) -> Vec<String> {
        all(&self.clients)
    }
}
