//! Counts of outcomes per tenant: every received point has exactly one.
//!
//! Invariant (flow): `received = stored + folded + dead_lettered + discarded + rejected +
//! duplicate`, after every applied record. The counts stand at one journal sequence and travel in
//! the state file, so a replay adds the records after it and nothing twice.

use crate::model::{REJECT_REASON_COUNT, REJECT_REASON_NAMES};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why the processor (not the gateway) refused points of new series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    SeriesMax,
    Disk,
    Memory,
    /// Labels that are not canonical: a decoder let them through.
    Labels,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcomes {
    pub received: u64,
    pub stored: u64,
    pub folded: u64,
    pub dead_lettered: u64,
    pub discarded: u64,
    pub duplicate: u64,
    /// By reason: the gateway's, then `series_max` and `disk`.
    pub rejected: BTreeMap<String, u64>,
    pub records: u64,
    pub series_created: u64,
    /// Points that folding made: none of the received ones, but in the stock.
    pub emitted: u64,
}

impl Outcomes {
    pub fn balanced(&self) -> bool {
        let rejected: u64 = self.rejected.values().sum();
        self.received
            == self.stored
                + self.folded
                + self.dead_lettered
                + self.discarded
                + self.duplicate
                + rejected
    }

    pub fn reject(&mut self, reason: &str, points: u64) {
        if points > 0 {
            *self.rejected.entry(reason.to_owned()).or_default() += points;
        }
    }

    pub fn reject_at_gateway(&mut self, points: &[u32; REJECT_REASON_COUNT]) {
        for (reason, &count) in REJECT_REASON_NAMES.iter().zip(points) {
            self.reject(reason, u64::from(count));
        }
    }

    pub fn refuse(&mut self, refusal: Refusal, points: u64) {
        let reason = match refusal {
            Refusal::SeriesMax => "series_max",
            Refusal::Disk => "disk",
            Refusal::Memory => "memory",
            Refusal::Labels => "invalid_labels",
        };
        self.reject(reason, points);
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    pub tenants: BTreeMap<String, Outcomes>,
    /// Acked records that damage in the journal took; what they held may be unknown.
    #[serde(default)]
    pub lost_records: u64,
}

impl Ledger {
    pub fn tenant(&mut self, name: &str) -> &mut Outcomes {
        self.tenants.entry(name.to_owned()).or_default()
    }

    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub fn from_json(bytes: &[u8]) -> Option<Ledger> {
        serde_json::from_slice(bytes).ok()
    }

    /// Points that came into the stock: stored as received, and emitted.
    pub fn brought(&self) -> u64 {
        self.tenants.values().map(|outcomes| outcomes.stored + outcomes.emitted).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RejectReason;

    #[test]
    fn survives_json_and_knows_its_balance() {
        let mut ledger = Ledger::default();
        let outcomes = ledger.tenant("default");
        outcomes.received = 10;
        outcomes.stored = 6;
        let mut rejected = [0; REJECT_REASON_COUNT];
        rejected[RejectReason::LabelTooLong as usize] = 3;
        outcomes.reject_at_gateway(&rejected);
        assert!(!outcomes.balanced());
        outcomes.refuse(Refusal::Disk, 1);
        assert!(outcomes.balanced());
        assert_eq!(outcomes.rejected["label_too_long"], 3);
        assert_eq!(Ledger::from_json(&ledger.to_json()), Some(ledger));
    }
}
