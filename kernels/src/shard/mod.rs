//! The shard: one writer's state of a signal, standing at exactly one journal sequence.

mod aliases;
pub mod alive;
pub mod apply;
pub mod block;
pub mod block_reader;
pub mod block_writer;
pub mod budget;
pub mod buffer;
pub mod dedup;
pub mod figures;
pub mod freeze;
pub mod governor;
mod governor_state;
pub mod intake;
pub mod ledger;
pub mod letters;
pub mod letters_reader;
pub mod matcher;
pub mod merge;
pub mod metadata;
pub mod owner;
pub mod page_cache;
mod postings;
pub mod recover;
mod register;
pub mod registry;
mod registry_bytes;
pub mod registry_state;
mod reread;
mod resolve;
mod row_labels;
mod select;
mod series_facts;
pub mod state_file;
pub mod view;

pub use owner::Shard;
