//! Points to windows, and windows to longer windows.
//!
//! Invariant: the same points give the same windows, whichever way they came and however long the
//! windows were in between: bit for bit on integer values, sums of others up to their last bits.

use super::columns::{Kind, WindowColumns, window_end_ms};
use super::state::{State, higher, lower};
use crate::evaluate::fold::{Fold, SumFold};
use crate::model::STALE_BITS;

/// Append the windows of one series, whose points ascend by time, and close it.
pub fn downsample(
    times_ms: &[i64],
    values: &[f64],
    window_ms: i64,
    kind: Kind,
    out: &mut WindowColumns,
) {
    // Without an early end the compiler looks at several at a time; few series have a marker.
    if values.iter().fold(false, |found, value| found | (value.to_bits() == STALE_BITS)) {
        point_by_point(times_ms, values, window_ms, kind, out);
    } else {
        column_by_column(times_ms, values, window_ms, kind, out);
    }
    out.end_series(kind);
}

/// Append the windows of the series at `windows` of `from` as longer ones, and close it.
/// `window_ms` is a multiple of the length that they have.
pub fn coarsen(from: &WindowColumns, series: usize, window_ms: i64, out: &mut WindowColumns) {
    let kind = from.kinds[series];
    let (mut end_ms, mut state) = (i64::MIN, State::EMPTY);
    for at in from.series(series) {
        let window = from.window(at);
        if window.end_ms > end_ms {
            close(&mut state, end_ms, kind, out);
            end_ms = window_end_ms(window.end_ms, window_ms);
        }
        state.merge(&State::of_window(&window, kind.fields()));
    }
    close(&mut state, end_ms, kind, out);
    out.end_series(kind);
}

fn close(state: &mut State, end_ms: i64, kind: Kind, out: &mut WindowColumns) {
    if !state.is_empty() {
        out.push(&state.to_window(end_ms, kind));
        *state = State::EMPTY;
    }
}

/// Any points, stale markers among them.
fn point_by_point(
    times_ms: &[i64],
    values: &[f64],
    window_ms: i64,
    kind: Kind,
    out: &mut WindowColumns,
) {
    let (mut end_ms, mut state) = (i64::MIN, State::EMPTY);
    for (&time_ms, &value) in times_ms.iter().zip(values) {
        if time_ms > end_ms {
            close(&mut state, end_ms, kind, out);
            end_ms = window_end_ms(time_ms, window_ms);
        }
        state.push(time_ms, value);
    }
    close(&mut state, end_ms, kind, out);
}

/// Points without markers, a column at a time.
fn column_by_column(
    times_ms: &[i64],
    values: &[f64],
    window_ms: i64,
    kind: Kind,
    out: &mut WindowColumns,
) {
    let before = out.end_ms.len();
    split(times_ms, window_ms, &mut out.end_ms, &mut out.count);
    let counts = &out.count[before..];
    let windows = out.end_ms.len();
    out.ends_stale.resize(windows, false);
    out.first_ms.extend(slices(times_ms, counts).map(|times| times[0]));
    out.first.extend(slices(values, counts).map(|values| values[0]));
    out.last_ms.extend(slices(times_ms, counts).map(|times| times[times.len() - 1]));
    out.last.extend(slices(values, counts).map(|values| values[values.len() - 1]));
    if kind != Kind::Gauge && falls(values) {
        out.dropped.extend(slices(values, counts).map(dropped));
    }
    out.dropped.resize(windows, 0.0);
    if kind != Kind::Counter {
        out.sum.extend(slices(values, counts).map(sum));
        out.minimum.extend(slices(values, counts).map(minimum));
        out.maximum.extend(slices(values, counts).map(maximum));
    }
    out.sum.resize(windows, 0.0);
    out.minimum.resize(windows, 0.0);
    out.maximum.resize(windows, 0.0);
}

/// The ends of the windows that hold points, and how many each holds.
fn split(times_ms: &[i64], window_ms: i64, end_ms: &mut Vec<i64>, counts: &mut Vec<u32>) {
    let mut at = 0;
    let mut end = i64::MIN;
    while let Some(&time_ms) = times_ms.get(at) {
        // Mostly the next window is the neighbour: no division then.
        let next = end.saturating_add(window_ms);
        end = if time_ms > end && time_ms <= next && end > i64::MIN {
            next
        } else {
            window_end_ms(time_ms, window_ms)
        };
        let from = at;
        at += 1;
        while at < times_ms.len() && times_ms[at] <= end {
            at += 1;
        }
        end_ms.push(end);
        counts.push((at - from) as u32);
    }
}

/// What each window holds of a column.
#[inline(always)]
fn slices<'a, T>(column: &'a [T], counts: &'a [u32]) -> impl Iterator<Item = &'a [T]> {
    let mut at = 0;
    counts.iter().map(move |&count| {
        let from = at;
        at += count as usize;
        &column[from..at]
    })
}

/// Is any value below the one before?
fn falls(values: &[f64]) -> bool {
    let pairs = values.iter().zip(values.iter().skip(1));
    pairs.fold(false, |found, (previous, value)| found | (value < previous))
}

#[inline(always)]
fn dropped(values: &[f64]) -> f64 {
    let mut lost = 0.0;
    for pair in values.windows(2) {
        if pair[1] < pair[0] {
            lost += pair[0];
        }
    }
    lost
}

#[inline(always)]
fn sum(values: &[f64]) -> f64 {
    let mut fold = SumFold::EMPTY;
    values.iter().for_each(|&value| fold.push(value));
    fold.exact()
}

#[inline(always)]
fn minimum(values: &[f64]) -> f64 {
    values.iter().fold(f64::NAN, |best, &value| lower(best, value))
}

#[inline(always)]
fn maximum(values: &[f64]) -> f64 {
    values.iter().fold(f64::NAN, |best, &value| higher(best, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STALE: f64 = f64::from_bits(STALE_BITS);
    const KINDS: [Kind; 3] = [Kind::Counter, Kind::Gauge, Kind::Unknown];

    fn windows(times_ms: &[i64], values: &[f64], window_ms: i64, kind: Kind) -> WindowColumns {
        let mut out = WindowColumns::default();
        downsample(times_ms, values, window_ms, kind, &mut out);
        out
    }

    /// NaN equals NaN.
    fn text(columns: &WindowColumns) -> String {
        format!("{columns:?}")
    }

    #[test]
    fn a_counter_keeps_what_it_lost_and_a_gauge_its_extremes() {
        let times = [10, 20, 60, 70, 100, 110, 300];
        let values = [5.0, 8.0, 2.0, 1.0, STALE, 7.0, STALE];
        let counter = windows(&times, &values, 60, Kind::Counter);
        assert_eq!(counter.end_ms, [60, 120, 300]);
        assert_eq!(counter.count, [3, 2, 0]);
        assert_eq!(counter.dropped, [8.0, 0.0, 0.0]);
        assert_eq!((counter.first[1], counter.last[1]), (1.0, 7.0));
        assert_eq!(counter.ends_stale, [false, false, true]);
        assert_eq!(counter.sum, [0.0; 3]);
        let gauge = windows(&times, &values, 60, Kind::Gauge);
        assert_eq!(gauge.sum, [15.0, 8.0, 0.0]);
        assert_eq!((gauge.minimum[0], gauge.maximum[0]), (2.0, 8.0));
        assert_eq!(gauge.dropped, [0.0; 3]);
    }

    #[test]
    fn values_that_are_no_numbers_are_points() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        let times = [1, 2, 3, 61, 62, 121];
        let all = windows(&times, &[nan, 2.0, -inf, nan, nan, inf], 60, Kind::Unknown);
        assert_eq!(all.count, [3, 2, 1]);
        assert_eq!((all.minimum[0], all.maximum[0]), (-inf, 2.0));
        assert!(all.minimum[1].is_nan() && all.sum[0].is_nan());
        assert_eq!(all.sum[2], inf);
        assert_eq!(all.dropped, [2.0, 0.0, 0.0]);
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            12 => (-1000i32..1_000_000).prop_map(f64::from),
            1 => Just(f64::NAN),
            1 => Just(-0.0),
            1 => Just(f64::INFINITY),
            1 => Just(f64::NEG_INFINITY),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        /// The two ways to windows agree, and so do the two ways to long windows.
        #[test]
        fn both_ways_give_the_same_windows(
            start in -200_000i64..200_000,
            points in prop::collection::vec((1i64..90_000, value()), 0..200),
            markers in prop::collection::btree_set(0usize..200, 0..20),
        ) {
            let times: Vec<i64> =
                points.iter().scan(start, |t, (gap, _)| { *t += gap; Some(*t) }).collect();
            let plain: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
            let marked: Vec<f64> = plain.iter().enumerate()
                .map(|(i, &value)| if markers.contains(&i) { STALE } else { value }).collect();
            for kind in KINDS {
                let mut slow = WindowColumns::default();
                point_by_point(&times, &plain, 60_000, kind, &mut slow);
                slow.end_series(kind);
                prop_assert_eq!(text(&windows(&times, &plain, 60_000, kind)), text(&slow));
                for values in [&plain, &marked] {
                    let short = windows(&times, values, 60_000, kind);
                    let mut long = WindowColumns::default();
                    coarsen(&short, 0, 3_600_000, &mut long);
                    prop_assert_eq!(text(&long), text(&windows(&times, values, 3_600_000, kind)));
                }
            }
        }
    }
}
