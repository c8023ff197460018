//! Run a kernel without the GIL, and count how often it had to be taken back: the write path's
//! budget is two re-acquisitions between a request's last body byte and its ack.

use pyo3::marker::Ungil;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

static REACQUISITIONS: AtomicU64 = AtomicU64::new(0);

/// Run `kernel` without the GIL.
pub fn detached<T: Ungil + Send, F: Ungil + FnOnce() -> T>(py: Python<'_>, kernel: F) -> T {
    let answer = py.detach(kernel);
    REACQUISITIONS.fetch_add(1, Ordering::Relaxed);
    answer
}

/// How often a kernel of this process has taken the GIL back.
#[pyfunction]
pub fn gil_reacquisitions() -> u64 {
    REACQUISITIONS.load(Ordering::Relaxed)
}
