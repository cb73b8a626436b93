//! The model artifact: what is in it ([`Manifest`]), and its bytes as numbered parts ([`Archive`]). Knows no network.
//!
//! The archive is one tar file in one gzip member whose deflate blocks are all stored: weights do not compress, and
//! stored blocks make every offset a matter of arithmetic. So the size is known before a byte is read ([`Layout`]), and
//! any part can be made alone, straight from the files, by any thread and in any order.
//!
//! The same files give the same bytes on every machine: paths are sorted, times, owners and names of owners are fixed,
//! modes are 0644 or 0755. Directories have no entries of their own; every extractor makes them.

mod archive;
mod gzip;
mod layout;
mod manifest;
mod tar;

pub use archive::{Archive, FileParts};
pub use layout::Layout;
pub use manifest::{Codec, Manifest, ManifestFile};

#[cfg(test)]
mod tests;
