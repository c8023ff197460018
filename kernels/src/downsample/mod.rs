//! Rollup windows: what a series' points come to over fixed steps of time, and answers from them.
//!
//! A window is (start, end], labelled by its end: the point at 12:01:00.000 belongs to the window
//! that ends at 12:01.

pub mod columns;
pub mod file;
pub mod memory_file;
pub mod warm;
