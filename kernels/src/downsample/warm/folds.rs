//! Sections `low`, `high` and `sum` of a window page: minimum, maximum and sum, told by how they
//! differ from what first and last let expect.

use super::columns::{Exceptions, broken, put, read, read_into};
use super::page::{Asked, Tally};
use super::values::{NEAR, Scale, Scaled, ValuesEncoder, ordered};
use crate::codec::bytes::Cursor;
use crate::codec::values::{decimal, exceptions_max, integer_of, near_integer_of};
use crate::downsample::columns::{Fields, WindowColumns};
use crate::downsample::read_buffers::Numbers;
use crate::error::Result;

const HAS_RESIDUALS: i64 = 1;
const HAS_CORRECTIONS: i64 = 2;
const SUM_RAW: i64 = 4;

/// The two ends of what a window reached.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Low,
    High,
}

impl Side {
    /// Is last, not first, the end on this side?
    #[inline]
    fn is_last(self, first: i64, last: i64) -> bool {
        match self {
            Side::Low => last < first,
            Side::High => last > first,
        }
    }

    /// From the nearer of first and last outward, and back.
    #[inline]
    fn outward(self, from: i64, to: i64) -> i64 {
        match self {
            Side::Low => from.wrapping_sub(to),
            Side::High => to.wrapping_sub(from),
        }
    }

    #[inline]
    fn reach(self, from: i64, residual: i64) -> i64 {
        match self {
            Side::Low => from.wrapping_sub(residual),
            Side::High => from.wrapping_add(residual),
        }
    }
}

/// The end among first and last: its number, units and value.
#[inline]
fn nearer(side: Side, scaled: &Scaled, page: &WindowColumns, at: usize) -> (i64, i64, f64) {
    if side.is_last(scaled.first[at], scaled.last[at]) {
        (scaled.last[at], scaled.last_units[at], page.last[at])
    } else {
        (scaled.first[at], scaled.first_units[at], page.first[at])
    }
}

/// The sum of one or two points.
#[inline]
fn shallow_sum(count: u32, first: f64, last: f64) -> f64 {
    let sum = first + last;
    if count == 1 {
        first
    } else if sum.is_finite() {
        sum
    } else {
        last
    }
}

/// What first, last, minimum and maximum let expect of a sum, in shifted integers ...
#[inline]
fn expected_number(count: u32, [first, last, low, high]: [i64; 4]) -> i64 {
    let ends = first.wrapping_add(last);
    let four = ends.wrapping_add(low).wrapping_add(high);
    ends.wrapping_add((i64::from(count) - 2).wrapping_mul(four) >> 2)
}

/// ... and in doubles: ordered bits.
#[inline]
fn expected_bits(page: &WindowColumns, at: usize) -> i64 {
    let (first, last) = (page.first[at], page.last[at]);
    let four = first + last + page.minimum[at] + page.maximum[at];
    let expected = first + last + (f64::from(page.count[at]) - 2.0) * four / 4.0;
    let expected = if expected.is_finite() { expected } else { last };
    ordered(expected.to_bits() as i64)
}

fn has_folds(page: &WindowColumns, tallies: &[Tally], series: usize) -> bool {
    tallies[series].valued > 0 && page.kinds[series].fields().has(Fields::FOLDS)
}

/// Pooled columns of one section, and the settings of its series.
#[derive(Default)]
struct Columns {
    flags: Vec<i64>,
    residuals: Vec<i64>,
    corrections: Vec<i64>,
    exceptions: Exceptions,
}

impl Columns {
    /// Note what the series that began at these lengths has; all zeros cost nothing.
    fn end_series(&mut self, form: i64, residuals: usize, corrections: usize) {
        let mut flags = form;
        for (column, start, flag) in [
            (&mut self.residuals, residuals, HAS_RESIDUALS),
            (&mut self.corrections, corrections, HAS_CORRECTIONS),
        ] {
            if column[start..].iter().any(|&value| value != 0) {
                flags |= flag;
            } else {
                column.truncate(start);
            }
        }
        self.flags.push(flags);
    }

    fn put(&mut self, out: &mut Vec<u8>) {
        put(out, &self.flags);
        put(out, &self.residuals);
        put(out, &self.corrections);
        self.exceptions.put(out);
        self.flags.clear();
        self.residuals.clear();
        self.corrections.clear();
    }
}

#[derive(Default)]
pub(super) struct FoldsEncoder {
    columns: Columns,
    low: Vec<i64>,
    high: Vec<i64>,
}

impl FoldsEncoder {
    pub fn put_low(&mut self, out: &mut Vec<u8>, page: &WindowColumns, values: &ValuesEncoder) {
        let mut numbers = std::mem::take(&mut self.low);
        self.put_side(out, page, values, Side::Low, &mut numbers);
        self.low = numbers;
    }

    pub fn put_high(&mut self, out: &mut Vec<u8>, page: &WindowColumns, values: &ValuesEncoder) {
        let mut numbers = std::mem::take(&mut self.high);
        self.put_side(out, page, values, Side::High, &mut numbers);
        self.high = numbers;
    }

    fn put_side(
        &mut self,
        out: &mut Vec<u8>,
        page: &WindowColumns,
        values: &ValuesEncoder,
        side: Side,
        numbers: &mut Vec<i64>,
    ) {
        let scaled = &values.scaled;
        let column = if side == Side::Low { &page.minimum } else { &page.maximum };
        numbers.clear();
        numbers.resize(page.window_count(), 0);
        let columns = &mut self.columns;
        for series in 0..page.series_count() {
            let (residuals, corrections) = (columns.residuals.len(), columns.corrections.len());
            let scale = scaled.scales[series];
            let range =
                if has_folds(page, &values.tallies, series) { page.series(series) } else { 0..0 };
            for at in range.filter(|&at| page.count[at] > 0) {
                let (from, from_units, mut told) = nearer(side, scaled, page, at);
                numbers[at] = from;
                if page.count[at] > 2 {
                    let (number, units) = match scale.split(column[at]) {
                        Some((integer, units)) => (scale.shifted(integer), units),
                        None => (from, from_units),
                    };
                    numbers[at] = number;
                    let residual = side.outward(from, number);
                    columns.residuals.push(residual);
                    if scale.is_near() {
                        columns.corrections.push(units.wrapping_sub(from_units));
                    }
                    if residual != 0 || units != from_units {
                        told = scale.value(number, units);
                    }
                }
                if told.to_bits() != column[at].to_bits() {
                    columns.exceptions.push(at, column[at]);
                }
            }
            columns.end_series(0, residuals, corrections);
        }
        columns.put(out);
    }

    /// Append section `sum`, after the two sides of the same page.
    pub fn put_sum(&mut self, out: &mut Vec<u8>, page: &WindowColumns, values: &ValuesEncoder) {
        for series in 0..page.series_count() {
            let (residuals, corrections) =
                (self.columns.residuals.len(), self.columns.corrections.len());
            let form = if has_folds(page, &values.tallies, series) {
                self.push_sums(page, values, series)
            } else {
                0
            };
            self.columns.end_series(form, residuals, corrections);
        }
        self.columns.put(out);
    }

    fn push_sums(&mut self, page: &WindowColumns, values: &ValuesEncoder, series: usize) -> i64 {
        let scaled = &values.scaled;
        let scale = sum_scale(page, scaled.scales[series], series);
        for at in page.series(series).filter(|&at| page.count[at] > 0) {
            let (count, sum) = (page.count[at], page.sum[at]);
            let mut told = shallow_sum(count, page.first[at], page.last[at]);
            if count > 2 && scale.is_raw() {
                let expected = expected_bits(page, at);
                let residual = ordered(sum.to_bits() as i64).wrapping_sub(expected);
                self.columns.residuals.push(residual);
                told = sum;
            } else if count > 2 {
                let numbers = [scaled.first[at], scaled.last[at], self.low[at], self.high[at]];
                let expected = expected_number(count, numbers);
                let (number, units) = split_sum(&scale, count, sum).unwrap_or((expected, 0));
                self.columns.residuals.push(number.wrapping_sub(expected));
                if scale.is_near() {
                    self.columns.corrections.push(units);
                }
                told = sum_value(&scale, count, number, units);
            }
            if told.to_bits() != sum.to_bits() {
                self.columns.exceptions.push(at, sum);
            }
        }
        if scale.is_raw() { SUM_RAW } else { 0 }
    }
}

/// The sum of so many points as a shifted integer and units, if the scale can say it.
#[inline]
fn split_sum(scale: &Scale, count: u32, sum: f64) -> Option<(i64, i64)> {
    let (integer, units) = if scale.is_near() {
        near_integer_of(sum, scale.exponent())?
    } else {
        (integer_of(sum, scale.exponent())?, 0)
    };
    let above = integer.wrapping_sub(i64::from(count).wrapping_mul(scale.base));
    let number = above >> scale.shift;
    (number << scale.shift == above).then_some((number, units))
}

#[inline]
fn sum_value(scale: &Scale, count: u32, number: i64, units: i64) -> f64 {
    let base = i64::from(count).wrapping_mul(scale.base);
    let value = decimal((number << scale.shift).wrapping_add(base), scale.exponent());
    if units == 0 { value } else { f64::from_bits(value.to_bits().wrapping_add(units as u64)) }
}

/// The scale of a series' sums: that of its values, near or not, or raw.
fn sum_scale(page: &WindowColumns, scale: Scale, series: usize) -> Scale {
    let deep = || page.series(series).filter(|&at| page.count[at] > 2);
    let budget = exceptions_max(deep().count());
    let serves = |scale: &Scale| {
        let missed = deep().filter(|&at| split_sum(scale, page.count[at], page.sum[at]).is_none());
        missed.take(budget + 1).count() <= budget
    };
    if scale.is_raw() {
        return scale;
    }
    let exact = Scale { class: scale.class & !NEAR, ..scale };
    let near = Scale { class: scale.class | NEAR, ..scale };
    if serves(&exact) {
        exact
    } else if serves(&near) {
        near
    } else {
        Scale { class: super::values::RAW, ..Scale::default() }
    }
}

/// Read the sections that are there: minimum, maximum, sum (which needs the other two).
pub(super) fn read_folds(
    [low, high, sum]: [Option<&[u8]>; 3],
    tallies: &[Tally],
    scaled: &Scaled,
    asked: &Asked,
    page: &mut WindowColumns,
    numbers: &mut Numbers,
) -> Result<()> {
    let any = (0..tallies.len()).any(|series| has_folds(page, tallies, series));
    let fields = asked.fields;
    let lacks = |field: Fields, section: &Option<&[u8]>| {
        any && fields.both(field) != Fields::NONE && section.is_none()
    };
    let sums = fields.both(Fields::SUM) != Fields::NONE;
    if lacks(Fields::MINIMUM, &low)
        || lacks(Fields::MAXIMUM, &high)
        || lacks(Fields::SUM, &sum)
        || any && sums && (low.is_none() || high.is_none())
    {
        return Err(broken("page without folds"));
    }
    let mut sides = [Vec::new(), Vec::new()];
    for (side, bytes) in [(Side::Low, low), (Side::High, high)] {
        if let Some(bytes) = bytes {
            let told = read_side(bytes, side, tallies, scaled, asked.wanted, page, numbers)?;
            sides[side as usize] = told;
        }
    }
    if let Some(bytes) = sum.filter(|_| any) {
        read_sum(bytes, tallies, scaled, &sides, asked.wanted, page, numbers)?;
    }
    sides.into_iter().for_each(|side| numbers.give(side));
    Ok(())
}

/// The settings and pooled columns of a section, cut series by series.
struct Pooled {
    flags: Vec<i64>,
    residuals: Vec<i64>,
    corrections: Vec<i64>,
    at: [usize; 2],
}

impl Pooled {
    fn read(cursor: &mut Cursor, tallies: &[Tally], numbers: &mut Numbers) -> Result<Pooled> {
        let flags = read(cursor, tallies.len())?;
        if !flags.iter().all(|flags| (0..8).contains(flags)) {
            return Err(broken("flags of a series"));
        }
        let size = |flag: i64| -> usize {
            let with = flags.iter().zip(tallies).filter(|(flags, _)| *flags & flag != 0);
            with.map(|(_, tally)| tally.deep).sum()
        };
        let residuals = read_into(cursor, size(HAS_RESIDUALS), numbers)?;
        let corrections = read_into(cursor, size(HAS_CORRECTIONS), numbers)?;
        Ok(Pooled { flags, residuals, corrections, at: [0, 0] })
    }

    fn give(self, numbers: &mut Numbers) {
        numbers.give(self.residuals);
        numbers.give(self.corrections);
    }

    /// Residuals and corrections of a series; each empty where all are zero.
    fn series(&mut self, index: usize, deep: usize) -> (&[i64], &[i64]) {
        let mut ranges = [0..0, 0..0];
        for (part, flag) in [HAS_RESIDUALS, HAS_CORRECTIONS].into_iter().enumerate() {
            let size = if self.flags[index] & flag != 0 { deep } else { 0 };
            ranges[part] = self.at[part]..self.at[part] + size;
            self.at[part] += size;
        }
        let [residuals, corrections] = ranges;
        (&self.residuals[residuals], &self.corrections[corrections])
    }
}

fn read_side(
    bytes: &[u8],
    side: Side,
    tallies: &[Tally],
    scaled: &Scaled,
    wanted: &[bool],
    page: &mut WindowColumns,
    spare: &mut Numbers,
) -> Result<Vec<i64>> {
    let mut cursor = Cursor::new(bytes);
    let mut pooled = Pooled::read(&mut cursor, tallies, spare)?;
    let mut numbers = spare.zeros(page.window_count());
    let mut column =
        std::mem::take(if side == Side::Low { &mut page.minimum } else { &mut page.maximum });
    for series in 0..tallies.len() {
        let (residuals, corrections) = pooled.series(series, tallies[series].deep);
        if !wanted[series] || !has_folds(page, tallies, series) {
            continue;
        }
        let scale = scaled.scales[series];
        if scale.is_plain() && tallies[series].deep == page.series(series).len() {
            let out = (&mut numbers[page.series(series)], &mut column[page.series(series)]);
            reach_plain(side, (page, scaled, series), residuals, out);
            continue;
        }
        let (mut residuals, mut corrections) = (residuals.iter(), corrections.iter());
        for at in page.series(series).filter(|&at| page.count[at] > 0) {
            let (from, from_units, value) = nearer(side, scaled, page, at);
            (numbers[at], column[at]) = (from, value);
            if page.count[at] > 2 {
                let residual = residuals.next().copied().unwrap_or(0);
                let correction = corrections.next().copied().unwrap_or(0);
                if residual != 0 || correction != 0 {
                    numbers[at] = side.reach(from, residual);
                    column[at] = scale.value(numbers[at], from_units.wrapping_add(correction));
                }
            }
        }
    }
    pooled.give(spare);
    Exceptions::read(&mut cursor, column.len(), |at, value| column[at] = value)?;
    match side {
        Side::Low => page.minimum = column,
        Side::High => page.maximum = column,
    }
    if cursor.is_empty() { Ok(numbers) } else { Err(broken("end of a section")) }
}

/// `read_side` of a series whose windows are all deep and whose values have no corrections: nearly
/// all of them.
fn reach_plain(
    side: Side,
    (page, scaled, series): (&WindowColumns, &Scaled, usize),
    residuals: &[i64],
    (numbers, column): (&mut [i64], &mut [f64]),
) {
    let range = page.series(series);
    let scale = scaled.scales[series];
    let ends = scaled.first[range.clone()].iter().zip(&scaled.last[range.clone()]);
    let values = page.first[range.clone()].iter().zip(&page.last[range]);
    let told = numbers.iter_mut().zip(column);
    for (i, (((&first, &last), (first_value, last_value)), (number, value))) in
        ends.zip(values).zip(told).enumerate()
    {
        let is_last = side.is_last(first, last);
        let residual = residuals.get(i).copied().unwrap_or(0);
        *number = side.reach(if is_last { last } else { first }, residual);
        *value = match residual {
            // To the bit what is there, which may be a value that no scale can say.
            0 if is_last => *last_value,
            0 => *first_value,
            _ => scale.exact(*number),
        };
    }
}

fn read_sum(
    bytes: &[u8],
    tallies: &[Tally],
    scaled: &Scaled,
    [low, high]: &[Vec<i64>; 2],
    wanted: &[bool],
    page: &mut WindowColumns,
    numbers: &mut Numbers,
) -> Result<()> {
    let mut cursor = Cursor::new(bytes);
    let mut pooled = Pooled::read(&mut cursor, tallies, numbers)?;
    for series in 0..tallies.len() {
        let raw = pooled.flags[series] & SUM_RAW != 0;
        let (residuals, corrections) = pooled.series(series, tallies[series].deep);
        if !wanted[series] || !has_folds(page, tallies, series) {
            continue;
        }
        let scale = scaled.scales[series];
        let (mut residuals, mut corrections) = (residuals.iter(), corrections.iter());
        for at in page.series(series).filter(|&at| page.count[at] > 0) {
            let count = page.count[at];
            if count <= 2 {
                page.sum[at] = shallow_sum(count, page.first[at], page.last[at]);
                continue;
            }
            let residual = residuals.next().copied().unwrap_or(0);
            let units = corrections.next().copied().unwrap_or(0);
            page.sum[at] = if raw {
                let bits = expected_bits(page, at).wrapping_add(residual);
                f64::from_bits(ordered(bits) as u64)
            } else {
                let numbers = [scaled.first[at], scaled.last[at], low[at], high[at]];
                let number = expected_number(count, numbers).wrapping_add(residual);
                sum_value(&scale, count, number, units)
            };
        }
    }
    pooled.give(numbers);
    let sums = &mut page.sum;
    Exceptions::read(&mut cursor, sums.len(), |at, value| sums[at] = value)?;
    if cursor.is_empty() { Ok(()) } else { Err(broken("end of a section")) }
}
