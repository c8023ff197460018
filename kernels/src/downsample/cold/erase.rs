//! The objects of a unit written anew without what orders to delete take.

use super::merge::ColdPart;
use super::reader::ColdFile;
use super::unit::{ColdUnit, ColdUnitWriter};
use super::verify::verify_cold;
use super::writer::ColdReport;
use crate::disk::Disk;
use crate::downsample::join::{Part, join};
use crate::downsample::masked::{MaskedFile, Taken};
use crate::error::Result;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Write what `taken` leaves of the parts as one unit, and read it back. Nothing is written where
/// nothing is left.
pub fn erase_cold(
    disk: &dyn Disk,
    unit: &ColdUnit,
    parts: &[ColdPart],
    taken: &[Taken],
) -> Result<Vec<ColdReport>> {
    let mut held: Vec<Part> = Vec::with_capacity(parts.len());
    let mut sketched = false;
    for part in parts {
        let file = ColdFile::open(disk, &unit.whole_path(&part.path))?;
        sketched |= file.facts().sketches > 0;
        let windows = file.facts().windows;
        let file = Box::new(MaskedFile::new(Arc::new(file), taken)?);
        held.push(Part { file, owned_ms: part.owned_ms.clone(), windows, replaces: false });
    }
    let names: BTreeSet<&String> = held.iter().flat_map(|part| part.file.taken()).collect();
    let names: Vec<String> = names.into_iter().cloned().collect();
    let mut writer = ColdUnitWriter::new(disk, &ColdUnit { sketched, ..unit.clone() }, &names);
    join(&held, &mut |labels, windows, marks| writer.push(labels, windows, marks))?;
    let reports = writer.finish()?;
    for report in &reports {
        verify_cold(&ColdFile::open(disk, &unit.whole_path(&report.path))?)?;
    }
    Ok(reports)
}
