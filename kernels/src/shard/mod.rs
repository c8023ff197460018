//! The shard: one writer's state of a signal, standing at exactly one journal sequence.

pub mod buffer;
pub mod dedup;
pub mod ledger;
pub mod matcher;
pub mod state_file;
