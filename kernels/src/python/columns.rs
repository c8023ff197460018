//! Aggregation of columns that are already evaluated, for the read side.
//!
//! Invariant: the states that a shard feeds while it scans, so fused and unfused agree.

use super::gil::detached;
use crate::evaluate::aggregate::{Aggregate, Aggregation};
use numpy::{
    IntoPyArray, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2,
    PyUntypedArrayMethods,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

type ColumnArrays<'py> = (Bound<'py, PyArray2<f64>>, Bound<'py, PyArray2<bool>>);

/// `[S, T]` columns to `[G, T]`: series `i` belongs to group `groups[i]`.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)]
fn aggregate_columns<'py>(
    py: Python<'py>,
    op: &str,
    groups: PyReadonlyArray1<'py, u32>,
    group_count: usize,
    values: PyReadonlyArray2<'py, f64>,
    present: PyReadonlyArray2<'py, bool>,
) -> PyResult<ColumnArrays<'py>> {
    let op: Aggregation = serde_json::from_value(serde_json::Value::from(op))
        .map_err(|_| PyValueError::new_err(format!("unknown aggregation {op:?}")))?;
    let groups = groups.as_slice()?;
    let step_count = values.shape()[1];
    if values.shape() != present.shape()
        || values.shape()[0] != groups.len()
        || groups.iter().any(|&group| group as usize >= group_count)
    {
        return Err(PyValueError::new_err("columns and groups do not fit each other"));
    }
    let (values, present) = (values.as_slice()?, present.as_slice()?);
    let (out, out_present) = detached(py, || {
        let mut state = Aggregate::new(op, group_count, step_count);
        let width = step_count.max(1);
        let rows = values.chunks_exact(width).zip(present.chunks_exact(width));
        for (&group, (values, present)) in groups.iter().zip(rows) {
            state.feed(group as usize, values, present);
        }
        state.finish()
    });
    let shape = [group_count, step_count];
    Ok((out.into_pyarray(py).reshape(shape)?, out_present.into_pyarray(py).reshape(shape)?))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(aggregate_columns, module)?)
}
