//! The integration tests, one binary: the real program against the sandbox in this process.

mod support;

mod deploy;
