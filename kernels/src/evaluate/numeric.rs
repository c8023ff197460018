//! Small numbers' business shared by range functions and aggregations.
//!
//! Invariant: sums carry a Neumaier compensation, as PromQL's reference does; `sum + compensation`
//! is the value, except where the sum is infinite.

use std::cmp::Ordering;

/// One step of a compensated sum.
#[inline(always)]
pub fn add(value: f64, sum: f64, compensation: f64) -> (f64, f64) {
    let total = sum + value;
    if total.is_infinite() {
        return (total, 0.0);
    }
    let lost = if sum.abs() >= value.abs() { (sum - total) + value } else { (value - total) + sum };
    (total, compensation + lost)
}

/// The value of a compensated sum.
#[inline(always)]
pub fn total(sum: f64, compensation: f64) -> f64 {
    if sum.is_infinite() { sum } else { sum + compensation }
}

/// Mean that sums as long as the sum is finite and goes on incrementally once it would overflow.
#[derive(Clone, Copy, Default, Debug)]
pub struct Mean {
    /// The sum, or the mean where `incremental`.
    pub value: f64,
    pub compensation: f64,
    pub count: f64,
    pub incremental: bool,
}

impl Mean {
    #[inline(always)]
    pub fn push(&mut self, value: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.value = value;
            return;
        }
        if !self.incremental {
            let (sum, compensation) = add(value, self.value, self.compensation);
            if !sum.is_infinite() {
                (self.value, self.compensation) = (sum, compensation);
                return;
            }
            self.become_incremental(self.count - 1.0);
        }
        let kept = (self.count - 1.0) / self.count;
        (self.value, self.compensation) =
            add(value / self.count, kept * self.value, kept * self.compensation);
    }

    #[inline(always)]
    fn become_incremental(&mut self, count: f64) {
        self.incremental = true;
        self.value /= count;
        self.compensation /= count;
    }

    /// Take in what another mean has seen.
    pub fn merge(&mut self, mut other: Mean) {
        if other.count == 0.0 {
            return;
        }
        if self.count == 0.0 {
            *self = other;
            return;
        }
        let count = self.count + other.count;
        if !self.incremental && !other.incremental {
            let (sum, compensation) = add(other.value, self.value, self.compensation);
            if !sum.is_infinite() {
                self.value = sum;
                self.compensation = compensation + other.compensation;
                self.count = count;
                return;
            }
        }
        for side in [&mut *self, &mut other] {
            if !side.incremental {
                side.become_incremental(side.count);
            }
        }
        let (left, right) = (self.count / count, other.count / count);
        let (value, compensation) =
            add(other.value * right, self.value * left, self.compensation * left);
        self.value = value;
        self.compensation = compensation + other.compensation * right;
        self.count = count;
    }

    #[inline(always)]
    pub fn value(&self) -> f64 {
        if self.incremental {
            self.value + self.compensation
        } else {
            self.value / self.count + self.compensation / self.count
        }
    }
}

/// PromQL's order of values: NaN before everything.
pub fn nan_first(a: &f64, b: &f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
    }
}

/// The q-quantile with linear interpolation. `values` is not empty and gets reordered.
pub fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let rank = q * (values.len() - 1) as f64;
    let lower = rank.floor() as usize;
    let weight = rank - rank.floor();
    let (_, low, above) = values.select_nth_unstable_by(lower, nan_first);
    let low = *low;
    let high = above.iter().copied().min_by(nan_first).unwrap_or(low);
    low * (1.0 - weight) + high * weight
}

/// Least squares over (time, value): slope per second and the value at `origin_ms`.
pub fn linear_regression(times_ms: &[i64], values: &[f64], origin_ms: i64) -> (f64, f64) {
    let first = values[0];
    let mut constant = true;
    let (mut x_sum, mut x_c, mut y_sum, mut y_c) = (0.0, 0.0, 0.0, 0.0);
    let (mut xy_sum, mut xy_c, mut xx_sum, mut xx_c) = (0.0, 0.0, 0.0, 0.0);
    for (&time_ms, &y) in times_ms.iter().zip(values) {
        constant &= y == first;
        let x = (time_ms - origin_ms) as f64 / 1e3;
        (x_sum, x_c) = add(x, x_sum, x_c);
        (y_sum, y_c) = add(y, y_sum, y_c);
        (xy_sum, xy_c) = add(x * y, xy_sum, xy_c);
        (xx_sum, xx_c) = add(x * x, xx_sum, xx_c);
    }
    // The first value is not compared with itself: a lone NaN would not be "constant" otherwise.
    if constant || (values.len() == 1) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let n = values.len() as f64;
    let (x, y, xy, xx) = (x_sum + x_c, y_sum + y_c, xy_sum + xy_c, xx_sum + xx_c);
    let slope = (xy - x * y / n) / (xx - x * x / n);
    (slope, y / n - slope * x / n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_keep_what_a_plain_sum_loses() {
        let (mut sum, mut c) = (0.0, 0.0);
        for value in [1.0, 1e100, 1.0, -1e100] {
            (sum, c) = add(value, sum, c);
        }
        assert_eq!(total(sum, c), 2.0);
    }

    #[test]
    fn means_survive_overflow_and_merge() {
        let values = [f64::MAX, f64::MAX, f64::MAX / 2.0];
        let mut whole = Mean::default();
        values.iter().for_each(|&v| whole.push(v));
        let (mut left, mut right) = (Mean::default(), Mean::default());
        left.push(values[0]);
        right.push(values[1]);
        right.push(values[2]);
        left.merge(right);
        let want = f64::MAX / 3.0 * 2.5;
        assert!((whole.value() / want - 1.0).abs() < 1e-15);
        assert!((left.value() / want - 1.0).abs() < 1e-15);
    }

    #[test]
    fn quantiles_interpolate_and_put_nan_first() {
        assert_eq!(quantile(0.75, &mut [2.0, 0.0, 1.0]), 1.5);
        assert_eq!(quantile(1.0, &mut [2.0, f64::NAN]), 2.0);
        assert!(quantile(0.0, &mut [2.0, f64::NAN]).is_nan());
        assert_eq!(quantile(-1.0, &mut [2.0]), f64::NEG_INFINITY);
    }
}
