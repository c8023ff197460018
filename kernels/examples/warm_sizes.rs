//! Bytes and time of warm files for each kind of the bench's generator: a day of windows of one
//! minute, from scrapes of 10 s, against a dense block where the scrape is as long as the window.
//! `cargo run --release --no-default-features --example warm_sizes [series] [page windows]`

mod generated;

use _kernels::codec::Codec;
use _kernels::disk::MemoryDisk;
use _kernels::downsample::columns::{Fields, Kind, WARM_WINDOW_MS, WindowColumns};
use _kernels::downsample::file::WindowFile;
use _kernels::downsample::warm::{WarmFile, WarmOptions, WarmReport, WarmWriter};
use _kernels::downsample::window::downsample;
use _kernels::error::Result;
use _kernels::labels::{LabelTable, LabelTableBuilder};
use _kernels::model::SeriesKey;
use _kernels::shard::block::BlockOptions;
use _kernels::shard::block_writer::BlockWriter;
use generated::{METRICS, MIX, Random, cpu_ns, values};

const START_MS: i64 = 1_768_435_200_000;
const DAY_MS: i64 = 86_400_000;
const KINDS: [&str; 7] = ["int", "float2", "counter", "const", "float", "walk", "mix"];

/// Label sets in a file's order: metric after metric, host after host.
fn labels(series: usize) -> LabelTable {
    let mut builder = LabelTableBuilder::default();
    for i in 0..series {
        let (metric, host) = (i * METRICS / series, i % (series / METRICS).max(1));
        let list = [
            ("__name__", format!("cpu_usage_{metric}")),
            ("arch", ["x64", "x86"][host % 2].to_owned()),
            ("datacenter", format!("us-east-1{}", ["a", "b", "c"][host % 3])),
            ("hostname", format!("host_{host}")),
            ("os", "Ubuntu16.10".to_owned()),
            ("rack", (host % 100).to_string()),
            ("region", "us-east-1".to_owned()),
            ("service", (host % 20).to_string()),
            ("team", ["SF", "NYC", "LON", "CHI"][host % 4].to_owned()),
        ];
        for (name, value) in list {
            let (name, value) = (builder.intern(name), builder.intern(&value));
            builder.label(name, value);
        }
        builder.end_series();
    }
    let table = builder.finish();
    let mut order: Vec<usize> = (0..series).collect();
    order.sort_by(|&i, &j| _kernels::downsample::file::compare_labels(&table, i, &table, j));
    table.take(&order).unwrap_or_default()
}

fn kind_of(name: &str) -> Kind {
    if name == "counter" { Kind::Counter } else { Kind::Gauge }
}

struct Measured {
    report: WarmReport,
    encode_ns: f64,
    read_ns: f64,
    rate_ns: f64,
}

fn warm(labels: &LabelTable, windows: &WindowColumns, page: usize) -> Result<Measured> {
    let disk = MemoryDisk::new();
    let mut options = WarmOptions::new("bench", WARM_WINDOW_MS);
    options.page_windows_max = page;
    let start = cpu_ns();
    let mut writer = WarmWriter::create(&disk, "file", &options)?;
    writer.push(labels, windows)?;
    let report = writer.finish()?;
    let count = report.windows as f64;
    let encode_ns = (cpu_ns() - start) / count;
    let file = WarmFile::open(&disk, "file")?;
    let all: Vec<u32> = (0..file.series_count() as u32).collect();
    let mut out = WindowColumns::default();
    let mut read = |fields: Fields| -> Result<f64> {
        out.clear();
        let start = cpu_ns();
        file.read(&all, i64::MIN..i64::MAX, fields, &mut out)?;
        Ok((cpu_ns() - start) / count)
    };
    read(Fields::ALL)?;
    let read_ns = read(Fields::ALL)?;
    let rate_ns = read(Fields::COMMON.with(Fields::DROPPED))?;
    Ok(Measured { report, encode_ns, read_ns, rate_ns })
}

fn dense_block(series: &[(Vec<i64>, Vec<f64>)]) -> Result<f64> {
    let disk = MemoryDisk::new();
    let mut writer = BlockWriter::create(&disk, "block", BlockOptions::new(Codec::Dense))?;
    let mut points = 0;
    for (index, (times, values)) in series.iter().enumerate() {
        let metric = (index * METRICS / series.len()) as u32;
        let key = SeriesKey { tenant: 0, metric, row: index as u32 * 10 };
        writer.push_series(key, times, values)?;
        points += times.len();
    }
    Ok(writer.finish()?.bytes as f64 / points as f64)
}

/// A day of `series` series of a kind, a scrape every `interval_ms`, each at its own offset.
fn points(kind: &str, series: usize, interval_ms: i64) -> Vec<(Vec<i64>, Vec<f64>)> {
    let mut random = Random(1);
    let steps = (DAY_MS / interval_ms) as usize;
    (0..series)
        .map(|i| {
            let kind = if kind == "mix" { MIX[i * METRICS / series] } else { kind };
            let offset_ms = 1 + (random.next() % interval_ms as u64) as i64;
            let times = (0..steps as i64).map(|at| START_MS + offset_ms + at * interval_ms);
            (times.collect(), values(kind, steps, &mut random))
        })
        .collect()
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse().unwrap_or(0));
    let series = arguments.next().unwrap_or(1_000);
    let page = arguments.next().unwrap_or(16 * 1024);
    let labels = labels(series);
    println!("{series} series, a day, pages of {page} windows; CPU ns per window");
    println!("scrape kind      warm B/point  write  read  rate's | raw dense B/point  warm/raw");
    for interval_ms in [10_000, 15_000, 30_000, 60_000] {
        for kind in KINDS {
            let points = points(kind, series, interval_ms);
            let mut windows = WindowColumns::default();
            for (i, (times, values)) in points.iter().enumerate() {
                let kind = if kind == "mix" { MIX[i * METRICS / series] } else { kind };
                downsample(times, values, WARM_WINDOW_MS, kind_of(kind), &mut windows);
            }
            let Measured { report, encode_ns, read_ns, rate_ns } = warm(&labels, &windows, page)?;
            let bytes = report.bytes as f64 / report.points as f64;
            let raw = dense_block(&points)?;
            let ratio = bytes / raw;
            println!(
                "{:>4} s {kind:8} {bytes:>12.3} {encode_ns:>7.0} {read_ns:>5.0} {rate_ns:>6.0} | {raw:>12.3} {ratio:>15.2}",
                interval_ms / 1000
            );
        }
    }
    Ok(())
}
