//! What a process that ends at once, as after a second Ctrl-C, must not leave behind: builders and logins. Both are
//! normally ended by being dropped, which such a process has no time for.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal};

static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());
static LOGINS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn with<T, R>(list: &Mutex<Vec<T>>, f: impl FnOnce(&mut Vec<T>) -> R) -> R {
    f(&mut list.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A process group runs.
pub(super) fn begin_group(group: Pid) {
    with(&GROUPS, |groups| groups.push(group));
}

/// A process group has ended.
pub(super) fn end_group(group: Pid) {
    with(&GROUPS, |groups| groups.retain(|g| *g != group));
}

/// A directory holds a login.
pub(super) fn begin_login(dir: &Path) {
    with(&LOGINS, |logins| logins.push(dir.to_owned()));
}

/// A login is removed.
pub(super) fn end_login(dir: &Path) {
    with(&LOGINS, |logins| logins.retain(|d| d != dir));
}

/// Kills every builder that runs and removes every login. For the moment before the process ends.
pub fn clear() {
    with(&GROUPS, |groups| {
        for group in groups.drain(..) {
            // It can only fail because the group is gone.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    });
    with(&LOGINS, |logins| {
        for dir in logins.drain(..) {
            // The next build sweeps it otherwise.
            let _ = std::fs::remove_dir_all(dir);
        }
    });
}
