//! CPU time of the remote write 1.0 path, over bodies shaped like TSBS' cpu-only: 2,000 series a
//! request, 11 labels and one sample each. `cargo run --release --no-default-features --example
//! decode_remote_write [series] [series a request]`. Prints microseconds a sample, best of 7 rounds.

use _kernels::model::{PayloadEncoding, PayloadFormat};
use _kernels::wire::{Decoder, canonical_labels, decode};

const METRICS: [&str; 10] = [
    "usage_user",
    "usage_system",
    "usage_idle",
    "usage_nice",
    "usage_iowait",
    "usage_irq",
    "usage_softirq",
    "usage_steal",
    "usage_guest",
    "usage_guest_nice",
];
const REGIONS: [&str; 4] = ["us-east-1", "eu-central-1", "ap-northeast-1", "sa-east-1"];

fn field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    let mut length = bytes.len();
    while length > 0x7f {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
}

fn series(i: usize, time_ms: i64) -> Vec<u8> {
    let host = i / 10;
    let region = REGIONS[host % 4];
    let labels = [
        ("__name__", format!("cpu_{}", METRICS[i % 10])),
        ("arch", ["x64", "x86"][host % 2].to_owned()),
        ("datacenter", format!("{region}{}", ["a", "b", "c"][host % 3])),
        ("hostname", format!("host_{host}")),
        ("os", ["Ubuntu16.10", "Ubuntu16.04LTS", "Ubuntu15.10"][host % 3].to_owned()),
        ("rack", (host * 7 % 100).to_string()),
        ("region", region.to_owned()),
        ("service", (host * 13 % 20).to_string()),
        ("service_environment", ["production", "staging", "test"][host % 3].to_owned()),
        ("service_version", (host % 2).to_string()),
        ("team", ["SF", "NYC", "LON", "CHI"][host % 4].to_owned()),
    ];
    let mut body = Vec::new();
    for (name, value) in labels {
        let mut label = Vec::new();
        field(&mut label, 0x0a, name.as_bytes());
        field(&mut label, 0x12, value.as_bytes());
        field(&mut body, 0x0a, &label);
    }
    let mut sample = vec![0x09];
    sample.extend_from_slice(&((i * 37 % 101) as f64).to_le_bytes());
    sample.push(0x10);
    let mut time = time_ms as u64;
    while time > 0x7f {
        sample.push(time as u8 | 0x80);
        time >>= 7;
    }
    sample.push(time as u8);
    field(&mut body, 0x12, &sample);
    body
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let count = arguments.first().copied().unwrap_or(100_000);
    let per_request = arguments.get(1).copied().unwrap_or(2_000);
    let time_ms = 1_768_435_200_000;
    let (mut raw, mut packed) = (Vec::new(), Vec::new());
    for first in (0..count).step_by(per_request) {
        let mut body = Vec::new();
        for i in first..count.min(first + per_request) {
            field(&mut body, 0x0a, &series(i, time_ms));
        }
        packed.push(snap::raw::Encoder::new().compress_vec(&body)?);
        raw.push(body);
    }
    let bytes = |bodies: &[Vec<u8>]| bodies.iter().map(Vec::len).sum::<usize>() / count;
    println!(
        "{count} series, {per_request} a request: {} B raw, {} B snappy a sample",
        bytes(&raw),
        bytes(&packed)
    );
    let (snappy, identity) = (PayloadEncoding::Snappy, PayloadEncoding::Identity);
    for (name, bodies, encoding, warm) in [
        ("first sight, snappy", &packed, snappy, false),
        ("known, snappy", &packed, snappy, true),
        ("known, identity", &raw, identity, true),
    ] {
        let mut best = f64::MAX;
        let mut decoder = Decoder::new(1);
        for _ in 0..7 {
            if !warm {
                decoder = Decoder::new(1);
            }
            let start = cpu_seconds();
            let mut points = 0;
            for body in bodies {
                let batch = decode(body, PayloadFormat::RemoteWrite1, encoding, time_ms, &decoder)?;
                points += batch.points_good();
                decoder.recycle(batch);
            }
            assert_eq!(points, count);
            best = best.min(cpu_seconds() - start);
        }
        println!("{name:>22}: {:.3} us a sample", best * 1e6 / count as f64);
    }
    let start = cpu_seconds();
    for body in &packed {
        std::hint::black_box(snap::raw::Decoder::new().decompress_vec(body)?);
    }
    println!(
        "{:>22}: {:.3} us a sample",
        "snappy alone",
        (cpu_seconds() - start) * 1e6 / count as f64
    );
    let decoder = Decoder::new(1);
    let batches: Vec<_> = packed
        .iter()
        .map(|body| decode(body, PayloadFormat::RemoteWrite1, snappy, time_ms, &decoder))
        .collect::<Result<_, _>>()?;
    let start = cpu_seconds();
    let mut out = Vec::new();
    for batch in &batches {
        for series in &batch.series {
            out.clear();
            let range = series.label_start as usize..series.label_end as usize;
            canonical_labels(&batch.label_bytes[range], &mut out)?;
        }
    }
    println!(
        "{:>22}: {:.3} us a series",
        "canonical labels",
        (cpu_seconds() - start) * 1e6 / count as f64
    );
    Ok(())
}

/// CPU time of this process: unlike wall time it can be read beside other load.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}
