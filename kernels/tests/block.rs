//! Blocks against a map: what is written comes back to the bit; damage is refused, never served.

use _kernels::codec::Codec;
use _kernels::disk::{Disk, MemoryDisk};
use _kernels::error::KernelError;
use _kernels::model::{STALE_BITS, SeriesKey};
use _kernels::shard::block::{BlockMeta, BlockOptions};
use _kernels::shard::block_reader::BlockReader;
use _kernels::shard::block_writer::BlockWriter;
use _kernels::shard::merge::merge;
use _kernels::shard::page_cache::PageCache;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Bits of the values, so that NaNs compare.
type Floats = BTreeMap<SeriesKey, BTreeMap<i64, u64>>;
type Histograms = BTreeMap<SeriesKey, BTreeMap<i64, Vec<u8>>>;

fn options(codec: Codec, page_points_max: usize) -> BlockOptions {
    BlockOptions { page_points_max, ..BlockOptions::new(codec) }
}

fn write(
    disk: &dyn Disk,
    path: &str,
    options: BlockOptions,
    floats: &Floats,
    histograms: &Histograms,
) -> BlockMeta {
    let mut writer = BlockWriter::create(disk, path, options).expect("create");
    let mut keys: Vec<_> = floats.keys().chain(histograms.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        if let Some(points) = floats.get(key) {
            let times: Vec<i64> = points.keys().copied().collect();
            let values: Vec<f64> = points.values().map(|bits| f64::from_bits(*bits)).collect();
            writer.push_series(*key, &times, &values).expect("push");
        }
        if let Some(points) = histograms.get(key) {
            let times: Vec<i64> = points.keys().copied().collect();
            let values: Vec<&[u8]> = points.values().map(Vec::as_slice).collect();
            writer.push_histograms(*key, &times, &values).expect("push");
        }
    }
    writer.finish().expect("finish")
}

fn scan(reader: &BlockReader) -> Result<(Floats, Histograms), KernelError> {
    let (mut floats, mut histograms) = (Floats::new(), Histograms::new());
    reader.scan(&mut |key, times, values| {
        let bits = values.iter().map(|value| value.to_bits());
        floats.entry(key).or_default().extend(times.iter().copied().zip(bits));
        Ok(())
    })?;
    reader.scan_histograms(&mut |key, time, bytes| {
        histograms.entry(key).or_default().insert(time, bytes.to_vec());
        Ok(())
    })?;
    Ok((floats, histograms))
}

fn count<V>(points: &BTreeMap<SeriesKey, BTreeMap<i64, V>>) -> u64 {
    points.values().map(|series| series.len() as u64).sum()
}

fn key() -> impl Strategy<Value = SeriesKey> {
    (0u32..2, 0u32..3, prop_oneof![0u32..40, any::<u32>()])
        .prop_map(|(tenant, metric, row)| SeriesKey { tenant, metric, row })
}

fn time() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => (-20i64..200).prop_map(|step| step * 10_000),
        2 => -1000i64..100_000,
        1 => any::<i64>(),
        1 => prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(0)],
    ]
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (-50i64..50).prop_map(|v| (v as f64).to_bits()),
        4 => (-5000i64..5000).prop_map(|v| (v as f64 / 100.0).to_bits()),
        2 => (0i64..1 << 53).prop_map(|v| (v as f64).to_bits()),
        2 => any::<f64>().prop_map(f64::to_bits),
        1 => any::<u64>(),
        1 => prop_oneof![
            Just(STALE_BITS), Just((-0.0f64).to_bits()), Just(f64::NAN.to_bits()),
            Just(f64::INFINITY.to_bits()), Just(f64::NEG_INFINITY.to_bits()), Just(1),
            Just(0x7ff0_0000_0000_0001), Just(u64::MAX), Just(f64::MAX.to_bits()),
            Just(f64::MIN_POSITIVE.to_bits()), Just(9_007_199_254_740_993.0f64.to_bits()),
        ],
    ]
}

/// A value for all points of a series, or values of their own.
fn series() -> impl Strategy<Value = BTreeMap<i64, u64>> {
    let grid = (time(), 1usize..90, 1i64..20_000).prop_map(|(first, count, step)| {
        (0..count as i64).filter_map(|i| first.checked_add(i * step)).collect::<Vec<_>>()
    });
    let times = prop_oneof![grid, prop::collection::vec(time(), 1..60)];
    (times, prop::collection::vec(value(), 1..90), prop::bool::ANY, value()).prop_map(
        |(times, values, constant, one)| {
            let value = |i: usize| if constant { one } else { values[i % values.len()] };
            times.into_iter().enumerate().map(|(i, time)| (time, value(i))).collect()
        },
    )
}

fn floats() -> impl Strategy<Value = Floats> {
    prop::collection::btree_map(key(), series(), 0..25)
}

fn histograms() -> impl Strategy<Value = Histograms> {
    let bytes = prop::collection::vec(any::<u8>(), 0..60);
    let points = prop::collection::btree_map(time(), bytes, 1..20);
    prop::collection::btree_map(key(), points, 0..6)
}

fn codec() -> impl Strategy<Value = Codec> {
    prop_oneof![Just(Codec::Fast), Just(Codec::Dense)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_block_comes_back_to_the_bit(
        floats in floats(), histograms in histograms(), codec in codec(), page in 1usize..400,
        asked in prop::collection::btree_set(key(), 0..30), from in time(), until in time(),
    ) {
        let disk = MemoryDisk::new();
        let meta = write(&disk, "block", options(codec, page), &floats, &histograms);
        let cache = PageCache::new(10_000);
        let reader = BlockReader::open(&disk, "block", &cache).expect("open");
        prop_assert_eq!(reader.meta(), &meta);
        prop_assert_eq!((meta.points, meta.histogram_points), (count(&floats), count(&histograms)));
        let (read_floats, read_histograms) = scan(&reader).expect("scan");
        prop_assert_eq!(&read_floats, &floats);
        prop_assert_eq!(&read_histograms, &histograms);

        // Some keys that are there, some that are not, in a range.
        let keys: Vec<SeriesKey> =
            floats.keys().step_by(2).copied().chain(asked).collect::<std::collections::BTreeSet<_>>()
                .into_iter().collect();
        for _ in 0..2 {
            let mut found = Floats::new();
            reader.read(&keys, from, until, &mut |at, times, values| {
                let points = found.entry(keys[at]).or_default();
                points.extend(times.iter().copied().zip(values.iter().map(|v| v.to_bits())));
                Ok(())
            }).expect("read");
            let mut expected = Floats::new();
            for key in &keys {
                let Some(points) = floats.get(key) else { continue };
                let inside: BTreeMap<i64, u64> =
                    points.iter().filter(|(t, _)| (from..until).contains(t)).map(|(t, v)| (*t, *v)).collect();
                if !inside.is_empty() {
                    expected.insert(*key, inside);
                }
            }
            prop_assert_eq!(found, expected);
        }
        prop_assert!(cache.memory_bytes() <= 10_000);
        drop(reader);
        prop_assert_eq!(cache.memory_bytes(), 0);
    }

    #[test]
    fn a_merge_keeps_the_newest(
        inputs in prop::collection::vec((floats(), histograms()), 1..5), codec in codec(),
        page in 20usize..400, cuts in prop::collection::btree_set(time(), 0..4),
    ) {
        let disk = MemoryDisk::new();
        let cache = PageCache::new(0);
        let (mut floats, mut histograms, mut written) = (Floats::new(), Histograms::new(), 0);
        let mut readers = Vec::new();
        for (index, (f, h)) in inputs.iter().enumerate() {
            let path = format!("in{index}");
            write(&disk, &path, options(Codec::Fast, page), f, h);
            readers.push(Arc::new(BlockReader::open(&disk, &path, &cache).expect("open")));
            written += count(f) + count(h);
            for (key, points) in f {
                floats.entry(*key).or_default().extend(points);
            }
            for (key, points) in h {
                histograms.entry(*key).or_default().extend(points.clone());
            }
        }
        let cuts: Vec<i64> = cuts.into_iter().collect();
        let paths: Vec<String> = (0..=cuts.len()).map(|i| format!("out{i}")).collect();
        let report = merge(
            &disk, &readers, &cuts, &paths, options(codec, page), &AtomicBool::new(false),
        ).expect("merge");
        let kept: u64 = report.outputs.iter().map(|meta| meta.points + meta.histogram_points).sum();
        prop_assert_eq!(kept + report.superseded, written);
        let (mut read_floats, mut read_histograms) = (Floats::new(), Histograms::new());
        for meta in &report.outputs {
            let range = paths.iter().position(|path| *path == meta.path).expect("a path of ours");
            prop_assert!(range == 0 || meta.min_ms >= cuts[range - 1]);
            prop_assert!(range == cuts.len() || meta.max_ms < cuts[range]);
            let reader = BlockReader::open(&disk, &meta.path, &cache).expect("open");
            let (f, h) = scan(&reader).expect("scan");
            for (key, points) in f {
                read_floats.entry(key).or_default().extend(points);
            }
            for (key, points) in h {
                read_histograms.entry(key).or_default().extend(points);
            }
        }
        prop_assert_eq!(read_floats, floats);
        prop_assert_eq!(read_histograms, histograms);
    }
}
