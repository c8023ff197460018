//! Lanes for Python: who starts one gives it his priority.

use crate::priority;
use pyo3::prelude::*;
use std::sync::Arc;

#[pyclass(frozen, module = "sluiceway._kernels")]
pub struct WorkLane {
    pub inner: Arc<priority::WorkLane>,
}

#[pymethods]
impl WorkLane {
    #[new]
    fn new(name: &str) -> PyResult<WorkLane> {
        let inner = priority::WorkLane::start(name)?;
        Ok(WorkLane { inner: Arc::new(inner) })
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<WorkLane>()
}
