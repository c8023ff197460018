//! One lane's pass over the windows of its series: file after file in time order, a state a series
//! and step, or the last points where the function has no state.
//!
//! Invariant: what a lane does depends on its series and the plan alone, so an answer has the same
//! bits however many threads made it. Files are read in batches of about `BATCH_WINDOWS`.

use super::columns::Fields;
use super::evaluate::{Exactness, Scratch, WindowCall};
use super::mark::Mark;
use super::read_buffers::ReadBuffers;
use super::selection::{Entry, Run, Selection};
use super::state::State;
use super::view::Piece;
use crate::error::{KernelError, Result};
use crate::evaluate::functions::{self, Function};
use crate::evaluate::permits::{Permits, TenantHash};
use crate::evaluate::plan::Evaluation;
use crate::evaluate::window::Steps;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// Windows that one read of a file is asked for: about a page of a warm file.
const BATCH_WINDOWS: usize = 1 << 18;

/// More digits than a value has.
pub const LOSSLESS: u8 = u8::MAX;

/// Times and values of one series.
type Points = (Vec<i64>, Vec<f64>);

/// What all lanes of a query share.
pub struct Scan<'a> {
    pub selection: &'a Selection,
    pub evaluation: &'a Evaluation,
    /// Windows of one length only: steps between their edges are moved onto them.
    pub moved: Option<WindowCall<'a>>,
    pub windows_limit: u64,
    pub exact_only: bool,
    pub permits: &'a Permits,
    pub tenant: TenantHash,
    pub check: &'a (dyn Fn() -> Result<()> + Sync),
    pub windows: AtomicU64,
    pub bytes: AtomicU64,
    /// The fewest significant digits that values were rounded to; `LOSSLESS`: none were.
    pub digits: AtomicU8,
    /// Some answer came from sketches.
    pub sketched: AtomicBool,
    /// The worst so far, as a number: `Exactness` is ordered.
    pub worst: AtomicU8,
}

impl Scan<'_> {
    /// Evaluate the series `lane`: `take(row, values, present)` gets each one's cells.
    pub fn lane(
        &self,
        lane: Range<usize>,
        mut take: impl FnMut(usize, &[f64], &[bool]),
    ) -> Result<()> {
        let steps = self.evaluation.end_ms.len();
        let (mut values, mut present) = (vec![0.0; steps], vec![false; steps]);
        let stop = || (self.check)().is_err();
        if self.reads_sketches() {
            return self.quantile_lane(lane, take);
        }
        if self.has_state() {
            let states = self.states(&lane, &stop)?;
            for (row, states) in lane.zip(states.chunks_exact(steps)) {
                present.fill(false);
                for (step, state) in states.iter().enumerate().filter(|(_, s)| !s.is_empty()) {
                    if let Some(value) = self.finish(step, state) {
                        (values[step], present[step]) = (value, true);
                    }
                }
                take(row, &values, &present);
            }
            return Ok(());
        }
        let points = self.last_points(&lane)?;
        let mut scratch = functions::Scratch::new(&stop);
        for (row, points) in lane.zip(&points) {
            present.fill(false);
            values.fill(0.0);
            let call = &self.evaluation.call;
            let steps = self.evaluation.steps();
            call.run(&points.0, &points.1, &steps, &mut scratch, &mut values, &mut present);
            if scratch.stopped() {
                (self.check)()?;
            }
            take(row, &values, &present);
        }
        Ok(())
    }

    pub fn has_state(&self) -> bool {
        let call = &self.evaluation.call;
        call.extension.is_none() && super::state::has_state(call.function)
    }

    /// Note how an answer stands to raw. Errors: Cancelled where only better ones are wanted.
    pub fn note(&self, exactness: Exactness) -> Result<()> {
        self.worst.fetch_max(exactness as u8, Ordering::Relaxed);
        if self.exact_only && exactness > self.good_enough() {
            return Err(KernelError::Cancelled("not exact".to_owned()));
        }
        Ok(())
    }

    fn finish(&self, step: usize, state: &State) -> Option<f64> {
        match &self.moved {
            Some(call) => call.finish(step, state),
            None => {
                let (end_ms, range_ms) = (self.evaluation.end_ms[step], self.evaluation.range_ms);
                state.finish(self.evaluation.call.function, end_ms, range_ms)
            }
        }
    }

    /// The states of each series and step.
    fn states(&self, lane: &Range<usize>, stop: &dyn Fn() -> bool) -> Result<Vec<State>> {
        let evaluation = self.evaluation;
        let (ends, range_ms) = match &self.moved {
            Some(call) => (call.ends_ms(), call.covered_ms()),
            None => (&evaluation.end_ms[..], evaluation.range_ms),
        };
        let width = ends.len();
        let mut states = vec![State::EMPTY; lane.len() * width];
        let mut scratch = Scratch::new(stop);
        let mut buffers = ReadBuffers::default();
        for run in &self.selection.runs {
            let reach_ms = range_ms.max(run.window_ms);
            let from = ends.partition_point(|&end| end <= run.from_ms);
            let until = ends.partition_point(|&end| end.saturating_sub(reach_ms) < run.until_ms);
            if from >= until {
                continue;
            }
            let steps = Steps {
                eval_ms: &evaluation.eval_ms[from..until],
                end_ms: &ends[from..until],
                range_ms,
            };
            let call = WindowCall::new(&evaluation.call, &steps, run.window_ms);
            self.note_edges(run, &steps)?;
            let first_ms = run.from_ms.max(ends[from].saturating_sub(reach_ms));
            let last_ms = run.until_ms.min(ends[until - 1]);
            let clip_ms = (run.from_ms, run.until_ms);
            let span_ms = (first_ms, last_ms);
            self.read(run, span_ms, lane, call.fields(), &mut buffers, |entry, piece| {
                let row = (entry.series as usize - lane.start) * width + from;
                let exactness = call.states(&[piece], clip_ms, &mut scratch, &mut |step, state| {
                    states[row + step].merge(state);
                });
                self.note(exactness)?;
                if scratch.stopped() { (self.check)() } else { Ok(()) }
            })?;
        }
        Ok(states)
    }

    /// Where a run was cut to what the query needs, an edge stands on its end: it counts too.
    pub(super) fn note_edges(&self, run: &Run, steps: &Steps<'_>) -> Result<()> {
        let off = |edge_ms: i64| {
            let inside = run.from_ms <= edge_ms && edge_ms <= run.until_ms;
            inside && edge_ms.rem_euclid(run.window_ms) != 0
        };
        let instant = matches!(self.evaluation.call.function, Function::Last | Function::Timestamp);
        let range_ms = steps.range_ms;
        let bounded = steps.end_ms.iter().any(|&end| off(end) || !instant && off(end - range_ms));
        self.note(if bounded { Exactness::Bounded } else { Exactness::Exact })
    }

    /// Each window's last point, as if nothing else had been scraped.
    fn last_points(&self, lane: &Range<usize>) -> Result<Vec<Points>> {
        let mut points: Vec<Points> = vec![Points::default(); lane.len()];
        let fields = Fields::COUNT.with(Fields::LAST_MS).with(Fields::LAST);
        let mut buffers = ReadBuffers::default();
        for run in &self.selection.runs {
            let span_ms = (run.from_ms, run.until_ms);
            self.read(run, span_ms, lane, fields, &mut buffers, |entry, piece| {
                let (times_ms, values) = &mut points[entry.series as usize - lane.start];
                let mut all = true;
                for at in piece.range.clone().filter(|&at| piece.columns.count[at] > 0) {
                    times_ms.push(piece.columns.last_ms[at]);
                    values.push(piece.columns.last[at]);
                    all &= piece.columns.count[at] == 1;
                }
                self.note(if all { Exactness::Exact } else { Exactness::Approximate })
            })?;
        }
        Ok(points)
    }

    /// Read what a run holds of (from, until] for the lane's series, and visit each one's windows.
    pub(super) fn read(
        &self,
        run: &Run,
        (from_ms, until_ms): (i64, i64),
        lane: &Range<usize>,
        fields: Fields,
        buffers: &mut ReadBuffers,
        mut visit: impl FnMut(Entry, Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        let file = &self.selection.files[run.file];
        let mut entries = self.selection.entries_of(run, lane).to_vec();
        entries.sort_unstable_by_key(|entry| entry.number);
        let windows = ((until_ms - from_ms).max(0) / run.window_ms.max(1)) as usize + 1;
        let mut numbers = Vec::new();
        for batch in entries.chunks((BATCH_WINDOWS / windows).max(1)) {
            let _permit = self.permits.acquire(self.tenant, &|| (self.check)())?;
            numbers.clear();
            numbers.extend(batch.iter().map(|entry| entry.number));
            let range_ms = from_ms.saturating_add(1)..until_ms.saturating_add(1);
            if file.marked().is_any() {
                file.marks(&numbers)?.into_iter().try_for_each(|mark| self.note_mark(mark))?;
            }
            let bytes = file.visit(&numbers, range_ms, fields, buffers, &mut |i, piece| {
                self.count(piece.range.len() as u64)?;
                visit(batch[i], piece)
            })?;
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    fn note_mark(&self, mark: Mark) -> Result<()> {
        if mark.folded {
            self.note(Exactness::Approximate)?;
        }
        let rounded = of_rounded(self.evaluation.call.function);
        if mark.digits == 0 || rounded == Exactness::Exact {
            return Ok(());
        }
        self.digits.fetch_min(mark.digits, Ordering::Relaxed);
        self.note(rounded)
    }

    fn count(&self, windows: u64) -> Result<()> {
        let read = self.windows.fetch_add(windows, Ordering::Relaxed) + windows;
        if read > self.windows_limit {
            let message = format!("the query reads more than {} windows", self.windows_limit);
            return Err(KernelError::client(422, "sluiceway-query-points-limit", message));
        }
        Ok(())
    }
}

/// What rounded values make of an answer that would be exact: a relative error of values bounds
/// one of means and extremes, none of differences.
fn of_rounded(function: Function) -> Exactness {
    use Function::{
        Absent, Average, Count, FirstOverTime, Last, LastOverTime, Maximum, Minimum, Present, Sum,
        TimeOfFirst, TimeOfLast, Timestamp,
    };
    match function {
        Count | Present | Absent | Timestamp | TimeOfFirst | TimeOfLast => Exactness::Exact,
        Last | LastOverTime | FirstOverTime | Minimum | Maximum | Sum | Average => {
            Exactness::Bounded
        }
        _ => Exactness::Approximate,
    }
}
