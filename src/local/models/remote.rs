//! Files of an artifact that are not on this machine: their bytes are read where they are, range by range.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use tokio::sync::watch;

use crate::error::Error;

/// A file that is elsewhere. Nothing is asked for before bytes of it are read.
pub trait RemoteFile: Debug + Send + Sync {
    /// Where it is, as the config has it.
    fn source(&self) -> String;

    /// Begins to read a range of it. Once `stop` is set, reading ends soon, with an error.
    fn open(&self, range: Range<u64>, stop: &Stop) -> Box<dyn RemoteBytes>;
}

/// A range of a remote file, in order.
pub trait RemoteBytes {
    /// Fills `out` with the next bytes; more than the range has are never asked for. Blocking, outside the async threads
    /// only. What breaks is asked for again, as long as that is worth it.
    ///
    /// # Errors
    /// Why they do not come.
    fn read(&mut self, out: &mut [u8]) -> Result<(), Unread>;
}

/// Why bytes of a remote file did not come.
#[derive(Debug)]
pub struct Unread {
    /// For the user.
    pub error: Error,
    /// Whether the same bytes may come another time; not if the file has other content by now.
    pub again: bool,
}

/// Tells readers that nobody waits for them any more. Clones share the signal.
#[derive(Debug, Clone)]
pub struct Stop(Arc<watch::Sender<bool>>);

impl Default for Stop {
    fn default() -> Self {
        Stop(Arc::new(watch::channel(false).0))
    }
}

impl Stop {
    /// Gives the signal.
    pub fn set(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was given.
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when it is given.
    pub async fn wait(&self) {
        // The sender lives as long as this value, so the channel is not closed.
        let _ = self.0.subscribe().wait_for(|set| *set).await;
    }
}
