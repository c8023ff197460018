//! What was written and cannot be read: gaps, and the count of them (docs/journal.md).
//!
//! Invariant: a sequence that was durable is counted as lost, exactly; one of which nobody can say
//! that it was durable is counted apart. Each once, however often it is read over.

use super::record::RecordHeader;
use std::collections::BTreeSet;

/// Reported damage kept for whoever asks; what is beyond is still counted.
const GAPS_MAX: usize = 1000;

/// Sequences that were written and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The missing ones are `first..next` ...
    pub first: u64,
    pub next: u64,
    /// ... of which those below were durable, hence maybe acked; the rest are holes in the last
    /// group before an open, which a power cut leaves as rot does.
    pub durable_before: u64,
    pub bytes: u64,
    /// Of those whose header survives: what was lost, and whose it was.
    pub headers: Vec<RecordHeader>,
}

impl Gap {
    pub fn lost_records(&self) -> u64 {
        self.durable_before - self.first
    }

    pub fn undecided_records(&self) -> u64 {
        self.next - self.durable_before
    }

    /// The part of it in `first..next`, if there is one.
    pub fn within(mut self, first: u64, next: u64) -> Option<Gap> {
        (self.first, self.next) = (self.first.max(first), self.next.min(next));
        self.durable_before = self.durable_before.clamp(self.first, self.next.max(self.first));
        self.headers.retain(|header| (first..next).contains(&header.sequence));
        (self.first < self.next).then_some(self)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct DamageCounts {
    /// Durable once and not readable now; also in `Journal::take_gaps`.
    pub quarantined_records: u64,
    pub quarantined_bytes: u64,
    /// Missing between whole records of the last group before an open: torn by a power cut and
    /// never acked, or acked and rotten.
    pub undecided_records: u64,
    /// Written after the last durable group, or around undecided records; cut or passed over.
    pub torn_bytes: u64,
}

#[derive(Default)]
pub struct Damage {
    pub counts: DamageCounts,
    seen: BTreeSet<(u64, u64)>,
    fresh: Vec<Gap>,
}

impl Damage {
    pub fn note(&mut self, gap: Gap) {
        if !self.seen.insert((gap.first, gap.next)) {
            return;
        }
        let counts = &mut self.counts;
        counts.undecided_records += gap.undecided_records();
        match gap.lost_records() {
            0 => counts.torn_bytes += gap.bytes,
            records => {
                counts.quarantined_records += records;
                counts.quarantined_bytes += gap.bytes;
                if self.fresh.len() < GAPS_MAX {
                    self.fresh.push(gap);
                }
            }
        }
    }

    pub fn take_fresh(&mut self) -> Vec<Gap> {
        std::mem::take(&mut self.fresh)
    }

    /// What lies before `sequence` is never read again.
    pub fn forget_before(&mut self, sequence: u64) {
        self.seen.retain(|(_, next)| *next > sequence);
    }
}
