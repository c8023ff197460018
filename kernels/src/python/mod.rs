//! The only files that name pyo3: wrap a kernel, drop the GIL, map the error.
//!
//! One file a kernel family, each with `pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()>`.

mod block;
mod cold;
mod columns;
mod disk;
mod errors;
mod evaluate;
mod exchange;
mod gil;
mod journal;
mod labels;
mod priority;
mod range_function;
mod rollup;
mod shard;
mod sketch;
mod slices;
mod states;
mod stop;
mod tiers;
mod warm;
mod wire;

use pyo3::prelude::*;

#[pyfunction]
#[pyo3(signature = (name=None))]
fn arm_mutant(name: Option<&str>) -> bool {
    crate::mutants::arm(name)
}

#[pyfunction]
fn mutant_on(name: &str) -> bool {
    crate::mutants::on(name)
}

#[pymodule]
fn _kernels(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(arm_mutant, module)?)?;
    module.add_function(wrap_pyfunction!(mutant_on, module)?)?;
    module.add_function(wrap_pyfunction!(gil::gil_reacquisitions, module)?)?;
    module.add_function(wrap_pyfunction!(gil::time_detached, module)?)?;
    module.add_function(wrap_pyfunction!(gil::detached_ns, module)?)?;
    cold::register(module)?;
    columns::register(module)?;
    disk::register(module)?;
    journal::register(module)?;
    block::register(module)?;
    labels::register(module)?;
    shard::register(module)?;
    evaluate::register(module)?;
    exchange::register(module)?;
    states::register(module)?;
    sketch::register(module)?;
    slices::register(module)?;
    wire::register(module)?;
    range_function::register(module)?;
    priority::register(module)?;
    rollup::register(module)?;
    warm::register(module)?;
    tiers::register(module)?;
    Ok(())
}
