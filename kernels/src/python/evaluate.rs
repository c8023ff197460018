//! The evaluate protocol for Python: the shard's server, the read side's client, a shard in memory.

use super::gil::detached;
use super::labels::LabelTable;
use super::states::{self, States};
use crate::error::KernelError;
use crate::evaluate::access::ShardAccess;
use crate::evaluate::client::{self, Client, Reply};
use crate::evaluate::execute::EvaluateOptions;
use crate::evaluate::frame::Column;
use crate::evaluate::memory::{self, MemorySeries};
use crate::evaluate::server::Server;
use crate::labels;
use crate::model::{FamilyMetadata, SeriesType};
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1};
use parking_lot::Mutex;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString};
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(120);

/// Python data as JSON. Floats become text, so that NaN and infinities pass and no digit is lost.
pub fn to_json(data: &Bound<'_, PyAny>) -> PyResult<Value> {
    if data.is_none() {
        return Ok(Value::Null);
    }
    if data.is_instance_of::<PyBool>() {
        return Ok(Value::Bool(data.extract()?));
    }
    if data.is_instance_of::<PyInt>() {
        return Ok(Value::from(data.extract::<i64>()?));
    }
    if data.is_instance_of::<PyFloat>() {
        return Ok(Value::String(data.extract::<f64>()?.to_string()));
    }
    if data.is_instance_of::<PyString>() {
        return Ok(Value::String(data.extract()?));
    }
    if let Ok(dict) = data.cast::<PyDict>() {
        let pairs = dict.iter().map(|(key, value)| Ok((key.extract()?, to_json(&value)?)));
        return Ok(Value::Object(pairs.collect::<PyResult<Map<String, Value>>>()?));
    }
    if let Ok(array) = data.extract::<PyReadonlyArray1<'_, f64>>() {
        return Ok(Value::Array(
            array.as_array().iter().map(|value| Value::String(value.to_string())).collect(),
        ));
    }
    let items = data
        .try_iter()
        .map_err(|_| PyTypeError::new_err(format!("a request cannot hold {}", data.get_type())))?;
    Ok(Value::Array(items.map(|item| to_json(&item?)).collect::<PyResult<_>>()?))
}

pub(super) fn from_json<'py>(py: Python<'py>, json: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    py.import("json")?.call_method1("loads", (pyo3::types::PyBytes::new(py, json),))
}

pub fn stats<'py>(py: Python<'py>, reply: &Reply) -> PyResult<Bound<'py, PyAny>> {
    from_json(py, reply.head.stats.to_string().as_bytes())
}

/// A shard in memory that an `EvaluateServer` can serve; for tests of what stands above it.
#[pyclass(frozen, module = "sluiceway._kernels")]
struct MemoryShard {
    inner: Arc<memory::MemoryShard>,
}

type SeriesArgument<'py> = (Vec<(String, String)>, Bound<'py, PyAny>, Bound<'py, PyAny>);

#[pymethods]
impl MemoryShard {
    #[new]
    #[pyo3(signature = (series, metadata=Vec::new()))]
    fn new(
        series: Vec<(Bound<'_, PyDict>, Bound<'_, PyAny>, Bound<'_, PyAny>)>,
        metadata: Vec<(String, u8, String, String)>,
    ) -> PyResult<MemoryShard> {
        let series = series.into_iter().map(|(labels, times, values)| {
            let pairs = labels.iter().map(|(n, v)| Ok((n.extract()?, v.extract()?)));
            Ok((pairs.collect::<PyResult<_>>()?, times, values))
        });
        let series = series.map(|one: PyResult<SeriesArgument<'_>>| {
            let (labels, times, values) = one?;
            Ok(MemorySeries {
                labels,
                times_ms: numbers::<i64>(&times)?,
                values: numbers::<f64>(&values)?,
            })
        });
        let mut shard = memory::MemoryShard::new(series.collect::<PyResult<_>>()?)?;
        shard.metadata = metadata
            .into_iter()
            .map(|(name, series_type, help, unit)| FamilyMetadata {
                name,
                series_type: SeriesType::from_u8(series_type),
                help,
                unit,
            })
            .collect();
        Ok(MemoryShard { inner: Arc::new(shard) })
    }
}

fn numbers<T>(data: &Bound<'_, PyAny>) -> PyResult<Vec<T>>
where
    T: numpy::Element + Copy,
    for<'a, 'py> T: FromPyObject<'a, 'py, Error = PyErr>,
{
    if let Ok(array) = data.extract::<PyReadonlyArray1<'_, T>>() {
        return Ok(array.as_array().to_vec());
    }
    data.try_iter()?.map(|item| item?.extract::<T>()).collect()
}

/// The shard behind a Python object that can be served.
fn shard_access(shard: &Bound<'_, PyAny>) -> PyResult<Arc<dyn ShardAccess>> {
    if let Ok(shard) = shard.cast::<MemoryShard>() {
        return Ok(Arc::clone(&shard.get().inner) as Arc<dyn ShardAccess>);
    }
    if let Ok(shard) = shard.cast::<super::shard::Shard>() {
        return Ok(Arc::clone(&shard.get().inner) as Arc<dyn ShardAccess>);
    }
    Err(PyTypeError::new_err("EvaluateServer serves a Shard or a MemoryShard"))
}

#[pyclass(frozen, module = "sluiceway._kernels")]
struct EvaluateServer {
    shard: Arc<dyn ShardAccess>,
    path: PathBuf,
    options: EvaluateOptions,
    server: Mutex<Option<Server>>,
}

#[pymethods]
impl EvaluateServer {
    #[new]
    #[pyo3(signature = (shard, socket_path, options=None))]
    fn new(
        shard: &Bound<'_, PyAny>,
        socket_path: PathBuf,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<EvaluateServer> {
        let mut own = EvaluateOptions::default();
        for (key, value) in options.iter().flat_map(|options| options.iter()) {
            let (key, number) = (key.extract::<String>()?, value.extract::<u64>()?);
            let size = usize::try_from(number)?;
            match key.as_str() {
                "query_threads" => own.query_threads = size,
                "query_bytes_max" => own.query_bytes_max = size,
                "series_max" => own.limits.series_max = size,
                "points_max" => own.limits.points_max = number,
                "bytes_max" => own.limits.bytes_max = size,
                "cost_max" => own.limits.cost_max = number,
                "visibility_wait_max_ms" => {
                    own.visibility_wait_max = Duration::from_millis(number);
                }
                "timeout_max_ms" => own.timeout_max = Duration::from_millis(number),
                "connections_max" => own.connections_max = size,
                _ => return Err(PyValueError::new_err(format!("unknown option {key:?}"))),
            }
        }
        let shard = shard_access(shard)?;
        Ok(EvaluateServer { shard, path: socket_path, options: own, server: Mutex::new(None) })
    }

    /// Listen; returns at once.
    fn start(&self) -> PyResult<()> {
        let mut server = self.server.lock();
        if server.is_none() {
            *server = Some(Server::start(Arc::clone(&self.shard), &self.path, self.options)?);
        }
        Ok(())
    }

    /// Cancel what runs and wait for it, at most 5 s.
    fn stop(&self, py: Python<'_>) {
        let server = self.server.lock().take();
        detached(py, || drop(server));
    }

    /// {"connections", "query_bytes"} right now.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (connections, bytes) = self.server.lock().as_ref().map_or((0, 0), Server::load);
        let stats = PyDict::new(py);
        stats.set_item("connections", connections)?;
        stats.set_item("query_bytes", bytes)?;
        Ok(stats)
    }
}

#[pyclass(frozen, module = "sluiceway._kernels")]
pub struct CancelToken {
    pub inner: client::CancelToken,
}

#[pymethods]
impl CancelToken {
    #[new]
    fn new() -> CancelToken {
        CancelToken { inner: client::CancelToken::default() }
    }
    fn cancel(&self) {
        self.inner.cancel();
    }
    fn cancelled(&self) -> bool {
        self.inner.cancelled()
    }
}

/// Step columns of S series (or groups): values and presence [S, T].
#[pyclass(frozen, get_all, module = "sluiceway._kernels")]
pub struct Columns {
    pub labels: Py<LabelTable>,
    pub values: Py<PyArray2<f64>>,
    pub present: Py<PyArray2<bool>>,
    pub stats: Py<PyAny>,
    pub warnings: Vec<String>,
}

/// Raw points of S series: series i owns `[offsets[i]:offsets[i + 1]]` of times and values.
#[pyclass(frozen, get_all, module = "sluiceway._kernels")]
pub(super) struct RawPoints {
    pub(super) labels: Py<LabelTable>,
    pub(super) offsets: Py<PyArray1<i64>>,
    pub(super) times_ms: Py<PyArray1<i64>>,
    pub(super) values: Py<PyArray1<f64>>,
    stats: Py<PyAny>,
    warnings: Vec<String>,
}

fn missing(name: &str) -> KernelError {
    KernelError::corruption(format!("evaluate answer: no column {name}"))
}

fn label_table(py: Python<'_>, reply: &mut Reply) -> PyResult<Py<LabelTable>> {
    let bytes = reply.bytes("labels")?;
    let table = detached(py, || labels::LabelTable::from_bytes(&bytes))?;
    Py::new(py, LabelTable { inner: Arc::new(table) })
}

#[pyclass(frozen, module = "sluiceway._kernels")]
struct ShardClient {
    client: Client,
}

type Cancel<'a, 'py> = Option<&'a Bound<'py, CancelToken>>;

impl ShardClient {
    fn call(
        &self,
        py: Python<'_>,
        op: &str,
        request: &Bound<'_, PyDict>,
        cancel: Cancel<'_, '_>,
    ) -> PyResult<Reply> {
        let mut request = to_json(request.as_any())?;
        request["op"] = Value::from(op);
        let timeout = request["timeout_ms"].as_u64().map_or(TIMEOUT, Duration::from_millis);
        let text = request.to_string();
        let cancel = cancel.map(|token| &token.get().inner);
        Ok(detached(py, || self.client.call(text.as_bytes(), timeout, cancel))?)
    }

    fn json<'py>(
        &self,
        py: Python<'py>,
        op: &str,
        request: &Bound<'_, PyDict>,
        cancel: Cancel<'_, '_>,
        warnings: Option<&Bound<'_, PyList>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut reply = self.call(py, op, request, cancel)?;
        if let Some(warnings) = warnings {
            reply.head.warnings.iter().try_for_each(|warning| warnings.append(warning))?;
        }
        from_json(py, &reply.bytes("json")?)
    }
}

#[pymethods]
impl ShardClient {
    #[new]
    fn new(path: PathBuf) -> ShardClient {
        ShardClient { client: Client::new(path) }
    }

    #[pyo3(signature = (plan, cancel=None))]
    fn evaluate(
        &self,
        py: Python<'_>,
        plan: &Bound<'_, PyDict>,
        cancel: Cancel<'_, '_>,
    ) -> PyResult<Columns> {
        let mut reply = self.call(py, "evaluate", plan, cancel)?;
        let shape = [reply.head.series, reply.head.steps];
        let Some(Column::F64(values)) = reply.take("values") else {
            return Err(missing("values").into());
        };
        let mut present = match reply.take("present") {
            Some(Column::Bits(present)) => present,
            _ => vec![true; values.len()],
        };
        present.truncate(values.len());
        Ok(Columns {
            labels: label_table(py, &mut reply)?,
            values: values.into_pyarray(py).reshape(shape)?.unbind(),
            present: present.into_pyarray(py).reshape(shape)?.unbind(),
            stats: stats(py, &reply)?.unbind(),
            warnings: reply.head.warnings,
        })
    }

    /// The plan's states, of what is later than its `from_ms`.
    #[pyo3(signature = (plan, cancel=None))]
    fn states(
        &self,
        py: Python<'_>,
        plan: &Bound<'_, PyDict>,
        cancel: Cancel<'_, '_>,
    ) -> PyResult<States> {
        let reply = self.call(py, "states", plan, cancel)?;
        states::from_reply(py, &states::plan_of(plan)?, reply)
    }

    #[pyo3(signature = (request, cancel=None))]
    fn points(
        &self,
        py: Python<'_>,
        request: &Bound<'_, PyDict>,
        cancel: Cancel<'_, '_>,
    ) -> PyResult<RawPoints> {
        let mut reply = self.call(py, "points", request, cancel)?;
        let (Some(Column::I64(offsets)), Some(Column::I64(times_ms)), Some(Column::F64(values))) =
            (reply.take("offsets"), reply.take("times"), reply.take("values"))
        else {
            return Err(missing("offsets, times or values").into());
        };
        Ok(RawPoints {
            labels: label_table(py, &mut reply)?,
            offsets: offsets.into_pyarray(py).unbind(),
            times_ms: times_ms.into_pyarray(py).unbind(),
            values: values.into_pyarray(py).unbind(),
            stats: stats(py, &reply)?.unbind(),
            warnings: reply.head.warnings,
        })
    }

    #[pyo3(signature = (request, cancel=None, warnings=None))]
    fn series(
        &self,
        py: Python<'_>,
        request: &Bound<'_, PyDict>,
        cancel: Cancel<'_, '_>,
        warnings: Option<&Bound<'_, PyList>>,
    ) -> PyResult<Py<LabelTable>> {
        let mut reply = self.call(py, "series", request, cancel)?;
        if let Some(warnings) = warnings {
            reply.head.warnings.iter().try_for_each(|warning| warnings.append(warning))?;
        }
        label_table(py, &mut reply)
    }

    #[pyo3(signature = (request, cancel=None, warnings=None))]
    fn label_names<'py>(
        &self,
        py: Python<'py>,
        request: &Bound<'py, PyDict>,
        cancel: Cancel<'_, '_>,
        warnings: Option<&Bound<'_, PyList>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.json(py, "label_names", request, cancel, warnings)
    }

    #[pyo3(signature = (request, cancel=None, warnings=None))]
    fn label_values<'py>(
        &self,
        py: Python<'py>,
        request: &Bound<'py, PyDict>,
        cancel: Cancel<'_, '_>,
        warnings: Option<&Bound<'_, PyList>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.json(py, "label_values", request, cancel, warnings)
    }

    /// {name: [{"type", "help", "unit"}]}.
    #[pyo3(signature = (request, cancel=None))]
    fn metadata<'py>(
        &self,
        py: Python<'py>,
        request: &Bound<'py, PyDict>,
        cancel: Cancel<'_, '_>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let families = self.json(py, "metadata", request, cancel, None)?;
        let by_name = PyDict::new(py);
        for family in families.try_iter()? {
            let family = family?.cast_into::<PyDict>()?;
            let name = family.as_any().call_method1("pop", ("name",))?;
            by_name.set_item(name, PyList::new(py, [family])?)?;
        }
        Ok(by_name)
    }

    #[pyo3(signature = (request, cancel=None))]
    fn stats<'py>(
        &self,
        py: Python<'py>,
        request: &Bound<'py, PyDict>,
        cancel: Cancel<'_, '_>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.json(py, "stats", request, cancel, None)
    }

    #[pyo3(signature = (request, cancel=None, warnings=None))]
    fn cardinality<'py>(
        &self,
        py: Python<'py>,
        request: &Bound<'py, PyDict>,
        cancel: Cancel<'_, '_>,
        warnings: Option<&Bound<'_, PyList>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.json(py, "cardinality", request, cancel, warnings)
    }

    #[pyo3(signature = (request, cancel=None))]
    fn ledger<'py>(
        &self,
        py: Python<'py>,
        request: &Bound<'py, PyDict>,
        cancel: Cancel<'_, '_>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.json(py, "ledger", request, cancel, None)
    }

    #[pyo3(signature = (request, cancel=None))]
    fn usage<'py>(
        &self,
        py: Python<'py>,
        request: &Bound<'py, PyDict>,
        cancel: Cancel<'_, '_>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.json(py, "usage", request, cancel, None)
    }

    #[pyo3(signature = (request, cancel=None))]
    fn usage_tags<'py>(
        &self,
        py: Python<'py>,
        request: &Bound<'py, PyDict>,
        cancel: Cancel<'_, '_>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.json(py, "usage_tags", request, cancel, None)
    }

    #[pyo3(signature = (request, cancel=None))]
    fn coverage<'py>(
        &self,
        py: Python<'py>,
        request: &Bound<'py, PyDict>,
        cancel: Cancel<'_, '_>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.json(py, "coverage", request, cancel, None)
    }

    #[pyo3(signature = (request, cancel=None))]
    fn whatif<'py>(
        &self,
        py: Python<'py>,
        request: &Bound<'py, PyDict>,
        cancel: Cancel<'_, '_>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.json(py, "whatif", request, cancel, None)
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<MemoryShard>()?;
    module.add_class::<EvaluateServer>()?;
    module.add_class::<CancelToken>()?;
    module.add_class::<Columns>()?;
    module.add_class::<RawPoints>()?;
    module.add_class::<ShardClient>()?;
    Ok(())
}
