//! The only writer to stdout and stderr; confirmations.
