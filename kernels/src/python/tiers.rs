//! Reading tiers from Python: plans over files of windows, and columns of several tiers made one.

use super::cold::to_dict;
use super::disk::Disk as PyDisk;
use super::evaluate::{CancelToken, Columns, RawPoints, from_json, to_json};
use super::gil::detached;
use super::labels::LabelTable;
use super::stop::Stop;
use crate::disk::Disk;
use crate::downsample::cold::ColdFile;
use crate::downsample::extract::{Extract, extract};
use crate::downsample::file::WindowFile;
use crate::downsample::masked::{MaskedFile, Taken};
use crate::downsample::open_files::OpenFiles;
use crate::downsample::points_file::points_file;
use crate::downsample::reader::{Reader, ReaderOptions, check_files};
use crate::downsample::selection::OwnedFile;
use crate::downsample::warm::WarmFile;
use crate::downsample::watched::{Damaged, WatchedFile};
use crate::error::{KernelError, Result};
use crate::evaluate::plan::{Limits, Plan, bad_plan};
use crate::labels::stitch::{StepRows, stitch};
use crate::shard::matcher::Matcher;
use numpy::{
    IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::sync::Arc;

/// Path below the reader's directory, tier, and the left-open ranges of window ends that the file speaks for.
type FileArgument = (String, String, Vec<(i64, i64)>);
type Ranges = Vec<(i64, i64)>;
type Hidden = HashMap<String, String>;

#[pyclass(frozen, module = "sluiceway._kernels")]
struct TierReader {
    disk: Arc<dyn Disk>,
    reader: Reader,
    files: OpenFiles,
    damaged: Arc<Damaged>,
}

/// Errors: Corruption also where the file is gone: who asks has it from a catalog.
pub(super) fn open_file(disk: &dyn Disk, path: &str, tier: &str) -> Result<Arc<dyn WindowFile>> {
    if let Err(error) = disk.open(path, false)
        && error.kind() == ErrorKind::NotFound
    {
        return Err(KernelError::corruption(format!("{path} is gone")));
    }
    match tier {
        "warm" => Ok(Arc::new(WarmFile::open(disk, path)?)),
        "cold" => Ok(Arc::new(ColdFile::open(disk, path)?)),
        _ => Err(bad_plan(format!("no tier {tier:?}"))),
    }
}

impl TierReader {
    /// `hidden`: by path what orders to delete take of it, in JSON.
    fn owned(&self, files: Vec<FileArgument>, hidden: &Hidden) -> Result<Vec<OwnedFile>> {
        check_files(files.len())?;
        let open = |path: &str, tier: &str| -> Result<Arc<dyn WindowFile>> {
            let inner = self.damaged.watch(path, open_file(&*self.disk, path, tier))?;
            let (path, damaged) = (path.to_owned(), Arc::clone(&self.damaged));
            Ok(Arc::new(WatchedFile { inner, path, damaged }))
        };
        files
            .into_iter()
            .map(|(path, tier, ranges_ms)| {
                let mut file = self.files.get(&path, || open(&path, &tier))?;
                if let Some(taken) = hidden.get(&path) {
                    let taken: Vec<Taken> =
                        serde_json::from_str(taken).map_err(|error| bad_plan(error.to_string()))?;
                    file = Arc::new(MaskedFile::new(file, &taken)?);
                }
                Ok(OwnedFile { file, ranges_ms })
            })
            .collect()
    }
}

fn matchers(request: &Value) -> Result<Vec<Matcher>> {
    let matchers = request.get("matchers").cloned().unwrap_or(Value::Array(Vec::new()));
    serde_json::from_value(matchers).map_err(|error| bad_plan(error.to_string()))
}

fn timeout_s(request: &Value) -> Option<f64> {
    request.get("timeout_ms").and_then(Value::as_f64).map(|ms| ms / 1000.0)
}

fn series_max(request: &Value) -> usize {
    let limit = &request["limits"]["series_max"];
    limit.as_u64().map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX))
}

type Windows<'py> = (LabelTable, Bound<'py, PyDict>, Bound<'py, PyArray1<u8>>, Vec<String>);
type Cancel<'a, 'py> = Option<&'a Bound<'py, CancelToken>>;

#[pymethods]
impl TierReader {
    #[new]
    fn new(disk: &PyDisk, options: &Bound<'_, PyDict>) -> PyResult<TierReader> {
        let number = |name: &str| -> PyResult<u64> {
            let found = options.get_item(name)?;
            found.ok_or_else(|| PyValueError::new_err(format!("no option {name:?}")))?.extract()
        };
        let size = |name: &str| -> PyResult<usize> { Ok(usize::try_from(number(name)?)?) };
        let limits = Limits {
            series_max: size("series_max")?,
            points_max: number("points_max")?,
            bytes_max: size("bytes_max")?,
            cost_max: number("cost_max")?,
        };
        let reader = Reader::new(ReaderOptions {
            query_threads: size("query_threads")?,
            query_bytes_max: size("query_bytes_max")?,
            limits,
        });
        let disk = Arc::clone(&disk.inner);
        let files = OpenFiles::new(size("files_max")?, size("files_bytes_max")?);
        Ok(TierReader { disk, reader, files, damaged: Arc::default() })
    }

    #[pyo3(signature = (plan, files, points=Vec::new(), exact_only=false, cancel=None, hidden=Hidden::new()))]
    #[allow(clippy::needless_pass_by_value, clippy::too_many_arguments)]
    fn evaluate<'py>(
        &self,
        py: Python<'py>,
        plan: &Bound<'py, PyDict>,
        files: Vec<FileArgument>,
        points: Vec<(Bound<'py, RawPoints>, Ranges)>,
        exact_only: bool,
        cancel: Cancel<'_, 'py>,
        hidden: Hidden,
    ) -> PyResult<Option<Columns>> {
        let request = to_json(plan.as_any())?;
        let stop = Stop::new(timeout_s(&request), cancel);
        let mut hot = Vec::with_capacity(points.len());
        for (points, ranges) in points {
            let points = points.get();
            let labels = Arc::clone(&points.labels.bind(py).get().inner);
            let offsets = points.offsets.bind(py).readonly().as_slice()?.to_vec();
            let times_ms = points.times_ms.bind(py).readonly().as_slice()?.to_vec();
            let values = points.values.bind(py).readonly().as_slice()?.to_vec();
            hot.push((labels, offsets, times_ms, values, ranges));
        }
        let answer = detached(py, || {
            let plan: Plan =
                serde_json::from_value(request).map_err(|error| bad_plan(error.to_string()))?;
            let mut owned = self.owned(files, &hidden)?;
            for (labels, offsets, times_ms, values, ranges_ms) in hot {
                let file = points_file(&labels, &offsets, &times_ms, &values)?;
                owned.push(OwnedFile { file, ranges_ms });
            }
            self.reader.evaluate(&plan, &owned, exact_only, &|| stop.check())
        })?;
        let Some(answer) = answer else { return Ok(None) };
        let shape = [answer.labels.len(), answer.step_count];
        let mut stats = serde_json::to_value(&answer.stats)
            .map_err(|error| KernelError::Backend(error.to_string()))?;
        stats["exactness"] = Value::from(answer.exactness.name());
        Ok(Some(Columns {
            labels: Py::new(py, LabelTable::from(answer.labels))?,
            values: answer.values.into_pyarray(py).reshape(shape)?.unbind(),
            present: answer.present.into_pyarray(py).reshape(shape)?.unbind(),
            stats: from_json(py, stats.to_string().as_bytes())?.unbind(),
            warnings: Vec::new(),
        }))
    }

    #[pyo3(signature = (request, files, cancel=None, hidden=Hidden::new()))]
    #[allow(clippy::needless_pass_by_value)]
    fn series(
        &self,
        py: Python<'_>,
        request: &Bound<'_, PyDict>,
        files: Vec<FileArgument>,
        cancel: Cancel<'_, '_>,
        hidden: Hidden,
    ) -> PyResult<LabelTable> {
        let request = to_json(request.as_any())?;
        let stop = Stop::new(timeout_s(&request), cancel);
        let table = detached(py, || {
            let (owned, matchers) = (self.owned(files, &hidden)?, matchers(&request)?);
            self.reader.series(&owned, &matchers, series_max(&request), &|| stop.check())
        })?;
        Ok(table.into())
    }

    #[pyo3(signature = (request, files, cancel=None, hidden=Hidden::new()))]
    #[allow(clippy::needless_pass_by_value)]
    fn label_names(
        &self,
        py: Python<'_>,
        request: &Bound<'_, PyDict>,
        files: Vec<FileArgument>,
        cancel: Cancel<'_, '_>,
        hidden: Hidden,
    ) -> PyResult<Vec<String>> {
        let request = to_json(request.as_any())?;
        let stop = Stop::new(timeout_s(&request), cancel);
        Ok(detached(py, || {
            let (owned, matchers) = (self.owned(files, &hidden)?, matchers(&request)?);
            self.reader.label_names(&owned, &matchers, &|| stop.check())
        })?)
    }

    #[pyo3(signature = (request, files, cancel=None, hidden=Hidden::new()))]
    #[allow(clippy::needless_pass_by_value)]
    fn label_values(
        &self,
        py: Python<'_>,
        request: &Bound<'_, PyDict>,
        files: Vec<FileArgument>,
        cancel: Cancel<'_, '_>,
        hidden: Hidden,
    ) -> PyResult<Vec<String>> {
        let request = to_json(request.as_any())?;
        let stop = Stop::new(timeout_s(&request), cancel);
        Ok(detached(py, || {
            let (owned, matchers) = (self.owned(files, &hidden)?, matchers(&request)?);
            let name = request["name"].as_str().unwrap_or_default();
            self.reader.label_values(&owned, name, &matchers, &|| stop.check())
        })?)
    }

    /// Windows as they stand, with an end in (start_ms, end_ms]: (labels, columns, marks, taken).
    #[pyo3(signature = (request, files, cancel=None, hidden=Hidden::new()))]
    #[allow(clippy::needless_pass_by_value)]
    fn windows<'py>(
        &self,
        py: Python<'py>,
        request: &Bound<'py, PyDict>,
        files: Vec<FileArgument>,
        cancel: Cancel<'_, 'py>,
        hidden: Hidden,
    ) -> PyResult<Windows<'py>> {
        let request = to_json(request.as_any())?;
        let stop = Stop::new(timeout_s(&request), cancel);
        let found = detached(py, || {
            let (owned, matchers) = (self.owned(files, &hidden)?, matchers(&request)?);
            let number = |name: &str| request[name].as_i64().unwrap_or(0);
            let asked = Extract {
                matchers: &matchers,
                range_ms: (number("start_ms"), number("end_ms")),
                series_max: series_max(&request),
                windows_max: request["limits"]["points_max"].as_u64().unwrap_or(0) as usize,
            };
            extract(&owned, &asked, &|| stop.check())
        })?;
        let columns = to_dict(py, found.windows)?;
        let marks: Vec<u8> = found.marks.iter().map(|mark| mark.to_u8()).collect();
        Ok((found.labels.into(), columns, marks.into_pyarray(py), found.taken))
    }

    /// Close files that are not among `paths`.
    #[allow(clippy::needless_pass_by_value)]
    fn keep_only(&self, paths: HashSet<String>) {
        self.files.keep_only(|path| paths.contains(path));
        self.damaged.keep_only(|path| paths.contains(path));
    }

    /// (path, what was found last) of the damaged files that were met.
    fn damaged(&self) -> Vec<(String, String)> {
        self.damaged.met()
    }

    /// {"files", "files_bytes", "query_bytes"} right now.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = PyDict::new(py);
        stats.set_item("files", self.files.len())?;
        stats.set_item("files_bytes", self.files.memory_bytes())?;
        stats.set_item("query_bytes", self.reader.memory_used())?;
        Ok(stats)
    }
}

type Segment<'py> =
    (Bound<'py, LabelTable>, PyReadonlyArray2<'py, f64>, PyReadonlyArray2<'py, bool>, usize);
type Stitched<'py> = (LabelTable, Bound<'py, PyArray2<f64>>, Bound<'py, PyArray2<bool>>);

/// Segments of one query's steps as one: each (labels, values, present, first step).
#[pyfunction]
#[allow(clippy::needless_pass_by_value)]
fn stitch_columns<'py>(
    py: Python<'py>,
    segments: Vec<Segment<'py>>,
    step_count: usize,
) -> PyResult<Stitched<'py>> {
    let mut rows = Vec::with_capacity(segments.len());
    for (labels, values, present, first) in &segments {
        if values.shape() != present.shape() || values.shape()[0] != labels.get().inner.len() {
            return Err(PyValueError::new_err("values and present must be [series, steps]"));
        }
        rows.push(StepRows {
            labels: &labels.get().inner,
            values: values.as_slice()?,
            present: present.as_slice()?,
            steps: *first..first + values.shape()[1],
        });
    }
    let (labels, values, present) = detached(py, || stitch(&rows, step_count))?;
    let shape = [labels.len(), step_count];
    let values = values.into_pyarray(py).reshape(shape)?;
    Ok((labels.into(), values, present.into_pyarray(py).reshape(shape)?))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<TierReader>()?;
    module.add_function(wrap_pyfunction!(stitch_columns, module)?)
}
