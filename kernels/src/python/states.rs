//! States of tiers for Python: opaque rows, merged and finished in one call.

use super::evaluate::{CancelToken, Columns, stats, to_json};
use super::gil::detached;
use super::labels::LabelTable;
use super::stop::Stop;
use crate::downsample::evaluate::{Exactness, fields_for};
use crate::downsample::merge_states;
use crate::downsample::state_rows::StateRows;
use crate::evaluate::client::Reply;
use crate::evaluate::frame::Column;
use crate::evaluate::plan::{Evaluation, Plan, bad_plan};
use crate::labels;
use numpy::{IntoPyArray, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// What a tier holds of each series' steps, unfinished. Goes into `merge_states`.
#[pyclass(frozen, module = "sluiceway._kernels")]
pub struct States {
    pub rows: StateRows,
    pub exactness: Exactness,
    pub stats: Py<PyAny>,
    pub warnings: Vec<String>,
}

#[pymethods]
impl States {
    fn __len__(&self) -> usize {
        self.rows.labels.len()
    }
    #[getter]
    fn labels(&self) -> LabelTable {
        LabelTable::from(self.rows.labels.clone())
    }
    #[getter]
    fn exactness(&self) -> &'static str {
        self.exactness.name()
    }
    #[getter]
    fn stats(&self, py: Python<'_>) -> Py<PyAny> {
        self.stats.clone_ref(py)
    }
    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }
}

/// A plan out of a Python dict.
pub fn plan_of(plan: &Bound<'_, PyDict>) -> PyResult<Plan> {
    let plan = serde_json::from_value(to_json(plan.as_any())?);
    Ok(plan.map_err(|error| bad_plan(error.to_string()))?)
}

/// The shard's answer to `states`.
pub fn from_reply(py: Python<'_>, plan: &Plan, mut reply: Reply) -> PyResult<States> {
    let stats = stats(py, &reply)?.unbind();
    let warnings = std::mem::take(&mut reply.head.warnings);
    let rows = detached(py, || {
        let fields = fields_for(&Evaluation::of(plan)?.call);
        let labels = labels::LabelTable::from_bytes(&reply.bytes("labels")?)?;
        let steps = reply.head.steps;
        let take = |name: &str| -> Option<Column> { reply.take(name) };
        StateRows::from_columns(labels, steps, fields, take)
    })?;
    Ok(States { rows, exactness: Exactness::Exact, stats, warnings })
}

#[pyfunction]
#[pyo3(name = "merge_states", signature = (plan, parts, *, timeout_s=None, cancel=None))]
#[allow(clippy::needless_pass_by_value)]
fn merge<'py>(
    py: Python<'py>,
    plan: &Bound<'py, PyDict>,
    parts: Vec<PyRef<'py, States>>,
    timeout_s: Option<f64>,
    cancel: Option<&Bound<'py, CancelToken>>,
) -> PyResult<Columns> {
    let plan = plan_of(plan)?;
    let rows: Vec<&StateRows> = parts.iter().map(|part| &part.rows).collect();
    let stop = Stop::new(timeout_s, cancel);
    let check = || stop.check();
    let merged = detached(py, || merge_states::merge_states(&plan, &rows, &check))?;
    let shape = [merged.labels.len(), merged.step_count];
    Ok(Columns {
        labels: Py::new(py, LabelTable::from(merged.labels))?,
        values: merged.values.into_pyarray(py).reshape(shape)?.unbind(),
        present: merged.present.into_pyarray(py).reshape(shape)?.unbind(),
        stats: PyDict::new(py).into_any().unbind(),
        warnings: parts.iter().flat_map(|part| part.warnings.clone()).collect(),
    })
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<States>()?;
    module.add_function(wrap_pyfunction!(merge, module)?)?;
    Ok(())
}
