//! Sections `values` (first and last) and `dropped` of a window page, and the scales that the
//! folds share with them: how a series' values become small integers.

use super::columns::{Exceptions, broken, put, put_differences, read, read_differences, read_into};
use super::page::{Asked, Tally};
use crate::codec::bytes::{Cursor, put_varint};
use crate::codec::values::{
    common_exponent, cost, decimal, exceptions_max, integer_of, near_exponent, near_integer_of,
};
use crate::downsample::columns::{Fields, WindowColumns};
use crate::downsample::read_buffers::Numbers;
use crate::error::Result;

pub(super) const EXPONENT_MASK: i64 = 15;
pub(super) const EXPONENT_MAX: i64 = 14;
pub(super) const NEAR: i64 = 16;
pub(super) const RAW: i64 = 32;
const ENTER_ZERO: i64 = 64;
const CROSS_ZERO: i64 = 128;
const CLASS_MAX: i64 = 255;
/// A slope is worth its bytes only where a series is long.
const SLOPE_STEPS_MIN: usize = 16;
const SLOPE_SAMPLES_MAX: usize = 63;

/// A double's bits as an integer of the doubles' order, and back: its own inverse.
#[inline]
pub(super) fn ordered(bits: i64) -> i64 {
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

/// How a series' values are told as integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scale {
    pub class: i64,
    pub shift: u32,
    pub base: i64,
}

impl Scale {
    pub fn exponent(&self) -> usize {
        (self.class & EXPONENT_MASK) as usize
    }
    pub fn is_near(&self) -> bool {
        self.class & NEAR != 0
    }
    pub fn is_raw(&self) -> bool {
        self.class & RAW != 0
    }
    pub fn is_plain(&self) -> bool {
        self.class & (NEAR | RAW) == 0
    }

    /// (integer, units in the last place) of a value that this scale can say.
    #[inline]
    pub fn split(&self, value: f64) -> Option<(i64, i64)> {
        if self.is_raw() {
            Some((ordered(value.to_bits() as i64), 0))
        } else if self.is_near() {
            near_integer_of(value, self.exponent())
        } else {
            Some((integer_of(value, self.exponent())?, 0))
        }
    }

    /// The shifted integer, where nothing is lost.
    #[inline]
    pub fn shifted(&self, integer: i64) -> i64 {
        integer.wrapping_sub(self.base) >> self.shift
    }

    /// The value of a series that `is_plain`.
    #[inline]
    pub fn exact(&self, shifted: i64) -> f64 {
        decimal((shifted << self.shift).wrapping_add(self.base), self.exponent())
    }

    #[inline]
    pub fn value(&self, shifted: i64, units: i64) -> f64 {
        let integer = (shifted << self.shift).wrapping_add(self.base);
        if self.is_raw() {
            return f64::from_bits(ordered(integer) as u64);
        }
        let value = decimal(integer, self.exponent());
        if units == 0 { value } else { f64::from_bits(value.to_bits().wrapping_add(units as u64)) }
    }
}

/// A page's values as shifted integers and units in the last place; one a window, 0 where a window
/// has none. What no scale can say repeats its neighbour.
#[derive(Default)]
pub(super) struct Scaled {
    pub scales: Vec<Scale>,
    pub first: Vec<i64>,
    pub last: Vec<i64>,
    pub first_units: Vec<i64>,
    pub last_units: Vec<i64>,
}

impl Scaled {
    /// Of so many windows, all zeros.
    fn zeros(series: usize, windows: usize, numbers: &mut Numbers) -> Scaled {
        Scaled {
            scales: Vec::with_capacity(series),
            first: numbers.zeros(windows),
            last: numbers.zeros(windows),
            first_units: numbers.zeros(windows),
            last_units: numbers.zeros(windows),
        }
    }

    pub fn give(self, numbers: &mut Numbers) {
        [self.first, self.last, self.first_units, self.last_units]
            .into_iter()
            .for_each(|column| numbers.give(column));
    }
}

#[derive(Default)]
pub(super) struct ValuesEncoder {
    pub scaled: Scaled,
    pub tallies: Vec<Tally>,
    folds: bool,
    sample: Vec<f64>,
    enters: Vec<i64>,
    crosses: Vec<i64>,
    corrections: [Vec<i64>; 2],
    exceptions: Exceptions,
}

impl ValuesEncoder {
    pub fn any_valued(&self) -> bool {
        self.tallies.iter().any(|tally| tally.valued > 0)
    }

    /// Does any series keep sum, minimum, maximum?
    pub fn any_folds(&self) -> bool {
        self.folds
    }

    /// Choose every series' scale and bring first and last to it.
    pub fn prepare(&mut self, page: &WindowColumns) {
        let windows = page.window_count();
        let scaled = &mut self.scaled;
        scaled.scales.clear();
        for column in
            [&mut scaled.first, &mut scaled.last, &mut scaled.first_units, &mut scaled.last_units]
        {
            column.clear();
            column.resize(windows, 0);
        }
        self.tallies.clear();
        self.folds = false;
        for series in 0..page.series_count() {
            let tally = Tally::of(&page.count[page.series(series)]);
            self.folds |= tally.valued > 0 && page.kinds[series].fields().has(Fields::FOLDS);
            self.tallies.push(tally);
            let scale = self.choose(page, series);
            self.scaled.scales.push(scale);
            scaled_series(&mut self.scaled, page, series);
        }
    }

    /// The scale that says nearly all of a series' values.
    fn choose(&mut self, page: &WindowColumns, series: usize) -> Scale {
        let folds = page.kinds[series].fields().has(Fields::FOLDS);
        let sample = &mut self.sample;
        sample.clear();
        for at in page.series(series) {
            let count = page.count[at];
            if count > 1 {
                sample.push(page.first[at]);
            }
            if count > 2 && folds {
                sample.push(page.minimum[at]);
                sample.push(page.maximum[at]);
            }
            if count > 0 {
                sample.push(page.last[at]);
            }
        }
        if sample.is_empty() {
            return Scale::default();
        }
        let class = class_of(sample);
        let mut scale = Scale { class, shift: 0, base: 0 };
        let mut any = 0;
        let mut base = None;
        for value in sample.iter() {
            if let Some((integer, _)) = scale.split(*value) {
                any |= integer.wrapping_sub(*base.get_or_insert(integer));
            }
        }
        scale.base = base.unwrap_or(0);
        scale.shift = if any == 0 { 0 } else { any.trailing_zeros() };
        scale
    }

    /// Append section `values`, of the page that was prepared.
    pub fn put_values(&mut self, out: &mut Vec<u8>, page: &WindowColumns) {
        let series = page.series_count();
        let mut slopes = [Vec::with_capacity(series), Vec::with_capacity(series)];
        let mut classes = Vec::with_capacity(series);
        self.enters.clear();
        self.crosses.clear();
        self.corrections.iter_mut().for_each(Vec::clear);
        for index in 0..series {
            let (enter_start, cross_start) = (self.enters.len(), self.crosses.len());
            self.push_series(page, index);
            let scale = self.scaled.scales[index];
            let mut class = scale.class;
            let [enter_slopes, cross_slopes] = &mut slopes;
            for (column, start, slopes, zero) in [
                (&mut self.enters, enter_start, enter_slopes, ENTER_ZERO),
                (&mut self.crosses, cross_start, cross_slopes, CROSS_ZERO),
            ] {
                slopes.push(take_slope(&mut column[start..]));
                if column[start..].iter().all(|&step| step == 0) {
                    column.truncate(start);
                    class |= zero;
                }
            }
            classes.push(class);
        }
        let scales = &self.scaled.scales;
        put(out, &classes);
        put(out, &scales.iter().map(|scale| i64::from(scale.shift)).collect::<Vec<i64>>());
        put(out, &scales.iter().map(|scale| scale.base).collect::<Vec<i64>>());
        slopes.iter().for_each(|slopes| put(out, slopes));
        put(out, &self.enters);
        put(out, &self.crosses);
        self.corrections.iter().for_each(|corrections| put(out, corrections));
        self.exceptions.put(out);
    }

    /// Steps, corrections and exceptions of one series.
    fn push_series(&mut self, page: &WindowColumns, index: usize) {
        let (scaled, scale) = (&self.scaled, self.scaled.scales[index]);
        let (mut before, mut units_before, mut entered) = (0i64, 0i64, false);
        for at in page.series(index).filter(|&at| page.count[at] > 0) {
            let (first, last) = (scaled.first[at], scaled.last[at]);
            if entered {
                self.enters.push(first.wrapping_sub(before));
            }
            entered = true;
            if page.count[at] > 1 {
                self.crosses.push(last.wrapping_sub(first));
            }
            if scale.is_near() {
                let (first, last) = (scaled.first_units[at], scaled.last_units[at]);
                self.corrections[0].push(first.wrapping_sub(units_before));
                if page.count[at] > 1 {
                    self.corrections[1].push(last.wrapping_sub(first));
                }
                units_before = last;
            }
            before = last;
            let told = scale.value(first, scaled.first_units[at]);
            if told.to_bits() != page.first[at].to_bits() {
                self.exceptions.push(2 * at, page.first[at]);
            }
            let told = match page.count[at] {
                1 => page.first[at],
                _ => scale.value(last, scaled.last_units[at]),
            };
            if told.to_bits() != page.last[at].to_bits() {
                self.exceptions.push(2 * at + 1, page.last[at]);
            }
        }
    }

    pub fn put_dropped(&mut self, out: &mut Vec<u8>, page: &WindowColumns) {
        let (mut positions, mut forms, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        for series in 0..page.series_count() {
            if !page.kinds[series].fields().has(Fields::DROPPED) {
                continue;
            }
            for at in page.series(series).filter(|&at| page.count[at] > 0) {
                let dropped = page.dropped[at];
                if dropped.to_bits() != 0 {
                    positions.push(at as i64);
                    let integer = integer_of(dropped, 0);
                    forms.push(i64::from(integer.is_none()));
                    numbers.push(integer.unwrap_or(dropped.to_bits() as i64));
                }
            }
        }
        if !positions.is_empty() {
            put_varint(out, positions.len() as u64);
            put_differences(out, &positions);
            put(out, &forms);
            put(out, &numbers);
        }
    }
}

fn class_of(sample: &[f64]) -> i64 {
    if sample.iter().all(|value| integer_of(*value, 0).is_some()) {
        return 0;
    }
    let serves = |class: i64| {
        let scale = Scale { class, ..Scale::default() };
        let missed = sample.iter().filter(|value| scale.split(**value).is_none());
        missed.take(exceptions_max(sample.len()) + 1).count() <= exceptions_max(sample.len())
    };
    if let Some(exponent) = common_exponent(sample)
        && serves(exponent as i64)
    {
        return exponent as i64;
    }
    match near_exponent(sample) {
        Some(exponent) if serves(exponent as i64 | NEAR) => exponent as i64 | NEAR,
        _ => RAW,
    }
}

/// First and last of a series' windows as shifted integers.
fn scaled_series(scaled: &mut Scaled, page: &WindowColumns, series: usize) {
    let scale = scaled.scales[series];
    let (mut before, mut units_before) = (0, 0);
    let mut entered = false;
    for at in page.series(series).filter(|&at| page.count[at] > 0) {
        if let Some((integer, units)) = scale.split(page.first[at]) {
            (before, units_before) = (scale.shifted(integer), units);
        }
        if !entered {
            // The first one stands in no column: it is the base. A base that another value gave,
            // because none stands here, leaves an exception.
            before = 0;
            entered = true;
        }
        (scaled.first[at], scaled.first_units[at]) = (before, units_before);
        if page.count[at] > 1
            && let Some((integer, units)) = scale.split(page.last[at])
        {
            (before, units_before) = (scale.shifted(integer), units);
        }
        (scaled.last[at], scaled.last_units[at]) = (before, units_before);
    }
}

/// Take the median step off, where that makes the steps smaller.
fn take_slope(steps: &mut [i64]) -> i64 {
    if steps.len() < SLOPE_STEPS_MIN {
        return 0;
    }
    let stride = steps.len().div_ceil(SLOPE_SAMPLES_MAX);
    let mut samples: Vec<i64> = steps.iter().step_by(stride).copied().collect();
    let middle = samples.len() / 2;
    let slope = *samples.select_nth_unstable(middle).1;
    if slope == 0 || cost(steps, slope) + 16 >= cost(steps, 0) {
        return 0;
    }
    steps.iter_mut().for_each(|step| *step = step.wrapping_sub(slope));
    slope
}

/// Read section `values`; of series that are not wanted the columns stay zero. The integers are
/// kept where folds are asked for, which are told from them.
pub(super) fn read_values(
    bytes: &[u8],
    tallies: &[Tally],
    asked: &Asked,
    page: &mut WindowColumns,
    numbers: &mut Numbers,
) -> Result<Scaled> {
    let mut cursor = Cursor::new(bytes);
    let series = tallies.len();
    let classes = read(&mut cursor, series)?;
    let shifts = read(&mut cursor, series)?;
    let bases = read(&mut cursor, series)?;
    let slopes = [read(&mut cursor, series)?, read(&mut cursor, series)?];
    let mut sizes = [0; 4];
    for ((&class, &shift), tally) in classes.iter().zip(&shifts).zip(tallies) {
        if !(0..=CLASS_MAX).contains(&class)
            || class & EXPONENT_MASK > EXPONENT_MAX
            || class & NEAR != 0 && class & RAW != 0
            || !(0..64).contains(&shift)
        {
            return Err(broken("class of a series"));
        }
        sizes[0] += if class & ENTER_ZERO == 0 { tally.valued.saturating_sub(1) } else { 0 };
        sizes[1] += if class & CROSS_ZERO == 0 { tally.multi } else { 0 };
        sizes[2] += if class & NEAR != 0 { tally.valued } else { 0 };
        sizes[3] += if class & NEAR != 0 { tally.multi } else { 0 };
    }
    let mut columns: [Vec<i64>; 4] = Default::default();
    for (column, size) in columns.iter_mut().zip(sizes) {
        *column = read_into(&mut cursor, size, numbers)?;
    }
    let keep = asked.fields.both(Fields::FOLDS) != Fields::NONE;
    let mut scaled = Scaled::zeros(series, if keep { page.window_count() } else { 0 }, numbers);
    let mut parts = columns.each_ref().map(Vec::as_slice);
    for index in 0..series {
        let (class, tally) = (classes[index], tallies[index]);
        let scale = Scale { class, shift: shifts[index] as u32, base: bases[index] };
        scaled.scales.push(scale);
        let mut part = |column: usize, size: usize, there: bool| -> &[i64] {
            let (own, rest) = parts[column].split_at(if there { size } else { 0 });
            parts[column] = rest;
            own
        };
        let steps = Steps {
            enter: part(0, tally.valued.saturating_sub(1), class & ENTER_ZERO == 0),
            cross: part(1, tally.multi, class & CROSS_ZERO == 0),
            first_units: part(2, tally.valued, class & NEAR != 0),
            last_units: part(3, tally.multi, class & NEAR != 0),
            slopes: [slopes[0][index], slopes[1][index]],
        };
        if !asked.wanted[index] {
            continue;
        }
        let plain = steps.is_plain(&scale, tally, page.series(index).len());
        match (plain, keep) {
            (true, true) => integrate_plain::<true>(&steps, page, index, &mut scaled),
            (true, false) => integrate_plain::<false>(&steps, page, index, &mut scaled),
            (false, true) => integrate::<true>(&steps, page, index, &mut scaled),
            (false, false) => integrate::<false>(&steps, page, index, &mut scaled),
        }
    }
    columns.into_iter().for_each(|column| numbers.give(column));
    let (first, last) = (&mut page.first, &mut page.last);
    let count = &page.count;
    Exceptions::read(&mut cursor, first.len() * 2, |position, value| {
        let at = position / 2;
        if position % 2 == 0 {
            first[at] = value;
        }
        if position % 2 == 1 || count[at] == 1 {
            last[at] = value;
        }
    })?;
    if cursor.is_empty() { Ok(scaled) } else { Err(broken("end of a section")) }
}

/// One series' share of the columns; an empty one is all zeros.
struct Steps<'a> {
    enter: &'a [i64],
    cross: &'a [i64],
    first_units: &'a [i64],
    last_units: &'a [i64],
    slopes: [i64; 2],
}

impl Steps<'_> {
    /// Has every window two points at least, and their values no corrections?
    fn is_plain(&self, scale: &Scale, tally: Tally, windows: usize) -> bool {
        tally.multi == windows && scale.is_plain()
    }
}

/// `integrate` of a series that `is_plain`: nearly all of them.
fn integrate_plain<const KEEP: bool>(
    steps: &Steps,
    page: &mut WindowColumns,
    series: usize,
    scaled: &mut Scaled,
) {
    let range = page.series(series);
    let scale = scaled.scales[series];
    if KEEP {
        let windows = scaled.first[range.clone()].iter_mut().zip(&mut scaled.last[range.clone()]);
        walk_numbers(steps, windows, |number| number);
    }
    let windows = page.first[range.clone()].iter_mut().zip(&mut page.last[range]);
    walk_numbers(steps, windows, |number| scale.exact(number));
}

/// First and last of each window, from one to the next.
fn walk_numbers<'a, T: 'a>(
    steps: &Steps,
    windows: impl Iterator<Item = (&'a mut T, &'a mut T)>,
    of: impl Fn(i64) -> T,
) {
    let [enter_slope, cross_slope] = steps.slopes;
    let mut number = 0i64;
    for (i, (first, last)) in windows.enumerate() {
        if i > 0 {
            let enter = steps.enter.get(i - 1).copied().unwrap_or(0);
            number = number.wrapping_add(enter).wrapping_add(enter_slope);
        }
        *first = of(number);
        let cross = steps.cross.get(i).copied().unwrap_or(0);
        number = number.wrapping_add(cross).wrapping_add(cross_slope);
        *last = of(number);
    }
}

fn integrate<const KEEP: bool>(
    steps: &Steps,
    page: &mut WindowColumns,
    series: usize,
    scaled: &mut Scaled,
) {
    let scale = scaled.scales[series];
    let (mut enter, mut cross) = (steps.enter.iter(), steps.cross.iter());
    let (mut first_units, mut last_units) = (steps.first_units.iter(), steps.last_units.iter());
    let (mut number, mut units) = (0i64, 0i64);
    let mut entered = false;
    for at in page.series(series) {
        let count = page.count[at];
        if count == 0 {
            continue;
        }
        if entered {
            let step = enter.next().copied().unwrap_or(0).wrapping_add(steps.slopes[0]);
            number = number.wrapping_add(step);
        }
        entered = true;
        units = units.wrapping_add(first_units.next().copied().unwrap_or(0));
        if KEEP {
            (scaled.first[at], scaled.first_units[at]) = (number, units);
        }
        page.first[at] = scale.value(number, units);
        page.last[at] = page.first[at];
        if count > 1 {
            let step = cross.next().copied().unwrap_or(0).wrapping_add(steps.slopes[1]);
            number = number.wrapping_add(step);
            units = units.wrapping_add(last_units.next().copied().unwrap_or(0));
            page.last[at] = scale.value(number, units);
        }
        if KEEP {
            (scaled.last[at], scaled.last_units[at]) = (number, units);
        }
    }
}

/// Read section `dropped`.
pub(super) fn read_dropped(bytes: &[u8], page: &mut WindowColumns) -> Result<()> {
    let mut cursor = Cursor::new(bytes);
    let count = cursor.count(page.window_count())?;
    let positions = read_differences(&mut cursor, count)?;
    let forms = read(&mut cursor, count)?;
    let numbers = read(&mut cursor, count)?;
    for ((&at, &form), &number) in positions.iter().zip(&forms).zip(&numbers) {
        let slot = usize::try_from(at).ok().and_then(|at| page.dropped.get_mut(at));
        let slot = slot.ok_or_else(|| broken("dropped outside its page"))?;
        *slot = if form == 0 { number as f64 } else { f64::from_bits(number as u64) };
    }
    if cursor.is_empty() { Ok(()) } else { Err(broken("end of a section")) }
}
