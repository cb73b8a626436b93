//! The adapters against canned answers.
