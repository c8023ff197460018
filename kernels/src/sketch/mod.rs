//! Sketches: how many distinct things there were, in little memory. They explain; nothing is judged
//! by them.

pub mod hll;

pub use hll::HyperLogLog;
