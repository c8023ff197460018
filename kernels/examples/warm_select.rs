//! A warm file of many series: opening, selecting, labels, and a month of a thousand series.
//! `cargo run --release --no-default-features --example warm_select [series] [directory]`

use _kernels::disk::RealDisk;
use _kernels::downsample::columns::{Fields, Kind, WARM_WINDOW_MS, WindowColumns};
use _kernels::downsample::file::WindowFile;
use _kernels::downsample::warm::{WarmFile, WarmOptions, WarmWriter};
use _kernels::downsample::window::downsample;
use _kernels::error::Result;
use _kernels::labels::LabelTableBuilder;
use _kernels::shard::matcher::{MatchOp, Matcher};
use std::time::Instant;

const METRICS: usize = 20;
const BATCH: usize = 10_000;
const ENVIRONMENTS: [&str; 3] = ["dev", "prod", "staging"];
const SERVICES: usize = 200;
const DAYS: i64 = 30;
const SERIES: usize = 1_000;
const DAY_MS: i64 = 86_400_000;

fn rss_mib() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = text.split(' ').nth(1).and_then(|p| p.parse().ok()).unwrap_or(f64::NAN);
    pages * 4096.0 / 1_048_576.0
}

/// Milliseconds of the fastest and the median of some calls.
fn time(name: &str, call: &mut dyn FnMut() -> Result<usize>) -> Result<()> {
    let mut took: Vec<f64> = Vec::new();
    let mut found = 0;
    for _ in 0..15 {
        let start = Instant::now();
        found = call()?;
        took.push(start.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    println!("{name:44} {:>9.2} ms median, {:>9.2} ms least, found {found}", took[7], took[0]);
    Ok(())
}

/// Series i of a metric: environments and services cycle, the pod is its own.
fn write_many(disk: &RealDisk, series: usize) -> Result<()> {
    let mut writer = WarmWriter::create(disk, "many", &WarmOptions::new("bench", WARM_WINDOW_MS))?;
    let of_metric = series / METRICS;
    for metric in 0..METRICS {
        for start in (0..of_metric).step_by(BATCH) {
            let (mut builder, mut windows) =
                (LabelTableBuilder::default(), WindowColumns::default());
            for i in start..of_metric.min(start + BATCH) {
                // Ascending, as a file wants them: environment, then pod, then service.
                let list = [
                    ("__name__", format!("metric_{metric:02}")),
                    ("env", ENVIRONMENTS[i * ENVIRONMENTS.len() / of_metric].to_owned()),
                    ("pod", format!("pod-{i:07}-{:08x}", i.wrapping_mul(2_654_435_761))),
                    (
                        "service",
                        match i % SERVICES {
                            0 => "checkout".to_owned(),
                            number => format!("service-{number}"),
                        },
                    ),
                ];
                for (name, value) in list {
                    let (name, value) = (builder.intern(name), builder.intern(&value));
                    builder.label(name, value);
                }
                builder.end_series();
                downsample(
                    &[i as i64 % 600 + 1],
                    &[1.0],
                    WARM_WINDOW_MS,
                    Kind::Gauge,
                    &mut windows,
                );
            }
            writer.push(&builder.finish(), &windows)?;
        }
    }
    let report = writer.finish()?;
    println!("{} series: {} bytes, RSS {:.0} MiB", report.series, report.bytes, rss_mib());
    Ok(())
}

/// A month of daily files, a counter every 10 s.
fn month(disk: &RealDisk) -> Result<()> {
    let mut builder = LabelTableBuilder::default();
    for i in 0..SERIES {
        for (name, value) in [("__name__", "requests_total"), ("host", &format!("host-{i:04}"))] {
            let (name, value) = (builder.intern(name), builder.intern(value));
            builder.label(name, value);
        }
        builder.end_series();
    }
    let labels = builder.finish();
    for day in 0..DAYS {
        let mut windows = WindowColumns::default();
        let times: Vec<i64> = (1..=8_640).map(|at| day * DAY_MS + at * 10_000).collect();
        for series in 0..SERIES as u64 {
            let mut total = 0;
            let values: Vec<f64> = (0..times.len() as u64)
                .map(|at| {
                    total += (at * (series + 7)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58;
                    total as f64
                })
                .collect();
            downsample(&times, &values, WARM_WINDOW_MS, Kind::Counter, &mut windows);
        }
        let options = WarmOptions::new("bench", WARM_WINDOW_MS);
        let mut writer = WarmWriter::create(disk, &format!("day-{day}"), &options)?;
        writer.push(&labels, &windows)?;
        writer.finish()?;
    }
    let all: Vec<u32> = (0..SERIES as u32).collect();
    for (name, fields) in [
        ("rate's columns", Fields::COMMON.with(Fields::DROPPED)),
        ("last and its time", Fields::LAST.with(Fields::LAST_MS)),
    ] {
        let mut out = WindowColumns::default();
        let mut bytes = 0;
        time(&format!("{DAYS} days of {SERIES} series, {name}"), &mut || {
            bytes = 0;
            let mut windows = 0;
            for day in 0..DAYS {
                out.clear();
                let file = WarmFile::open(disk, &format!("day-{day}"))?;
                bytes += file.read(&all, i64::MIN..i64::MAX, fields, &mut out)?;
                windows += out.window_count();
            }
            Ok(windows)
        })?;
        println!("  {bytes} bytes read");
    }
    Ok(())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let series = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(2_000_000);
    let directory = arguments.next().unwrap_or_else(|| "warm_select_data".to_owned());
    let disk = RealDisk::new(&directory)?;
    write_many(&disk, series)?;
    time("open", &mut || Ok(WarmFile::open(&disk, "many")?.series_count()))?;
    let file = WarmFile::open(&disk, "many")?;
    let equal = |name: &str, value: &str| Matcher::new(name, MatchOp::Equal, value);
    let two = [equal("env", "prod"), equal("service", "checkout")];
    let before = rss_mib();
    time("{env=\"prod\",service=\"checkout\"}", &mut || Ok(file.select(&two, series)?.len()))?;
    let found = file.select(&two, series)?;
    time("  and the labels of 1,000 of them", &mut || {
        Ok(file.labels(&found[..found.len().min(1_000)])?.len())
    })?;
    let one = [equal("__name__", "metric_07"), equal("pod", "pod-0000007-7b8f4a8f")];
    time("{__name__=\"metric_07\",pod=\"...\"}", &mut || Ok(file.select(&one, series)?.len()))?;
    println!("RSS {before:.0} MiB before, {:.0} after", rss_mib());
    month(&disk)
}
