//! How a stand-in is started.

use std::{path::PathBuf, time::Duration};

use crate::{cache::CacheMode, models::Models};

/// How a stand-in is started. `Options::default()` suits tests in one process: a free port on 127.0.0.1, folders of its
/// own that go when it does, the model of the recordings, 2 ms per sampling step.
#[derive(Debug, Clone)]
pub struct Options {
    /// The addresses to listen on.
    pub listen: Vec<String>,
    /// The port; 0 takes a free one.
    pub port: u16,
    /// Where output goes; `None` makes a folder that is deleted at the end.
    pub output: Option<PathBuf>,
    /// Where previews go; `None` makes a folder that is deleted at the end. It is emptied at every start and clean end.
    pub temp: Option<PathBuf>,
    /// Where LoadImage reads; `None` makes a folder that is deleted at the end.
    pub input: Option<PathBuf>,
    /// What models there are.
    pub models: Models,
    /// What is cached from prompt to prompt.
    pub cache: CacheMode,
    /// Whether PNG files get the prompt as text chunks.
    pub metadata: bool,
    /// The largest body of a request, in bytes (ComfyUI: 100 MiB).
    pub max_upload: usize,
    /// Whether custom nodes (SaveImageWebsocket and those named Test) are there.
    pub custom_nodes: bool,
    /// How long one sampling step takes.
    pub step: Duration,
    /// How long a loader of models takes the first time.
    pub load: Duration,
    /// How long an ended prompt takes to reach the history.
    pub history: Duration,
    /// The salt of Python's sets; `None` is another one at each start, as in Python.
    pub hash_seed: Option<u64>,
    /// How long a clean end takes (ComfyUI: 2 to 3.5 s).
    pub shutdown: Duration,
    /// How long the server needs to start to listen (ComfyUI: 5 to 15 s).
    pub startup: Duration,
    /// The command line that `/system_stats` shows.
    pub argv: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            listen: vec!["127.0.0.1".into()],
            port: 0,
            output: None,
            temp: None,
            input: None,
            models: Models::recorded(),
            cache: CacheMode::Classic,
            metadata: true,
            max_upload: 100 << 20,
            custom_nodes: true,
            step: Duration::from_millis(2),
            load: Duration::ZERO,
            history: Duration::ZERO,
            hash_seed: None,
            shutdown: Duration::ZERO,
            startup: Duration::ZERO,
            argv: vec!["main.py".into()],
        }
    }
}
