//! What is on disk, as content digests: the models, and the function package. Reads only, and calls no service.

pub mod cache;
pub mod function;
pub mod models;
