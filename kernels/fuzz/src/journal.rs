//! Segments with any bytes, and sound ones cut, overwritten and spliced: what is read was written,
//! in order.

use _kernels::disk::{Disk, MemoryDisk};
use _kernels::journal::{GroupSink, Journal, JournalConfig, RecordHeader};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, LazyLock, Mutex};

const RECORDS: u64 = 8;

struct Sink(Mutex<Sender<bool>>);

impl GroupSink<()> for Sink {
    fn committed(&self, _: Vec<(RecordHeader, ())>, _: u64) {
        self.0.lock().expect("one committer").send(true).expect("it waits");
    }
    fn failed(&self, _: u64, _: u64, _: &str) {
        self.0.lock().expect("one committer").send(false).expect("it waits");
    }
}

fn config() -> JournalConfig {
    JournalConfig { segment_bytes: 4096, salt: 7, ..JournalConfig::default() }
}

fn open(disk: &MemoryDisk) -> Option<Journal<()>> {
    let (sender, _) = channel();
    let sink = Arc::new(Sink(Mutex::new(sender)));
    Some(Journal::open(Arc::new(disk.clone()), config(), 0, 1, sink).ok()?.0)
}

fn payload(value: u64) -> Vec<u8> {
    value.to_le_bytes().iter().copied().cycle().take(8 + (value as usize * 37) % 300).collect()
}

/// A segment's name and bytes.
pub static SAMPLE: LazyLock<(String, Vec<u8>)> = LazyLock::new(|| {
    let disk = MemoryDisk::new();
    let (sender, decided) = channel();
    let sink = Arc::new(Sink(Mutex::new(sender)));
    let (journal, _) =
        Journal::open(Arc::new(disk.clone()), config(), 0, 1, sink).expect("a journal");
    for value in 0..RECORDS {
        let header = RecordHeader {
            points_received: value as u32,
            tenant: "default".to_owned(),
            ..RecordHeader::default()
        };
        journal.append(header, payload(value), ()).expect("room");
        assert!(decided.recv().expect("the committer tells"));
    }
    journal.close();
    let name = disk.list("journal").expect("a list").remove(0);
    let bytes = disk.read_all(&format!("journal/{name}")).expect("bytes");
    (name, bytes)
});

pub fn journal(input: &[u8]) {
    let [kind, rest @ ..] = input else { return };
    if kind % 2 == 0 {
        read(rest);
    } else {
        for value in read(&edited(rest)) {
            assert!(value < RECORDS);
        }
    }
}

/// The sample after the edits that `script` describes, six bytes each.
fn edited(script: &[u8]) -> Vec<u8> {
    let mut bytes = SAMPLE.1.clone();
    for edit in script.chunks_exact(6).take(8) {
        let at = (usize::from(edit[1]) + (usize::from(edit[2]) << 8)) % (bytes.len() + 1);
        let end = (at + usize::from(edit[3])).min(bytes.len());
        match edit[0] % 5 {
            0 => bytes[at..end].fill(edit[4]),
            1 => drop(bytes.drain(at..end)),
            2 => drop(bytes.splice(at..at, std::iter::repeat_n(edit[4], usize::from(edit[5])))),
            3 => bytes.extend_from_within(at..end),
            _ => bytes[at..end].iter_mut().for_each(|byte| *byte ^= edit[4]),
        }
    }
    bytes
}

/// The values of all records that a journal over this one segment gives.
fn read(bytes: &[u8]) -> Vec<u64> {
    let disk = MemoryDisk::new();
    disk.create_directory("journal").expect("a directory");
    disk.write_new(&format!("journal/{}", SAMPLE.0), bytes).expect("a memory disk takes it");
    let Some(journal) = open(&disk) else { return Vec::new() };
    let (mut values, mut next, mut last) = (Vec::new(), 0, None);
    while next < journal.durable_sequence() {
        let Ok(records) = journal.read(next, 1000) else { break };
        assert!(records.next_sequence > next, "a read goes on");
        next = records.next_sequence;
        for (header, bytes) in records.records {
            assert!(last.is_none_or(|last| last < header.sequence), "sequences rise");
            last = Some(header.sequence);
            let value = u64::from(header.points_received);
            if value < RECORDS {
                assert_eq!(bytes, payload(value));
            }
            values.push(value);
        }
    }
    values
}
