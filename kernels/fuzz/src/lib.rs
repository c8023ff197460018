//! What is fuzzed: every reader of bytes that this program did not write a moment ago. A crash, a
//! panic, an allocation past `ALLOCATION_BYTES_MAX`, or an answer that does not add up is a finding.

mod journal;
mod labels;
mod protocol;
pub mod seeds;
mod storage;
mod wire;

use std::alloc::{GlobalAlloc, Layout, System};

pub type Target = fn(&[u8]);

pub const TARGETS: [(&str, Target); 7] = [
    ("decode", wire::decode_any),
    ("block", storage::block),
    ("state", storage::state),
    ("journal", journal::journal),
    ("labels", labels::labels),
    ("frames", protocol::frames),
    ("plan", protocol::plan),
];

/// Twice the most a request may unpack to, and a vector doubles.
const ALLOCATION_BYTES_MAX: usize = 128 << 20;

/// The system's allocator, which ends the run where an input makes it ask for too much at once.
struct Capped;

fn check(bytes: usize) {
    if bytes > ALLOCATION_BYTES_MAX {
        eprintln!("an allocation of {bytes} bytes");
        std::process::abort();
    }
}

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Capped {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        check(bytes);
        unsafe { System.realloc(pointer, layout, bytes) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Capped = Capped;
