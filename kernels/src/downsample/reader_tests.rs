//! The reader over files of windows against the shard's evaluator over the raw points: whatever an
//! answer calls exact has the raw answer's bits.

use super::columns::{Kind, WARM_WINDOW_MS, WindowColumns};
use super::evaluate::Exactness;
use super::memory_file::MemoryFile;
use super::points_file::points_file;
use super::reader::{Reader, ReaderOptions, TierAnswer};
use super::selection::OwnedFile;
use super::window::downsample;
use crate::error::KernelError;
use crate::evaluate::budget::Interrupt;
use crate::evaluate::execute::{EvaluateOptions, Evaluator};
use crate::evaluate::memory::{MemorySeries, MemoryShard};
use crate::evaluate::plan::{Limits, Plan};
use crate::labels::LabelTable;
use crate::model::STALE_BITS;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const MINUTE_MS: i64 = 60_000;
/// Where raw begins to answer alone in the tests of several tiers.
const HANDOVER_MS: i64 = 60 * MINUTE_MS;
const END_MS: i64 = 120 * MINUTE_MS;

type Series = (Kind, Vec<(i64, f64)>);

fn labels_of(number: usize) -> Vec<(String, String)> {
    let label = |name: &str, value: String| (name.to_owned(), value);
    vec![
        label("__name__", "m".to_owned()),
        label("g", (number % 2).to_string()),
        label("i", number.to_string()),
    ]
}

fn reader(limits: Limits) -> Reader {
    Reader::new(ReaderOptions { query_threads: 2, query_bytes_max: 64 << 20, limits })
}

fn limits() -> Limits {
    Limits { series_max: 1000, points_max: 1 << 30, bytes_max: 64 << 20, cost_max: u64::MAX }
}

/// A file of the windows that end in (from, until], of every series but those that `skip` names.
fn file(series: &[Series], from_ms: i64, until_ms: i64, skip: usize) -> OwnedFile {
    let (mut lists, mut windows) = (Vec::new(), WindowColumns::default());
    for (number, (kind, points)) in series.iter().enumerate().filter(|(n, _)| *n != skip) {
        let here = points.iter().filter(|(time, _)| (from_ms + 1..=until_ms).contains(time));
        let (times, values): (Vec<i64>, Vec<f64>) = here.copied().unzip();
        downsample(&times, &values, WARM_WINDOW_MS, *kind, &mut windows);
        lists.push(labels_of(number));
    }
    let labels = LabelTable::from_lists(&lists);
    let file = MemoryFile::new(WARM_WINDOW_MS, &labels, &windows).expect("a file");
    OwnedFile { file: Arc::new(file), ranges_ms: vec![(from_ms, until_ms)] }
}

fn hot(series: &[Series], from_ms: i64) -> OwnedFile {
    let lists: Vec<_> = (0..series.len()).map(labels_of).collect();
    let (mut offsets, mut times, mut values) = (vec![0], Vec::new(), Vec::new());
    for (_, points) in series {
        for &(time, value) in points.iter().filter(|(time, _)| *time > from_ms) {
            times.push(time);
            values.push(value);
        }
        offsets.push(times.len() as i64);
    }
    let labels = LabelTable::from_lists(&lists);
    let file = points_file(&labels, &offsets, &times, &values).expect("a file");
    OwnedFile { file, ranges_ms: vec![(from_ms, END_MS)] }
}

type Rows = BTreeMap<Vec<(String, String)>, Vec<Option<u64>>>;

fn rows(labels: &LabelTable, values: &[f64], present: &[bool]) -> Rows {
    let width = values.len() / labels.len().max(1);
    let cells = values.iter().zip(present).map(|(v, here)| here.then(|| v.to_bits()));
    let cells: Vec<_> = cells.collect();
    labels.to_list().into_iter().zip(cells.chunks(width.max(1)).map(<[_]>::to_vec)).collect()
}

fn from_raw(series: &[Series], plan: &Plan) -> Rows {
    let series = series.iter().enumerate().map(|(number, (_, points))| MemorySeries {
        labels: labels_of(number),
        times_ms: points.iter().map(|(time, _)| *time).collect(),
        values: points.iter().map(|(_, value)| *value).collect(),
    });
    let shard = Arc::new(MemoryShard::new(series.collect()).expect("a shard"));
    let evaluator = Evaluator::new(shard, EvaluateOptions::default());
    let interrupt = Interrupt::new(Duration::from_secs(60), None);
    let answer = evaluator.evaluate(plan, &interrupt).expect("an answer");
    rows(&answer.labels, &answer.values, &answer.present)
}

fn from_files(plan: &Plan, files: &[OwnedFile]) -> TierAnswer {
    let answer = reader(limits()).evaluate(plan, files, false, &|| Ok(()));
    answer.expect("evaluated").expect("an answer")
}

fn points() -> impl Strategy<Value = Vec<(i64, f64)>> {
    let value = prop_oneof![
        8 => (0i64..50).prop_map(|n| n as f64),
        1 => Just(f64::from_bits(STALE_BITS)),
    ];
    proptest::collection::vec((1i64..30_000, value), 0..300).prop_map(|gaps| {
        let mut time = 0;
        let next = |(gap, value): (i64, f64)| {
            time += gap;
            (time, value)
        };
        gaps.into_iter().map(next).filter(|(time, _)| *time <= END_MS).collect()
    })
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Counter), Just(Kind::Gauge), Just(Kind::Unknown)]
}

const FUNCTIONS: [&str; 14] = [
    "last",
    "timestamp",
    "rate",
    "increase",
    "delta",
    "sum_over_time",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "first_over_time",
    "last_over_time",
    "present_over_time",
    "quantile_over_time",
];

fn plan(function: &str, start_ms: i64, step_ms: i64, range_ms: i64, op: Option<&str>) -> Plan {
    let instant = matches!(function, "last" | "timestamp");
    let arguments = if function == "quantile_over_time" { vec![0.5] } else { vec![] };
    let plan = serde_json::json!({
        "matchers": [{"name": "__name__", "op": "=", "value": "m"}],
        "start_ms": start_ms, "end_ms": END_MS, "step_ms": step_ms, "function": function,
        "range_ms": if instant { None } else { Some(range_ms) }, "lookback_ms": range_ms,
        "args": arguments, "at_ms": null, "extension": null,
        "aggregate": op.map(|op| serde_json::json!({"op": op, "by": ["g"]})),
    });
    serde_json::from_value(plan).expect("a plan")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Files hand over to each other, one of them lacks a series, and to raw at last.
    #[test]
    fn what_is_called_exact_is_what_raw_says(
        series in proptest::collection::vec((kind(), points()), 1..5),
        function in proptest::sample::select(&FUNCTIONS[..]),
        op in proptest::option::of(proptest::sample::select(&["sum", "max", "count"][..])),
        aligned in any::<bool>(),
        (start, step, range) in (0i64..90, 1i64..20, 1i64..40),
        odd in 1i64..MINUTE_MS,
        with_raw in any::<bool>(),
        cut in 1i64..59,
    ) {
        let off = if aligned { 0 } else { odd };
        let (start_ms, step_ms) = (start * MINUTE_MS + off, step * MINUTE_MS);
        let plan = plan(function, start_ms, step_ms, range * MINUTE_MS, op);
        let cut_ms = cut * MINUTE_MS;
        let end_ms = if with_raw { HANDOVER_MS } else { END_MS };
        // The first file also holds what the second one owns.
        let mut files = vec![file(&series, 0, end_ms, usize::MAX), file(&series, cut_ms, end_ms, 99)];
        files[0].ranges_ms = vec![(0, cut_ms)];
        if with_raw {
            files.push(hot(&series, HANDOVER_MS));
        }
        let answer = from_files(&plan, &files);
        let known = series.iter().all(|(kind, _)| *kind == Kind::Unknown);
        if aligned && known && function != "quantile_over_time" {
            prop_assert_eq!(answer.exactness, Exactness::Exact);
        }
        if answer.exactness == Exactness::Exact {
            let told = rows(&answer.labels, &answer.values, &answer.present);
            prop_assert_eq!(told, from_raw(&series, &plan), "{}", function);
        }
    }
}

fn steady(kind: Kind) -> Vec<Series> {
    (0..3)
        .map(|n| (kind, (1..=480).map(|k| (k * 15_000, (k * (n + 1)) as f64)).collect()))
        .collect()
}

#[test]
fn a_kind_that_knows_too_little_is_not_exact() {
    let maximum = plan("max_over_time", 10 * MINUTE_MS, 5 * MINUTE_MS, 5 * MINUTE_MS, None);
    let files = [file(&steady(Kind::Counter), 0, END_MS, 99)];
    assert_eq!(from_files(&maximum, &files).exactness, Exactness::Approximate);
    let refused = reader(limits()).evaluate(&maximum, &files, true, &|| Ok(()));
    assert!(matches!(refused, Ok(None)), "only an exact answer was wanted");
    let rate = plan("rate", 10 * MINUTE_MS, 5 * MINUTE_MS, 5 * MINUTE_MS, Some("sum"));
    let answer = reader(limits()).evaluate(&rate, &files, true, &|| Ok(()));
    assert!(matches!(answer, Ok(Some(answer)) if answer.exactness == Exactness::Exact));
}

#[test]
fn limits_and_the_asker_stop_it() {
    let rate = plan("rate", 10 * MINUTE_MS, 5 * MINUTE_MS, 5 * MINUTE_MS, None);
    let files = [file(&steady(Kind::Counter), 0, END_MS, 99)];
    let refusal = |limits: Limits| {
        let reader = reader(limits);
        let told = match reader.evaluate(&rate, &files, false, &|| Ok(())) {
            Err(KernelError::Client { id, .. }) => id.to_string(),
            _ => String::new(),
        };
        assert_eq!(reader.memory_used(), 0);
        told
    };
    assert_eq!(refusal(Limits { series_max: 2, ..limits() }), "sluiceway-query-series-limit");
    assert_eq!(refusal(Limits { points_max: 50, ..limits() }), "sluiceway-query-points-limit");
    assert_eq!(refusal(Limits { bytes_max: 50, ..limits() }), "sluiceway-query-bytes-limit");
    assert_eq!(refusal(Limits { cost_max: 50, ..limits() }), "sluiceway-query-cost-limit");
    let gone = || Err(KernelError::Cancelled("gone".to_owned()));
    let answer = reader(limits()).evaluate(&rate, &files, true, &gone);
    assert!(matches!(answer, Err(KernelError::Cancelled(_))));
}

#[test]
fn names_values_and_series_are_those_of_all_files() {
    let series = steady(Kind::Gauge);
    let files = [file(&series, 0, HANDOVER_MS, 2), file(&series, HANDOVER_MS, END_MS, 0)];
    let reader = reader(limits());
    let check = || Ok(());
    assert_eq!(reader.label_names(&files, &[], &check).expect("names"), ["__name__", "g", "i"]);
    assert_eq!(reader.label_values(&files, "i", &[], &check).expect("values"), ["0", "1", "2"]);
    assert_eq!(reader.series(&files, &[], 3, &check).expect("series").len(), 3);
    assert!(reader.series(&files, &[], 2, &check).is_err(), "more series than allowed");
}
