//! Parts -> Objects: permits, retry, checksums; knows no file format.
