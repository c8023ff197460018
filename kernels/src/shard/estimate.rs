//! How many points a selection holds, by the directories of blocks and the sizes of runs alone.
//!
//! No page is read. Within a page points are taken to be spread evenly over series and time: right
//! on the whole, wrong for a series that is much denser than its neighbours. Runs are in memory, so
//! a sample of the series is counted in them.

use super::block::PageEntry;
use super::block_reader::{BlockReader, Kind};
use super::buffer::Run;
use crate::evaluate::cost::share;
use crate::model::SeriesKey;
use std::ops::Range;

/// Keys that are looked up in a run.
const SAMPLE_KEYS_MAX: usize = 256;

/// Points of `keys` (ascending) in the range that a block is expected to hold.
pub(super) fn block_points(reader: &BlockReader, keys: &[SeriesKey], range_ms: &Range<i64>) -> u64 {
    let meta = reader.meta();
    let per_series = meta.points as f64 / meta.series.max(1) as f64;
    pages_points(reader.pages(Kind::Floats), keys, range_ms, per_series)
}

fn pages_points(
    pages: &[PageEntry],
    keys: &[SeriesKey],
    range_ms: &Range<i64>,
    per_series: f64,
) -> u64 {
    let (Some(first), Some(last)) = (keys.first(), keys.last()) else { return 0 };
    let skipped = pages.partition_point(|page| page.last < *first);
    let mut left = keys;
    let mut total = 0_u64;
    for page in pages[skipped..].iter().take_while(|page| page.first <= *last) {
        // The last key of a page may go on in the next: it stays among those left.
        left = &left[left.partition_point(|key| *key < page.first)..];
        let selected = left.partition_point(|key| *key <= page.last);
        if selected > 0 {
            // A page of one series holds a part of it, whatever its neighbours have.
            let alone = page.first == page.last;
            let expected = if alone { f64::INFINITY } else { selected as f64 * per_series };
            let points = expected.min(f64::from(page.points)).ceil() as u64;
            total = total.saturating_add(share(points, page.min_ms, page.max_ms, range_ms));
        }
    }
    total
}

/// Points of `keys` (ascending) in the range that a run is expected to hold: those of a sample of
/// the keys, counted.
pub(super) fn run_points(run: &Run, keys: &[SeriesKey], range_ms: &Range<i64>) -> u64 {
    let stride = keys.len().div_ceil(SAMPLE_KEYS_MAX).max(1);
    let (mut cursor, mut sampled, mut points) = (0, 0_u64, 0_u64);
    for key in keys.iter().step_by(stride) {
        points += run.seek(&mut cursor, key.row, range_ms.start, range_ms.end).0.len() as u64;
        sampled += 1;
    }
    (points as f64 * keys.len() as f64 / sampled.max(1) as f64).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(row: u32) -> SeriesKey {
        SeriesKey { tenant: 0, metric: 0, row }
    }

    fn page(first: u32, last: u32, points: u32, min_ms: i64, max_ms: i64) -> PageEntry {
        let (first, last) = (key(first), key(last));
        PageEntry { offset: 0, length: 0, crc32: 0, points, first, last, min_ms, max_ms }
    }

    #[test]
    fn pages_are_counted_by_the_series_selected_in_them() {
        // 10 series of 100 points in a page, then a series of 5,000 points alone in three.
        let mut pages = vec![page(0, 9, 1_000, 0, 99), page(10, 19, 1_000, 0, 99)];
        pages.extend((0..3).map(|part| page(20, 20, 2_000, part * 100, part * 100 + 99)));
        let all: Vec<SeriesKey> = (0..21).map(key).collect();
        let count =
            |keys: &[SeriesKey], range: Range<i64>| pages_points(&pages, keys, &range, 100.0);
        assert_eq!(count(&all, 0..1_000), 8_000);
        assert_eq!(count(&all, 0..50), 2_000);
        assert_eq!(count(&all[3..4], 0..1_000), 100);
        assert_eq!(count(&all[8..12], 0..1_000), 400);
        assert_eq!(count(&all[20..], 0..1_000), 6_000);
        assert_eq!(count(&all[20..], 250..1_000), 1_000);
        assert_eq!(count(&[key(30)], 0..1_000), 0);
        assert_eq!(count(&[], 0..1_000), 0);
    }

    #[test]
    fn a_run_is_counted_by_a_sample() {
        let run = Run::build(&[1, 1, 2, 2, 2], &[0, 99, 0, 50, 99], &[0.0; 5]);
        assert_eq!(run_points(&run, &[key(1)], &(0..100)), 2);
        assert_eq!(run_points(&run, &[key(1), key(2), key(3)], &(0..100)), 5);
        assert_eq!(run_points(&run, &[key(2)], &(0..50)), 1);
        assert_eq!(run_points(&run, &[], &(0..50)), 0);
        let rows: Vec<u32> = (0..10_000).collect();
        let long = Run::build(&rows, &vec![7; 10_000], &vec![0.0; 10_000]);
        let keys: Vec<SeriesKey> = rows.iter().map(|&row| key(row)).collect();
        assert_eq!(run_points(&long, &keys, &(0..100)), 10_000);
        assert_eq!(run_points(&long, &keys, &(8..100)), 0);
    }
}
