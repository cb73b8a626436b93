//! The server in front of ComfyUI in a SageMaker container.
//!
//! ```text
//! GET  /ping         200 once ComfyUI answers, from a background prober, so never slower than a memory read
//! POST /invocations  workflow in API format -> image (JPEG where Accept allows it, else PNG)
//! ```
//!
//! Every request has a WebSocket and a client id of its own: ComfyUI sends to all sockets in turn, so one that is not
//! read stops everybody, and an id that is used again after a reconnect goes deaf. The end of a job is also looked for
//! in the history, because messages that were missed are not sent again.

pub mod accept;
mod child;
mod cli;
mod comfy;
mod health_command;
mod image;
mod job;
mod outputs;
mod ping;
mod problem;
mod serve;

pub use cli::Cli;
pub use problem::Problem;
pub use serve::{State, router, run};
