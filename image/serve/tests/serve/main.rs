//! The server in front of ComfyUI: by default the stand-in, with `tests/run --comfyui DIR --python PY` a real one.

mod chaos;
mod defects;
mod documented;
mod files;
mod harness;
mod invocations;
mod large;
mod process;
mod proxy;
mod rules;
mod stopping;
