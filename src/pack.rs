//! Deterministic tar(.gz) as a stream of numbered parts; knows no network.
