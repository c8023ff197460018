//! Blocks against a map: what is written comes back to the bit; damage is refused, never served.

use _kernels::codec::Codec;
use _kernels::codec::page::{PageBuilder, read_page};
use _kernels::disk::faulty::FaultOperation;
use _kernels::disk::{Disk, FaultPlan, FaultyDisk, MemoryDisk};
use _kernels::error::KernelError;
use _kernels::model::{STALE_BITS, SeriesKey};
use _kernels::shard::block::{BlockMeta, BlockOptions, Directory};
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
        3 => (-5000i64..5000, 0u64..90)
            .prop_map(|(v, ulps)| (v as f64 / 1000.0).to_bits().wrapping_add(ulps)),
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
            &disk, &readers, (&cuts, &paths), options(codec, page), &[], &AtomicBool::new(false),
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

/// A block of every kind of page, and what it holds.
fn sample(codec: Codec) -> (Vec<u8>, Floats, Histograms) {
    let (mut floats, mut histograms) = (Floats::new(), Histograms::new());
    for row in 0..12u32 {
        let key = SeriesKey { tenant: row / 8, metric: row / 3, row };
        let value = |i: i64| match row % 6 {
            0 => 7.0,
            1 => (i * i % 50) as f64,
            2 => (i * 37 % 1000) as f64 / 100.0,
            3 => (i as f64).sqrt(),
            5 => (0..i).map(|j| (j * 7919 % 1000) as f64 / 1000.0).sum(),
            4 if i == 9 => f64::from_bits(STALE_BITS),
            _ => (i * 1000) as f64,
        };
        let jitter = i64::from(row % 2);
        let point = |i: i64| (i * 10_000 + jitter * (i * i % 7), value(i).to_bits());
        floats.insert(key, (0..70).map(point).collect());
        if row % 4 == 0 {
            histograms.insert(key, (0..9).map(|i| (i, vec![row as u8; i as usize * 3])).collect());
        }
    }
    let disk = MemoryDisk::new();
    write(&disk, "block", options(codec, 200), &floats, &histograms);
    (disk.read_all("block").expect("read"), floats, histograms)
}

/// Open and scan these bytes as a block.
fn scan_bytes(bytes: &[u8]) -> Result<(Floats, Histograms), KernelError> {
    let disk = MemoryDisk::new();
    disk.create("block")?.write_at(0, bytes)?;
    scan(&BlockReader::open(&disk, "block", &PageCache::new(0))?)
}

fn assert_refused(bytes: &[u8], what: &str) {
    match scan_bytes(bytes) {
        Err(KernelError::Corruption(_)) => {}
        Err(error) => panic!("{what}: {error} is not Corruption"),
        Ok(_) => panic!("{what}: served"),
    }
}

#[test]
fn a_block_cut_anywhere_is_refused() {
    for codec in [Codec::Fast, Codec::Dense] {
        let (bytes, floats, histograms) = sample(codec);
        assert_eq!(scan_bytes(&bytes).expect("whole"), (floats, histograms));
        for end in 0..bytes.len() {
            assert_refused(&bytes[..end], &format!("cut at {end}"));
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    for codec in [Codec::Fast, Codec::Dense] {
        let (mut bytes, ..) = sample(codec);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_refused(&bytes, &format!("bit {bit}"));
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let (mut bytes, ..) = sample(Codec::Fast);
    bytes[8] = 2;
    let error = scan_bytes(&bytes).expect_err("refused").to_string();
    assert!(error.contains("version 2"), "{error}");
}

#[test]
fn damage_in_one_page_leaves_the_others_readable() {
    let (bytes, floats, _) = sample(Codec::Fast);
    let mut damaged = bytes.clone();
    damaged[20] ^= 1;
    let disk = MemoryDisk::new();
    disk.create("block").expect("create").write_at(0, &damaged).expect("write");
    let reader = BlockReader::open(&disk, "block", &PageCache::new(0)).expect("directory is fine");
    let last = *floats.keys().last().expect("keys");
    let mut points = 0;
    reader
        .read(&[last], i64::MIN, i64::MAX, &mut |_, times, _| {
            points += times.len();
            Ok(())
        })
        .expect("another page");
    assert_eq!(points, 70);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// A forged page with a right checksum: an error or some points, never a panic.
    #[test]
    fn the_page_reader_survives_anything(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()), codec in codec(),
        histograms in prop::bool::ANY, points in 0usize..300,
    ) {
        let mut page = sample_page(codec, histograms);
        for (at, byte) in edits {
            let at = at.index(page.len());
            page[at] = byte;
        }
        if let Some(cut) = cut {
            page.truncate(cut.index(page.len()));
        }
        for points in [points, PAGE_POINTS] {
            let _ = read_page(&page, 0, points, histograms);
        }
    }

    #[test]
    fn the_directory_reader_survives_anything(
        bytes in prop::collection::vec(any::<u8>(), 0..200), size in 0u64..100_000,
    ) {
        let _ = Directory::read(&bytes, size);
    }
}

const PAGE_POINTS: usize = 150;

fn sample_page(codec: Codec, histograms: bool) -> Vec<u8> {
    let key = |row| SeriesKey { tenant: 0, metric: 1, row };
    let mut builder = if histograms { PageBuilder::histograms() } else { PageBuilder::floats() };
    for row in 0..3u32 {
        let times: Vec<i64> = (0..50).map(|i| i * 15_000 + i64::from(row) * (i % 3)).collect();
        if histograms {
            builder.push_histograms(key(row), &times, &[&[1u8, 2, 3, 4][..row as usize + 1]; 50]);
        } else {
            let mut values: Vec<f64> = times
                .iter()
                .map(|t| (t % 977) as f64 / 10.0 + f64::from(row / 2) * 1e-13)
                .collect();
            values[7] = f64::NAN;
            builder.push_floats(key(row), &times, &values);
        }
    }
    let mut bytes = Vec::new();
    builder.encode(&mut bytes, codec).expect("encode");
    assert!(read_page(&bytes, 0, PAGE_POINTS, histograms).is_ok());
    bytes
}

/// Three small seals on a disk, open for a merge.
fn seals(disk: &dyn Disk) -> Vec<Arc<BlockReader>> {
    let cache = PageCache::new(0);
    let seal = |number: i64| {
        let points =
            |row: i64| (0..40).map(move |i| (number * 100 + i, (row * i) as u64)).collect();
        let key = |row: i64| SeriesKey { tenant: 0, metric: 1, row: row as u32 };
        let floats: Floats = (0..30).map(|row| (key(row), points(row))).collect();
        let path = format!("seal{number}");
        write(disk, &path, options(Codec::Fast, 100), &floats, &Histograms::new());
        Arc::new(BlockReader::open(disk, &path, &cache).expect("open"))
    };
    (0..3).map(seal).collect()
}

fn merge_all(disk: &dyn Disk, readers: &[Arc<BlockReader>]) -> Result<Vec<BlockMeta>, KernelError> {
    let paths = ["out0".to_owned(), "out1".to_owned()];
    let options = BlockOptions::new(Codec::Dense);
    Ok(merge(disk, readers, (&[150], &paths), options, &[], &AtomicBool::new(false))?.outputs)
}

#[test]
fn a_merge_that_fails_leaves_no_file_behind() {
    for operation in [FaultOperation::Create, FaultOperation::Write, FaultOperation::Sync] {
        for good in 0..2 {
            let memory = MemoryDisk::new();
            let readers = seals(&memory);
            let plan = FaultPlan::one(operation, good, u64::MAX, "ENOSPC");
            let disk = FaultyDisk::new(Arc::new(memory.clone()), plan).expect("plan");
            assert!(matches!(merge_all(&disk, &readers), Err(KernelError::Backend(_))));
            assert_eq!(memory.list("").expect("list"), ["seal0", "seal1", "seal2"]);
        }
    }
    let memory = MemoryDisk::new();
    let readers = seals(&memory);
    let (paths, options) = (["out".to_owned()], BlockOptions::new(Codec::Fast));
    let stopped = merge(&memory, &readers, (&[], &paths), options, &[], &AtomicBool::new(true));
    assert!(matches!(stopped, Err(KernelError::Cancelled(_))));
    assert_eq!(merge_all(&memory, &readers).expect("merge").len(), 2);
}

#[test]
fn a_failing_read_is_not_taken_for_damage() {
    let memory = MemoryDisk::new();
    seals(&memory);
    let plan = FaultPlan::one(FaultOperation::Read, 3, u64::MAX, "EIO");
    let disk = FaultyDisk::new(Arc::new(memory), plan).expect("plan");
    let reader = BlockReader::open(&disk, "seal0", &PageCache::new(0)).expect("open");
    assert!(matches!(scan(&reader), Err(KernelError::Backend(_))));
}

#[test]
fn a_power_cut_leaves_a_whole_block_or_none() {
    let disk = MemoryDisk::new();
    let meta = merge_all(&disk, &seals(&disk)).expect("merge").remove(0);
    disk.sync_directory("").expect("sync");
    let whole = disk.read_all(&meta.path).expect("read");
    let mut complete = 0;
    for after in 0..=disk.operation_count() {
        for seed in 0..8 {
            let image = disk.crash_image(after, seed);
            let opened = BlockReader::open(&image, &meta.path, &PageCache::new(0));
            if let Ok(reader) = opened
                && scan(&reader).is_ok()
            {
                assert_eq!(image.read_all(&meta.path).expect("read"), whole);
                complete += 1;
            }
        }
    }
    assert!(complete >= 8, "the last image holds the block whatever the seed");
}
