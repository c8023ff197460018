//! Folding: many series that may have no row become few that have one (docs/formats/policy.md).
//!
//! Invariant: what is emitted, and when, is a function of the records applied so far; the order in
//! which points of an open window came does not show in it.

use super::budget::{FoldRules, GaugeFunction};
use super::fold_histogram::Histogram;
pub use super::fold_side::Kind;
use super::fold_side::{Closing, Folded, HistogramSide, Input, Side, window_end};
use super::letters::LetterReason;
use crate::model::{HistogramPoint, SeriesRow, TenantNumber};
use std::collections::BTreeMap;

/// Inputs of all outputs, and their points that are not settled.
pub(super) const INPUTS_MAX: usize = 1_000_000;
const OPEN_POINTS_MAX: usize = 4_000_000;
const OPEN_POINTS_PER_INPUT_MAX: usize = 4_096;
/// Bytes of all native histograms that inputs and totals hold; few in unit tests, which reach it.
pub(super) const HISTOGRAM_BYTES_MAX: usize = if cfg!(test) { 1 << 20 } else { 128 << 20 };
/// An output without inputs is forgotten so long after its last point.
const OUTPUT_IDLE_MS: i64 = 86_400_000;
/// A record this far behind shows that the clock was wrong.
const CLOCK_BACK_MS: i64 = 3_600_000;
/// No record yet.
pub(super) const NO_TIME: i64 = i64::MIN;

/// A series that others are folded into.
#[derive(Debug)]
pub(super) struct Output {
    pub tenant: TenantNumber,
    pub budget: String,
    pub metric: String,
    /// The label that `overflow` chose; empty for others, and where the policy names it.
    pub overflow_label: String,
    pub gauge: GaugeFunction,
    pub grid_ms: i64,
    pub lateness_ms: i64,
    pub idle_ms: i64,
    /// Windows that end here or before are closed.
    pub closed_ms: i64,
    pub seen_ms: i64,
    pub sides: Sides,
}

/// An output's floats, and beside them its native histograms, once there was one.
#[derive(Debug)]
pub(super) struct Sides {
    pub floats: Side<f64>,
    pub histograms: Option<Box<HistogramSide>>,
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
pub struct Emitted<V = f64> {
    pub row: SeriesRow,
    pub time_ms: i64,
    pub value: V,
}

/// What windows came to when they closed.
#[derive(Debug, Default, PartialEq)]
pub struct Emission {
    pub floats: Vec<Emitted>,
    /// Canonical bytes.
    pub histograms: Vec<Emitted<Vec<u8>>>,
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
    /// Of native histograms, in inputs and totals.
    histogram_bytes: usize,
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
            histogram_bytes: 0,
            due_ms: i64::MAX,
        }
    }
}

impl Emission {
    /// Row and time of each point.
    pub fn points(&self) -> impl Iterator<Item = (SeriesRow, i64)> {
        let floats = self.floats.iter().map(|point| (point.row, point.time_ms));
        floats.chain(self.histograms.iter().map(|point| (point.row, point.time_ms)))
    }
}

impl Sides {
    pub fn inputs(&self) -> usize {
        self.floats.inputs.len() + self.histograms.as_ref().map_or(0, |side| side.inputs.len())
    }

    pub fn histogram_bytes(&self) -> usize {
        self.histograms.as_ref().map_or(0, |side| side.held_bytes())
    }

    fn open_points(&self) -> usize {
        let histograms = self.histograms.as_ref().map_or(0, |side| side.open_points());
        self.floats.open_points() + histograms
    }
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

    /// Close windows up to `closed_ms`: what they come to is told. Answers how many points they had.
    fn close(&mut self, row: SeriesRow, closed_ms: i64, emission: &mut Emission) -> usize {
        let first_end_ms = window_end(self.closed_ms.saturating_add(1), self.grid_ms);
        self.closed_ms = closed_ms;
        let (grid_ms, gauge) = (self.grid_ms, self.gauge);
        let closing = Closing { grid_ms, first_end_ms, closed_ms, gauge };
        let Sides { floats, histograms } = &mut self.sides;
        let settled = floats.close(&closing, |time_ms, &value| {
            emission.floats.push(Emitted { row, time_ms, value });
        });
        let Some(side) = histograms else { return settled };
        settled
            + side.close(&closing, |time_ms, sum| {
                emission.histograms.push(Emitted { row, time_ms, value: sum.write() });
            })
    }

    fn overflowing(&self) -> Option<((TenantNumber, String, String), String)> {
        let key = (self.tenant, self.budget.clone(), self.metric.clone());
        (!self.overflow_label.is_empty()).then(|| (key, self.overflow_label.clone()))
    }

    /// Without inputs, and for long enough to be forgotten?
    fn is_idle(&self, now_ms: i64) -> bool {
        self.sides.inputs() == 0 && self.seen_ms.saturating_add(OUTPUT_IDLE_MS) <= now_ms
    }

    /// Forget inputs that are idle; answers how many.
    fn forget_idle(&mut self, now_ms: i64) -> usize {
        let Sides { floats, histograms } = &mut self.sides;
        let mut idle = floats.forget_idle(now_ms, self.idle_ms);
        if let Some(side) = histograms {
            idle += side.forget_idle(now_ms, self.idle_ms);
        }
        idle
    }
}

impl Fold {
    /// Nothing is folded yet; the journal stands at a time.
    pub(super) fn at(now_ms: i64) -> Fold {
        Fold { now_ms, ..Fold::default() }
    }

    /// The journal's time moves on to that of a record: windows close, idle inputs are forgotten.
    pub fn advance(&mut self, received_ms: i64) -> Emission {
        let mut emission = Emission::default();
        let back = received_ms < self.now_ms.saturating_sub(CLOCK_BACK_MS);
        if received_ms > self.now_ms || back {
            self.now_ms = received_ms;
        }
        let now_ms = self.now_ms;
        if now_ms < self.due_ms && !back {
            return emission;
        }
        self.due_ms = i64::MAX;
        let before = self.outputs.len();
        let Fold { outputs, counts, inputs, open_points, histogram_bytes, due_ms, .. } = self;
        outputs.retain(|&row, output| {
            let closed_ms = output.closed_at(now_ms);
            let moved = closed_ms > output.closed_ms;
            let mut gone = false;
            if moved {
                *histogram_bytes -= output.sides.histogram_bytes();
                *open_points -= output.close(row, closed_ms, &mut emission);
                let idle = output.forget_idle(now_ms);
                *inputs -= idle;
                gone = output.is_idle(now_ms);
                *histogram_bytes += if gone { 0 } else { output.sides.histogram_bytes() };
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
        emission
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
        self.outputs.get(&row).map_or(0, |output| output.sides.inputs())
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
            gauge: rules.gauge,
            grid_ms: rules.grid_ms,
            lateness_ms: rules.lateness_ms,
            idle_ms: rules.idle_ms,
            closed_ms: NO_TIME,
            seen_ms: self.now_ms,
            sides: Sides { floats: Side::new(new.kind, 0.0), histograms: None },
        };
        output.closed_ms = output.closed_at(self.now_ms);
        self.restore(row, output);
    }

    /// Put an output in its place, with what follows from it.
    pub(super) fn restore(&mut self, row: SeriesRow, output: Output) {
        let counts = self.counts.entry((output.tenant, output.budget.clone())).or_default();
        counts.outputs += 1;
        counts.inputs += output.sides.inputs() as u64;
        self.inputs += output.sides.inputs();
        self.open_points += output.sides.open_points();
        self.histogram_bytes += output.sides.histogram_bytes();
        self.due_ms = self.due_ms.min(output.next_close_ms());
        self.overflowing.extend(output.overflowing());
        self.outputs.insert(row, output);
    }

    /// Fold floats of one series of one record, which `points` holds. Those that cannot be stay in
    /// it, and the answer says why.
    pub fn take(
        &mut self,
        target: Target,
        rules: &FoldRules,
        points: &mut Vec<(i64, f64)>,
    ) -> Option<LetterReason> {
        self.take_into(target, rules, points, |sides| Some(&mut sides.floats), |&point| point)
    }

    /// The same of native histograms; `bytes` holds theirs.
    pub fn take_histograms(
        &mut self,
        target: Target,
        rules: &FoldRules,
        points: &mut Vec<&HistogramPoint>,
        bytes: &[u8],
    ) -> Option<LetterReason> {
        let of = |point: &HistogramPoint| &bytes[point.start as usize..point.end as usize];
        if points.is_empty() {
            return None;
        }
        let sides = self.outputs.get_mut(&target.output).map(|output| &mut output.sides);
        let Some(Sides { histograms, .. }) = sides else { return Some(LetterReason::FoldFull) };
        let held = |side: &HistogramSide| side.held_bytes_with(target.input);
        let before = histograms.as_deref().map_or(0, held);
        let mut strange = Vec::new();
        points.retain(|&point| {
            // A stale marker fits everywhere.
            let Some(read) = Histogram::read(of(point)).ok().flatten() else { return true };
            let begin = || Box::new(Side::new(read.kind(), read.beginning()));
            let fits = histograms.get_or_insert_with(begin).total.fits(&read);
            if !fits {
                strange.push(point);
            }
            fits
        });
        let more: usize = points.iter().map(|point| of(point).len()).sum();
        let mut why = match self.histogram_bytes + more > HISTOGRAM_BYTES_MAX {
            true => Some(LetterReason::FoldFull),
            false => self.take_into(
                target,
                rules,
                points,
                |sides| sides.histograms.as_deref_mut(),
                |point| (point.time_ms, of(point).into()),
            ),
        };
        let sides = self.outputs.get(&target.output).map(|output| &output.sides);
        self.histogram_bytes += sides.and_then(|sides| sides.histograms.as_deref()).map_or(0, held);
        self.histogram_bytes -= before;
        if !strange.is_empty() {
            points.extend(strange);
            points.sort_by_key(|point| point.start);
            why = Some(LetterReason::FoldHistogram);
        }
        why
    }

    fn take_into<V: Folded, P>(
        &mut self,
        target: Target,
        rules: &FoldRules,
        points: &mut Vec<P>,
        side_of: fn(&mut Sides) -> Option<&mut Side<V>>,
        read: impl Fn(&P) -> (i64, V),
    ) -> Option<LetterReason> {
        if points.is_empty() {
            return None;
        }
        let Some(output) = self.outputs.get_mut(&target.output) else {
            return Some(LetterReason::FoldFull);
        };
        let Some(side) = side_of(&mut output.sides) else {
            // Stale markers of an output that has no histogram yet.
            points.clear();
            return None;
        };
        let known = side.inputs.get_mut(&target.input);
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
                side.inputs.entry(target.input).or_default()
            }
        };
        (output.seen_ms, input.seen_ms) = (self.now_ms, self.now_ms);
        let before = input.open.len();
        let (kind, grid_ms, closed_ms) = (side.kind, output.grid_ms, output.closed_ms);
        let is_late = |time_ms| window_end(time_ms, grid_ms) <= closed_ms;
        points.retain(|point| !input.accept(kind, is_late, read(point)));
        input.sort();
        self.open_points = self.open_points + input.open.len() - before;
        (!points.is_empty()).then_some(LetterReason::FoldLate)
    }

    pub fn memory_bytes(&self) -> usize {
        self.outputs.len() * (size_of::<Output>() + 64)
            + self.inputs * (size_of::<Input<f64>>() + 32)
            + self.open_points * 24
            + self.histogram_bytes
    }
}
