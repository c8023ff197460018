//! A day of minutes to hours: a warm file's windows, joined and written as cold objects.

use super::reader::ColdFile;
use super::unit::{ColdUnit, ColdUnitWriter};
use super::verify::verify_cold;
use super::writer::ColdReport;
use crate::disk::Disk;
use crate::downsample::columns::{Fields, WindowColumns};
use crate::downsample::file::WindowFile;
use crate::downsample::sketches::sketch_longer;
use crate::downsample::window::coarsen;
use crate::error::Result;
use crate::sketch::quantiles::Sketch;
use roaring::RoaringBitmap;

/// Series read at once: a day of minutes of so many is some 60 MB.
const BATCH_SERIES: usize = 512;

/// Write the windows of `source` that end in the unit's range as windows of the unit's length, and
/// read the objects back.
pub fn cold_from(
    disk: &dyn Disk,
    source: &dyn WindowFile,
    unit: &ColdUnit,
) -> Result<Vec<ColdReport>> {
    let mut named = RoaringBitmap::new();
    for rule in &unit.sketches {
        named.extend(source.select(rule, usize::MAX)?);
    }
    let sketched = !named.is_empty();
    let unit = &ColdUnit { sketched, ..unit.clone() };
    let fields = if sketched { Fields::ALL } else { Fields::ALL.without(Fields::SKETCH) };
    let mut sketch = Sketch::default();
    let mut writer = ColdUnitWriter::new(disk, unit, source.taken());
    let numbers: Vec<u32> = (0..source.series_count() as u32).collect();
    let (mut windows, mut longer) = (WindowColumns::default(), WindowColumns::default());
    for batch in numbers.chunks(BATCH_SERIES) {
        windows.clear();
        longer.clear();
        let range_ms = unit.from_ms + 1..unit.until_ms + 1;
        source.read(batch, range_ms, fields, &mut windows)?;
        let marks = source.marks(batch)?;
        for (i, number) in batch.iter().enumerate() {
            coarsen(&windows, i, unit.window_ms, &mut longer);
            // Of a fold the points are not known one by one.
            if named.contains(*number) && !marks[i].folded {
                let made = longer.series(i);
                sketch_longer(&windows, i, unit.window_ms, made, &mut sketch, &mut longer)?;
            }
        }
        writer.push(&source.labels(batch)?, &longer, &marks)?;
    }
    let reports = writer.finish()?;
    for report in &reports {
        verify_cold(&ColdFile::open(disk, &unit.whole_path(&report.path))?)?;
    }
    Ok(reports)
}
