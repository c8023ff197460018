//! Run a kernel without the GIL, and count how often it had to be taken back: the write path's
//! budget is two re-acquisitions between a request's last body byte and its ack.

use pyo3::marker::Ungil;
use pyo3::prelude::*;
use rustix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static REACQUISITIONS: AtomicU64 = AtomicU64::new(0);
/// Set once, by a test that tells what a call does with the GIL from what it does without.
static TIMED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// This thread's time on a processor within kernels that had dropped the GIL.
    static DETACHED_NS: Cell<u64> = const { Cell::new(0) };
}

/// Run `kernel` without the GIL.
pub fn detached<T: Ungil + Send, F: Ungil + FnOnce() -> T>(py: Python<'_>, kernel: F) -> T {
    let began_ns = TIMED.load(Ordering::Relaxed).then(processor_ns);
    let answer = py.detach(kernel);
    REACQUISITIONS.fetch_add(1, Ordering::Relaxed);
    if let Some(began_ns) = began_ns {
        DETACHED_NS.set(DETACHED_NS.get() + processor_ns() - began_ns);
    }
    answer
}

/// This thread's time on a processor.
fn processor_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// How often a kernel of this process has taken the GIL back.
#[pyfunction]
pub fn gil_reacquisitions() -> u64 {
    REACQUISITIONS.load(Ordering::Relaxed)
}

/// From now on `detached_ns` tells; every kernel is a little slower for it.
#[pyfunction]
pub fn time_detached() {
    TIMED.store(true, Ordering::Relaxed);
}

/// This thread's nanoseconds on a processor within kernels without the GIL, since `time_detached`.
#[pyfunction]
pub fn detached_ns() -> u64 {
    DETACHED_NS.get()
}
