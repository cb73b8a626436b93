//! What happens while something is applied, as events. Libraries report; `tty` and `lines` draw.

pub mod board;
pub mod lines;
pub mod tty;
pub mod units;

impl Task {
    /// The word in front of its lines.
    pub fn word(self) -> &'static str {
        match self {
            Task::Model => "models",
            Task::Image => "image",
            Task::Function => "function",
            Task::Scan => "files",
            Task::Fetch => "fetch",
        }
    }
}

/// A unit of work that is measured in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Task {
    /// Packing and uploading the model artifact.
    Model,
    /// Building and pushing the inference image.
    Image,
    /// Uploading the function package.
    Function,
    /// Reading and hashing local files.
    Scan,
    /// Fetching model files from elsewhere.
    Fetch,
}

/// Something the user may want to see.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // The fields say it all: bytes, ids and statuses as AWS spells them.
pub enum Event {
    /// A phase begins: one sentence.
    Phase(String),
    /// A task begins; `total` in bytes where it is known.
    Begin { task: Task, label: String, total: Option<u64> },
    /// Bytes done so far.
    Bytes { task: Task, done: u64 },
    /// A line of a subprocess.
    Line { task: Task, line: String },
    /// A task is over; one short sentence.
    End { task: Task, summary: String },
    /// A stack resource moved.
    Resource { stack: String, logical_id: String, kind: String, status: String, reason: Option<String> },
    /// The endpoint's status and stage.
    Endpoint { name: String, status: String, stage: Option<String> },
    /// A line of the container's log.
    Container(String),
    /// Worth knowing.
    Note(String),
    /// Worth acting on.
    Warning(String),
}

/// Receives events; must be quick and must not fail.
pub trait Reporter: Send + Sync {
    /// One event.
    fn report(&self, event: Event);
    /// Nothing more comes: what was drawn gives way to a short summary. Doing it twice is harmless.
    fn finish(&self) {}
}

/// Drops everything.
pub struct Silent;

impl Reporter for Silent {
    fn report(&self, _: Event) {}
}
