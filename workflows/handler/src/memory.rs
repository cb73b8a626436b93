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

/// Other allocators do as they do.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn keep() {}
