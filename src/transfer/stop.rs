//! Why an upload stops, and what that is a reason for.

use super::retry::expired;
use crate::error::Error;

/// Why an upload stopped.
pub(super) enum Stop {
    /// The content cannot be made any more.
    Source(Error),
    /// What parts are copied from is gone, is another object, or cannot be read.
    Base(Error),
    /// S3 does not know the upload, or not any longer, or not with these parts. `completing`: it may have been completed,
    /// the answer was lost.
    Gone { completing: bool },
    /// Anything else.
    Service(Error),
}

impl Stop {
    pub(super) fn of(error: Error, completing: bool) -> Self {
        if error.is_aws("NoSuchUpload") || (completing && (conflict(&error) || overwritten(&error))) {
            Stop::Gone { completing }
        } else {
            Stop::Service(error)
        }
    }

    /// Of a copy. What keeps S3 from answering, or us from asking, keeps it from taking the bytes, too: only what is
    /// wrong with the object that is copied from is a reason to send them.
    pub(super) fn of_copy(error: Error) -> Self {
        match Stop::of(error, false) {
            Stop::Service(error) if !error.is_transient() && !expired(&error) => Stop::Base(error),
            stop => stop,
        }
    }
}

/// Another conditional write of the same key was under way (409).
pub(super) fn conflict(error: &Error) -> bool {
    error.is_aws("ConditionalRequestConflict")
}

/// Another run that sends the same object has sent parts of it again, with another ETag: the bytes differ, or are encrypted
/// with a key of KMS, which makes another ETag of the same bytes.
fn overwritten(error: &Error) -> bool {
    error.is_aws("InvalidPart") || error.is_aws("InvalidPartOrder")
}
