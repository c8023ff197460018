//! Disks that fail, fill up or lose power (FAULTS A3, A6, A7).

use super::rig::{SECOND, Told, open, open_on, small};
use crate::disk::faulty::FaultOperation;
use crate::disk::{Disk, FaultPlan, FaultyDisk, MemoryDisk};
use crate::error::Result;
use crate::journal::JournalConfig;
use std::sync::Arc;

/// A journal on a memory disk behind faults.
fn faulty(plan: FaultPlan) -> Result<(MemoryDisk, Arc<FaultyDisk>, Arc<dyn Disk>)> {
    let memory = MemoryDisk::new();
    let faulty = Arc::new(FaultyDisk::new(Arc::new(memory.clone()), plan)?);
    Ok((memory, faulty.clone(), faulty))
}

#[test]
fn failed_syncs() -> Result<()> {
    failed_sync_scenario(1)?;
    failed_sync_scenario(4)
}

/// No ack for the group; the file is left for good; nothing acked is lost, nothing failed comes
/// back once its sequences were given anew.
pub fn failed_sync_scenario(times: u64) -> Result<()> {
    let (memory, faulty, disk) = faulty(FaultPlan::default())?;
    let rig = open_on(&disk, Some(&memory), small(), 0)?;
    assert!(rig.push(0)? && rig.push(1)?);
    faulty.set_plan(FaultPlan::one(FaultOperation::Sync, 0, times, "EIO"));
    let acked: Vec<u64> = (2..10).filter(|value| rig.push(*value).unwrap_or(false)).collect();
    let retried = crate::mutants::on("retry_failed_fsync");
    assert!(retried || acked == (2 + times..10).collect::<Vec<_>>(), "{acked:?}");
    let wanted: Vec<u64> = [0, 1].into_iter().chain(acked).collect();
    assert_eq!(rig.values(0)?.0, wanted);
    drop(rig);
    let operations: Vec<String> =
        (0..memory.operation_count()).map(|n| memory.operation_text(n)).collect();
    for (at, lost) in operations.iter().enumerate().filter(|(_, text)| text.starts_with("Lose")) {
        let again = lost.replace("Lose", "Sync");
        assert!(!operations[at..].contains(&again), "synced again: {operations:#?}");
    }
    for seed in 0..40 {
        let image = memory.crash_image(memory.operation_count(), seed);
        let rig = open(&(Arc::new(image) as Arc<dyn Disk>), small(), 0)?;
        assert_eq!(rig.values(0)?.0, wanted, "seed {seed}");
    }
    Ok(())
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_space() -> Result<()> {
    let full = FaultPlan::full(9000);
    let short = r#"{"rules": [{"operation": "write", "after": 5, "times": 3, "error": "ENOSPC",
        "short_bytes": 100}]}"#;
    let files = FaultPlan::one(FaultOperation::Create, 1, 3, "EMFILE");
    let names = FaultPlan::one(FaultOperation::SyncDirectory, 2, 3, "EIO");
    let reserve = FaultPlan::one(FaultOperation::Allocate, 1, 3, "ENOSPC");
    for plan in [full, FaultPlan::from_json(short)?, files, names, reserve] {
        let (memory, faulty, disk) = faulty(plan.clone())?;
        let rig = open(&disk, small(), 0)?;
        let mut acked: Vec<u64> = (0..60).filter(|v| rig.push(*v).unwrap_or(false)).collect();
        assert!(acked.len() < 60 && faulty.fault_count() > 0, "{plan:?}");
        faulty.set_plan(FaultPlan::default());
        acked.extend((60..80).filter(|value| rig.push(*value).unwrap_or(false)));
        assert_eq!(acked.len() - acked.iter().filter(|value| **value < 60).count(), 20);
        assert_eq!(rig.values(0)?.0, acked, "{plan:?}");
        drop(rig);
        let image: Arc<dyn Disk> = Arc::new(memory.crash_image(memory.operation_count(), 1));
        assert_eq!(open(&image, small(), 0)?.values(0)?.0, acked, "{plan:?}");
    }
    Ok(())
}

#[test]
fn power_cuts() -> Result<()> {
    let images = power_cut_scenario(90)?;
    println!("{images} crash images");
    assert!(images >= 10_000, "{images} images");
    Ok(())
}

/// At every operation of a life with groups, rotations, a failed sync, checkpoints and a restart:
/// what a power cut may leave opens by itself, holds everything acked exactly once with its value,
/// nothing never sent, and raises no false alarm of damage.
pub fn power_cut_scenario(seeds: u64) -> Result<usize> {
    let (memory, faulty, disk) = faulty(FaultPlan::default())?;
    let tiny = || JournalConfig { segment_bytes: 2048, ..small() };
    let mut acked = Vec::new();
    // (operations seen when it was decided, sequence)
    let mut checkpoints = vec![(0, 0)];
    let mut sent = 0;
    let mut rig = open_on(&disk, Some(&memory), tiny(), 0)?;
    for round in 0..20u64 {
        if round == 7 {
            faulty.set_plan(FaultPlan::one(FaultOperation::Sync, 0, 1, "EIO"));
        }
        if round == 11 {
            drop(rig);
            let at_least = checkpoints.last().map_or(0, |(_, sequence)| *sequence);
            rig = open_on(&disk, Some(&memory), tiny(), at_least)?;
        }
        let group = [1, 5, 2][(round % 3) as usize];
        let held = rig.gate.lock();
        (sent..sent + group).try_for_each(|value| rig.append(value))?;
        sent += group;
        drop(held);
        // How the values fell into groups is up to the threads: read until all are decided.
        let mut decided = 0;
        while decided < group {
            match rig.told.recv_timeout(SECOND) {
                Ok(Told::Committed(records, _, operations)) => {
                    decided += records.len() as u64;
                    acked.extend(records.into_iter().map(|(s, value)| (operations, s, value)));
                }
                Ok(Told::Failed(first, last)) => decided += last - first + 1,
                Err(error) => panic!("not told: {error}"),
            }
        }
        if round % 4 == 3 {
            let sequence = rig.journal.durable_sequence() - (round / 4) % 2;
            checkpoints.push((memory.operation_count(), sequence));
            rig.journal.truncate_before(sequence)?;
        }
    }
    drop(rig);
    let mut texts = (0..memory.operation_count()).map(|n| memory.operation_text(n));
    assert!(texts.any(|text| text.starts_with("Rename")), "a segment was used again");
    let mut images = 0;
    for operations in 0..=memory.operation_count() {
        let made = checkpoints.iter().filter(|(at, _)| *at <= operations);
        let checkpoint = made.map(|(_, sequence)| *sequence).max().unwrap_or(0);
        for seed in 0..seeds {
            let image: Arc<dyn Disk> = Arc::new(memory.crash_image(operations, seed));
            let rig = open(&image, tiny(), checkpoint)?;
            let (values, _) = rig.values(checkpoint)?;
            let place =
                format!("seed {seed} after {operations}: {}", memory.operation_text(operations));
            for (acked_at, sequence, value) in &acked {
                if *acked_at <= operations && *sequence >= checkpoint {
                    let found = values.iter().filter(|found| *found == value).count();
                    assert_eq!(found, 1, "acked {value} as {sequence}; {place}");
                }
            }
            assert!(values.windows(2).all(|pair| pair[0] < pair[1]), "{values:?} {place}");
            assert!(values.iter().all(|value| *value < sent), "{values:?} {place}");
            assert_eq!(rig.journal.stats().damage.quarantined_records, 0, "false alarm; {place}");
            images += 1;
            // Nor in the life after, when another segment stands behind what was torn.
            if seed % 9 == 0 {
                assert!(rig.push(sent)?);
                drop(rig);
                let rig = open(&image, tiny(), checkpoint)?;
                let (again, _) = rig.values(checkpoint)?;
                assert_eq!(again, [values, vec![sent]].concat(), "{place}");
                let lost = rig.journal.stats().damage.quarantined_records;
                assert_eq!(lost, 0, "false alarm in the next life; {place}");
            }
        }
    }
    Ok(images)
}
