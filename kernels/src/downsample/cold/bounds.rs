//! What a footer says, checked before the library believes it: Parquet's footer and page headers
//! have no checksum, and the library counts on sane numbers (it panics where they are not).

use super::unreadable;
use crate::error::{KernelError, Result};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Run the library on bytes that may be anything; its panics are the bytes' fault.
pub fn guarded<T>(call: impl FnOnce() -> std::result::Result<T, ParquetError>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(answer) => answer.map_err(|error| unreadable(&error)),
        Err(_) => Err(KernelError::corruption("cold object: the footer makes no sense")),
    }
}

/// Every chunk and every page lies inside of the object, pages ascend and begin at row 0.
pub fn check(metadata: &ParquetMetaData, bytes: u64) -> Result<()> {
    let outside = || KernelError::corruption("cold object: a column outside of it");
    for (number, group) in metadata.row_groups().iter().enumerate() {
        let pages = metadata.page_index_for_row_group(number);
        let rows = group.num_rows();
        for (column, chunk) in group.columns().iter().enumerate() {
            let (start, end) = place(chunk).filter(|place| place.1 <= bytes).ok_or_else(outside)?;
            let places = pages.page_locations(column).ok_or_else(outside)?;
            let mut at = start;
            let mut row = -1;
            for page in places {
                let offset = u64::try_from(page.offset).map_err(|_| outside())?;
                let size = u64::try_from(page.compressed_page_size).map_err(|_| outside())?;
                let first = page.first_row_index;
                if offset < at || size > end - at || offset > end - size || first <= row {
                    return Err(outside());
                }
                (at, row) = (offset + size, first);
            }
            let first = places.first().map_or(0, |page| page.first_row_index);
            if first != 0 || row >= rows.max(1) || rows != chunk.num_values() {
                return Err(outside());
            }
        }
    }
    Ok(())
}

/// Where a chunk begins and ends.
fn place(chunk: &ColumnChunkMetaData) -> Option<(u64, u64)> {
    let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
    let start = u64::try_from(start).ok()?;
    Some((start, start.checked_add(u64::try_from(chunk.compressed_size()).ok()?)?))
}
