//! Bytes and time of blocks for each kind of the bench's generator: seals (Fast) and their merge
//! (Dense). `cargo run --release --no-default-features --example codec [series] [steps] [seals] [page points]`

mod generated;

use _kernels::codec::Codec;
use _kernels::disk::{Disk, MemoryDisk};
use _kernels::error::Result;
use _kernels::model::SeriesKey;
use _kernels::shard::block::{BlockMeta, BlockOptions};
use _kernels::shard::block_reader::BlockReader;
use _kernels::shard::block_writer::BlockWriter;
use _kernels::shard::merge::merge;
use _kernels::shard::page_cache::PageCache;
use generated::{METRICS, MIX, Random, cpu_ns, values};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const START_MS: i64 = 1_768_435_200_000;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse().unwrap_or(0));
    let series = arguments.next().unwrap_or(2_000);
    let steps = arguments.next().unwrap_or(1_440);
    let seals = arguments.next().unwrap_or(16).max(1);
    let page_points_max = arguments.next().unwrap_or(8 * 1024);
    println!("{series} series x {steps} steps, {seals} seals; CPU ns per point");
    println!("kind      seal B  write  read | merged B  merge  read  pick(us/series)");
    for kind in ["int", "float2", "counter", "const", "float", "walk", "mix"] {
        let mut random = Random(1);
        // Series in block order: metric after metric.
        let all: Vec<Vec<f64>> = (0..series)
            .map(|i| {
                let kind = if kind == "mix" { MIX[i * METRICS / series] } else { kind };
                values(kind, steps, &mut random)
            })
            .collect();
        run(kind, &all, steps, seals, page_points_max)?;
    }
    tiny(series * steps / 4)
}

/// Two points a series, as a seal of a million series holds; each series at its own offset.
fn tiny(series: usize) -> Result<()> {
    let disk = MemoryDisk::new();
    let mut random = Random(2);
    let points: Vec<([i64; 2], [f64; 2])> = (0..series)
        .map(|_| {
            let first = START_MS + (random.next() % 15_000) as i64;
            let value = (random.next() % 1000) as f64;
            ([first, first + 15_000], [value, value + (random.next() % 9) as f64])
        })
        .collect();
    let start = cpu_ns();
    let mut writer = BlockWriter::create(&disk, "tiny", BlockOptions::new(Codec::Fast))?;
    for (index, (times, values)) in points.iter().enumerate() {
        writer.push_series(key(index, series), times, values)?;
    }
    let meta = writer.finish()?;
    let write = (cpu_ns() - start) / series as f64;
    let reader = BlockReader::open(&disk, "tiny", &PageCache::new(0))?;
    let start = cpu_ns();
    let mut sum = 0.0;
    reader.scan(&mut |_, _, values| {
        sum += values[0];
        Ok(())
    })?;
    let read = (cpu_ns() - start) / series as f64;
    std::hint::black_box(sum);
    let bytes = meta.bytes as f64 / series as f64;
    println!(
        "tiny: {series} series x 2 points: {bytes:.2} B, write {write:.1} ns, read {read:.1} ns a series"
    );
    Ok(())
}

fn key(index: usize, series: usize) -> SeriesKey {
    SeriesKey { tenant: 0, metric: (index * METRICS / series) as u32, row: index as u32 * 10 }
}

fn run(
    kind: &str,
    all: &[Vec<f64>],
    steps: usize,
    seals: usize,
    page_points_max: usize,
) -> Result<()> {
    let disk = MemoryDisk::new();
    let cache = PageCache::new(64 << 20);
    let times: Vec<i64> = (0..steps as i64).map(|step| START_MS + step * 10_000).collect();
    let points = (all.len() * steps) as f64;
    let ns = |start: f64| (cpu_ns() - start) / points;
    let start = cpu_ns();
    let mut metas = Vec::new();
    for seal in 0..seals {
        let (from, until) = (steps * seal / seals, steps * (seal + 1) / seals);
        let options = BlockOptions { codec: Codec::Fast, page_points_max };
        let mut writer = BlockWriter::create(&disk, &format!("seal{seal}"), options)?;
        for (index, values) in all.iter().enumerate() {
            writer.push_series(key(index, all.len()), &times[from..until], &values[from..until])?;
        }
        metas.push(writer.finish()?);
    }
    let write_ns = ns(start);
    let readers =
        metas.iter().map(|meta| BlockReader::open(&disk, &meta.path, &cache).map(Arc::new));
    let readers = readers.collect::<Result<Vec<_>>>()?;
    let start = cpu_ns();
    readers.iter().try_for_each(|reader| check(reader, all, None))?;
    let read_ns = ns(start);
    let start = cpu_ns();
    let options = BlockOptions { codec: Codec::Dense, page_points_max };
    let paths = ["merged".to_owned()];
    let report = merge(&disk, &readers, (&[], &paths), options, &[], &AtomicBool::new(false))?;
    let merge_ns = ns(start);
    let merged = BlockReader::open(&disk as &dyn Disk, "merged", &cache)?;
    let start = cpu_ns();
    check(&merged, all, None)?;
    let merged_read_ns = ns(start);
    check(&merged, all, Some(&times))?;
    let start = cpu_ns();
    let picks = all.len().min(50);
    for pick in 0..picks {
        let key = [key(pick * all.len() / picks, all.len())];
        merged.read(&key, i64::MIN, i64::MAX, &mut |_, _, _| Ok(()))?;
    }
    let pick_us = (cpu_ns() - start) / 1e3 / picks as f64;
    let size =
        |metas: &[BlockMeta]| metas.iter().map(|meta| meta.bytes).sum::<u64>() as f64 / points;
    println!(
        "{kind:8} {:7.3} {write_ns:6.1} {read_ns:5.1} | {:8.3} {merge_ns:6.1} {merged_read_ns:5.1} {pick_us:6.1}",
        size(&metas),
        size(&report.outputs),
    );
    Ok(())
}

/// Scan; where `times` are given compare every point's bits.
fn check(reader: &BlockReader, all: &[Vec<f64>], times: Option<&[i64]>) -> Result<()> {
    let (mut index, mut at, mut sum) = (0, 0, 0.0);
    reader.scan(&mut |key, scanned_times, values| {
        sum += values[values.len() - 1];
        let Some(times) = times else { return Ok(()) };
        if at == all[index].len() {
            (index, at) = (index + 1, 0);
        }
        assert_eq!(key.row as usize, index * 10);
        let end = at + values.len();
        assert_eq!(scanned_times, &times[at..end]);
        assert!(values.iter().zip(&all[index][at..end]).all(|(a, b)| a.to_bits() == b.to_bits()));
        at = end;
        Ok(())
    })?;
    assert!(times.is_none() || index + 1 == all.len());
    std::hint::black_box(sum);
    Ok(())
}
