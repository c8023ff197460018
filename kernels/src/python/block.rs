//! Blocks for tests and tools: write one from columns, read it back, merge. The shard itself never
//! takes this way.

use super::disk::Disk;
use super::gil::detached;
use crate::codec::Codec;
use crate::downsample::warm::{MetricUsage, WarmFile};
use crate::error::{KernelError, Result};
use crate::model::{PointColumns, SeriesKey};
use crate::shard::block::{BlockMeta, BlockOptions};
use crate::shard::block_reader::BlockReader;
use crate::shard::block_writer::BlockWriter;
use crate::shard::merge::merge;
use crate::shard::page_cache::PageCache;
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Keys [S, 3], offsets [S + 1], times, values: as `write_block` takes them.
type Columns<'py> = (
    Bound<'py, PyArray2<u32>>,
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<f64>>,
);

fn options(dense: bool, page_points_max: usize) -> BlockOptions {
    BlockOptions { codec: if dense { Codec::Dense } else { Codec::Fast }, page_points_max }
}

fn meta_dict<'py>(py: Python<'py>, meta: &BlockMeta) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("path", &meta.path)?;
    dict.set_item("bytes", meta.bytes)?;
    dict.set_item("crc32", meta.crc32)?;
    dict.set_item("series", meta.series)?;
    dict.set_item("points", meta.points)?;
    dict.set_item("histogram_points", meta.histogram_points)?;
    dict.set_item("min_ms", meta.min_ms)?;
    dict.set_item("max_ms", meta.max_ms)?;
    Ok(dict)
}

fn bad_columns() -> KernelError {
    KernelError::client(400, "sluiceway-block-columns", "offsets, times and values do not fit")
}

#[pyfunction]
#[pyo3(signature = (disk, path, keys, offsets, times_ms, values, dense=false, page_points_max=8192))]
#[allow(clippy::needless_pass_by_value, clippy::too_many_arguments)]
fn write_block<'py>(
    py: Python<'py>,
    disk: &Disk,
    path: &str,
    keys: PyReadonlyArray2<'py, u32>,
    offsets: PyReadonlyArray1<'py, i64>,
    times_ms: PyReadonlyArray1<'py, i64>,
    values: PyReadonlyArray1<'py, f64>,
    dense: bool,
    page_points_max: usize,
) -> PyResult<Bound<'py, PyDict>> {
    let keys = keys.as_array();
    let (offsets, times) = (offsets.as_slice()?, times_ms.as_slice()?);
    let (values, disk) = (values.as_slice()?, &*disk.inner);
    if keys.ncols() != 3 || offsets.len() != keys.nrows() + 1 {
        return Err(bad_columns().into());
    }
    let key = |row: usize| SeriesKey {
        tenant: keys[[row, 0]],
        metric: keys[[row, 1]],
        row: keys[[row, 2]],
    };
    let write = || -> Result<BlockMeta> {
        let mut writer = BlockWriter::create(disk, path, options(dense, page_points_max))?;
        for (row, bounds) in offsets.windows(2).enumerate() {
            let range = bounds[0] as usize..bounds[1] as usize;
            let times = times.get(range.clone()).ok_or_else(bad_columns)?;
            let values = values.get(range).ok_or_else(bad_columns)?;
            writer.push_series(key(row), times, values)?;
        }
        writer.finish()
    };
    meta_dict(py, &detached(py, write)?)
}

#[pyfunction]
#[allow(clippy::needless_pass_by_value)]
#[pyo3(signature = (disk, path, keys=None, from_ms=i64::MIN, until_ms=i64::MAX))]
fn read_block<'py>(
    py: Python<'py>,
    disk: &Disk,
    path: &str,
    keys: Option<PyReadonlyArray2<'py, u32>>,
    from_ms: i64,
    until_ms: i64,
) -> PyResult<Columns<'py>> {
    let asked: Option<Vec<SeriesKey>> = keys.map(|keys| {
        let keys = keys.as_array();
        keys.rows()
            .into_iter()
            .map(|key| SeriesKey { tenant: key[0], metric: key[1], row: key[2] })
            .collect()
    });
    let disk = &*disk.inner;
    let read = || -> Result<(Vec<SeriesKey>, PointColumns)> {
        let reader = BlockReader::open(disk, path, &PageCache::new(1 << 20))?;
        let (mut found, mut columns) = (Vec::new(), PointColumns::default());
        columns.offsets.push(0);
        let mut add = |key: SeriesKey, times: &[i64], values: &[f64]| {
            if found.last() == Some(&key) {
                columns.offsets.pop();
            } else {
                found.push(key);
            }
            columns.times_ms.extend_from_slice(times);
            columns.values.extend_from_slice(values);
            columns.end_series();
            Ok(())
        };
        match &asked {
            None => reader.scan(&mut add)?,
            Some(keys) => {
                reader.read(keys, from_ms, until_ms, &mut |at, t, v| add(keys[at], t, v))?;
            }
        }
        Ok((found, columns))
    };
    let (found, columns) = detached(py, read)?;
    let numbers: Vec<u32> =
        found.iter().flat_map(|key| [key.tenant, key.metric, key.row]).collect();
    let offsets: Vec<i64> = columns.offsets.iter().map(|offset| *offset as i64).collect();
    Ok((
        numbers.into_pyarray(py).reshape([found.len(), 3])?,
        offsets.into_pyarray(py),
        columns.times_ms.into_pyarray(py),
        columns.values.into_pyarray(py),
    ))
}

#[pyfunction]
#[allow(clippy::needless_pass_by_value)]
#[pyo3(signature = (disk, inputs, cuts_ms, paths, dense=true, page_points_max=8192))]
fn merge_blocks<'py>(
    py: Python<'py>,
    disk: &Disk,
    inputs: Vec<String>,
    cuts_ms: Vec<i64>,
    paths: Vec<String>,
    dense: bool,
    page_points_max: usize,
) -> PyResult<(Vec<Bound<'py, PyDict>>, u64)> {
    let disk = &*disk.inner;
    let report = detached(py, || -> Result<_> {
        let cache = PageCache::new(0);
        let readers = inputs
            .iter()
            .map(|path| BlockReader::open(disk, path, &cache).map(Arc::new))
            .collect::<Result<Vec<_>>>()?;
        let options = options(dense, page_points_max);
        merge(disk, &readers, (&cuts_ms, &paths), options, &[], &AtomicBool::new(false))
    })?;
    let outputs = report.outputs.iter().map(|meta| meta_dict(py, meta)).collect::<PyResult<_>>()?;
    Ok((outputs, report.superseded))
}

/// What each metric takes in a warm file: (metric, data bytes, index bytes, series), ascending.
#[pyfunction]
fn warm_usage(py: Python<'_>, disk: &Disk, path: &str) -> PyResult<Vec<(String, u64, u64, u64)>> {
    let disk = &*disk.inner;
    let metrics = detached(py, || WarmFile::open(disk, path)?.usage())?;
    let told = |m: MetricUsage| (m.metric, m.data_bytes, m.index_bytes, m.series);
    Ok(metrics.into_iter().map(told).collect())
}

/// Read all of a block, page by page: JSON of {pages, damaged_pages, damaged_points, words}.
#[pyfunction]
fn check_block(py: Python<'_>, disk: &Disk, path: &str) -> PyResult<String> {
    let disk = &*disk.inner;
    Ok(detached(py, || {
        let found = BlockReader::open(disk, path, &PageCache::new(0))?.check()?;
        serde_json::to_string(&found).map_err(|error| KernelError::Backend(error.to_string()))
    })?)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(write_block, module)?)?;
    module.add_function(wrap_pyfunction!(read_block, module)?)?;
    module.add_function(wrap_pyfunction!(check_block, module)?)?;
    module.add_function(wrap_pyfunction!(merge_blocks, module)?)?;
    module.add_function(wrap_pyfunction!(warm_usage, module)?)
}
