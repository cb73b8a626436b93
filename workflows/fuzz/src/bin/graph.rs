//! Workflow files: read, check, fill.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| comfy_fuzz::graph(input));
