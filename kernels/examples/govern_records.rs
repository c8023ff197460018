//! What governance costs: a shard on an in-memory disk receives and applies bodies of 2,000 series
//! with one sample each. Prints CPU time a sample of all threads, and of applying alone; for
//! instructions run it under `perf stat -e instructions:u`, and take off those of mode `bodies`.
//!
//! `cargo run --release --no-default-features --example govern_records -- [series] [rounds] [mode]`
//! modes: `bodies` (they are made, and nothing else), `off` (no policy), `others` (budgets of another
//! tenant), `ten` (ten budgets that each series is compared with, three of them by labels; none is
//! reached), `soft` (the same, and each new series is past a soft limit: an explosion), `drop` (all
//! series are refused, into letters), `discard` (the same past the letters' quota), `fold` (all
//! are folded). With `-new` behind it each round has series of its own.

use _kernels::disk::MemoryDisk;
use _kernels::model::{PayloadEncoding, PayloadFormat};
use _kernels::shard::Shard;
use _kernels::shard::apply::{NewSeries, Policy};
use _kernels::shard::budget::Table;
use _kernels::shard::owner::Options;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SERIES_A_BODY: usize = 2_000;
const HOUR_MS: i64 = 3_600_000;

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn series(number: usize, time_ms: i64) -> Vec<u8> {
    let (metric, host) = (number % 50, number / 50);
    let labels = [
        ("__name__", format!("http_server_request_duration_seconds_{metric:02}")),
        ("cluster", format!("production-{}", host % 3)),
        ("env", ["prod", "test"][host % 2].to_owned()),
        ("handler", format!("/api/v1/resource/{}", metric % 25)),
        ("instance", format!("10.{}.{}.{}:9090", host >> 16, host >> 8 & 255, host & 255)),
        ("job", format!("service-{}", host % 40)),
        ("namespace", format!("team-{}", host % 100)),
        ("pod", format!("service-{}-{:010x}", host % 40, host.wrapping_mul(0x9e37_79b9))),
        ("region", "eu-central-1".to_owned()),
        ("zone", format!("eu-central-1{}", ["a", "b", "c"][host % 3])),
    ];
    let mut body = Vec::new();
    for (name, value) in labels {
        let mut label = Vec::new();
        field(&mut label, 0x0a, name.as_bytes());
        field(&mut label, 0x12, value.as_bytes());
        field(&mut body, 0x0a, &label);
    }
    let mut sample = vec![0x09];
    sample.extend_from_slice(&((number * 37 % 101) as f64).to_le_bytes());
    sample.push(0x10);
    varint(&mut sample, time_ms as u64);
    field(&mut body, 0x12, &sample);
    body
}

/// Fields of a budget that each series counts for.
fn limits(soft: Option<u64>, hard: u64, action: &str) -> String {
    let soft = soft.map_or("null".to_owned(), |soft| soft.to_string());
    format!(
        r#""active_soft":{soft},"active_hard":{hard},"new_soft":null,"new_hard":1000000000,
        "action":"{action}""#
    )
}

fn table(mode: &str) -> Option<String> {
    const FAR: u64 = 1_000_000_000;
    let row = |name: usize, tenant: &str, kind: &str, metric: &str, labels: &str, rest: &str| {
        format!(
            r#"{{"name":"budget-{name}","tenant":"{tenant}","match":"{kind}","metric":"{metric}",
            "labels":[{labels}],{rest}}}"#
        )
    };
    let far = limits(None, FAR, "drop");
    let fold = r#""fold":{"labels":["pod","instance"],"gauge":"last","grid_ms":30000,
        "lateness_ms":30000,"idle_ms":600000,"inputs_max":1000000,"outputs_max":100000}"#;
    let first = match mode {
        "bodies" | "off" => return None,
        "soft" => limits(Some(0), FAR, "drop"),
        "drop" | "discard" => limits(None, 0, "drop"),
        "fold" => format!("{},{fold}", limits(None, 0, "strip")),
        _ => far.clone(),
    };
    let budget = |number| match number {
        _ if mode == "others" => row(number, "other", "all", "", "", &far),
        0 => row(number, "", "all", "", "", &first),
        1..=3 => row(number, "", "prefix", "http_", r#"["env","prod"]"#, &far),
        4..=6 => row(number, "", "prefix", "grpc_", "", &far),
        _ => row(number, "", "name", "http_server_request_duration_seconds_07", "", &far),
    };
    let rows: Vec<String> = (0..10).map(budget).collect();
    let letter_bytes_max = if mode == "drop" { 1_u64 << 40 } else { 1 };
    Some(format!(
        r#"{{"format":1,"version":1,"stage":"enforce","letter_bytes_max":{letter_bytes_max},
        "letter_days":1,"budgets":[{}]}}"#,
        rows.join(",")
    ))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |at: usize, default: usize| {
        arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (count, rounds) = (number(1, 200_000), number(2, 1));
    let given = arguments.get(3).map_or("off", String::as_str);
    let mode = given.trim_end_matches("-new");
    let options =
        Options { buffer_points_max: u64::MAX, decoded_bytes_max: 4 << 30, ..Options::default() };
    let shard = Shard::new(Arc::new(MemoryDisk::new()), options)?;
    let json = table(mode);
    let compiled = u32::from(json.is_some());
    shard.set_tables(json.iter().map(|json| Table::parse(json)).collect::<Result<_, _>>()?);
    let policy =
        Policy { version: 1, series_max: u64::MAX, new_series: NewSeries::Accept, table: compiled };
    shard.set_policies(&[policy], 1, "");
    shard.open_journal(0, 1)?;
    shard.loaded();
    let start_ms = 500_000 * HOUR_MS;
    let (mut ticks, mut applying) = (0, Duration::ZERO);
    for round in 0..rounds {
        let now_ms = start_ms + round as i64 * 15_000;
        let numbered_from = if mode == given { 0 } else { round * count };
        let bodies: Vec<Vec<u8>> = (0..count)
            .step_by(SERIES_A_BODY)
            .map(|first| {
                let mut body = Vec::new();
                for number in first..count.min(first + SERIES_A_BODY) {
                    field(&mut body, 0x0a, &series(numbered_from + number, now_ms));
                }
                body
            })
            .collect();
        if mode == "bodies" {
            continue;
        }
        let before = cpu_ticks();
        for body in &bodies {
            let (format, encoding) = (PayloadFormat::RemoteWrite1, PayloadEncoding::Identity);
            shard.receive(body, "default", format, encoding, now_ms)?;
        }
        let all = ((round + 1) * bodies.len()) as u64;
        while shard.inbox().durable_next() < all {
            std::thread::sleep(Duration::from_micros(200));
        }
        let applied_from = Instant::now();
        while shard.sequences().1 < all {
            shard.advance(Duration::from_millis(100))?;
        }
        applying += applied_from.elapsed();
        ticks += cpu_ticks() - before;
    }
    let samples = (count * rounds) as f64;
    println!(
        "{given}: {:.1} ns of CPU a sample, {:.1} ns of them to apply it; {samples} samples",
        ticks as f64 / samples,
        applying.as_nanos() as f64 / samples
    );
    Ok(())
}

/// CPU nanoseconds of all threads.
fn cpu_ticks() -> u64 {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let spent = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    spent.sum()
}
