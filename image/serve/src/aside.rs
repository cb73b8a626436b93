//! Work that grows with what a caller sent, out of the way of /ping.

/// Bytes up to which JSON is parsed and written where one is.
const LARGE: usize = 64 * 1024;

/// Does some work on so many bytes, on a thread of its own when they are many. None if it crashed there.
pub(crate) async fn by_size<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match bytes > LARGE {
        true => tokio::task::spawn_blocking(work).await.ok(),
        false => Some(work()),
    }
}
