//! Speed of plans over warm files: a directory of day files, three expressions of 1,000 series each
//! over 30 days at 1-hour steps, a narrow select over a file of 2 million series, and what open
//! files weigh. Times are medians of 9 runs with all files open and in the page cache.
//!
//! `cargo run --release --no-default-features --example tier_read -- DIRECTORY [DAYS] [SERIES]`

use _kernels::disk::{Disk, RealDisk};
use _kernels::downsample::columns::{COLD_WINDOW_MS, Kind, WARM_WINDOW_MS, WindowColumns};
use _kernels::downsample::file::WindowFile;
use _kernels::downsample::open_files::OpenFiles;
use _kernels::downsample::reader::{Reader, ReaderOptions};
use _kernels::downsample::selection::OwnedFile;
use _kernels::downsample::warm::{WarmFile, WarmOptions, WarmWriter};
use _kernels::downsample::window::downsample;
use _kernels::evaluate::plan::{Limits, Plan};
use _kernels::labels::LabelTable;
use _kernels::shard::matcher::{MatchOp, Matcher};
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

const DAY_MS: i64 = 86_400_000;
const HISTORY: usize = 2_000_000;
const RUNS: usize = 9;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("a directory, please")?;
    let days: i64 = arguments.next().map_or(Ok(30), |text| text.parse())?;
    let series: usize = arguments.next().map_or(Ok(1000), |text| text.parse())?;
    let disk = RealDisk::new(&directory)?;
    for day in 0..days {
        write_day(&disk, day, series)?;
    }
    let limits = Limits {
        series_max: 1_000_000,
        points_max: 1 << 40,
        bytes_max: 1 << 30,
        cost_max: u64::MAX,
    };
    let reader = Reader::new(ReaderOptions { query_threads: 2, query_bytes_max: 1 << 30, limits });
    let open = OpenFiles::new(4096, usize::MAX);
    let before = resident_bytes()?;
    let files = (0..days).map(|day| {
        let path = name(day);
        let file = open.get(&path, || Ok(Arc::new(WarmFile::open(&disk, &path)?) as _))?;
        Ok(OwnedFile { file, ranges_ms: vec![(day * DAY_MS, (day + 1) * DAY_MS)] })
    });
    let files = files.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    println!("{days} files open: {} KiB resident", (resident_bytes()? - before) / 1024);
    let expressions = [
        ("requests_total", "rate", Some("sum"), "service"),
        ("temperature", "max_over_time", Some("max"), "host"),
        ("requests_total", "rate", None, ""),
    ];
    for (metric, function, op, by) in expressions {
        let plan = plan(metric, function, op, by, days)?;
        let mut times = Vec::new();
        let mut told = String::new();
        for _ in 0..RUNS {
            let started = Instant::now();
            let answer = reader.evaluate(&plan, &files, false, &|| Ok(()))?.ok_or("no answer")?;
            times.push(started.elapsed().as_secs_f64() * 1000.0);
            told = format!(
                "{} rows, {} windows, {} MB, {}",
                answer.labels.len(),
                answer.stats.points_scanned,
                answer.stats.bytes_read / 1_000_000,
                answer.exactness.name()
            );
        }
        times.sort_by(f64::total_cmp);
        println!("{function} of {metric}: {:.0} ms, {told}", times[RUNS / 2]);
    }
    history(&disk)
}

fn name(day: i64) -> String {
    format!("day-{day:03}.swm")
}

fn write_day(disk: &RealDisk, day: i64, series: usize) -> Outcome<()> {
    if disk.open(&name(day), false).is_ok() {
        return Ok(());
    }
    let mut writer = WarmWriter::create(disk, &name(day), &WarmOptions::new("t", WARM_WINDOW_MS))?;
    for (metric, kind) in [("requests_total", Kind::Counter), ("temperature", Kind::Gauge)] {
        let mut hosts: Vec<usize> = (0..series).collect();
        hosts.sort_by_key(|host| host.to_string());
        for host in hosts {
            let host_name = host.to_string();
            let service = format!("service-{}", host % 20);
            let labels = LabelTable::from_lists(&[vec![
                ("__name__", metric),
                ("host", &host_name),
                ("service", &service),
            ]]);
            let times: Vec<i64> = (1..=8640).map(|k| day * DAY_MS + k * 10_000).collect();
            let value = |(k, _): (usize, &i64)| {
                let step = day as usize * 8640 + k;
                let noise = (step * 2_654_435_761 + host * 97) % 1000;
                match kind {
                    Kind::Counter => (step * 7 + noise / 143) as f64,
                    _ => 20.0 + (noise as f64) / 100.0,
                }
            };
            let values: Vec<f64> = times.iter().enumerate().map(value).collect();
            let mut windows = WindowColumns::default();
            downsample(&times, &values, WARM_WINDOW_MS, kind, &mut windows);
            writer.push(&labels, &windows)?;
        }
    }
    writer.finish()?;
    Ok(())
}

fn plan(metric: &str, function: &str, op: Option<&str>, by: &str, days: i64) -> Outcome<Plan> {
    let plan = serde_json::json!({
        "matchers": [{"name": "__name__", "op": "=", "value": metric}],
        "start_ms": COLD_WINDOW_MS, "end_ms": days * DAY_MS, "step_ms": COLD_WINDOW_MS,
        "function": function, "range_ms": COLD_WINDOW_MS, "at_ms": null, "extension": null,
        "aggregate": op.map(|op| serde_json::json!({"op": op, "by": [by]})),
    });
    Ok(serde_json::from_value(plan)?)
}

/// A day of many short-lived series: what a select costs, and what the open file weighs.
fn history(disk: &RealDisk) -> Outcome<()> {
    let path = "history.swm";
    if disk.open(path, false).is_err() {
        let mut writer = WarmWriter::create(disk, path, &WarmOptions::new("t", WARM_WINDOW_MS))?;
        let mut numbers: Vec<usize> = (0..HISTORY).collect();
        numbers.sort_by_key(|number| labels_of(*number)[0].1.clone() + &labels_of(*number)[2].1);
        for chunk in numbers.chunks(10_000) {
            let mut sorted: Vec<Vec<(String, String)>> =
                chunk.iter().map(|number| labels_of(*number)).collect();
            sorted.sort();
            let mut windows = WindowColumns::default();
            for _ in &sorted {
                downsample(&[1000, 2000], &[1.0, 2.0], WARM_WINDOW_MS, Kind::Counter, &mut windows);
            }
            writer.push(&LabelTable::from_lists(&sorted), &windows)?;
        }
        writer.finish()?;
    }
    let before = resident_bytes()?;
    let file = WarmFile::open(disk, path)?;
    println!("{} series: open, {} KiB", file.series_count(), (resident_bytes()? - before) / 1024);
    let matchers = [
        Matcher::new("env", MatchOp::Equal, "prod"),
        Matcher::new("service", MatchOp::Equal, "checkout"),
    ];
    let mut times = Vec::new();
    let mut found = 0;
    for _ in 0..RUNS {
        let started = Instant::now();
        found = file.select(&matchers, usize::MAX)?.len();
        times.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    println!("{{env=\"prod\",service=\"checkout\"}}: {found} series, {:.2} ms", times[RUNS / 2]);
    Ok(())
}

fn labels_of(number: usize) -> Vec<(String, String)> {
    let pair = |name: &str, value: String| (name.to_owned(), value);
    let service = if number % 400 == 7 { "checkout".into() } else { format!("s{}", number % 100) };
    vec![
        pair("__name__", format!("metric_{:03}", number / 10_000)),
        pair("env", if number.is_multiple_of(3) { "prod".into() } else { "dev".into() }),
        pair("pod", format!("pod-{number:07}")),
        pair("service", service),
    ]
}

fn resident_bytes() -> Outcome<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split(' ').nth(1).ok_or("statm")?.parse()?;
    Ok(pages * 4096)
}
