//! Slices against the batch that they were cut from, whatever it holds and however they are cut.

use super::*;
use crate::model::{BatchSeries, FamilyMetadata, HistogramPoint, SeriesType};
use crate::shard::feed::read_slice;
use crate::slices::Routing;
use crate::wire::Decoder;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// (canonical labels, type, rows of (time, value bits) or (time, histogram bytes)).
type Rows = BTreeMap<(Vec<u8>, u8), (Vec<(i64, u64)>, Vec<(i64, Vec<u8>)>)>;

fn labels(metric: usize, number: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let (name, value) = (format!("metric_{metric}"), format!("{number}"));
    crate::labels::canonical::push_label(&mut out, b"__name__", name.as_bytes());
    crate::labels::canonical::push_label(&mut out, b"i", value.as_bytes());
    out
}

/// As a remote write 1.0 client sends them, `i` first.
fn raw_labels(metric: usize, number: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in [("i", format!("{number}")), ("__name__", format!("metric_{metric}"))] {
        let label = [&[0x0a, name.len() as u8][..], name.as_bytes(), &[0x12, value.len() as u8]];
        let label = [&label.concat()[..], value.as_bytes()].concat();
        out.extend([0x0a, label.len() as u8]);
        out.extend(label);
    }
    out
}

fn batch(points: &[(u8, u8, i64, u64)], histograms: &[(u8, i64, u16)], raw: bool) -> Batch {
    let mut batch = Batch::default();
    let mut known: BTreeMap<(usize, usize), u32> = BTreeMap::new();
    let mut series = |batch: &mut Batch, metric: u8, number: u8| {
        let (metric, number) = (usize::from(metric % 7), usize::from(number % 9));
        *known.entry((metric, number)).or_insert_with(|| {
            let label_start = batch.label_bytes.len() as u32;
            let bytes = if raw { raw_labels(metric, number) } else { labels(metric, number) };
            batch.label_bytes.extend(bytes);
            batch.series.push(BatchSeries {
                label_hash: 0,
                label_start,
                label_end: batch.label_bytes.len() as u32,
                canonical: !raw,
                series_type: SeriesType::from_u8(if raw { 0 } else { (metric % 4) as u8 }),
            });
            batch.series.len() as u32 - 1
        })
    };
    for &(metric, number, time_ms, bits) in points {
        let index = series(&mut batch, metric, number);
        batch.point_series_index.push(index);
        batch.point_time_ms.push(time_ms);
        batch.point_value.push(f64::from_bits(bits));
    }
    for &(number, time_ms, bytes) in histograms {
        let series_index = series(&mut batch, 1, number);
        let start = batch.histogram_bytes.len() as u32;
        let length = usize::from(bytes) * 8 + 1;
        batch.histogram_bytes.extend((0..length).map(|at| (at as u8) ^ number));
        let end = batch.histogram_bytes.len() as u32;
        batch.histograms.push(HistogramPoint { series_index, time_ms, start, end });
    }
    batch
}

fn add_rows(batch: &Batch, rows: &mut Rows) {
    let key = |index: u32| {
        let series = &batch.series[index as usize];
        let labels = &batch.label_bytes[series.label_start as usize..series.label_end as usize];
        (labels.to_vec(), series.series_type as u8)
    };
    for at in 0..batch.point_value.len() {
        let held = rows.entry(key(batch.point_series_index[at])).or_default();
        held.0.push((batch.point_time_ms[at], batch.point_value[at].to_bits()));
    }
    for h in &batch.histograms {
        let bytes = batch.histogram_bytes[h.start as usize..h.end as usize].to_vec();
        rows.entry(key(h.series_index)).or_default().1.push((h.time_ms, bytes));
    }
}

fn request(batch: &Batch, rejected: u32) -> RecordHeader {
    let mut points_rejected = [0; REJECT_REASON_COUNT];
    points_rejected[3] = rejected;
    RecordHeader {
        signal: 1,
        format: 1,
        encoding: 1,
        dedup_key: 77,
        points_received: batch.points_good() as u32 + rejected,
        points_rejected,
        tenant: "acme".to_owned(),
        ..RecordHeader::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn hold_each_row_once_in_its_partition(
        points in prop::collection::vec(any::<(u8, u8, i32, u64)>(), 0..200),
        histograms in prop::collection::vec((any::<u8>(), any::<i32>(), any::<u16>()), 0..6),
        (raw, rejected, partitions, width) in (any::<bool>(), 0u32..3, 1u16..6, 2u16..4),
    ) {
        let points: Vec<_> =
            points.into_iter().map(|(m, n, t, v)| (m, n, i64::from(t), v)).collect();
        let histograms: Vec<_> =
            histograms.into_iter().map(|(n, t, b)| (n, i64::from(t), b)).collect();
        let batch = batch(&points, &histograms, raw);
        let spread = if width <= partitions {
            vec![("acme".to_owned(), "metric_1".to_owned(), width)]
        } else {
            Vec::new()
        };
        let routing = Routing::new(partitions, spread, 900_000).unwrap();
        let header = request(&batch, rejected);
        let slices = cut(&header, &batch, &routing).unwrap();
        prop_assert!(slices.is_sorted_by_key(|slice| slice.partition));
        let decoder = Decoder::new(5);
        let (mut wanted, mut found) = (Rows::new(), Rows::new());
        add_rows(&batch, &mut wanted);
        let (mut received, mut refused, mut keys) = (0, 0, BTreeSet::new());
        let mut homes: BTreeMap<Vec<u8>, u16> = BTreeMap::new();
        for slice in &slices {
            prop_assert!(slice.value.len() <= routing.record_bytes_max);
            let (read, decoded) = read_slice(&decoder, slice.partition, &slice.value).unwrap();
            prop_assert!(read_slice(&decoder, slice.partition + 1, &slice.value).is_err());
            let mut rows = Rows::new();
            add_rows(&decoded.batch, &mut rows);
            for (labels, _) in rows.keys() {
                let home = *homes.entry(labels.clone()).or_insert(slice.partition);
                prop_assert_eq!(home, slice.partition);
            }
            add_rows(&decoded.batch, &mut found);
            received += read.points_received;
            refused += read.points_rejected[3];
            prop_assert!(keys.insert(read.dedup_key));
        }
        prop_assert_eq!(&found, &wanted);
        prop_assert_eq!((received, refused), (header.points_received, rejected));
        let again = cut(&header, &batch, &routing).unwrap();
        prop_assert!(slices.iter().zip(&again).all(|(a, b)| a.value == b.value));
    }

    #[test]
    fn no_change_of_a_record_is_believed(
        points in prop::collection::vec(any::<(u8, u8, i32, u64)>(), 1..20),
        flip in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 0..40),
        cut_at in any::<prop::sample::Index>(),
    ) {
        let points: Vec<_> =
            points.into_iter().map(|(m, n, t, v)| (m, n, i64::from(t), v)).collect();
        let batch = batch(&points, &[(1, 5, 9)], true);
        let routing = Routing::new(1, Vec::new(), 900_000).unwrap();
        let mut value = cut(&request(&batch, 0), &batch, &routing).unwrap().remove(0).value;
        let decoder = Decoder::new(5);
        let bit = flip.index(value.len() * 8);
        value[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(read_slice(&decoder, 0, &value).is_err());
        value[bit / 8] ^= 1 << (bit % 8);
        // With checksums that hold, whatever stands there: an error or a batch, never a panic.
        let parsed = RecordHeader::parse(0, &value).unwrap();
        let mut payload = value[parsed.header_bytes..].to_vec();
        payload[(bit / 8) % parsed.payload_bytes] ^= 1 << (bit % 8);
        payload.truncate(cut_at.index(payload.len() + 1).max(payload.len() / 2));
        payload.extend(noise);
        let mut crafted = Vec::new();
        parsed.header.encode(0, payload.len(), crc32fast::hash(&payload), &mut crafted);
        crafted.extend(&payload);
        let _ = read_slice(&decoder, 0, &crafted);
    }
}

#[test]
fn long_rows_and_families_are_cut_into_parts() {
    let points: Vec<(u8, u8, i64, u64)> =
        (0..200_000).map(|at| (at as u8, (at / 7) as u8, at, at as u64)).collect();
    let mut batch = batch(&points, &[], false);
    let family = |at: usize| FamilyMetadata {
        name: format!("metric_{at}"),
        series_type: SeriesType::Gauge,
        help: "h".repeat(1_000),
        unit: String::new(),
    };
    batch.metadata = (0..600).map(family).collect();
    let routing = Routing::new(2, Vec::new(), 900_000).unwrap();
    let slices = cut(&request(&batch, 5), &batch, &routing).unwrap();
    assert!(slices.len() >= 5, "{}", slices.len());
    let decoder = Decoder::new(5);
    let read = |slice: &Slice| read_slice(&decoder, slice.partition, &slice.value).unwrap();
    let found: Vec<_> = slices.iter().map(read).collect();
    let rows: usize = found.iter().map(|(_, decoded)| decoded.batch.points_good()).sum();
    assert_eq!(rows, points.len());
    let refused: Vec<u32> = found.iter().map(|(header, _)| header.points_rejected[3]).collect();
    assert_eq!((refused[0], refused.iter().sum::<u32>()), (5, 5));
    let families: BTreeSet<String> = found
        .iter()
        .flat_map(|(_, decoded)| decoded.batch.metadata.iter().map(|f| f.name.clone()))
        .collect();
    assert_eq!(families.len(), 600);
}

#[test]
fn a_request_without_good_rows_is_one_header() {
    let routing = Routing::new(3, Vec::new(), 900_000).unwrap();
    let batch = Batch::default();
    let slices = cut(&request(&batch, 4), &batch, &routing).unwrap();
    assert_eq!(slices.len(), 1);
    let (header, decoded) =
        read_slice(&Decoder::new(1), slices[0].partition, &slices[0].value).unwrap();
    assert_eq!((header.points_received, decoded.batch.points_good()), (4, 0));
}

#[test]
fn partitions_and_keys_are_the_documents() {
    // Golden numbers: a change of them needs another version of the format.
    let routing = Routing::new(12, Vec::new(), 900_000).unwrap();
    let found = [("acme", "up"), ("acme", "http_requests_total"), ("default", "up")]
        .map(|(tenant, metric)| routing.partition(tenant, metric.as_bytes()));
    let oracle = |text: &[u8]| (xxhash_rust::xxh3::xxh3_64(text) % 12) as u16;
    let wanted: [&[u8]; 3] = [b"acme\0up", b"acme\0http_requests_total", b"default\0up"];
    assert_eq!(found, wanted.map(oracle));
    assert_eq!(routing.number, xxhash_rust::xxh3::xxh3_64(b"1 12"));
}
