//! Cold objects for Python: tests, the command line, the compaction that the schedule plans.

use super::disk::Disk;
use super::gil::detached;
use super::labels::LabelTable;
use crate::downsample::cold::{self, ColdPart, ColdUnit};
use crate::downsample::columns::{Fields, Kind, WindowColumns};
use crate::downsample::file::WindowFile;
use crate::downsample::masked::Taken;
use crate::downsample::sketches::SketchColumn;
use crate::downsample::warm::WarmFile;
use crate::error::Result;
use crate::priority::in_background;
use crate::shard::matcher::Matcher;
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// One cold object, open for reading.
#[pyclass(frozen, name = "ColdFile", module = "sluiceway._kernels")]
struct ColdFile {
    inner: cold::ColdFile,
}

fn from_json<T: DeserializeOwned>(text: &str) -> PyResult<T> {
    serde_json::from_str(text).map_err(|error| PyValueError::new_err(error.to_string()))
}

fn to_json<T: serde::Serialize>(value: &T) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| PyValueError::new_err(error.to_string()))
}

#[pymethods]
impl ColdFile {
    #[new]
    fn new(py: Python<'_>, disk: &Disk, path: &str) -> PyResult<ColdFile> {
        let disk = &*disk.inner;
        Ok(ColdFile { inner: detached(py, || cold::ColdFile::open(disk, path))? })
    }

    fn facts(&self) -> PyResult<String> {
        to_json(self.inner.facts())
    }

    fn memory_bytes(&self) -> usize {
        self.inner.memory_bytes()
    }

    fn verify(&self, py: Python<'_>) -> PyResult<()> {
        Ok(detached(py, || cold::verify_cold(&self.inner))?)
    }

    fn select<'py>(
        &self,
        py: Python<'py>,
        matchers: &str,
        series_max: usize,
    ) -> PyResult<Bound<'py, PyArray1<u32>>> {
        let matchers: Vec<Matcher> = from_json(matchers)?;
        let found = detached(py, || self.inner.select(&matchers, series_max))?;
        Ok(found.into_pyarray(py))
    }

    #[allow(clippy::needless_pass_by_value)]
    fn labels(&self, py: Python<'_>, series: PyReadonlyArray1<'_, u32>) -> PyResult<LabelTable> {
        let series = series.as_slice()?;
        Ok(detached(py, || self.inner.labels(series))?.into())
    }

    #[allow(clippy::needless_pass_by_value)]
    fn read<'py>(
        &self,
        py: Python<'py>,
        series: PyReadonlyArray1<'py, u32>,
        from_ms: i64,
        until_ms: i64,
    ) -> PyResult<Bound<'py, PyDict>> {
        let series = series.as_slice()?;
        let (windows, bytes) = detached(py, || -> Result<_> {
            let mut windows = WindowColumns::default();
            let bytes = self.inner.read(series, from_ms..until_ms, Fields::ALL, &mut windows)?;
            Ok((windows, bytes))
        })?;
        let columns = to_dict(py, windows)?;
        columns.set_item("bytes_read", bytes)?;
        Ok(columns)
    }
}

pub(super) fn to_dict(py: Python<'_>, windows: WindowColumns) -> PyResult<Bound<'_, PyDict>> {
    let columns = PyDict::new(py);
    let offsets: Vec<i64> = windows.offsets.iter().map(|&offset| offset as i64).collect();
    let kinds: Vec<u8> = windows.kinds.iter().map(|&kind| kind as u8).collect();
    columns.set_item("offsets", offsets.into_pyarray(py))?;
    columns.set_item("kinds", kinds.into_pyarray(py))?;
    columns.set_item("end_ms", windows.end_ms.into_pyarray(py))?;
    columns.set_item("count", windows.count.into_pyarray(py))?;
    columns.set_item("first_ms", windows.first_ms.into_pyarray(py))?;
    columns.set_item("first", windows.first.into_pyarray(py))?;
    columns.set_item("last_ms", windows.last_ms.into_pyarray(py))?;
    columns.set_item("last", windows.last.into_pyarray(py))?;
    columns.set_item("ends_stale", windows.ends_stale.into_pyarray(py))?;
    columns.set_item("dropped", windows.dropped.into_pyarray(py))?;
    columns.set_item("sum", windows.sum.into_pyarray(py))?;
    columns.set_item("minimum", windows.minimum.into_pyarray(py))?;
    columns.set_item("maximum", windows.maximum.into_pyarray(py))?;
    Ok(columns)
}

fn column<T: numpy::Element + Copy>(columns: &Bound<'_, PyDict>, name: &str) -> PyResult<Vec<T>> {
    let missing = || PyValueError::new_err(format!("no column {name}"));
    let array = columns.get_item(name)?.ok_or_else(missing)?;
    let array: PyReadonlyArray1<'_, T> =
        array.extract().map_err(|_| PyValueError::new_err(format!("type of column {name}")))?;
    Ok(array.as_slice()?.to_vec())
}

pub(super) fn from_dict(columns: &Bound<'_, PyDict>) -> PyResult<WindowColumns> {
    let kind = |code: u8| Kind::from_u8(code).ok_or_else(|| PyValueError::new_err("kind"));
    let windows = WindowColumns {
        offsets: column::<i64>(columns, "offsets")?.into_iter().map(|at| at as usize).collect(),
        kinds: column::<u8>(columns, "kinds")?.into_iter().map(kind).collect::<PyResult<_>>()?,
        end_ms: column(columns, "end_ms")?,
        count: column(columns, "count")?,
        first_ms: column(columns, "first_ms")?,
        first: column(columns, "first")?,
        last_ms: column(columns, "last_ms")?,
        last: column(columns, "last")?,
        ends_stale: column(columns, "ends_stale")?,
        dropped: column(columns, "dropped")?,
        sum: column(columns, "sum")?,
        minimum: column(columns, "minimum")?,
        maximum: column(columns, "maximum")?,
        sketches: SketchColumn::default(),
    };
    let rows = windows.end_ms.len();
    let equal = [
        windows.count.len(),
        windows.first_ms.len(),
        windows.first.len(),
        windows.last_ms.len(),
        windows.last.len(),
        windows.ends_stale.len(),
        windows.dropped.len(),
        windows.sum.len(),
        windows.minimum.len(),
        windows.maximum.len(),
    ];
    if equal.iter().any(|&length| length != rows)
        || windows.offsets.len() != windows.kinds.len() + 1
        || windows.offsets.first() != Some(&0)
        || windows.offsets.last() != Some(&rows)
        || !windows.offsets.is_sorted()
    {
        return Err(PyValueError::new_err("columns do not fit each other"));
    }
    Ok(windows)
}

#[pyfunction]
fn write_cold(
    py: Python<'_>,
    disk: &Disk,
    unit: &str,
    labels: &LabelTable,
    columns: &Bound<'_, PyDict>,
) -> PyResult<String> {
    let unit: ColdUnit = from_json(unit)?;
    let windows = from_dict(columns)?;
    if labels.inner.len() != windows.series_count() {
        return Err(PyValueError::new_err("one label set a series"));
    }
    let (disk, labels) = (&*disk.inner, &*labels.inner);
    to_json(&detached(py, || cold::write_cold(disk, &unit, labels, &windows))?)
}

#[pyfunction]
fn merge_cold(py: Python<'_>, disk: &Disk, unit: &str, parts: &str) -> PyResult<String> {
    let unit: ColdUnit = from_json(unit)?;
    let parts: Vec<ColdPart> = from_json(parts)?;
    let disk = Arc::clone(&disk.inner);
    let merge = move || cold::merge_cold(&*disk, &unit, &parts);
    to_json(&detached(py, || in_background("merge-cold", merge))?)
}

/// What `taken` (in JSON) leaves of a unit's objects, as another unit.
#[pyfunction]
fn erase_cold(
    py: Python<'_>,
    disk: &Disk,
    unit: &str,
    parts: &str,
    taken: &str,
) -> PyResult<String> {
    let unit: ColdUnit = from_json(unit)?;
    let (parts, taken): (Vec<ColdPart>, Vec<Taken>) = (from_json(parts)?, from_json(taken)?);
    let disk = Arc::clone(&disk.inner);
    let erase = move || cold::erase_cold(&*disk, &unit, &parts, &taken);
    to_json(&detached(py, || in_background("erase-cold", erase))?)
}

#[pyfunction]
fn make_cold(py: Python<'_>, disk: &Disk, source: &str, unit: &str) -> PyResult<String> {
    let unit: ColdUnit = from_json(unit)?;
    let (disk, source) = (Arc::clone(&disk.inner), source.to_owned());
    let make = move || cold::cold_from(&*disk, &WarmFile::open(&*disk, &source)?, &unit);
    to_json(&detached(py, || in_background("make-cold", make))?)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ColdFile>()?;
    module.add_function(wrap_pyfunction!(erase_cold, module)?)?;
    module.add_function(wrap_pyfunction!(make_cold, module)?)?;
    module.add_function(wrap_pyfunction!(write_cold, module)?)?;
    module.add_function(wrap_pyfunction!(merge_cold, module)?)?;
    Ok(())
}
