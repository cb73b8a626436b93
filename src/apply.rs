//! Executes a plan, emits events.
