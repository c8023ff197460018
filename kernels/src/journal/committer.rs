//! Group commit: callers queue, one thread writes and syncs, the sink is told.
//!
//! Invariant: tickets are dense in the order of `append`, and each is told to the sink exactly
//! once: committed after its group's fdatasync, or failed. After an error a file is left for good:
//! never written, never synced again.

use super::record::{PAYLOAD_BYTES_MAX, RecordHeader, TENANT_BYTES_MAX};
use super::stats::JournalStats;
use super::store::{Store, Writer, record_cost};
use super::{Gap, JournalConfig, OpenReport, Records};
use crate::disk::Disk;
use crate::error::{KernelError, Result};
use crate::mutants;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

/// A buffer larger than this is given back after its group.
const BUFFER_KEPT_BYTES: usize = 4 << 20;
const RETRY_DISK_FULL_SECONDS: f64 = 5.0;

/// Told on the committer thread; must not wait for it.
pub trait GroupSink<A>: Send + Sync {
    /// The group is durable: in order, with their sequences, and what came with `append`.
    fn committed(&self, records: Vec<(RecordHeader, A)>, last_ticket: u64);
    /// None of them is acked; after a crash right now they may still turn up, once.
    fn failed(&self, first_ticket: u64, last_ticket: u64, error: &str);
}

struct Pending<A> {
    header: RecordHeader,
    payload: Vec<u8>,
    payload_crc: u32,
    attachment: A,
}

struct Queue<A> {
    pending: VecDeque<Pending<A>>,
    bytes: u64,
    next_ticket: u64,
    closed: bool,
}

struct Shared<A> {
    store: Store,
    config: JournalConfig,
    fence: u64,
    writer: Mutex<Writer>,
    queue: Mutex<Queue<A>>,
    arrived: Condvar,
    sink: Arc<dyn GroupSink<A>>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    stats: JournalStats,
    bytes_per_second: f64,
}

/// Any thread may call; only `read`, `truncate_before` and `close` wait for the disk.
pub struct Journal<A: Send + 'static> {
    shared: Arc<Shared<A>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<A: Send + 'static> Journal<A> {
    /// Recover what is there and start the committer. Sequences go on at
    /// `next_sequence_at_least`, or later where the journal holds more.
    pub fn open(
        disk: Arc<dyn Disk>,
        config: JournalConfig,
        next_sequence_at_least: u64,
        fence: u64,
        sink: Arc<dyn GroupSink<A>>,
    ) -> Result<(Journal<A>, OpenReport)> {
        let (store, writer, report) =
            Store::open(disk, config.clone(), next_sequence_at_least, fence)?;
        let queue = Queue { pending: VecDeque::new(), bytes: 0, next_ticket: 0, closed: false };
        let shared = Arc::new(Shared {
            store,
            config,
            fence,
            writer: Mutex::new(writer),
            queue: Mutex::new(queue),
            arrived: Condvar::new(),
            sink,
            counts: Mutex::default(),
        });
        let committer = shared.clone();
        let thread = std::thread::Builder::new()
            .name("committer".to_owned())
            .spawn(move || while committer.commit_next_group() {})?;
        Ok((Journal { shared, thread: Mutex::new(Some(thread)) }, report))
    }

    /// Queue a record and return its ticket; never waits for the disk. The header's sequence,
    /// fence and place are the committer's to give.
    pub fn append(&self, header: RecordHeader, payload: Vec<u8>, attachment: A) -> Result<u64> {
        if header.tenant.len() > TENANT_BYTES_MAX || payload.len() > PAYLOAD_BYTES_MAX {
            let message = "a record's tenant or payload is too long";
            return Err(KernelError::client(413, "sluiceway-record-bytes-limit", message));
        }
        let payload_crc = crc32fast::hash(&payload);
        let cost = record_cost(&header, &payload);
        let (bytes_on_disk, _) = self.shared.store.size();
        let mut queue = self.shared.queue.lock();
        if queue.closed {
            return Err(KernelError::Backend("the journal is closed".to_owned()));
        }
        if !queue.pending.is_empty() && queue.bytes + cost > self.shared.config.queue_bytes_max {
            let rate = self.shared.counts.lock().bytes_per_second.max(1.0);
            let retry_after_s = (queue.bytes as f64 / rate).clamp(0.1, 30.0);
            let message = "the journal's queue is full".to_owned();
            return Err(KernelError::Overloaded { retry_after_s, message });
        }
        if bytes_on_disk + queue.bytes + cost > self.shared.config.bytes_max {
            let message = "the journal has used up its disk budget".to_owned();
            return Err(KernelError::Overloaded {
                retry_after_s: RETRY_DISK_FULL_SECONDS,
                message,
            });
        }
        queue.bytes += cost;
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        queue.pending.push_back(Pending { header, payload, payload_crc, attachment });
        drop(queue);
        self.shared.arrived.notify_one();
        Ok(ticket)
    }

    /// Durable records from `from` on, in order, up to about `bytes_max` (at least one, if any).
    pub fn read(&self, from: u64, bytes_max: usize) -> Result<Records> {
        self.shared.store.read(from, bytes_max.max(1))
    }

    /// Forget what lies before `sequence`: only once a checkpoint that covers it is durable.
    pub fn truncate_before(&self, sequence: u64) -> Result<()> {
        self.shared.store.truncate_before(&mut self.shared.writer.lock(), sequence)
    }

    /// Every sequence below is durable; it is also the one the next record will get.
    pub fn durable_sequence(&self) -> u64 {
        self.shared.store.durable_sequence()
    }

    /// Damage found since the last call: what was durable and cannot be read.
    pub fn take_gaps(&self) -> Vec<Gap> {
        self.shared.store.take_gaps()
    }

    pub fn stats(&self) -> JournalStats {
        let mut stats = self.shared.counts.lock().stats.clone();
        (stats.bytes, stats.segments) = self.shared.store.size();
        stats.damage = self.shared.store.damage_counts();
        stats.alive = self.thread.lock().as_ref().is_some_and(|thread| !thread.is_finished());
        let queue = self.shared.queue.lock();
        (stats.queued_bytes, stats.queued_records) = (queue.bytes, queue.pending.len() as u64);
        stats
    }

    /// Commit what is queued, take no more, end the committer. Idempotent.
    pub fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.arrived.notify_one();
        // Not locked while it is waited for: whoever asks for figures meanwhile is answered.
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // A committer that panicked has told nothing: its tickets were never acked.
            let _ = thread.join();
            self.shared.writer.lock().leave_segment();
        }
    }
}

impl<A: Send + 'static> Drop for Journal<A> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<A> Shared<A> {
    /// False when closed and empty.
    fn commit_next_group(&self) -> bool {
        let Some((group, first_ticket, bytes)) = self.next_group() else { return false };
        let last_ticket = first_ticket + group.len() as u64 - 1;
        let started = Instant::now();
        match self.commit(group, last_ticket, bytes) {
            Ok(records) => {
                let rate = bytes as f64 / started.elapsed().as_secs_f64().max(1e-6);
                let mut counts = self.counts.lock();
                counts.bytes_per_second += (rate - counts.bytes_per_second) / 8.0;
                counts.stats.groups += 1;
                counts.stats.records += last_ticket - first_ticket + 1;
                if !mutants::on("ack_before_fsync") {
                    drop(counts);
                    self.sink.committed(records, last_ticket);
                }
            }
            Err(error) => {
                let message = error.to_string();
                {
                    let stats = &mut self.counts.lock().stats;
                    stats.failed_groups += 1;
                    stats.last_error.clone_from(&message);
                }
                self.sink.failed(first_ticket, last_ticket, &message);
            }
        }
        true
    }

    /// Wait for records, then take all that fit in a group: (records, first ticket, bytes).
    fn next_group(&self) -> Option<(Vec<Pending<A>>, u64, u64)> {
        let mut queue = self.queue.lock();
        while queue.pending.is_empty() {
            if queue.closed {
                return None;
            }
            self.arrived.wait(&mut queue);
        }
        let first_ticket = queue.next_ticket - queue.pending.len() as u64;
        let (mut count, mut bytes) = (0, 0);
        for pending in &queue.pending {
            let cost = record_cost(&pending.header, &pending.payload);
            if count > 0 && bytes + cost > self.config.group_bytes_max {
                break;
            }
            (count, bytes) = (count + 1, bytes + cost);
        }
        let group = queue.pending.drain(..count).collect();
        queue.bytes -= bytes;
        Some((group, first_ticket, bytes))
    }

    /// Give the group its sequences, make it durable and readable. Waits for the disk.
    fn commit(
        &self,
        group: Vec<Pending<A>>,
        last_ticket: u64,
        bytes: u64,
    ) -> io::Result<Vec<(RecordHeader, A)>> {
        let writer = &mut *self.writer.lock();
        let full = |writer: &Writer| {
            writer.current.as_ref().is_none_or(|current| current.offset + bytes > current.capacity)
        };
        if full(writer) {
            self.store.begin_segment(writer, bytes)?;
        }
        let first_sequence = self.store.durable_sequence();
        let mut records = Vec::with_capacity(group.len());
        let salt = writer.current.as_ref().map_or(0, |current| current.salt);
        writer.buffer.clear();
        for (place, mut pending) in group.into_iter().enumerate() {
            pending.header.sequence = first_sequence + place as u64;
            pending.header.fence = self.fence;
            pending.header.place_in_group = place as u32;
            let (length, crc) = (pending.payload.len(), pending.payload_crc);
            pending.header.encode(salt, length, crc, &mut writer.buffer);
            writer.buffer.extend(&pending.payload);
            records.push((pending.header, pending.attachment));
        }
        let durable_sequence = first_sequence + records.len() as u64;
        if mutants::on("ack_before_fsync") {
            self.sink.committed(std::mem::take(&mut records), last_ticket);
        }
        let end = self.write_group(writer)?;
        writer.buffer.shrink_to(BUFFER_KEPT_BYTES);
        self.store.publish(end, durable_sequence);
        Ok(records)
    }

    /// Write and sync the buffer; returns where it ends. On an error the segment is left.
    fn write_group(&self, writer: &mut Writer) -> io::Result<u64> {
        let Some(current) = &mut writer.current else {
            return Err(io::Error::other("no segment to write to"));
        };
        let written = current.file.write_at(current.offset, &writer.buffer).and_then(|()| {
            let started = Instant::now();
            let mut synced = current.file.sync_data();
            if synced.is_err() && mutants::on("retry_failed_fsync") {
                synced = current.file.sync_data();
            }
            self.counts.lock().stats.note_fsync(started.elapsed().as_secs_f64());
            synced
        });
        match written {
            Ok(()) => {
                current.offset += writer.buffer.len() as u64;
                Ok(current.offset)
            }
            Err(error) => {
                writer.leave_segment();
                Err(error)
            }
        }
    }
}
