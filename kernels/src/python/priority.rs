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

    /// What the calling thread rolls up, merges and makes cold is done on this lane from now on.
    fn take_over(&self) {
        priority::work_on(Arc::clone(&self.inner));
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<WorkLane>()
}
