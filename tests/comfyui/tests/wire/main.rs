//! The stand-in on the wire: against the recordings, and as a process.

mod api;
mod process;
mod replay;
mod sockets;
mod support;
