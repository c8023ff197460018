//! States of several series over the same steps, and the columns that carry them over a socket
//! (docs/formats/evaluate.md, `states`).
//!
//! Invariant: `states` holds `step_count` states a series, series after series.

use super::columns::Fields;
use super::state::State;
use crate::error::{KernelError, Result};
use crate::evaluate::frame::Column;
use crate::labels::LabelTable;

#[derive(Clone, Debug)]
pub struct StateRows {
    pub labels: LabelTable,
    pub step_count: usize,
    pub states: Vec<State>,
}

impl StateRows {
    /// The states of series `i`.
    pub fn row(&self, i: usize) -> &[State] {
        &self.states[i * self.step_count..(i + 1) * self.step_count]
    }

    /// Without the series that hold nothing at any step.
    pub fn without_empty_rows(mut self) -> Result<StateRows> {
        let full = |&i: &usize| self.row(i).iter().any(|state| !state.is_empty());
        let kept: Vec<usize> = (0..self.labels.len()).filter(full).collect();
        if kept.len() == self.labels.len() {
            return Ok(self);
        }
        let width = self.step_count;
        for (to, &from) in kept.iter().enumerate() {
            self.states.copy_within(from * width..(from + 1) * width, to * width);
        }
        self.states.truncate(kept.len() * width);
        self.labels = self.labels.take(&kept)?;
        Ok(self)
    }

    /// The columns of `fields`, and `present` where some state is empty.
    pub fn to_columns(&self, fields: Fields) -> Vec<(&'static str, Column)> {
        let mut columns = Vec::new();
        if self.states.iter().any(State::is_empty) {
            let present = self.states.iter().map(|state| !state.is_empty());
            columns.push(("present", Column::Bits(present.collect())));
        }
        for (name, field, part) in PARTS {
            if !fields.has(field) {
                continue;
            }
            let states = self.states.iter();
            let column = match part {
                Part::Number(get, _) => Column::F64(states.map(get).collect()),
                Part::Whole(get, _) => Column::I64(states.map(get).collect()),
                Part::Flag(get, _) => Column::Bits(states.map(get).collect()),
            };
            columns.push((name, column));
        }
        columns
    }

    /// The states of `series` rows; what is known of them is `fields`. `take` gives a column away.
    ///
    /// Errors: Corruption where columns are missing or do not fit.
    pub fn from_columns(
        labels: LabelTable,
        step_count: usize,
        fields: Fields,
        mut take: impl FnMut(&str) -> Option<Column>,
    ) -> Result<StateRows> {
        let cells = labels.len().saturating_mul(step_count);
        let mut states = crate::error::room_for(cells, "states")?;
        states.resize(cells, State { count: 1, fields, ..State::EMPTY });
        for (name, field, part) in PARTS {
            if !fields.has(field) {
                continue;
            }
            let filled = match (part, take(name)) {
                (Part::Number(_, set), Some(Column::F64(values))) => fill(&mut states, values, set),
                (Part::Whole(_, set), Some(Column::I64(values))) => fill(&mut states, values, set),
                (Part::Flag(_, set), Some(Column::Bits(values))) => fill(&mut states, values, set),
                _ => false,
            };
            if !filled {
                return Err(KernelError::corruption(format!("evaluate answer: column {name}")));
            }
        }
        if let Some(Column::Bits(present)) = take("present") {
            if present.len() < cells {
                return Err(KernelError::corruption("evaluate answer: column present"));
            }
            for (state, _) in states.iter_mut().zip(present).filter(|(_, here)| !here) {
                *state = State::EMPTY;
            }
        }
        Ok(StateRows { labels, step_count, states })
    }
}

/// Flags come eight a byte: there may be some more of them than states.
fn fill<T>(states: &mut [State], values: Vec<T>, set: fn(&mut State, T)) -> bool {
    let enough = values.len() >= states.len();
    states.iter_mut().zip(values).for_each(|(state, value)| set(state, value));
    enough
}

type Setter<T> = fn(&mut State, T);

/// How a column's part of a state is got and set.
#[derive(Clone, Copy)]
enum Part {
    Number(fn(&State) -> f64, Setter<f64>),
    Whole(fn(&State) -> i64, Setter<i64>),
    Flag(fn(&State) -> bool, Setter<bool>),
}

/// The columns by name, in the order in which they are sent; a sum is two of them.
const PARTS: [(&str, Fields, Part); 11] = [
    ("count", Fields::COUNT, Part::Whole(|s| s.count as i64, |s, v| s.count = v.max(0) as u64)),
    ("first_ms", Fields::FIRST_MS, Part::Whole(|s| s.first_ms, |s, v| s.first_ms = v)),
    ("first", Fields::FIRST, Part::Number(|s| s.first, |s, v| s.first = v)),
    ("last_ms", Fields::LAST_MS, Part::Whole(|s| s.last_ms, |s, v| s.last_ms = v)),
    ("last", Fields::LAST, Part::Number(|s| s.last, |s, v| s.last = v)),
    ("stale", Fields::STALE, Part::Flag(|s| s.ends_stale, |s, v| s.ends_stale = v)),
    ("dropped", Fields::DROPPED, Part::Number(|s| s.dropped, |s, v| s.dropped = v)),
    ("sum", Fields::SUM, Part::Number(|s| s.sum, |s, v| s.sum = v)),
    ("compensation", Fields::SUM, Part::Number(|s| s.compensation, |s, v| s.compensation = v)),
    ("minimum", Fields::MINIMUM, Part::Number(|s| s.minimum, |s, v| s.minimum = v)),
    ("maximum", Fields::MAXIMUM, Part::Number(|s| s.maximum, |s, v| s.maximum = v)),
];
