//! ComfyUI workflows in API format: read them, say what is wrong with them, and fill in prompts, seeds and values.
//!
//! An API-format workflow is a flat object from node id to `{"class_type": ..., "inputs": {...}}`; an input is a literal
//! or a link `["node id", slot]`. Unknown members are kept as they are, in their order. Integers keep every digit from
//! -2^63 to 2^64-1 and other numbers every bit of a 64-bit float, which is what ComfyUI reads them into.
//!
//! - [`Workflow::parse`] takes bytes, or says why they are no such workflow.
//! - [`check`](fn@check) finds everything that ComfyUI would refuse, as far as [`Known`] says what there is.
//! - [`fill()`] puts texts, seed and further values in, and reports where.
//!
//! Nothing here reads a file, a clock or the network, or draws a random number.

mod check;
mod classes;
mod fill;
mod images;
mod json;
mod nearest;
mod node;
mod params;
mod parse;
mod placeholder;
mod seed;

pub use check::{Finding, Kind, Known, Models, Severity, check};
#[cfg(feature = "core-classes")]
pub use classes::core_classes;
pub use classes::{Class, Classes, Input, InputType};
pub use fill::{Fill, FillError, Filled, Place, fill};
pub use images::{ImageInput, load_images};
pub use node::{Link, Node};
pub use params::{ParamProblem, param_from_text};
pub use parse::{ParseError, Workflow};
pub use placeholder::{NEGATIVE_PLACEHOLDER, POSITIVE_PLACEHOLDERS};
