//! Windows of many series, in columns.
//!
//! Invariant: a series' windows ascend by end, none is empty: each holds a point or a stale marker.
//! Points count without the markers. All columns are as long as `end_ms`; one that the series' kind
//! does not keep, or that was not asked for, holds zeros and says nothing.

use super::sketches::SketchColumn;
use std::ops::Range;

/// Lengths of the windows of the two tiers.
pub const WARM_WINDOW_MS: i64 = 60_000;
pub const COLD_WINDOW_MS: i64 = 3_600_000;

/// The end of the window that holds a point of `time_ms`: the one function that knows.
#[inline(always)]
pub fn window_end_ms(time_ms: i64, window_ms: i64) -> i64 {
    time_ms.div_euclid(window_ms) * window_ms
        + if time_ms.rem_euclid(window_ms) == 0 { 0 } else { window_ms }
}

/// What a series measures, as far as its windows care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// Keeps `dropped`, not `sum`, `minimum`, `maximum`.
    Counter = 1,
    /// Keeps `sum`, `minimum`, `maximum`, not `dropped`.
    Gauge = 2,
    /// Keeps everything.
    Unknown = 3,
}

impl Kind {
    pub fn from_u8(code: u8) -> Option<Kind> {
        match code {
            1 => Some(Kind::Counter),
            2 => Some(Kind::Gauge),
            3 => Some(Kind::Unknown),
            _ => None,
        }
    }

    /// The columns that its windows have.
    pub fn fields(self) -> Fields {
        match self {
            Kind::Counter => Fields::COMMON.with(Fields::DROPPED),
            Kind::Gauge => Fields::COMMON.with(Fields::FOLDS),
            Kind::Unknown => Fields::ALL,
        }
    }

    /// What to read of a series of this kind where `asked` is wanted: what stands in for columns
    /// that the kind does not keep comes instead of them.
    pub fn to_read(self, asked: Fields) -> Fields {
        let kept = asked.both(self.fields());
        if kept == asked { kept } else { kept.with(Fields::STAND_INS) }
    }

    /// Is `read` all that there is to read where `asked` is wanted?
    pub fn satisfied(self, asked: Fields, read: Fields) -> bool {
        read.has(self.to_read(asked))
    }
}

/// A set of columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields(u16);

impl Fields {
    pub const NONE: Fields = Fields(0);
    pub const COUNT: Fields = Fields(1);
    pub const FIRST_MS: Fields = Fields(2);
    pub const FIRST: Fields = Fields(4);
    pub const LAST_MS: Fields = Fields(8);
    pub const LAST: Fields = Fields(16);
    pub const STALE: Fields = Fields(32);
    pub const DROPPED: Fields = Fields(64);
    pub const SUM: Fields = Fields(128);
    pub const MINIMUM: Fields = Fields(256);
    pub const MAXIMUM: Fields = Fields(512);
    /// Of the windows that have one.
    pub const SKETCH: Fields = Fields(1024);
    /// What every kind keeps.
    pub const COMMON: Fields = Fields(63 | 1024);
    /// Sum, minimum, maximum.
    pub const FOLDS: Fields = Fields(128 | 256 | 512);
    pub const ALL: Fields = Fields(2047);
    /// What a missing column is put together from, exactly in windows of one or two points.
    pub const STAND_INS: Fields = Fields(1 | 4 | 16);

    pub const fn with(self, other: Fields) -> Fields {
        Fields(self.0 | other.0)
    }
    pub const fn both(self, other: Fields) -> Fields {
        Fields(self.0 & other.0)
    }
    pub const fn without(self, other: Fields) -> Fields {
        Fields(self.0 & !other.0)
    }
    pub const fn bits(self) -> u16 {
        self.0
    }
    /// The set of these bits, unknown ones left out.
    pub const fn from_bits(bits: u16) -> Fields {
        Fields(bits & Fields::ALL.0)
    }
    /// Are all of `other` in here?
    pub const fn has(self, other: Fields) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One window.
///
/// `dropped` is what the counter lost at resets inside the window: the sum of the values before
/// each fall. Its reset-corrected increase is `last - first + dropped`, as PromQL adds it up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Window {
    pub end_ms: i64,
    /// Points, stale markers not counted; 0 where the window holds a marker alone: then only
    /// `end_ms` and `ends_stale` mean something.
    pub count: u32,
    pub first_ms: i64,
    pub first: f64,
    pub last_ms: i64,
    pub last: f64,
    /// The newest thing in the window is a stale marker.
    pub ends_stale: bool,
    pub dropped: f64,
    pub sum: f64,
    pub minimum: f64,
    pub maximum: f64,
}

/// Windows of several series: series `i` owns `offsets[i]..offsets[i + 1]`.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowColumns {
    pub offsets: Vec<usize>,
    /// One a series.
    pub kinds: Vec<Kind>,
    pub end_ms: Vec<i64>,
    pub count: Vec<u32>,
    pub first_ms: Vec<i64>,
    pub first: Vec<f64>,
    pub last_ms: Vec<i64>,
    pub last: Vec<f64>,
    pub ends_stale: Vec<bool>,
    pub dropped: Vec<f64>,
    pub sum: Vec<f64>,
    pub minimum: Vec<f64>,
    pub maximum: Vec<f64>,
    /// Of some windows.
    pub sketches: SketchColumn,
}

impl Default for WindowColumns {
    fn default() -> WindowColumns {
        WindowColumns {
            offsets: vec![0],
            kinds: Vec::new(),
            end_ms: Vec::new(),
            count: Vec::new(),
            first_ms: Vec::new(),
            first: Vec::new(),
            last_ms: Vec::new(),
            last: Vec::new(),
            ends_stale: Vec::new(),
            dropped: Vec::new(),
            sum: Vec::new(),
            minimum: Vec::new(),
            maximum: Vec::new(),
            sketches: SketchColumn::default(),
        }
    }
}

impl WindowColumns {
    pub fn clear(&mut self) {
        self.offsets.clear();
        self.offsets.push(0);
        self.kinds.clear();
        self.end_ms.clear();
        self.count.clear();
        self.first_ms.clear();
        self.first.clear();
        self.last_ms.clear();
        self.last.clear();
        self.ends_stale.clear();
        self.dropped.clear();
        self.sum.clear();
        self.minimum.clear();
        self.maximum.clear();
        self.sketches.clear();
    }

    /// Make every column as long as the ends: those that were not read become zeros.
    pub fn complete(&mut self) {
        let count = self.end_ms.len();
        self.count.resize(count, 0);
        self.ends_stale.resize(count, false);
        for column in [&mut self.first_ms, &mut self.last_ms] {
            column.resize(count, 0);
        }
        for column in [
            &mut self.first,
            &mut self.last,
            &mut self.dropped,
            &mut self.sum,
            &mut self.minimum,
            &mut self.maximum,
        ] {
            column.resize(count, 0.0);
        }
    }

    pub fn series_count(&self) -> usize {
        self.kinds.len()
    }

    pub fn window_count(&self) -> usize {
        self.end_ms.len()
    }

    /// Where series `i` stands in the columns.
    pub fn series(&self, i: usize) -> Range<usize> {
        self.offsets[i]..self.offsets[i + 1]
    }

    pub fn push(&mut self, window: &Window) {
        self.end_ms.push(window.end_ms);
        self.count.push(window.count);
        self.first_ms.push(window.first_ms);
        self.first.push(window.first);
        self.last_ms.push(window.last_ms);
        self.last.push(window.last);
        self.ends_stale.push(window.ends_stale);
        self.dropped.push(window.dropped);
        self.sum.push(window.sum);
        self.minimum.push(window.minimum);
        self.maximum.push(window.maximum);
    }

    /// Append windows `range` of `other` to the open series.
    pub fn append(&mut self, other: &WindowColumns, range: Range<usize>) {
        self.append_fields(other, range, Fields::ALL);
    }

    /// As `append`, with zeros in the columns that are not among `fields` (ends, counts and stale
    /// marks always come): those `other` need not have.
    pub fn append_fields(&mut self, other: &WindowColumns, range: Range<usize>, fields: Fields) {
        if fields.has(Fields::SKETCH) {
            self.sketches.append(&other.sketches, range.clone(), self.end_ms.len());
        }
        self.end_ms.extend_from_slice(&other.end_ms[range.clone()]);
        self.count.extend_from_slice(&other.count[range.clone()]);
        self.ends_stale.extend_from_slice(&other.ends_stale[range.clone()]);
        for (field, own, others) in [
            (Fields::FIRST_MS, &mut self.first_ms, &other.first_ms),
            (Fields::LAST_MS, &mut self.last_ms, &other.last_ms),
        ] {
            extend(own, fields.has(field).then(|| &others[range.clone()]), range.len());
        }
        for (field, own, others) in [
            (Fields::FIRST, &mut self.first, &other.first),
            (Fields::LAST, &mut self.last, &other.last),
            (Fields::DROPPED, &mut self.dropped, &other.dropped),
            (Fields::SUM, &mut self.sum, &other.sum),
            (Fields::MINIMUM, &mut self.minimum, &other.minimum),
            (Fields::MAXIMUM, &mut self.maximum, &other.maximum),
        ] {
            extend(own, fields.has(field).then(|| &others[range.clone()]), range.len());
        }
    }

    /// Close the series being appended.
    pub fn end_series(&mut self, kind: Kind) {
        self.kinds.push(kind);
        self.offsets.push(self.end_ms.len());
    }

    pub fn window(&self, at: usize) -> Window {
        Window {
            end_ms: self.end_ms[at],
            count: self.count[at],
            first_ms: self.first_ms[at],
            first: self.first[at],
            last_ms: self.last_ms[at],
            last: self.last[at],
            ends_stale: self.ends_stale[at],
            dropped: self.dropped[at],
            sum: self.sum[at],
            minimum: self.minimum[at],
            maximum: self.maximum[at],
        }
    }
}

/// Append these values, or so many zeros.
fn extend<T: Copy + Default>(column: &mut Vec<T>, values: Option<&[T]>, count: usize) {
    match values {
        Some(values) => column.extend_from_slice(values),
        None => column.resize(column.len() + count, T::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_on_the_border_belongs_to_the_window_that_ends_there() {
        for (time_ms, end_ms) in [(0, 0), (1, 60_000), (60_000, 60_000), (60_001, 120_000)] {
            assert_eq!(window_end_ms(time_ms, 60_000), end_ms);
        }
        assert_eq!(window_end_ms(-1, 60_000), 0);
        assert_eq!(window_end_ms(-60_000, 60_000), -60_000);
    }
}
