//! The JSON and query protocols.
