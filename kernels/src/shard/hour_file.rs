//! Files of past hours: one an hour, written once, merged where an hour closed twice, and bounded.
//!
//! Invariant: a reader sees a whole file or none, by rename; no manifest names it, because a replay
//! writes the same again. docs/formats/sketches.md has the bytes.

use super::hour_sketches::{Counts, HourSketches, MetricHour, TenantHour};
use super::registry_bytes::{Input, Output, corrupt};
use crate::disk::{self, Disk};
use crate::error::{KernelError, Result};
use crate::sketch::HyperLogLog;
use std::io::ErrorKind;
use std::ops::RangeInclusive;

const MAGIC: &[u8; 8] = b"SLWHLLH\0";
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 32;
const ZSTD_LEVEL: i32 = 3;
/// Decoded bytes of one hour: `SKETCHES_MAX` dense sketches and their names.
const DECODED_MAX: usize = 64 << 20;
pub const DIRECTORY: &str = "cardinality/metrics";
const SUFFIX: &str = ".sketches";
const UNFINISHED: &str = "unfinished";
/// Six months.
pub const HOURS_MAX: usize = 4_464;
pub const BYTES_MAX: u64 = 256 << 20;

/// Metrics that sketches are merged of over many hours: at most 14 MiB.
const MERGED_METRICS_MAX: usize = 200;

fn path_of(hour: i64) -> String {
    format!("{DIRECTORY}/{hour:010}{SUFFIX}")
}

fn push_counts(out: &mut Output, counts: Counts) {
    [counts.active, counts.new, counts.gone].into_iter().for_each(|count| out.number(count));
}

fn read_counts(input: &mut Input) -> Result<Counts> {
    Ok(Counts { active: input.number()?, new: input.number()?, gone: input.number()? })
}

fn push_sketch(out: &mut Output, sketch: &HyperLogLog) {
    let mut bytes = Vec::new();
    sketch.encode(&mut bytes);
    out.sized(&bytes);
}

pub fn encode(hour: &HourSketches) -> Result<Vec<u8>> {
    let mut out = Output(Vec::new());
    out.number(hour.tenants.len() as u64);
    for (name, tenant) in &hour.tenants {
        out.text(name);
        push_counts(&mut out, tenant.counts);
        out.number(tenant.metric_count);
        out.number(tenant.metrics.len() as u64);
        for (name, metric) in &tenant.metrics {
            out.text(name);
            push_counts(&mut out, metric.counts);
            push_sketch(&mut out, &metric.series);
            out.number(metric.tags.len() as u64);
            for (name, sketch) in &metric.tags {
                out.text(name);
                push_sketch(&mut out, sketch);
            }
        }
    }
    let stored = zstd::bulk::compress(&out.0, ZSTD_LEVEL)?;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + stored.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&hour.hour.to_le_bytes());
    bytes.extend_from_slice(&(out.0.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&stored).to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&stored);
    Ok(bytes)
}

/// Exactly what `encode` wrote. Errors: Corruption.
pub fn decode(bytes: &[u8]) -> Result<HourSketches> {
    let bad = |why: &str| KernelError::corruption(format!("hour's sketches: {why}"));
    let (head, stored) = bytes.split_at_checked(HEAD_BYTES).ok_or_else(|| bad("cut short"))?;
    let number =
        |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if number(28) != crc32fast::hash(&head[..28]) || &head[..8] != MAGIC {
        return Err(bad("the head"));
    }
    if head[8..12] != [1, 0, 0, 0] {
        return Err(bad("another version; this build reads 1"));
    }
    let decoded = number(20) as usize;
    if number(24) != crc32fast::hash(stored) || decoded > DECODED_MAX {
        return Err(bad("the checksum or the size"));
    }
    let raw = zstd::bulk::decompress(stored, decoded).map_err(|_| bad("no zstd frame"))?;
    let mut hour = [0; 8];
    hour.copy_from_slice(&head[12..20]);
    let mut told = HourSketches { hour: i64::from_le_bytes(hour), ..HourSketches::default() };
    let mut input = Input(&raw);
    for _ in 0..input.count()? {
        let name = input.text()?.to_owned();
        told.tenants.insert(name, read_tenant(&mut input)?);
    }
    if input.0.is_empty() { Ok(told) } else { Err(corrupt("bytes after the last tenant")) }
}

fn read_tenant(input: &mut Input) -> Result<TenantHour> {
    let (counts, metric_count) = (read_counts(input)?, input.number()?);
    let mut tenant = TenantHour { counts, metric_count, ..TenantHour::default() };
    for _ in 0..input.count()? {
        let name = input.text()?.to_owned();
        let counts = read_counts(input)?;
        let series = HyperLogLog::decode(input.sized()?)?;
        let mut metric = MetricHour { counts, series, tags: std::collections::BTreeMap::new() };
        for _ in 0..input.count()? {
            let name = input.text()?.to_owned();
            metric.tags.insert(name, HyperLogLog::decode(input.sized()?)?);
        }
        tenant.metrics.insert(name, metric);
    }
    Ok(tenant)
}

/// Make an hour durable, merged with what is there of it, and remove what there are too many of.
pub fn write(disk: &dyn Disk, mut hour: HourSketches) -> Result<()> {
    disk.create_directory(DIRECTORY)?;
    let path = path_of(hour.hour);
    match disk.read_all(&path) {
        // One that is damaged is replaced: it tells nothing.
        Ok(bytes) => drop(decode(&bytes).map(|before| hour.merge(before))),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let unfinished = format!("{DIRECTORY}/{UNFINISHED}");
    match disk.remove(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => disk.write_new(&unfinished, &encode(&hour)?)?,
    }
    disk.rename(&unfinished, &path)?;
    disk::sync_parent(disk, &path)?;
    expire(disk)
}

/// Recorded hours, ascending.
pub fn hours(disk: &dyn Disk) -> Result<Vec<i64>> {
    let names = disk.list(DIRECTORY)?;
    let mut hours: Vec<i64> =
        names.iter().filter_map(|name| name.strip_suffix(SUFFIX)?.parse().ok()).collect();
    hours.sort_unstable();
    Ok(hours)
}

pub fn read(disk: &dyn Disk, hour: i64) -> Result<HourSketches> {
    decode(&disk.read_all(&path_of(hour))?)
}

fn expire(disk: &dyn Disk) -> Result<()> {
    let mut kept_bytes = 0;
    for (place, &hour) in hours(disk)?.iter().rev().enumerate() {
        kept_bytes += disk.open(&path_of(hour), false)?.byte_size()?;
        if place > 0 && (place >= HOURS_MAX || kept_bytes > BYTES_MAX) {
            disk.remove(&path_of(hour))?;
        }
    }
    Ok(())
}

/// One tenant over some hours: of each metric the newest counts, and sketches of all.
pub struct Merged {
    pub hours: u64,
    pub tenant: TenantHour,
}

/// Merge a tenant's recorded hours; damaged or absent ones are left out.
pub fn merged(
    disk: &dyn Disk,
    tenant: &str,
    range: RangeInclusive<i64>,
    hours_max: usize,
    check: &dyn Fn() -> Result<()>,
) -> Result<Merged> {
    let mut merged = Merged { hours: 0, tenant: TenantHour::default() };
    let within: Vec<i64> = hours(disk)?.into_iter().filter(|hour| range.contains(hour)).collect();
    for &hour in within.iter().rev().take(hours_max) {
        check()?;
        let Ok(mut found) = read(disk, hour) else { continue };
        merged.hours += 1;
        let Some(found) = found.tenants.remove(tenant) else { continue };
        for (name, metric) in found.metrics {
            let room = merged.tenant.metrics.len() < MERGED_METRICS_MAX;
            match merged.tenant.metrics.get_mut(&name) {
                Some(own) => own.merge(metric),
                None if !room => {}
                None => drop(merged.tenant.metrics.insert(name, metric)),
            }
        }
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    fn hour_of(hour: i64, values: std::ops::Range<u64>) -> HourSketches {
        let mut sketch = HyperLogLog::new(12);
        values.clone().for_each(|value| sketch.add(&value.to_le_bytes()));
        let count = values.end - values.start;
        let counts = Counts { active: count, new: 1, gone: 2 };
        let tags = std::iter::once(("id".to_owned(), sketch.clone())).collect();
        let metric = MetricHour { counts, series: sketch, tags };
        let metrics = std::iter::once(("m".to_owned(), metric)).collect();
        let tenant = TenantHour { counts, metric_count: 1, metrics };
        HourSketches { hour, tenants: std::iter::once(("a".to_owned(), tenant)).collect() }
    }

    #[test]
    fn an_hour_comes_back_and_damage_is_seen() {
        let hour = hour_of(7, 0..5_000);
        let bytes = encode(&hour).expect("encodes");
        assert!(decode(&bytes).is_ok_and(|read| read == hour));
        for at in (0..bytes.len()).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x55;
            assert!(decode(&damaged).is_err(), "{at}");
            assert!(decode(&bytes[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn an_hour_that_closes_twice_is_merged() -> Result<()> {
        let disk = MemoryDisk::new();
        write(&disk, hour_of(7, 0..300))?;
        write(&disk, hour_of(7, 200..400))?;
        write(&disk, hour_of(8, 400..450))?;
        assert_eq!(hours(&disk)?, [7, 8]);
        let merged = merged(&disk, "a", 7..=8, 10, &|| Ok(()))?;
        let metric = &merged.tenant.metrics["m"];
        assert_eq!((merged.hours, metric.counts.active), (2, 300));
        let estimate = metric.tags["id"].estimate();
        assert!((435.0..465.0).contains(&estimate), "{estimate}");
        Ok(())
    }
}
