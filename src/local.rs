//! What is on disk, as content digests.
