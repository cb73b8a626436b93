//! Container tools as subprocesses: find one that works, build and push with it, and let only images
//! that SageMaker accepts pass under their final tag.
//!
//! ```text
//! Builders::detect -> Tool
//! build_and_push(Tool, ImageContext, "registry/repo:build-<random>") -> Built
//! gate("repo", "build-<random>", "c-<hash>") -> "sha256:..."
//! Engine::detect, build_image, serve    ComfyUI with its editor, on this machine
//! ```
//!
//! The tools differ in what they push: BuildKit makes an OCI index with attestations, buildah and podman an OCI
//! manifest, and SageMaker's CreateModel refuses both. Each gets the flags for Docker v2 schema 2, and [`gate`]
//! checks and, where that is possible without touching a layer, repairs what arrived.

mod build;
mod credentials;
mod detect;
mod gate;
mod gui;
mod leftovers;
pub mod manifest;
mod output;
mod runner;

pub use build::{Built, build_and_push, build_reference};
pub use detect::{Builders, Tool, ToolKind};
pub use gate::{Existing, earlier_tag, gate, inspect};
pub use gui::{DATA_DIRS, Engine, Gui, shell_line};
pub use leftovers::clear as clear_leftovers;
pub use runner::{Cancel, Exit, Invocation, OnLine, Processes, Runner, Stream};
