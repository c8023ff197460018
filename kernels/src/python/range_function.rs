//! Range functions over columns for Python.

use super::evaluate::CancelToken;
use super::gil::detached;
use super::stop::Stop;
use crate::evaluate::functions::{Call, Extension, Function};
use crate::evaluate::subquery::range_columns;
use crate::evaluate::window::Steps;
use numpy::{
    IntoPyArray, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2,
    PyUntypedArrayMethods,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

type ColumnArrays<'py> = (Bound<'py, PyArray2<f64>>, Bound<'py, PyArray2<bool>>);

#[pyfunction]
#[pyo3(signature = (function, times_ms, values, present, eval_times_ms, range_ms, args, *,
                    end_times_ms=None, extension=None, lookback_ms=300_000, timeout_s=None,
                    cancel=None))]
#[allow(clippy::too_many_arguments, clippy::needless_pass_by_value)]
fn range_function<'py>(
    py: Python<'py>,
    function: &str,
    times_ms: PyReadonlyArray1<'py, i64>,
    values: PyReadonlyArray2<'py, f64>,
    present: PyReadonlyArray2<'py, bool>,
    eval_times_ms: PyReadonlyArray1<'py, i64>,
    range_ms: i64,
    args: Vec<Bound<'py, PyAny>>,
    end_times_ms: Option<PyReadonlyArray1<'py, i64>>,
    extension: Option<&str>,
    lookback_ms: i64,
    timeout_s: Option<f64>,
    cancel: Option<&Bound<'py, CancelToken>>,
) -> PyResult<ColumnArrays<'py>> {
    let eval_ms = eval_times_ms.as_slice()?;
    let end_ms = end_times_ms.as_ref().map_or(Ok(eval_ms), |ends| ends.as_slice())?;
    let arguments = args.iter().map(scalar_argument).collect::<PyResult<Vec<_>>>()?;
    let mut call = Call::new(Function::parse(function)?, arguments, eval_ms.len())?;
    call.lookback_ms = lookback_ms;
    call.extension = match extension {
        None => None,
        Some("anchored") => Some(Extension::Anchored),
        Some("smoothed") => Some(Extension::Smoothed),
        Some(other) => return Err(PyValueError::new_err(format!("unknown extension {other:?}"))),
    };
    let times_ms = times_ms.as_slice()?;
    if values.shape() != present.shape()
        || values.shape()[1] != times_ms.len()
        || end_ms.len() != eval_ms.len()
        || !times_ms.is_sorted_by(|a, b| a < b)
        || !end_ms.is_sorted()
    {
        return Err(PyValueError::new_err("columns and times do not fit each other"));
    }
    let (series_count, step_count) = (values.shape()[0], eval_ms.len());
    let (values, present) = (values.as_slice()?, present.as_slice()?);
    let steps = Steps { eval_ms, end_ms, range_ms };
    let stop = Stop::new(timeout_s, cancel);
    let check = || stop.check();
    let (out, out_present) =
        detached(py, || range_columns(&call, times_ms, values, present, &steps, &check))?;
    let (mut out, mut out_present) = (out, out_present);
    out.resize(series_count * step_count, 0.0);
    out_present.resize(series_count * step_count, false);
    let shape = [series_count, step_count];
    Ok((out.into_pyarray(py).reshape(shape)?, out_present.into_pyarray(py).reshape(shape)?))
}

/// One float, or an array with one a step.
fn scalar_argument(argument: &Bound<'_, PyAny>) -> PyResult<Vec<f64>> {
    if let Ok(array) = argument.extract::<PyReadonlyArray1<'_, f64>>() {
        return Ok(array.as_array().to_vec());
    }
    Ok(vec![argument.extract::<f64>()?])
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(range_function, module)?)?;
    Ok(())
}
