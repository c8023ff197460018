//! What of each tenant is rolled up, and which hours got points after that: the shard's part of the
//! hand-off to the warm tier.
//!
//! An hour is (start, end], as windows are. Invariant: a point at or before its tenant's watermark
//! marks its hour before it can be seen, so that whoever asks for the dirty hours, and looks at the
//! catalog after that, never takes a window that lacks a point which raw would have shown.
//!
//! Hours are few: points older than the tenant's age are refused at the door (horizon.rs).

use super::apply::REFUSED;
use super::deletion::Order;
use super::fold::Emission;
use super::matcher::Matcher;
use super::owner::Shard;
use super::registry::Registry;
use crate::model::{Batch, SeriesRow};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const HOUR_MS: i64 = 3_600_000;

/// The start of the hour that a point of `time_ms` belongs to.
pub fn hour_of(time_ms: i64) -> i64 {
    time_ms.saturating_sub(1).div_euclid(HOUR_MS) * HOUR_MS
}

/// By tenant. The whole of it stands in each state file (docs/formats/state.md, section 10).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Coverage {
    tenants: BTreeMap<String, Rolled>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Rolled {
    /// Windows that end at or before it are in the warm tier, or about to be.
    until_ms: i64,
    /// Hour -> sequence of the last record that brought a point of it.
    dirty: BTreeMap<i64, u64>,
}

impl Coverage {
    /// Points at or before `until_ms` mark their hours from now on; a watermark only rises.
    pub fn watch(&mut self, tenant: &str, until_ms: i64) {
        let rolled = self.tenants.entry(tenant.to_owned()).or_default();
        rolled.until_ms = rolled.until_ms.max(until_ms);
    }

    /// Nothing of this tenant is rolled any more.
    pub fn leave(&mut self, tenant: &str) {
        self.tenants.remove(tenant);
    }

    pub fn until_ms(&self, tenant: &str) -> Option<i64> {
        self.tenants.get(tenant).map(|rolled| rolled.until_ms)
    }

    /// The record `sequence` brings points of these times.
    pub fn mark(&mut self, tenant: &str, times_ms: impl Iterator<Item = i64>, sequence: u64) {
        let Some(rolled) = self.tenants.get_mut(tenant) else { return };
        let mut last = i64::MIN;
        for time_ms in times_ms.filter(|&time_ms| time_ms <= rolled.until_ms) {
            let hour = hour_of(time_ms);
            if hour != last {
                rolled.dirty.insert(hour, sequence);
                last = hour;
            }
        }
    }

    /// Windows of (from_ms, until_ms] are as every record before `sequence` makes them.
    pub fn forget(&mut self, tenant: &str, from_ms: i64, until_ms: i64, sequence: u64) {
        if let Some(rolled) = self.tenants.get_mut(tenant) {
            let within = |hour: i64| hour >= from_ms && hour + HOUR_MS <= until_ms;
            rolled.dirty.retain(|&hour, marked| !within(hour) || *marked >= sequence);
        }
    }

    /// Starts of the hours that got points since they were rolled, ascending.
    pub fn dirty_hours(&self, tenant: &str) -> Vec<i64> {
        let rolled = self.tenants.get(tenant);
        rolled.map_or_else(Vec::new, |rolled| rolled.dirty.keys().copied().collect())
    }

    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Lay what a state file says over what the catalog has said already.
    pub fn load(&mut self, bytes: &[u8]) -> bool {
        let Ok(loaded) = serde_json::from_slice::<Coverage>(bytes) else { return false };
        for (tenant, loaded) in loaded.tenants {
            let rolled = self.tenants.entry(tenant).or_default();
            rolled.until_ms = rolled.until_ms.max(loaded.until_ms);
            rolled.dirty = loaded.dirty;
        }
        true
    }
}

/// What the evaluate protocol's `coverage` answers.
#[derive(Debug, Serialize)]
pub struct CoverageAnswer {
    /// Starts of the hours that are to be read from raw, ascending.
    pub dirty_hours: Vec<i64>,
    /// The first record that the answer does not know.
    pub applied: u64,
    /// Orders to delete that are pending: files of windows that were made before hold what they
    /// take.
    pub deletions: Vec<PendingOrder>,
}

/// An order of one tenant, as readers of windows go by it.
#[derive(Debug, Serialize)]
pub struct PendingOrder {
    pub number: u64,
    pub matchers: Vec<Matcher>,
    pub before_ms: Option<i64>,
}

impl Shard {
    /// `Coverage::watch`, before points are pinned for windows up to `until_ms`.
    pub fn watch_coverage(&self, tenant: &str, until_ms: i64) {
        // Between two records: none is half marked.
        let _applier = self.applier.lock();
        self.coverage.write().watch(tenant, until_ms);
    }

    pub fn leave_coverage(&self, tenant: &str) {
        let _applier = self.applier.lock();
        self.coverage.write().leave(tenant);
    }

    pub fn forget_dirty(&self, tenant: &str, from_ms: i64, until_ms: i64, sequence: u64) {
        self.coverage.write().forget(tenant, from_ms, until_ms, sequence);
    }

    /// Mark the hour of this time by hand, as the newest record would: it is to be rolled again.
    pub fn mark_hour(&self, tenant: &str, time_ms: i64) {
        let _applier = self.applier.lock();
        let newest = self.applied.get().unwrap_or(0).saturating_sub(1);
        self.coverage.write().mark(tenant, std::iter::once(time_ms), newest);
    }

    pub fn coverage(&self, tenant: &str) -> CoverageAnswer {
        let applied = self.applied.get().unwrap_or(0);
        let deletions = self.points.read().pending_orders(tenant);
        CoverageAnswer { dirty_hours: self.coverage.read().dirty_hours(tenant), applied, deletions }
    }

    /// Mark the hours of a record's good points that lie before its tenant's watermark.
    pub(super) fn mark_dirty(
        &self,
        tenant: &str,
        batch: &Batch,
        rows: &[SeriesRow],
        sequence: u64,
    ) {
        let Some(until_ms) = self.coverage.read().until_ms(tenant) else { return };
        let oldest_ms = batch.point_time_ms.iter().copied().min().unwrap_or(i64::MAX);
        let late = |h: &crate::model::HistogramPoint| h.time_ms <= until_ms;
        if oldest_ms > until_ms && !batch.histograms.iter().any(late) {
            return;
        }
        let floats = batch.point_series_index.iter().zip(&batch.point_time_ms);
        let histograms = batch.histograms.iter().map(|h| (&h.series_index, &h.time_ms));
        let kept = floats
            .chain(histograms)
            .filter(|(index, _)| rows[**index as usize] != REFUSED)
            .map(|(_, time_ms)| *time_ms);
        self.coverage.write().mark(tenant, kept, sequence);
    }

    /// An order that takes points up to within an hour leaves windows of it that only raw can make.
    pub(super) fn mark_cut(&self, order: &Order, sequence: u64) {
        if let Some(last_ms) = order.before_ms.map(|before_ms| before_ms.saturating_sub(1))
            && last_ms.rem_euclid(HOUR_MS) != 0
        {
            self.coverage.write().mark(&order.tenant, std::iter::once(last_ms), sequence);
        }
    }

    /// The same for points that folding emits.
    pub(super) fn mark_emitted(&self, registry: &Registry, emission: &Emission, sequence: u64) {
        let mut coverage = self.coverage.write();
        for (row, time_ms) in emission.points() {
            let tenant = registry.tenant_name(registry.key(row).tenant);
            coverage.mark(tenant, std::iter::once(time_ms), sequence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_holds_its_end_and_not_its_start() {
        assert_eq!(hour_of(1), 0);
        assert_eq!(hour_of(HOUR_MS), 0);
        assert_eq!(hour_of(HOUR_MS + 1), HOUR_MS);
        assert_eq!(hour_of(0), -HOUR_MS);
    }

    #[test]
    fn points_behind_the_watermark_mark_their_hours_until_they_are_rolled() {
        let mut coverage = Coverage::default();
        coverage.mark("a", [5].into_iter(), 1);
        assert_eq!(coverage, Coverage::default());
        coverage.watch("a", 3 * HOUR_MS);
        coverage.mark("a", [HOUR_MS, HOUR_MS + 1, 3 * HOUR_MS, 3 * HOUR_MS + 1].into_iter(), 7);
        assert_eq!(coverage.dirty_hours("a"), [0, HOUR_MS, 2 * HOUR_MS]);
        coverage.mark("a", [2].into_iter(), 9);
        coverage.forget("a", 0, 2 * HOUR_MS, 9);
        assert_eq!(coverage.dirty_hours("a"), [0, 2 * HOUR_MS], "the first hour came again");
        coverage.forget("a", 0, 3 * HOUR_MS - 1, 10);
        assert_eq!(coverage.dirty_hours("a"), [2 * HOUR_MS], "half an hour is not rolled");
        coverage.watch("a", HOUR_MS);
        assert_eq!(coverage.until_ms("a"), Some(3 * HOUR_MS));
        assert!(coverage.dirty_hours("b").is_empty());
        coverage.leave("a");
        assert_eq!(coverage.until_ms("a"), None);
    }

    #[test]
    fn what_a_state_file_says_is_laid_over_the_catalog() {
        let mut before = Coverage::default();
        before.watch("a", 2 * HOUR_MS);
        before.mark("a", [1].into_iter(), 3);
        let mut after = Coverage::default();
        after.watch("a", 5 * HOUR_MS);
        after.watch("b", HOUR_MS);
        assert!(after.load(&before.encode()));
        assert_eq!((after.until_ms("a"), after.until_ms("b")), (Some(5 * HOUR_MS), Some(HOUR_MS)));
        assert_eq!(after.dirty_hours("a"), [0]);
        assert!(!after.load(b"{"));
    }
}
