//! The command line; its doc comments are the help.
