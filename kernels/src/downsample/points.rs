//! The states of raw points, for steps that begin in another tier.
//!
//! Invariant: merged with the states of what is not later than `from_ms`, they are the states of
//! the whole range. Points go through the same folds as windows: as windows of one point each.

use super::columns::Fields;
use super::evaluate::is_instant;
use super::scratch::Scratch;
use super::state::{State, needs};
use super::view::View;
use crate::evaluate::functions::Call;
use crate::evaluate::window::{Steps, each_window};
use crate::model::STALE_BITS;

/// The states of raw points over each step's range, as far as they are later than `from_ms`.
/// Points ascend by time, stale markers among them. Functions with a state only.
pub fn states_of_points(
    call: &Call,
    times_ms: &[i64],
    values: &[f64],
    steps: &Steps<'_>,
    from_ms: i64,
    scratch: &mut Scratch<'_>,
    visit: &mut dyn FnMut(usize, &State),
) {
    let Some(needed) = needs(call.function) else { return };
    let from = times_ms.partition_point(|&time_ms| time_ms <= from_ms);
    let (times_ms, values) = (&times_ms[from..], &values[from..]);
    let Scratch { points, folds, fresh, .. } = scratch;
    if !points.spend(times_ms.len()) {
        return;
    }
    if is_instant(call.function) {
        each_window(times_ms, steps.end_ms, steps.range_ms, |step, _, hi| {
            visit(step, &newest(times_ms[hi - 1], values[hi - 1]));
        });
        return;
    }
    let (times_ms, values) = fresh.of(times_ms, values);
    let view = View::of_points(times_ms, values);
    folds.prepare(&view, needed, Fields::ALL);
    each_window(times_ms, steps.end_ms, steps.range_ms, |step, lo, hi| {
        if points.spend(1) {
            visit(step, &folds.state(&view, lo, hi));
        }
    });
}

/// What an instant selector needs of one point or marker.
pub(super) fn newest(last_ms: i64, last: f64) -> State {
    let ends_stale = last.to_bits() == STALE_BITS;
    State { count: 1, last_ms, last, ends_stale, ..State::EMPTY }
}
