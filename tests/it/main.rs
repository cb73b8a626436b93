//! The integration tests, one binary: the real program against the sandbox in this process.

mod bad_account;
mod bad_input;
mod builder;
mod clients;
mod containers;
mod deploy;
mod documents;
mod edges;
mod gui;
#[expect(dead_code, reason = "shared with the tests of the library, which use the rest")]
mod hub;
mod image_container;
mod image_locks;
mod interrupted;
mod invoke;
mod line;
mod models;
mod oci;
mod probe;
mod push;
mod pushed_image;
mod resume;
mod stand_in;
mod stream;
mod support;
mod transcripts;
