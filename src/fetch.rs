//! Model files from elsewhere: Hugging Face, Civitai, the web, S3 and other directories, as verified files in
//! `models.dir`. Knows nothing of archives and uploads.
//!
//! What the config declares ([`Wanted`]) is compared with the lock and the disk. What is missing is asked for at its
//! hub ([`resolve`]: commit, size, sha256, ETag), loaded in ranges into a hidden `.part` file beside its place with a
//! journal of what arrived, hashed, and renamed. A file whose content is not the locked one is an error, never a new model.
//!
//! Large files that are to be streamed ([`Streams`]) are locked only, and read from their source when somebody wants bytes
//! of them.

mod answer;
mod disk;
mod download;
mod get;
pub mod http;
mod journal;
mod load;
mod place;
mod resolve;
mod run;
mod source;
mod status;
mod stream;
mod wanted;

pub use disk::free;
pub use get::{Access, Hubs};
pub(crate) use place::check_path;
pub use place::{FOLDERS, Place};
pub use resolve::Remote;
pub use run::{Fetched, Fits, Job, Streaming, fetch, lock};
pub use source::{Mistake, Source, is_loopback};
pub use status::{State, Status, status, without_room};
pub use stream::{LEAST as STREAM_LEAST, Streamable, Streams, streamable};
pub(crate) use wanted::exactly;
pub use wanted::{Selection, Wanted, Wrong, declared, patterns, selection, wanted};

#[cfg(test)]
mod tests;
