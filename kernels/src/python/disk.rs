//! `Disk`: the injected disk as Python sees it. What Python makes durable (manifests) goes through
//! the same object as what Rust makes durable, so that crash images cover both.

use super::gil::detached;
use crate::disk::{self, ElsewhereDisk, FaultPlan, FaultyDisk, MemoryDisk, RealDisk};
use crate::error::KernelError;
use pyo3::exceptions::{PyOSError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

#[pyclass(frozen, module = "sluiceway._kernels")]
pub struct Disk {
    pub inner: Arc<dyn disk::Disk>,
    memory: Option<MemoryDisk>,
    faulty: Option<Arc<FaultyDisk>>,
}

/// An `OSError` with its number, so that Python picks the class (`FileExistsError` ...).
fn os_error(error: &io::Error, path: &str) -> PyErr {
    let number = error.raw_os_error().or(match error.kind() {
        io::ErrorKind::NotFound => Some(2),
        io::ErrorKind::PermissionDenied => Some(13),
        io::ErrorKind::AlreadyExists => Some(17),
        io::ErrorKind::InvalidInput => Some(22),
        _ => None,
    });
    match number {
        Some(number) => PyOSError::new_err((number, error.to_string(), path.to_owned())),
        None => PyOSError::new_err(error.to_string()),
    }
}

impl Disk {
    fn run<T: Send>(
        &self,
        py: Python<'_>,
        path: &str,
        call: impl FnOnce(&dyn disk::Disk) -> io::Result<T> + Send,
    ) -> PyResult<T> {
        let inner = &*self.inner;
        detached(py, || call(inner)).map_err(|error| os_error(&error, path))
    }

    fn memory_disk(&self) -> PyResult<&MemoryDisk> {
        self.memory.as_ref().ok_or_else(|| PyTypeError::new_err("not an in-memory disk"))
    }

    fn faulty_disk(&self) -> PyResult<&FaultyDisk> {
        self.faulty.as_deref().ok_or_else(|| PyTypeError::new_err("not a faulty disk"))
    }
}

fn fault_plan(plan: &Bound<'_, PyAny>) -> PyResult<FaultPlan> {
    let json: String = plan.py().import("json")?.call_method1("dumps", (plan,))?.extract()?;
    FaultPlan::from_json(&json).map_err(|error| os_error(&error, ""))
}

#[pymethods]
impl Disk {
    #[staticmethod]
    fn real(py: Python<'_>, root: &str) -> PyResult<Disk> {
        let disk = detached(py, || RealDisk::new(root)).map_err(|error| os_error(&error, root))?;
        Ok(Disk { inner: Arc::new(disk), memory: None, faulty: None })
    }

    #[staticmethod]
    fn memory() -> Disk {
        let disk = MemoryDisk::new();
        Disk { inner: Arc::new(disk.clone()), memory: Some(disk), faulty: None }
    }

    fn faulty(&self, plan: &Bound<'_, PyAny>) -> PyResult<Disk> {
        let disk = FaultyDisk::new(self.inner.clone(), fault_plan(plan)?)
            .map_err(|error| os_error(&error, ""))?;
        let disk = Arc::new(disk);
        Ok(Disk { inner: disk.clone(), memory: self.memory.clone(), faulty: Some(disk) })
    }

    fn elsewhere(&self, files: BTreeMap<String, u64>, fetch: Py<PyAny>) -> Disk {
        let fetch = move |path: &str, offset: u64, length: usize| {
            Python::attach(|py| -> PyResult<Vec<u8>> {
                let found = fetch.call1(py, (path, offset, length))?;
                Ok(found.bind(py).cast::<PyBytes>()?.as_bytes().to_vec())
            })
            .map_err(|error| io::Error::other(error.to_string()))
        };
        let disk = ElsewhereDisk::new(self.inner.clone(), files, Arc::new(fetch));
        Disk { inner: Arc::new(disk), memory: None, faulty: None }
    }

    fn set_faults(&self, plan: &Bound<'_, PyAny>) -> PyResult<()> {
        self.faulty_disk()?.set_plan(fault_plan(plan)?);
        Ok(())
    }

    fn fault_count(&self) -> PyResult<u64> {
        Ok(self.faulty_disk()?.fault_count())
    }

    fn operation_count(&self) -> PyResult<usize> {
        Ok(self.memory_disk()?.operation_count())
    }

    fn operation_text(&self, number: usize) -> PyResult<String> {
        Ok(self.memory_disk()?.operation_text(number))
    }

    fn crash_image(&self, py: Python<'_>, after_operation: usize, seed: u64) -> PyResult<Disk> {
        let memory = self.memory_disk()?;
        let image = detached(py, || memory.crash_image(after_operation, seed));
        Ok(Disk { inner: Arc::new(image.clone()), memory: Some(image), faulty: None })
    }

    fn read<'py>(&self, py: Python<'py>, path: &str) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.run(py, path, |disk| disk.read_all(path))?))
    }

    fn write_new(&self, py: Python<'_>, path: &str, bytes: &[u8]) -> PyResult<()> {
        self.run(py, path, |disk| disk.write_new(path, bytes))
    }

    fn list(&self, py: Python<'_>, directory: &str) -> PyResult<Vec<String>> {
        self.run(py, directory, |disk| disk.list(directory))
    }

    fn remove(&self, py: Python<'_>, path: &str) -> PyResult<()> {
        self.run(py, path, |disk| disk.remove(path))
    }

    fn rename(&self, py: Python<'_>, source: &str, target: &str) -> PyResult<()> {
        self.run(py, source, |disk| disk.rename(source, target))
    }

    fn create_directory(&self, py: Python<'_>, path: &str) -> PyResult<()> {
        self.run(py, path, |disk| disk.create_directory(path))
    }

    fn sync_directory(&self, py: Python<'_>, path: &str) -> PyResult<()> {
        self.run(py, path, |disk| disk.sync_directory(path))
    }

    fn lock(&self, py: Python<'_>) -> PyResult<()> {
        let inner = &*self.inner;
        detached(py, || inner.lock()).map_err(|error| {
            let message = format!("another process holds the data directory: {error}");
            KernelError::Backend(message).into()
        })
    }

    fn used_bytes(&self, py: Python<'_>) -> PyResult<u64> {
        self.run(py, "", |disk| disk.used_bytes())
    }

    fn free_bytes(&self, py: Python<'_>) -> PyResult<u64> {
        self.run(py, "", |disk| disk.free_bytes())
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Disk>()
}
