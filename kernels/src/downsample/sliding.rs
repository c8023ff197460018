//! Folds of a range that slides over a column.
//!
//! Invariant: both ends of the ranges only grow; an element is folded twice at most, however many
//! ranges overlap on it. Nothing is ever subtracted, so no digit is lost.

use crate::evaluate::fold::Fold;

/// The range is kept in two halves: suffix folds of the older one, one fold of the newer one.
pub struct Sliding<F> {
    /// Fold `i` is that of `suffixes_from + i .. middle`.
    suffixes: Vec<F>,
    suffixes_from: usize,
    middle: usize,
    until: usize,
    /// The fold of `middle..until`.
    newer: F,
}

impl<F: Fold> Default for Sliding<F> {
    fn default() -> Sliding<F> {
        Sliding { suffixes: Vec::new(), suffixes_from: 0, middle: 0, until: 0, newer: F::EMPTY }
    }
}

impl<F: Fold> Sliding<F> {
    /// Begin with another column.
    pub fn reset(&mut self) {
        self.suffixes.clear();
        (self.suffixes_from, self.middle, self.until, self.newer) = (0, 0, 0, F::EMPTY);
    }

    /// The fold of `lo..hi`; neither is below its predecessor.
    #[inline(always)]
    pub fn fold(&mut self, lo: usize, hi: usize, one: impl Fn(usize) -> F) -> F {
        if lo >= self.until {
            (self.middle, self.until, self.newer) = (lo, lo, F::EMPTY);
        } else if lo > self.middle {
            self.turn(lo, &one);
        }
        for i in self.until..hi {
            self.newer.merge(&one(i));
        }
        self.until = self.until.max(hi);
        if lo >= self.middle {
            return self.newer;
        }
        let mut whole = self.suffixes[lo - self.suffixes_from];
        whole.merge(&self.newer);
        whole
    }

    /// What is held from `lo` on becomes the older half.
    fn turn(&mut self, lo: usize, one: impl Fn(usize) -> F) {
        self.suffixes.clear();
        self.suffixes.resize(self.until - lo, F::EMPTY);
        let mut fold = F::EMPTY;
        for i in (lo..self.until).rev() {
            let mut longer = one(i);
            if i + 1 < self.until {
                longer.merge(&fold);
            }
            fold = longer;
            self.suffixes[i - lo] = fold;
        }
        (self.suffixes_from, self.middle, self.newer) = (lo, self.until, F::EMPTY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::fold::{ExtremeFold, SumFold};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_sliding_fold_is_the_fold_of_its_range(
            values in prop::collection::vec(-1000i32..1000, 1..200),
            moves in prop::collection::vec((0usize..30, 0usize..30), 0..100),
        ) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let (mut sums, mut lowest) = (Sliding::default(), Sliding::default());
            let (mut lo, mut hi) = (0, 0);
            for (up, on) in moves {
                hi = (hi + on).min(values.len());
                lo = (lo + up).min(hi);
                if lo == hi {
                    continue;
                }
                let sum = sums.fold(lo, hi, |i| SumFold { sum: values[i], compensation: 0.0 });
                let low: ExtremeFold<false> = lowest.fold(lo, hi, |i| ExtremeFold(values[i]));
                prop_assert_eq!(sum.exact(), values[lo..hi].iter().sum::<f64>());
                let want = values[lo..hi].iter().copied().fold(f64::INFINITY, f64::min);
                prop_assert_eq!(low.0, want);
            }
        }
    }
}
