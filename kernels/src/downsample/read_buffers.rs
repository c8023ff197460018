//! What readers of windows reuse from page to page and from file to file: pages are smaller than
//! what an allocator hands back to the system, and a new buffer a page would cost more than the page.

use super::columns::WindowColumns;

/// Columns that are kept between uses; a decoder has no more at once.
const SPARE_MAX: usize = 16;

/// The buffers of one reading thread.
#[derive(Default)]
pub struct ReadBuffers {
    /// The windows that were read last.
    pub columns: WindowColumns,
    pub(super) numbers: Numbers,
}

/// Columns of integers that decoders take and give back. One that is not given back is merely
/// allocated anew.
#[derive(Default)]
pub(super) struct Numbers(Vec<Vec<i64>>);

impl Numbers {
    /// An empty column.
    pub fn take(&mut self) -> Vec<i64> {
        self.0.pop().unwrap_or_default()
    }

    /// A column of so many zeros.
    pub fn zeros(&mut self, count: usize) -> Vec<i64> {
        let mut column = self.take();
        column.resize(count, 0);
        column
    }

    pub fn give(&mut self, mut column: Vec<i64>) {
        if self.0.len() < SPARE_MAX {
            column.clear();
            self.0.push(column);
        }
    }
}
