//! The model artifact: what is in it ([`Manifest`]), and its bytes as numbered parts ([`Archive`]). Knows no network.
//!
//! The archive is one tar file in one gzip member. Weights hardly compress, so most files are in stored deflate blocks,
//! which make every offset a matter of arithmetic. Others are deflated ([`Codec`]) in pieces of 1 MiB that depend on
//! nothing before them, and [`measure`] finds out how long those are. So the size is known before a byte is sent
//! ([`Layout`]), and any part can be made alone, straight from the files, by any thread and in any order.
//!
//! Every header and every file's content is a segment that begins with a deflate block of its own and ends on a whole
//! byte, so its bytes are the same in every archive. The [`Index`] beside an archive says where they are, and [`Archive::copying`] plans a new
//! archive as ranges of the old one and what is new.
//!
//! The same files give the same bytes on every machine: paths are sorted, times, owners and names of owners are fixed,
//! modes are 0644 or 0755. Directories have no entries of their own; every extractor makes them.

mod archive;
mod buffers;
mod changes;
mod choice;
mod contents;
mod deflate;
mod files;
mod gzip;
mod index;
mod layout;
mod manifest;
mod measure;
mod pieces;
mod read;
mod streams;
mod tar;
mod write;

pub use archive::Archive;
pub use changes::PlannedPart;
pub use choice::{Choice, Codec, shrinks};
pub use contents::Contents;
pub use files::FileParts;
pub use index::{Index, IndexFile};
pub use layout::Layout;
pub(crate) use manifest::FORMAT;
pub use manifest::{ARCHIVE, INDEX, Manifest, ManifestFile, PREFIX};
pub use measure::{Trial, measure, trial};
pub use write::write;

#[cfg(test)]
mod tests;
