//! Cold: hourly windows as Parquet objects that other engines read too (docs/formats/cold.md).
//!
//! `names` (where an object lies) -> `schema` (its columns) -> `page`, `column` (how a column is
//! written) -> `index` (which series stand in which rows) -> `writer` (one object) -> `unit` (the
//! objects of a day or month) and `merge` (days to a month); `erase` (a unit without what was deleted);
//! `reader` answers from one.

mod bounds;
mod column;
mod content;
mod erase;
mod from_warm;
mod index;
mod merge;
pub mod names;
mod page;
mod reader;
mod rows;
mod schema;
#[cfg(test)]
mod tests;
mod unit;
mod verify;
mod writer;

pub use erase::erase_cold;
pub use from_warm::cold_from;
pub use merge::{ColdPart, merge_cold};
pub use reader::ColdFile;
pub use unit::{ColdUnit, ColdUnitWriter, write_cold};
pub use verify::verify_cold;
pub use writer::ColdReport;

use crate::error::KernelError;
use parquet::errors::ParquetError;

/// Parquet's refusals of bytes that a disk gave us.
fn unreadable(error: &ParquetError) -> KernelError {
    KernelError::corruption(format!("cold object: {error}"))
}

/// Parquet's refusals of what we asked it to write.
fn unwritable(error: &ParquetError) -> KernelError {
    KernelError::Backend(format!("writing a cold object: {error}"))
}
