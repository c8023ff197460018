//! Plans over files of windows: the tiers' counterpart of the shard's evaluator.
//!
//! Invariant: memory is counted before it is taken; how series are cut into lanes depends on the
//! query alone; an answer says how it stands to the one from raw points.

use super::evaluate::{Exactness, WindowCall};
use super::hidden::hides;
use super::quantiles::HELD_WINDOW_BYTES;
use super::scan::{LOSSLESS, Scan};
use super::selection::{OwnedFile, Run, Selection, runs_of};
use super::state::State;
use crate::error::{KernelError, Result};
use crate::evaluate::aggregate::Aggregate;
use crate::evaluate::budget::{Memory, Reservation};
use crate::evaluate::cost::Cost;
use crate::evaluate::execute::{Lanes, drop_empty_rows};
use crate::evaluate::functions::Extension;
use crate::evaluate::permits::Permits;
use crate::evaluate::plan::{Evaluation, Limits, Plan, bad_plan};
use crate::labels::{LabelTable, Union};
use crate::shard::matcher::Matcher;
use crate::sketch::quantiles::RELATIVE_ERROR;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of states, or of last points, that one lane holds.
const LANE_BYTES: usize = 32 << 20;
/// Series of a lane at most, and lanes that even a small query is cut into.
const LANE_SERIES_MAX: usize = 1024;
const LANES_MIN: usize = 4;
const LANE_SERIES_MIN: usize = 64;
/// A window's last point.
const POINT_BYTES: usize = 16;

#[derive(Clone, Copy, Debug)]
pub struct ReaderOptions {
    /// Threads that evaluate at once, over all queries.
    pub query_threads: usize,
    /// Bytes that all queries together may hold.
    pub query_bytes_max: usize,
    pub limits: Limits,
}

/// Evaluates plans over files of windows, under the bounds that all queries share.
pub struct Reader {
    options: ReaderOptions,
    permits: Permits,
    memory: Arc<Memory>,
}

#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct TierStats {
    pub series_selected: usize,
    /// Windows at most, and with the cells what was judged.
    pub points_estimated: u64,
    pub cost: u64,
    /// Windows read.
    pub points_scanned: u64,
    pub evaluate_us: u64,
    pub bytes_read: u64,
    pub files_read: usize,
    /// Significant digits that values were rounded to; 0: none were.
    pub digits: u8,
    /// The relative error of what came from sketches; 0: nothing did.
    pub relative_error: f64,
}

/// Step columns: rows of `step_count` values, series after series.
pub struct TierAnswer {
    pub labels: LabelTable,
    pub step_count: usize,
    pub values: Vec<f64>,
    pub present: Vec<bool>,
    pub stats: TierStats,
    pub exactness: Exactness,
    _memory: Reservation,
}

impl Reader {
    pub fn new(options: ReaderOptions) -> Reader {
        let permits = Permits::new(options.query_threads);
        Reader { options, permits, memory: Memory::new(options.query_bytes_max) }
    }

    /// Bytes that running queries hold.
    pub fn memory_used(&self) -> usize {
        self.memory.used()
    }

    /// Evaluate over `files`. Of files of one window length, steps between windows' edges are
    /// moved onto them; of several, which hand over to each other, they stay. None where
    /// `exact_only` and the answer is not (or not within the error of sketches, where they say it).
    ///
    /// Errors: limits (422), a bad plan (400), what `check` says.
    pub fn evaluate(
        &self,
        plan: &Plan,
        files: &[OwnedFile],
        exact_only: bool,
        check: &(dyn Fn() -> Result<()> + Sync),
    ) -> Result<Option<TierAnswer>> {
        let started = Instant::now();
        let evaluation = Evaluation::of(plan)?;
        let limits = self.options.limits.lowered(&plan.limits);
        let steps = evaluation.steps();
        let window_ms = one_window_ms(files);
        let moved = window_ms.map(|window_ms| WindowCall::new(&evaluation.call, &steps, window_ms));
        let runs = runs_of(files, needed_ms(&evaluation, moved.as_ref()))?;
        let hidden = any_hides(files, &runs, &plan.matchers)?;
        let selection = Selection::of(files, runs, &plan.matchers, limits.series_max, &|| check())?;
        let (series, width) = (selection.labels.len(), evaluation.end_ms.len());
        let estimated = selection.windows_max();
        let (series_count, step_count) = (series as u64, width as u64);
        let cost = Cost { series: series_count, points_estimated: estimated, steps: step_count };
        let cost = cost.allow(limits.cost_max)?;
        let edges = moved.as_ref().map_or(Exactness::Exact, WindowCall::edges);
        let scan = Scan {
            selection: &selection,
            evaluation: &evaluation,
            moved,
            windows_limit: limits.points_max,
            exact_only,
            permits: &self.permits,
            tenant: xxh3_64(plan.tenant.as_bytes()),
            check,
            windows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            digits: AtomicU8::new(LOSSLESS),
            sketched: AtomicBool::new(false),
            worst: AtomicU8::new(edges as u8),
        };
        if hidden {
            scan.worst.fetch_max(Exactness::Approximate as u8, Ordering::Relaxed);
        }
        if exact_only && (hidden || edges != Exactness::Exact) {
            return Ok(None);
        }
        let lanes = lanes_of(&scan, series, width);
        let answered = match &plan.aggregate {
            None => self.columns(&scan, lanes, limits.bytes_max),
            Some(_) => self.groups(&scan, plan, lanes, limits.bytes_max),
        };
        let worst = worst_of(&scan);
        if exact_only && worst > scan.good_enough() && answered.is_err() {
            check()?;
            return Ok(None);
        }
        let (labels, mut values, mut present, memory) = answered?;
        let kept = drop_empty_rows(&mut values, &mut present, width);
        let labels = match kept {
            None => labels,
            Some(kept) => labels.take(&kept)?,
        };
        let stats = TierStats {
            series_selected: series,
            points_estimated: estimated,
            cost: cost.total(),
            points_scanned: scan.windows.load(Ordering::Relaxed),
            evaluate_us: started.elapsed().as_micros() as u64,
            bytes_read: scan.bytes.load(Ordering::Relaxed),
            digits: match scan.digits.load(Ordering::Relaxed) {
                LOSSLESS => 0,
                digits => digits,
            },
            relative_error: if scan.sketched.load(Ordering::Relaxed) {
                RELATIVE_ERROR
            } else {
                0.0
            },
            files_read: selection.entries.iter().filter(|entries| !entries.is_empty()).count(),
        };
        Ok(Some(TierAnswer {
            labels,
            step_count: width,
            values,
            present,
            stats,
            exactness: worst,
            _memory: memory,
        }))
    }

    /// A row a series.
    fn columns(&self, scan: &Scan<'_>, lanes: Vec<Range<usize>>, bytes_max: usize) -> Answered {
        let width = scan.evaluation.end_ms.len();
        let labels = scan.selection.labels.clone();
        let cells = labels.len() * width;
        let held = cells * 9 + self.lane_bytes(&lanes, width);
        let memory = self.memory.reserve(held, bytes_max)?;
        let (mut values, mut present) = (vec![0.0; cells], vec![false; cells]);
        let lane_cells = lanes.first().map_or(1, |lane| lane.len() * width);
        let rows = values.chunks_mut(lane_cells).zip(present.chunks_mut(lane_cells));
        let work: Vec<_> = lanes.into_iter().zip(rows).map(|work| Mutex::new(Some(work))).collect();
        in_parallel(self.options.query_threads, work.len(), |lane| {
            let Some((lane, (values, present))) = work[lane].lock().take() else { return Ok(()) };
            let first = lane.start;
            scan.lane(lane, |row, row_values, row_present| {
                let cells = (row - first) * width..(row - first + 1) * width;
                for (at, step) in cells.zip(0..) {
                    if row_present[step] {
                        (values[at], present[at]) = (row_values[step], true);
                    }
                }
            })
        })?;
        Ok((labels, values, present, memory))
    }

    /// A row a group, aggregated while it is read.
    fn groups(
        &self,
        scan: &Scan<'_>,
        plan: &Plan,
        lanes: Vec<Range<usize>>,
        bytes_max: usize,
    ) -> Answered {
        let Some(grouping) = &plan.aggregate else { return Err(bad_plan("no aggregation")) };
        let width = scan.evaluation.end_ms.len();
        let (names, without) = match (&grouping.by, &grouping.without) {
            (Some(_), Some(_)) => return Err(bad_plan("by and without")),
            (by, None) => (by.as_deref().unwrap_or_default(), false),
            (None, Some(without)) => (without.as_slice(), true),
        };
        let (group_of, labels) = scan.selection.labels.group(names, without);
        let lane_bytes = self.lane_bytes(&lanes, width);
        let lanes = Lanes::cut(lanes, &group_of, labels.len());
        let held = lanes.cells(labels.len(), width) * grouping.op.state_bytes() + lane_bytes;
        let memory = self.memory.reserve(held, bytes_max)?;
        let states: Vec<Mutex<Option<Aggregate>>> =
            lanes.ranges.iter().map(|_| Mutex::new(None)).collect();
        in_parallel(self.options.query_threads, states.len(), |lane| {
            let mut state = Aggregate::new(grouping.op, lanes.groups[lane].len(), width);
            scan.lane(lanes.ranges[lane].clone(), |row, values, present| {
                state.feed(lanes.local_group_of[row] as usize, values, present);
            })?;
            *states[lane].lock() = Some(state);
            Ok(())
        })?;
        let states = states.into_iter().map(Mutex::into_inner).collect();
        let (values, present) = lanes.join(grouping.op, labels.len(), width, states)?;
        Ok((labels, values, present, memory))
    }

    /// What lanes hold while they run.
    fn lane_bytes(&self, lanes: &[Range<usize>], width: usize) -> usize {
        let series = lanes.first().map_or(0, Range::len);
        self.options.query_threads.min(lanes.len())
            * (series * width * size_of::<State>()).min(LANE_BYTES)
    }

    /// Label sets of the matching series, in the order of the files.
    pub fn series(
        &self,
        files: &[OwnedFile],
        matchers: &[Matcher],
        series_max: usize,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<LabelTable> {
        let mut union = Union::default();
        for owned in files {
            check()?;
            let found = owned.file.select(matchers, series_max)?;
            union.add(&owned.file.labels(&found)?);
            if union.len() > series_max {
                return Err(super::file::too_many(union.len() as u64, series_max));
            }
        }
        Ok(union.finish())
    }

    /// Label names of the matching series, ascending.
    pub fn label_names(
        &self,
        files: &[OwnedFile],
        matchers: &[Matcher],
        check: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<String>> {
        let mut names = BTreeSet::new();
        for owned in files {
            check()?;
            names.extend(owned.file.label_names(matchers)?);
        }
        Ok(names.into_iter().collect())
    }

    /// Values of a label over the matching series, ascending.
    pub fn label_values(
        &self,
        files: &[OwnedFile],
        name: &str,
        matchers: &[Matcher],
        check: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<String>> {
        let mut values = BTreeSet::new();
        for owned in files {
            check()?;
            values.extend(owned.file.label_values(name, matchers)?);
        }
        Ok(values.into_iter().collect())
    }
}

/// Is one of the files that the runs read silent about what the matchers ask for?
fn any_hides(files: &[OwnedFile], runs: &[Run], matchers: &[Matcher]) -> Result<bool> {
    let stripped = |&(_, owned): &(usize, &OwnedFile)| !owned.file.taken().is_empty();
    for (number, owned) in files.iter().enumerate().filter(stripped) {
        if runs.iter().any(|run| run.file == number) && hides(&*owned.file, matchers)? {
            return Ok(true);
        }
    }
    Ok(false)
}

type Answered = Result<(LabelTable, Vec<f64>, Vec<bool>, Reservation)>;

/// Run `work(0..lanes)` on at most so many threads, this one among them.
fn in_parallel(
    threads_max: usize,
    lanes: usize,
    work: impl Fn(usize) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let run = || {
        loop {
            let lane = next.fetch_add(1, Ordering::Relaxed);
            if lane >= lanes {
                return Ok(());
            }
            if let Err(error) = work(lane) {
                next.store(lanes, Ordering::Relaxed);
                return Err(error);
            }
        }
    };
    std::thread::scope(|scope| {
        let helpers = threads_max.min(lanes).saturating_sub(1);
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

fn worst_of(scan: &Scan<'_>) -> Exactness {
    let worst = scan.worst.load(Ordering::Relaxed);
    let known = [Exactness::Exact, Exactness::Bounded, Exactness::Approximate];
    known.into_iter().find(|&one| one as u8 == worst).unwrap_or(Exactness::Approximate)
}

/// The window length of all files, if it is one.
fn one_window_ms(files: &[OwnedFile]) -> Option<i64> {
    let first = files.first().map_or(1, |owned| owned.file.window_ms());
    files.iter().all(|owned| owned.file.window_ms() == first).then_some(first)
}

/// The left-open range of window ends that the steps look at.
fn needed_ms(evaluation: &Evaluation, moved: Option<&WindowCall<'_>>) -> (i64, i64) {
    if let Some(call) = moved {
        let ends = call.read_ends_ms();
        return (ends.start - 1, ends.end - 1);
    }
    let lookback_ms = evaluation.call.lookback_ms;
    let (behind_ms, ahead_ms) = match evaluation.call.extension {
        None => (0, 0),
        Some(Extension::Anchored) => (lookback_ms, 0),
        Some(Extension::Smoothed) => (lookback_ms, lookback_ms),
    };
    let ends = &evaluation.end_ms;
    let first = ends.first().copied().unwrap_or(0);
    let last = ends.last().copied().unwrap_or(0);
    (first - evaluation.range_ms - behind_ms, last + ahead_ms)
}

/// Equal runs of series, one a lane; the last may be shorter.
fn lanes_of(scan: &Scan<'_>, series: usize, width: usize) -> Vec<Range<usize>> {
    let bytes = if scan.has_state() {
        width * size_of::<State>()
    } else {
        let windows = scan.selection.windows_max() as usize / series.max(1);
        windows * if scan.reads_sketches() { HELD_WINDOW_BYTES } else { POINT_BYTES }
    };
    let most = (LANE_BYTES / bytes.max(1)).clamp(1, LANE_SERIES_MAX);
    let count = series.div_ceil(most).max(LANES_MIN.min(series.div_ceil(LANE_SERIES_MIN)));
    let size = series.div_ceil(count.max(1)).max(1);
    (0..series.div_ceil(size)).map(|lane| lane * size..((lane + 1) * size).min(series)).collect()
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("memory_used", &self.memory_used()).finish()
    }
}

/// A number of files that a query may name.
pub const QUERY_FILES_MAX: usize = 16_384;

/// Errors: `sluiceway-query-files-limit` (422).
pub fn check_files(count: usize) -> Result<()> {
    if count <= QUERY_FILES_MAX {
        return Ok(());
    }
    let message = format!("the query reads {count} files, the limit is {QUERY_FILES_MAX}");
    Err(KernelError::client(422, "sluiceway-query-files-limit", message))
}
