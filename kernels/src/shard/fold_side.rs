//! One side of an output: its floats, or its native histograms. Inputs keep their points until the
//! journal's time has closed the points' window; then the windows are settled in the order of
//! series and time.

use super::budget::GaugeFunction;
use super::registry_bytes::{Input as Bytes, Output as Out};
use crate::error::Result;
use std::cmp::Ordering;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Counter = 1,
    Gauge = 2,
}

/// What windows add up.
pub(super) trait Number: Clone {
    /// The 0 of its kind.
    fn nothing(&self) -> Self;
    /// What it is above the one before; all of it where it was reset since.
    fn since(&self, before: &Self) -> Self;
    fn add(&mut self, more: &Self);
    fn divided(self, by: f64) -> Self;
    /// None where there is no greater and no less.
    fn compare(&self, other: &Self) -> Option<Ordering>;
}

/// What inputs hold of a point.
pub(super) trait Folded: Sized {
    type Number: Number;
    /// None where it adds nothing to a counter.
    fn counted(&self) -> Option<Self::Number>;
    /// None where it is no value of a gauge.
    fn measured(&self) -> Option<Self::Number>;
    /// The same, bit for bit?
    fn is(&self, other: &Self) -> bool;
    fn write(&self, out: &mut Out);
    fn read(input: &mut Bytes) -> Result<Self>;
}

/// A series that is folded: its points since the last closed window, by time.
#[derive(Debug)]
pub(super) struct Input<V> {
    /// The last point settled; counters only.
    pub settled: Option<(i64, V)>,
    pub open: Vec<(i64, V)>,
    pub seen_ms: i64,
}

#[derive(Debug)]
pub(super) struct Side<V: Folded> {
    pub kind: Kind,
    pub emitted: bool,
    pub total: V::Number,
    /// By series id.
    pub inputs: BTreeMap<u128, Input<V>>,
}

/// Of native histograms, as canonical bytes.
pub(super) type HistogramSide = Side<Box<[u8]>>;

/// Which windows close, and what gauges come to in them.
pub(super) struct Closing {
    pub grid_ms: i64,
    /// Of the first window that is open.
    pub first_end_ms: i64,
    pub closed_ms: i64,
    pub gauge: GaugeFunction,
}

/// What the inputs of one window come to.
struct Window<N> {
    value: Option<N>,
    count: u64,
    last_ms: i64,
}

/// The end of the window that a time belongs to: the first multiple of the grid that is not before.
pub(super) fn window_end(time_ms: i64, grid_ms: i64) -> i64 {
    let before = time_ms.div_euclid(grid_ms).saturating_mul(grid_ms);
    if before == time_ms { time_ms } else { before.saturating_add(grid_ms) }
}

impl<V> Default for Input<V> {
    fn default() -> Input<V> {
        Input { settled: None, open: Vec::new(), seen_ms: 0 }
    }
}

impl<V: Folded> Input<V> {
    /// Take a point unless it is late; was it taken, or does it repeat one that was?
    pub fn accept(&mut self, kind: Kind, late: impl Fn(i64) -> bool, point: (i64, V)) -> bool {
        let settled = self.settled.as_ref();
        let late = match kind {
            Kind::Gauge => late(point.0),
            Kind::Counter => settled.is_some_and(|(last_ms, _)| point.0 <= *last_ms),
        };
        if late {
            return settled.is_some_and(|(last_ms, last)| *last_ms == point.0 && last.is(&point.1));
        }
        self.open.push(point);
        true
    }

    /// By time; of equal times the last received stays.
    pub fn sort(&mut self) {
        if self.open.is_sorted_by(|a, b| a.0 < b.0) {
            return;
        }
        self.open.sort_by_key(|&(time_ms, _)| time_ms);
        self.open.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                std::mem::swap(kept, later);
            }
            same
        });
    }
}

impl<V: Folded> Side<V> {
    pub fn new(kind: Kind, total: V::Number) -> Side<V> {
        Side { kind, emitted: false, total, inputs: BTreeMap::new() }
    }

    /// Close windows: their points are settled, and what they come to is told. Answers how many
    /// points that were.
    pub fn close(&mut self, closing: &Closing, mut emit: impl FnMut(i64, &V::Number)) -> usize {
        let mut windows: BTreeMap<i64, Window<V::Number>> = BTreeMap::new();
        let end_of = |time_ms| window_end(time_ms, closing.grid_ms).max(closing.first_end_ms);
        let mut settled = 0;
        for input in self.inputs.values_mut() {
            let due = input.open.partition_point(|(time_ms, _)| *time_ms <= closing.closed_ms);
            if due == 0 {
                continue;
            }
            settled += due;
            let points = input.open.drain(..due);
            match self.kind {
                Kind::Counter => {
                    let mut before = input.settled.as_ref().and_then(|(_, last)| last.counted());
                    for point in points {
                        let Some(number) = point.1.counted() else { continue };
                        let increase =
                            before.map_or_else(|| number.nothing(), |b| number.since(&b));
                        windows.entry(end_of(point.0)).or_default().increase(increase);
                        (before, input.settled) = (Some(number), Some(point));
                    }
                }
                Kind::Gauge => points
                    .as_slice()
                    .chunk_by(|a, b| end_of(a.0) == end_of(b.0))
                    .filter_map(|points| points.last())
                    .filter_map(|(time_ms, value)| Some((*time_ms, value.measured()?)))
                    .for_each(|point| {
                        let window = windows.entry(end_of(point.0)).or_default();
                        window.gauge(closing.gauge, point);
                    }),
            }
        }
        for (time_ms, window) in windows {
            let Some(value) = window.value else { continue };
            match self.kind {
                Kind::Counter => {
                    if !self.emitted {
                        // The total's start time: from here on its increase is whole.
                        let mut zero = self.total.clone();
                        zero.add(&value.nothing());
                        emit(time_ms.saturating_sub(closing.grid_ms), &zero);
                    }
                    self.total.add(&value);
                    emit(time_ms, &self.total);
                }
                Kind::Gauge if closing.gauge == GaugeFunction::Avg => {
                    emit(time_ms, &value.divided(window.count as f64));
                }
                Kind::Gauge => emit(time_ms, &value),
            }
            self.emitted = true;
        }
        settled
    }

    /// Forget inputs that are idle; answers how many.
    pub fn forget_idle(&mut self, now_ms: i64, idle_ms: i64) -> usize {
        let before = self.inputs.len();
        self.inputs.retain(|_, input| {
            !input.open.is_empty() || input.seen_ms.saturating_add(idle_ms) > now_ms
        });
        before - self.inputs.len()
    }

    pub fn open_points(&self) -> usize {
        self.inputs.values().map(|input| input.open.len()).sum()
    }
}

impl<N> Default for Window<N> {
    fn default() -> Window<N> {
        Window { value: None, count: 0, last_ms: i64::MIN }
    }
}

impl<N: Number> Window<N> {
    fn increase(&mut self, more: N) {
        match &mut self.value {
            Some(value) => value.add(&more),
            None => self.value = Some(more),
        }
    }

    /// One input's last value in the window; inputs come ascending by their id.
    fn gauge(&mut self, function: GaugeFunction, (time_ms, value): (i64, N)) {
        self.count += 1;
        if matches!(function, GaugeFunction::Sum | GaugeFunction::Avg) {
            return self.increase(value);
        }
        let order = self.value.as_ref().map_or(Some(Ordering::Greater), |v| value.compare(v));
        let better = match (function, order) {
            (GaugeFunction::Max, Some(order)) => order == Ordering::Greater,
            (GaugeFunction::Min, Some(order)) => order == Ordering::Less || self.value.is_none(),
            _ => time_ms >= self.last_ms,
        };
        if better {
            (self.value, self.last_ms) = (Some(value), time_ms);
        }
    }
}

impl Number for f64 {
    fn nothing(&self) -> f64 {
        0.0
    }

    fn since(&self, before: &f64) -> f64 {
        if self >= before { self - before } else { *self }
    }

    fn add(&mut self, more: &f64) {
        *self += more;
    }

    fn divided(self, by: f64) -> f64 {
        self / by
    }

    fn compare(&self, other: &f64) -> Option<Ordering> {
        self.partial_cmp(other)
    }
}

impl Folded for f64 {
    type Number = f64;

    fn counted(&self) -> Option<f64> {
        self.is_finite().then_some(*self)
    }

    fn measured(&self) -> Option<f64> {
        (!self.is_nan()).then_some(*self)
    }

    fn is(&self, other: &f64) -> bool {
        self.to_bits() == other.to_bits()
    }

    fn write(&self, out: &mut Out) {
        out.0.extend_from_slice(&self.to_bits().to_le_bytes());
    }

    fn read(input: &mut Bytes) -> Result<f64> {
        let mut bits = [0; 8];
        bits.copy_from_slice(input.bytes(8)?);
        Ok(f64::from_bits(u64::from_le_bytes(bits)))
    }
}
