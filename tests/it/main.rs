//! The integration tests, one binary: the real program against the sandbox in this process.

mod clients;
mod containers;
mod deploy;
mod support;
