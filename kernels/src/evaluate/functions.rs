//! The range functions, by PromQL's names, over one series and all steps at once.
//!
//! Invariant: each equals the reference's definition window by window; state that is kept between
//! windows (resets, changes, blocks) never changes an answer beyond the last bits of a sum.

use super::extended;
use super::extrapolate::Seen;
use super::fold::{ExtremeFold, MeanFold, SumFold, fold_windows};
use super::numeric::{add, linear_regression, quantile};
use super::window::{Steps, each_window};
use crate::error::{KernelError, Result};
use crate::model::STALE_BITS;

/// Points between two looks at who may stop a query.
pub const BATCH_POINTS: usize = 64 * 1024;

macro_rules! functions {
    ($($variant:ident = $name:literal),* $(,)?) => {
        /// What a selector's windows are reduced with. `Last` and `Timestamp` are the instant
        /// selector: the newest point of the look-back, gone at a stale marker.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Function { $($variant),* }

        impl Function {
            pub fn parse(name: &str) -> Result<Function> {
                match name {
                    $($name => Ok(Function::$variant),)*
                    _ => Err(KernelError::client(400, "sluiceway-query-unknown-function",
                             format!("unknown function {name:?}"))),
                }
            }
            pub fn name(self) -> &'static str {
                match self { $(Function::$variant => $name),* }
            }
        }
    };
}

functions! {
    Last = "last", Timestamp = "timestamp",
    Rate = "rate", Increase = "increase", Delta = "delta", Irate = "irate", Idelta = "idelta",
    Resets = "resets", Changes = "changes",
    Sum = "sum_over_time", Average = "avg_over_time", Minimum = "min_over_time",
    Maximum = "max_over_time", Count = "count_over_time", LastOverTime = "last_over_time",
    FirstOverTime = "first_over_time", Present = "present_over_time",
    Absent = "absent_over_time", Quantile = "quantile_over_time", Stddev = "stddev_over_time",
    Stdvar = "stdvar_over_time", Mad = "mad_over_time", Deriv = "deriv",
    PredictLinear = "predict_linear", Smoothing = "double_exponential_smoothing",
    HoltWinters = "holt_winters", TimeOfLast = "ts_of_last_over_time",
    TimeOfFirst = "ts_of_first_over_time", TimeOfMaximum = "ts_of_max_over_time",
    TimeOfMinimum = "ts_of_min_over_time",
}

impl Function {
    /// Can its selector be `anchored`?
    pub fn anchors(self) -> bool {
        use Function::{Changes, Delta, Increase, Rate, Resets};
        matches!(self, Changes | Delta | Increase | Rate | Resets)
    }

    /// Can its selector be `smoothed`?
    pub fn smooths(self) -> bool {
        use Function::{Delta, Increase, Last, Rate};
        matches!(self, Delta | Increase | Rate | Last)
    }
}

/// The `anchored` and `smoothed` modifiers of a range selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Extension {
    Anchored,
    Smoothed,
}

/// What a call needs beside its series: a buffer, and somebody who may stop it.
pub struct Scratch<'a> {
    buffer: Vec<f64>,
    meter: Meter<'a>,
}

impl<'a> Scratch<'a> {
    /// `stop` is asked every 64 Ki points that windows look at.
    pub fn new(stop: &'a dyn Fn() -> bool) -> Scratch<'a> {
        Scratch { buffer: Vec::new(), meter: Meter { points: 0, stop, stopped: false } }
    }

    /// Count work done beside `Call::run`; false once the query should stop.
    pub fn spend(&mut self, points: usize) -> bool {
        self.meter.spend(points)
    }

    /// Was a run cut short? Its answer is worthless then.
    pub fn stopped(&self) -> bool {
        self.meter.stopped
    }
}

/// Counts the points that windows look at. A point is counted once a window, so that a few points
/// under many long windows cannot run past a deadline.
pub struct Meter<'a> {
    points: usize,
    stop: &'a dyn Fn() -> bool,
    stopped: bool,
}

impl Meter<'_> {
    /// May a window that looks at `points` be computed?
    #[inline(always)]
    pub fn spend(&mut self, points: usize) -> bool {
        self.points += points;
        if self.points >= BATCH_POINTS {
            self.points = 0;
            self.stopped = self.stopped || (self.stop)();
        }
        !self.stopped
    }
}

/// A function ready to run: its scalar arguments, one value for all steps or one each.
#[derive(Clone, Debug)]
pub struct Call {
    pub function: Function,
    pub arguments: Vec<Vec<f64>>,
    pub extension: Option<Extension>,
    /// How far an extended selector looks beyond its range.
    pub lookback_ms: i64,
}

impl Call {
    /// Check the number and lengths of the arguments.
    pub fn new(function: Function, arguments: Vec<Vec<f64>>, step_count: usize) -> Result<Call> {
        let want = match function {
            Function::Quantile | Function::PredictLinear => 1,
            Function::Smoothing | Function::HoltWinters => 2,
            _ => 0,
        };
        let fits = |a: &Vec<f64>| a.len() == 1 || a.len() == step_count;
        if arguments.len() != want || !arguments.iter().all(fits) {
            let message = format!(
                "{} takes {want} scalars, each of 1 or {step_count} values",
                function.name()
            );
            return Err(KernelError::client(400, "sluiceway-query-bad-plan", message));
        }
        Ok(Call { function, arguments, extension: None, lookback_ms: 0 })
    }

    /// Does the selector see stale markers? Range functions do not.
    pub fn wants_stale(&self) -> bool {
        matches!(self.function, Function::Last | Function::Timestamp) && self.extension.is_none()
    }

    #[inline(always)]
    fn argument(&self, number: usize, step: usize) -> f64 {
        let values = &self.arguments[number];
        values[if values.len() == 1 { 0 } else { step }]
    }

    /// Evaluate one series. `out` and `present` hold a value a step; `present` comes in false, and
    /// `out` is defined only where it is set.
    pub fn run(
        &self,
        times_ms: &[i64],
        values: &[f64],
        steps: &Steps<'_>,
        scratch: &mut Scratch<'_>,
        out: &mut [f64],
        present: &mut [bool],
    ) {
        if times_ms.is_empty() {
            return;
        }
        let Scratch { buffer: scratch, meter } = scratch;
        if let Some(extension) = self.extension {
            return extended::run(self, extension, times_ms, values, steps, meter, out, present);
        }
        let mut each = |compute: &mut dyn FnMut(usize, usize, usize) -> Option<f64>| {
            each_window(times_ms, steps.end_ms, steps.range_ms, |step, lo, hi| {
                if !meter.spend(hi - lo) {
                    return;
                }
                if let Some(value) = compute(step, lo, hi) {
                    out[step] = value;
                    present[step] = true;
                }
            });
        };
        let seconds = |index: usize| times_ms[index] as f64 / 1000.0;
        match self.function {
            Function::Last | Function::Timestamp => {
                let time = self.function == Function::Timestamp;
                each_window(times_ms, steps.end_ms, steps.range_ms, |step, _, hi| {
                    if values[hi - 1].to_bits() != STALE_BITS {
                        out[step] = if time { seconds(hi - 1) } else { values[hi - 1] };
                        present[step] = true;
                    }
                });
            }
            Function::Rate | Function::Increase | Function::Delta => {
                extrapolate(self.function, times_ms, values, steps, meter, out, present);
            }
            Function::Irate => each(&mut |_, lo, hi| {
                (hi - lo > 1).then(|| {
                    let (previous, last) = (values[hi - 2], values[hi - 1]);
                    let rise = if last < previous { last } else { last - previous };
                    rise / ((times_ms[hi - 1] - times_ms[hi - 2]) as f64 / 1000.0)
                })
            }),
            Function::Idelta => {
                each(&mut |_, lo, hi| (hi - lo > 1).then(|| values[hi - 1] - values[hi - 2]));
            }
            Function::Resets => {
                count_pairs(times_ms, values, steps, out, present, |previous, current| {
                    current < previous
                });
            }
            Function::Changes => {
                count_pairs(times_ms, values, steps, out, present, |previous, current| {
                    current != previous && !(current.is_nan() && previous.is_nan())
                });
            }
            Function::Sum => fold_windows::<SumFold>(times_ms, values, steps, meter, out, present),
            Function::Average => {
                fold_windows::<MeanFold>(times_ms, values, steps, meter, out, present)
            }
            Function::Minimum => {
                fold_windows::<ExtremeFold<false>>(times_ms, values, steps, meter, out, present);
            }
            Function::Maximum => {
                fold_windows::<ExtremeFold<true>>(times_ms, values, steps, meter, out, present);
            }
            Function::Count => each(&mut |_, lo, hi| Some((hi - lo) as f64)),
            Function::LastOverTime => each(&mut |_, _, hi| Some(values[hi - 1])),
            Function::FirstOverTime => each(&mut |_, lo, _| Some(values[lo])),
            Function::Present | Function::Absent => each(&mut |_, _, _| Some(1.0)),
            Function::Quantile => each(&mut |step, lo, hi| {
                scratch.clear();
                scratch.extend_from_slice(&values[lo..hi]);
                Some(quantile(self.argument(0, step), scratch))
            }),
            Function::Mad => each(&mut |_, lo, hi| {
                scratch.clear();
                scratch.extend_from_slice(&values[lo..hi]);
                let median = quantile(0.5, scratch);
                scratch.iter_mut().for_each(|v| *v = (*v - median).abs());
                Some(quantile(0.5, scratch))
            }),
            Function::Stdvar => each(&mut |_, lo, hi| Some(variance(&values[lo..hi]))),
            Function::Stddev => each(&mut |_, lo, hi| Some(variance(&values[lo..hi]).sqrt())),
            Function::Deriv => each(&mut |_, lo, hi| {
                let (times, values) = (&times_ms[lo..hi], &values[lo..hi]);
                (hi - lo > 1).then(|| linear_regression(times, values, times[0]).0)
            }),
            Function::PredictLinear => each(&mut |step, lo, hi| {
                (hi - lo > 1).then(|| {
                    let origin_ms = steps.eval_ms[step];
                    let (slope, level) =
                        linear_regression(&times_ms[lo..hi], &values[lo..hi], origin_ms);
                    slope * self.argument(0, step) + level
                })
            }),
            Function::Smoothing | Function::HoltWinters => each(&mut |step, lo, hi| {
                let (smoothing, trend) = (self.argument(0, step), self.argument(1, step));
                (hi - lo > 1).then(|| smooth(&values[lo..hi], smoothing, trend))
            }),
            Function::TimeOfLast => each(&mut |_, _, hi| Some(seconds(hi - 1))),
            Function::TimeOfFirst => each(&mut |_, lo, _| Some(seconds(lo))),
            Function::TimeOfMaximum => {
                each(&mut |_, lo, hi| Some(seconds(last_best(values, lo, hi, |c, b| c >= b))));
            }
            Function::TimeOfMinimum => {
                each(&mut |_, lo, hi| Some(seconds(last_best(values, lo, hi, |c, b| c <= b))));
            }
        }
    }
}

/// rate, increase and delta: the difference over the window, resets taken out, stretched.
fn extrapolate(
    function: Function,
    times_ms: &[i64],
    values: &[f64],
    steps: &Steps<'_>,
    meter: &mut Meter<'_>,
    out: &mut [f64],
    present: &mut [bool],
) {
    let counter = function != Function::Delta;
    let resets: Vec<usize> = if counter { reset_indexes(values) } else { Vec::new() };
    let mut first_reset = 0;
    let per_second = function == Function::Rate;
    each_window(times_ms, steps.end_ms, steps.range_ms, |step, lo, hi| {
        if hi - lo < 2 {
            return;
        }
        let mut rise = values[hi - 1] - values[lo];
        while first_reset < resets.len() && resets[first_reset] <= lo {
            first_reset += 1;
        }
        for &reset in resets[first_reset..].iter().take_while(|&&reset| reset < hi) {
            rise += values[reset - 1];
            if !meter.spend(1) {
                return;
            }
        }
        let seen = Seen {
            count: hi - lo,
            first_ms: times_ms[lo],
            first: values[lo],
            last_ms: times_ms[hi - 1],
            rise,
        };
        out[step] = seen.stretched(steps.end_ms[step], steps.range_ms, counter, per_second);
        present[step] = true;
    });
}

/// Indexes whose value is below the one before.
fn reset_indexes(values: &[f64]) -> Vec<usize> {
    // Without an early end the compiler compares several at a time; most series have no reset.
    let pairs = values.iter().zip(values.iter().skip(1));
    if !pairs.fold(false, |found, (previous, current)| found | (current < previous)) {
        return Vec::new();
    }
    (1..values.len()).filter(|&i| values[i] < values[i - 1]).collect()
}

/// Count the neighbouring points of each window for which `counts(previous, current)`.
fn count_pairs(
    times_ms: &[i64],
    values: &[f64],
    steps: &Steps<'_>,
    out: &mut [f64],
    present: &mut [bool],
    counts: impl Fn(f64, f64) -> bool,
) {
    let found: Vec<usize> =
        (1..values.len()).filter(|&i| counts(values[i - 1], values[i])).collect();
    let (mut from, mut until) = (0, 0);
    each_window(times_ms, steps.end_ms, steps.range_ms, |step, lo, hi| {
        while from < found.len() && found[from] <= lo {
            from += 1;
        }
        while until < found.len() && found[until] < hi {
            until += 1;
        }
        out[step] = until.saturating_sub(from) as f64;
        present[step] = true;
    });
}

fn variance(values: &[f64]) -> f64 {
    let (mut count, mut mean, mut mean_c, mut squares, mut squares_c) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for &value in values {
        count += 1.0;
        let distance = value - (mean + mean_c);
        (mean, mean_c) = add(distance / count, mean, mean_c);
        (squares, squares_c) = add(distance * (value - (mean + mean_c)), squares, squares_c);
    }
    (squares + squares_c) / count
}

/// Holt's double exponential smoothing; at least two values.
fn smooth(values: &[f64], smoothing: f64, trend: f64) -> f64 {
    let (mut before, mut level, mut slope) = (0.0, values[0], values[1] - values[0]);
    for (i, &value) in values.iter().enumerate().skip(1) {
        if i > 1 {
            slope = trend * (level - before) + (1.0 - trend) * slope;
        }
        (before, level) = (level, smoothing * value + (1.0 - smoothing) * (level + slope));
    }
    level
}

/// Index of the last best value in `lo..hi`; NaN only where there is nothing else.
fn last_best(values: &[f64], lo: usize, hi: usize, better: impl Fn(f64, f64) -> bool) -> usize {
    (lo..hi).fold(lo, |best, i| {
        if better(values[i], values[best]) || values[best].is_nan() { i } else { best }
    })
}
