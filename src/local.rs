//! What is on disk, as content digests.

pub mod image;
