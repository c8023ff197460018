//! What moves between the tiers, for Python: requests and reports cross as JSON.

use super::disk::Disk;
use super::gil::detached;
use super::tiers::open_file;
use crate::disk::Disk as DiskRole;
use crate::downsample::cold::ColdFile;
use crate::downsample::columns::WindowColumns;
use crate::downsample::file::WindowFile;
use crate::downsample::join::{Part, Replaced, join};
use crate::downsample::mark::Mark;
use crate::downsample::masked::{MaskedFile, Taken};
use crate::downsample::warm::{WarmFile, WarmOptions, WarmReport, WarmWriter};
use crate::error::Result;
use crate::labels::LabelTable;
use crate::priority::in_background;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A file of windows and the ranges (from_ms, until_ms] that it owns.
#[derive(Deserialize)]
struct FilePart {
    path: String,
    owned_ms: Vec<(i64, i64)>,
    /// What of it is left out.
    #[serde(default)]
    taken: Vec<Taken>,
    /// `warm` or `cold`.
    #[serde(default = "warm")]
    tier: String,
    /// Takes the place of what the others have (`downsample::join`).
    #[serde(default)]
    replaces: bool,
}

fn warm() -> String {
    "warm".to_owned()
}

#[derive(Serialize)]
struct Merged {
    #[serde(flatten)]
    file: WarmReport,
    replaced: Replaced,
}

#[derive(Deserialize)]
struct MergeWarm {
    tenant: String,
    window_ms: i64,
    path: String,
    parts: Vec<FilePart>,
}

fn open_parts(disk: &dyn DiskRole, parts: &[FilePart]) -> Result<Vec<Part>> {
    let open = |part: &FilePart| {
        let (file, windows): (Arc<dyn WindowFile>, u64) = match part.tier.as_str() {
            "warm" => {
                let file = WarmFile::open(disk, &part.path)?;
                let windows = file.report().windows;
                (Arc::new(file), windows)
            }
            _ => {
                let file = ColdFile::open(disk, &part.path)?;
                let windows = file.facts().windows;
                (Arc::new(file), windows)
            }
        };
        let (owned_ms, replaces) = (part.owned_ms.clone(), part.replaces);
        let file = Box::new(MaskedFile::new(file, &part.taken)?);
        Ok(Part { file, owned_ms, windows, replaces })
    };
    parts.iter().map(open).collect()
}

fn merge(disk: &dyn DiskRole, request: &MergeWarm) -> Result<Merged> {
    let parts = open_parts(disk, &request.parts)?;
    let mut options = WarmOptions::new(&request.tenant, request.window_ms);
    let taken: BTreeSet<&String> = parts.iter().flat_map(|part| part.file.taken()).collect();
    options.taken = taken.into_iter().cloned().collect();
    let mut writer = WarmWriter::create(disk, &request.path, &options)?;
    let mut push = |labels: &LabelTable, windows: &WindowColumns, marks: &[Mark]| {
        writer.push_marked(labels, windows, marks)
    };
    let written = join(&parts, &mut push);
    let report = written.and_then(|replaced| {
        writer.finish()?;
        let parent = request.path.rsplit_once('/').map_or("", |(parent, _)| parent);
        disk.sync_directory(parent)?;
        let file = WarmFile::open(disk, &request.path)?.verify()?;
        Ok(Merged { file, replaced })
    });
    if report.is_err() {
        // Best effort: what cannot be removed is a stray that no catalog names.
        let _ = disk.remove(&request.path);
    }
    report
}

/// Series of a warm or cold file that orders to delete (`taken`, in JSON) name.
#[pyfunction]
fn count_taken(
    py: Python<'_>,
    disk: &Disk,
    path: &str,
    tier: &str,
    taken: &str,
) -> PyResult<usize> {
    let taken: Vec<Taken> =
        serde_json::from_str(taken).map_err(|e| PyValueError::new_err(e.to_string()))?;
    let (disk, path, tier) = (Arc::clone(&disk.inner), path.to_owned(), tier.to_owned());
    let count = move || Ok(MaskedFile::new(open_file(&*disk, &path, &tier)?, &taken)?.named());
    Ok(detached(py, || in_background("count-taken", count))?)
}

/// {tenant, window_ms, path, parts: [{path, owned_ms, taken, tier, replaces}]} in JSON: one warm file
/// of several files, without what was taken, durable and read back; a `Merged` in JSON.
#[pyfunction]
fn merge_warm(py: Python<'_>, disk: &Disk, request: &str) -> PyResult<String> {
    let request: MergeWarm =
        serde_json::from_str(request).map_err(|e| PyValueError::new_err(e.to_string()))?;
    let disk = Arc::clone(&disk.inner);
    let work = move || merge(&*disk, &request);
    let report = detached(py, || in_background("merge-warm", work))?;
    serde_json::to_string(&report).map_err(|e| PyValueError::new_err(e.to_string()))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(count_taken, module)?)?;
    module.add_function(wrap_pyfunction!(merge_warm, module)?)
}
