//! The shard: one writer's state of a signal, standing at exactly one journal sequence.

pub mod block;
pub mod block_reader;
pub mod block_writer;
pub mod buffer;
pub mod dedup;
pub mod ledger;
pub mod matcher;
pub mod merge;
pub mod page_cache;
pub mod state_file;
