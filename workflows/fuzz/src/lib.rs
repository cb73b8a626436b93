//! What the fuzz targets do with their input. `tests/fuzz` runs them; the same functions take a file that was found, in a
//! test or from the command line.

mod events;
mod graph;

pub use events::events;
pub use graph::graph;
