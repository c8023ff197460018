//! Extended range selectors: `anchored` and `smoothed`.
//!
//! Invariant: an extended window reaches one look-back further to the left (smoothed: to the right
//! as well) than its range; values at the range's ends are taken from there, and nothing is
//! extrapolated.

use super::functions::{Call, Extension, Function, Meter};
use super::window::{Steps, each_window};

/// Evaluate one series under an extended selector. Only rate, increase, delta, changes, resets and
/// the smoothed instant selector have a meaning here; plans refuse the others.
#[allow(clippy::too_many_arguments)]
pub fn run(
    call: &Call,
    extension: Extension,
    times_ms: &[i64],
    values: &[f64],
    steps: &Steps<'_>,
    meter: &mut Meter<'_>,
    out: &mut [f64],
    present: &mut [bool],
) {
    let smoothed = extension == Extension::Smoothed;
    let ahead_ms = if smoothed { call.lookback_ms } else { 0 };
    let reach: Vec<i64> = steps.end_ms.iter().map(|end| end + ahead_ms).collect();
    let reach_range_ms = if call.function == Function::Last {
        2 * call.lookback_ms
    } else {
        steps.range_ms + call.lookback_ms + ahead_ms
    };
    each_window(times_ms, &reach, reach_range_ms, |step, lo, hi| {
        if !meter.spend(hi - lo) {
            return;
        }
        let points = Points { times_ms: &times_ms[lo..hi], values: &values[lo..hi] };
        let (end_ms, start_ms) = (steps.end_ms[step], steps.end_ms[step] - steps.range_ms);
        let value = match call.function {
            Function::Last => points.at(end_ms),
            Function::Changes => points.anchored_pairs(start_ms, |previous, current| {
                current != previous && !(current.is_nan() && previous.is_nan())
            }),
            Function::Resets => {
                points.anchored_pairs(start_ms, |previous, current| current < previous)
            }
            function => {
                let counter = function != Function::Delta;
                points.rise(start_ms, end_ms, smoothed, counter).map(|rise| match function {
                    Function::Rate => rise / (steps.range_ms as f64 / 1000.0),
                    _ => rise,
                })
            }
        };
        if let Some(value) = value {
            out[step] = value;
            present[step] = true;
        }
    });
}

/// The points an extended window reaches; never empty.
struct Points<'a> {
    times_ms: &'a [i64],
    values: &'a [f64],
}

impl Points<'_> {
    /// The last point at or before `start_ms`, or the first point; None where all are before.
    fn first_index(&self, start_ms: i64) -> Option<usize> {
        let after = self.times_ms.partition_point(|&t| t <= start_ms);
        (after < self.times_ms.len()).then(|| after.saturating_sub(1))
    }

    fn anchored_pairs(&self, start_ms: i64, counts: impl Fn(f64, f64) -> bool) -> Option<f64> {
        let first = self.first_index(start_ms)?;
        let pairs = self.values[first..].windows(2);
        Some(pairs.filter(|pair| counts(pair[0], pair[1])).count() as f64)
    }

    fn rise(&self, start_ms: i64, end_ms: i64, smoothed: bool, counter: bool) -> Option<f64> {
        let (times, values) = (self.times_ms, self.values);
        let first = self.first_index(start_ms)?;
        if smoothed && times[first] > end_ms {
            return None;
        }
        let mut last = times.len() - 1;
        if smoothed {
            last = times.partition_point(|&t| t < end_ms).min(last);
        }
        let left = if smoothed && times[first] < start_ms {
            self.interpolate(first, start_ms, counter)
        } else {
            values[first]
        };
        let right = if smoothed && last > 0 && times[last] > end_ms {
            self.interpolate(last - 1, end_ms, counter)
        } else {
            values[last]
        };
        let mut rise = right - left;
        if counter {
            let from = first + usize::from(times[first] <= start_ms);
            let until = if times[last] >= end_ms { last } else { last + 1 };
            let mut previous = left;
            let inner = if from < until { &values[from..until] } else { &[] };
            for &value in inner.iter().chain([&right]) {
                if value < previous {
                    rise += previous;
                }
                previous = value;
            }
        }
        Some(rise)
    }

    /// The value at `at_ms` on the line from point `i` to the next; a counter that was reset
    /// between them starts from zero.
    fn interpolate(&self, i: usize, at_ms: i64, counter: bool) -> f64 {
        let (mut low, high) = (self.values[i], self.values[i + 1]);
        if counter && high < low {
            low = 0.0;
        }
        let (from, until) = (self.times_ms[i], self.times_ms[i + 1]);
        low + (high - low) * (at_ms - from) as f64 / (until - from) as f64
    }

    /// The smoothed instant value: interpolated between the neighbours of `at_ms`, or the last one.
    fn at(&self, at_ms: i64) -> Option<f64> {
        let after = self.times_ms.partition_point(|&t| t <= at_ms);
        let before = after.checked_sub(1)?;
        if self.times_ms[before] == at_ms || after == self.times_ms.len() {
            return Some(self.values[before]);
        }
        Some(self.interpolate(before, at_ms, false))
    }
}
