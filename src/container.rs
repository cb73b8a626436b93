//! Container tools as subprocesses.
