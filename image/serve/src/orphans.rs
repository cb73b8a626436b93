//! Process 1 inherits what other processes leave behind: a process of a custom node whose parent ended stays a zombie, and
//! its number taken, until somebody asks how it ended.

use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, waitpid};
use tokio::signal::unix::{SignalKind, signal};

/// How long ComfyUI's own end may take to be noticed by who waits for it; until then it hides other ends.
const HIDDEN: Duration = Duration::from_millis(100);

/// The one child of ours, whose end somebody else waits for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Supervised(Arc<Mutex<Option<Pid>>>);

impl Supervised {
    /// While this is held no end is taken: a child that ends before its number is written down is not an orphan.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Option<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the ends of all others, for ever, if the kernel gives us orphans.
    pub(crate) async fn reap_others(self) {
        let adopts = rustix::process::getpid().is_init() || is_subreaper();
        let signals = if adopts { signal(SignalKind::child()).ok() } else { None };
        let Some(mut signals) = signals else { return };
        loop {
            match self.reap() {
                true => tokio::time::sleep(HIDDEN).await,
                false => {
                    signals.recv().await;
                }
            }
        }
    }

    /// Whether the supervised one was in the way.
    fn reap(&self) -> bool {
        let supervised = self.lock();
        while let Some(pid) = ended() {
            if Some(pid) == *supervised {
                return true;
            }
            // Its end is known, so there is nothing that could go wrong.
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
        false
    }
}

fn is_subreaper() -> bool {
    matches!(rustix::process::child_subreaper(), Ok(Some(_)))
}

/// A child that has ended and that nobody has asked about. It stays one.
#[expect(unsafe_code, reason = "rustix does not tell the process id")]
fn ended() -> Option<Pid> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the pointer is to memory of that type.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), options) };
    if result != 0 {
        return None;
    }
    // SAFETY: all zeroes are a value of this type, and after waitid this part of it is the process id, or 0 for none.
    let pid = unsafe { info.assume_init().si_pid() };
    Pid::from_raw(pid)
}
