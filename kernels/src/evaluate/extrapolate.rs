//! PromQL's extrapolation: a difference between two points, stretched over a whole window.
//!
//! Invariant: raw points and rollup windows come through here, so that both give the same bits.

/// What a window of at least two points shows.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub count: usize,
    pub first_ms: i64,
    pub first: f64,
    pub last_ms: i64,
    /// Last less first; of a counter, resets taken out.
    pub rise: f64,
}

impl Seen {
    /// The rise stretched to the ends of (end - range, end] where the series seems to go on there.
    #[inline(always)]
    pub fn stretched(&self, end_ms: i64, range_ms: i64, counter: bool, per_second: bool) -> f64 {
        let unit_s = if per_second { range_ms as f64 / 1000.0 } else { 1.0 };
        let mut before_s = (self.first_ms - (end_ms - range_ms)) as f64 / 1000.0;
        let mut after_s = (end_ms - self.last_ms) as f64 / 1000.0;
        let sampled_s = (self.last_ms - self.first_ms) as f64 / 1000.0;
        let interval_s = sampled_s / (self.count - 1) as f64;
        let near_s = interval_s * 1.1;
        if before_s >= near_s {
            before_s = interval_s / 2.0;
        }
        // A counter was not below zero: do not stretch further back than its zero point.
        let bounded = counter && self.rise > 0.0 && self.first >= 0.0;
        if bounded && sampled_s * self.first < before_s * self.rise {
            before_s = sampled_s * (self.first / self.rise);
        }
        if after_s >= near_s {
            after_s = interval_s / 2.0;
        }
        self.rise * ((sampled_s + before_s + after_s) / (sampled_s * unit_s))
    }
}
