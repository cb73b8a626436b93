//! The embedded templates, typed parameters and outputs, rendering, evaluation, differences.
