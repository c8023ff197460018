//! Float values of a page: per series scaled integers or raw bits, all series' steps in one column.
//! See docs/formats/block.md, section Float values.
//!
//! Invariant: an integer is taken only where decoding it gives back the very bits of the value.

use super::Codec;
use super::bytes::{Cursor, put_varint, zigzag};
use super::column::{packed_size, put_column, read_column};
use crate::error::{KernelError, Result};

const RAW: i64 = 32;
const CONSTANT: i64 = 64;
/// A decimal and a few units in the last place: what summing decimals in floats gives.
const NEAR: i64 = 16;
const EXPONENT_MASK: i64 = 15;
/// Below it decimals lie so far apart that to be near one is no chance.
const NEAR_INTEGER_LIMIT: i64 = 1 << 42;
const NEAR_ULPS_MAX: i64 = 64;
const NEAR_SAMPLES: usize = 16;
const NEAR_EXPONENT_MAX: usize = 9;
const EXPONENT_MAX: usize = 14;
/// Exact in a double, as is each quotient's correct rounding.
const POWERS: [f64; EXPONENT_MAX + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14];
/// 2^53: beyond it not every integer is a double.
const INTEGER_LIMIT: f64 = 9_007_199_254_740_992.0;
/// Slopes are worth their bytes only where series are long.
const SLOPE_STEPS_MIN: usize = 32;
const SLOPE_SAMPLES_MAX: usize = 127;

/// Scratch and columns of one page's values; kept between pages for its allocations.
#[derive(Default)]
pub struct ValuesEncoder {
    classes: Vec<i64>,
    shifts: Vec<i64>,
    slopes: Vec<i64>,
    firsts: Vec<i64>,
    decimal_steps: Vec<i64>,
    /// Where each stepping decimal series ends in `decimal_steps`, and which series it is.
    decimal_ends: Vec<(usize, usize)>,
    /// Of near series: what the decimal lacks, in units in the last place; differences.
    corrections: Vec<i64>,
    raw_differences: Vec<i64>,
    raw_plain: Vec<i64>,
    exception_positions: Vec<i64>,
    exception_bits: Vec<i64>,
    integers: Vec<i64>,
    ulps: Vec<i64>,
}

impl ValuesEncoder {
    /// Append the value section of series with these lengths, `values` end to end.
    pub fn encode(
        &mut self,
        out: &mut Vec<u8>,
        codec: Codec,
        values: &[f64],
        lengths: impl Iterator<Item = usize>,
    ) {
        self.clear();
        let mut start = 0;
        for length in lengths {
            self.push_series(&values[start..start + length], start);
            start += length;
        }
        if codec == Codec::Dense {
            self.take_slopes();
        }
        put_column(out, &self.classes, codec);
        put_column(out, &self.shifts, codec);
        put_column(out, &self.slopes, codec);
        put_column(out, &self.firsts, codec);
        let differences = packed_size(&self.raw_differences) < packed_size(&self.raw_plain);
        out.push(u8::from(differences));
        put_column(out, &self.decimal_steps, codec);
        put_column(out, &self.corrections, codec);
        let raw = if differences { &self.raw_differences } else { &self.raw_plain };
        put_column(out, raw, codec);
        put_varint(out, self.exception_positions.len() as u64);
        differentiate(&mut self.exception_positions);
        put_column(out, &self.exception_positions, codec);
        put_column(out, &self.exception_bits, codec);
    }

    fn clear(&mut self) {
        for column in [
            &mut self.classes,
            &mut self.shifts,
            &mut self.slopes,
            &mut self.firsts,
            &mut self.decimal_steps,
            &mut self.corrections,
            &mut self.raw_differences,
            &mut self.raw_plain,
            &mut self.exception_positions,
            &mut self.exception_bits,
        ] {
            column.clear();
        }
        self.decimal_ends.clear();
    }

    fn push_series(&mut self, values: &[f64], start: usize) {
        self.slopes.push(0);
        let bits = values[0].to_bits();
        if values.iter().all(|value| value.to_bits() == bits) {
            let (class, first) = match exponent_of(values[0], 0) {
                Some((exponent, integer)) => (exponent as i64, integer),
                None => (RAW, bits as i64),
            };
            self.classes.push(class | CONSTANT);
            self.shifts.push(0);
            self.firsts.push(first);
            return;
        }
        if self.whole(values) {
            return self.push_decimal(0);
        }
        if let Some(exponent) = common_exponent(values)
            && self.scale(values, start, |value| Some((integer_of(value, exponent)?, 0)))
        {
            return self.push_decimal(exponent as i64);
        }
        let known = self.corrections.len();
        if let Some(exponent) = near_exponent(values)
            && self.scale(values, start, |value| near_integer_of(value, exponent))
        {
            self.corrections.extend_from_slice(&self.ulps);
            differentiate(&mut self.corrections[known..]);
            return self.push_decimal(exponent as i64 | NEAR);
        }
        self.push_raw(values);
    }

    /// The common case, in one pass: fill `integers` if all values are.
    fn whole(&mut self, values: &[f64]) -> bool {
        self.integers.clear();
        self.integers.extend(values.iter().map_while(|value| integer_of(*value, 0)));
        self.integers.len() == values.len()
    }

    /// Fill `integers` and `ulps`; exceptions repeat what stands before. False if they are too
    /// many.
    fn scale(
        &mut self,
        values: &[f64],
        start: usize,
        split: impl Fn(f64) -> Option<(i64, i64)>,
    ) -> bool {
        let known = self.exception_positions.len();
        let mut budget = exceptions_max(values.len());
        self.integers.clear();
        self.ulps.clear();
        let mut before = (0, 0);
        let mut leading = 0;
        for (index, &value) in values.iter().enumerate() {
            match split(value) {
                Some(parts) => before = parts,
                None => {
                    if budget == 0 {
                        self.exception_positions.truncate(known);
                        self.exception_bits.truncate(known);
                        return false;
                    }
                    budget -= 1;
                    leading += usize::from(leading == index);
                    self.exception_positions.push((start + index) as i64);
                    self.exception_bits.push(value.to_bits() as i64);
                }
            }
            self.integers.push(before.0);
            self.ulps.push(before.1);
        }
        // Exceptions at the head repeat the first integer after them.
        let first = self.integers.get(leading).copied().unwrap_or(0);
        self.integers[..leading].fill(first);
        true
    }

    fn push_decimal(&mut self, class: i64) {
        let first = self.integers[0];
        self.firsts.push(first);
        let steps = self.decimal_steps.len();
        self.decimal_steps
            .extend(self.integers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])));
        let any = self.decimal_steps[steps..].iter().fold(0, |any, step| any | step);
        if any == 0 && class & NEAR == 0 {
            // One value but for its exceptions.
            self.decimal_steps.truncate(steps);
            self.classes.push(class | CONSTANT);
            self.shifts.push(0);
            return;
        }
        let shift = if any == 0 { 0 } else { any.trailing_zeros() };
        if shift > 0 {
            self.decimal_steps[steps..].iter_mut().for_each(|step| *step >>= shift);
        }
        self.classes.push(class);
        self.shifts.push(i64::from(shift));
        self.decimal_ends.push((self.decimal_steps.len(), self.classes.len() - 1));
    }

    fn push_raw(&mut self, values: &[f64]) {
        let bits = |value: &f64| value.to_bits() as i64;
        let first = bits(&values[0]);
        let any = values.iter().fold(0, |any, value| any | bits(value));
        let shift = any.trailing_zeros();
        self.classes.push(RAW);
        self.firsts.push(first);
        self.shifts.push(i64::from(shift));
        self.raw_plain.extend(values[1..].iter().map(|value| bits(value) >> shift));
        self.raw_differences.extend(
            values.windows(2).map(|pair| bits(&pair[1]).wrapping_sub(bits(&pair[0])) >> shift),
        );
    }

    /// Counters of one metric climb at different rates: taking each series' median step off
    /// lays their steps over one another, so that the pooled column needs fewer bits.
    fn take_slopes(&mut self) {
        if self.decimal_steps.len() < SLOPE_STEPS_MIN * self.decimal_ends.len() {
            return;
        }
        let mut samples = Vec::with_capacity(SLOPE_SAMPLES_MAX + 1);
        let (mut start, mut cost_before, mut cost_after) = (0, 0, 0);
        for &(end, series) in &self.decimal_ends {
            let steps = &self.decimal_steps[start..end];
            start = end;
            samples.clear();
            samples.extend(steps.iter().step_by(steps.len().div_ceil(SLOPE_SAMPLES_MAX)));
            let middle = samples.len() / 2;
            let slope = *samples.select_nth_unstable(middle).1;
            self.slopes[series] = slope;
            cost_before += cost(steps, 0);
            cost_after += cost(steps, slope) + 16;
        }
        if cost_after >= cost_before {
            self.slopes.fill(0);
            return;
        }
        let mut start = 0;
        for &(end, series) in &self.decimal_ends {
            let slope = self.slopes[series];
            for step in &mut self.decimal_steps[start..end] {
                *step = step.wrapping_sub(slope);
            }
            start = end;
        }
    }
}

/// Rough bits of a column after `slope` is taken off.
pub(crate) fn cost(steps: &[i64], slope: i64) -> u64 {
    let bits = |step: &i64| 64 - zigzag(step.wrapping_sub(slope)).leading_zeros();
    steps.iter().map(|step| u64::from(bits(step))).sum()
}

pub(crate) fn differentiate(column: &mut [i64]) {
    for index in (1..column.len()).rev() {
        column[index] = column[index].wrapping_sub(column[index - 1]);
    }
}

pub(crate) fn exceptions_max(length: usize) -> usize {
    1 + length / 16
}

/// The integer that decodes to the very bits of `value`, if there is one.
#[inline]
pub(crate) fn integer_of(value: f64, exponent: usize) -> Option<i64> {
    if exponent == 0 {
        let integer = value as i64;
        let back = integer as f64;
        let exact = back.to_bits() == value.to_bits() && back.abs() < INTEGER_LIMIT;
        return exact.then_some(integer);
    }
    let scaled = value * POWERS[exponent];
    if scaled.is_nan() || scaled.abs() >= INTEGER_LIMIT {
        return None;
    }
    let integer = (scaled + 0.5f64.copysign(scaled)) as i64;
    (decimal(integer, exponent).to_bits() == value.to_bits()).then_some(integer)
}

#[inline]
pub(crate) fn decimal(integer: i64, exponent: usize) -> f64 {
    if exponent == 0 { integer as f64 } else { integer as f64 / POWERS[exponent] }
}

pub(crate) fn exponent_of(value: f64, exponent_min: usize) -> Option<(usize, i64)> {
    (exponent_min..=EXPONENT_MAX)
        .find_map(|exponent| Some((exponent, integer_of(value, exponent)?)))
}

/// The lowest exponent that serves nearly all values, or None.
pub(crate) fn common_exponent(values: &[f64]) -> Option<usize> {
    let mut exponent = 0;
    let mut budget = exceptions_max(values.len());
    for &value in values {
        if integer_of(value, exponent).is_some() {
            continue;
        }
        match exponent_of(value, exponent + 1) {
            Some((higher, _)) => exponent = higher,
            None if budget == 0 => return None,
            None => budget -= 1,
        }
    }
    Some(exponent)
}

/// The decimal next to `value` and how many units in the last place it is off.
pub(crate) fn near_integer_of(value: f64, exponent: usize) -> Option<(i64, i64)> {
    let scaled = value * POWERS[exponent];
    if scaled.is_nan() || scaled.abs() >= NEAR_INTEGER_LIMIT as f64 {
        return None;
    }
    let integer = (scaled + 0.5f64.copysign(scaled)) as i64;
    let bits = decimal(integer, exponent).to_bits() as i64;
    let ulps = (value.to_bits() as i64).wrapping_sub(bits);
    (-NEAR_ULPS_MAX..=NEAR_ULPS_MAX).contains(&ulps).then_some((integer, ulps))
}

/// The lowest exponent whose decimals a sample of the values is near to.
pub(crate) fn near_exponent(values: &[f64]) -> Option<usize> {
    let stride = values.len().div_ceil(NEAR_SAMPLES);
    let misses_max = usize::from(values.len() >= NEAR_SAMPLES);
    (1..=NEAR_EXPONENT_MAX).find(|&exponent| {
        let sample = values.iter().step_by(stride);
        let missed = sample.filter(|value| near_integer_of(**value, exponent).is_none());
        missed.take(misses_max + 1).count() <= misses_max
    })
}

/// Read a value section into `values`, end to end, series by series.
pub fn read_values(
    cursor: &mut Cursor,
    lengths: impl ExactSizeIterator<Item = usize> + Clone,
    values: &mut Vec<f64>,
) -> Result<()> {
    let broken = |what: &str| KernelError::corruption(format!("block: {what} of a value section"));
    let series = lengths.len();
    let mut columns: [Vec<i64>; 4] = Default::default();
    for column in &mut columns {
        read_column(cursor, series, column)?;
    }
    let [classes, shifts, slopes, firsts] = columns;
    let (mut decimal_count, mut near_count, mut raw_count) = (0, 0, 0);
    for ((&class, &shift), length) in classes.iter().zip(&shifts).zip(lengths.clone()) {
        if class & EXPONENT_MASK > EXPONENT_MAX as i64 || !(0..64).contains(&shift) {
            return Err(broken("exponent"));
        }
        match class & !EXPONENT_MASK {
            0 => decimal_count += length - 1,
            NEAR => {
                decimal_count += length - 1;
                near_count += length;
            }
            RAW => raw_count += length - 1,
            other if other & !RAW == CONSTANT => {}
            _ => return Err(broken("class")),
        }
    }
    let raw_form = cursor.u8()?;
    let (mut decimal_steps, mut near_steps, mut raw_steps) = (Vec::new(), Vec::new(), Vec::new());
    read_column(cursor, decimal_count, &mut decimal_steps)?;
    read_column(cursor, near_count, &mut near_steps)?;
    read_column(cursor, raw_count, &mut raw_steps)?;
    let (mut decimal_steps, mut raw_steps) = (decimal_steps.as_slice(), raw_steps.as_slice());
    let mut near_steps = near_steps.as_slice();
    for (index, length) in lengths.enumerate() {
        let (class, shift, first) = (classes[index], shifts[index] as u32, firsts[index]);
        let exponent = (class & EXPONENT_MASK) as usize;
        if class & CONSTANT != 0 {
            let bits = f64::from_bits(first as u64);
            let value = if class & RAW != 0 { bits } else { decimal(first, exponent) };
            values.resize(values.len() + length, value);
        } else if class & RAW != 0 {
            let (steps, rest) = raw_steps.split_at(length - 1);
            raw_steps = rest;
            integrate_raw(values, first, steps, shift, raw_form != 0);
        } else {
            let (steps, rest) = decimal_steps.split_at(length - 1);
            decimal_steps = rest;
            let start = values.len();
            integrate_decimal(values, first, steps, slopes[index], shift, exponent);
            if class & NEAR != 0 {
                let (steps, rest) = near_steps.split_at(length);
                near_steps = rest;
                correct(&mut values[start..], steps);
            }
        }
    }
    read_exceptions(cursor, values)
}

fn integrate_raw(values: &mut Vec<f64>, first: i64, steps: &[i64], shift: u32, differences: bool) {
    let mut bits = first;
    values.push(f64::from_bits(bits as u64));
    values.extend(steps.iter().map(|step| {
        let step = step << shift;
        bits = if differences { bits.wrapping_add(step) } else { step };
        f64::from_bits(bits as u64)
    }));
}

fn integrate_decimal(
    values: &mut Vec<f64>,
    first: i64,
    steps: &[i64],
    slope: i64,
    shift: u32,
    exponent: usize,
) {
    let power = POWERS[exponent];
    let mut integer = first;
    let integers = steps.iter().map(|step| {
        integer = integer.wrapping_add(step.wrapping_add(slope) << shift);
        integer as f64
    });
    values.push(decimal(first, exponent));
    if exponent == 0 {
        values.extend(integers);
    } else {
        values.extend(integers.map(|integer| integer / power));
    }
}

/// Add what near decimals lack.
fn correct(values: &mut [f64], steps: &[i64]) {
    let mut ulps = 0i64;
    for (value, step) in values.iter_mut().zip(steps) {
        ulps = ulps.wrapping_add(*step);
        *value = f64::from_bits(value.to_bits().wrapping_add(ulps as u64));
    }
}

fn read_exceptions(cursor: &mut Cursor, values: &mut [f64]) -> Result<()> {
    let count = cursor.count(values.len())?;
    let (mut positions, mut bits) = (Vec::new(), Vec::new());
    read_column(cursor, count, &mut positions)?;
    read_column(cursor, count, &mut bits)?;
    let mut position = 0i64;
    for (step, bits) in positions.iter().zip(&bits) {
        position = position.wrapping_add(*step);
        let value = usize::try_from(position).ok().and_then(|position| values.get_mut(position));
        let Some(value) = value else {
            return Err(KernelError::corruption("block: exception outside its page"));
        };
        *value = f64::from_bits(*bits as u64);
    }
    Ok(())
}
