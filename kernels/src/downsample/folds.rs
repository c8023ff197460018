//! What ranges of windows come to, for ranges whose ends only grow.
//!
//! Invariant: a column is walked once for all ranges, however long they are and however they
//! overlap; only the columns that a function needs are looked at.

use super::columns::Fields;
use super::sliding::Sliding;
use super::state::State;
use super::view::View;
use crate::evaluate::fold::{ExtremeFold, Fold, SumFold};

/// Sums past this may have overflowed on one way and not on the other: they are never called exact.
const LARGEST_EXACT: f64 = 1e300;

/// Reused from series to series.
#[derive(Default)]
pub struct Folds {
    needed: Fields,
    known: Fields,
    /// Points before each window, where windows hold several.
    counts: Vec<u64>,
    falls: Falls,
    sums: Sliding<SumFold>,
    minima: Sliding<ExtremeFold<false>>,
    maxima: Sliding<ExtremeFold<true>>,
}

impl Folds {
    /// Get ready for the ranges of another view, of which `known` of `needed` is exact.
    pub fn prepare(&mut self, view: &View<'_>, needed: Fields, known: Fields) {
        (self.needed, self.known) = (needed, known);
        self.sums.reset();
        self.minima.reset();
        self.maxima.reset();
        self.counts.clear();
        if needed.has(Fields::COUNT)
            && let Some(counts) = view.count
        {
            let mut before = 0;
            self.counts.push(0);
            self.counts.extend(counts.iter().map(|&count| {
                before += u64::from(count);
                before
            }));
        }
        if needed.has(Fields::DROPPED) && !self.falls.find(view) {
            self.known = self.known.without(Fields::DROPPED);
        }
        let huge = |found, sum: &f64| found | (sum.abs() > LARGEST_EXACT);
        if needed.has(Fields::SUM) && view.sum.iter().fold(false, huge) {
            self.known = self.known.without(Fields::SUM);
        }
    }

    /// The state of windows `lo..hi`, at least one; neither bound is below its predecessor.
    #[inline(always)]
    pub fn state(&mut self, view: &View<'_>, lo: usize, hi: usize) -> State {
        let mut state = State {
            count: if self.counts.is_empty() {
                (hi - lo) as u64
            } else {
                self.counts[hi] - self.counts[lo]
            },
            first_ms: view.first_ms[lo],
            first: view.first[lo],
            last_ms: view.last_ms[hi - 1],
            last: view.last[hi - 1],
            fields: self.known,
            ..State::EMPTY
        };
        if self.needed.has(Fields::DROPPED) {
            state.dropped = self.falls.dropped(lo, hi);
        }
        if self.needed.has(Fields::SUM) {
            let one = |i: usize| SumFold { sum: view.sum[i], compensation: 0.0 };
            let fold = self.sums.fold(lo, hi, one);
            (state.sum, state.compensation) = (fold.sum, fold.compensation);
        }
        if self.needed.has(Fields::MINIMUM) {
            state.minimum = self.minima.fold(lo, hi, |i| ExtremeFold(view.minimum[i])).0;
        }
        if self.needed.has(Fields::MAXIMUM) {
            state.maximum = self.maxima.fold(lo, hi, |i| ExtremeFold(view.maximum[i])).0;
        }
        state
    }
}

/// Where a counter fell: inside windows and between neighbours. Most have no such place.
#[derive(Default)]
struct Falls {
    /// Twice the window's number; one more for what it lost inside.
    places: Vec<usize>,
    lost: Vec<f64>,
    from: usize,
    until: usize,
    sums: Sliding<PlainSum>,
}

impl Falls {
    /// False where a loss is too large to be added up exactly.
    fn find(&mut self, view: &View<'_>) -> bool {
        self.places.clear();
        self.lost.clear();
        self.sums.reset();
        (self.from, self.until) = (0, 0);
        let seams = view.first.iter().skip(1).zip(view.last);
        let between = seams.fold(false, |found, (first, last)| found | (first < last));
        let inside = view.dropped.is_some_and(|dropped| {
            dropped.iter().fold(false, |found, &lost| found | (lost != 0.0))
        });
        if !between && !inside {
            return true;
        }
        for i in 0..view.first.len() {
            if i > 0 && view.first[i] < view.last[i - 1] {
                self.places.push(2 * i);
                self.lost.push(view.last[i - 1]);
            }
            let inside = view.dropped.map_or(0.0, |dropped| dropped[i]);
            if inside != 0.0 {
                self.places.push(2 * i + 1);
                self.lost.push(inside);
            }
        }
        self.lost.iter().all(|lost| lost.abs() <= LARGEST_EXACT)
    }

    #[inline(always)]
    fn dropped(&mut self, lo: usize, hi: usize) -> f64 {
        let advance = |at: &mut usize, places: &[usize], bound: usize| {
            while places.get(*at).is_some_and(|&place| place < bound) {
                *at += 1;
            }
        };
        // What lies before the first window is another range's.
        advance(&mut self.from, &self.places, 2 * lo + 1);
        advance(&mut self.until, &self.places, 2 * hi);
        if self.from >= self.until {
            return 0.0;
        }
        let lost = &self.lost;
        self.sums.fold(self.from, self.until, |i| PlainSum(lost[i])).0
    }
}

/// A sum as PromQL adds up what counters lost: without compensation.
#[derive(Clone, Copy)]
struct PlainSum(f64);

impl Fold for PlainSum {
    const EMPTY: PlainSum = PlainSum(0.0);
    fn push(&mut self, value: f64) {
        self.0 += value;
    }
    fn merge(&mut self, later: &PlainSum) {
        self.0 += later.0;
    }
    fn answer(&self) -> Option<f64> {
        Some(self.0)
    }
    fn exact(&self) -> f64 {
        self.0
    }
}
