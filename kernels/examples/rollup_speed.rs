//! How fast points become windows, windows longer ones, and these answers:
//! `cargo run --release --example rollup_speed --no-default-features`. Points and windows come
//! from memory: reading blocks, encoding and writing are not in here.

use _kernels::downsample::columns::{COLD_WINDOW_MS, Kind, WARM_WINDOW_MS, WindowColumns};
use _kernels::downsample::evaluate::{Scratch, WindowCall};
use _kernels::downsample::view::Piece;
use _kernels::downsample::window::{coarsen, downsample};
use _kernels::error::Result;
use _kernels::evaluate::functions::{Call, Function};
use _kernels::evaluate::window::Steps;
use std::hint::black_box;
use std::time::Instant;

const SERIES: i64 = 200;
const DAY_MS: i64 = 86_400_000;

fn main() -> Result<()> {
    for interval_ms in [10_000, 15_000, 60_000] {
        for kind in [Kind::Counter, Kind::Gauge, Kind::Unknown] {
            roll(interval_ms, kind);
        }
    }
    let mut month = WindowColumns::default();
    let (times_ms, values) = points(10_000, 30 * DAY_MS, Kind::Unknown);
    downsample(&times_ms, &values, WARM_WINDOW_MS, Kind::Unknown, &mut month);
    let hours: Vec<i64> = (1..=720).map(|hour| hour * 3_600_000).collect();
    let minutes: Vec<i64> =
        (1..=11_000).map(|minute| 30 * DAY_MS - minute * 60_000).rev().collect();
    for (name, range_ms, ends) in [
        ("rate", 3_600_000, &hours),
        ("max_over_time", 3_600_000, &hours),
        ("avg_over_time", 3_600_000, &hours),
        ("rate", 30 * DAY_MS, &hours),
        ("max_over_time", 30 * DAY_MS, &hours),
        ("sum_over_time", 30 * DAY_MS, &hours),
        ("sum_over_time", 30 * DAY_MS, &minutes),
        ("quantile_over_time", 3_600_000, &hours),
        ("last", 300_000, &hours),
    ] {
        answer(name, range_ms, ends, &month)?;
    }
    Ok(())
}

/// A counter that is reset once a day, or a gauge of whole numbers.
fn points(interval_ms: i64, span_ms: i64, kind: Kind) -> (Vec<i64>, Vec<f64>) {
    let times_ms: Vec<i64> = (1..=span_ms / interval_ms).map(|k| k * interval_ms - 700).collect();
    let value = |&time_ms: &i64| match kind {
        Kind::Counter => (time_ms % DAY_MS / 100) as f64,
        _ => ((time_ms / 1_000 * 2_654_435_761) % 10_007) as f64,
    };
    let values = times_ms.iter().map(value).collect();
    (times_ms, values)
}

fn roll(interval_ms: i64, kind: Kind) {
    let (times_ms, values) = points(interval_ms, DAY_MS, kind);
    let points = (SERIES as usize * times_ms.len()) as f64;
    let (mut minutes, mut hours) = (WindowColumns::default(), WindowColumns::default());
    let (mut to_minutes, mut to_hours) = (f64::MAX, f64::MAX);
    for _ in 0..5 {
        minutes.clear();
        hours.clear();
        let started = Instant::now();
        for _ in 0..SERIES {
            downsample(&times_ms, &values, WARM_WINDOW_MS, kind, &mut minutes);
            // As a writer does: taken in batches that stay in the cache.
            if minutes.window_count() > 16_384 {
                black_box(&minutes);
                minutes.clear();
            }
        }
        to_minutes = to_minutes.min(started.elapsed().as_secs_f64());
        minutes.clear();
        downsample(&times_ms, &values, WARM_WINDOW_MS, kind, &mut minutes);
        let started = Instant::now();
        (0..SERIES).for_each(|_| coarsen(&minutes, 0, COLD_WINDOW_MS, &mut hours));
        black_box(&hours);
        to_hours = to_hours.min(started.elapsed().as_secs_f64());
    }
    println!(
        "{kind:?}, every {} s: to minutes {:.0} M points/s, minutes to hours {:.0} M points/s",
        interval_ms / 1_000,
        points / to_minutes / 1e6,
        points / to_hours / 1e6,
    );
}

fn answer(name: &str, range_ms: i64, ends: &[i64], month: &WindowColumns) -> Result<()> {
    let arguments = if name == "quantile_over_time" { vec![vec![0.9]] } else { Vec::new() };
    let call = Call::new(Function::parse(name)?, arguments, ends.len())?;
    let steps = Steps { eval_ms: ends, end_ms: ends, range_ms };
    let over = WindowCall::new(&call, &steps, WARM_WINDOW_MS);
    let pieces = [Piece::of(month, 0, over.fields())];
    let never = || false;
    let mut scratch = Scratch::new(&never);
    let (mut out, mut present) = (vec![0.0; ends.len()], vec![false; ends.len()]);
    let mut best = f64::MAX;
    for _ in 0..20 {
        present.fill(false);
        let started = Instant::now();
        let exactness = over.run(&pieces, &mut scratch, &mut out, &mut present);
        best = best.min(started.elapsed().as_secs_f64());
        black_box(exactness);
    }
    println!(
        "{name}[{} h], {} steps over {} windows: {:.0} us a series",
        range_ms / 3_600_000,
        ends.len(),
        month.window_count(),
        best * 1e6
    );
    Ok(())
}
