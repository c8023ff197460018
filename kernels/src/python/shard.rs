//! `Shard`: the write side's state for Python, which drives it and decides when. What is decided
//! per seal or merge crosses as JSON; what is asked per request as plain values.

use super::disk::Disk;
use super::gil::detached;
use super::labels::LabelTable;
use crate::codec::Codec;
use crate::error::Result;
use crate::evaluate::access::ShardAccess;
use crate::model::{PayloadEncoding, PayloadFormat, PointColumns};
use crate::priority::{behind_acks, in_background};
use crate::shard::apply::Event;
use crate::shard::budget::Table;
use crate::shard::freeze::SealPaths;
use crate::shard::{self, letters_reader, recover::Publication};
use crate::wire;
use numpy::{IntoPyArray, PyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[pyclass(frozen, get_all, module = "sluiceway._kernels")]
pub struct Receipt {
    ticket: u64,
    points_received: u32,
    rejected: Vec<(&'static str, u32)>,
    first_error: Option<String>,
    samples: usize,
    histograms: usize,
    exemplars: u32,
}

#[pymethods]
impl Receipt {
    /// The same, with a ticket that the caller gives out.
    fn numbered(&self, ticket: u64) -> Receipt {
        let (rejected, first_error) = (self.rejected.clone(), self.first_error.clone());
        Receipt { ticket, rejected, first_error, ..*self }
    }
}

impl From<shard::intake::Receipt> for Receipt {
    fn from(receipt: shard::intake::Receipt) -> Receipt {
        Receipt {
            ticket: receipt.ticket,
            points_received: receipt.points_received,
            rejected: receipt.rejected,
            first_error: receipt.first_error,
            samples: receipt.samples,
            histograms: receipt.histograms,
            exemplars: receipt.exemplars,
        }
    }
}

#[derive(Deserialize)]
struct MergeRequest {
    inputs: Vec<String>,
    cuts_ms: Vec<i64>,
    paths: Vec<String>,
    codec: String,
    #[serde(default)]
    erase: bool,
}

#[pyclass(frozen, module = "sluiceway._kernels")]
pub struct Shard {
    pub inner: Arc<shard::Shard>,
    merge_cancelled: Arc<AtomicBool>,
}

/// (series, time, canonical bytes).
type Histogram<'py> = (usize, i64, Bound<'py, PyBytes>);

type Columns<'py> =
    (LabelTable, Bound<'py, PyArray1<usize>>, Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<f64>>);

fn from_json<T: DeserializeOwned>(text: &str) -> PyResult<T> {
    serde_json::from_str(text).map_err(|error| PyValueError::new_err(error.to_string()))
}

fn to_json<T: Serialize>(value: &T) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// (SealReport in JSON, fence) out of a state file, its block read through; None of an old file.
#[pyfunction]
fn read_seal(py: Python<'_>, disk: &Disk, path: &str) -> PyResult<Option<(String, u64)>> {
    let found = call(py, || shard::recover::read_seal(&*disk.inner, path))?;
    found.map(|(report, fence)| Ok((to_json(&report)?, fence))).transpose()
}

/// Letters of one file of dead letters that match: `letters_reader::Answer` in JSON.
#[pyfunction]
fn read_letters(py: Python<'_>, disk: &Disk, path: &str, query: &str) -> PyResult<String> {
    let query = from_json(query)?;
    to_json(&call(py, || letters_reader::read(&*disk.inner, path, &query))?)
}

pub fn payload_of(format: u8, encoding: u8) -> PyResult<(PayloadFormat, PayloadEncoding)> {
    PayloadFormat::from_u8(format)
        .filter(|format| *format != PayloadFormat::Columns)
        .zip(PayloadEncoding::from_u8(encoding))
        .ok_or_else(|| PyValueError::new_err("unknown payload format or encoding"))
}

/// May `receive` take this body on a thread that others wait for?
#[pyfunction]
fn is_quick(body: &Bound<'_, PyBytes>, format: u8, encoding: u8) -> PyResult<bool> {
    let (format, encoding) = payload_of(format, encoding)?;
    Ok(wire::is_quick(body.as_bytes(), format, encoding))
}

fn call<T: Send>(py: Python<'_>, kernel: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    Ok(detached(py, kernel)?)
}

#[pymethods]
impl Shard {
    #[new]
    fn new(disk: &Disk, options: &Bound<'_, PyAny>) -> PyResult<Shard> {
        let text: String =
            options.py().import("json")?.call_method1("dumps", (options,))?.extract()?;
        let shard = shard::Shard::new(disk.inner.clone(), from_json(&text)?)?;
        Ok(Shard { inner: Arc::new(shard), merge_cancelled: Arc::default() })
    }

    fn load_state(&self, py: Python<'_>, path: &str, bytes: u64, crc32: u32) -> PyResult<()> {
        call(py, || self.inner.load_state(path, bytes, crc32))
    }

    fn publish(&self, py: Python<'_>, publication: &str) -> PyResult<()> {
        let publication: Publication = from_json(publication)?;
        call(py, || self.inner.publish(publication))
    }

    fn open_journal(&self, py: Python<'_>, next_sequence: u64, fence: u64) -> PyResult<String> {
        let report = call(py, || self.inner.open_journal(next_sequence, fence))?;
        to_json(&report)
    }

    // Whoever waits for the applier's lock waits for a slice of records: never with the GIL.
    fn set_policies(
        &self,
        py: Python<'_>,
        policies: &str,
        current: u32,
        refusing: &str,
    ) -> PyResult<()> {
        let table: Vec<_> = from_json(policies)?;
        detached(py, || self.inner.set_policies(&table, current, refusing));
        Ok(())
    }

    fn set_tables(&self, py: Python<'_>, tables: Vec<String>) -> PyResult<()> {
        call(py, || {
            let tables =
                tables.into_iter().map(|json| Table::parse(&json)).collect::<Result<_>>()?;
            self.inner.set_tables(tables);
            Ok(())
        })
    }

    fn governance(&self, py: Python<'_>) -> String {
        detached(py, || self.inner.governance_json())
    }

    /// Points at or before `until_ms` mark their hours from now on.
    fn watch_coverage(&self, py: Python<'_>, tenant: &str, until_ms: i64) {
        detached(py, || self.inner.watch_coverage(tenant, until_ms));
    }

    fn leave_coverage(&self, py: Python<'_>, tenant: &str) {
        detached(py, || self.inner.leave_coverage(tenant));
    }

    fn forget_dirty(
        &self,
        py: Python<'_>,
        tenant: &str,
        from_ms: i64,
        until_ms: i64,
        sequence: u64,
    ) {
        detached(py, || self.inner.forget_dirty(tenant, from_ms, until_ms, sequence));
    }

    /// The hour that the window ending at this time's is in is to be rolled again.
    fn mark_hour(&self, py: Python<'_>, tenant: &str, time_ms: i64) {
        detached(py, || self.inner.mark_hour(tenant, time_ms));
    }

    /// (starts of the hours to be read from raw, first record that this does not know).
    fn coverage(&self, py: Python<'_>, tenant: &str) -> (Vec<i64>, u64) {
        let answer = detached(py, || self.inner.coverage(tenant));
        (answer.dirty_hours, answer.applied)
    }

    /// Days that points may lie behind the time at which they come, by tenant.
    fn set_age_days(&self, py: Python<'_>, age_days: std::collections::HashMap<String, u8>) {
        detached(py, || self.inner.set_age_days(age_days));
    }

    fn explosions(&self, py: Python<'_>) -> String {
        detached(py, || self.inner.explosions_json())
    }

    fn named_explosions(&self, py: Python<'_>) -> Vec<(u64, i64)> {
        detached(py, || self.inner.named_explosions())
    }

    fn name_writer(&self, py: Python<'_>, explosion: u64, writer: &str) -> bool {
        detached(py, || self.inner.name_writer(explosion, writer))
    }

    /// What the evaluate protocol's `whatif` answers, in JSON.
    fn whatif(&self, py: Python<'_>, request: &str) -> PyResult<String> {
        let request = from_json(request)?;
        to_json(&call(py, || self.inner.whatif(&request, &|| Ok(())))?)
    }

    fn loaded(&self, py: Python<'_>) {
        detached(py, || self.inner.loaded());
    }

    fn receive(
        &self,
        py: Python<'_>,
        body: &Bound<'_, PyBytes>,
        tenant: &str,
        format: u8,
        encoding: u8,
        received_ms: i64,
    ) -> PyResult<Receipt> {
        let (format, encoding) = payload_of(format, encoding)?;
        let body = body.as_bytes();
        let receipt = call(py, || self.inner.receive(body, tenant, format, encoding, received_ms))?;
        Ok(receipt.into())
    }

    fn ack_fd(&self) -> i32 {
        self.inner.inbox().ack_fd()
    }

    fn drain_acks(&self) -> (u64, Vec<shard::intake::Failure>) {
        self.inner.inbox().drain_acks()
    }

    /// (event, points buffered, journal payload bytes applied since the last freeze, sequence).
    fn advance(&self, py: Python<'_>, wait_ms: u64) -> PyResult<(&'static str, u64, u64, u64)> {
        let advance = || {
            let event = self.inner.advance(Duration::from_millis(wait_ms))?;
            Ok((event, self.inner.pressure()))
        };
        let (event, figures) = call(py, advance)?;
        let name = match event {
            Event::Idle => "idle",
            Event::Applied => "applied",
            Event::Full => "full",
        };
        Ok((name, figures.points_buffered, figures.payload_bytes, figures.next_sequence))
    }

    fn interrupt(&self) {
        self.inner.inbox().interrupt();
    }

    fn freeze(&self, py: Python<'_>, snapshot: bool) -> bool {
        detached(py, || self.inner.freeze(snapshot))
    }

    fn write_seal(&self, py: Python<'_>, paths: &str, fence: u64) -> PyResult<String> {
        let paths: SealPaths = from_json(paths)?;
        let seal = || self.inner.write_seal(&paths, fence);
        to_json(&call(py, || behind_acks("seal", seal))?)
    }

    fn merge(&self, py: Python<'_>, request: &str) -> PyResult<String> {
        let request: MergeRequest = from_json(request)?;
        let codec = match request.codec.as_str() {
            "fast" => Codec::Fast,
            "dense" => Codec::Dense,
            _ => return Err(PyValueError::new_err("codec is fast or dense")),
        };
        let cancel = &*self.merge_cancelled;
        let merge = || {
            self.inner.merge(
                &request.inputs,
                &request.cuts_ms,
                &request.paths,
                codec,
                request.erase,
                cancel,
            )
        };
        let report = call(py, || behind_acks("merge", merge))?;
        to_json(&report)
    }

    /// The highest number of an order to delete that was followed.
    fn newest_order(&self, py: Python<'_>) -> u64 {
        detached(py, || self.inner.newest_order())
    }

    /// {tenant, from_ms, until_ms, window_ms, path, past_damage} in JSON: the file that is written, its directory
    /// synced, and read back; a `rollup::RollReport` in JSON.
    fn roll(&self, py: Python<'_>, request: &str) -> PyResult<String> {
        let request = from_json(request)?;
        let (shard, cancel) = (Arc::clone(&self.inner), Arc::clone(&self.merge_cancelled));
        let roll = move || shard.roll_file(&request, &cancel);
        to_json(&call(py, || in_background("roll", roll))?)
    }

    /// First and last time of the points that no block holds yet.
    fn buffered_range_ms(&self, py: Python<'_>) -> Option<(i64, i64)> {
        detached(py, || self.inner.buffered_range_ms())
    }

    /// Names of the tenants whose points each block holds, by its path.
    fn block_tenants(&self, py: Python<'_>) -> std::collections::HashMap<String, Vec<String>> {
        detached(py, || self.inner.block_tenants())
    }

    /// How many series an order would take; `matchers` in JSON.
    fn count_ordered(&self, py: Python<'_>, tenant: &str, matchers: &str) -> PyResult<u64> {
        let matchers: Vec<_> = from_json(matchers)?;
        call(py, || self.inner.count_ordered(tenant, &matchers))
    }

    fn knows_tenant(&self, py: Python<'_>, tenant: &str) -> bool {
        detached(py, || self.inner.knows_tenant(tenant))
    }

    /// ([(pending order, series that it takes)], paths of blocks that may hold their points).
    fn erasing(&self, py: Python<'_>) -> (Vec<(u64, u64)>, Vec<String>) {
        detached(py, || self.inner.erasing())
    }

    /// Every merge that runs or begins ends soon with `Cancelled`: for shutting down.
    fn cancel_merges(&self) {
        self.merge_cancelled.store(true, Ordering::Release);
    }

    fn truncate_journal(&self, py: Python<'_>, sequence: u64) -> PyResult<()> {
        call(py, || self.inner.truncate_journal(sequence))
    }

    /// Wait until what is durable now is applied; returns the records still missing.
    fn wait_visible(&self, py: Python<'_>, wait_ms: u64) -> u64 {
        detached(py, || self.inner.wait_visible(Duration::from_millis(wait_ms)).records)
    }

    /// (first sequence that is not durable, first that queries do not see).
    fn sequences(&self) -> (u64, u64) {
        self.inner.sequences()
    }

    fn ledger(&self, py: Python<'_>, raw_scan: bool) -> PyResult<String> {
        call(py, || self.inner.ledger_json(raw_scan))
    }

    /// (labels, offsets, times, values) of every series with a float in [from_ms, until_ms).
    fn points<'py>(
        &self,
        py: Python<'py>,
        tenant: &str,
        from_ms: i64,
        until_ms: i64,
    ) -> PyResult<Columns<'py>> {
        let (labels, columns) = call(py, || {
            let keys = self.inner.select(tenant, &[], from_ms..until_ms, usize::MAX)?;
            let source = self.inner.snapshot(&keys, from_ms..until_ms)?;
            let mut columns = PointColumns::default();
            columns.clear();
            source.read(0..keys.len(), &mut columns)?;
            Ok((self.inner.labels(&keys), columns))
        })?;
        Ok((
            labels.into(),
            columns.offsets.into_pyarray(py),
            columns.times_ms.into_pyarray(py),
            columns.values.into_pyarray(py),
        ))
    }

    /// (labels, [(series, time, canonical bytes)]) of the native histograms that are sealed.
    fn histograms<'py>(
        &self,
        py: Python<'py>,
        tenant: &str,
    ) -> PyResult<(LabelTable, Vec<Histogram<'py>>)> {
        let (labels, found) = call(py, || {
            let keys = self.inner.select(tenant, &[], i64::MIN..i64::MAX, usize::MAX)?;
            let mut found: Vec<(usize, i64, Vec<u8>)> = Vec::new();
            let snapshot = self.inner.pin(&keys, i64::MIN..i64::MAX);
            snapshot.sealed_histograms(0..keys.len(), &mut |series, time_ms, bytes| {
                found.push((series, time_ms, bytes.to_vec()));
                Ok(())
            })?;
            Ok((self.inner.labels(&keys), found))
        })?;
        let told = found.iter().map(|(series, at, bytes)| (*series, *at, PyBytes::new(py, bytes)));
        Ok((labels.into(), told.collect()))
    }

    fn stats(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let text = call(py, || self.inner.stats_json())?;
        Ok(py.import("json")?.call_method1("loads", (text,))?.unbind())
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        call(py, || self.inner.close())
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(is_quick, module)?)?;
    module.add_class::<Receipt>()?;
    module.add_class::<Shard>()?;
    module.add_function(wrap_pyfunction!(read_letters, module)?)?;
    module.add_function(wrap_pyfunction!(read_seal, module)?)
}
