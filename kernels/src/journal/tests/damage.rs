//! Bytes that are not what was written (FAULTS A5): cut at every byte, every bit flipped, segments gone.

use super::rig::{header, memory, open, payload, small};
use crate::disk::faulty::FaultOperation;
use crate::disk::{Disk, FaultPlan, FaultyDisk, MemoryDisk};
use crate::error::Result;
use crate::journal::{JournalConfig, segment};
use proptest::prelude::*;
use std::sync::Arc;

/// A disk with one segment of these bytes.
fn disk_of(name: &str, bytes: &[u8]) -> Result<Arc<dyn Disk>> {
    let disk = MemoryDisk::new();
    disk.create_directory("journal")?;
    disk.write_new(&format!("journal/{name}"), bytes)?;
    Ok(Arc::new(disk))
}

/// Four single records, a group of three, a last record: values 0..8. Returns the segment's name
/// and bytes, and where each record ends.
fn sample_segment() -> Result<(String, Vec<u8>, Vec<usize>)> {
    let (_, disk) = memory();
    let rig = open(&disk, small(), 0)?;
    (0..3).try_for_each(|value| rig.push(value).map(drop))?;
    rig.push_group(3, 4..7)?;
    assert!(rig.push(7)?);
    rig.journal.close();
    let name = disk.list("journal")?.remove(0);
    let bytes = disk.read_all(&format!("journal/{name}"))?;
    let mut ends = Vec::new();
    for value in 0..8 {
        let start = ends.last().copied().unwrap_or(segment::HEADER_BYTES as usize);
        ends.push(start + header(value).encoded_bytes() + payload(value).len());
    }
    assert_eq!(bytes.len(), ends[7], "a closed segment is trimmed");
    Ok((name, bytes, ends))
}

#[test]
fn cut_at_every_byte() -> Result<()> {
    let (name, bytes, ends) = sample_segment()?;
    for length in 0..bytes.len() {
        let disk = disk_of(&name, &bytes[..length])?;
        let whole = ends.iter().filter(|end| **end <= length).count();
        let rig = open(&disk, small(), 0)?;
        let start = whole.checked_sub(1).map_or(segment::HEADER_BYTES as usize, |last| ends[last]);
        assert_eq!((rig.report.next_sequence, rig.report.quarantined_records), (whole as u64, 0));
        // Trailing zeros of a payload look like reserved bytes.
        assert!(rig.report.torn_bytes as usize <= length.saturating_sub(start));
        assert!(rig.report.torn_bytes > 0 || length <= start + 8, "cut at {length}");
        assert!(rig.push(whole as u64)?);
        assert_eq!(rig.values(0)?, ((0..=whole as u64).collect(), whole as u64 + 1));
        assert_eq!(rig.journal.stats().quarantined_records, 0);
    }
    Ok(())
}

#[test]
fn every_bit_flipped() -> Result<()> {
    every_bit_flipped_scenario()
}

/// No wrong value, no collateral loss, and each loss told exactly.
pub fn every_bit_flipped_scenario() -> Result<()> {
    let (name, mut bytes, ends) = sample_segment()?;
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let disk = disk_of(&name, &bytes)?;
        bytes[bit / 8] ^= 1 << (bit % 8);
        let rig = open(&disk, small(), 0)?;
        let hit = ends.iter().position(|end| bit / 8 < *end);
        let hit = hit.filter(|_| bit / 8 >= segment::HEADER_BYTES as usize).map(|hit| hit as u64);
        let wanted: Vec<u64> = (0..8).filter(|value| Some(*value) != hit).collect();
        let (values, _) = rig.values(0)?;
        assert_eq!(values, wanted, "bit {bit}");
        let stats = rig.journal.stats();
        // 4 and 5 are followed by records of their own group: torn, for all the reader can know;
        // 7 is the last.
        let told = u64::from(hit.is_some_and(|hit| ![4, 5, 7].contains(&hit)));
        assert_eq!(stats.quarantined_records, told, "bit {bit}");
        assert_eq!(rig.report.quarantined_records, told);
        assert_eq!(stats.torn_bytes > 0, hit.is_some() && told == 0, "bit {bit}");
        let gaps = rig.journal.take_gaps();
        assert_eq!(gaps.len() as u64, told);
        if let (Some(gap), Some(hit)) = (gaps.first(), hit) {
            assert_eq!((gap.first, gap.next, gap.durable_before), (hit, hit + 1, hit + 1));
            assert!(gap.headers.iter().all(|header| u64::from(header.points_received) == hit));
        }
    }
    Ok(())
}

#[test]
fn damage_in_the_middle_is_found_by_reading_and_kept_aside() -> Result<()> {
    let (_, disk) = memory();
    let rig = open(&disk, small(), 0)?;
    (0..40).try_for_each(|value| rig.push(value).map(drop))?;
    drop(rig);
    let first = format!("journal/{}", disk.list("journal")?[0]);
    let file = disk.open(&first, true)?;
    // A forged record in a payload must not be found when its own record is damaged.
    let mut forged = Vec::new();
    header(999).encode(small().salt as u32, 0, 0, &mut forged);
    file.write_at(200, &forged)?;
    // The second segment is gone altogether.
    let second = SegmentNames::of(&*disk)?.remove(1);
    disk.remove(&format!("journal/{second}"))?;
    let (from, until) = (second.first_sequence, SegmentNames::of(&*disk)?[1].first_sequence);
    let rig = open(&disk, small(), 0)?;
    assert_eq!(rig.report.quarantined_records, 0, "only the last segment is read at open");
    let (values, next) = rig.values(0)?;
    assert_eq!((values.iter().max(), next), (Some(&39), 40));
    assert!(!values.iter().any(|value| (from..until).contains(value)));
    let lost = 40 - values.len() as u64;
    assert_eq!(rig.journal.stats().quarantined_records, lost);
    rig.values(0)?;
    assert_eq!(rig.journal.stats().quarantined_records, lost, "counted once");
    rig.journal.truncate_before(40)?;
    let names = disk.list("journal")?;
    assert!(names.len() == 1 && names[0].ends_with(".quarantined"), "{names:?}");
    Ok(())
}

struct SegmentNames;
impl SegmentNames {
    fn of(disk: &dyn Disk) -> Result<Vec<segment::SegmentName>> {
        let names = disk.list("journal")?;
        Ok(names.iter().filter_map(|name| segment::SegmentName::parse(name)).collect())
    }
}

#[test]
fn a_sector_that_cannot_be_read_costs_only_its_records() -> Result<()> {
    let (_, disk) = memory();
    let config = || JournalConfig { segment_bytes: 1 << 16, ..small() };
    let rig = open(&disk, config(), 0)?;
    (0..100).try_for_each(|value| rig.push(value).map(drop))?;
    drop(rig);
    // The whole window fails, then its third sector: records around it are saved.
    let plan = r#"{"rules": [{"operation": "read", "after": 1, "times": 1},
        {"operation": "read", "after": 3, "times": 1}]}"#;
    let faulty = FaultyDisk::new(disk, FaultPlan::from_json(plan)?)?;
    let disk: Arc<dyn Disk> = Arc::new(faulty);
    let rig = open(&disk, config(), 0)?;
    assert_eq!(rig.report.next_sequence, 100);
    assert!((5..40).contains(&rig.report.quarantined_records), "{:?}", rig.report);
    drop(rig);
    // An error of another kind is no damage: it is given back.
    let no_files = FaultPlan::one(FaultOperation::Open, 0, 1, "EMFILE");
    let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::new(disk, no_files)?);
    assert!(open(&disk, config(), 0).is_err());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Whatever is done to a segment, reading it neither fails nor invents a record.
    #[test]
    fn any_damage_is_survived(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4, 0..400usize, any::<u8>()), 1..6),
        from in 0..9u64,
    ) {
        let (name, mut bytes, _) = sample_segment().map_err(|e| TestCaseError::fail(e.to_string()))?;
        for (place, kind, length, byte) in edits {
            let start = place.index(bytes.len());
            let end = (start + length).min(bytes.len());
            match kind {
                0 => bytes[start..end].fill(byte),
                1 => drop(bytes.drain(start..end)),
                2 => bytes.splice(start..start, std::iter::repeat_n(byte, length)).for_each(drop),
                _ => bytes.extend_from_within(start..end),
            }
            if bytes.is_empty() {
                bytes.push(0);
            }
        }
        let read = || -> Result<Vec<u64>> {
            let rig = open(&disk_of(&name, &bytes)?, small(), from)?;
            Ok(rig.values(from)?.0)
        };
        let values = read().map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert!(values.iter().all(|value| (from..8).contains(value)), "{:?}", values);
        prop_assert!(values.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", values);
    }
}
