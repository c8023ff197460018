//! HyperLogLog for Python: what tests hold against sets.

use super::gil::detached;
use crate::sketch::hll::{self, PRECISION_MAX, PRECISION_MIN};
use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

#[pyclass(frozen, module = "sluiceway._kernels")]
struct HyperLogLog {
    inner: Mutex<hll::HyperLogLog>,
}

#[pymethods]
impl HyperLogLog {
    #[new]
    fn new(precision: u8) -> PyResult<HyperLogLog> {
        if !(PRECISION_MIN..=PRECISION_MAX).contains(&precision) {
            return Err(PyValueError::new_err("a precision from 4 to 16"));
        }
        Ok(HyperLogLog { inner: Mutex::new(hll::HyperLogLog::new(precision)) })
    }

    #[staticmethod]
    fn decode(bytes: &[u8]) -> PyResult<HyperLogLog> {
        Ok(HyperLogLog { inner: Mutex::new(hll::HyperLogLog::decode(bytes)?) })
    }

    fn encode<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let mut out = Vec::new();
        self.inner.lock().encode(&mut out);
        PyBytes::new(py, &out)
    }

    fn add(&self, py: Python<'_>, values: Vec<Vec<u8>>) {
        detached(py, || {
            let mut sketch = self.inner.lock();
            values.into_iter().for_each(|value| sketch.add(&value));
        });
    }

    /// False where the precisions differ.
    fn merge(&self, other: &Bound<'_, HyperLogLog>) -> bool {
        let other = other.get().inner.lock().clone();
        self.inner.lock().merge(&other)
    }

    fn estimate(&self) -> f64 {
        self.inner.lock().estimate()
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<HyperLogLog>()
}
