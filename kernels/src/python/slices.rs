//! A log that others keep (Kafka): requests cut into slices for it, records fed from it. The client
//! of that log is Python's; bytes cross here, a batch of records at a time.

use super::gil::detached;
use super::journal::{Fields, fields_of, header};
use super::shard::{Receipt, Shard, payload_of};
use crate::error::{KernelError, Result};
use crate::journal::record::{PAYLOAD_BYTES_MAX, RecordHeader, payload_is_sound};
use crate::slices::{self, Slice};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::time::Duration;

/// How a topic's partitions share the series.
#[pyclass(frozen, module = "sluiceway._kernels")]
pub struct Routing {
    inner: slices::Routing,
}

#[pymethods]
impl Routing {
    #[new]
    #[pyo3(signature = (partitions, spread=Vec::new(), record_bytes_max=900_000))]
    fn new(
        partitions: u16,
        spread: Vec<(String, String, u16)>,
        record_bytes_max: usize,
    ) -> PyResult<Routing> {
        Ok(Routing { inner: slices::Routing::new(partitions, spread, record_bytes_max)? })
    }

    fn partition(&self, tenant: &str, metric: &str) -> u16 {
        self.inner.partition(tenant, metric.as_bytes())
    }

    #[getter]
    fn number(&self) -> u64 {
        self.inner.number
    }
}

/// A request's header, for a journal that keeps the request as it came.
#[pyclass(frozen, module = "sluiceway._kernels")]
pub struct RequestHeader {
    pub inner: RecordHeader,
}

type PySlices<'py> = Vec<(u16, Bound<'py, PyBytes>)>;

fn to_python(py: Python<'_>, slices: Vec<Slice>) -> PySlices<'_> {
    slices.into_iter().map(|slice| (slice.partition, PyBytes::new(py, &slice.value))).collect()
}

/// Decode and cut: (header, receipt with ticket 0, [(partition, value)]).
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "as `Shard.receive`, and the routing")]
fn slice_request<'py>(
    py: Python<'py>,
    shard: &Shard,
    body: &Bound<'py, PyBytes>,
    tenant: &str,
    format: u8,
    encoding: u8,
    received_ms: i64,
    routing: &Routing,
) -> PyResult<(RequestHeader, Receipt, PySlices<'py>)> {
    let door = payload_of(format, encoding)?;
    let body = body.as_bytes();
    let cut = || shard.inner.slice(body, tenant, door, received_ms, &routing.inner);
    let (inner, receipt, slices) = detached(py, cut)?;
    Ok((RequestHeader { inner }, receipt.into(), to_python(py, slices)))
}

/// The slices of a request that was kept as it came.
#[pyfunction]
fn slice_again<'py>(
    py: Python<'py>,
    shard: &Shard,
    fields: Fields,
    body: &Bound<'py, PyBytes>,
    routing: &Routing,
) -> PyResult<PySlices<'py>> {
    let (header, body) = (header(fields)?, body.as_bytes());
    let slices = detached(py, || shard.inner.slice_again(&header, body, &routing.inner))?;
    Ok(to_python(py, slices))
}

#[pyfunction]
fn open_feed(py: Python<'_>, shard: &Shard, next_sequence: u64) {
    detached(py, || shard.inner.open_feed(next_sequence));
}

/// (records taken, why the next one is poison).
#[pyfunction]
#[pyo3(signature = (shard, partition, records, wait_ms, policy_version=None))]
#[expect(clippy::needless_pass_by_value, reason = "as pyo3 hands it over")]
fn feed_records(
    py: Python<'_>,
    shard: &Shard,
    partition: u16,
    records: Vec<(u64, Bound<'_, PyBytes>)>,
    wait_ms: u64,
    policy_version: Option<u32>,
) -> (usize, Option<String>) {
    let borrowed: Vec<(u64, &[u8])> =
        records.iter().map(|(offset, value)| (*offset, value.as_bytes())).collect();
    let wait = Duration::from_millis(wait_ms);
    let fed = detached(py, || shard.inner.feed(partition, &borrowed, wait, policy_version));
    (fed.taken, fed.poison)
}

#[pyfunction]
fn skip_records(py: Python<'_>, shard: &Shard, next_sequence: u64) {
    detached(py, || shard.inner.skip(next_sequence));
}

#[pyfunction]
fn note_durable(py: Python<'_>, shard: &Shard, next_sequence: u64) {
    detached(py, || shard.inner.note_durable(next_sequence));
}

/// A record by itself: header (without salt, sequence and fence), payload.
#[pyfunction]
fn encode_record<'py>(
    py: Python<'py>,
    fields: Fields,
    payload: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let header = header(fields)?;
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(KernelError::Backend("the payload is too long".to_owned()).into());
    }
    let mut value = Vec::with_capacity(header.encoded_bytes() + payload.len());
    header.encode(0, payload.len(), crc32fast::hash(payload), &mut value);
    value.extend_from_slice(payload);
    Ok(PyBytes::new(py, &value))
}

/// What `encode_record` made. Raises: Corruption.
#[pyfunction]
fn decode_record<'py>(py: Python<'py>, value: &[u8]) -> PyResult<(Fields, Bound<'py, PyBytes>)> {
    let read = || -> Result<(RecordHeader, &[u8])> {
        let poison = || KernelError::corruption("not a whole record");
        let parsed = RecordHeader::parse(0, value).ok_or_else(poison)?;
        let payload = &value[parsed.header_bytes..];
        let sound =
            payload.len() == parsed.payload_bytes && payload_is_sound(payload, parsed.payload_crc);
        if sound { Ok((parsed.header, payload)) } else { Err(poison()) }
    };
    let (header, payload) = read()?;
    Ok((fields_of(header), PyBytes::new(py, payload)))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Routing>()?;
    module.add_class::<RequestHeader>()?;
    module.add_function(wrap_pyfunction!(slice_request, module)?)?;
    module.add_function(wrap_pyfunction!(slice_again, module)?)?;
    module.add_function(wrap_pyfunction!(open_feed, module)?)?;
    module.add_function(wrap_pyfunction!(feed_records, module)?)?;
    module.add_function(wrap_pyfunction!(skip_records, module)?)?;
    module.add_function(wrap_pyfunction!(note_durable, module)?)?;
    module.add_function(wrap_pyfunction!(encode_record, module)?)?;
    module.add_function(wrap_pyfunction!(decode_record, module)?)
}
