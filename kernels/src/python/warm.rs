//! Warm files from Python: made of points, read back whole, and written anew without some labels
//! or digits.

use super::cold::from_dict;
use super::disk::Disk;
use super::gil::detached;
use super::labels::LabelTable;
use crate::disk::sync_parent;
use crate::downsample::columns::{Kind, WindowColumns};
use crate::downsample::file::compare_labels;
use crate::downsample::mark::Mark;
use crate::downsample::warm::{StripRequest, WarmFile, WarmOptions, WarmReport, WarmWriter, strip};
use crate::downsample::window::downsample;
use crate::error::{KernelError, Result};
use crate::priority::in_background;
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde::Serialize;
use std::sync::Arc;

fn json<T: Serialize>(report: &T) -> Result<String> {
    serde_json::to_string(report).map_err(|error| KernelError::Backend(error.to_string()))
}

/// Compare every checksum, decode every page, count anew: JSON of what the file holds.
#[pyfunction]
fn verify_warm_file(py: Python<'_>, disk: &Disk, path: &str) -> PyResult<String> {
    let disk = &*disk.inner;
    Ok(detached(py, || json(&WarmFile::open(disk, path)?.verify()?))?)
}

/// Write `source` to `path` as `request` (JSON) says: JSON of a report.
#[pyfunction]
fn strip_warm_file(
    py: Python<'_>,
    disk: &Disk,
    source: &str,
    path: &str,
    request: &str,
) -> PyResult<String> {
    let disk = Arc::clone(&disk.inner);
    let (source, path, request) = (source.to_owned(), path.to_owned(), request.to_owned());
    let work = move || {
        let (disk, source, path) = (&*disk, &*source, &*path);
        let request: StripRequest = serde_json::from_str(&request)
            .map_err(|error| KernelError::client(400, "sluiceway-strip-rule", error.to_string()))?;
        let report = strip(&WarmFile::open(disk, source)?, disk, path, &request)?;
        sync_parent(disk, path)?;
        let made = WarmFile::open(disk, path)?.verify()?;
        if made != report.file {
            return Err(KernelError::corruption(format!("{path}: read back otherwise")));
        }
        json(&report)
    };
    Ok(detached(py, || in_background("strip-warm", work))?)
}

/// Points of a tenant's series, as Python has them.
struct Points<'a> {
    labels: &'a crate::labels::LabelTable,
    kinds: &'a [u8],
    offsets: &'a [i64],
    times_ms: &'a [i64],
    values: &'a [f64],
}

impl Points<'_> {
    fn bad(what: &str) -> KernelError {
        KernelError::client(400, "sluiceway-window-columns", what)
    }

    /// Downsample and write, series in a file's order.
    fn write(
        &self,
        disk: &dyn crate::disk::Disk,
        path: &str,
        options: &WarmOptions,
    ) -> Result<WarmReport> {
        let count = self.labels.len();
        if self.kinds.len() != count || self.offsets.len() != count + 1 {
            return Err(Points::bad("labels, kinds and offsets do not fit"));
        }
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|&i, &j| compare_labels(self.labels, i, self.labels, j));
        let mut writer = WarmWriter::create(disk, path, options)?;
        let mut windows = WindowColumns::default();
        for batch in order.chunks(1_024) {
            windows.clear();
            for &i in batch {
                let range = self.offsets[i] as usize..self.offsets[i + 1] as usize;
                let (times, values) = (self.times_ms.get(range.clone()), self.values.get(range));
                let (Some(times), Some(values)) = (times, values) else {
                    return Err(Points::bad("offsets outside the points"));
                };
                if !times.is_sorted_by(|a, b| a < b) {
                    return Err(Points::bad("times of a series must ascend"));
                }
                let kind = Kind::from_u8(self.kinds[i]).ok_or_else(|| Points::bad("kind"))?;
                downsample(times, values, options.window_ms, kind, &mut windows);
            }
            writer.push(&self.labels.take(batch)?, &windows)?;
        }
        writer.finish()
    }
}

/// Points -> windows -> a file: JSON of what it holds.
#[pyfunction]
#[allow(clippy::needless_pass_by_value, clippy::too_many_arguments)]
fn write_warm_file<'py>(
    py: Python<'py>,
    disk: &Disk,
    path: &str,
    tenant: &str,
    window_ms: i64,
    labels: &LabelTable,
    kinds: PyReadonlyArray1<'py, u8>,
    offsets: PyReadonlyArray1<'py, i64>,
    times_ms: PyReadonlyArray1<'py, i64>,
    values: PyReadonlyArray1<'py, f64>,
) -> PyResult<String> {
    let points = Points {
        labels: &labels.inner,
        kinds: kinds.as_slice()?,
        offsets: offsets.as_slice()?,
        times_ms: times_ms.as_slice()?,
        values: values.as_slice()?,
    };
    let (disk, options) = (&*disk.inner, WarmOptions::new(tenant, window_ms));
    Ok(detached(py, || json(&points.write(disk, path, &options)?))?)
}

/// Windows as an export has them: series in any order, labels twice only of two kinds.
struct Windows<'a> {
    labels: &'a crate::labels::LabelTable,
    columns: &'a WindowColumns,
    marks: &'a [u8],
}

impl Windows<'_> {
    fn write(
        &self,
        disk: &dyn crate::disk::Disk,
        path: &str,
        options: &WarmOptions,
    ) -> Result<WarmReport> {
        let (labels, kinds) = (self.labels, &self.columns.kinds);
        if kinds.len() != labels.len() || self.marks.len() != labels.len() {
            return Err(Points::bad("labels and columns do not fit"));
        }
        self.check(options.window_ms)?;
        let mut order: Vec<usize> = (0..labels.len()).collect();
        order.sort_by(|&i, &j| {
            compare_labels(labels, i, labels, j).then_with(|| kinds[i].cmp(&kinds[j]))
        });
        let mut writer = WarmWriter::create(disk, path, options)?;
        let mut windows = WindowColumns::default();
        for batch in order.chunks(1_024) {
            windows.clear();
            for &i in batch {
                windows.append(self.columns, self.columns.series(i));
                windows.end_series(kinds[i]);
            }
            let mark = |&i: &usize| Mark::from_u8(self.marks[i]).ok_or_else(|| Points::bad("mark"));
            let marks = batch.iter().map(mark).collect::<Result<Vec<_>>>()?;
            writer.push_marked(&labels.take(batch)?, &windows, &marks)?;
        }
        writer.finish()?;
        WarmFile::open(disk, path)?.verify()
    }

    /// Windows that a file may hold: ascending ends on the grid, points inside their windows.
    fn check(&self, window_ms: i64) -> Result<()> {
        let columns = self.columns;
        for i in 0..columns.series_count() {
            let own = columns.series(i);
            if !columns.end_ms[own.clone()].is_sorted_by(|a, b| a < b) {
                return Err(Points::bad("windows of a series must ascend"));
            }
            for at in own {
                let window = columns.window(at);
                let inside = |ms: i64| ms > window.end_ms - window_ms && ms <= window.end_ms;
                let valued = window.count == 0
                    || (inside(window.first_ms)
                        && inside(window.last_ms)
                        && window.first_ms <= window.last_ms);
                let held = window.count > 0 || window.ends_stale;
                if window.end_ms.rem_euclid(window_ms) != 0 || !valued || !held {
                    return Err(Points::bad("a window that no points come to"));
                }
            }
        }
        Ok(())
    }
}

/// Windows -> a file that is synced and read back: JSON of what it holds.
#[pyfunction]
#[allow(clippy::needless_pass_by_value, clippy::too_many_arguments)]
fn write_warm_windows<'py>(
    py: Python<'py>,
    disk: &Disk,
    path: &str,
    tenant: &str,
    window_ms: i64,
    labels: &LabelTable,
    columns: &Bound<'py, PyDict>,
    marks: PyReadonlyArray1<'py, u8>,
    mut taken: Vec<String>,
) -> PyResult<String> {
    let columns = from_dict(columns)?;
    let windows = Windows { labels: &labels.inner, columns: &columns, marks: marks.as_slice()? };
    let mut options = WarmOptions::new(tenant, window_ms);
    taken.sort_unstable();
    taken.dedup();
    options.taken = taken;
    let disk = &*disk.inner;
    Ok(detached(py, || json(&windows.write(disk, path, &options)?))?)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(write_warm_file, module)?)?;
    module.add_function(wrap_pyfunction!(verify_warm_file, module)?)?;
    module.add_function(wrap_pyfunction!(write_warm_windows, module)?)?;
    module.add_function(wrap_pyfunction!(strip_warm_file, module)?)
}
