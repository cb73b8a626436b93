//! The model artifact: what is in it ([`Manifest`]), and its bytes as numbered parts ([`Archive`]). Knows no network.
//!
//! The archive is one tar file in one gzip member whose deflate blocks are all stored: weights do not compress, and
//! stored blocks make every offset a matter of arithmetic. So the size is known before a byte is read ([`Layout`]), and
//! any part can be made alone, straight from the files, by any thread and in any order.
//!
//! Every header and every file's content is a segment that begins with a deflate block of its own, so its bytes are the
//! same in every archive. The [`Index`] beside an archive says where they are, and [`Archive::copying`] plans a new
//! archive as ranges of the old one and what is new.
//!
//! The same files give the same bytes on every machine: paths are sorted, times, owners and names of owners are fixed,
//! modes are 0644 or 0755. Directories have no entries of their own; every extractor makes them.

mod archive;
mod buffers;
mod changes;
mod files;
mod gzip;
mod index;
mod layout;
mod manifest;
mod read;
mod streams;
mod tar;
mod write;

pub use archive::Archive;
pub use changes::PlannedPart;
pub use files::FileParts;
pub use index::{Index, IndexFile};
pub use layout::Layout;
pub use manifest::{ARCHIVE, Codec, INDEX, Manifest, ManifestFile};
pub use write::write;

#[cfg(test)]
mod tests;
