//! The server in front of ComfyUI in a SageMaker container.
//!
//! ```text
//! GET  /ping         200 once ComfyUI answers and is warm, from a background prober, so never slower than a memory read
//! POST /invocations  workflow in API format -> picture (JPEG where Accept allows it, else as ComfyUI made it)
//!
//! cli       options and environment             serve    life of the process: listen, stop within 30 s
//! app       what requests share, routes         child    ComfyUI's process: restarts, output, end
//!                                               orphans  what processes leave to process 1
//! invoke    a request from arrival to answer    health   probes and the verdict for /ping
//! request   body and options          (pure)    warmup   the first job of a new ComfyUI
//! job       run, fetch, run again if gone       record, metrics   a log line and figures for each request
//! follow    one prompt to its end               upload   pictures that come with a workflow
//! prompt    a workflow as it is sent            queue    whether a job is still there
//! aside     large JSON, out of the way of /ping
//! comfy     ComfyUI's REST interface            accept     the Accept header                   (pure)
//! line      its WebSocket, and spare ones       picture    decode, encode, remove texts        (pure)
//! outputs   which output is the answer (pure)   multipart  several outputs in one body         (pure)
//! kept      the last outputs          (pure)    reply      outputs as an answer                (pure)
//! disk      removing what a job left            explain, problem   errors in 2,048 bytes       (pure)
//! ```
//!
//! Every prompt has a WebSocket and ids of its own: ComfyUI sends to all sockets in turn, so one that is not read stops
//! everybody, and a client id that is used again after a reconnect goes deaf. The end of a job is also looked for in
//! the history, because messages that were missed are not sent again.

pub mod accept;
mod app;
mod aside;
mod buffers;
mod child;
mod cli;
mod comfy;
mod disk;
mod explain;
mod follow;
mod health;
mod health_command;
mod invoke;
mod job;
mod kept;
mod line;
mod metrics;
pub mod multipart;
mod orphans;
mod outputs;
pub mod picture;
mod problem;
mod prompt;
mod queue;
mod record;
mod reply;
mod request;
mod serve;
mod upload;
mod warmup;

pub use cli::{Cli, Command, DEFAULT_WARMUP, Health, Serve};
pub use health_command::check;
pub use problem::Problem;
pub use serve::run;
