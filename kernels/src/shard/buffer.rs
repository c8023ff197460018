//! The column buffer: float points applied since the last freeze, and histograms beside them.
//!
//! Points land in an unsorted tail of columns; every 64 Ki of them become a sorted, immutable run,
//! and eight runs of one level become one of the next. Invariant: runs stand oldest first, the
//! tail is the newest, and within a run each (row, time) occurs once; so the last one met wins.

use crate::model::SeriesRow;
use std::sync::Arc;

pub const RUN_POINTS: usize = 64 * 1024;
const RUN_FAN_IN: usize = 8;

/// Sorted points: distinct rows ascending, row `i` owns `starts[i]..starts[i + 1]`, by time.
#[derive(Default)]
pub struct Run {
    rows: Vec<SeriesRow>,
    starts: Vec<u32>,
    times_ms: Vec<i64>,
    values: Vec<f64>,
    level: u8,
    min_ms: i64,
    max_ms: i64,
}

impl Run {
    /// Sort points given in the order applied; of equal (row, time) the last stays.
    pub fn build(rows: &[SeriesRow], times_ms: &[i64], values: &[f64]) -> Run {
        let mut order: Vec<u64> =
            rows.iter().enumerate().map(|(i, &row)| u64::from(row) << 32 | i as u64).collect();
        sort_by_high_bits(&mut order, 32);
        let mut writer = RunWriter::with_capacity(rows.len());
        for group in order.chunk_by_mut(|a, b| a >> 32 == b >> 32) {
            writer.begin((group[0] >> 32) as SeriesRow);
            let time = |item: u64| times_ms[(item & 0xffff_ffff) as usize];
            if !group.is_sorted_by_key(|&item| time(item)) {
                group.sort_by_key(|&item| time(item));
            }
            for &item in group.iter() {
                writer.point(time(item), values[(item & 0xffff_ffff) as usize]);
            }
        }
        writer.finish(0)
    }

    /// Merge runs given oldest first.
    pub fn merge(runs: &[Arc<Run>], level: u8) -> Run {
        debug_assert!(runs.len() < 1 << 16);
        let mut order: Vec<u64> = Vec::with_capacity(runs.iter().map(|r| r.rows.len()).sum());
        for (number, run) in runs.iter().enumerate() {
            order.extend(run.rows.iter().map(|&row| u64::from(row) << 16 | number as u64));
        }
        sort_by_high_bits(&mut order, 16);
        let mut cursors = vec![0_usize; runs.len()];
        let mut writer = RunWriter::with_capacity(runs.iter().map(|r| r.point_count()).sum());
        let mut last_row = None;
        for item in order {
            let (row, number) = ((item >> 16) as SeriesRow, (item & 0xffff) as usize);
            if last_row != Some(row) {
                writer.begin(row);
                last_row = Some(row);
            }
            let (_, times_ms, values) = runs[number].row_at(cursors[number]);
            cursors[number] += 1;
            writer.slice(times_ms, values);
        }
        writer.finish(level)
    }

    pub fn point_count(&self) -> usize {
        self.times_ms.len()
    }

    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// The `index`-th row with its points.
    pub fn row_at(&self, index: usize) -> (SeriesRow, &[i64], &[f64]) {
        let (a, b) = (self.starts[index] as usize, self.starts[index + 1] as usize);
        (self.rows[index], &self.times_ms[a..b], &self.values[a..b])
    }

    pub fn rows(&self) -> &[SeriesRow] {
        &self.rows
    }

    /// May a point of `[from_ms, until_ms)` be here?
    pub fn overlaps(&self, from_ms: i64, until_ms: i64) -> bool {
        !self.times_ms.is_empty() && self.min_ms < until_ms && from_ms <= self.max_ms
    }

    pub fn time_range_ms(&self) -> Option<(i64, i64)> {
        (!self.times_ms.is_empty()).then_some((self.min_ms, self.max_ms))
    }

    /// Points of `row` within `[from_ms, until_ms)`. `cursor` makes ascending rows cheap: it
    /// gallops from where the last look-up ended, and starts again when rows step back.
    pub fn seek(
        &self,
        cursor: &mut usize,
        row: SeriesRow,
        from_ms: i64,
        until_ms: i64,
    ) -> (&[i64], &[f64]) {
        let mut low = *cursor;
        if self.rows.get(low).is_none_or(|&at| at > row) {
            low = 0;
        }
        let mut step = 1;
        while self.rows.get(low + step).is_some_and(|&at| at <= row) {
            low += step;
            step *= 2;
        }
        let high = (low + step).min(self.rows.len());
        let index = low + self.rows[low..high].partition_point(|&at| at < row);
        *cursor = index;
        if self.rows.get(index) != Some(&row) {
            return (&[], &[]);
        }
        let (_, times_ms, values) = self.row_at(index);
        let a = times_ms.partition_point(|&t| t < from_ms);
        let b = a + times_ms[a..].partition_point(|&t| t < until_ms);
        (&times_ms[a..b], &values[a..b])
    }
}

/// Builds a run row by row; keeps times ascending and unique within the row.
struct RunWriter {
    run: Run,
    row_start: usize,
}

impl RunWriter {
    fn with_capacity(points: usize) -> RunWriter {
        let run = Run {
            times_ms: Vec::with_capacity(points),
            values: Vec::with_capacity(points),
            ..Run::default()
        };
        RunWriter { run, row_start: 0 }
    }

    fn begin(&mut self, row: SeriesRow) {
        self.row_start = self.run.times_ms.len();
        self.run.rows.push(row);
        self.run.starts.push(self.row_start as u32);
    }

    /// Times ascend; of equal ones the last given stays.
    fn point(&mut self, time_ms: i64, value: f64) {
        let run = &mut self.run;
        if run.times_ms[self.row_start..].last() == Some(&time_ms) {
            let last = run.values.len() - 1;
            run.values[last] = value;
        } else {
            run.times_ms.push(time_ms);
            run.values.push(value);
        }
    }

    fn slice(&mut self, times_ms: &[i64], values: &[f64]) {
        append_newer(
            &mut self.run.times_ms,
            &mut self.run.values,
            self.row_start,
            times_ms,
            values,
        );
    }

    fn finish(mut self, level: u8) -> Run {
        self.run.starts.push(self.run.times_ms.len() as u32);
        self.run.level = level;
        self.run.min_ms = self.run.times_ms.iter().copied().min().unwrap_or(0);
        self.run.max_ms = self.run.times_ms.iter().copied().max().unwrap_or(0);
        // Duplicates leave capacity behind; a run lives until the next seal.
        self.run.times_ms.shrink_to_fit();
        self.run.values.shrink_to_fit();
        self.run
    }
}

/// Append a newer sorted slice to the sorted columns from `start` on: equal times take its value.
pub fn append_newer(
    times_ms: &mut Vec<i64>,
    values: &mut Vec<f64>,
    start: usize,
    newer_times_ms: &[i64],
    newer_values: &[f64],
) {
    let Some(&first) = newer_times_ms.first() else {
        return;
    };
    if times_ms[start..].last().is_none_or(|&last| last < first) {
        times_ms.extend_from_slice(newer_times_ms);
        values.extend_from_slice(newer_values);
        return;
    }
    let overlap = start + times_ms[start..].partition_point(|&t| t < first);
    let older_times: Vec<i64> = times_ms.drain(overlap..).collect();
    let older_values: Vec<f64> = values.drain(overlap..).collect();
    let (mut old, mut new) = (0, 0);
    while old < older_times.len() || new < newer_times_ms.len() {
        let take_old = new == newer_times_ms.len()
            || (old < older_times.len() && older_times[old] < newer_times_ms[new]);
        if take_old {
            times_ms.push(older_times[old]);
            values.push(older_values[old]);
            old += 1;
        } else {
            if old < older_times.len() && older_times[old] == newer_times_ms[new] {
                old += 1;
            }
            times_ms.push(newer_times_ms[new]);
            values.push(newer_values[new]);
            new += 1;
        }
    }
}

/// Stable radix sort by the bits from `low_bit` up (at most 32 of them).
fn sort_by_high_bits(items: &mut Vec<u64>, low_bit: u32) {
    const DIGIT_BITS: u32 = 11;
    const BUCKETS: usize = 1 << DIGIT_BITS;
    let digit = |item: u64, shift: u32| (item >> shift) as usize & (BUCKETS - 1);
    let highest = items.iter().fold(0, |all, &item| all | item >> low_bit);
    if items.windows(2).all(|pair| pair[0] >> low_bit <= pair[1] >> low_bit) {
        return;
    }
    let mut other = vec![0_u64; items.len()];
    let mut shift = low_bit;
    while shift < low_bit + (u64::BITS - highest.leading_zeros()) {
        let mut ends = [0_u32; BUCKETS];
        for &item in items.iter() {
            ends[digit(item, shift)] += 1;
        }
        let mut total = 0;
        for end in &mut ends {
            total += std::mem::replace(end, total);
        }
        for &item in items.iter() {
            let end = &mut ends[digit(item, shift)];
            other[*end as usize] = item;
            *end += 1;
        }
        std::mem::swap(items, &mut other);
        shift += DIGIT_BITS;
    }
}

/// One native histogram: canonical bytes (docs/formats/histogram.md).
#[derive(Clone)]
pub struct BufferedHistogram {
    pub row: SeriesRow,
    pub time_ms: i64,
    pub bytes: Arc<[u8]>,
}

/// What came in since the last freeze, in the order applied.
#[derive(Default)]
pub struct Buffer {
    pub tail_rows: Vec<SeriesRow>,
    pub tail_times_ms: Vec<i64>,
    pub tail_values: Vec<f64>,
    pub runs: Vec<Arc<Run>>,
    pub histograms: Vec<BufferedHistogram>,
    /// Points and histograms ever added to this buffer, superseded ones included.
    pub points_added: u64,
    pub histogram_bytes: usize,
}

impl Buffer {
    pub fn push_histogram(&mut self, row: SeriesRow, time_ms: i64, bytes: &[u8]) {
        self.histogram_bytes += bytes.len() + size_of::<BufferedHistogram>() + 16;
        self.histograms.push(BufferedHistogram { row, time_ms, bytes: Arc::from(bytes) });
    }

    /// Rows that stand here now: a raw count, duplicates across runs included.
    pub fn row_points(&self) -> u64 {
        let runs: usize = self.runs.iter().map(|run| run.point_count()).sum();
        (runs + self.tail_rows.len() + self.histograms.len()) as u64
    }

    pub fn memory_bytes(&self) -> usize {
        let runs: usize = self.runs.iter().map(|r| r.point_count() * 16 + r.row_count() * 8).sum();
        runs + self.tail_rows.capacity() * 20 + self.histogram_bytes
    }

    /// Take a built run in place of the tail.
    pub fn replace_tail(&mut self, run: Run) {
        self.tail_rows.clear();
        self.tail_times_ms.clear();
        self.tail_values.clear();
        self.runs.push(Arc::new(run));
    }

    /// The newest runs to merge into one, if eight of a level have gathered.
    pub fn merge_due(&self) -> Option<Vec<Arc<Run>>> {
        let level = self.runs.last()?.level;
        let same = self.runs.iter().rev().take_while(|run| run.level == level).count();
        (same >= RUN_FAN_IN).then(|| self.runs[self.runs.len() - RUN_FAN_IN..].to_vec())
    }

    /// Put the merger of the newest eight runs in their place.
    pub fn replace_newest(&mut self, merged: Run) {
        self.runs.truncate(self.runs.len() - RUN_FAN_IN);
        self.runs.push(Arc::new(merged));
    }

    /// Merge eight runs (given by `merge_due`) one level up.
    pub fn merge_up(runs: &[Arc<Run>]) -> Run {
        let level = runs.iter().map(|run| run.level).max().unwrap_or(0);
        Run::merge(runs, level.saturating_add(1))
    }

    /// The tail's points of the rows in `wanted`, in the order applied; all where it is None.
    pub fn tail_copy(&self, wanted: Option<&RowSet>) -> (Vec<SeriesRow>, Vec<i64>, Vec<f64>) {
        let Some(wanted) = wanted else {
            return (self.tail_rows.clone(), self.tail_times_ms.clone(), self.tail_values.clone());
        };
        let mut out = (Vec::new(), Vec::new(), Vec::new());
        for (i, &row) in self.tail_rows.iter().enumerate() {
            if wanted.contains(row) {
                out.0.push(row);
                out.1.push(self.tail_times_ms[i]);
                out.2.push(self.tail_values[i]);
            }
        }
        out
    }
}

/// A set of rows as a bitmap over their span: asked once per point of the tail.
pub struct RowSet {
    first: SeriesRow,
    words: Vec<u64>,
}

impl RowSet {
    pub fn new(rows: impl Iterator<Item = SeriesRow> + Clone) -> RowSet {
        let first = rows.clone().min().unwrap_or(0);
        let last = rows.clone().max().unwrap_or(0);
        let mut words = vec![0_u64; (last - first) as usize / 64 + 1];
        for row in rows {
            words[(row - first) as usize / 64] |= 1 << ((row - first) % 64);
        }
        RowSet { first, words }
    }

    pub fn contains(&self, row: SeriesRow) -> bool {
        let offset = row.wrapping_sub(self.first) as usize;
        self.words.get(offset / 64).is_some_and(|word| word >> (offset % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Points = Vec<(u32, i64, f64)>;

    fn oracle(points: &Points) -> BTreeMap<(u32, i64), f64> {
        points.iter().map(|&(row, time, value)| ((row, time), value)).collect()
    }

    fn build(points: &Points) -> Run {
        let rows: Vec<u32> = points.iter().map(|p| p.0).collect();
        let times: Vec<i64> = points.iter().map(|p| p.1).collect();
        let values: Vec<f64> = points.iter().map(|p| p.2).collect();
        Run::build(&rows, &times, &values)
    }

    fn flatten(run: &Run) -> BTreeMap<(u32, i64), f64> {
        let mut out = BTreeMap::new();
        for index in 0..run.row_count() {
            let (row, times, values) = run.row_at(index);
            assert!(times.windows(2).all(|w| w[0] < w[1]));
            out.extend(times.iter().zip(values).map(|(&t, &v)| ((row, t), v)));
        }
        assert_eq!(out.len(), run.point_count());
        out
    }

    fn points() -> impl Strategy<Value = Points> {
        let row = prop_oneof![0_u32..20, 0_u32..5_000_000];
        prop::collection::vec((row, -20_i64..20, 0.0..100.0), 0..300)
    }

    proptest! {
        #[test]
        fn runs_and_their_mergers_keep_the_last_of_equals(parts in prop::collection::vec(points(), 1..6)) {
            let runs: Vec<Arc<Run>> = parts.iter().map(|p| Arc::new(build(p))).collect();
            for (run, part) in runs.iter().zip(&parts) {
                prop_assert_eq!(flatten(run), oracle(part));
            }
            let all: Points = parts.concat();
            let merged = Run::merge(&runs, 1);
            let expected = oracle(&all);
            prop_assert_eq!(flatten(&merged), expected.clone());
            let mut cursor = 0;
            let mut rows: Vec<u32> = all.iter().map(|p| p.0 ^ 1).chain(all.iter().map(|p| p.0)).collect();
            rows.sort_unstable();
            rows.extend(0..5);
            for row in rows {
                let (times, values) = merged.seek(&mut cursor, row, -5, 7);
                let found: Vec<(i64, f64)> = times.iter().copied().zip(values.iter().copied()).collect();
                let wanted: Vec<(i64, f64)> =
                    expected.range((row, -5)..(row, 7)).map(|(k, v)| (k.1, *v)).collect();
                prop_assert_eq!(found, wanted);
            }
        }
    }

    #[test]
    fn eight_runs_of_a_level_become_one() {
        let mut buffer = Buffer::default();
        for i in 0..8 {
            assert!(buffer.merge_due().is_none());
            buffer.replace_tail(build(&vec![(1, i, 1.0), (2, 0, i as f64)]));
        }
        let due = buffer.merge_due().unwrap_or_default();
        buffer.replace_newest(Buffer::merge_up(&due));
        assert_eq!((buffer.runs.len(), buffer.row_points()), (1, 9));
        assert_eq!(buffer.runs[0].seek(&mut 0, 2, 0, 1), (&[0][..], &[7.0][..]));
    }

    #[test]
    fn a_row_set_knows_its_rows() {
        let set = RowSet::new([5, 70, 64].into_iter());
        assert_eq!((0..100).filter(|&r| set.contains(r)).collect::<Vec<_>>(), vec![5, 64, 70]);
    }
}
