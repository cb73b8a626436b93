//! The integration tests, one binary.

mod containers;
