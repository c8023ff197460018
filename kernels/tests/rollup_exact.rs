//! Rollup answers against raw ones, over generated histories of one series each.
//!
//! A history has gaps, resets, stale markers, points that came late (their hour is rolled again),
//! regular and irregular intervals, and a kind that may change between hours, be wrong or unknown.
//! Each is rolled up hour by hour to minutes, and from these to hours, and asked all functions.

use _kernels::downsample::columns::{
    COLD_WINDOW_MS, Fields, Kind, WARM_WINDOW_MS, Window, WindowColumns, window_end_ms,
};
use _kernels::downsample::evaluate::{Exactness, Scratch, WindowCall, states_of_points};
use _kernels::downsample::state::State;
use _kernels::downsample::view::Piece;
use _kernels::downsample::window::{coarsen, downsample};
use _kernels::evaluate::functions::{self, Call, Extension, Function};
use _kernels::evaluate::window::{FreshPoints, Steps};
use _kernels::model::STALE_BITS;
use proptest::prelude::*;

const STATEFUL: [(&str, Fields); 16] = [
    ("last", Fields::NONE),
    ("timestamp", Fields::NONE),
    ("rate", Fields::DROPPED),
    ("increase", Fields::DROPPED),
    ("delta", Fields::NONE),
    ("sum_over_time", Fields::SUM),
    ("avg_over_time", Fields::SUM),
    ("min_over_time", Fields::MINIMUM),
    ("max_over_time", Fields::MAXIMUM),
    ("count_over_time", Fields::NONE),
    ("last_over_time", Fields::NONE),
    ("first_over_time", Fields::NONE),
    ("present_over_time", Fields::NONE),
    ("absent_over_time", Fields::NONE),
    ("ts_of_last_over_time", Fields::NONE),
    ("ts_of_first_over_time", Fields::NONE),
];
const STATELESS: [&str; 14] = [
    "irate",
    "idelta",
    "resets",
    "changes",
    "quantile_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "mad_over_time",
    "deriv",
    "predict_linear",
    "double_exponential_smoothing",
    "holt_winters",
    "ts_of_max_over_time",
    "ts_of_min_over_time",
];

/// splitmix64: a history is a function of its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }
    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

struct History {
    times_ms: Vec<i64>,
    values: Vec<f64>,
    /// Of each hour, by the hour's end.
    kinds: Vec<(i64, Kind)>,
}

impl History {
    fn new(dice: &mut Dice, numbers: fn(&mut Dice, f64) -> f64) -> History {
        let interval_ms = dice.pick(&[10_000, 15_000, 30_000, 60_000, 60_000, 0]);
        let (jitter, odd) = (dice.pick(&[0, 0, 5, 700]), dice.one_in(4));
        let mut time_ms = dice.pick(&[0, 3_600_000, -7_200_000]) + dice.below(120_000) as i64;
        let until_ms = time_ms + 600_000 + dice.below(10_800_000) as i64;
        let (counter, restless) = (dice.one_in(2), dice.pick(&[4, 40, 4_000]));
        let (mut times_ms, mut values, mut value) = (Vec::new(), Vec::new(), 0.0);
        while time_ms < until_ms {
            let quiet = if dice.one_in(60) { dice.below(1_500_000) } else { 0 };
            let gap = if interval_ms == 0 { dice.below(90_000) } else { interval_ms };
            time_ms += (gap + quiet + dice.below(jitter + 1)) as i64 + i64::from(interval_ms == 0);
            value = match (counter, dice.one_in(restless)) {
                (true, true) => dice.below(5) as f64,
                (true, false) => value + numbers(dice, 0.0).abs(),
                (false, _) => numbers(dice, value),
            };
            let marker = dice.one_in(50);
            let oddity = dice.pick(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0]);
            times_ms.push(time_ms);
            values.push(if marker {
                f64::from_bits(STALE_BITS)
            } else if odd && dice.one_in(100) {
                oddity
            } else {
                value
            });
        }
        let kinds = [Kind::Counter, Kind::Gauge, Kind::Unknown];
        let (mut kind, changes) = (dice.pick(&kinds), dice.one_in(3));
        let first = times_ms.first().map_or(0, |&t| window_end_ms(t, COLD_WINDOW_MS));
        let hours = (0..5).map(|hour| {
            kind = if changes { dice.pick(&kinds) } else { kind };
            (first + hour * COLD_WINDOW_MS, kind)
        });
        let kinds = hours.collect();
        History { times_ms, values, kinds }
    }

    /// The windows of every hour: minutes and, from these, the hour. Points that are late are
    /// missing at first, and their hours are rolled again.
    fn roll(&self, dice: &mut Dice) -> (Vec<WindowColumns>, Vec<WindowColumns>) {
        let (mut minutes, mut hours) = (Vec::new(), Vec::new());
        for &(end_ms, kind) in &self.kinds {
            let from = self.times_ms.partition_point(|&t| t <= end_ms - COLD_WINDOW_MS);
            let until = self.times_ms.partition_point(|&t| t <= end_ms);
            let (times_ms, values) = (&self.times_ms[from..until], &self.values[from..until]);
            let late = dice.one_in(4);
            let mut rolled = WindowColumns::default();
            for skip in [if late { 3 } else { usize::MAX }, usize::MAX] {
                let here = |i: &usize| !(i + 1).is_multiple_of(skip);
                let kept: Vec<usize> = (0..times_ms.len()).filter(here).collect();
                let times_ms: Vec<i64> = kept.iter().map(|&i| times_ms[i]).collect();
                let values: Vec<f64> = kept.iter().map(|&i| values[i]).collect();
                rolled.clear();
                downsample(&times_ms, &values, WARM_WINDOW_MS, kind, &mut rolled);
            }
            let mut hour = WindowColumns::default();
            coarsen(&rolled, 0, COLD_WINDOW_MS, &mut hour);
            minutes.push(rolled);
            hours.push(hour);
        }
        (minutes, hours)
    }
}

fn integers(dice: &mut Dice, _before: f64) -> f64 {
    dice.below(2_000) as f64 - 300.0
}

fn fractions(dice: &mut Dice, before: f64) -> f64 {
    let scale = dice.pick(&[1.0, 0.1, 1e-7, 12_345.678]);
    before * 0.5 + (dice.below(1 << 50) as f64 / (1u64 << 49) as f64 - 0.7) * scale
}

/// Times of a query, on edges of `window_ms` where `aligned`.
struct Asked {
    end_ms: Vec<i64>,
    range_ms: i64,
}

impl Asked {
    fn new(dice: &mut Dice, history: &History, window_ms: i64, aligned: bool) -> Asked {
        let first = history.times_ms.first().copied().unwrap_or(0);
        let mut start = window_end_ms(first, window_ms);
        let mut step = (dice.below(7) + 1) as i64 * window_ms;
        let mut range_ms = (dice.below(9) + 1) as i64 * window_ms;
        if dice.one_in(4) {
            range_ms *= 7;
        }
        if !aligned {
            start += dice.below(60_000) as i64;
            range_ms += dice.below(60_000) as i64;
            step += dice.pick(&[0, 1_000]);
        }
        let span = history.times_ms.last().map_or(0, |&last| last - first) + 2 * range_ms;
        let steps = (span / step).clamp(1, 60);
        Asked { end_ms: (0..steps).map(|k| start + k * step).collect(), range_ms }
    }

    fn steps(&self) -> Steps<'_> {
        Steps { eval_ms: &self.end_ms, end_ms: &self.end_ms, range_ms: self.range_ms }
    }
}

fn call(name: &str, extension: Option<Extension>) -> Call {
    let arguments: &[f64] = match name {
        "quantile_over_time" => &[0.9],
        "predict_linear" => &[600.0],
        "double_exponential_smoothing" | "holt_winters" => &[0.5, 0.3],
        _ => &[],
    };
    let arguments = arguments.iter().map(|&argument| vec![argument]).collect();
    let function = Function::parse(name).expect("a known function");
    let mut call = Call::new(function, arguments, 1).expect("its arguments");
    (call.extension, call.lookback_ms) = (extension, 300_000);
    call
}

type Answers = Vec<Option<f64>>;

fn raw(call: &Call, history: &History, asked: &Asked) -> Answers {
    let mut fresh = FreshPoints::default();
    let (times_ms, values) = if call.wants_stale() {
        (&history.times_ms[..], &history.values[..])
    } else {
        fresh.of(&history.times_ms, &history.values)
    };
    answers(asked, |out, present| {
        let mut scratch = functions::Scratch::new(&|| false);
        call.run(times_ms, values, &asked.steps(), &mut scratch, out, present);
    })
}

fn answers(asked: &Asked, run: impl FnOnce(&mut [f64], &mut [bool])) -> Answers {
    let (mut out, mut present) = (vec![0.0; asked.end_ms.len()], vec![false; asked.end_ms.len()]);
    run(&mut out, &mut present);
    out.iter().zip(present).map(|(&value, here)| here.then_some(value)).collect()
}

fn rolled(
    call: &Call,
    windows: &[WindowColumns],
    window_ms: i64,
    asked: &Asked,
) -> (Answers, Exactness) {
    let steps = asked.steps();
    let over = WindowCall::new(call, &steps, window_ms);
    let windows = projected(windows, &over);
    let pieces: Vec<Piece<'_>> = windows.iter().map(|(w, read)| Piece::of(w, 0, *read)).collect();
    let mut exactness = Exactness::Exact;
    let found = answers(asked, |out, present| {
        exactness = over.run(&pieces, &mut Scratch::new(&|| false), out, present);
    });
    (found, exactness)
}

/// What a file gives: zeros in the columns that were not read.
fn projected(windows: &[WindowColumns], over: &WindowCall<'_>) -> Vec<(WindowColumns, Fields)> {
    let project = |from: &WindowColumns| {
        let read = from.kinds[0].to_read(over.fields());
        let mut columns = WindowColumns::default();
        for at in 0..from.window_count() {
            let whole = from.window(at);
            let mut window = Window { end_ms: whole.end_ms, ..Window::default() };
            let mut take = |field: Fields, copy: fn(&mut Window, &Window)| {
                if read.has(field) {
                    copy(&mut window, &whole);
                }
            };
            take(Fields::COUNT, |to, from| to.count = from.count);
            take(Fields::FIRST_MS, |to, from| to.first_ms = from.first_ms);
            take(Fields::FIRST, |to, from| to.first = from.first);
            take(Fields::LAST_MS, |to, from| to.last_ms = from.last_ms);
            take(Fields::LAST, |to, from| to.last = from.last);
            take(Fields::STALE, |to, from| to.ends_stale = from.ends_stale);
            take(Fields::DROPPED, |to, from| to.dropped = from.dropped);
            take(Fields::SUM, |to, from| to.sum = from.sum);
            take(Fields::MINIMUM, |to, from| to.minimum = from.minimum);
            take(Fields::MAXIMUM, |to, from| to.maximum = from.maximum);
            columns.push(&window);
        }
        columns.end_series(from.kinds[0]);
        (columns, read)
    };
    windows.iter().map(project).collect()
}

/// The older part from windows, the newer from points, at an edge of the windows.
fn straddled(
    call: &Call,
    windows: &[WindowColumns],
    history: &History,
    window_ms: i64,
    asked: &Asked,
    seam_ms: i64,
) -> (Answers, Exactness) {
    let steps = asked.steps();
    let over = WindowCall::new(call, &steps, window_ms);
    let windows = projected(windows, &over);
    let pieces: Vec<Piece<'_>> = windows.iter().map(|(w, read)| Piece::of(w, 0, *read)).collect();
    let mut states = vec![State::EMPTY; steps.count()];
    let never = || false;
    let mut scratch = Scratch::new(&never);
    let clip = (i64::MIN, seam_ms);
    let exactness =
        over.states(&pieces, clip, &mut scratch, &mut |step, state| states[step].merge(state));
    let (times_ms, values) = (&history.times_ms, &history.values);
    states_of_points(call, times_ms, values, &steps, seam_ms, &mut scratch, &mut |step, state| {
        states[step].merge(state);
    });
    let finish =
        |(state, &end_ms): (&State, &i64)| state.finish(call.function, end_ms, asked.range_ms);
    (states.iter().zip(&asked.end_ms).map(finish).collect(), exactness)
}

/// The same bits, or no number on both sides.
fn same(got: &Answers, want: &Answers) -> bool {
    let equal = |(got, want): (&Option<f64>, &Option<f64>)| match (got, want) {
        (Some(got), Some(want)) => got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
        (None, None) => true,
        _ => false,
    };
    got.len() == want.len() && got.iter().zip(want).all(equal)
}

fn keeps(windows: &[WindowColumns], field: Fields) -> bool {
    windows.iter().all(|windows| windows.kinds[0].fields().has(field))
}

/// May the value have overflowed, as far as evaluation knows? Such sums are never called exact.
fn finite(history: &History) -> bool {
    !history.values.iter().any(|value| value.is_infinite())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Whole numbers, queries on the windows' edges: not one bit differs, and it is said so.
    #[test]
    fn aligned_answers_are_those_from_raw_points(seed in any::<u64>()) {
        let dice = &mut Dice(seed);
        let history = History::new(dice, integers);
        let (minutes, hours) = history.roll(dice);
        for (windows, window_ms) in [(&minutes, WARM_WINDOW_MS), (&hours, COLD_WINDOW_MS)] {
            let asked = Asked::new(dice, &history, window_ms, true);
            let hour_end = history.kinds[1].0;
            let seam_ms = hour_end + dice.below(60) as i64 * window_ms;
            for (name, field) in STATEFUL {
                let call = call(name, None);
                let want = raw(&call, &history, &asked);
                let (got, exactness) = rolled(&call, windows, window_ms, &asked);
                if keeps(windows, field) && (finite(&history) || field == Fields::NONE) {
                    prop_assert_eq!(exactness, Exactness::Exact, "{} {}", name, window_ms);
                }
                if exactness == Exactness::Exact || keeps(windows, field) {
                    prop_assert!(same(&got, &want), "{name} {window_ms}: {got:?} {want:?}");
                }
                let (got, exactness) =
                    straddled(&call, windows, &history, window_ms, &asked, seam_ms);
                if exactness == Exactness::Exact || keeps(windows, field) {
                    prop_assert!(same(&got, &want), "{name} {seam_ms}: {got:?} {want:?}");
                }
            }
        }
    }

    /// Any function, any query: what is called exact is what raw points give.
    #[test]
    fn exact_is_never_said_in_vain(seed in any::<u64>()) {
        let dice = &mut Dice(seed);
        let history = History::new(dice, integers);
        let (minutes, hours) = history.roll(dice);
        for (windows, window_ms) in [(&minutes, WARM_WINDOW_MS), (&hours, COLD_WINDOW_MS)] {
            let aligned = dice.one_in(2);
            let asked = Asked::new(dice, &history, window_ms, aligned);
            let stateful = STATEFUL.map(|(name, _)| name);
            let name = if dice.one_in(2) { dice.pick(&STATELESS) } else { dice.pick(&stateful) };
            let (anchored, smoothed) = (Some(Extension::Anchored), Some(Extension::Smoothed));
            let mut call = call(name, dice.pick(&[None, None, anchored, smoothed]));
            let function = call.function;
            call.extension = call.extension.filter(|extension| match extension {
                Extension::Anchored => function.anchors(),
                Extension::Smoothed => function.smooths(),
            });
            let (got, exactness) = rolled(&call, windows, window_ms, &asked);
            if exactness == Exactness::Exact {
                let want = raw(&call, &history, &asked);
                prop_assert!(same(&got, &want), "{name} {window_ms}: {got:?} {want:?}");
            }
        }
    }

    /// Fractions: everything but sums has the same bits; sums differ in their last bits at most.
    #[test]
    fn sums_of_fractions_differ_in_their_last_bits(seed in any::<u64>()) {
        let dice = &mut Dice(seed);
        let history = History::new(dice, fractions);
        let (minutes, hours) = history.roll(dice);
        let finite = history.values.iter().filter(|value| value.is_finite());
        let largest = finite.fold(0.0, |largest: f64, value| largest.max(value.abs()));
        for (windows, window_ms) in [(&minutes, WARM_WINDOW_MS), (&hours, COLD_WINDOW_MS)] {
            let asked = Asked::new(dice, &history, window_ms, true);
            for (name, field) in STATEFUL {
                let call = call(name, None);
                let (got, exactness) = rolled(&call, windows, window_ms, &asked);
                if exactness != Exactness::Exact {
                    continue;
                }
                let want = raw(&call, &history, &asked);
                if !field.has(Fields::SUM) && !field.has(Fields::DROPPED) || field == Fields::NONE {
                    prop_assert!(same(&got, &want), "{name} {window_ms}: {got:?} {want:?}");
                    continue;
                }
                let points = history.values.len() as f64;
                let bound = f64::EPSILON * largest * match name {
                    "avg_over_time" => 2.0,
                    "sum_over_time" => points,
                    // Stretched over up to three times what was seen.
                    "increase" => 4.0 * points,
                    _ => 4.0 * points / (asked.range_ms as f64 / 1000.0),
                };
                for (got, want) in got.iter().zip(&want) {
                    prop_assert_eq!(got.is_some(), want.is_some());
                    let (got, want) = (got.unwrap_or(0.0), want.unwrap_or(0.0));
                    let same = got == want || got.is_nan() && want.is_nan();
                    let close = same || (got - want).abs() <= bound;
                    prop_assert!(close, "{name} {window_ms}: {got} {want} {bound}");
                }
            }
        }
    }
}
