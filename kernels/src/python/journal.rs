//! `Journal`: the journal by itself, for the embedded backend of the role. (The shard composes the
//! Rust one directly, so that a request is decoded and queued in one call.)

use super::disk::Disk;
use super::gil::detached;
use super::slices::RequestHeader;
use crate::error::{KernelError, Result};
use crate::journal::{self, GroupSink, JournalConfig, RecordHeader};
use crate::model::REJECT_REASON_COUNT;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// signal, format, encoding, decoder version, policy version, received ms, dedup key, points
/// received, points rejected by reason, tenant, age days.
pub type Fields = (u8, u8, u8, u8, u32, i64, u128, u32, Vec<u32>, String, u8);
/// First ticket, last ticket, and the first's sequence; or why there is none.
type Group = (u64, u64, std::result::Result<u64, String>);

struct Groups {
    decided: Mutex<Vec<Group>>,
    event: OwnedFd,
}

impl Groups {
    fn tell(&self, group: Group) {
        self.decided.lock().push(group);
        // Full only after 2^64 - 2 groups that nobody drained; readable all the same.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }
}

impl GroupSink<()> for Groups {
    fn committed(&self, records: Vec<(RecordHeader, ())>, last_ticket: u64) {
        if let Some((header, ())) = records.first() {
            let first_ticket = last_ticket + 1 - records.len() as u64;
            self.tell((first_ticket, last_ticket, Ok(header.sequence)));
        }
    }
    fn failed(&self, first_ticket: u64, last_ticket: u64, error: &str) {
        self.tell((first_ticket, last_ticket, Err(error.to_owned())));
    }
}

#[pyclass(frozen, module = "sluiceway._kernels")]
pub struct Journal {
    journal: journal::Journal<()>,
    groups: Arc<Groups>,
}

pub fn header(fields: Fields) -> Result<RecordHeader> {
    let (signal, format, encoding, decoder_version, policy_version, received_ms, ..) = fields;
    let (.., dedup_key, points_received, rejected, tenant, age_days) = fields;
    let points_rejected = <[u32; REJECT_REASON_COUNT]>::try_from(rejected)
        .map_err(|_| KernelError::Backend("one reject count a reason".to_owned()))?;
    Ok(RecordHeader {
        signal,
        format,
        encoding,
        decoder_version,
        policy_version,
        received_ms,
        dedup_key,
        points_received,
        points_rejected,
        tenant,
        age_days,
        ..RecordHeader::default()
    })
}

#[rustfmt::skip]
pub fn fields_of(h: RecordHeader) -> Fields {
    (
        h.signal, h.format, h.encoding, h.decoder_version, h.policy_version, h.received_ms,
        h.dedup_key, h.points_received, h.points_rejected.to_vec(), h.tenant, h.age_days,
    )
}

type PyRecord<'py> = (u64, Fields, Bound<'py, PyBytes>);

#[pymethods]
impl Journal {
    #[new]
    #[pyo3(signature = (disk, directory, next_sequence_at_least=0, fence=1, segment_bytes=64 << 20,
        bytes_max=u64::MAX, queue_bytes_max=64 << 20, salt=0))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments in Python")]
    fn new(
        py: Python<'_>,
        disk: &Disk,
        directory: String,
        next_sequence_at_least: u64,
        fence: u64,
        segment_bytes: u64,
        bytes_max: u64,
        queue_bytes_max: u64,
        salt: u64,
    ) -> PyResult<Journal> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let event = eventfd(0, flags).map_err(std::io::Error::from)?;
        let groups = Arc::new(Groups { decided: Mutex::default(), event });
        let (disk, sink) = (disk.inner.clone(), groups.clone());
        let config = JournalConfig {
            directory,
            segment_bytes,
            bytes_max,
            queue_bytes_max,
            salt,
            ..JournalConfig::default()
        };
        let open = || journal::Journal::open(disk, config, next_sequence_at_least, fence, sink);
        let (journal, _) = detached(py, open)?;
        Ok(Journal { journal, groups })
    }

    fn append(&self, py: Python<'_>, fields: Fields, payload: &[u8]) -> PyResult<u64> {
        let header = header(fields)?;
        Ok(detached(py, || self.journal.append(header, payload.to_vec(), ()))?)
    }

    /// As `append`, of a request's header as `slice_request` made it.
    fn append_request(
        &self,
        py: Python<'_>,
        header: &RequestHeader,
        payload: &[u8],
    ) -> PyResult<u64> {
        let header = header.inner.clone();
        Ok(detached(py, || self.journal.append(header, payload.to_vec(), ()))?)
    }

    fn ack_fd(&self) -> i32 {
        self.groups.event.as_raw_fd()
    }

    fn drain(&self) -> Vec<(u64, u64, Option<u64>, String)> {
        let _ = rustix::io::read(&self.groups.event, &mut [0; 8]);
        let decided = std::mem::take(&mut *self.groups.decided.lock());
        let flat = |(first, last, answer): Group| match answer {
            Ok(sequence) => (first, last, Some(sequence), String::new()),
            Err(error) => (first, last, None, error),
        };
        decided.into_iter().map(flat).collect()
    }

    fn read<'py>(
        &self,
        py: Python<'py>,
        from_sequence: u64,
        bytes_max: usize,
    ) -> PyResult<(Vec<PyRecord<'py>>, u64)> {
        let read = detached(py, || self.journal.read(from_sequence, bytes_max))?;
        let record = |(header, payload): (RecordHeader, Vec<u8>)| {
            (header.sequence, fields_of(header), PyBytes::new(py, &payload))
        };
        Ok((read.records.into_iter().map(record).collect(), read.next_sequence))
    }

    fn truncate_before(&self, py: Python<'_>, sequence: u64) -> PyResult<()> {
        Ok(detached(py, || self.journal.truncate_before(sequence))?)
    }

    fn durable_sequence(&self) -> u64 {
        self.journal.durable_sequence()
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (stats, answer) = (self.journal.stats(), PyDict::new(py));
        answer.set_item("bytes", stats.bytes)?;
        answer.set_item("segments", stats.segments)?;
        answer.set_item("groups", stats.groups)?;
        answer.set_item("failed_groups", stats.failed_groups)?;
        answer.set_item("quarantined_records", stats.damage.quarantined_records)?;
        answer.set_item("undecided_records", stats.damage.undecided_records)?;
        answer.set_item("alive", stats.alive)?;
        Ok(answer)
    }

    fn close(&self, py: Python<'_>) {
        detached(py, || self.journal.close());
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Journal>()
}
