//! `LabelTable` and the JSON kernels in Python: arrays in, arrays out, strings only where asked for.

use super::evaluate::CancelToken;
use super::gil::detached;
use super::stop::Stop;
use crate::error::Result;
use crate::labels::{self, json};
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::{PyIndexError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

type Numbers<'py> = Bound<'py, PyArray1<u32>>;

/// Label sets of S series. Immutable: every method answers a new table.
#[pyclass(frozen, name = "LabelTable", module = "sluiceway._kernels")]
pub struct LabelTable {
    pub inner: Arc<labels::LabelTable>,
}

impl From<labels::LabelTable> for LabelTable {
    fn from(table: labels::LabelTable) -> LabelTable {
        LabelTable { inner: Arc::new(table) }
    }
}

/// Series numbers out of an int64, uint32, uint64 or bool (mask) array.
fn indexes(index: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
    if let Ok(array) = index.extract::<PyReadonlyArray1<'_, i64>>() {
        let numbers = array.as_array().iter().map(|&i| usize::try_from(i)).collect();
        return std::result::Result::map_err(numbers, |_| PyIndexError::new_err("negative index"));
    }
    if let Ok(array) = index.extract::<PyReadonlyArray1<'_, u32>>() {
        return Ok(array.as_array().iter().map(|&i| i as usize).collect());
    }
    if let Ok(array) = index.extract::<PyReadonlyArray1<'_, u64>>() {
        return Ok(array.as_array().iter().map(|&i| i as usize).collect());
    }
    if let Ok(array) = index.extract::<PyReadonlyArray1<'_, bool>>() {
        let mask = array.as_array();
        return Ok(mask.iter().enumerate().filter_map(|(i, &on)| on.then_some(i)).collect());
    }
    Err(PyTypeError::new_err("index must be a 1-d int64, uint32, uint64 or bool array"))
}

impl LabelTable {
    /// Run a kernel over the table without the GIL.
    fn run<T: Send>(
        &self,
        py: Python<'_>,
        kernel: impl FnOnce(&labels::LabelTable) -> T + Send,
    ) -> T {
        let table = &*self.inner;
        detached(py, || kernel(table))
    }

    fn edit(
        &self,
        py: Python<'_>,
        kernel: impl FnOnce(&labels::LabelTable) -> labels::LabelTable + Send,
    ) -> LabelTable {
        self.run(py, kernel).into()
    }

    fn try_edit(
        &self,
        py: Python<'_>,
        kernel: impl FnOnce(&labels::LabelTable) -> Result<labels::LabelTable> + Send,
    ) -> PyResult<LabelTable> {
        Ok(self.run(py, kernel)?.into())
    }

    fn checked(&self, index: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
        if let Ok(array) = index.extract::<PyReadonlyArray1<'_, bool>>()
            && array.len() != self.inner.len()
        {
            return Err(PyIndexError::new_err("mask and table differ in length"));
        }
        indexes(index)
    }
}

#[pymethods]
impl LabelTable {
    #[staticmethod]
    #[allow(clippy::needless_pass_by_value)]
    fn from_lists(py: Python<'_>, series: Vec<HashMap<String, String>>) -> LabelTable {
        let lists: Vec<Vec<(String, String)>> =
            series.into_iter().map(|labels| labels.into_iter().collect()).collect();
        detached(py, || labels::LabelTable::from_lists(&lists)).into()
    }

    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: &[u8]) -> PyResult<LabelTable> {
        Ok(detached(py, || labels::LabelTable::from_bytes(data))?.into())
    }

    #[staticmethod]
    #[allow(clippy::needless_pass_by_value)]
    fn concat(py: Python<'_>, tables: Vec<Bound<'_, LabelTable>>) -> LabelTable {
        let owned: Vec<Arc<labels::LabelTable>> =
            tables.iter().map(|table| Arc::clone(&table.get().inner)).collect();
        detached(py, || {
            let tables: Vec<&labels::LabelTable> = owned.iter().map(|table| &**table).collect();
            labels::LabelTable::concat(&tables)
        })
        .into()
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.run(py, labels::LabelTable::to_bytes))
    }

    fn __len__(&self) -> usize {
        self.inner.len()
    }

    fn __repr__(&self) -> String {
        format!("LabelTable({} series)", self.inner.len())
    }

    fn memory_bytes(&self) -> usize {
        self.inner.memory_bytes()
    }

    /// Labels of series `i`.
    fn get<'py>(&self, py: Python<'py>, i: usize) -> PyResult<Bound<'py, PyDict>> {
        if i >= self.inner.len() {
            return Err(PyIndexError::new_err("series index out of range"));
        }
        let labels = PyDict::new(py);
        for (name, value) in self.inner.labels(i) {
            labels.set_item(PyString::intern(py, name), value)?;
        }
        Ok(labels)
    }

    fn to_list<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let all = PyList::empty(py);
        for i in 0..self.inner.len() {
            all.append(self.get(py, i)?)?;
        }
        Ok(all)
    }

    fn names(&self, py: Python<'_>) -> Vec<String> {
        self.run(py, labels::LabelTable::names)
    }

    fn take(&self, py: Python<'_>, index: &Bound<'_, PyAny>) -> PyResult<LabelTable> {
        let index = self.checked(index)?;
        self.try_edit(py, |table| table.take(&index))
    }

    #[allow(clippy::needless_pass_by_value)]
    fn group<'py>(
        &self,
        py: Python<'py>,
        names: Vec<String>,
        without: bool,
    ) -> (Numbers<'py>, LabelTable) {
        let (groups, table) = self.run(py, |table| table.group(&names, without));
        (groups.into_pyarray(py), table.into())
    }

    #[allow(clippy::needless_pass_by_value)]
    fn match_with<'py>(
        &self,
        py: Python<'py>,
        other: &LabelTable,
        names: Vec<String>,
        on: bool,
    ) -> (Numbers<'py>, Numbers<'py>, u32) {
        let other = &*other.inner;
        let (left, right, count) = self.run(py, |table| table.match_with(other, &names, on));
        (left.into_pyarray(py), right.into_pyarray(py), count)
    }

    #[allow(clippy::needless_pass_by_value)]
    fn drop(&self, py: Python<'_>, names: Vec<String>) -> LabelTable {
        self.edit(py, |table| table.drop(&names))
    }

    #[allow(clippy::needless_pass_by_value)]
    fn keep(&self, py: Python<'_>, names: Vec<String>) -> LabelTable {
        self.edit(py, |table| table.keep(&names))
    }

    fn set_label(&self, py: Python<'_>, name: &str, value: &str) -> LabelTable {
        self.edit(py, |table| table.set_label(name, value))
    }

    #[allow(clippy::needless_pass_by_value)]
    fn with_values(&self, py: Python<'_>, name: &str, values: Vec<String>) -> PyResult<LabelTable> {
        if values.len() != self.inner.len() {
            return Err(PyValueError::new_err("one value a series"));
        }
        self.try_edit(py, |table| table.with_values(name, &values))
    }

    fn values_of<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyList>> {
        let table = &*self.inner;
        let (codes, strings) = detached(py, || table.codes_of(name));
        let strings: Vec<Bound<'py, PyString>> =
            strings.into_iter().map(|string| PyString::new(py, string)).collect();
        PyList::new(py, codes.into_iter().map(|code| &strings[code as usize]))
    }

    fn codes_of<'py>(&self, py: Python<'py>, name: &str) -> (Numbers<'py>, Vec<String>) {
        let (codes, strings) = self.run(py, |table| {
            let (codes, strings) = table.codes_of(name);
            (codes, strings.into_iter().map(str::to_owned).collect())
        });
        (codes.into_pyarray(py), strings)
    }

    fn replace(
        &self,
        py: Python<'_>,
        target: &str,
        replacement: &str,
        source: &str,
        regex: &str,
    ) -> PyResult<LabelTable> {
        self.try_edit(py, |table| table.replace(target, replacement, source, regex))
    }

    #[allow(clippy::needless_pass_by_value)]
    fn join(
        &self,
        py: Python<'_>,
        target: &str,
        separator: &str,
        sources: Vec<String>,
    ) -> PyResult<LabelTable> {
        self.try_edit(py, |table| table.join(target, separator, &sources))
    }

    #[allow(clippy::needless_pass_by_value)]
    fn copy_labels(
        &self,
        py: Python<'_>,
        other: &LabelTable,
        index: &Bound<'_, PyAny>,
        names: Vec<String>,
    ) -> PyResult<LabelTable> {
        let (other, index) = (&*other.inner, indexes(index)?);
        self.try_edit(py, |table| table.copy_labels(other, &index, &names))
    }

    fn first_duplicate(&self, py: Python<'_>) -> Option<usize> {
        self.run(py, labels::LabelTable::first_duplicate)
    }

    fn dedup_ids<'py>(&self, py: Python<'py>) -> Numbers<'py> {
        self.run(py, labels::LabelTable::dedup_ids).into_pyarray(py)
    }

    fn sort_order<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        let order: Vec<i64> =
            self.run(py, |table| table.sort_order().into_iter().map(i64::from).collect());
        order.into_pyarray(py)
    }
}

/// The array's own memory where it lies row after row, else a copy. (numpy's `as_slice` would also
/// hand out a transposed array's memory.)
macro_rules! row_major {
    ($array:expr) => {
        match $array.as_array().to_slice() {
            Some(slice) => Cow::Borrowed(slice),
            None => Cow::Owned($array.as_array().iter().copied().collect::<Vec<_>>()),
        }
    };
}

#[pyfunction]
#[pyo3(signature = (labels, values, present, start_ms, step_ms, timeout_s=None, cancel=None))]
#[allow(clippy::needless_pass_by_value, clippy::too_many_arguments)]
fn write_matrix<'py>(
    py: Python<'py>,
    labels: &LabelTable,
    values: PyReadonlyArray2<'py, f64>,
    present: PyReadonlyArray2<'py, bool>,
    start_ms: i64,
    step_ms: i64,
    timeout_s: Option<f64>,
    cancel: Option<&Bound<'py, CancelToken>>,
) -> PyResult<Bound<'py, PyBytes>> {
    if values.shape() != present.shape() || values.shape()[0] != labels.inner.len() {
        return Err(PyValueError::new_err("values and present must be [series, steps]"));
    }
    let steps = values.shape()[1];
    let (values, present) = (row_major!(values), row_major!(present));
    let columns = json::Columns { values: &values, present: &present, steps };
    let stop = Stop::new(timeout_s, cancel);
    let check = || stop.check();
    let text =
        labels.run(py, |table| json::write_matrix(table, &columns, start_ms, step_ms, &check))?;
    Ok(PyBytes::new(py, &text))
}

#[pyfunction]
#[allow(clippy::needless_pass_by_value)]
fn write_vector<'py>(
    py: Python<'py>,
    labels: &LabelTable,
    values: PyReadonlyArray1<'py, f64>,
    time_ms: i64,
) -> PyResult<Bound<'py, PyBytes>> {
    let values = row_major!(values);
    let text = labels.run(py, |table| json::write_vector(table, &values, time_ms))?;
    Ok(PyBytes::new(py, &text))
}

#[pyfunction]
#[allow(clippy::needless_pass_by_value)]
fn write_points<'py>(
    py: Python<'py>,
    labels: &LabelTable,
    order: PyReadonlyArray1<'py, i64>,
    offsets: PyReadonlyArray1<'py, i64>,
    times_ms: PyReadonlyArray1<'py, i64>,
    values: PyReadonlyArray1<'py, f64>,
) -> PyResult<Bound<'py, PyBytes>> {
    let (order, offsets) = (row_major!(order), row_major!(offsets));
    let (times_ms, values) = (row_major!(times_ms), row_major!(values));
    let text =
        labels.run(py, |table| json::write_points(table, &order, &offsets, &times_ms, &values))?;
    Ok(PyBytes::new(py, &text))
}

#[pyfunction]
fn write_series<'py>(py: Python<'py>, labels: &LabelTable) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &labels.run(py, json::write_series))
}

/// A float as Prometheus prints it, for values that Python writes itself.
#[pyfunction]
fn format_float(value: f64) -> String {
    let mut out = Vec::new();
    labels::number::push_float(&mut out, value);
    String::from_utf8_lossy(&out).into_owned()
}

/// Checks a regular expression as matchers and label_replace take it.
#[pyfunction]
fn check_regex(pattern: &str) -> PyResult<()> {
    labels::go_regex::compile(pattern, labels::go_regex::parse(pattern)?)?;
    Ok(())
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<LabelTable>()?;
    module.add_function(wrap_pyfunction!(write_matrix, module)?)?;
    module.add_function(wrap_pyfunction!(write_vector, module)?)?;
    module.add_function(wrap_pyfunction!(write_points, module)?)?;
    module.add_function(wrap_pyfunction!(write_series, module)?)?;
    module.add_function(wrap_pyfunction!(format_float, module)?)?;
    module.add_function(wrap_pyfunction!(check_regex, module)?)?;
    Ok(())
}
