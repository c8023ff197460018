//! Sketches: how many distinct things there were (`hll`), how values were distributed (`quantiles`), in
//! little memory. They explain and answer; nothing is judged by them.

pub mod hll;
pub mod quantiles;

pub use hll::HyperLogLog;
