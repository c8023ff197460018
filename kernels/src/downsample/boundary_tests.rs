//! What rules of the boundary do to series, from warm through cold to the month, and what answers
//! over them say of themselves.

use super::cold::{ColdFile, ColdPart, ColdUnit, cold_from, merge_cold};
use super::columns::{Kind, WARM_WINDOW_MS, WindowColumns};
use super::evaluate::Exactness;
use super::file::{WindowFile, compare_labels};
use super::mark::Mark;
use super::reader::{Reader, ReaderOptions, TierAnswer};
use super::selection::OwnedFile;
use super::warm::{StripRequest, StripRule, WarmFile, WarmOptions, WarmWriter, strip};
use super::window::downsample;
use crate::disk::MemoryDisk;
use crate::evaluate::plan::{Limits, Plan};
use crate::labels::LabelTable;
use crate::shard::matcher::{MatchOp, Matcher};
use serde_json::json;
use std::sync::Arc;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const PODS: usize = 3;

/// A function, matchers, and what the answer says: how it stands to raw, and digits.
type Case = (&'static str, &'static [(&'static str, &'static str, &'static str)], Exactness, u8);

fn labels(name: &str, pod: usize) -> Vec<(String, String)> {
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    vec![
        label("__name__", name),
        label("app", "shop"),
        label("pod", &format!("p{pod}")),
        label("zone", "z"),
    ]
}

/// A day of a counter and two gauges on each of some pods, a point a minute.
fn warm_day(disk: &MemoryDisk, path: &str, day: i64) -> WarmFile {
    let names = [("hits", Kind::Counter), ("load", Kind::Gauge), ("temperature", Kind::Gauge)];
    let mut rows: Vec<_> = names
        .iter()
        .flat_map(|&(name, kind)| (0..PODS).map(move |pod| (labels(name, pod), kind)))
        .collect();
    let lists: Vec<_> = rows.iter().map(|(labels, _)| labels.clone()).collect();
    let table = LabelTable::from_lists(&lists);
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|&i, &j| compare_labels(&table, i, &table, j));
    let mut windows = WindowColumns::default();
    for &i in &order {
        let times: Vec<i64> = (0..24 * 60).map(|m| day * DAY_MS + m * 60_000 + 1).collect();
        let value = |t: &i64| ((t / 60_000) * 7 % 1009) as f64 + i as f64 * 1000.123;
        let values: Vec<f64> = times.iter().map(value).collect();
        downsample(&times, &values, WARM_WINDOW_MS, rows[i].1, &mut windows);
    }
    rows.clear();
    let options = WarmOptions::new("t", WARM_WINDOW_MS);
    let mut writer = WarmWriter::create(disk, path, &options).expect("create");
    writer.push(&table.take(&order).expect("sorted"), &windows).expect("pushed");
    writer.finish().expect("finished");
    WarmFile::open(disk, path).expect("opens")
}

fn named(metric: &str) -> Vec<Matcher> {
    vec![Matcher::new("__name__", MatchOp::Equal, metric)]
}

fn request() -> StripRequest {
    let keep = Some(vec!["app".to_owned(), "zone".to_owned()]);
    StripRequest {
        rules: vec![
            StripRule { matchers: named("hits"), keep, ..StripRule::default() },
            StripRule { matchers: named("load"), digits: 3, ..StripRule::default() },
            StripRule { digits: 2, ..StripRule::default() },
        ],
        before: None,
    }
}

fn marks(file: &dyn WindowFile) -> Vec<(String, Mark)> {
    let all: Vec<u32> = (0..file.series_count() as u32).collect();
    let labels = file.labels(&all).expect("labels");
    let marks = file.marks(&all).expect("marks");
    let name = |i: usize| labels.value(i, "__name__").to_owned();
    marks.into_iter().enumerate().map(|(i, mark)| (name(i), mark)).collect()
}

/// Of the metrics one by one: the hits are one fold now, gauges are rounded by the first rule.
fn expected_marks() -> Vec<(String, Mark)> {
    let of = |name: &str, mark: Mark, count: usize| vec![(name.to_owned(), mark); count];
    let rounded = |digits| Mark { folded: false, digits };
    [
        of("hits", Mark { folded: true, digits: 0 }, 1),
        of("load", rounded(3), PODS),
        of("temperature", rounded(2), PODS),
    ]
    .concat()
}

fn evaluated(
    file: Arc<dyn WindowFile>,
    day: i64,
    function: &str,
    matchers: &[(&str, &str, &str)],
    exact_only: bool,
) -> Option<TierAnswer> {
    let matchers: Vec<_> = matchers
        .iter()
        .map(|(name, op, value)| json!({"name": name, "op": op, "value": value}))
        .collect();
    let at_ms = (day + 1) * DAY_MS;
    let instant = function == "last" || function == "timestamp";
    let plan: Plan = serde_json::from_value(json!({
        "tenant": "t", "matchers": matchers, "function": function, "args": [],
        "range_ms": if instant { serde_json::Value::Null } else { json!(6 * HOUR_MS) },
        "offset_ms": 0, "at_ms": null, "lookback_ms": 300_000, "start_ms": at_ms,
        "end_ms": at_ms, "step_ms": HOUR_MS, "limits": {}, "aggregate": null, "extension": null,
    }))
    .expect("a plan");
    let limits =
        Limits { series_max: 1000, points_max: 1 << 30, bytes_max: 64 << 20, cost_max: u64::MAX };
    let options = ReaderOptions { query_threads: 1, query_bytes_max: 64 << 20, limits };
    let owned = OwnedFile { file, ranges_ms: vec![(day * DAY_MS, at_ms)] };
    Reader::new(options).evaluate(&plan, &[owned], exact_only, &|| Ok(())).expect("evaluated")
}

#[test]
fn marks_go_with_the_series_to_the_month() {
    let disk = MemoryDisk::new();
    let mut parts = Vec::new();
    for day in 0..2 {
        let raw = warm_day(&disk, &format!("raw{day}"), day);
        assert!(marks(&raw).iter().all(|(_, mark)| mark.is_none()) && raw.taken().is_empty());
        let path = format!("warm{day}");
        strip(&raw, &disk, &path, &request()).expect("stripped");
        let warm = WarmFile::open(&disk, &path).expect("opens");
        warm.verify().expect("sound");
        assert_eq!(marks(&warm), expected_marks());
        assert_eq!(warm.taken(), ["pod"]);
        // Rounded once is rounded: more digits or fewer change nothing, nor does another pass.
        let again = strip(&warm, &disk, &format!("again{day}"), &request()).expect("again");
        let again = WarmFile::open(&disk, &again.file.path).expect("opens");
        assert_eq!((marks(&again), again.taken()), (expected_marks(), warm.taken()));
        let unit = ColdUnit::new("cold", "t", (day * DAY_MS, (day + 1) * DAY_MS), 1);
        for report in cold_from(&disk, &warm, &unit).expect("made") {
            parts.push(ColdPart {
                path: report.path,
                owned_ms: vec![(unit.from_ms, unit.until_ms)],
            });
        }
    }
    let month = ColdUnit::new("cold", "t", (0, 31 * DAY_MS), 2);
    let merged = merge_cold(&disk, &month, &parts).expect("merged");
    let paths = parts.iter().map(|part| &part.path).chain(merged.iter().map(|report| &report.path));
    for path in paths {
        let file = ColdFile::open(&disk, &format!("cold/{path}")).expect("opens");
        assert_eq!((marks(&file), file.taken()), (expected_marks(), &["pod".to_owned()][..]));
    }
}

#[test]
fn answers_over_what_was_lost_are_never_called_exact() {
    let disk = MemoryDisk::new();
    let raw = warm_day(&disk, "raw", 0);
    strip(&raw, &disk, "warm", &request()).expect("stripped");
    let warm = WarmFile::open(&disk, "warm").expect("opens");
    let unit = ColdUnit::new("cold", "t", (0, DAY_MS), 1);
    let cold = cold_from(&disk, &warm, &unit).expect("made");
    let cold = ColdFile::open(&disk, &format!("cold/{}", cold[0].path)).expect("opens");
    let files: [Arc<dyn WindowFile>; 2] = [Arc::new(warm), Arc::new(cold)];
    use Exactness::{Approximate, Bounded, Exact};
    let cases: [Case; 11] = [
        ("rate", &[("__name__", "=", "hits")], Approximate, 0),
        // Silence about a label that was taken is not absence.
        ("rate", &[("__name__", "=", "hits"), ("pod", "=", "p1")], Approximate, 0),
        ("rate", &[("__name__", "=", "hits"), ("pod", "=~", "nobody")], Approximate, 0),
        // Nothing of these lost a label, or could have passed.
        ("count_over_time", &[("__name__", "=", "load"), ("pod", "=", "p1")], Exact, 0),
        ("count_over_time", &[("__name__", "=", "none"), ("pod", "=", "p1")], Exact, 0),
        ("rate", &[("__name__", "=", "hits"), ("app", "=", "other")], Exact, 0),
        ("max_over_time", &[("__name__", "=", "load")], Bounded, 3),
        ("avg_over_time", &[("app", "=", "shop"), ("__name__", "=~", "load|temp.*")], Bounded, 2),
        ("last", &[("__name__", "=", "temperature")], Bounded, 2),
        ("timestamp", &[("__name__", "=", "temperature")], Exact, 0),
        ("delta", &[("__name__", "=", "load")], Approximate, 3),
    ];
    for (function, matchers, exactness, digits) in cases {
        for file in &files {
            let answer = evaluated(Arc::clone(file), 0, function, matchers, false);
            let answer = answer.expect("an answer");
            let told = (answer.exactness, answer.stats.digits);
            assert_eq!(told, (exactness, digits), "{function} {matchers:?}");
            let exact = evaluated(Arc::clone(file), 0, function, matchers, true);
            assert_eq!(exact.is_some(), exactness == Exact, "{function} {matchers:?}");
        }
    }
}

#[test]
fn a_days_fold_grows_as_its_members_do_in_warm_and_cold() {
    let disk = MemoryDisk::new();
    let raw: Arc<dyn WindowFile> = Arc::new(warm_day(&disk, "raw", 0));
    let hits = [("__name__", "=", "hits")];
    let whole = evaluated(Arc::clone(&raw), 0, "increase", &hits, false).expect("an answer");
    let expected: f64 = whole.values.iter().sum();
    let source = WarmFile::open(&disk, "raw").expect("opens");
    strip(&source, &disk, "warm", &request()).expect("stripped");
    let warm = WarmFile::open(&disk, "warm").expect("opens");
    let cold = cold_from(&disk, &warm, &ColdUnit::new("cold", "t", (0, DAY_MS), 1)).expect("made");
    let cold = ColdFile::open(&disk, &format!("cold/{}", cold[0].path)).expect("opens");
    for file in [Arc::new(warm) as Arc<dyn WindowFile>, Arc::new(cold)] {
        let folded = evaluated(file, 0, "increase", &hits, false).expect("an answer");
        assert_eq!(folded.values.len(), 1);
        let wrong = (folded.values[0] - expected).abs() / expected;
        assert!(wrong < 1e-9, "{} instead of {expected}", folded.values[0]);
    }
}
