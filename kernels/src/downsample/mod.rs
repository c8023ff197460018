//! Rollup windows: what a series' points come to over fixed steps of time, and answers from them.
//!
//! A window is (start, end], labelled by its end: the point at 12:01:00.000 belongs to the window
//! that ends at 12:01.
//!
//! `columns` the currency · `window` points to windows, windows to longer ones · `state` what a stretch
//! of time comes to · `evaluate` functions over windows, with `view`, `folds`, `sliding`
//! under it · `points` states of raw points · `state_rows`, `merge_states` states of several tiers ·
//! `mark` what was done to series at the tiers' boundaries, with `hidden` what a file is silent about ·
//! `sketches` how the values of some windows were distributed, `quantiles` answers from them ·
//! `dictionary` a file's label sets and index, `file` windows at rest, in `memory_file`, `warm` and `cold` · `reader` plans over files, with `selection`
//! and `scan` under it, `read_buffers` what they reuse, `open_files` those kept open, `watched` whose
//! damage is noted, `masked` what orders to delete leave of one, `points_file` raw points beside windows ·
//! `join` several files as one, `extract` windows as they stand.

#[cfg(test)]
mod boundary_tests;
pub mod cold;
pub mod columns;
mod dictionary;
pub mod evaluate;
mod exactness;
pub mod extract;
pub mod file;
mod folds;
mod hidden;
pub mod join;
pub mod mark;
pub mod masked;
pub mod memory_file;
pub mod merge_states;
pub mod open_files;
mod points;
pub mod points_file;
mod quantiles;
pub mod read_buffers;
pub mod reader;
#[cfg(test)]
mod reader_tests;
mod scan;
mod scratch;
pub mod selection;
pub mod sketches;
mod sliding;
pub mod state;
pub mod state_rows;
pub mod view;
pub mod warm;
pub mod watched;
pub mod window;
