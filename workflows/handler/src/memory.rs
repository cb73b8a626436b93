//! What the allocator does with memory that was given back.

/// Bytes that are kept for the next request: the buffers of a picture of some 5 MB, of which there are four.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT: libc::c_int = 24 << 20;

/// Tells glibc to keep the memory of one request for the next. By default it returns buffers of this size to the kernel
/// and takes them anew, zeroed page by page, which was half of the time that a warm request took.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "there is no safe binding")]
pub(crate) fn keep() {
    // SAFETY: mallopt takes two numbers, and no other thread allocates yet. What it returns, whether the setting was
    // taken, changes nothing but speed.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

/// Bytes that a picture of 1.5 MB passes through: as it arrives, in one piece, and in base64.
const FIRST: usize = 5_000_000;
/// Bytes of a page, or fewer.
const PAGE: usize = 4096;

/// Takes the memory for a first picture from the kernel before there is one. Lambda lends a starting process a whole
/// processor; at 256 MB an event has a seventh of one, and there each page would cost its fault.
pub(crate) fn take() {
    let mut pages = vec![0_u8; FIRST];
    pages.chunks_mut(PAGE).for_each(|page| page[0] = 1);
    // Written for nobody to read, which the compiler must not find out.
    std::hint::black_box(&pages);
}

/// Other allocators do as they do.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn keep() {}
