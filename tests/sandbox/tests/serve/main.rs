//! Functions and endpoints that really run: over the wire, with this binary as what is run.

mod child;
mod clients;
mod endpoints;
mod functions;
mod images;
mod support;
mod urls;

/// The function and the container of the other tests; by itself it has nothing to do.
#[test]
#[ignore = "run by the sandbox of the other tests, not by hand"]
fn child() {
    child::play();
}
