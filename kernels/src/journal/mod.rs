//! The journal: every accepted request, durable before it is acked, in one order.
//!
//! Invariant: a record is told as committed only after the fdatasync of its group; `sequence`s are
//! dense and given at commit, so what is durable is always a prefix. One committer thread: the
//! next fdatasync starts when the last ends, and what arrived meanwhile is its group.
//! Formats: docs/formats/record.md. How it works: docs/journal.md.

mod committer;
mod damage;
mod listed;
pub mod record;
mod scan;
mod segment;
mod stats;
mod store;
#[cfg(test)]
mod tests;

pub use committer::{GroupSink, Journal};
pub use damage::{DamageCounts, Gap};
pub use record::RecordHeader;
pub use stats::{FSYNC_BOUNDS_SECONDS, JournalStats};

#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// Under the data directory; made where it is absent.
    pub directory: String,
    pub segment_bytes: u64,
    /// Records kept and waiting together; past it `append` is refused.
    pub bytes_max: u64,
    pub group_bytes_max: u64,
    pub queue_bytes_max: u64,
    /// Something a client cannot guess: with it no payload can pose as a record.
    pub salt: u64,
}

impl Default for JournalConfig {
    fn default() -> JournalConfig {
        JournalConfig {
            directory: "journal".to_owned(),
            segment_bytes: 64 << 20,
            bytes_max: u64::MAX,
            group_bytes_max: 16 << 20,
            queue_bytes_max: 64 << 20,
            salt: 0,
        }
    }
}

/// What opening found. Segments before the last are checked when they are read.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct OpenReport {
    pub next_sequence: u64,
    #[serde(flatten)]
    pub damage: DamageCounts,
}

/// Records in order. `next_sequence` is where to go on: behind the last record, or behind damage.
#[derive(Debug, Default)]
pub struct Records {
    pub records: Vec<(RecordHeader, Vec<u8>)>,
    pub next_sequence: u64,
}
