//! What a stretch of one series' time comes to: enough to answer from, and to go on with.
//!
//! Invariant: states merge in time order, and merged states say what one state over all their
//! points says: bit for bit on integer values (sums below 2^53), else up to the last bits of sums.
//! A number that `fields` does not name is a guess or nothing.

use super::columns::{Fields, Kind, Window};
use crate::evaluate::extrapolate::Seen;
use crate::evaluate::fold::{ExtremeFold, Fold, SumFold};
use crate::evaluate::functions::Function;
use crate::evaluate::numeric::{Mean, add, total};
use crate::model::STALE_BITS;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    /// Points, stale markers not counted.
    pub count: u64,
    pub first_ms: i64,
    pub first: f64,
    pub last_ms: i64,
    pub last: f64,
    /// The newest thing is a stale marker.
    pub ends_stale: bool,
    /// What a counter lost at resets: the sum of the values before each fall.
    pub dropped: f64,
    pub sum: f64,
    /// The sum's lost digits.
    pub compensation: f64,
    /// NaN only where there is nothing else.
    pub minimum: f64,
    pub maximum: f64,
    /// What is known exactly.
    pub fields: Fields,
}

impl State {
    pub const EMPTY: State = State {
        count: 0,
        first_ms: 0,
        first: 0.0,
        last_ms: 0,
        last: 0.0,
        ends_stale: false,
        dropped: 0.0,
        sum: 0.0,
        compensation: 0.0,
        minimum: f64::NAN,
        maximum: f64::NAN,
        fields: Fields::ALL,
    };

    /// Neither a point nor a marker.
    pub fn is_empty(&self) -> bool {
        self.count == 0 && !self.ends_stale
    }

    /// Take in a later point, or a stale marker.
    #[inline(always)]
    pub fn push(&mut self, time_ms: i64, value: f64) {
        if value.to_bits() == STALE_BITS {
            self.ends_stale = true;
            return;
        }
        if self.count == 0 {
            (self.first_ms, self.first) = (time_ms, value);
        } else if value < self.last {
            self.dropped += self.last;
        }
        (self.last_ms, self.last) = (time_ms, value);
        self.count += 1;
        self.ends_stale = false;
        (self.sum, self.compensation) = add(value, self.sum, self.compensation);
        self.minimum = lower(self.minimum, value);
        self.maximum = higher(self.maximum, value);
    }

    /// The state of points in time order, markers among them.
    pub fn of_points(times_ms: &[i64], values: &[f64]) -> State {
        let mut state = State::EMPTY;
        times_ms.iter().zip(values).for_each(|(&time_ms, &value)| state.push(time_ms, value));
        state
    }

    /// The state of a window of which `fields` are known.
    pub fn of_window(window: &Window, fields: Fields) -> State {
        if window.count == 0 {
            return State { ends_stale: window.ends_stale, ..State::EMPTY };
        }
        State {
            count: u64::from(window.count),
            first_ms: window.first_ms,
            first: window.first,
            last_ms: window.last_ms,
            last: window.last,
            ends_stale: window.ends_stale,
            dropped: window.dropped,
            sum: window.sum,
            compensation: 0.0,
            minimum: window.minimum,
            maximum: window.maximum,
            fields,
        }
    }

    /// The window of this state; what the kind does not keep is zero.
    pub fn to_window(&self, end_ms: i64, kind: Kind) -> Window {
        if self.count == 0 {
            return Window { end_ms, ends_stale: self.ends_stale, ..Window::default() };
        }
        let mut window = Window {
            end_ms,
            count: u32::try_from(self.count).unwrap_or(u32::MAX),
            first_ms: self.first_ms,
            first: self.first,
            last_ms: self.last_ms,
            last: self.last,
            ends_stale: self.ends_stale,
            ..Window::default()
        };
        if kind != Kind::Gauge {
            window.dropped = self.dropped;
        }
        if kind != Kind::Counter {
            window.sum = total(self.sum, self.compensation);
            (window.minimum, window.maximum) = (self.minimum, self.maximum);
        }
        window
    }

    /// Take in what came later. A reset between the two is seen.
    pub fn merge(&mut self, later: &State) {
        if later.count == 0 {
            self.ends_stale |= later.ends_stale;
            return;
        }
        if self.count == 0 {
            *self = *later;
            return;
        }
        if later.first < self.last {
            self.dropped += self.last;
        }
        self.dropped += later.dropped;
        (self.last_ms, self.last) = (later.last_ms, later.last);
        self.ends_stale = later.ends_stale;
        self.count += later.count;
        let mut sum = SumFold { sum: self.sum, compensation: self.compensation };
        sum.merge(&SumFold { sum: later.sum, compensation: later.compensation });
        (self.sum, self.compensation) = (sum.sum, sum.compensation);
        self.minimum = lower(self.minimum, later.minimum);
        self.maximum = higher(self.maximum, later.maximum);
        self.fields = self.fields.both(later.fields);
    }

    /// What `function` says of the range (end - range, end] that this is the state of; None where
    /// it says nothing, and for functions without a state (`has_state`).
    pub fn finish(&self, function: Function, end_ms: i64, range_ms: i64) -> Option<f64> {
        let seconds = |time_ms: i64| time_ms as f64 / 1000.0;
        if self.count == 0 {
            return None;
        }
        match function {
            // A window may begin before the look-back does.
            Function::Last | Function::Timestamp => {
                let seen = !self.ends_stale && self.last_ms > end_ms - range_ms;
                let time = function == Function::Timestamp;
                seen.then(|| if time { seconds(self.last_ms) } else { self.last })
            }
            Function::Rate | Function::Increase | Function::Delta => {
                let counter = function != Function::Delta;
                let per_second = function == Function::Rate;
                let seen = self.seen(counter)?;
                Some(seen.stretched(end_ms, range_ms, counter, per_second))
            }
            Function::Sum => Some(total(self.sum, self.compensation)),
            Function::Average => Some(self.mean()),
            Function::Minimum => Some(self.minimum),
            Function::Maximum => Some(self.maximum),
            Function::Count => Some(self.count as f64),
            Function::Present | Function::Absent => Some(1.0),
            Function::LastOverTime => Some(self.last),
            Function::FirstOverTime => Some(self.first),
            Function::TimeOfLast => Some(seconds(self.last_ms)),
            Function::TimeOfFirst => Some(seconds(self.first_ms)),
            _ => None,
        }
    }

    fn seen(&self, counter: bool) -> Option<Seen> {
        let rise = self.last - self.first;
        (self.count > 1).then_some(Seen {
            count: self.count as usize,
            first_ms: self.first_ms,
            first: self.first,
            last_ms: self.last_ms,
            rise: if counter && self.dropped != 0.0 { rise + self.dropped } else { rise },
        })
    }

    fn mean(&self) -> f64 {
        let (value, count) = (self.sum, self.count as f64);
        Mean { value, compensation: self.compensation, count, incremental: false }.value()
    }
}

/// The columns that `function` needs to be answered exactly, or None where no state answers it.
pub fn needs(function: Function) -> Option<Fields> {
    let first = Fields::FIRST_MS.with(Fields::FIRST);
    let last = Fields::LAST_MS.with(Fields::LAST);
    let ends = Fields::COUNT.with(first).with(last);
    Some(match function {
        Function::Last => last.with(Fields::STALE),
        Function::Timestamp => Fields::LAST_MS.with(Fields::STALE),
        Function::Rate | Function::Increase => ends.with(Fields::DROPPED),
        Function::Delta => ends,
        Function::Sum | Function::Average => Fields::COUNT.with(Fields::SUM),
        Function::Minimum => Fields::COUNT.with(Fields::MINIMUM),
        Function::Maximum => Fields::COUNT.with(Fields::MAXIMUM),
        Function::Count | Function::Present | Function::Absent => Fields::COUNT,
        Function::LastOverTime => Fields::COUNT.with(Fields::LAST),
        Function::FirstOverTime => Fields::COUNT.with(Fields::FIRST),
        Function::TimeOfLast => Fields::COUNT.with(Fields::LAST_MS),
        Function::TimeOfFirst => Fields::COUNT.with(Fields::FIRST_MS),
        _ => return None,
    })
}

/// Do states answer `function`?
pub fn has_state(function: Function) -> bool {
    needs(function).is_some()
}

#[inline(always)]
pub(super) fn lower(best: f64, value: f64) -> f64 {
    let mut fold = ExtremeFold::<false>(best);
    fold.push(value);
    fold.0
}

#[inline(always)]
pub(super) fn higher(best: f64, value: f64) -> f64 {
    let mut fold = ExtremeFold::<true>(best);
    fold.push(value);
    fold.0
}
