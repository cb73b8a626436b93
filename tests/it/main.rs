//! The integration tests, one binary: the real program against the sandbox in this process.

mod containers;
mod deploy;
mod edges;
mod support;
mod transcripts;
