//! Folding: many series that may have no row become few that have one (docs/formats/policy.md).
//!
//! Inputs keep their points until the journal's time has closed the points' window; then the
//! windows are settled in the order of series and time. Invariant: what is emitted, and when, is a
//! function of the records applied so far; the order in which points of an open window came does
//! not show in it.

use super::budget::{FoldRules, GaugeFunction};
use super::letters::LetterReason;
use crate::model::{SeriesRow, TenantNumber};
use std::collections::BTreeMap;

/// Inputs of all outputs, and their points that are not settled.
pub(super) const INPUTS_MAX: usize = 1_000_000;
const OPEN_POINTS_MAX: usize = 4_000_000;
const OPEN_POINTS_PER_INPUT_MAX: usize = 4_096;
/// An output without inputs is forgotten so long after its last point.
const OUTPUT_IDLE_MS: i64 = 86_400_000;
/// A record this far behind shows that the clock was wrong.
const CLOCK_BACK_MS: i64 = 3_600_000;
/// No record yet.
pub(super) const NO_TIME: i64 = i64::MIN;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Counter = 1,
    Gauge = 2,
}

/// A series that is folded: its points since the last closed window, by time.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// The last point settled; counters only.
    pub settled: Option<(i64, f64)>,
    pub open: Vec<(i64, f64)>,
    pub seen_ms: i64,
}

/// A series that others are folded into.
#[derive(Debug)]
pub(super) struct Output {
    pub tenant: TenantNumber,
    pub budget: String,
    pub metric: String,
    /// The label that `overflow` chose; empty for others, and where the policy names it.
    pub overflow_label: String,
    pub kind: Kind,
    pub gauge: GaugeFunction,
    pub grid_ms: i64,
    pub lateness_ms: i64,
    pub idle_ms: i64,
    /// Windows that end here or before are closed.
    pub closed_ms: i64,
    pub seen_ms: i64,
    pub emitted: bool,
    pub total: f64,
    /// By series id.
    pub inputs: BTreeMap<u128, Input>,
}

/// What an output is made of.
pub(super) struct NewOutput<'a> {
    pub tenant: TenantNumber,
    pub budget: &'a str,
    pub metric: &'a str,
    pub overflow_label: String,
    pub kind: Kind,
}

/// Where a series is folded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub output: SeriesRow,
    /// The input's series id.
    pub input: u128,
}

/// A point of an output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Emitted {
    pub row: SeriesRow,
    pub time_ms: i64,
    pub value: f64,
}

/// What the inputs of one window come to.
#[derive(Default)]
struct Window {
    increase: f64,
    count: u64,
    sum: f64,
    max: f64,
    min: f64,
    last: (i64, f64),
}

#[derive(Debug)]
pub struct Fold {
    /// The journal's time.
    pub(super) now_ms: i64,
    pub(super) outputs: BTreeMap<SeriesRow, Output>,
    /// Outputs and inputs of each budget of a tenant; these follow from `outputs`.
    counts: BTreeMap<(TenantNumber, String), Counts>,
    /// The label that overflows, by tenant, budget and metric; follows from `outputs`.
    overflowing: BTreeMap<(TenantNumber, String, String), String>,
    inputs: usize,
    open_points: usize,
    /// Before this no window closes.
    due_ms: i64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    outputs: u64,
    inputs: u64,
}

impl Default for Fold {
    fn default() -> Fold {
        Fold {
            now_ms: NO_TIME,
            outputs: BTreeMap::new(),
            counts: BTreeMap::new(),
            overflowing: BTreeMap::new(),
            inputs: 0,
            open_points: 0,
            due_ms: i64::MAX,
        }
    }
}

/// The end of the window that a time belongs to: the first multiple of the grid that is not before.
fn window_end(time_ms: i64, grid_ms: i64) -> i64 {
    let before = time_ms.div_euclid(grid_ms).saturating_mul(grid_ms);
    if before == time_ms { time_ms } else { before.saturating_add(grid_ms) }
}

impl Output {
    /// The end of the last window that is closed at `now_ms`.
    fn closed_at(&self, now_ms: i64) -> i64 {
        let last = now_ms.saturating_sub(self.lateness_ms);
        last.div_euclid(self.grid_ms).saturating_mul(self.grid_ms)
    }

    fn next_close_ms(&self) -> i64 {
        window_end(self.closed_ms.saturating_add(1), self.grid_ms).saturating_add(self.lateness_ms)
    }

    /// Close windows up to `closed_ms`: their points are settled, and what they come to is told.
    fn close(&mut self, row: SeriesRow, closed_ms: i64, emitted: &mut Vec<Emitted>) -> usize {
        let first_end_ms = window_end(self.closed_ms.saturating_add(1), self.grid_ms);
        let mut windows: BTreeMap<i64, Window> = BTreeMap::new();
        let mut settled = 0;
        for input in self.inputs.values_mut() {
            let due = input.open.partition_point(|&(time_ms, _)| time_ms <= closed_ms);
            settled += due;
            let end_of = |time_ms| window_end(time_ms, self.grid_ms).max(first_end_ms);
            let points = input.open.drain(..due);
            match self.kind {
                Kind::Counter => {
                    let numbers = points.filter(|(_, value)| value.is_finite());
                    numbers
                        .for_each(|point| settle(&mut input.settled, point, &mut windows, end_of));
                }
                Kind::Gauge => points
                    .as_slice()
                    .chunk_by(|a, b| end_of(a.0) == end_of(b.0))
                    .filter_map(|points| points.last())
                    .filter(|(_, value)| !value.is_nan())
                    .for_each(|&point| windows.entry(end_of(point.0)).or_default().add(point)),
            }
        }
        self.closed_ms = closed_ms;
        for (time_ms, window) in windows {
            match self.kind {
                Kind::Counter => {
                    if !self.emitted {
                        let time_ms = time_ms.saturating_sub(self.grid_ms);
                        emitted.push(Emitted { row, time_ms, value: self.total });
                    }
                    self.total += window.increase;
                    emitted.push(Emitted { row, time_ms, value: self.total });
                }
                Kind::Gauge => {
                    emitted.push(Emitted { row, time_ms, value: window.value(self.gauge) })
                }
            }
            self.emitted = true;
        }
        settled
    }

    fn overflowing(&self) -> Option<((TenantNumber, String, String), String)> {
        let key = (self.tenant, self.budget.clone(), self.metric.clone());
        (!self.overflow_label.is_empty()).then(|| (key, self.overflow_label.clone()))
    }

    /// Without inputs, and for long enough to be forgotten?
    fn is_idle(&self, now_ms: i64) -> bool {
        self.inputs.is_empty() && self.seen_ms.saturating_add(OUTPUT_IDLE_MS) <= now_ms
    }

    /// Forget inputs that are idle; answers how many.
    fn forget_idle(&mut self, now_ms: i64) -> usize {
        let before = self.inputs.len();
        let idle_ms = self.idle_ms;
        self.inputs.retain(|_, input| {
            !input.open.is_empty() || input.seen_ms.saturating_add(idle_ms) > now_ms
        });
        before - self.inputs.len()
    }
}

/// A counter's next point: its increase, reset-corrected, goes into its window.
fn settle(
    last: &mut Option<(i64, f64)>,
    point: (i64, f64),
    windows: &mut BTreeMap<i64, Window>,
    end_of: impl Fn(i64) -> i64,
) {
    let value = point.1;
    let increase = match *last {
        None => 0.0,
        Some((_, before)) if value >= before => value - before,
        Some(_) => value,
    };
    *last = Some(point);
    windows.entry(end_of(point.0)).or_default().increase += increase;
}

impl Window {
    /// One input's last value in the window; inputs come ascending by their id.
    fn add(&mut self, (time_ms, value): (i64, f64)) {
        let first = self.count == 0;
        self.count += 1;
        self.sum += value;
        self.max = if first { value } else { self.max.max(value) };
        self.min = if first { value } else { self.min.min(value) };
        if first || time_ms >= self.last.0 {
            self.last = (time_ms, value);
        }
    }

    fn value(&self, function: GaugeFunction) -> f64 {
        match function {
            GaugeFunction::Sum => self.sum,
            GaugeFunction::Avg => self.sum / self.count as f64,
            GaugeFunction::Max => self.max,
            GaugeFunction::Min => self.min,
            GaugeFunction::Last => self.last.1,
        }
    }
}

impl Fold {
    /// Nothing is folded yet; the journal stands at a time.
    pub(super) fn at(now_ms: i64) -> Fold {
        Fold { now_ms, ..Fold::default() }
    }

    /// The journal's time moves on to that of a record: windows close, idle inputs are forgotten.
    pub fn advance(&mut self, received_ms: i64) -> Vec<Emitted> {
        let mut emitted = Vec::new();
        let back = received_ms < self.now_ms.saturating_sub(CLOCK_BACK_MS);
        if received_ms > self.now_ms || back {
            self.now_ms = received_ms;
        }
        let now_ms = self.now_ms;
        if now_ms < self.due_ms && !back {
            return emitted;
        }
        self.due_ms = i64::MAX;
        let before = self.outputs.len();
        let Fold { outputs, counts, inputs, open_points, due_ms, .. } = self;
        outputs.retain(|&row, output| {
            let closed_ms = output.closed_at(now_ms);
            let moved = closed_ms > output.closed_ms;
            let mut gone = false;
            if moved {
                *open_points -= output.close(row, closed_ms, &mut emitted);
                let idle = output.forget_idle(now_ms);
                *inputs -= idle;
                gone = output.is_idle(now_ms);
                if let Some(counts) = counts.get_mut(&(output.tenant, output.budget.clone())) {
                    counts.inputs -= idle as u64;
                    counts.outputs -= u64::from(gone);
                }
            } else if back {
                output.closed_ms = closed_ms;
            }
            *due_ms = (*due_ms).min(output.next_close_ms());
            !gone
        });
        if self.outputs.len() < before {
            self.counts.retain(|_, counts| counts.outputs > 0);
            self.overflowing = self.outputs.values().filter_map(Output::overflowing).collect();
        }
        emitted
    }

    /// A tenant is deleted: what of it is not emitted never will be.
    pub(super) fn forget_tenant(&mut self, tenant: TenantNumber) {
        let outputs = std::mem::replace(self, Fold::at(self.now_ms)).outputs;
        let kept = outputs.into_iter().filter(|(_, output)| output.tenant != tenant);
        kept.for_each(|(row, output)| self.restore(row, output));
    }

    pub(super) fn has_output(&self, row: SeriesRow) -> bool {
        self.outputs.contains_key(&row)
    }

    pub(super) fn inputs_of(&self, row: SeriesRow) -> usize {
        self.outputs.get(&row).map_or(0, |output| output.inputs.len())
    }

    /// May a budget of a tenant have one more output?
    pub(super) fn has_room(&self, tenant: TenantNumber, budget: &str, rules: &FoldRules) -> bool {
        let counts = self.counts.get(&(tenant, budget.to_owned())).copied().unwrap_or_default();
        counts.outputs < rules.outputs_max
    }

    /// The label that overflows in a metric's series, if it was chosen already.
    pub(super) fn overflowing(
        &self,
        tenant: TenantNumber,
        budget: &str,
        metric: &str,
    ) -> Option<&str> {
        let key = (tenant, budget.to_owned(), metric.to_owned());
        self.overflowing.get(&key).map(String::as_str)
    }

    /// The output of a row begins, or goes on by the rules in force.
    pub(super) fn open_output(&mut self, row: SeriesRow, new: NewOutput, rules: &FoldRules) {
        if let Some(output) = self.outputs.get_mut(&row) {
            output.gauge = rules.gauge;
            (output.grid_ms, output.lateness_ms) = (rules.grid_ms, rules.lateness_ms);
            output.idle_ms = rules.idle_ms;
            self.due_ms = self.due_ms.min(output.next_close_ms());
            // Where the policy named it before: what is chosen now stays, too.
            if output.overflow_label.is_empty() && !new.overflow_label.is_empty() {
                output.overflow_label = new.overflow_label;
                self.overflowing.extend(output.overflowing());
            }
            return;
        }
        let mut output = Output {
            tenant: new.tenant,
            budget: new.budget.to_owned(),
            metric: new.metric.to_owned(),
            overflow_label: new.overflow_label,
            kind: new.kind,
            gauge: rules.gauge,
            grid_ms: rules.grid_ms,
            lateness_ms: rules.lateness_ms,
            idle_ms: rules.idle_ms,
            closed_ms: NO_TIME,
            seen_ms: self.now_ms,
            emitted: false,
            total: 0.0,
            inputs: BTreeMap::new(),
        };
        output.closed_ms = output.closed_at(self.now_ms);
        self.restore(row, output);
    }

    /// Put an output in its place, with what follows from it.
    pub(super) fn restore(&mut self, row: SeriesRow, output: Output) {
        let counts = self.counts.entry((output.tenant, output.budget.clone())).or_default();
        counts.outputs += 1;
        counts.inputs += output.inputs.len() as u64;
        self.inputs += output.inputs.len();
        self.open_points += output.inputs.values().map(|input| input.open.len()).sum::<usize>();
        self.due_ms = self.due_ms.min(output.next_close_ms());
        self.overflowing.extend(output.overflowing());
        self.outputs.insert(row, output);
    }

    /// Fold points of one series of one record, which `points` holds. Those that cannot be stay in
    /// it, and the answer says why.
    pub fn take(
        &mut self,
        target: Target,
        rules: &FoldRules,
        points: &mut Vec<(i64, f64)>,
    ) -> Option<LetterReason> {
        let Some(output) = self.outputs.get_mut(&target.output) else {
            return Some(LetterReason::FoldFull);
        };
        let known = output.inputs.get_mut(&target.input);
        let open = known.as_ref().map_or(0, |input| input.open.len()) + points.len();
        if open > OPEN_POINTS_PER_INPUT_MAX || self.open_points + points.len() > OPEN_POINTS_MAX {
            return Some(LetterReason::FoldFull);
        }
        let input = match known {
            Some(input) => input,
            None => {
                let counts = self.counts.entry((output.tenant, output.budget.clone())).or_default();
                if counts.inputs >= rules.inputs_max || self.inputs >= INPUTS_MAX {
                    return Some(LetterReason::FoldFull);
                }
                counts.inputs += 1;
                self.inputs += 1;
                output.inputs.entry(target.input).or_default()
            }
        };
        (output.seen_ms, input.seen_ms) = (self.now_ms, self.now_ms);
        let before = input.open.len();
        let (kind, grid_ms, closed_ms) = (output.kind, output.grid_ms, output.closed_ms);
        let settled = input.settled;
        points.retain(|&(time_ms, value)| {
            let late = match kind {
                Kind::Gauge => window_end(time_ms, grid_ms) <= closed_ms,
                Kind::Counter => settled.is_some_and(|(last_ms, _)| time_ms <= last_ms),
            };
            if !late {
                input.open.push((time_ms, value));
            }
            let same = |(last_ms, last): (i64, f64)| {
                (last_ms, last.to_bits()) == (time_ms, value.to_bits())
            };
            late && !settled.is_some_and(same)
        });
        input.sort();
        self.open_points = self.open_points + input.open.len() - before;
        (!points.is_empty()).then_some(LetterReason::FoldLate)
    }

    pub fn memory_bytes(&self) -> usize {
        self.outputs.len() * (size_of::<Output>() + 64)
            + self.inputs * (size_of::<Input>() + 32)
            + self.open_points * 24
    }
}

impl Input {
    /// By time; of equal times the last received stays.
    fn sort(&mut self) {
        if self.open.is_sorted_by(|a, b| a.0 < b.0) {
            return;
        }
        self.open.sort_by_key(|&(time_ms, _)| time_ms);
        self.open.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                *kept = *later;
            }
            same
        });
    }
}
