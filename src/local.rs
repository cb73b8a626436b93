//! What is on disk, as content digests: models, lock, image context, function package. Reads only, and calls no service.

pub mod cache;
pub mod function;
pub mod image;
pub mod lengths;
pub mod lockfile;
pub mod models;
pub mod sources;
pub mod workflows;
