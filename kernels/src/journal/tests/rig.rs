//! What the journal's tests share: a sink that reports, records that can be checked.

use crate::disk::{Disk, MemoryDisk};
use crate::error::Result;
use crate::journal::{GroupSink, Journal, JournalConfig, OpenReport, RecordHeader};
use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

pub const SECOND: Duration = Duration::from_secs(5);

#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// (sequence, value) of each, the last ticket, and how many changes the disk had seen.
    Committed(Vec<(u64, u64)>, u64, usize),
    Failed(u64, u64),
}

pub struct Sink {
    sender: Sender<Told>,
    memory: Option<MemoryDisk>,
    /// Held by a test: what is appended meanwhile becomes one group.
    gate: Arc<Mutex<()>>,
}

impl GroupSink<u64> for Sink {
    fn committed(&self, records: Vec<(RecordHeader, u64)>, last_ticket: u64) {
        let operations = self.memory.as_ref().map_or(0, MemoryDisk::operation_count);
        let records = records.into_iter().map(|(header, value)| (header.sequence, value));
        let _ = self.sender.send(Told::Committed(records.collect(), last_ticket, operations));
        drop(self.gate.lock());
    }
    fn failed(&self, first_ticket: u64, last_ticket: u64, _error: &str) {
        let _ = self.sender.send(Told::Failed(first_ticket, last_ticket));
    }
}

pub fn small() -> JournalConfig {
    JournalConfig { segment_bytes: 4096, salt: 7, ..JournalConfig::default() }
}

pub struct Rig {
    pub journal: Journal<u64>,
    pub told: Receiver<Told>,
    pub report: OpenReport,
    pub gate: Arc<Mutex<()>>,
}

pub fn open_on(
    disk: &Arc<dyn Disk>,
    memory: Option<&MemoryDisk>,
    config: JournalConfig,
    at_least: u64,
) -> Result<Rig> {
    let (sender, told) = unbounded();
    let gate = Arc::new(Mutex::new(()));
    let sink = Arc::new(Sink { sender, memory: memory.cloned(), gate: gate.clone() });
    let (journal, report) = Journal::open(disk.clone(), config, at_least, 1, sink)?;
    Ok(Rig { journal, told, report, gate })
}

pub fn open(disk: &Arc<dyn Disk>, config: JournalConfig, at_least: u64) -> Result<Rig> {
    open_on(disk, None, config, at_least)
}

pub fn payload(value: u64) -> Vec<u8> {
    // Of changing length, so that records start anywhere in a page.
    value.to_le_bytes().iter().copied().cycle().take(8 + (value as usize * 37) % 300).collect()
}

pub fn header(value: u64) -> RecordHeader {
    RecordHeader {
        points_received: value as u32,
        tenant: "default".to_owned(),
        ..RecordHeader::default()
    }
}

impl Rig {
    /// Append one record and wait: is it committed?
    pub fn push(&self, value: u64) -> Result<bool> {
        self.append(value)?;
        Ok(matches!(self.told.recv_timeout(SECOND), Ok(Told::Committed(..))))
    }

    /// Append these so that they become one group; wait for it.
    pub fn push_group(&self, first: u64, values: std::ops::Range<u64>) -> Result<()> {
        let held = self.gate.lock();
        assert!(self.push(first)?);
        values.clone().try_for_each(|v| self.append(v))?;
        drop(held);
        let Ok(Told::Committed(records, ..)) = self.told.recv_timeout(SECOND) else {
            panic!("not committed")
        };
        assert_eq!(records.len() as u64, values.end - values.start, "one group");
        Ok(())
    }

    pub fn append(&self, value: u64) -> Result<()> {
        self.journal.append(header(value), payload(value), value).map(drop)
    }

    /// All values from `from` on, each checked to be what was written, and where it ends.
    pub fn values(&self, from: u64) -> Result<(Vec<u64>, u64)> {
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

pub fn memory() -> (MemoryDisk, Arc<dyn Disk>) {
    let disk = MemoryDisk::new();
    (disk.clone(), Arc::new(disk))
}
