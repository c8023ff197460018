//! What is fuzzed: every reader of bytes that this program did not write a moment ago. A crash, a
//! panic, an allocation past `ALLOCATION_BYTES_MAX`, or an answer that does not add up is a finding.

mod journal;
mod labels;
mod protocol;
pub mod seeds;
mod storage;
mod wire;

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;

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

/// The system's allocator, which gives nothing where an input makes it ask for too much at once:
/// who can bear that goes on, for anybody else it is the end, and a finding.
struct Capped;

// SAFETY: a call is passed on unchanged to the system's allocator, or answered with null.
unsafe impl GlobalAlloc for Capped {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > ALLOCATION_BYTES_MAX {
            return null_mut();
        }
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() > ALLOCATION_BYTES_MAX {
            return null_mut();
        }
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        if bytes > ALLOCATION_BYTES_MAX {
            return null_mut();
        }
        unsafe { System.realloc(pointer, layout, bytes) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Capped = Capped;
