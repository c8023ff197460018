//! A decoded request as Python sees it: for property tests and tools, not on the write path
//! (there the batch never leaves Rust).

use super::gil::detached;
use crate::error::KernelError;
use crate::labels::canonical::labels;
use crate::model::{PayloadEncoding, PayloadFormat, REJECT_REASON_NAMES};
use crate::wire::{Decoder, canonical_labels, decode};
use numpy::IntoPyArray;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use std::sync::OnceLock;

/// Decode `body` as the gateway would; columns as arrays, labels as dicts.
#[pyfunction]
fn decode_summary<'py>(
    py: Python<'py>,
    body: &[u8],
    format: u8,
    encoding: u8,
    received_ms: i64,
) -> PyResult<Bound<'py, PyDict>> {
    let (Some(format), Some(encoding)) =
        (PayloadFormat::from_u8(format), PayloadEncoding::from_u8(encoding))
    else {
        return Err(PyValueError::new_err("no such format or encoding"));
    };
    static DECODER: OnceLock<Decoder> = OnceLock::new();
    let decoder = DECODER.get_or_init(|| Decoder::new(0));
    let batch = detached(py, || decode(body, format, encoding, received_ms, decoder))?;
    let (mut series, mut types) = (Vec::new(), Vec::new());
    for entry in &batch.series {
        let range = entry.label_start as usize..entry.label_end as usize;
        let mut canonical = batch.label_bytes[range].to_vec();
        if !entry.canonical {
            let raw = std::mem::take(&mut canonical);
            canonical_labels(&raw, &mut canonical)?;
        }
        let one = PyDict::new(py);
        for label in labels(&canonical) {
            let (name, value, _) = label?;
            one.set_item(text(name)?, text(value)?)?;
        }
        series.push(one);
        types.push(u32::from(entry.series_type as u8));
    }
    let histograms: Vec<_> = batch
        .histograms
        .iter()
        .map(|point| {
            let bytes = &batch.histogram_bytes[point.start as usize..point.end as usize];
            (point.series_index, point.time_ms, PyBytes::new(py, bytes))
        })
        .collect();
    let metadata: Vec<_> = batch
        .metadata
        .iter()
        .map(|family| (&family.name, family.series_type as u8, &family.help, &family.unit))
        .collect();
    let rejected = PyDict::new(py);
    for (name, count) in REJECT_REASON_NAMES.iter().zip(batch.points_rejected) {
        if count > 0 {
            rejected.set_item(name, count)?;
        }
    }
    let out = PyDict::new(py);
    out.set_item("series", series)?;
    out.set_item("types", types)?;
    out.set_item("histograms", histograms)?;
    out.set_item("metadata", metadata)?;
    out.set_item("rejected", rejected)?;
    out.set_item("received", batch.points_received)?;
    out.set_item("exemplars", batch.exemplars_received)?;
    out.set_item("first_error", batch.first_error)?;
    out.set_item("series_index", batch.point_series_index.into_pyarray(py))?;
    out.set_item("times_ms", batch.point_time_ms.into_pyarray(py))?;
    out.set_item("values", batch.point_value.into_pyarray(py))?;
    Ok(out)
}

fn text(bytes: &[u8]) -> Result<&str, KernelError> {
    std::str::from_utf8(bytes).map_err(|_| KernelError::corruption("a label is not UTF-8"))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(decode_summary, module)?)
}
