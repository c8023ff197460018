//! What becomes of the points of refused series: rejected and counted, folded, or framed as dead
//! letters while there is room.
//!
//! Invariant: each point of a refused series has one outcome. A letter that cannot fit is not framed:
//! labels are parsed only for those that may.

use super::apply::{Applier, REFUSED};
use super::letters::{Letter, frame};
use super::owner::Shard;
use super::resolve::{Refused, canonical_of};
use crate::journal::record::RecordHeader;
use crate::model::{Batch, HistogramPoint, SeriesRow};
use std::ops::Range;

/// One refused series of the batch.
pub(super) struct RefusedSeries {
    series_index: u32,
    pub why: Refused,
    /// Length of its canonical labels, and where they stand if they were made.
    label_bytes: u64,
    labels: Option<Range<usize>>,
}

/// Series of one batch that were refused, ascending by their index.
#[derive(Default)]
pub struct Refusals {
    pub(super) list: Vec<RefusedSeries>,
    label_bytes: Vec<u8>,
    /// (place in `list`, time, value); sorted by place.
    floats: Vec<(u32, (i64, f64))>,
    /// (place in `list`, number in the batch); sorted by place.
    histograms: Vec<(u32, usize)>,
    /// One series' points.
    values: Vec<(i64, f64)>,
    canonical: Vec<u8>,
    scratch: Vec<u8>,
    framed: Vec<u8>,
}

impl Refusals {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.label_bytes.clear();
    }

    /// The next refused series; `labels` are its canonical ones.
    pub(super) fn add(&mut self, series_index: u32, why: Refused, labels: &[u8]) {
        let start = self.label_bytes.len();
        if !matches!(why, Refused::Rejected(_)) {
            self.label_bytes.extend_from_slice(labels);
        }
        let (labels, label_bytes) = (Some(start..self.label_bytes.len()), labels.len() as u64);
        self.list.push(RefusedSeries { series_index, why, label_bytes, labels });
    }

    /// The same, of labels that were not made.
    pub(super) fn add_unparsed(&mut self, series_index: u32, why: Refused, label_bytes: u32) {
        let label_bytes = u64::from(label_bytes);
        self.list.push(RefusedSeries { series_index, why, label_bytes, labels: None });
    }

    /// The refused points, by series; of each series in the order sent.
    fn gather(&mut self, batch: &Batch, rows: &[SeriesRow]) {
        let list = &self.list;
        // Points mostly come in the order of their series.
        let mut next = 0;
        let mut place_of = |index: u32| {
            if rows[index as usize] != REFUSED {
                return None;
            }
            while list.get(next).is_some_and(|series| series.series_index < index) {
                next += 1;
            }
            if list.get(next).is_none_or(|series| series.series_index != index) {
                next = list.partition_point(|series| series.series_index < index);
            }
            list.get(next).filter(|series| series.series_index == index).map(|_| next as u32)
        };
        let points = batch.point_series_index.iter().zip(&batch.point_time_ms);
        let points = points.zip(&batch.point_value);
        self.floats.clear();
        self.floats.extend(points.filter_map(|((&index, &time_ms), &value)| {
            place_of(index).map(|place| (place, (time_ms, value)))
        }));
        self.floats.sort_by_key(|(place, _)| *place);
        let histograms = batch.histograms.iter().enumerate();
        self.histograms.clear();
        self.histograms.extend(histograms.filter_map(|(number, histogram)| {
            place_of(histogram.series_index).map(|place| (place, number))
        }));
        self.histograms.sort_by_key(|(place, _)| *place);
    }
}

impl Shard {
    /// Points of refused series: rejected and counted, folded, or dead letters while there is room.
    pub(super) fn refuse(&self, header: &RecordHeader, batch: &Batch, applier: &mut Applier) {
        let Applier { rows, refusals, governor, fold, letters, ledger, .. } = applier;
        refusals.gather(batch, rows);
        let outcomes = ledger.tenant(&header.tenant);
        let table = governor.table();
        let mut room: Option<u64> = None;
        let Refusals { list, floats, histograms, values, canonical, scratch, framed, .. } =
            refusals;
        let mut floats = floats.chunk_by(|a, b| a.0 == b.0).peekable();
        let mut histograms = histograms.iter().peekable();
        for (place, series) in list.iter().enumerate() {
            values.clear();
            if let Some(mine) = floats.next_if(|chunk| chunk[0].0 as usize == place) {
                values.extend(mine.iter().map(|(_, point)| *point));
            }
            let mut mine: Vec<&HistogramPoint> = Vec::new();
            while let Some(&(_, number)) = histograms.next_if(|h| h.0 as usize == place) {
                mine.push(&batch.histograms[number]);
            }
            let mut points = (values.len() + mine.len()) as u64;
            let mut verdict = match series.why {
                Refused::Rejected(refusal) => {
                    outcomes.refuse(refusal, points);
                    continue;
                }
                Refused::Governed(verdict) | Refused::Folded(verdict, _) => verdict,
            };
            let (Some(table), Some(budget)) = (&table, governor.budget_of(&verdict)) else {
                continue;
            };
            let budget = &table.budgets[budget];
            if let (Refused::Folded(_, target), Some(rules)) = (series.why, &budget.fold) {
                let why = fold.take(target, rules, values);
                let strange =
                    fold.take_histograms(target, rules, &mut mine, &batch.histogram_bytes);
                let left = (values.len() + mine.len()) as u64;
                let inputs = fold.inputs_of(target.output);
                governor.folded(&verdict, target.output, points - left, inputs);
                outcomes.folded += points - left;
                points = left;
                let Some(reason) = strange.or(why) else { continue };
                verdict.reason = reason;
            }
            let room = room
                .get_or_insert_with(|| governor.letter_room(&header.tenant, header.received_ms));
            // Of each float the value alone takes eight bytes.
            let mut kept = points > 0 && series.label_bytes + 8 * values.len() as u64 <= *room;
            if kept {
                let labels = match &series.labels {
                    Some(range) => &refusals.label_bytes[range.clone()],
                    None => canonical_of(batch, series.series_index, canonical),
                };
                let letter = Letter {
                    received_ms: header.received_ms,
                    sequence: header.sequence,
                    policy_version: governor.version,
                    reason: verdict.reason,
                    action: verdict.action,
                    budget: &budget.name,
                    labels,
                    floats: values,
                    histograms: &mine,
                };
                frame(&letter, batch, scratch, framed);
                let bytes = framed.len() as u64;
                kept = governor.charge(&header.tenant, header.received_ms, bytes);
            }
            if kept {
                *room -= framed.len() as u64;
                letters.push(&header.tenant, framed, points, header.received_ms);
                outcomes.dead_lettered += points;
            } else {
                outcomes.discarded += points;
            }
            governor.refused(&verdict, points, kept);
        }
    }
}
