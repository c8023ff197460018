//! What the journal counts about itself.

use super::damage::DamageCounts;

/// Upper bounds of `JournalStats::fsync_buckets`; one more bucket is for what is slower.
pub const FSYNC_BOUNDS_SECONDS: [f64; 10] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct JournalStats {
    /// Of records on disk, durable; without what is reserved.
    pub bytes: u64,
    pub segments: u64,
    pub queued_bytes: u64,
    pub queued_records: u64,
    pub groups: u64,
    pub records: u64,
    pub failed_groups: u64,
    pub last_error: String,
    pub fsync_seconds_last: f64,
    pub fsync_seconds_sum: f64,
    pub fsync_buckets: [u64; FSYNC_BOUNDS_SECONDS.len() + 1],
    #[serde(flatten)]
    pub damage: DamageCounts,
    /// False once the committer thread has ended.
    pub alive: bool,
}

impl JournalStats {
    pub(super) fn note_fsync(&mut self, seconds: f64) {
        self.fsync_seconds_last = seconds;
        self.fsync_seconds_sum += seconds;
        let slower = |bound: &&f64| seconds > **bound;
        self.fsync_buckets[FSYNC_BOUNDS_SECONDS.iter().take_while(slower).count()] += 1;
    }
}
