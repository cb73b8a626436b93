//! A stand-in for ComfyUI 0.3.64, for tests of what talks to it.
//!
//! It answers and behaves on the wire as the real one was recorded to (`recordings/`, replayed by `tests/replay.rs`), but
//! needs no Python, no GPU and no models, starts in milliseconds, and draws pictures that show what went into them.
//!
//! # What it imitates
//! - Every request of ComfyUI's API for prompts: `/prompt` with its checks, shapes, status codes and conversions,
//!   `/queue`, `/history`, `/interrupt`, `/free`, `/view`, `/upload/image`, `/upload/mask`, `/features`,
//!   `/object_info`, `/system_stats`, `/models`, `/embeddings`; each also under `/api`. JSON is byte for byte what Python
//!   writes. Pages of other hosts get 403.
//! - `/ws`: the messages, their order and whom they go to; previews with and without metadata; a socket that reconnects;
//!   the defect by which closing an old socket silences a newer one of the same id; and one loop that sends and waits,
//!   so that one client that does not read holds up all others once the operating system's buffers are full.
//! - Strictly serial execution, the order of nodes, the random order of output nodes, caches (classic, `--cache-lru`,
//!   `--cache-none`), errors, interrupts, deletions that leave no trace, the history and its limit.
//! - Files: names, numbers, subfolders, text chunks, `temp` emptied at the start and removed at a clean end.
//! - The command line: ComfyUI's flags, exit status 2 for others; SIGTERM ends it at once, SIGINT with status 0.
//!
//! # What it does not
//! - Pictures mean nothing: samplers write the seed and digests of the texts (see [`read`]), ImageScale takes the
//!   nearest pixel, masks are empty, models are names. Films and sounds have the right first bytes only. The classes are
//!   those of `nodes.json`, without tooltips except where a recording shows one, and without display names.
//! - Tracebacks have one line per frame, ComfyUI's line numbers and its default path.
//! - No web page, no settings, no users, no subgraph expansion, no lazy inputs, no lists as outputs.
//! - Integers beyond 127 bits become floats; a lone surrogate in a text becomes U+FFFD.
//! - Frames are encoded by the worker, not by the serving thread.

mod args;
mod cache;
mod coerce;
mod execute;
mod files;
mod graph;
mod http;
mod life;
mod models;
mod nodes;
mod options;
mod order;
mod picture;
pub mod py;
mod queue;
mod run;
mod seen;
mod standin;
mod tensor;
mod upload;
mod validate;
mod view;
mod ws;

pub use args::{ArgsError, Command, HELP, parse as parse_arguments};
pub use cache::CacheMode;
pub use models::{ModelPathsError, Models};
pub use options::Options;
pub use order::set_order;
pub use picture::{Picture, Shown, picture_digest, read, text_digest};
pub use seen::{Counts, SeenPrompt};
pub use standin::{StandIn, StartError};
