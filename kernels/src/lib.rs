//! Sluiceway's kernels: what runs per point and per series. Nothing here knows Python except
//! `python/`, and nothing holds policy, schedule, retention or the choice of what to merge.
//!
//! The way of the data: `wire` (decode a request) -> `journal` (make it durable) -> `shard`
//! (register, index, buffer, seal, merge) -> `codec` (pages on disk) -> `evaluate` (answer).

pub mod codec;
pub mod disk;
pub mod downsample;
pub mod error;
pub mod evaluate;
pub mod exchange;
pub mod journal;
pub mod labels;
pub mod model;
pub mod mutants;
pub mod priority;
pub mod shard;
pub mod sketch;
pub mod slices;
pub mod wire;

#[cfg(feature = "python")]
mod python;
