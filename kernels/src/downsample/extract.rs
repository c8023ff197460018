//! Windows as they stand in files, for export: selected, put together over files, all columns.
//!
//! Invariant: each series' windows come in time order from the files that own their hours; a
//! series whose kind changed comes twice. Nothing is decoded past `windows_max`.

use super::columns::{Fields, WindowColumns};
use super::join::{Stretch, put_together};
use super::mark::Mark;
use super::selection::{OwnedFile, Selection, runs_of};
use crate::error::{KernelError, Result};
use crate::labels::LabelTable;
use crate::shard::matcher::Matcher;
use std::collections::BTreeSet;

/// Series of a file that are read at once.
const BATCH_SERIES: usize = 1_024;

/// What is asked for: windows with an end in (from_ms, until_ms].
pub struct Extract<'a> {
    pub matchers: &'a [Matcher],
    pub range_ms: (i64, i64),
    pub series_max: usize,
    pub windows_max: usize,
}

/// Windows of many series.
pub struct Extracted {
    pub labels: LabelTable,
    pub windows: WindowColumns,
    /// What was done to each series.
    pub marks: Vec<Mark>,
    /// Names of labels that series lost, ascending.
    pub taken: Vec<String>,
}

/// Errors: of the matchers; `sluiceway-query-series-limit`, `sluiceway-query-points-limit` (422);
/// Corruption; what `check` says.
pub fn extract(
    files: &[OwnedFile],
    asked: &Extract,
    check: &dyn Fn() -> Result<()>,
) -> Result<Extracted> {
    let runs = runs_of(files, asked.range_ms)?;
    let selection = Selection::of(files, runs, asked.matchers, asked.series_max, check)?;
    let mut stretches: Vec<Vec<Stretch>> = vec![Vec::new(); selection.labels.len()];
    let mut pieces: Vec<WindowColumns> = Vec::new();
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut held = 0;
    for run in &selection.runs {
        let file = &selection.files[run.file];
        taken.extend(file.taken().iter().cloned());
        let mut entries = selection.entries[run.file].clone();
        entries.sort_unstable_by_key(|entry| entry.number);
        for batch in entries.chunks(BATCH_SERIES) {
            check()?;
            let numbers: Vec<u32> = batch.iter().map(|entry| entry.number).collect();
            let mut piece = WindowColumns::default();
            let range_ms = run.from_ms + 1..run.until_ms + 1;
            file.read(&numbers, range_ms, Fields::ALL, &mut piece)?;
            held += piece.window_count();
            if held > asked.windows_max {
                return Err(too_many(asked.windows_max));
            }
            let marks = file.marks(&numbers)?;
            for (place, entry) in batch.iter().enumerate() {
                let windows = piece.series(place);
                if !windows.is_empty() {
                    stretches[entry.series as usize].push(Stretch {
                        kind: piece.kinds[place],
                        piece: pieces.len(),
                        windows,
                        mark: marks[place],
                        replaces: false,
                    });
                }
            }
            pieces.push(piece);
        }
    }
    let (labels, windows, marks) = put_together(&pieces, stretches, &selection.labels);
    Ok(Extracted { labels, windows, marks, taken: taken.into_iter().collect() })
}

fn too_many(windows_max: usize) -> KernelError {
    let message = format!("more than {windows_max} windows: ask for a shorter time");
    KernelError::client(422, "sluiceway-query-points-limit", message)
}
