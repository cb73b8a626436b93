//! The adapters: the ports of [`crate::cloud`] on the AWS SDKs. Nothing outside this directory imports `aws_*`.
//!
//! [`connect`] runs once, in `main`. One file per port; [`errors`] turns every SDK error into ours.

mod calls;
mod connect;
mod endpoints;
mod errors;
mod identity;
mod images;
mod logs;
mod objects;
mod quotas;
mod renewing;
mod scaling;
mod stacks;

pub use connect::{Connection, connect};

#[cfg(test)]
mod tests;
