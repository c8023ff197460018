//! Range functions and instant selectors over windows.
//!
//! Invariant: an answer called `Exact` is the one that raw points give: the same bits on integer
//! values, else equal up to the last bits of sums. What each function means over windows is
//! written in docs/rollup-functions.md.
//!
//! A step that does not end on a window's edge is answered as of the edge before it, over its range
//! rounded up to whole windows: `Bounded` by the window. A function without a state runs over the
//! windows' last points, as if only these had been scraped: `Approximate`, unless they are all
//! the points that there are.

use super::columns::Fields;
use super::points::newest;
use super::state::{State, needs};
use super::view::{Piece, View};
use crate::evaluate::functions::{Call, Extension, Function};
use crate::evaluate::window::{Steps, each_window};
use std::ops::Range;

pub use super::exactness::Exactness;
pub use super::points::states_of_points;
pub use super::scratch::Scratch;

/// A call ready to run over the windows of one length.
pub struct WindowCall<'a> {
    call: &'a Call,
    steps: &'a Steps<'a>,
    /// What the function's state is made of; None where it has none.
    needed: Option<Fields>,
    /// Where each step's windows end, on an edge.
    end_ms: Vec<i64>,
    /// The range in whole windows; an instant selector's look-back as it is.
    covered_ms: i64,
    window_ms: i64,
    edges: Exactness,
}

impl<'a> WindowCall<'a> {
    pub fn new(call: &'a Call, steps: &'a Steps<'a>, window_ms: i64) -> WindowCall<'a> {
        let floor = |time_ms: i64| time_ms.div_euclid(window_ms) * window_ms;
        let end_ms: Vec<i64> = steps.end_ms.iter().map(|&end| floor(end)).collect();
        let whole = |length_ms: i64| length_ms.rem_euclid(window_ms) == 0;
        let instant = is_instant(call.function) && call.extension.is_none();
        let lengths = instant
            || whole(steps.range_ms) && (call.extension.is_none() || whole(call.lookback_ms));
        let aligned = lengths && end_ms == steps.end_ms;
        WindowCall {
            call,
            steps,
            needed: if call.extension.is_none() { needs(call.function) } else { None },
            covered_ms: if instant {
                steps.range_ms
            } else {
                (-floor(-steps.range_ms)).max(window_ms)
            },
            end_ms,
            window_ms,
            edges: if aligned { Exactness::Exact } else { Exactness::Bounded },
        }
    }

    /// Has the function a state? Only then can parts of a step's range come from several tiers.
    pub fn has_state(&self) -> bool {
        self.needed.is_some()
    }

    /// The columns to read; `Kind::to_read` says what that comes to for a kind.
    pub fn fields(&self) -> Fields {
        fields_for(self.call)
    }

    /// The half-open range of the ends of the windows to read.
    pub fn read_ends_ms(&self) -> Range<i64> {
        let (Some(&first), Some(&last)) = (self.end_ms.first(), self.end_ms.last()) else {
            return 0..0;
        };
        let extended_ms = self.call.lookback_ms;
        let (behind, ahead) = match self.call.extension {
            None => (0, 0),
            Some(Extension::Anchored) => (extended_ms, 0),
            Some(Extension::Smoothed) => (extended_ms, extended_ms),
        };
        first - self.covered_ms.max(self.window_ms) - behind + 1..last + ahead + 1
    }

    /// Where each step's windows end: its end, or the window's edge before it.
    pub fn ends_ms(&self) -> &[i64] {
        &self.end_ms
    }

    /// How long the range is that each step's windows are taken from: the step's own in whole
    /// windows; an instant selector's look-back as it is.
    pub fn covered_ms(&self) -> i64 {
        self.covered_ms
    }

    /// How an answer stands to the raw one whatever the windows hold: at best.
    pub fn edges(&self) -> Exactness {
        self.edges
    }

    /// Evaluate one series. `out` and `present` hold a value a step; `present` comes in false, and
    /// `out` is defined only where it is set.
    pub fn run(
        &self,
        pieces: &[Piece<'_>],
        scratch: &mut Scratch<'_>,
        out: &mut [f64],
        present: &mut [bool],
    ) -> Exactness {
        let Some(needed) = self.needed else {
            return self.edges.max(self.run_over_last_points(pieces, scratch, out, present));
        };
        let mut worst = self.edges;
        let mut answer = |step: usize, state: &State| {
            if let Some(value) = self.finish(step, state) {
                (out[step], present[step]) = (value, true);
            }
            if !state.fields.has(needed) {
                worst = Exactness::Approximate;
            }
        };
        let mut states = std::mem::take(&mut scratch.states);
        if let [piece] = pieces {
            self.visit(piece, needed, &self.end_ms, self.reach_ms(), scratch, &mut answer);
        } else {
            states.clear();
            states.resize(self.steps.count(), State::EMPTY);
            let mut merge = |step: usize, state: &State| states[step].merge(state);
            for piece in pieces {
                self.visit(piece, needed, &self.end_ms, self.reach_ms(), scratch, &mut merge);
            }
            let met = states.iter().enumerate().filter(|(_, state)| !state.is_empty());
            met.for_each(|(step, state)| answer(step, state));
        }
        scratch.states = states;
        worst
    }

    /// The states of what `pieces` hold of each step's range inside `clip_ms` = (from, until],
    /// to be merged with what other tiers hold. Functions with a state only.
    pub fn states(
        &self,
        pieces: &[Piece<'_>],
        clip_ms: (i64, i64),
        scratch: &mut Scratch<'_>,
        visit: &mut dyn FnMut(usize, &State),
    ) -> Exactness {
        let Some(needed) = self.needed else { return Exactness::Approximate };
        let mut worst = self.clipped_edges(clip_ms);
        for piece in pieces {
            let ends = &piece.columns.end_ms[piece.range.clone()];
            let from = piece.range.start + ends.partition_point(|&end| end <= clip_ms.0);
            let until = piece.range.start + ends.partition_point(|&end| end <= clip_ms.1);
            let clipped = Piece { range: from..until.max(from), ..piece.clone() };
            let (ends, range) = (self.steps.end_ms, self.steps.range_ms);
            self.visit(&clipped, needed, ends, range, scratch, &mut |step, state| {
                if !state.fields.has(needed) {
                    worst = Exactness::Approximate;
                }
                visit(step, state);
            });
        }
        worst
    }

    /// A range's edge counts where it lies inside the clip.
    fn clipped_edges(&self, (from_ms, until_ms): (i64, i64)) -> Exactness {
        let off = |edge_ms: i64| {
            from_ms < edge_ms && edge_ms < until_ms && edge_ms.rem_euclid(self.window_ms) != 0
        };
        let instant = is_instant(self.call.function);
        let bounded = self
            .steps
            .end_ms
            .iter()
            .any(|&end_ms| off(end_ms) || !instant && off(end_ms - self.steps.range_ms));
        if bounded { Exactness::Bounded } else { Exactness::Exact }
    }

    /// The step's answer from the state of its whole windows.
    pub fn finish(&self, step: usize, state: &State) -> Option<f64> {
        let (function, range_ms) = (self.call.function, self.steps.range_ms);
        let value = state.finish(function, self.end_ms[step], self.covered_ms)?;
        let stretched = matches!(function, Function::Increase | Function::Delta);
        Some(if stretched && self.covered_ms != range_ms {
            value * (range_ms as f64 / self.covered_ms as f64)
        } else {
            value
        })
    }

    fn reach_ms(&self) -> i64 {
        self.covered_ms.max(self.window_ms)
    }

    /// The state of every step that meets windows of the piece.
    fn visit(
        &self,
        piece: &Piece<'_>,
        needed: Fields,
        end_ms: &[i64],
        range_ms: i64,
        scratch: &mut Scratch<'_>,
        visit: &mut dyn FnMut(usize, &State),
    ) {
        let Scratch { points, folds, copy, .. } = scratch;
        if !points.spend(piece.range.len()) {
            return;
        }
        if is_instant(self.call.function) {
            return newest_windows(piece, end_ms, range_ms, visit);
        }
        let (view, known) = View::of_piece(piece, needed, copy);
        folds.prepare(&view, needed, known);
        each_window(view.end_ms, end_ms, range_ms, |step, lo, hi| {
            if points.spend(1) {
                visit(step, &folds.state(&view, lo, hi));
            }
        });
    }

    /// Evaluate over each window's last point, as if nothing else had been scraped.
    fn run_over_last_points(
        &self,
        pieces: &[Piece<'_>],
        scratch: &mut Scratch<'_>,
        out: &mut [f64],
        present: &mut [bool],
    ) -> Exactness {
        let Scratch { points, times_ms, values, .. } = scratch;
        times_ms.clear();
        values.clear();
        let mut all_points = true;
        for piece in pieces {
            for at in piece.range.clone().filter(|&at| piece.columns.count[at] > 0) {
                times_ms.push(piece.columns.last_ms[at]);
                values.push(piece.columns.last[at]);
                all_points &= piece.columns.count[at] == 1;
            }
        }
        self.call.run(times_ms, values, self.steps, points, out, present);
        if all_points { Exactness::Exact } else { Exactness::Approximate }
    }
}

/// The columns that a call over windows looks at.
pub fn fields_for(call: &Call) -> Fields {
    let state = if call.extension.is_none() { needs(call.function) } else { None };
    state.unwrap_or(Fields::COUNT.with(Fields::LAST_MS).with(Fields::LAST))
}

pub(super) fn is_instant(function: Function) -> bool {
    matches!(function, Function::Last | Function::Timestamp)
}

/// The instant selector: the newest window of the look-back, gone where it ends with a marker.
fn newest_windows(
    piece: &Piece<'_>,
    end_ms: &[i64],
    range_ms: i64,
    visit: &mut dyn FnMut(usize, &State),
) {
    let columns = piece.columns;
    each_window(&columns.end_ms[piece.range.clone()], end_ms, range_ms, |step, _, hi| {
        let at = piece.range.start + hi - 1;
        let mut state = newest(columns.last_ms[at], columns.last[at]);
        state.ends_stale = columns.ends_stale[at];
        visit(step, &state);
    });
}
