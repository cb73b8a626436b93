//! ComfyUI workflows in API format: read them, and fill in prompts and seeds.
//!
//! An API-format workflow is a flat object from node id to `{"class_type": ..., "inputs": {...}}`; an input is a literal
//! or a link `["node id", slot]`. Unknown members are kept as they are, in their order.

mod fill;
mod parse;

pub use fill::{Fill, Filled, NEGATIVE_PLACEHOLDER, POSITIVE_PLACEHOLDERS, fill};
pub use parse::{ParseError, Workflow};
