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
        assert_eq!(
            (rig.report.next_sequence, rig.report.damage.quarantined_records),
            (whole as u64, 0)
        );
        // Trailing zeros of a payload look like reserved bytes.
        assert!(rig.report.damage.torn_bytes as usize <= length.saturating_sub(start));
        assert!(rig.report.damage.torn_bytes > 0 || length <= start + 8, "cut at {length}");
        assert!(rig.push(whole as u64)?);
        assert_eq!(rig.values(0)?, ((0..=whole as u64).collect(), whole as u64 + 1));
        assert_eq!(rig.journal.stats().damage.quarantined_records, 0);
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
        // 4 and 5 are followed by records of their own group, and by 7, which came after it was
        // durable; after 7 comes nothing.
        let told = u64::from(hit.is_some_and(|hit| hit != 7));
        assert_eq!(stats.damage.quarantined_records, told, "bit {bit}");
        assert_eq!(rig.report.damage.quarantined_records, told);
        assert_eq!(stats.damage.torn_bytes > 0, hit.is_some() && told == 0, "bit {bit}");
        let gaps = rig.journal.take_gaps();
        assert_eq!(gaps.len() as u64, told);
        if let (Some(gap), Some(hit)) = (gaps.first(), hit) {
            assert_eq!((gap.first, gap.next, gap.durable_before), (hit, hit + 1, hit + 1));
            assert!(gap.headers.iter().all(|header| u64::from(header.points_received) == hit));
        }
    }
    Ok(())
}

/// A single record, then a group of four (values 1..=4) after its forerunner: the disk, closed.
fn group_at_the_end(config: &JournalConfig) -> Result<Arc<dyn Disk>> {
    let (_, disk) = memory();
    let rig = open(&disk, config.clone(), 0)?;
    rig.push_group(0, 1..5)?;
    Ok(disk)
}

/// Damage the payload of this value in the journal's first segment.
fn rot(disk: &Arc<dyn Disk>, value: u64) -> Result<()> {
    let file = disk.open(&format!("journal/{}", disk.list("journal")?[0]), true)?;
    let before: usize = (0..value).map(|v| header(v).encoded_bytes() + payload(v).len()).sum();
    let at = segment::HEADER_BYTES as usize + before + header(value).encoded_bytes();
    Ok(file.write_at(at as u64, &[payload(value)[0] ^ 1])?)
}

/// (lost, undecided) and the values, read from the start.
fn read_over(rig: &super::rig::Rig) -> Result<(u64, u64, Vec<u64>)> {
    let (values, _) = rig.values(0)?;
    let damage = rig.journal.stats().damage;
    Ok((damage.quarantined_records, damage.undecided_records, values))
}

#[test]
fn holes_in_the_last_group_before_an_open_stay_undecided() -> Result<()> {
    let disk = group_at_the_end(&small())?;
    rot(&disk, 2)?;
    rot(&disk, 3)?;
    let rig = open(&disk, small(), 0)?;
    assert_eq!((rig.report.next_sequence, rig.report.damage.undecided_records), (5, 2));
    assert_eq!(read_over(&rig)?, (0, 2, vec![0, 1, 4]));
    assert!(rig.journal.take_gaps().is_empty());
    // What follows now is of another life and says nothing about it, nor does the open after.
    assert!(rig.push(5)?);
    assert_eq!(read_over(&rig)?, (0, 2, vec![0, 1, 4, 5]));
    drop(rig);
    assert_eq!(read_over(&open(&disk, small(), 0)?)?, (0, 2, vec![0, 1, 4, 5]));
    // Nor where the header that repeats it is rotten.
    let second = disk.open(&format!("journal/{}", disk.list("journal")?[1]), true)?;
    second.write_at(40, &[0xff])?;
    assert_eq!(read_over(&open(&disk, small(), 0)?)?, (0, 2, vec![0, 1, 4, 5]));
    // What was whole at the open and rots after it is lost for certain.
    rot(&disk, 0)?;
    assert_eq!(read_over(&open(&disk, small(), 0)?)?, (1, 2, vec![1, 4, 5]));
    Ok(())
}

#[test]
fn holes_in_a_group_that_was_durable_are_lost() -> Result<()> {
    // Another segment was begun after the group, in the same life and in a later one.
    let full = JournalConfig { segment_bytes: 1300, ..small() };
    for same_life in [true, false] {
        let disk = group_at_the_end(&full)?;
        let rig = open(&disk, full.clone(), 0)?;
        assert!(rig.push(5)?);
        if same_life {
            assert_eq!(SegmentNames::of(&*disk)?.len(), 2);
            rot(&disk, 3)?;
            assert_eq!(read_over(&rig)?, (1, 0, vec![0, 1, 2, 4, 5]));
            continue;
        }
        drop(rig);
        rot(&disk, 1)?;
        rot(&disk, 3)?;
        let rig = open(&disk, full.clone(), 0)?;
        assert_eq!(read_over(&rig)?, (2, 0, vec![0, 2, 4, 5]));
        let gaps = rig.journal.take_gaps();
        let points: Vec<u32> =
            gaps.iter().flat_map(|gap| gap.headers.iter().map(|h| h.points_received)).collect();
        assert_eq!(points, [1, 3], "the headers tell what is lost");
    }
    Ok(())
}

#[test]
fn holes_in_the_newest_group_of_this_life_are_lost() -> Result<()> {
    let (_, disk) = memory();
    let rig = open(&disk, small(), 0)?;
    rig.push_group(0, 1..5)?;
    rot(&disk, 2)?;
    assert_eq!(read_over(&rig)?, (1, 0, vec![0, 1, 3, 4]));
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
    assert_eq!(rig.report.damage.quarantined_records, 0, "only the last segment is read at open");
    let (values, next) = rig.values(0)?;
    assert_eq!((values.iter().max(), next), (Some(&39), 40));
    assert!(!values.iter().any(|value| (from..until).contains(value)));
    let lost = 40 - values.len() as u64;
    assert_eq!(rig.journal.stats().damage.quarantined_records, lost);
    rig.values(0)?;
    assert_eq!(rig.journal.stats().damage.quarantined_records, lost, "counted once");
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
    assert!((5..40).contains(&rig.report.damage.quarantined_records), "{:?}", rig.report);
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
