//! Points in and out as a whole, for Python: remote write bodies, OpenMetrics text, packed bytes.

use super::gil::detached;
use super::labels::LabelTable;
use crate::error::Result;
use crate::exchange::{
    Body, BodyLimits, Series, pack, read_remote, read_text, remote_write, unpack, write_text,
};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

type Bodies<'py> = Vec<(Bound<'py, PyBytes>, u64)>;

fn snappy(bodies: Vec<Body>) -> Result<Vec<Body>> {
    let packed = |body: Body| {
        let bytes = snap::raw::Encoder::new()
            .compress_vec(&body.bytes)
            .map_err(|error| crate::error::KernelError::Backend(error.to_string()))?;
        Ok(Body { bytes, points: body.points })
    };
    bodies.into_iter().map(packed).collect()
}

fn to_python(py: Python<'_>, bodies: Vec<Body>) -> Bodies<'_> {
    bodies.into_iter().map(|body| (PyBytes::new(py, &body.bytes), body.points)).collect()
}

/// Series as remote write 1.0 bodies in snappy: [(body, points)].
#[pyfunction]
#[allow(clippy::needless_pass_by_value)]
fn remote_write_bodies<'py>(
    py: Python<'py>,
    labels: &LabelTable,
    offsets: PyReadonlyArray1<'py, i64>,
    times_ms: PyReadonlyArray1<'py, i64>,
    values: PyReadonlyArray1<'py, f64>,
    points_max: u64,
    bytes_max: usize,
) -> PyResult<Bodies<'py>> {
    let series = Series {
        labels: &labels.inner,
        offsets: offsets.as_slice()?,
        times_ms: times_ms.as_slice()?,
        values: values.as_slice()?,
    };
    let limits = BodyLimits { points_max, bytes_max };
    let bodies = detached(py, || snappy(remote_write(&series, limits)?))?;
    Ok(to_python(py, bodies))
}

/// Whole lines of OpenMetrics as such bodies: (bodies, points, lines, was it its end).
#[pyfunction]
fn read_openmetrics<'py>(
    py: Python<'py>,
    text: &[u8],
    first_line: u64,
    points_max: u64,
    bytes_max: usize,
) -> PyResult<(Bodies<'py>, u64, u64, bool)> {
    let limits = BodyLimits { points_max, bytes_max };
    let (bodies, read) = detached(py, || -> Result<_> {
        let mut read = read_text(text, first_line, limits)?;
        Ok((snappy(std::mem::take(&mut read.bodies))?, read))
    })?;
    Ok((to_python(py, bodies), read.points, read.lines, read.ended))
}

/// A remote read answer as such bodies: (bodies, points, native histograms left out).
#[pyfunction]
fn read_remote_answer<'py>(
    py: Python<'py>,
    answer: &[u8],
    points_max: u64,
    bytes_max: usize,
) -> PyResult<(Bodies<'py>, u64, u64)> {
    let limits = BodyLimits { points_max, bytes_max };
    let (bodies, read) = detached(py, || -> Result<_> {
        let mut read = read_remote(answer, limits)?;
        Ok((snappy(std::mem::take(&mut read.bodies))?, read))
    })?;
    Ok((to_python(py, bodies), read.points, read.histograms))
}

/// Bytes in snappy's block format.
#[pyfunction]
fn pack_snappy<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let packed = snappy(vec![Body { bytes: data.to_vec(), points: 0 }])?;
    Ok(PyBytes::new(py, &packed[0].bytes))
}

/// Points as OpenMetrics lines, and how many.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)]
fn write_openmetrics<'py>(
    py: Python<'py>,
    labels: &LabelTable,
    offsets: PyReadonlyArray1<'py, i64>,
    times_ms: PyReadonlyArray1<'py, i64>,
    values: PyReadonlyArray1<'py, f64>,
) -> PyResult<(Bound<'py, PyBytes>, u64)> {
    let series = Series {
        labels: &labels.inner,
        offsets: offsets.as_slice()?,
        times_ms: times_ms.as_slice()?,
        values: values.as_slice()?,
    };
    let (text, lines) = detached(py, || write_text(&series))?;
    Ok((PyBytes::new(py, &text), lines))
}

#[pyfunction]
fn pack_bytes<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(py, &detached(py, || pack(data))?))
}

#[pyfunction]
fn unpack_bytes<'py>(py: Python<'py>, data: &[u8], bytes: usize) -> PyResult<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(py, &detached(py, || unpack(data, bytes))?))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(remote_write_bodies, module)?)?;
    module.add_function(wrap_pyfunction!(read_openmetrics, module)?)?;
    module.add_function(wrap_pyfunction!(write_openmetrics, module)?)?;
    module.add_function(wrap_pyfunction!(read_remote_answer, module)?)?;
    module.add_function(wrap_pyfunction!(pack_snappy, module)?)?;
    module.add_function(wrap_pyfunction!(pack_bytes, module)?)?;
    module.add_function(wrap_pyfunction!(unpack_bytes, module)?)
}
