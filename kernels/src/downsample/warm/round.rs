//! Rounding to significant digits, where a tenant wants smaller files more than the last digits.
//!
//! Invariant: a rounded value is within 0.5 / 10^(digits - 1) of the value, relatively, and rounding
//! it again changes nothing.

use crate::downsample::columns::WindowColumns;

/// Round the values of each series to its `digits`; 0: to the bit. Only gauges have any: what
/// matters of counters are differences, which no relative error bounds, and what is of unknown kind
/// may be one.
pub(super) fn round_windows(windows: &mut WindowColumns, digits: impl Fn(usize) -> u8) {
    for series in 0..windows.series_count() {
        let digits = digits(series);
        if digits == 0 {
            continue;
        }
        let range = windows.series(series);
        for column in [
            &mut windows.first,
            &mut windows.last,
            &mut windows.sum,
            &mut windows.minimum,
            &mut windows.maximum,
        ] {
            column[range.clone()].iter_mut().for_each(|value| *value = rounded(*value, digits));
        }
    }
}

fn rounded(value: f64, digits: u8) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    // Decimal text is slow, but right for every double.
    let places = usize::from(digits.max(1)) - 1;
    format!("{value:.places$e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::downsample::mark::DIGITS_MAX;
    use proptest::prelude::*;

    #[test]
    fn rounds_to_significant_digits() {
        for (value, digits, expected) in [
            (123_456.0, 3, 123_000.0),
            (0.001_234_56, 3, 0.001_23),
            (-99.96, 3, -100.0),
            (7.0, 1, 7.0),
            (0.0, 3, 0.0),
        ] {
            assert_eq!(rounded(value, digits), expected);
        }
        assert!(rounded(f64::NAN, 3).is_nan() && rounded(f64::INFINITY, 3).is_infinite());
    }

    proptest! {
        #[test]
        fn the_error_is_bounded(value in any::<f64>(), digits in 1u8..=DIGITS_MAX) {
            let once = rounded(value, digits);
            if value.is_normal() && once.is_finite() {
                let bound = 0.5 / 10f64.powi(i32::from(digits) - 1);
                prop_assert!((once - value).abs() <= value.abs() * bound * 1.000_001);
                prop_assert_eq!(rounded(once, digits).to_bits(), once.to_bits());
            }
        }
    }
}
