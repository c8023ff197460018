//! Raw points in the form of a file of windows, so that what the tiers do not hold yet is read
//! beside them.

use super::columns::{Kind, Window, WindowColumns};
use super::file::WindowFile;
use super::memory_file::MemoryFile;
use crate::error::Result;
use crate::labels::LabelTable;
use crate::model::STALE_BITS;
use std::sync::Arc;

/// Windows of one millisecond, each a point or a stale marker: whatever is asked of them is known.
const POINT_WINDOW_MS: i64 = 1;

/// The points of series: `offsets[i]..offsets[i + 1]` are series `i`'s, ascending by time.
pub fn points_file(
    labels: &LabelTable,
    offsets: &[i64],
    times_ms: &[i64],
    values: &[f64],
) -> Result<Arc<dyn WindowFile>> {
    let mut windows = WindowColumns::default();
    for series in offsets.windows(2) {
        for at in series[0] as usize..series[1] as usize {
            let (time_ms, value) = (times_ms[at], values[at]);
            let stale = value.to_bits() == STALE_BITS;
            windows.push(&if stale {
                Window { end_ms: time_ms, ends_stale: true, ..Window::default() }
            } else {
                Window {
                    end_ms: time_ms,
                    count: 1,
                    first_ms: time_ms,
                    first: value,
                    last_ms: time_ms,
                    last: value,
                    ends_stale: false,
                    dropped: 0.0,
                    sum: value,
                    minimum: value,
                    maximum: value,
                }
            });
        }
        windows.end_series(Kind::Unknown);
    }
    Ok(Arc::new(MemoryFile::new(POINT_WINDOW_MS, labels, &windows)?))
}
