//! Sums, means, minima and maxima over sliding windows.
//!
//! Short windows are folded point by point. Long ones are put together from partial folds of fixed
//! blocks of the series, so that overlapping windows do not cost their length each: unlike prefix
//! sums, folds never subtract, so no digit is lost.

use super::functions::Meter;
use super::numeric::{Mean, add, total};
use super::window::{Steps, each_window};

/// A fold of values that can be taken in pieces.
pub trait Fold: Copy {
    const EMPTY: Self;
    fn push(&mut self, value: f64);
    fn merge(&mut self, later: &Self);
    /// None where only the fold point by point has the exact answer.
    fn answer(&self) -> Option<f64>;
    /// The answer of a fold point by point.
    fn exact(&self) -> f64;
}

const BLOCK_POINTS: usize = 32;
const LONG_WINDOW_POINTS: usize = 4 * BLOCK_POINTS;

/// Fold every window of a series.
pub fn fold_windows<F: Fold>(
    times_ms: &[i64],
    values: &[f64],
    steps: &Steps<'_>,
    meter: &mut Meter<'_>,
    out: &mut [f64],
    present: &mut [bool],
) {
    let mut blocks: Vec<F> = Vec::new();
    each_window(times_ms, steps.end_ms, steps.range_ms, |step, lo, hi| {
        if !meter.spend((hi - lo).min(LONG_WINDOW_POINTS + (hi - lo) / BLOCK_POINTS)) {
            return;
        }
        present[step] = true;
        if hi - lo < LONG_WINDOW_POINTS {
            out[step] = fold::<F>(&values[lo..hi]).exact();
            return;
        }
        if blocks.is_empty() {
            blocks.extend(values.chunks(BLOCK_POINTS).map(fold::<F>));
        }
        let (first, last) = (lo.div_ceil(BLOCK_POINTS), hi / BLOCK_POINTS);
        let mut whole = fold::<F>(&values[lo..first * BLOCK_POINTS]);
        blocks[first..last].iter().for_each(|block| whole.merge(block));
        whole.merge(&fold::<F>(&values[last * BLOCK_POINTS..hi]));
        out[step] = whole.answer().unwrap_or_else(|| fold::<F>(&values[lo..hi]).exact());
    });
}

#[inline(always)]
fn fold<F: Fold>(values: &[f64]) -> F {
    let mut state = F::EMPTY;
    values.iter().for_each(|&value| state.push(value));
    state
}

#[derive(Clone, Copy)]
pub struct SumFold {
    pub sum: f64,
    pub compensation: f64,
}

impl Fold for SumFold {
    const EMPTY: SumFold = SumFold { sum: 0.0, compensation: 0.0 };
    #[inline(always)]
    fn push(&mut self, value: f64) {
        (self.sum, self.compensation) = add(value, self.sum, self.compensation);
    }
    fn merge(&mut self, later: &SumFold) {
        (self.sum, self.compensation) = add(later.sum, self.sum, self.compensation);
        self.compensation += later.compensation;
    }
    fn answer(&self) -> Option<f64> {
        self.sum.is_finite().then(|| self.exact())
    }
    fn exact(&self) -> f64 {
        total(self.sum, self.compensation)
    }
}

#[derive(Clone, Copy)]
pub struct MeanFold(Mean);

impl Fold for MeanFold {
    const EMPTY: MeanFold =
        MeanFold(Mean { value: 0.0, compensation: 0.0, count: 0.0, incremental: false });
    #[inline(always)]
    fn push(&mut self, value: f64) {
        self.0.push(value);
    }
    fn merge(&mut self, later: &MeanFold) {
        self.0.merge(later.0);
    }
    fn answer(&self) -> Option<f64> {
        (!self.0.incremental && self.0.value.is_finite()).then(|| self.0.value())
    }
    fn exact(&self) -> f64 {
        self.0.value()
    }
}

/// Minimum or maximum; NaN only where there is nothing else.
#[derive(Clone, Copy)]
pub struct ExtremeFold<const MAXIMUM: bool>(pub f64);

impl<const MAXIMUM: bool> Fold for ExtremeFold<MAXIMUM> {
    const EMPTY: Self = ExtremeFold(f64::NAN);
    #[inline(always)]
    fn push(&mut self, value: f64) {
        let better = if MAXIMUM { value > self.0 } else { value < self.0 };
        if better || self.0.is_nan() {
            self.0 = value;
        }
    }
    fn merge(&mut self, later: &Self) {
        self.push(later.0);
    }
    fn answer(&self) -> Option<f64> {
        Some(self.0)
    }
    fn exact(&self) -> f64 {
        self.0
    }
}
