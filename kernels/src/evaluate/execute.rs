//! A plan over a shard: select, pin, scan in parallel, aggregate, drop what is empty.
//!
//! Invariant: how the series are cut into lanes depends on the query alone, and lanes are put
//! together in order, so an answer has the same bits however many threads made it.

use super::access::{PointSource, ShardAccess};
use super::aggregate::{Aggregate, Aggregation};
use super::budget::{Interrupt, Memory, Reservation};
use super::cost::Cost;
use super::functions::{BATCH_POINTS, Scratch};
use super::permits::{Permits, TenantHash};
use super::plan::{Evaluation, Limits, Plan, PointsPlan, bad_plan};
use super::window::FreshPoints;
use crate::error::{KernelError, Result};
use crate::labels::LabelTable;
use crate::model::{PointColumns, STALE_BITS, SeriesKey};
use crate::shard::whatif;
use crate::shard::whatif_report::Report;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64;

/// Series a lane has at least, and lanes a query has at most.
const LANE_SERIES_MIN: usize = 16;
const LANES_MAX: usize = 32;
/// How long a query evaluates on its own thread before it takes helpers: most are done by then.
const ALONE: Duration = Duration::from_micros(500);

#[derive(Clone, Copy, Debug)]
pub struct EvaluateOptions {
    /// Threads that evaluate at once, over all queries.
    pub query_threads: usize,
    /// Bytes that all queries together may hold.
    pub query_bytes_max: usize,
    pub limits: Limits,
    /// How long a query waits for what was durable when it came.
    pub visibility_wait_max: Duration,
    pub timeout_max: Duration,
    pub connections_max: usize,
}

impl Default for EvaluateOptions {
    fn default() -> EvaluateOptions {
        let limits = Limits {
            series_max: 1_000_000,
            points_max: 1_000_000_000,
            bytes_max: 512 << 20,
            cost_max: u64::MAX, // the plan says
        };
        EvaluateOptions {
            query_threads: 2,
            query_bytes_max: 512 << 20,
            limits,
            visibility_wait_max: Duration::from_secs(1),
            timeout_max: Duration::from_secs(120),
            connections_max: 256,
        }
    }
}

/// Evaluates plans over one shard, under the bounds that all queries share.
pub struct Evaluator {
    pub shard: Arc<dyn ShardAccess>,
    pub options: EvaluateOptions,
    permits: Permits,
    pub(super) memory: Arc<Memory>,
    /// Held by the what-if that runs.
    judging: Mutex<()>,
}

#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Stats {
    pub series_selected: usize,
    pub points_estimated: u64,
    /// The estimate that was judged: points and cells.
    pub cost: u64,
    pub points_scanned: u64,
    pub evaluate_us: u64,
    pub lag_records: u64,
}

/// Step columns: rows of `step_count` values, series after series.
pub struct Answer {
    pub labels: LabelTable,
    pub step_count: usize,
    pub values: Vec<f64>,
    pub present: Vec<bool>,
    pub stats: Stats,
    /// Given back when the answer has been sent.
    _memory: Reservation,
}

/// Raw points of the selected series.
pub struct PointsAnswer {
    pub labels: LabelTable,
    pub offsets: Vec<i64>,
    pub times_ms: Vec<i64>,
    pub values: Vec<f64>,
    pub stats: Stats,
    _memory: Vec<Reservation>,
}

impl Evaluator {
    pub fn new(shard: Arc<dyn ShardAccess>, options: EvaluateOptions) -> Evaluator {
        let permits = Permits::new(options.query_threads);
        let memory = Memory::new(options.query_bytes_max);
        Evaluator { shard, options, permits, memory, judging: Mutex::default() }
    }

    /// Bytes that running queries and unsent answers hold.
    pub fn memory_used(&self) -> usize {
        self.memory.used()
    }

    pub fn evaluate(&self, plan: &Plan, interrupt: &Interrupt) -> Result<Answer> {
        let started = Instant::now();
        if plan.from_ms.is_some() {
            return Err(bad_plan("from_ms is for states"));
        }
        let evaluation = Evaluation::of(plan)?;
        let limits = self.options.limits.lowered(&plan.limits);
        let read_ms = evaluation.read_ms.clone();
        let mut keys =
            self.shard.select(&plan.tenant, &plan.matchers, read_ms.clone(), limits.series_max)?;
        let source = self.shard.snapshot(&keys, read_ms)?;
        let steps = evaluation.end_ms.len();
        let cost = cost_of(&*source, keys.len(), steps).allow(limits.cost_max)?;
        let scan = Scan::new(self, &plan.tenant, &*source, limits, interrupt);
        let (mut values, mut present, memory, groups);
        match &plan.aggregate {
            None => {
                let cells = keys.len() * steps;
                memory = self.memory.reserve(cells * 9 + keys.len() * 16, limits.bytes_max)?;
                (values, present) = (vec![0.0; cells], vec![false; cells]);
                scan.columns(&evaluation, keys.len(), &mut values, &mut present)?;
                groups = None;
            }
            Some(grouping) => {
                let (names, without) = match (&grouping.by, &grouping.without) {
                    (Some(_), Some(_)) => return Err(bad_plan("by and without")),
                    (by, None) => (by.as_deref().unwrap_or_default(), false),
                    (None, Some(without)) => (without.as_slice(), true),
                };
                let (group_of, labels) = self.shard.group(&keys, names, without);
                let lanes = Lanes::of(&group_of, labels.len());
                let bytes = lanes.cells(labels.len(), steps) * grouping.op.state_bytes();
                memory = self.memory.reserve(bytes + keys.len() * 16, limits.bytes_max)?;
                let states = scan.aggregate(&evaluation, grouping.op, &lanes)?;
                (values, present) = lanes.join(grouping.op, labels.len(), steps, states)?;
                groups = Some(labels);
            }
        }
        let kept = drop_empty_rows(&mut values, &mut present, steps);
        let stats = Stats {
            series_selected: keys.len(),
            points_estimated: cost.points_estimated,
            cost: cost.total(),
            points_scanned: scan.scanned.load(Ordering::Relaxed),
            ..Stats::default()
        };
        let labels = match (groups, kept) {
            (Some(labels), None) => labels,
            (Some(labels), Some(kept)) => labels.take(&kept)?,
            (None, kept) => {
                if let Some(kept) = kept {
                    keys = kept.into_iter().map(|row| keys[row]).collect();
                }
                self.shard.labels(&keys)
            }
        };
        let evaluate_us = started.elapsed().as_micros() as u64;
        let stats = Stats { evaluate_us, ..stats };
        Ok(Answer { labels, step_count: steps, values, present, stats, _memory: memory })
    }

    /// Judge recorded hours again: beside the threads that evaluate, for it may be long; one at a
    /// time.
    ///
    /// Errors: Overloaded where another one runs.
    pub fn whatif(&self, request: &whatif::Request, interrupt: &Interrupt) -> Result<Report> {
        let busy = || {
            let message = "another what-if runs".to_owned();
            KernelError::Overloaded { retry_after_s: 5.0, message }
        };
        let _alone = self.judging.try_lock().ok_or_else(busy)?;
        let _memory = self.memory.reserve(self.shard.whatif_bytes(), usize::MAX)?;
        self.shard.whatif(request, &|| interrupt.check())
    }

    /// Raw points in (start, end]; series without any are left out.
    pub fn points(&self, plan: &PointsPlan, interrupt: &Interrupt) -> Result<PointsAnswer> {
        let started = Instant::now();
        if plan.end_ms < plan.start_ms {
            return Err(bad_plan("times out of bounds"));
        }
        let range_ms = plan.start_ms.saturating_add(1)..plan.end_ms.saturating_add(1);
        let limits = self.options.limits.lowered(&plan.limits);
        let keys =
            self.shard.select(&plan.tenant, &plan.matchers, range_ms.clone(), limits.series_max)?;
        let source = self.shard.snapshot(&keys, range_ms)?;
        let cost = cost_of(&*source, keys.len(), 1).allow(limits.cost_max)?;
        let scan = Scan::new(self, &plan.tenant, &*source, limits, interrupt);
        let (mut times_ms, mut values, mut offsets) = (Vec::new(), Vec::new(), vec![0]);
        let mut kept: Vec<SeriesKey> = Vec::new();
        let mut memory: Vec<Reservation> = Vec::new();
        let mut held = 0;
        scan.read(0..keys.len(), |row, times, points| {
            let before = values.len();
            for (&time, &value) in times.iter().zip(points) {
                if plan.keep_stale || value.to_bits() != STALE_BITS {
                    times_ms.push(time);
                    values.push(value);
                }
            }
            if values.len() > before {
                kept.push(keys[row]);
                offsets.push(values.len() as i64);
                let bytes = (values.len() - before) * 32 + 64;
                held += bytes;
                if held > limits.bytes_max {
                    self.memory.reserve(held, limits.bytes_max)?;
                }
                memory.push(self.memory.reserve(bytes, limits.bytes_max)?);
            }
            Ok(())
        })?;
        let stats = Stats {
            series_selected: keys.len(),
            points_estimated: cost.points_estimated,
            cost: cost.total(),
            points_scanned: scan.scanned.load(Ordering::Relaxed),
            evaluate_us: started.elapsed().as_micros() as u64,
            lag_records: 0,
        };
        let labels = self.shard.labels(&kept);
        Ok(PointsAnswer { labels, offsets, times_ms, values, stats, _memory: memory })
    }
}

pub(super) fn cost_of(source: &dyn PointSource, series: usize, steps: usize) -> Cost {
    let (series, steps) = (series as u64, steps as u64);
    Cost { series, points_estimated: source.estimate(), steps }
}

/// Drop the rows that hold nothing; the numbers of those kept, or None where all are.
pub(crate) fn drop_empty_rows(
    values: &mut Vec<f64>,
    present: &mut Vec<bool>,
    steps: usize,
) -> Option<Vec<usize>> {
    let rows = values.len() / steps;
    let full = |row: &usize| present[row * steps..(row + 1) * steps].contains(&true);
    let kept: Vec<usize> = (0..rows).filter(full).collect();
    if kept.len() == rows {
        return None;
    }
    for (to, &from) in kept.iter().enumerate() {
        values.copy_within(from * steps..(from + 1) * steps, to * steps);
        present.copy_within(from * steps..(from + 1) * steps, to * steps);
    }
    values.truncate(kept.len() * steps);
    present.truncate(kept.len() * steps);
    Some(kept)
}

/// One query's pass over its points.
pub(super) struct Scan<'a> {
    evaluator: &'a Evaluator,
    source: &'a dyn PointSource,
    limits: Limits,
    pub interrupt: &'a Interrupt,
    tenant: TenantHash,
    pub scanned: AtomicU64,
}

impl<'a> Scan<'a> {
    pub fn new(
        evaluator: &'a Evaluator,
        tenant: &str,
        source: &'a dyn PointSource,
        limits: Limits,
        interrupt: &'a Interrupt,
    ) -> Scan<'a> {
        let tenant = xxh3_64(tenant.as_bytes());
        Scan { evaluator, source, limits, interrupt, tenant, scanned: AtomicU64::new(0) }
    }

    /// Step columns of each series.
    fn columns(
        &self,
        evaluation: &Evaluation,
        series_count: usize,
        values: &mut [f64],
        present: &mut [bool],
    ) -> Result<()> {
        let steps = evaluation.end_ms.len();
        let lanes = lane_ranges(series_count);
        let Some(lane_series) = lanes.first().map(|lane| lane.len()) else { return Ok(()) };
        let rows = values.chunks_mut(lane_series * steps);
        let rows = rows.zip(present.chunks_mut(lane_series * steps));
        let work: Vec<_> = lanes.into_iter().zip(rows).map(|work| Mutex::new(Some(work))).collect();
        self.in_parallel(work.len(), |lane| {
            let Some((range, (values, present))) = work[lane].lock().take() else { return Ok(()) };
            let first = range.start;
            self.evaluate(evaluation, range, |row, out| {
                let cells = (row - first) * steps..(row - first + 1) * steps;
                out(&mut values[cells.clone()], &mut present[cells]);
            })
        })
    }

    /// The states of each lane's groups, lane by lane.
    fn aggregate(
        &self,
        evaluation: &Evaluation,
        op: Aggregation,
        lanes: &Lanes,
    ) -> Result<Vec<Option<Aggregate>>> {
        let steps = evaluation.end_ms.len();
        let states: Vec<Mutex<Option<Aggregate>>> =
            lanes.ranges.iter().map(|_| Mutex::new(None)).collect();
        self.in_parallel(lanes.ranges.len(), |lane| {
            let mut state = Aggregate::new(op, lanes.groups[lane].len(), steps);
            let (mut values, mut present) = (vec![0.0; steps], vec![false; steps]);
            self.evaluate(evaluation, lanes.ranges[lane].clone(), |row, out| {
                present.fill(false);
                out(&mut values, &mut present);
                state.feed(lanes.local_group_of[row] as usize, &values, &present);
            })?;
            *states[lane].lock() = Some(state);
            Ok(())
        })?;
        Ok(states.into_iter().map(Mutex::into_inner).collect())
    }

    /// Evaluate the series `range`: `take(row, run)` provides the row's cells and calls `run`.
    fn evaluate(
        &self,
        evaluation: &Evaluation,
        range: Range<usize>,
        mut take: impl FnMut(usize, &mut dyn FnMut(&mut [f64], &mut [bool])),
    ) -> Result<()> {
        let (steps, stale) = (evaluation.steps(), evaluation.call.wants_stale());
        let stop = || self.interrupt.check().is_err();
        let (mut fresh, mut scratch) = (FreshPoints::default(), Scratch::new(&stop));
        self.read(range, |row, times_ms, values| {
            let (times_ms, values) =
                if stale { (times_ms, values) } else { fresh.of(times_ms, values) };
            take(row, &mut |out, present| {
                evaluation.call.run(times_ms, values, &steps, &mut scratch, out, present);
            });
            if scratch.stopped() { self.interrupt.check() } else { Ok(()) }
        })
    }

    /// Read the series `range` in batches, each under a permit, and visit them one by one.
    pub fn read(
        &self,
        range: Range<usize>,
        mut visit: impl FnMut(usize, &[i64], &[f64]) -> Result<()>,
    ) -> Result<()> {
        // A permit is held for one batch: a small query never waits for a large one to end.
        let mut columns = PointColumns::default();
        let (mut at, mut size) = (range.start, 16);
        while at < range.end {
            let _permit =
                self.evaluator.permits.acquire(self.tenant, &|| self.interrupt.check())?;
            let batch = at..(at + size).min(range.end);
            columns.clear();
            let points = self.source.read(batch.clone(), &mut columns)?;
            let scanned = self.scanned.fetch_add(points, Ordering::Relaxed) + points;
            if scanned > self.limits.points_max {
                let message =
                    format!("the query reads more than {} points", self.limits.points_max);
                return Err(KernelError::client(422, "sluiceway-query-points-limit", message));
            }
            if self.source.histogram_series_count(batch.clone())? > 0 {
                return Err(KernelError::client(
                    422,
                    "sluiceway-query-native-histogram",
                    "the selection holds native histograms, which queries cannot read yet",
                ));
            }
            for (i, row) in batch.clone().enumerate() {
                let (times_ms, values) = columns.series(i);
                visit(row, times_ms, values)?;
            }
            at = batch.end;
            let per_series = columns.times_ms.len() / batch.len() + 1;
            size = (BATCH_POINTS / per_series).clamp(1, (size * 4).min(4096));
        }
        Ok(())
    }

    /// Run `work(0..lanes)`, on as many threads as may evaluate.
    pub fn in_parallel(
        &self,
        lanes: usize,
        work: impl Fn(usize) -> Result<()> + Sync,
    ) -> Result<()> {
        let next = AtomicUsize::new(0);
        let run_until = |deadline: Option<Instant>| {
            while deadline.is_none_or(|deadline| Instant::now() < deadline) {
                let lane = next.fetch_add(1, Ordering::Relaxed);
                if lane >= lanes {
                    break;
                }
                if let Err(error) = work(lane) {
                    next.store(lanes, Ordering::Relaxed);
                    return Err(error);
                }
            }
            Ok(())
        };
        run_until(Some(Instant::now() + ALONE))?;
        let left = lanes.saturating_sub(next.load(Ordering::Relaxed));
        let helpers = self.evaluator.options.query_threads.min(left).saturating_sub(1);
        let run = || run_until(None);
        if helpers == 0 {
            return run();
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..helpers).map(|_| scope.spawn(run)).collect();
            let mut outcome = run();
            for thread in threads {
                let theirs = thread.join().unwrap_or_else(|_| {
                    Err(KernelError::Backend("an evaluating thread panicked".to_owned()))
                });
                outcome = outcome.and(theirs);
            }
            outcome
        })
    }
}

/// Equal runs of series, one a lane; the last may be shorter.
pub(super) fn lane_ranges(series_count: usize) -> Vec<Range<usize>> {
    let lane_series = series_count.div_ceil(LANES_MAX).max(LANE_SERIES_MIN);
    (0..series_count.div_ceil(lane_series))
        .map(|lane| lane * lane_series..((lane + 1) * lane_series).min(series_count))
        .collect()
}

/// How an aggregation is cut: each lane numbers the groups it meets for itself, so that its states
/// are no larger than its series need.
pub(crate) struct Lanes {
    pub ranges: Vec<Range<usize>>,
    /// The groups of each lane, by its own numbers.
    pub groups: Vec<Vec<u32>>,
    pub local_group_of: Vec<u32>,
}

impl Lanes {
    fn of(group_of: &[u32], group_count: usize) -> Lanes {
        Lanes::cut(lane_ranges(group_of.len()), group_of, group_count)
    }

    /// Lanes of these series.
    pub fn cut(ranges: Vec<Range<usize>>, group_of: &[u32], group_count: usize) -> Lanes {
        let mut local_group_of = Vec::with_capacity(group_of.len());
        let mut local = vec![u32::MAX; group_count];
        let mut groups: Vec<Vec<u32>> = Vec::with_capacity(ranges.len());
        for range in &ranges {
            let mut met = Vec::new();
            for &group in &group_of[range.clone()] {
                let number = &mut local[group as usize];
                if *number == u32::MAX {
                    *number = met.len() as u32;
                    met.push(group);
                }
                local_group_of.push(*number);
            }
            met.iter().for_each(|&group| local[group as usize] = u32::MAX);
            groups.push(met);
        }
        Lanes { ranges, groups, local_group_of }
    }

    /// Cells of all states that live at once.
    pub fn cells(&self, group_count: usize, steps: usize) -> usize {
        let lanes: usize = self.groups.iter().map(Vec::len).sum();
        steps * if self.groups.len() > 1 { lanes + group_count } else { group_count }
    }

    /// Values and presence of all groups.
    pub fn join(
        &self,
        op: Aggregation,
        group_count: usize,
        steps: usize,
        states: Vec<Option<Aggregate>>,
    ) -> Result<(Vec<f64>, Vec<bool>)> {
        let missing = || KernelError::Backend("a lane left no state".to_owned());
        if let [groups] = &self.groups[..]
            && groups.iter().copied().eq(0..group_count as u32)
        {
            // The only lane's numbers are the groups' own.
            let state = states.into_iter().next().flatten().ok_or_else(missing)?;
            return Ok(state.finish());
        }
        let mut whole = Aggregate::new(op, group_count, steps);
        for (groups, state) in self.groups.iter().zip(states) {
            whole.merge(groups, &state.ok_or_else(missing)?);
        }
        Ok(whole.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::memory::{MemorySeries, MemoryShard};
    use proptest::prelude::*;

    fn shard() -> Result<Arc<MemoryShard>> {
        let series = (0..40i64).map(|i| MemorySeries {
            labels: vec![("__name__".into(), "m".into()), ("i".into(), i.to_string())],
            times_ms: (0..i * 3).map(|k| k * 1000 - 20_000).collect(),
            values: (0..i * 3).map(|k| ((k * 7 + i) % 11) as f64).collect(),
        });
        Ok(Arc::new(MemoryShard::new(series.collect())?))
    }

    fn evaluator() -> Result<Evaluator> {
        let options = EvaluateOptions { query_bytes_max: 1 << 20, ..EvaluateOptions::default() };
        Ok(Evaluator::new(shard()?, options))
    }

    fn time() -> impl Strategy<Value = i64> {
        prop_oneof![4 => -50_000i64..200_000, 1 => any::<i64>()]
    }

    const FUNCTIONS: [&str; 12] = [
        "last",
        "timestamp",
        "rate",
        "delta",
        "irate",
        "changes",
        "avg_over_time",
        "deriv",
        "max_over_time",
        "mad_over_time",
        "stddev_over_time",
        "count_over_time",
    ];

    proptest! {
        /// Whatever the numbers, a plan is answered or refused; memory comes back either way.
        #[test]
        fn any_plan_is_answered_or_refused(
            (start, end, at, offset) in (time(), time(), proptest::option::of(time()), time()),
            (step, range, lookback) in (time(), proptest::option::of(time()), time()),
            function in proptest::sample::select(&FUNCTIONS[..]),
            extension in proptest::option::of(proptest::sample::select(&["anchored", "smoothed"][..])),
            op in proptest::option::of(proptest::sample::select(&["sum", "avg", "max", "stdvar"][..])),
        ) {
            let plan = serde_json::json!({
                "matchers": [{"name": "__name__", "op": "=", "value": "m"}], "start_ms": start,
                "end_ms": end, "at_ms": at, "offset_ms": offset, "step_ms": step,
                "range_ms": range, "lookback_ms": lookback, "function": function,
                "extension": extension,
                "aggregate": op.map(|op| serde_json::json!({"op": op, "without": ["x"]})),
            });
            let plan: std::result::Result<Plan, _> = serde_json::from_value(plan);
            let evaluator = evaluator().map_err(|e| TestCaseError::fail(e.to_string()))?;
            let interrupt = Interrupt::new(Duration::from_secs(5), None);
            if let Ok(Ok(answer)) = plan.map(|plan| evaluator.evaluate(&plan, &interrupt)) {
                prop_assert_eq!(answer.values.len(), answer.labels.len() * answer.step_count);
            }
            prop_assert_eq!(evaluator.memory_used(), 0);
        }
    }
}
