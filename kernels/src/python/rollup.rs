//! What moves between the tiers, for Python: requests and reports cross as JSON.

use super::disk::Disk;
use super::gil::detached;
use crate::disk::Disk as DiskRole;
use crate::downsample::columns::WindowColumns;
use crate::downsample::join::{Part, join};
use crate::downsample::mark::Mark;
use crate::downsample::warm::{WarmFile, WarmOptions, WarmReport, WarmWriter};
use crate::error::Result;
use crate::labels::LabelTable;
use crate::priority::behind_acks;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde::Deserialize;
use std::collections::BTreeSet;

/// A warm file and the ranges (from_ms, until_ms] that it owns.
#[derive(Deserialize)]
struct WarmPart {
    path: String,
    owned_ms: Vec<(i64, i64)>,
}

#[derive(Deserialize)]
struct MergeWarm {
    tenant: String,
    window_ms: i64,
    path: String,
    parts: Vec<WarmPart>,
}

fn open_parts(disk: &dyn DiskRole, parts: &[WarmPart]) -> Result<Vec<Part>> {
    let open = |part: &WarmPart| {
        let file = WarmFile::open(disk, &part.path)?;
        let windows = file.report().windows;
        Ok(Part { file: Box::new(file), owned_ms: part.owned_ms.clone(), windows })
    };
    parts.iter().map(open).collect()
}

fn merge(disk: &dyn DiskRole, request: &MergeWarm) -> Result<WarmReport> {
    let parts = open_parts(disk, &request.parts)?;
    let mut options = WarmOptions::new(&request.tenant, request.window_ms);
    let taken: BTreeSet<&String> = parts.iter().flat_map(|part| part.file.taken()).collect();
    options.taken = taken.into_iter().cloned().collect();
    let mut writer = WarmWriter::create(disk, &request.path, &options)?;
    let mut push = |labels: &LabelTable, windows: &WindowColumns, marks: &[Mark]| {
        writer.push_marked(labels, windows, marks)
    };
    let written = join(&parts, &mut push);
    let report = written.and_then(|()| {
        writer.finish()?;
        let parent = request.path.rsplit_once('/').map_or("", |(parent, _)| parent);
        disk.sync_directory(parent)?;
        WarmFile::open(disk, &request.path)?.verify()
    });
    if report.is_err() {
        // Best effort: what cannot be removed is a stray that no catalog names.
        let _ = disk.remove(&request.path);
    }
    report
}

/// {tenant, window_ms, path, parts: [{path, owned_ms}]} in JSON: one warm file of several, durable
/// and read back; its `WarmReport` in JSON.
#[pyfunction]
fn merge_warm(py: Python<'_>, disk: &Disk, request: &str) -> PyResult<String> {
    let request: MergeWarm =
        serde_json::from_str(request).map_err(|e| PyValueError::new_err(e.to_string()))?;
    let report = detached(py, || behind_acks("merge-warm", || merge(&*disk.inner, &request)))?;
    serde_json::to_string(&report).map_err(|e| PyValueError::new_err(e.to_string()))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(merge_warm, module)?)
}
