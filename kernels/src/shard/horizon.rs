//! The raw horizon: points older than their tenant's raw points are kept are refused at the door.
//!
//! Invariant: what is refused follows from the record's header and body alone (the age stands in
//! the header), so that a replay refuses the same points whatever the ages are by then.

use super::owner::Shard;
use crate::model::{Batch, RejectReason, SeriesRow};
use std::collections::HashMap;

const DAY_MS: i64 = 86_400_000;

/// Days that a tenant's points may lie behind the time at which they are received; a tenant that is
/// not in it, or has 0, may send any.
pub type AgeDays = HashMap<String, u8>;

impl Shard {
    pub fn set_age_days(&self, age_days: AgeDays) {
        *self.age_days.write() = age_days;
    }

    pub(super) fn age_days_of(&self, tenant: &str) -> u8 {
        self.age_days.read().get(tenant).copied().unwrap_or(0)
    }
}

/// Take out of `batch` what is more than `age_days` older than `received_ms`, and count it.
pub fn refuse_old(batch: &mut Batch, received_ms: i64, age_days: u8) {
    if age_days == 0 {
        return;
    }
    let oldest_ms = received_ms.saturating_sub(i64::from(age_days) * DAY_MS);
    let first_ms = batch.point_time_ms.iter().copied().min().unwrap_or(i64::MAX);
    if first_ms >= oldest_ms && batch.histograms.iter().all(|h| h.time_ms >= oldest_ms) {
        return;
    }
    let before = batch.points_good();
    let mut kept: Vec<SeriesRow> = vec![SeriesRow::MAX; batch.series.len()];
    keep_points(batch, oldest_ms, &mut kept);
    // A series without a point leaves no trace.
    let mut count = 0;
    let mut at = 0;
    batch.series.retain(|_| {
        let stays = kept[at] != SeriesRow::MAX;
        if stays {
            kept[at] = count;
            count += 1;
        }
        at += 1;
        stays
    });
    for index in &mut batch.point_series_index {
        *index = kept[*index as usize];
    }
    for histogram in &mut batch.histograms {
        histogram.series_index = kept[histogram.series_index as usize];
    }
    let refused = (before - batch.points_good()) as u32;
    batch.points_rejected[RejectReason::TooOld as usize] += refused;
    if batch.first_error.is_none() {
        let words = format!(
            "a point is older than {age_days} days: raw points are kept no longer, `sluiceway import` takes older ones"
        );
        batch.first_error = Some(words);
    }
}

/// Keep what is not too old; `kept` is marked where a series has a point left.
fn keep_points(batch: &mut Batch, oldest_ms: i64, kept: &mut [SeriesRow]) {
    let mut to = 0;
    for from in 0..batch.point_time_ms.len() {
        if batch.point_time_ms[from] >= oldest_ms {
            kept[batch.point_series_index[from] as usize] = 0;
            batch.point_series_index[to] = batch.point_series_index[from];
            batch.point_time_ms[to] = batch.point_time_ms[from];
            batch.point_value[to] = batch.point_value[from];
            to += 1;
        }
    }
    batch.point_series_index.truncate(to);
    batch.point_time_ms.truncate(to);
    batch.point_value.truncate(to);
    batch.histograms.retain(|histogram| histogram.time_ms >= oldest_ms);
    for histogram in &batch.histograms {
        kept[histogram.series_index as usize] = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BatchSeries, SeriesType};

    fn batch(points: &[(u32, i64)], series: u32) -> Batch {
        let one = |number| BatchSeries {
            label_hash: u128::from(number),
            label_start: 0,
            label_end: 0,
            canonical: true,
            series_type: SeriesType::Unknown,
        };
        Batch {
            series: (0..series).map(one).collect(),
            point_series_index: points.iter().map(|(index, _)| *index).collect(),
            point_time_ms: points.iter().map(|(_, time_ms)| *time_ms).collect(),
            point_value: (0..points.len()).map(|value| value as f64).collect(),
            points_received: points.len() as u32,
            ..Batch::default()
        }
    }

    #[test]
    fn old_points_go_with_their_series_and_are_counted() {
        let now = 100 * DAY_MS;
        let old = now - 2 * DAY_MS - 1;
        let mut batch = batch(&[(0, old), (1, now), (1, old), (2, now - 2 * DAY_MS), (0, 5)], 3);
        refuse_old(&mut batch, now, 2);
        let hashes: Vec<u128> = batch.series.iter().map(|series| series.label_hash).collect();
        assert_eq!(hashes, [1, 2]);
        assert_eq!(batch.point_series_index, [0, 1]);
        assert_eq!(batch.point_value, [1.0, 3.0]);
        assert_eq!(batch.points_rejected[RejectReason::TooOld as usize], 3);
        assert!(batch.first_error.is_some());
    }

    #[test]
    fn nothing_is_too_old_without_an_age_or_within_it() {
        let now = 100 * DAY_MS;
        let mut young = batch(&[(0, now - DAY_MS)], 1);
        refuse_old(&mut young, now, 1);
        let mut ageless = batch(&[(0, 1)], 1);
        refuse_old(&mut ageless, now, 0);
        assert_eq!((young.points_good(), ageless.points_good()), (1, 1));
        assert!(young.first_error.is_none());
    }
}
