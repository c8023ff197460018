//! A plan's states, unfinished: for steps whose range begins before the shard's points do, so that
//! another tier's states come before them.
//!
//! Invariant: merged with the states of what is not later than `from_ms` and finished, they give
//! the answer of `evaluate` over all points.

use super::budget::{Interrupt, Reservation};
use super::execute::{Evaluator, Scan, Stats, cost_of, lane_ranges};
use super::plan::{Evaluation, Plan, bad_plan};
use crate::downsample::columns::Fields;
use crate::downsample::evaluate::{Scratch, fields_for, states_of_points};
use crate::downsample::state::{State, has_state};
use crate::downsample::state_rows::StateRows;
use crate::error::Result;
use parking_lot::Mutex;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Bytes of one series and step: the state and its part of the columns that leave.
const CELL_BYTES: usize = size_of::<State>() + 80;

pub struct StatesAnswer {
    pub states: StateRows,
    /// The columns that the function needs.
    pub fields: Fields,
    pub stats: Stats,
    /// Given back when the answer has been sent.
    _memory: Reservation,
}

impl Evaluator {
    /// The states of each series and step, over what is later than the plan's `from_ms`; series
    /// with nothing there are left out.
    ///
    /// Errors: `sluiceway-query-bad-plan` (400) for aggregations, extended selectors and functions
    /// without a state; the limits of `evaluate`.
    pub fn states(&self, plan: &Plan, interrupt: &Interrupt) -> Result<StatesAnswer> {
        let started = Instant::now();
        let evaluation = Evaluation::of(plan)?;
        let call = &evaluation.call;
        if plan.aggregate.is_some() || call.extension.is_some() || !has_state(call.function) {
            return Err(bad_plan(format!("{} has no states to send", call.function.name())));
        }
        let limits = self.options.limits.lowered(&plan.limits);
        let from_ms = plan.from_ms.unwrap_or(i64::MIN);
        let read_ms = evaluation.read_ms.start.max(from_ms.saturating_add(1))
            ..evaluation.read_ms.end.max(from_ms.saturating_add(1));
        let series_max = limits.series_max;
        let keys = self.shard.select(&plan.tenant, &plan.matchers, read_ms.clone(), series_max)?;
        let source = self.shard.snapshot(&keys, read_ms)?;
        let steps = evaluation.end_ms.len();
        let cost = cost_of(&*source, keys.len(), steps).allow(limits.cost_max)?;
        let scan = Scan::new(self, &plan.tenant, &*source, limits, interrupt);
        let cells = keys.len().saturating_mul(steps);
        let bytes = cells.saturating_mul(CELL_BYTES);
        let memory = self.memory.reserve(bytes + keys.len() * 16, limits.bytes_max)?;
        let mut states = vec![State::EMPTY; cells];
        scan.states(&evaluation, keys.len(), from_ms, &mut states)?;
        let labels = self.shard.labels(&keys);
        let states = StateRows { labels, step_count: steps, states }.without_empty_rows()?;
        let stats = Stats {
            series_selected: keys.len(),
            points_estimated: cost.points_estimated,
            cost: cost.total(),
            points_scanned: scan.scanned.load(Ordering::Relaxed),
            evaluate_us: started.elapsed().as_micros() as u64,
            lag_records: 0,
        };
        Ok(StatesAnswer { states, fields: fields_for(call), stats, _memory: memory })
    }
}

impl Scan<'_> {
    /// Rows of states, a row a series.
    fn states(
        &self,
        evaluation: &Evaluation,
        series_count: usize,
        from_ms: i64,
        states: &mut [State],
    ) -> Result<()> {
        let width = evaluation.end_ms.len();
        let lanes = lane_ranges(series_count);
        let Some(lane_series) = lanes.first().map(|lane| lane.len()) else { return Ok(()) };
        let rows = states.chunks_mut(lane_series * width);
        let work: Vec<_> = lanes.into_iter().zip(rows).map(|work| Mutex::new(Some(work))).collect();
        self.in_parallel(work.len(), |lane| {
            let Some((range, states)) = work[lane].lock().take() else { return Ok(()) };
            let (first, steps) = (range.start, evaluation.steps());
            let stop = || self.interrupt.check().is_err();
            let mut scratch = Scratch::new(&stop);
            self.read(range, |row, times_ms, values| {
                let row = &mut states[(row - first) * width..(row - first + 1) * width];
                let mut take = |step: usize, state: &State| row[step] = *state;
                let call = &evaluation.call;
                states_of_points(call, times_ms, values, &steps, from_ms, &mut scratch, &mut take);
                if scratch.stopped() { self.interrupt.check() } else { Ok(()) }
            })
        })
    }
}
