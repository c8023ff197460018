//! New series a second, bytes a series, and what the index costs to ask, save and load.
//!
//! `cargo run --release --no-default-features --example register_series -- [series] [shape]`
//! shapes: `fleet` (pods of 50 series, 11 labels), `unique` (every series has an id of its own).

use _kernels::error::Result;
use _kernels::labels::canonical::push_label;
use _kernels::model::SeriesType;
use _kernels::shard::matcher::{MatchOp, Matcher};
use _kernels::shard::registry::Registry;
use _kernels::shard::registry_state::Mark;

fn labels(number: usize, unique: bool, out: &mut Vec<u8>) {
    let (metric, pod) = (number % 50, number / 50);
    let mut label = |name: &str, value: String| push_label(out, name.as_bytes(), value.as_bytes());
    label("__name__", format!("http_server_request_duration_seconds_{metric:02}"));
    label("cluster", format!("production-{}", pod % 3));
    label("container", format!("service-{}", pod % 40));
    label("endpoint", "http-metrics".to_owned());
    if unique {
        label("id", format!("{:016x}", (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    } else {
        label("handler", format!("/api/v1/resource/{}", metric % 25));
    }
    label("instance", format!("10.{}.{}.{}:9090", pod >> 16 & 255, pod >> 8 & 255, pod & 255));
    label("job", format!("service-{}", pod % 40));
    label("namespace", format!("team-{}", pod % 100));
    label(
        "pod",
        format!(
            "service-{}-{:010x}",
            pod % 40,
            (pod as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24
        ),
    );
    label("region", "eu-central-1".to_owned());
    label("zone", format!("eu-central-1{}", ["a", "b", "c"][pod % 3]));
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// CPU time of this thread: the machine may be busy with others.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

fn timed<T>(what: &str, units: usize, work: impl FnOnce() -> T) -> T {
    let start = cpu_seconds();
    let answer = work();
    let seconds = cpu_seconds() - start;
    println!(
        "{what:<44} {:>9.2} ms {:>9.1} ns each {:>12.0}/s",
        seconds * 1e3,
        seconds * 1e9 / units.max(1) as f64,
        units as f64 / seconds
    );
    answer
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let count: usize = arguments.get(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let unique = arguments.get(2).is_some_and(|shape| shape == "unique");
    let mut bytes = Vec::new();
    let mut ends = vec![0];
    for number in 0..count {
        labels(number, unique, &mut bytes);
        ends.push(bytes.len());
    }
    println!("{count} series, {} label bytes each", bytes.len() / count);
    let of = |number: usize| &bytes[ends[number]..ends[number + 1]];

    let before = resident_bytes();
    let mut registry = Registry::new(0x5eed);
    let tenant = registry.tenant("default");
    let rows = timed("find + register + remember_alias", count, || {
        (0..count)
            .map(|number| {
                let labels = of(number);
                if registry.find(tenant, labels).is_some() {
                    return Ok(0);
                }
                let row = registry.register(tenant, labels, SeriesType::Unknown, 0)?;
                registry.remember_alias(tenant, number as u128 * 0x9e37_79b9_7f4a_7c15, row);
                Ok(row)
            })
            .collect::<Result<Vec<u32>>>()
    })?;
    timed("note_alive, new day", count, || registry.note_alive(1, &rows));
    timed("note_alive, same day", count, || registry.note_alive(1, &rows));
    println!(
        "memory a series: {} B by own count, {} B resident",
        registry.memory_bytes() / count,
        (resident_bytes() - before) / count
    );
    let hit = |number: usize| registry.resolve(tenant, number as u128 * 0x9e37_79b9_7f4a_7c15);
    timed("resolve", count, || (0..count).filter(|&n| hit(n).is_some()).count());
    timed("find", count, || (0..count).filter(|&n| registry.find(tenant, of(n)).is_some()).count());

    let is = |name, value| Matcher::new(name, MatchOp::Equal, value);
    let like = |name, value| Matcher::new(name, MatchOp::Regex, value);
    let metric = "http_server_request_duration_seconds_07";
    for (what, matchers) in [
        ("select one metric", vec![is("__name__", metric)]),
        ("select metric and job", vec![is("__name__", metric), is("job", "service-7")]),
        ("select one pod by prefix", vec![is("__name__", metric), like("pod", "service-7-.*")]),
        ("select pods by expression", vec![like("pod", "service-[0-3]-.*a.*")]),
        ("select everything", vec![like("__name__", ".+")]),
    ] {
        let rows = timed(what, 1, || registry.select(tenant, &matchers, None, usize::MAX))?;
        let day = Some((86_400_000, 90_000_000));
        registry.select(tenant, &matchers, day, usize::MAX)?;
        let by = ["namespace".to_owned(), "zone".to_owned()];
        println!("    {} series", rows.len());
        timed("    group by two labels", rows.len(), || registry.group_rows(&rows, &by, false));
        let table = timed("    label table", rows.len(), || registry.label_table(&rows));
        let sent = timed("    table to bytes", rows.len(), || table.to_bytes());
        println!("    {} B a series", sent.len() / rows.len().max(1));
    }
    let delta = timed("encode snapshot", count, || registry.encode_delta(&Mark::default()));
    let packed = timed("zstd level 3", count, || zstd::bulk::compress(&delta, 3))?;
    println!(
        "{} B a series, {:.1} B packed",
        delta.len() / count,
        packed.len() as f64 / count as f64
    );
    let mut loaded = Registry::new(1);
    timed("apply snapshot", count, || loaded.apply_delta(&delta))?;
    assert_eq!(loaded.row_count(), count);
    Ok(())
}
