//! Quantile sketches: how a window's values were distributed, within a relative error (DDSketch;
//! docs/formats/quantiles.md says every rule and byte).
//!
//! Invariant: a sketch is a function of the values it counts, however they were cut and merged: the
//! same values give the same bytes.

use crate::codec::bytes::{Cursor, put_varint, put_zigzag};
use crate::error::{KernelError, Result};

/// How far a bucket's value is from each value that it counts, at most, relatively.
pub const RELATIVE_ERROR: f64 = 0.01;
/// Of one sign; past it the lowest magnitudes share a bucket.
pub const BUCKETS_MAX: usize = 2_048;

/// ln((1 + e) / (1 - e)) and ln(1 - e), e being the relative error.
const LOG_GAMMA: f64 = 0.020_000_666_706_669_524;
const LOG_MIDDLE: f64 = -0.010_050_335_853_501_44;
/// Makes the key of every positive value positive.
const SHIFT: i32 = 35_500;
const INFINITE: i32 = 71_000;
const NOT_A_NUMBER: i32 = -71_001;
/// Both signs, zero and NaN.
const KEYS_MAX: usize = 2 * BUCKETS_MAX + 2;

/// The bucket of a value: keys ascend as values do, NaN first.
pub fn key_of(value: f64) -> i32 {
    if value.is_nan() {
        return NOT_A_NUMBER;
    }
    let size = value.abs();
    let key = if size < f64::MIN_POSITIVE {
        0
    } else if size.is_infinite() {
        INFINITE
    } else {
        (size.ln() / LOG_GAMMA).ceil() as i32 + SHIFT
    };
    if value < 0.0 { -key } else { key }
}

/// What a bucket stands for.
pub fn value_of(key: i32) -> f64 {
    let size = match key.abs() {
        0 => 0.0,
        INFINITE => f64::INFINITY,
        key if key > INFINITE => f64::NAN,
        key => (f64::from(key - SHIFT) * LOG_GAMMA + LOG_MIDDLE).exp().min(f64::MAX),
    };
    if key < 0 { -size } else { size }
}

/// Signs whose lowest magnitudes share a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collapsed {
    pub positive: bool,
    pub negative: bool,
}

/// A sketch in the making; its buffer is used again.
#[derive(Clone, Debug, Default)]
pub struct Sketch {
    /// Keys and counts, in any order until `settle`.
    buckets: Vec<(i32, u64)>,
    collapsed: Collapsed,
}

impl Sketch {
    pub fn clear(&mut self) {
        self.buckets.clear();
        self.collapsed = Collapsed::default();
    }

    pub fn add(&mut self, value: f64) {
        self.buckets.push((key_of(value), 1));
    }

    /// Count what the sketch of `bytes` counts. Errors: Corruption.
    pub fn merge(&mut self, bytes: &[u8]) -> Result<()> {
        let buckets = &mut self.buckets;
        let collapsed = read(bytes, |key, count| buckets.push((key, count)))?;
        self.collapsed.positive |= collapsed.positive;
        self.collapsed.negative |= collapsed.negative;
        Ok(())
    }

    /// Append the sketch's bytes; there must be a value in it.
    pub fn encode(&mut self, out: &mut Vec<u8>) {
        self.settle();
        let ones = self.buckets.iter().all(|&(_, count)| count == 1);
        let Collapsed { positive, negative } = self.collapsed;
        let flags = u64::from(ones) << 2 | u64::from(negative) << 1 | u64::from(positive);
        put_varint(out, (self.buckets.len() as u64) << 3 | flags);
        let mut before = None;
        for &(key, _) in &self.buckets {
            match before.replace(key) {
                None => put_zigzag(out, i64::from(key)),
                Some(before) => put_varint(out, (key - before) as u64),
            }
        }
        if !ones {
            self.buckets.iter().for_each(|&(_, count)| put_varint(out, count));
        }
    }

    /// Sort, add up, and hold each sign to its bound.
    fn settle(&mut self) {
        let buckets = &mut self.buckets;
        buckets.sort_unstable_by_key(|&(key, _)| key);
        buckets.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            kept.1 = kept.1.saturating_add(if same { later.1 } else { 0 });
            same
        });
        let positive = buckets.partition_point(|&(key, _)| key <= 0);
        if buckets.len() - positive > BUCKETS_MAX {
            let kept = buckets.len() - BUCKETS_MAX;
            buckets[kept].1 += buckets[positive..kept].iter().map(|&(_, count)| count).sum::<u64>();
            buckets.drain(positive..kept);
            self.collapsed.positive = true;
        }
        let from = buckets.partition_point(|&(key, _)| key == NOT_A_NUMBER);
        let until = buckets.partition_point(|&(key, _)| key < 0);
        if until - from > BUCKETS_MAX {
            let gone = from + BUCKETS_MAX;
            buckets[gone - 1].1 +=
                buckets[gone..until].iter().map(|&(_, count)| count).sum::<u64>();
            buckets.drain(gone..until);
            self.collapsed.negative = true;
        }
    }
}

/// Hand each bucket of a sketch to `visit`, ascending by key.
///
/// Errors: Corruption of bytes that no sketch has.
pub fn read(bytes: &[u8], mut visit: impl FnMut(i32, u64)) -> Result<Collapsed> {
    let mut cursor = Cursor::new(bytes);
    let head = cursor.varint()?;
    let count = usize::try_from(head >> 3).unwrap_or(usize::MAX);
    if count == 0 || count > KEYS_MAX {
        return Err(broken("number of buckets"));
    }
    let mut keys = cursor.clone();
    // Counts come after the keys, and both are wanted at once.
    (0..count).try_for_each(|_| cursor.varint().map(drop))?;
    let ones = head & 4 != 0;
    let (mut positive, mut negative, mut above_one) = (0, 0, false);
    let mut key = 0i64;
    for place in 0..count {
        if place == 0 {
            key = keys.zigzag()?;
        } else {
            let step = i64::try_from(keys.varint()?).map_err(|_| broken("key"))?;
            key = key.checked_add(step).filter(|_| step > 0).ok_or_else(|| broken("key"))?;
        }
        let held = if ones { 1 } else { cursor.varint()? };
        if !(i64::from(NOT_A_NUMBER)..=i64::from(INFINITE)).contains(&key) || held == 0 {
            return Err(broken("bucket"));
        }
        positive += usize::from(key > 0);
        negative += usize::from(key < 0 && key != i64::from(NOT_A_NUMBER));
        above_one |= held > 1;
        visit(key as i32, held);
    }
    let collapsed = Collapsed { positive: head & 1 != 0, negative: head & 2 != 0 };
    let fits =
        |held: usize, collapsed: bool| held <= BUCKETS_MAX && (!collapsed || held == BUCKETS_MAX);
    let sound = fits(positive, collapsed.positive) && fits(negative, collapsed.negative);
    if !sound || !(ones || above_one) || !cursor.is_empty() {
        return Err(broken("end of a sketch"));
    }
    Ok(collapsed)
}

/// How many values a sketch counts. Errors: Corruption.
pub fn points(bytes: &[u8]) -> Result<u64> {
    let mut sum = Some(0u64);
    read(bytes, |_, count| sum = sum.and_then(|sum| sum.checked_add(count)))?;
    sum.ok_or_else(|| broken("counts"))
}

fn broken(what: &str) -> KernelError {
    KernelError::corruption(format!("quantile sketch: {what}"))
}

/// Counts by key, of as many sketches and values as a step's range holds; its buffer is used again.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Counts of `lowest` and the keys above it; NaN's are apart.
    counts: Vec<u64>,
    lowest: i32,
    not_a_number: u64,
    total: u64,
    /// Positive keys up to the first, negative ones from the second on say nothing of magnitudes.
    unsure_until: i32,
    unsure_from: i32,
}

/// Keys that are made room for beside one that is new.
const ROOM: i32 = 256;

impl Tally {
    pub fn clear(&mut self) {
        self.counts.fill(0);
        (self.not_a_number, self.total) = (0, 0);
        (self.unsure_until, self.unsure_from) = (0, 0);
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn add(&mut self, value: f64, count: u64) {
        self.add_key(key_of(value), count);
    }

    fn add_key(&mut self, key: i32, count: u64) {
        self.total = self.total.saturating_add(count);
        if key == NOT_A_NUMBER {
            self.not_a_number = self.not_a_number.saturating_add(count);
            return;
        }
        let place = i64::from(key) - i64::from(self.lowest);
        if place < 0 || place >= self.counts.len() as i64 {
            self.reach(key);
        }
        let held = &mut self.counts[(key - self.lowest) as usize];
        *held = held.saturating_add(count);
    }

    /// Make room for a key.
    fn reach(&mut self, key: i32) {
        if self.counts.is_empty() {
            self.lowest = key - ROOM;
        }
        if key < self.lowest {
            let more = (self.lowest - key + ROOM) as usize;
            self.counts.splice(0..0, std::iter::repeat_n(0, more));
            self.lowest -= more as i32;
        }
        let needed = (key - self.lowest + ROOM) as usize;
        if needed > self.counts.len() {
            self.counts.resize(needed, 0);
        }
    }

    /// Count what a sketch counts. Errors: Corruption.
    pub fn merge(&mut self, bytes: &[u8]) -> Result<()> {
        let (mut lowest, mut highest) = (INFINITE, -INFINITE);
        let collapsed = read(bytes, |key, count| {
            if key > 0 {
                lowest = lowest.min(key);
            } else if key < 0 && key != NOT_A_NUMBER {
                highest = highest.max(key);
            }
            self.add_key(key, count);
        })?;
        if collapsed.positive {
            self.unsure_until = self.unsure_until.max(lowest);
        }
        if collapsed.negative {
            self.unsure_from = self.unsure_from.min(highest);
        }
        Ok(())
    }

    /// PromQL's quantile of what was counted, at least one value, and whether the relative error
    /// holds.
    pub fn quantile(&self, q: f64) -> (f64, bool) {
        if q.is_nan() {
            return (f64::NAN, true);
        }
        if !(0.0..=1.0).contains(&q) {
            return (if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY }, true);
        }
        let last = self.total.saturating_sub(1);
        let rank = q * last as f64;
        let lower = (rank.floor() as u64).min(last);
        let weight = rank - rank.floor();
        let (low, high) = self.at(lower, (lower + 1).min(last));
        let sure = self.is_sure(low) && self.is_sure(high);
        (value_of(low) * (1.0 - weight) + value_of(high) * weight, sure)
    }

    fn is_sure(&self, key: i32) -> bool {
        key == 0
            || key == NOT_A_NUMBER
            || key > self.unsure_until && key > 0
            || key < self.unsure_from
            || key < 0 && self.unsure_from == 0
    }

    /// The keys that hold two ranks, the first of which is not above the second.
    fn at(&self, lower: u64, upper: u64) -> (i32, i32) {
        let mut seen = self.not_a_number;
        let mut low = (lower < seen).then_some(NOT_A_NUMBER);
        if upper < seen {
            return (NOT_A_NUMBER, NOT_A_NUMBER);
        }
        for (place, &count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            seen = seen.saturating_add(count);
            let key = self.lowest + place as i32;
            if low.is_none() && lower < seen {
                low = Some(key);
            }
            if upper < seen {
                return (low.unwrap_or(key), key);
            }
        }
        (NOT_A_NUMBER, NOT_A_NUMBER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::numeric;
    use proptest::prelude::*;

    fn sketch(values: &[f64]) -> Vec<u8> {
        let (mut sketch, mut bytes) = (Sketch::default(), Vec::new());
        values.iter().for_each(|&value| sketch.add(value));
        sketch.encode(&mut bytes);
        bytes
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            6 => -1e6..1e6f64,
            4 => (-300.0..300.0f64).prop_map(|power| 10f64.powf(power)),
            4 => (-300.0..300.0f64).prop_map(|power| -(10f64.powf(power))),
            3 => (0..20i32).prop_map(f64::from),
            1 => prop_oneof![
                Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(-0.0),
                Just(f64::MAX), Just(f64::MIN_POSITIVE), Just(5e-324),
            ],
        ]
    }

    #[test]
    fn the_constants_are_those_of_the_relative_error() {
        let gamma = (1.0 + RELATIVE_ERROR) / (1.0 - RELATIVE_ERROR);
        assert!((gamma.ln() - LOG_GAMMA).abs() < 1e-16);
        assert!(((2.0 / (gamma + 1.0)).ln() - LOG_MIDDLE).abs() < 1e-15);
        let (least, most) = (key_of(f64::MIN_POSITIVE), key_of(f64::MAX));
        assert!(0 < least && most < INFINITE);
        assert!(value_of(most).is_finite() && value_of(least) > 0.0);
    }

    #[test]
    fn bytes_that_no_sketch_has_are_refused() {
        let sound = sketch(&[1.0, 2.0, 2.0, -3.0]);
        assert_eq!(points(&sound).expect("sound"), 4);
        for cut in 0..sound.len() {
            assert!(read(&sound[..cut], |_, _| ()).is_err(), "cut at {cut}");
        }
        let refused: [&[u8]; 8] = [
            &[0x00],                               // no bucket
            &[0x14, 0x02, 0x00],                   // a step of 0
            &[0x10, 0x02, 0x01, 0x00, 0x02],       // a count of 0
            &[0x08, 0x02, 0x01],                   // a count of 1 that the bit should say
            &[0x0d, 0x02],                         // collapsed, with one bucket
            &[0x0c, 0x02, 0x00],                   // a byte left over
            &[0x0c, 0xff, 0xff, 0xff, 0x7f],       // a key past all
            &[0xfc, 0xff, 0xff, 0xff, 0xff, 0x0f], // more buckets than there may be
        ];
        for bytes in refused {
            assert!(read(bytes, |_, _| ()).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn the_lowest_magnitudes_collapse_and_say_so() {
        let wide: Vec<f64> = (0..5_000).map(|i| 1.0203f64.powi(i) * 1e-20).collect();
        let both: Vec<f64> = wide.iter().flat_map(|&value| [value, -value]).collect();
        let bytes = sketch(&both);
        assert_eq!(points(&bytes).expect("sound"), 10_000);
        let mut tally = Tally::default();
        tally.merge(&bytes).expect("sound");
        let mut values = both.clone();
        for (q, sure) in [(0.0, true), (0.1, true), (0.45, false), (0.55, false), (0.99, true)] {
            let (told, held) = tally.quantile(q);
            assert_eq!(held, sure, "{q}");
            let exact = numeric::quantile(q, &mut values);
            assert!(!sure || (told - exact).abs() <= exact.abs() * 0.010_001);
        }
        let halves: Vec<Vec<u8>> = both.chunks(3_000).map(sketch).collect();
        let (mut merged, mut again) = (Sketch::default(), Vec::new());
        halves.iter().rev().for_each(|half| merged.merge(half).expect("sound"));
        merged.encode(&mut again);
        assert_eq!(again, bytes);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Within the relative error at both ranks that PromQL interpolates between.
        #[test]
        fn every_quantile_is_within_the_error(
            values in prop::collection::vec(value(), 1..400),
            pieces in 1usize..20,
            extra in 0.0..1.0f64,
        ) {
            let mut tally = Tally::default();
            for piece in values.chunks(values.len().div_ceil(pieces)) {
                tally.merge(&sketch(piece)).expect("sound");
            }
            let mut sorted = values.clone();
            sorted.sort_by(numeric::nan_first);
            for q in [0.0, 0.01, 0.5, 0.9, 0.99, 1.0, extra] {
                let (told, sure) = tally.quantile(q);
                prop_assert!(sure);
                let exact = numeric::quantile(q, &mut values.clone());
                let rank = (q * (values.len() - 1) as f64).floor() as usize;
                let (low, high) = (sorted[rank], sorted[(rank + 1).min(values.len() - 1)]);
                let tiny = |value: f64| value.abs() < f64::MIN_POSITIVE;
                if exact.is_nan() || exact.is_infinite() {
                    prop_assert!(told.to_bits() == exact.to_bits() || told.is_nan() && exact.is_nan());
                } else if !tiny(low) && !tiny(high) {
                    let one_sign = low.signum() == high.signum();
                    let scale = if one_sign { exact.abs() } else { low.abs().max(high.abs()) };
                    let slack = scale * 0.010_000_001;
                    prop_assert!((told - exact).abs() <= slack, "{q}: {told} for {exact}");
                }
            }
        }

        /// Merged in any order and cut anyhow, the bytes are those of all values.
        #[test]
        fn merged_sketches_are_the_sketch_of_all(
            values in prop::collection::vec(value(), 1..300),
            cuts in prop::collection::vec(0usize..300, 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(values.len())).collect();
            cuts.extend([0, values.len()]);
            cuts.sort_unstable();
            let parts: Vec<Vec<u8>> = cuts
                .windows(2)
                .filter(|cut| cut[0] < cut[1])
                .map(|cut| sketch(&values[cut[0]..cut[1]]))
                .collect();
            let (mut left, mut bytes) = (Sketch::default(), Vec::new());
            parts.iter().rev().for_each(|part| left.merge(part).expect("sound"));
            left.encode(&mut bytes);
            prop_assert_eq!(&bytes, &sketch(&values));
            prop_assert_eq!(points(&bytes).expect("sound"), values.len() as u64);
        }

        /// Any bytes are refused or read; what is read is what would be written.
        #[test]
        fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut again = Sketch::default();
            if again.merge(&bytes).is_ok() {
                let mut out = Vec::new();
                again.encode(&mut out);
                prop_assert_eq!(points(&out).ok(), points(&bytes).ok());
            }
        }
    }
}
