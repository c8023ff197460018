//! What each metric takes in a warm file: pages of windows, and what finds them.
//!
//! Invariant: the parts sum to the file's bytes. A page with series of several metrics is split by
//! their series; label pages, index and directory are split by series over the whole file.

use super::format::DIRECTORY_PAGE_ENTRIES;
use super::reader::WarmFile;
use crate::error::Result;
use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MetricUsage {
    pub metric: String,
    pub data_bytes: u64,
    pub index_bytes: u64,
    pub series: u64,
}

impl WarmFile {
    /// By metric, ascending.
    pub fn usage(&self) -> Result<Vec<MetricUsage>> {
        let counts = self.dictionary.metric_counts()?;
        let mut ends = Vec::with_capacity(counts.len());
        let mut metrics: Vec<MetricUsage> = Vec::with_capacity(counts.len());
        let mut end = 0;
        for (metric, series) in counts {
            end += series;
            ends.push(end);
            metrics.push(MetricUsage { metric, data_bytes: 0, index_bytes: 0, series });
        }
        let mut page_bytes = 0;
        for number in 0..self.root.directory_pages.len() {
            for (place, entry) in self.directory_page(number)?.iter().enumerate() {
                let page = number * DIRECTORY_PAGE_ENTRIES + place;
                let sketches = self.root.sketch_page(page).map_or(0, |place| place.length);
                let own = entry.sections.iter().map(|place| u64::from(place.length));
                let bytes = own.sum::<u64>() + u64::from(sketches);
                page_bytes += bytes;
                let first = u64::from(entry.first_series);
                let range = first..first + u64::from(entry.series);
                share(&ends, range, bytes, |at, part| metrics[at].data_bytes += part);
            }
        }
        let beside = self.bytes().saturating_sub(page_bytes);
        share(&ends, 0..self.root.series, beside, |at, part| metrics[at].index_bytes += part);
        Ok(metrics)
    }
}

/// Hand each metric with series in the range its part of the bytes; what does not divide is the
/// last one's. `ends`: where each metric's series end.
fn share(ends: &[u64], range: std::ops::Range<u64>, bytes: u64, mut add: impl FnMut(usize, u64)) {
    let whole = range.end - range.start;
    let mut left = bytes;
    let mut at = ends.partition_point(|&end| end <= range.start);
    let mut from = range.start;
    while at < ends.len() && from < range.end {
        let until = ends[at].min(range.end);
        let part = if until == range.end {
            left
        } else {
            (u128::from(bytes) * u128::from(until - from) / u128::from(whole)) as u64
        };
        add(at, part);
        left -= part;
        (from, at) = (until, at + 1);
    }
}
