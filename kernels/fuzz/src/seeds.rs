//! Sound inputs of each target, for the fuzzer to start from.

use crate::journal::SAMPLE;
use crate::wire::NOW_MS;
use _kernels::codec::Codec;
use _kernels::codec::page::PageBuilder;
use _kernels::disk::{Disk, MemoryDisk};
use _kernels::evaluate::frame::{self, Kind};
use _kernels::labels::LabelTable;
use _kernels::labels::canonical::push_label;
use _kernels::model::{SeriesKey, SeriesType};
use _kernels::shard::block::BlockOptions;
use _kernels::shard::block_writer::BlockWriter;
use _kernels::shard::dedup::DedupWindow;
use _kernels::shard::ledger::Ledger;
use _kernels::shard::registry::Registry;
use _kernels::shard::registry_state::Mark;
use _kernels::shard::state_file::{self, SECTION_LEDGER, SECTION_REGISTRY, StateHeader};
use std::io::Write;

pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "decode" => decode(),
        "block" => block(),
        "state" => state(),
        "journal" => vec![
            [&[0], &SAMPLE.1[..]].concat(),
            vec![1, 0, 100, 0, 9, 0, 0, 1, 200, 0, 40, 0, 0],
            vec![1, 3, 64, 0, 255, 0, 0, 4, 0, 1, 1, 1, 0],
        ],
        "labels" => vec![tables().to_bytes()[8..].to_vec()],
        "frames" => frames(),
        "plan" => plans(),
        _ => Vec::new(),
    }
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    out.extend(varint(bytes.len() as u64));
    out.extend_from_slice(bytes);
    out
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn number(field: u8, value: u64) -> Vec<u8> {
    [vec![field << 3], varint(value)].concat()
}

fn eight(field: u8, bytes: [u8; 8]) -> Vec<u8> {
    [&[field << 3 | 1][..], &bytes].concat()
}

fn write1() -> Vec<u8> {
    let label = |name: &str, value: &str| {
        field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat())
    };
    let sample = [eight(1, 1.5f64.to_le_bytes()), number(2, NOW_MS as u64)].concat();
    let histogram =
        [number(1, 3), eight(3, 2f64.to_le_bytes()), number(4, 0), number(15, NOW_MS as u64)];
    let one = [
        label("__name__", "up"),
        label("job", "a"),
        field(2, &sample),
        field(4, &histogram.concat()),
    ];
    let metadata =
        [number(1, 1), field(2, b"up"), field(4, b"help"), field(5, b"seconds")].concat();
    [field(1, &one.concat()), field(3, &metadata)].concat()
}

fn write2() -> Vec<u8> {
    let symbols: Vec<u8> = ["", "__name__", "up", "job", "a"]
        .iter()
        .flat_map(|symbol| field(4, symbol.as_bytes()))
        .collect();
    let sample = [eight(1, 1.5f64.to_le_bytes()), number(2, NOW_MS as u64)].concat();
    let exemplar = [field(1, &[3, 4]), eight(2, 1f64.to_le_bytes())].concat();
    let one =
        [field(1, &[1, 2, 3, 4]), field(2, &sample), field(4, &exemplar), field(5, &number(1, 1))];
    [symbols, field(5, &one.concat())].concat()
}

fn otlp() -> Vec<u8> {
    let text = |value: &str| field(1, value.as_bytes());
    let attribute = [field(1, b"service.name"), field(2, &text("api"))].concat();
    let nanoseconds = (NOW_MS as u64 * 1_000_000).to_le_bytes();
    let point =
        [field(7, &attribute), eight(3, nanoseconds), eight(4, 2.5f64.to_le_bytes())].concat();
    let histogram = [
        eight(3, nanoseconds),
        eight(4, 3u64.to_le_bytes()),
        eight(5, 2f64.to_le_bytes()),
        field(6, &[1u64.to_le_bytes(), 2u64.to_le_bytes()].concat()),
        field(7, &0.5f64.to_le_bytes()),
    ];
    let gauge = [field(1, b"load"), field(5, &field(1, &point))].concat();
    let sum = [field(1, b"n"), field(7, &[field(1, &point), number(2, 2), number(3, 1)].concat())];
    let histogram =
        [field(1, b"h"), field(9, &[field(1, &histogram.concat()), number(2, 2)].concat())];
    let metrics = [gauge, sum.concat(), histogram.concat()];
    let metrics: Vec<u8> = metrics.iter().flat_map(|metric| field(2, metric)).collect();
    let resource = field(1, &field(1, &attribute));
    field(1, &[resource, field(2, &metrics)].concat())
}

const OTLP_JSON: &str = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name",
"value":{"stringValue":"api"}}]},"scopeMetrics":[{"metrics":[{"name":"load","gauge":{"dataPoints":
[{"timeUnixNano":"1700000000000000000","asDouble":1.5}]}},{"name":"h","histogram":
{"aggregationTemporality":2,"dataPoints":[{"timeUnixNano":1700000000000000000,"count":"3","sum":2,
"bucketCounts":["1","2"],"explicitBounds":[0.5]}]}}]}]}]}"#;

fn decode() -> Vec<Vec<u8>> {
    let bodies = [write1(), write2(), otlp(), OTLP_JSON.as_bytes().to_vec()];
    let mut seeds = Vec::new();
    for (format, body) in bodies.iter().enumerate() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(body).expect("memory");
        let packed = [
            body.clone(),
            snap::raw::Encoder::new().compress_vec(body).expect("small"),
            zstd::bulk::compress(body, 1).expect("small"),
            gzip.finish().expect("memory"),
        ];
        for bytes in &packed {
            for encoding in 0..4 {
                seeds.push([&[format as u8, encoding], &bytes[..]].concat());
            }
        }
    }
    seeds
}

fn key(row: u32) -> SeriesKey {
    SeriesKey { tenant: 0, metric: row / 4, row }
}

fn block() -> Vec<Vec<u8>> {
    let times: Vec<i64> = (0..40).map(|at| NOW_MS + at * 15_000).collect();
    let values: Vec<f64> = (0..40).map(|at| f64::from(at) * 0.25).collect();
    let histograms: Vec<&[u8]> = (0..40).map(|_| &b"a histogram"[..]).collect();
    let mut seeds = Vec::new();
    for codec in [Codec::Fast, Codec::Dense] {
        for (kind, mut page) in [(0, PageBuilder::floats()), (1, PageBuilder::histograms())] {
            for row in 0..3 {
                if kind == 0 {
                    page.push_floats(key(row), &times, &values);
                } else {
                    page.push_histograms(key(row), &times, &histograms);
                }
            }
            let mut out = vec![kind, 120, 0];
            page.encode(&mut out, codec).expect("a sound page");
            seeds.push(out);
        }
        let disk = MemoryDisk::new();
        let mut writer =
            BlockWriter::create(&disk, "block", BlockOptions::new(codec)).expect("a block");
        for row in 0..9 {
            writer.push_series(key(row), &times, &values).expect("ascending");
            writer.push_histograms(key(row), &times, &histograms).expect("ascending");
        }
        writer.finish().expect("finished");
        let bytes = disk.read_all("block").expect("there");
        seeds.push([&[3, 0, 0], &bytes[..]].concat());
        let trailer = &bytes[bytes.len() - 16..];
        let length = u32::from_le_bytes([trailer[0], trailer[1], trailer[2], trailer[3]]) as usize;
        let directory = &bytes[bytes.len() - 16 - length..bytes.len() - 16];
        seeds.push([&[2, 0, 0], directory].concat());
    }
    seeds
}

fn state() -> Vec<Vec<u8>> {
    let registry = registry_bytes();
    let mut window = DedupWindow::new(1000);
    (0..20).for_each(|key| window.remember(key, NOW_MS + key as i64));
    let ledger = Ledger::default().to_json();
    let header = StateHeader { snapshot: true, next_sequence: 3, fence: 1 };
    let sections = [(SECTION_REGISTRY, &registry[..]), (SECTION_LEDGER, &ledger[..])];
    vec![
        [&[0], &state_file::encode(&header, &sections).expect("small")[..]].concat(),
        [&[1], &registry[..]].concat(),
        [&[2], &window.encode(true)[..]].concat(),
        [&[3], &ledger[..]].concat(),
    ]
}

/// A registry's snapshot.
fn registry_bytes() -> Vec<u8> {
    let mut registry = Registry::new(1);
    let tenant = registry.tenant("default");
    for number in 0..20 {
        let mut labels = Vec::new();
        push_label(&mut labels, b"__name__", b"up");
        push_label(&mut labels, b"i", number.to_string().as_bytes());
        registry.register(tenant, &labels, SeriesType::Gauge, 0).expect("a new series");
    }
    registry.encode_delta(&Mark::default())
}

fn tables() -> LabelTable {
    LabelTable::from_lists(&[
        vec![("__name__", "up"), ("job", "a")],
        vec![("__name__", "up"), ("job", "b")],
        vec![("__name__", "down")],
    ])
}

fn plans() -> Vec<Vec<u8>> {
    [
        r#"{"op":"evaluate","matchers":[{"name":"__name__","op":"=","value":"m"}],"start_ms":0,
           "end_ms":600000,"step_ms":60000,"function":"rate","range_ms":300000,
           "aggregate":{"op":"sum","by":["job"]}}"#,
        r#"{"op":"evaluate","matchers":[{"name":"i","op":"=~","value":"1.*"}],"start_ms":600000,
           "end_ms":600000,"offset_ms":-5,"at_ms":1,"lookback_ms":1000,
           "aggregate":{"op":"avg","without":["i"]},"limits":{"series_max":10}}"#,
        r#"{"op":"evaluate","matchers":[],"start_ms":0,"end_ms":600000,"step_ms":60000,
           "function":"quantile_over_time","range_ms":60000,"args":["NaN"],"timeout_ms":100}"#,
        r#"{"op":"points","matchers":[],"start_ms":0,"end_ms":600000,"keep_stale":true}"#,
        r#"{"op":"label_values","name":"job","matchers":[]}"#,
        r#"{"op":"label_names"}"#,
        r#"{"op":"series","start_ms":5,"end_ms":4}"#,
        r#"{"op":"metadata","limit":1}"#,
        r#"{"op":"stats","top":3}"#,
        r#"{"op":"ledger","raw_scan":true}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn frames() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        [
            &[1],
            &br#"{"columns":[["labels","bytes",3],["values","f64",8]],"series":1}"#[..],
            b"\xffabc\xff12345678",
        ]
        .concat(),
        [&[1], &br#"!{"type":"client","message":"no","status":422,"id":"x"}"#[..]].concat(),
    ];
    for plan in plans() {
        let mut bytes = vec![0];
        frame::write(&mut bytes, Kind::Request, 1, &plan).expect("memory");
        seeds.push(bytes);
    }
    seeds
}
