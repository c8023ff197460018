//! Decoders against bodies written here by hand, and against mutations of them: never a panic, the
//! counting equation always holds, and the cache of known labels never changes an answer.

use super::*;
use crate::error::KernelError;
use crate::model::{Batch, PayloadEncoding, PayloadFormat, RejectReason, SeriesType};
use proptest::prelude::*;
use std::sync::LazyLock;

const NOW_MS: i64 = 1_700_000_000_000;
static SHARED: LazyLock<Decoder> = LazyLock::new(|| Decoder::new(1));

pub fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

pub fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &varint(bytes.len() as u64), bytes].concat()
}

pub fn double(number: u8, value: f64) -> Vec<u8> {
    [&[number << 3 | 1][..], &value.to_le_bytes()].concat()
}

pub fn number(number: u8, value: u64) -> Vec<u8> {
    [&[number << 3][..], &varint(value)].concat()
}

fn label(name: &str, value: &str) -> Vec<u8> {
    field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat())
}

fn labels(pairs: &[(&str, &str)]) -> Vec<u8> {
    pairs.iter().flat_map(|(name, value)| label(name, value)).collect()
}

fn sample(time_ms: i64, value: f64) -> Vec<u8> {
    field(2, &[double(1, value), number(2, time_ms as u64)].concat())
}

pub fn series(parts: &[Vec<u8>]) -> Vec<u8> {
    field(1, &parts.concat())
}

fn decode_with(decoder: &Decoder, format: PayloadFormat, body: &[u8]) -> Result<Batch> {
    decode(body, format, PayloadEncoding::Identity, NOW_MS, decoder)
}

pub fn write1(body: &[u8]) -> Batch {
    decode_with(&Decoder::new(1), PayloadFormat::RemoteWrite1, body).expect("a good body")
}

/// Labels of each series as text, `name=value` joined by commas.
pub fn shown(batch: &Batch) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut all = Vec::new();
    for series in &batch.series {
        let bytes = &batch.label_bytes[series.label_start as usize..series.label_end as usize];
        let mut canonical = bytes.to_vec();
        if !series.canonical {
            canonical.clear();
            canonical_labels(bytes, &mut canonical).expect("validated labels");
        }
        let pairs = crate::labels::canonical::labels(&canonical)
            .map(|label| label.expect("canonical"))
            .map(|(name, value, _)| format!("{}={}", text(name), text(value)));
        all.push(pairs.collect::<Vec<_>>().join(","));
    }
    all
}

fn adds_up(batch: &Batch) -> bool {
    let rejected: u32 = batch.points_rejected.iter().sum();
    batch.points_received as usize == batch.points_good() + rejected as usize
        && batch.point_series_index.iter().all(|i| (*i as usize) < batch.series.len())
        && batch.histograms.iter().all(|h| (h.series_index as usize) < batch.series.len())
        && batch.series.iter().all(|s| s.label_end as usize <= batch.label_bytes.len())
}

#[test]
fn keeps_good_rows_and_counts_bad_ones() {
    let good = labels(&[("__name__", "up"), ("job", "a")]);
    let body = [
        series(&[good.clone(), sample(NOW_MS, 1.0), sample(NOW_MS + 1, 2.0)]),
        series(&[labels(&[("job", "a")]), sample(1, 1.0)]),
        series(&[labels(&[("__name__", "up"), ("__name__", "up")]), sample(1, 1.0)]),
        series(&[labels(&[("__name__", "up"), ("", "x")]), sample(1, 1.0), sample(2, 1.0)]),
        series(&[labels(&[("__name__", "up"), ("__cost__", "x")]), sample(1, 1.0)]),
        series(&[good, sample(NOW_MS + 600_001, 1.0), sample(-5, -0.0)]),
    ]
    .concat();
    let batch = write1(&body);
    assert!(adds_up(&batch));
    assert_eq!(shown(&batch), ["__name__=up,job=a", "__name__=up,job=a"]);
    assert_eq!(batch.point_series_index, [0, 0, 1]);
    assert_eq!(batch.point_time_ms, [NOW_MS, NOW_MS + 1, -5]);
    assert_eq!(batch.point_value[2].to_bits(), (-0.0f64).to_bits());
    assert_eq!(batch.points_received, 9);
    let rejected = |reason: RejectReason| batch.points_rejected[reason as usize];
    assert_eq!(rejected(RejectReason::MissingName), 1);
    assert_eq!(rejected(RejectReason::DuplicateLabel), 1);
    assert_eq!(rejected(RejectReason::InvalidLabels), 3);
    assert_eq!(rejected(RejectReason::TooFarInFuture), 1);
    assert!(batch.first_error.is_some_and(|error| error.contains("ahead of the server")));
}

#[test]
fn scattered_and_unsorted_labels_become_canonical() {
    let body = [
        series(&[label("job", "a"), sample(1, 1.0), label("__name__", "up"), label("b", "")]),
        series(&[labels(&[("z", "1"), ("__name__", "up"), ("a", "2")]), sample(1, 1.0)]),
    ]
    .concat();
    assert_eq!(shown(&write1(&body)), ["__name__=up,job=a", "__name__=up,a=2,z=1"]);
}

#[test]
fn bombs_are_refused_before_memory_is_taken() {
    let decoder = Decoder::new(1);
    let bomb = [varint(2_500_000_000), vec![0; 12]].concat();
    let zeros = vec![0u8; 8 << 20];
    let gzip = {
        use std::io::Write;
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        writer.write_all(&zeros).expect("in memory");
        writer.finish().expect("in memory")
    };
    let zstd = zstd::stream::encode_all(&zeros[..], 1).expect("in memory");
    for (body, encoding) in [
        (bomb, PayloadEncoding::Snappy),
        (gzip, PayloadEncoding::Gzip),
        (zstd, PayloadEncoding::Zstd),
    ] {
        let answer = decode(&body, PayloadFormat::RemoteWrite1, encoding, NOW_MS, &decoder);
        assert!(matches!(answer, Err(KernelError::Client { status: 413, .. })), "{encoding:?}");
    }
    let empty = field(1, &[2 << 3 | 2, 0].repeat(limits::POINTS_MAX + 1));
    let answer = decode_with(&decoder, PayloadFormat::RemoteWrite1, &empty);
    assert!(matches!(answer, Err(KernelError::Client { status: 413, .. })));
}

#[test]
fn a_series_of_many_labels_is_refused_and_its_neighbours_kept() {
    let many: Vec<u8> = (0..100_000).rev().flat_map(|i| label(&format!("l{i}"), "x")).collect();
    let up = labels(&[("__name__", "up")]);
    let body = [
        series(&[up.clone(), sample(1, 1.0)]),
        series(&[many.clone(), sample(1, 2.0)]),
        series(&[sample(1, 3.0), many, sample(2, 4.0)]),
        series(&[up, sample(2, 5.0)]),
    ]
    .concat();
    let batch = write1(&body);
    assert!(adds_up(&batch));
    assert_eq!(batch.points_rejected[RejectReason::TooManyLabels as usize], 3);
    assert_eq!((batch.point_series_index, batch.point_value), (vec![0, 1], vec![1.0, 5.0]));
}

/// A body with some of everything, for mutation.
fn rich_write1() -> Vec<u8> {
    let span = [number(1, 4), number(2, 2)].concat();
    let histogram = [
        number(1, 7),
        double(3, 2.5),
        number(4, 4),
        double(5, 0.001),
        number(6, 1),
        field(11, &span),
        field(12, &[6, 0]),
        number(15, 99),
    ]
    .concat();
    let named = labels(&[("__name__", "h"), ("job", "a\u{e9}")]);
    [
        series(&[named.clone(), sample(5, 1.0), sample(6, f64::NAN), field(3, b"")]),
        series(&[named, field(4, &histogram)]),
        series(&[label("b", "c"), sample(1, 2.0), label("__name__", "up")]),
        field(3, &[number(1, 1), field(2, b"up"), field(4, b"help"), field(5, b"s")].concat()),
    ]
    .concat()
}

#[test]
fn native_histograms_and_metadata() {
    let batch = write1(&rich_write1());
    assert_eq!((batch.points_good(), batch.histograms.len()), (4, 1));
    assert_eq!(batch.histograms[0].time_ms, 99);
    assert_eq!(batch.exemplars_received, 1);
    let family = &batch.metadata[0];
    assert_eq!((family.name.as_str(), family.unit.as_str()), ("up", "s"));
    // flags, schema 2, threshold, sum, count 7, zero 1, one span (2, 2), none, deltas 3 0.
    let mut want = vec![0, 4];
    want.extend_from_slice(&0.001f64.to_le_bytes());
    want.extend_from_slice(&2.5f64.to_le_bytes());
    want.extend_from_slice(&[7, 1, 1, 4, 2, 0, 6, 0]);
    assert_eq!(batch.histogram_bytes, want);
}

/// Symbols, then series: a histogram's bucket with metadata, one bad reference, one odd list.
fn rich_write2() -> Vec<u8> {
    let symbols = ["", "__name__", "x_bucket", "le", "1", "seconds of x", "s"];
    let table: Vec<u8> = symbols.iter().flat_map(|s| field(4, s.as_bytes())).collect();
    let series = |parts: &[Vec<u8>]| field(5, &parts.concat());
    let point = field(2, &[double(1, 4.0), number(2, 9), number(3, 1)].concat());
    let metadata = field(5, &[number(1, 3), number(3, 5), number(4, 6)].concat());
    let references = field(1, &[3, 4, 1, 2]);
    [
        table,
        series(&[metadata, references.clone(), point.clone(), number(6, 5)]),
        series(&[references, point.clone(), field(4, b"")]),
        series(&[field(1, &[1, 99]), point.clone()]),
        series(&[number(1, 1), point]),
    ]
    .concat()
}

#[test]
fn remote_write_2_resolves_references() {
    let body = rich_write2();
    let batch = decode_with(&Decoder::new(1), PayloadFormat::RemoteWrite2, &body).expect("good");
    assert_eq!(shown(&batch), ["__name__=x_bucket,le=1"; 2]);
    assert_eq!(batch.series[0].series_type, SeriesType::Histogram);
    assert_eq!(batch.series[0].label_hash, batch.series[1].label_hash);
    assert_eq!(batch.points_rejected[RejectReason::InvalidReference as usize], 2);
    assert_eq!((batch.points_received, batch.exemplars_received), (4, 1));
    let family = &batch.metadata[..];
    assert_eq!(family.len(), 1);
    assert_eq!((family[0].name.as_str(), family[0].unit.as_str()), ("x", "s"));
}

#[test]
fn a_message_of_the_other_version_is_refused() {
    let decoder = Decoder::new(7);
    let sent = |format, body: &[u8]| decode_with(&decoder, format, body).err();
    for error in [
        sent(PayloadFormat::RemoteWrite2, &rich_write1()),
        sent(PayloadFormat::RemoteWrite1, &rich_write2()),
    ] {
        assert!(error.is_some_and(|error| error.to_string().contains("the content type says")));
    }
}

fn mutate(mut body: Vec<u8>, changes: &[(usize, u8)], cut: usize) -> Vec<u8> {
    for (at, value) in changes {
        let at = at % body.len();
        body[at] = *value;
    }
    let keep = body.len() - cut % 8 * (cut % body.len()) / 8;
    body.truncate(keep);
    body
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn mutations_never_panic_and_always_add_up(
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..6),
        cut in any::<usize>(),
    ) {
        for (format, body) in [
            (PayloadFormat::RemoteWrite1, rich_write1()),
            (PayloadFormat::RemoteWrite2, rich_write2()),
        ] {
            let body = mutate(body, &changes, cut);
            let decoder = &*SHARED;
            if let Ok(batch) = decode_with(decoder, format, &body) {
                prop_assert!(adds_up(&batch));
                let again = decode_with(decoder, format, &body).expect("decoded before");
                prop_assert_eq!(shown(&batch), shown(&again));
                prop_assert_eq!(&batch.point_time_ms, &again.point_time_ms);
                prop_assert_eq!(batch.points_rejected, again.points_rejected);
            }
        }
    }

    #[test]
    fn garbage_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..4) {
        let encoding = [
            PayloadEncoding::Identity, PayloadEncoding::Snappy, PayloadEncoding::Gzip, PayloadEncoding::Zstd,
        ][kind as usize];
        for format in [
            PayloadFormat::RemoteWrite1, PayloadFormat::RemoteWrite2,
            PayloadFormat::OtlpProtobuf, PayloadFormat::OtlpJson,
        ] {
            let _ = decode(&body, format, encoding, NOW_MS, &SHARED);
        }
    }
}
