//! The journal as a whole: order, groups, damage, full and failing disks, power cuts, mutants.

use super::*;
use crate::disk::{Disk, MemoryDisk};
use crate::error::{KernelError, Result};
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(5);

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Committed(Vec<(u64, u64)>, u64),
    Failed(u64, u64),
}

struct Sink(Sender<Told>);

impl GroupSink<u64> for Sink {
    fn committed(&self, records: Vec<(RecordHeader, u64)>, last_ticket: u64) {
        let records = records.into_iter().map(|(header, value)| (header.sequence, value));
        let _ = self.0.send(Told::Committed(records.collect(), last_ticket));
    }
    fn failed(&self, first_ticket: u64, last_ticket: u64, _error: &str) {
        let _ = self.0.send(Told::Failed(first_ticket, last_ticket));
    }
}

fn small() -> JournalConfig {
    JournalConfig { segment_bytes: 4096, salt: 7, ..JournalConfig::default() }
}

struct Rig {
    journal: Journal<u64>,
    told: Receiver<Told>,
    report: OpenReport,
}

fn open(disk: &Arc<dyn Disk>, config: JournalConfig, at_least: u64) -> Result<Rig> {
    let (sender, told) = unbounded();
    let (journal, report) =
        Journal::open(disk.clone(), config, at_least, 1, Arc::new(Sink(sender)))?;
    Ok(Rig { journal, told, report })
}

fn payload(value: u64) -> Vec<u8> {
    // Of changing length, so that records start anywhere in a page.
    value.to_le_bytes().iter().copied().cycle().take(8 + (value as usize * 37) % 300).collect()
}

fn header(value: u64) -> RecordHeader {
    RecordHeader {
        points_received: value as u32,
        tenant: "default".to_owned(),
        ..RecordHeader::default()
    }
}

impl Rig {
    /// Append one record and wait: is it committed?
    fn push(&self, value: u64) -> Result<bool> {
        self.journal.append(header(value), payload(value), value)?;
        Ok(matches!(self.told.recv_timeout(SECOND), Ok(Told::Committed(..))))
    }

    /// All values from `from` on, each checked to be what was written, and where it ends.
    fn values(&self, from: u64) -> Result<(Vec<u64>, u64)> {
        let (mut values, mut next) = (Vec::new(), from);
        while next < self.journal.durable_sequence() {
            let records = self.journal.read(next, 1000)?;
            assert!(records.next_sequence > next, "a read goes on");
            next = records.next_sequence;
            for (header, bytes) in records.records {
                let value = u64::from(header.points_received);
                assert_eq!((bytes, header.tenant.as_str()), (payload(value), "default"));
                values.push(value);
            }
        }
        Ok((values, next))
    }
}

fn memory() -> (MemoryDisk, Arc<dyn Disk>) {
    let disk = MemoryDisk::new();
    (disk.clone(), Arc::new(disk))
}

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
