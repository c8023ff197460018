//! How fast a shard evaluates: `cargo run --release --example evaluate_speed --no-default-features`.
//!
//! Points come from memory, so this is the scan, the range functions and the aggregation alone.

use _kernels::error::Result;
use _kernels::evaluate::budget::Interrupt;
use _kernels::evaluate::execute::{EvaluateOptions, Evaluator};
use _kernels::evaluate::memory::{MemorySeries, MemoryShard};
use _kernels::evaluate::plan::Plan;
use std::sync::Arc;
use std::time::Duration;

fn main() -> Result<()> {
    let series: Vec<MemorySeries> = (0..100_000u32)
        .map(|i| {
            let count = if i < 4_000 { 43_200 / 15 + 20 } else { 3_600 / 15 + 20 };
            let labels = [
                ("__name__", if i < 4_000 { "cpu".to_owned() } else { "x_bucket".to_owned() }),
                ("handler", format!("/api/{}", i / 12 % 100)),
                ("instance", format!("host-{}", i / 1200)),
                ("le", format!("{}", i % 12)),
            ];
            MemorySeries {
                labels: labels.map(|(name, value)| (name.to_owned(), value)).into(),
                times_ms: (0..count).map(|k| k * 15_000 + i64::from(i % 50)).collect(),
                values: (0..count).map(|k| (k * i64::from(i % 7 + 1)) as f64).collect(),
            }
        })
        .collect();
    let shard = Arc::new(MemoryShard::new(series)?);
    for (name, plan) in [
        (
            "sum by (le, handler) (rate(x_bucket[5m])), 96,000 series, 1 h at 60 s",
            r#""value": "x_bucket"}], "function": "rate", "range_ms": 300000, "start_ms": 300000,
               "end_ms": 3900000, "step_ms": 60000,
               "aggregate": {"op": "sum", "by": ["le", "handler"]}"#,
        ),
        (
            "avg by (instance, handler, le) (avg_over_time(cpu[1h])), 4,000 series, 12 h at 1 h",
            r#""value": "cpu"}], "function": "avg_over_time", "range_ms": 3600000,
               "start_ms": 3600000, "end_ms": 43200000, "step_ms": 3600000,
               "aggregate": {"op": "avg", "by": ["instance", "handler", "le"]}"#,
        ),
        (
            "max_over_time(cpu[1h]), 4,000 series, 12 h at 60 s",
            r#""value": "cpu"}], "function": "max_over_time", "range_ms": 3600000,
               "start_ms": 3600000, "end_ms": 43200000, "step_ms": 60000"#,
        ),
        (
            "sum_over_time(cpu[1h]), 4,000 series, 12 h at 60 s",
            r#""value": "cpu"}], "function": "sum_over_time", "range_ms": 3600000,
               "start_ms": 3600000, "end_ms": 43200000, "step_ms": 60000"#,
        ),
        (
            "x_bucket, 96,000 series, one instant",
            r#""value": "x_bucket"}], "start_ms": 3600000, "end_ms": 3600000"#,
        ),
        (
            "quantile_over_time(0.9, cpu[5m]), 4,000 series, 12 h at 60 s",
            r#""value": "cpu"}], "function": "quantile_over_time", "range_ms": 300000,
               "start_ms": 3600000, "end_ms": 43200000, "step_ms": 60000, "args": [0.9]"#,
        ),
    ] {
        let text = format!(r#"{{"matchers": [{{"name": "__name__", "op": "=", {plan}}}"#);
        let plan: Plan = serde_json::from_str(&text)
            .map_err(|error| _kernels::evaluate::plan::bad_plan(error.to_string()))?;
        let options = EvaluateOptions { query_threads: 1, ..EvaluateOptions::default() };
        let evaluator = Evaluator::new(shard.clone(), options);
        let (mut best_s, mut points) = (f64::MAX, 0);
        for _ in 0..5 {
            let started_s = cpu_s();
            let interrupt = Interrupt::new(Duration::from_secs(60), None);
            points = evaluator.evaluate(&plan, &interrupt)?.stats.points_scanned;
            best_s = best_s.min(cpu_s() - started_s);
        }
        let million_s = points as f64 / best_s / 1e6;
        println!("{:7.1} ms of one core {million_s:7.0} M points/s  {name}", best_s * 1e3);
    }
    Ok(())
}

/// Seconds of CPU this thread has had, so that other load does not count.
fn cpu_s() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e9
}
