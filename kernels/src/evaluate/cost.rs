//! What a query will cost, before a point is read: points out of the directories, cells out of the
//! plan. Refused here, a query has taken no permit, no memory and no page.

use crate::error::{KernelError, Result};
use std::ops::Range;

/// Points to read and cells (series by steps) to fill, as one number: both take some nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub series: u64,
    pub points_estimated: u64,
    pub steps: u64,
}

impl Cost {
    pub fn total(&self) -> u64 {
        self.points_estimated.saturating_add(self.series.saturating_mul(self.steps))
    }

    /// Errors: `sluiceway-query-cost-limit` (422), with the estimate and the limit.
    pub fn allow(self, cost_max: u64) -> Result<Cost> {
        if self.total() <= cost_max {
            return Ok(self);
        }
        let message = format!(
            "the query is estimated to cost {}: some {} points of {} series, evaluated at {} \
             steps; what is left of the limit is {cost_max}. Nothing was read: narrow the \
             selector, shorten the range or take a longer step",
            self.total(),
            self.points_estimated,
            self.series,
            self.steps
        );
        Err(KernelError::client(422, "sluiceway-query-cost-limit", message))
    }
}

/// The part of `points`, spread evenly over [min_ms, max_ms], that lies in the range.
pub fn share(points: u64, min_ms: i64, max_ms: i64, range_ms: &Range<i64>) -> u64 {
    let from = i128::from(min_ms.max(range_ms.start));
    let until = (i128::from(max_ms) + 1).min(i128::from(range_ms.end));
    if until <= from {
        return 0;
    }
    let whole = (i128::from(max_ms) - i128::from(min_ms) + 1).max(1) as f64;
    (points as f64 * ((until - from) as f64 / whole)).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_shared_by_time() {
        assert_eq!(share(100, 0, 99, &(0..100)), 100);
        assert_eq!(share(100, 0, 99, &(50..1_000)), 50);
        assert_eq!(share(100, 0, 99, &(100..200)), 0);
        assert_eq!(share(100, 0, 99, &(-9..0)), 0);
        assert_eq!(share(7, 5, 5, &(i64::MIN..i64::MAX)), 7);
        assert_eq!(share(u64::MAX, i64::MIN, i64::MAX, &(i64::MIN..i64::MAX)), u64::MAX);
    }

    #[test]
    fn a_cost_over_the_limit_is_told() -> Result<()> {
        let cost = Cost { series: 10, points_estimated: 1_000, steps: 20 };
        assert_eq!(cost.allow(1_200)?.total(), 1_200);
        let told = cost.allow(1_199).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(told.contains("cost 1200") && told.contains("is 1199"), "{told}");
        let huge = Cost { series: u64::MAX, points_estimated: u64::MAX, steps: u64::MAX };
        assert!(huge.allow(u64::MAX - 1).is_err());
        Ok(())
    }
}
