//! Events of the function: of every source, and what is no event at all.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| comfy_fuzz::events(input));
