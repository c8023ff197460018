//! The journal as a whole: order, restart, truncation, limits, many threads; and its teeth.

mod damage;
mod faults;
mod rig;

use super::*;
use crate::disk::{Disk, RealDisk};
use crate::error::{KernelError, Result};
use rig::{SECOND, Told, memory, open, small};
use std::sync::Arc;
use std::time::Duration;

#[test]
fn records_come_back_in_order_over_segments_and_restarts() -> Result<()> {
    let (_, disk) = memory();
    let rig = open(&disk, small(), 0)?;
    for value in 0..40 {
        assert!(rig.push(value)?);
    }
    assert!(rig.journal.stats().segments > 2);
    assert_eq!(rig.values(0)?, ((0..40).collect(), 40));
    assert_eq!(rig.values(33)?, ((33..40).collect(), 40));
    drop(rig);
    let rig = open(&disk, small(), 0)?;
    assert_eq!(rig.report, OpenReport { next_sequence: 40, ..OpenReport::default() });
    assert!(rig.push(40)?);
    assert_eq!(rig.values(0)?, ((0..41).collect(), 41));
    Ok(())
}

#[test]
fn a_checkpointed_journal_leaves_nothing_behind() -> Result<()> {
    let (_, disk) = memory();
    let rig = open(&disk, small(), 100)?;
    (100..140).try_for_each(|value| rig.push(value).map(drop))?;
    rig.journal.truncate_before(120)?;
    assert_eq!(rig.values(120)?, ((120..140).collect(), 140));
    assert!(rig.journal.stats().segments < 4);
    rig.journal.truncate_before(140)?;
    assert_eq!((disk.list("journal")?, rig.journal.stats().bytes), (vec![], 0));
    assert_eq!(rig.journal.durable_sequence(), 140);
    assert!(rig.push(140)?);
    assert_eq!(rig.values(140)?, (vec![140], 141));
    rig.journal.close();
    assert!(matches!(rig.push(141), Err(KernelError::Backend(_))));
    Ok(())
}

/// Who asks for figures while the journal is closed holds nothing that the committer waits for.
#[test]
fn figures_may_be_asked_for_while_it_closes() -> Result<()> {
    for _ in 0..100 {
        let (_, disk) = memory();
        let rig = Arc::new(open(&disk, small(), 0)?);
        rig.append(0)?;
        let (ended, end) = crossbeam_channel::bounded(1);
        let closing = rig.clone();
        let closer = std::thread::spawn(move || {
            closing.journal.close();
            let _ = ended.send(());
        });
        let asking = rig.clone();
        std::thread::spawn(move || while asking.journal.stats().alive {});
        assert!(end.recv_timeout(SECOND).is_ok(), "it never ends");
        assert!(closer.join().is_ok());
    }
    Ok(())
}

#[test]
fn refuses_what_is_too_much() -> Result<()> {
    let (_, disk) = memory();
    let config = JournalConfig { queue_bytes_max: 1000, bytes_max: 3000, ..small() };
    let rig = open(&disk, config, 0)?;
    let long = RecordHeader { tenant: "t".repeat(151), ..RecordHeader::default() };
    assert!(matches!(rig.journal.append(long, vec![], 0), Err(KernelError::Client { .. })));
    let held = rig.gate.lock();
    assert!(rig.push(0)?);
    let refused = (1..20).find(|value| rig.append(*value).is_err());
    assert!(refused.is_some_and(|value| value > 2), "{refused:?}");
    drop(held);
    let (mut value, mut overloaded) = (100, false);
    while !overloaded && value < 200 {
        while rig.told.recv_timeout(Duration::from_millis(20)).is_ok() {}
        overloaded = matches!(rig.append(value), Err(KernelError::Overloaded { .. }));
        value += 1;
    }
    assert!(overloaded && rig.journal.stats().bytes <= 3000, "the disk budget holds");
    rig.journal.truncate_before(rig.journal.durable_sequence())?;
    rig.append(300)
}

#[test]
fn many_threads_on_a_real_disk() -> Result<()> {
    let root = std::env::temp_dir().join(format!("sluiceway-journal-{}", std::process::id()));
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(&root.to_string_lossy())?);
    let rig = open(&disk, JournalConfig { segment_bytes: 1 << 16, ..small() }, 0)?;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let rig = &rig;
            scope.spawn(move || (0..500).try_for_each(|n| rig.append(thread * 500 + n)));
        }
    });
    let (mut next, mut order) = (0, Vec::new());
    while order.len() < 2000 {
        let Ok(Told::Committed(records, last_ticket, _)) = rig.told.recv_timeout(SECOND) else {
            panic!("not all were committed")
        };
        next += records.len() as u64;
        assert_eq!(last_ticket + 1, next, "tickets are dense");
        order.extend(records);
    }
    assert!(order.iter().enumerate().all(|(at, (sequence, _))| at as u64 == *sequence));
    let stats = rig.journal.stats();
    assert!(stats.groups <= 2000 && stats.records == 2000 && stats.alive);
    drop(rig);
    let rig = open(&disk, small(), 0)?;
    let written: Vec<u64> = order.into_iter().map(|(_, value)| value).collect();
    assert_eq!(rig.values(0)?.0, written);
    Ok(std::fs::remove_dir_all(root)?)
}

/// Teeth: each mutant of the shipped code is killed by the scenario named beside it.
#[cfg(feature = "mutants")]
#[test]
#[ignore = "arms mutants for the whole process: run alone, with --ignored"]
fn mutants_are_killed() {
    type Scenario = fn() -> Result<()>;
    let power_cuts: Scenario = || faults::power_cut_scenario(30).map(drop);
    let failed_sync: Scenario = || faults::failed_sync_scenario(1);
    let scenarios: [(&str, Scenario); 4] = [
        ("ack_before_fsync", power_cuts),
        ("no_directory_fsync", power_cuts),
        ("no_crc", damage::every_bit_flipped_scenario),
        ("retry_failed_fsync", failed_sync),
    ];
    for (mutant, scenario) in scenarios {
        assert!(std::panic::catch_unwind(scenario).is_ok_and(|answer| answer.is_ok()), "healthy");
        assert!(crate::mutants::arm(Some(mutant)));
        let survived = std::panic::catch_unwind(scenario).is_ok_and(|answer| answer.is_ok());
        crate::mutants::arm(None);
        assert!(!survived, "mutant {mutant} survived");
    }
}
