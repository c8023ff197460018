//! What the query engine asks of a file of windows, warm or cold, on disk or in memory.
//!
//! A file holds windows of one tenant and of one length. Its series are numbered from 0, ascending
//! by `compare_labels`, then by kind: labels whose kind changed stand twice, with windows apart.

use super::columns::{Fields, WindowColumns};
use super::mark::{Mark, Marked};
use super::read_buffers::ReadBuffers;
use super::view::Piece;
use crate::error::{KernelError, Result};
use crate::labels::{LabelTable, METRIC_NAME};
use crate::shard::matcher::Matcher;
use std::cmp::Ordering;
use std::ops::Range;

pub trait WindowFile: Send + Sync {
    fn window_ms(&self) -> i64;

    fn series_count(&self) -> usize;

    /// Numbers of the series that pass all matchers, ascending.
    ///
    /// Errors: a matcher's regular expression (400); `sluiceway-query-series-limit` (422) where
    /// more than `series_max` match.
    fn select(&self, matchers: &[Matcher], series_max: usize) -> Result<Vec<u32>>;

    /// Of these series (ascending) those that may have windows with `end_ms` in the half-open range;
    /// a file leaves out none where that would cost more than it saves.
    fn within(&self, series: Vec<u32>, _range_ms: Range<i64>) -> Result<Vec<u32>> {
        Ok(series)
    }

    /// Labels of series, in the order asked for. A number that is not there is `Backend`.
    fn labels(&self, series: &[u32]) -> Result<LabelTable>;

    /// Names of the labels of the matching series, ascending.
    fn label_names(&self, matchers: &[Matcher]) -> Result<Vec<String>>;

    /// Values of one label over the matching series, ascending.
    fn label_values(&self, name: &str, matchers: &[Matcher]) -> Result<Vec<String>>;

    /// Append the windows with `end_ms` in the half-open range of these series (ascending), each
    /// closed by `end_series`, also where none is in range. Columns outside `fields` (and outside
    /// the series' kind) may hold zeros; `end_ms` is always there. Returns bytes read.
    fn read(
        &self,
        series: &[u32],
        range_ms: Range<i64>,
        fields: Fields,
        out: &mut WindowColumns,
    ) -> Result<u64>;

    /// `read` for a function that needs `asked`: where a series' kind does not keep all of that,
    /// what stands in for it comes as well, for all of these series. Replaces `out`. Returns bytes
    /// read, and the columns that were: `Piece::of` wants them.
    fn read_for(
        &self,
        series: &[u32],
        range_ms: Range<i64>,
        asked: Fields,
        out: &mut WindowColumns,
    ) -> Result<(u64, Fields)> {
        out.clear();
        let bytes = self.read(series, range_ms.clone(), asked, out)?;
        if out.kinds.iter().all(|kind| kind.satisfied(asked, asked)) {
            return Ok((bytes, asked));
        }
        // Counters asked for sums or extremes: seldom enough to read them twice.
        out.clear();
        let more = asked.with(Fields::STAND_INS);
        Ok((bytes + self.read(series, range_ms, more, out)?, more))
    }

    /// Hand each of these series' windows, with its place among them, to `visit` as `read_for` would
    /// have read them, in as many pieces in time order as they stand in. A series without windows
    /// is left out. Returns bytes read.
    fn visit(
        &self,
        series: &[u32],
        range_ms: Range<i64>,
        asked: Fields,
        buffers: &mut ReadBuffers,
        visit: &mut dyn FnMut(usize, Piece<'_>) -> Result<()>,
    ) -> Result<u64> {
        let (bytes, read) = self.read_for(series, range_ms, asked, &mut buffers.columns)?;
        for i in 0..series.len() {
            let piece = Piece::of(&buffers.columns, i, read);
            if !piece.range.is_empty() {
                visit(i, piece)?;
            }
        }
        Ok(bytes)
    }

    /// Bytes that it holds in memory while it is open. They do not change.
    fn memory_bytes(&self) -> usize {
        0
    }

    /// What was done to any of the series on the way here.
    fn marked(&self) -> Marked {
        Marked::default()
    }

    /// What was done to each of these series.
    fn marks(&self, series: &[u32]) -> Result<Vec<Mark>> {
        Ok(vec![Mark::NONE; series.len()])
    }

    /// Names of labels that series lost on the way here, ascending.
    fn taken(&self) -> &[String] {
        &[]
    }
}

/// The order of series in a file: by metric name, then by labels, name before value, as bytes.
pub fn compare_labels(a: &LabelTable, i: usize, b: &LabelTable, j: usize) -> Ordering {
    let metric = a.value(i, METRIC_NAME).cmp(b.value(j, METRIC_NAME));
    metric.then_with(|| a.labels(i).cmp(b.labels(j)))
}

pub(super) fn too_many(found: u64, series_max: usize) -> KernelError {
    let message = format!(
        "the query selects {found} series of a rollup, the limit is {series_max}: narrow the selector"
    );
    KernelError::client(422, "sluiceway-query-series-limit", message)
}

pub(super) fn unknown_series(number: u32, count: usize) -> KernelError {
    KernelError::Backend(format!("window file: series {number} of {count}"))
}
