//! Kernel errors become the tree of `sluiceway.errors`.

use crate::error::KernelError;
use pyo3::prelude::*;

impl From<KernelError> for PyErr {
    fn from(error: KernelError) -> PyErr {
        Python::attach(|py| build(py, &error).unwrap_or_else(|failure| failure))
    }
}

fn build(py: Python<'_>, error: &KernelError) -> PyResult<PyErr> {
    let errors = py.import("sluiceway.errors")?;
    let value = match error {
        KernelError::Client { status, id, message } => {
            errors.getattr("TenantFault")?.call1((*status, *id, message))?
        }
        KernelError::Overloaded { retry_after_s, message } => {
            errors.getattr("Overloaded")?.call1((*retry_after_s, message))?
        }
        KernelError::Backend(m) => errors.getattr("BackendUnavailable")?.call1((m,))?,
        KernelError::Corruption(m) => errors.getattr("Corruption")?.call1((m,))?,
        KernelError::Deadline(m) => errors.getattr("DeadlineExceeded")?.call1((m,))?,
        KernelError::Cancelled(m) => errors.getattr("Cancelled")?.call1((m,))?,
    };
    Ok(PyErr::from_value(value))
}
