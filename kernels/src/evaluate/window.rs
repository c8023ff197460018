//! Windows over one series: which points each evaluation step sees.
//!
//! Invariant: windows are left-open, (end - range, end], as PromQL's; ends never decrease, so two
//! pointers walk the series once for all steps.

use crate::model::STALE_BITS;

/// When a selector is evaluated. The slices are parallel, one entry a step.
#[derive(Clone, Copy, Debug)]
pub struct Steps<'a> {
    /// The evaluation times of the query.
    pub eval_ms: &'a [i64],
    /// Where the windows end: evaluation time less offset, or the fixed `@` time.
    pub end_ms: &'a [i64],
    pub range_ms: i64,
}

impl Steps<'_> {
    pub fn count(&self) -> usize {
        self.end_ms.len()
    }
}

/// Call `visit(step, lo, hi)` for every step whose window `points[lo..hi]` is not empty.
#[inline(always)]
pub fn each_window(
    times_ms: &[i64],
    end_ms: &[i64],
    range_ms: i64,
    mut visit: impl FnMut(usize, usize, usize),
) {
    let Some(&first_end) = end_ms.first() else { return };
    let mut hi = Pointer::at(times_ms, first_end);
    let mut lo = Pointer::at(times_ms, first_end - range_ms);
    for (step, &end) in end_ms.iter().enumerate() {
        hi.advance(times_ms, end);
        lo.advance(times_ms, end - range_ms);
        if lo.index < hi.index {
            visit(step, lo.index, hi.index);
        }
    }
}

/// First index whose time is after a bound that only grows. The stride of the last move is tried
/// first: on a regular grid a move costs two comparisons.
struct Pointer {
    index: usize,
    stride: usize,
}

impl Pointer {
    fn at(times_ms: &[i64], bound_ms: i64) -> Pointer {
        Pointer { index: times_ms.partition_point(|&t| t <= bound_ms), stride: 1 }
    }

    #[inline(always)]
    fn advance(&mut self, times_ms: &[i64], bound_ms: i64) {
        let start = self.index;
        let guess = start + self.stride;
        if self.stride > 0 && guess <= times_ms.len() && times_ms[guess - 1] <= bound_ms {
            self.index = guess;
        }
        while self.index < times_ms.len() && times_ms[self.index] <= bound_ms {
            self.index += 1;
        }
        self.stride = self.index - start;
    }
}

/// A copy of a series without its stale markers.
#[derive(Default)]
pub struct FreshPoints {
    times_ms: Vec<i64>,
    values: Vec<f64>,
}

impl FreshPoints {
    /// The points that are no stale markers; borrowed from the input where there is none.
    pub fn of<'a>(&'a mut self, times_ms: &'a [i64], values: &'a [f64]) -> (&'a [i64], &'a [f64]) {
        if !values.iter().fold(false, |found, v| found | (v.to_bits() == STALE_BITS)) {
            return (times_ms, values);
        }
        self.times_ms.clear();
        self.values.clear();
        for (&t, &v) in times_ms.iter().zip(values) {
            if v.to_bits() != STALE_BITS {
                self.times_ms.push(t);
                self.values.push(v);
            }
        }
        (&self.times_ms, &self.values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_left_open() {
        let mut seen = Vec::new();
        each_window(&[0, 10, 20, 30], &[0, 20, 30, 100], 20, |k, lo, hi| seen.push((k, lo, hi)));
        assert_eq!(seen, [(0, 0, 1), (1, 1, 3), (2, 2, 4)]);
    }

    proptest::proptest! {
        #[test]
        fn windows_are_what_a_search_finds(
            gaps in proptest::collection::vec(1i64..40, 0..60),
            start in -50i64..50, step in 0i64..60, count in 0usize..40, range in 1i64..200,
        ) {
            let times: Vec<i64> = gaps.iter().scan(0, |t, g| { *t += g; Some(*t) }).collect();
            let ends: Vec<i64> = (0..count as i64).map(|k| start + k * step).collect();
            let mut seen = Vec::new();
            each_window(&times, &ends, range, |k, lo, hi| seen.push((k, lo, hi)));
            let want: Vec<_> = ends.iter().enumerate().filter_map(|(k, &end)| {
                let lo = times.iter().filter(|&&t| t <= end - range).count();
                let hi = times.iter().filter(|&&t| t <= end).count();
                (lo < hi).then_some((k, lo, hi))
            }).collect();
            proptest::prop_assert_eq!(seen, want);
        }
    }
}
