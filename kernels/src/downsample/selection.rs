//! What a query reads of files of windows: which files when, and their series in one numbering.
//!
//! Invariant: runs ascend by time and do not overlap, so a series' windows come in time order
//! whichever files they stand in.

use super::file::WindowFile;
use crate::error::{KernelError, Result};
use crate::labels::{LabelTable, Union};
use crate::shard::matcher::Matcher;
use std::ops::Range;
use std::sync::Arc;

/// A file and the left-open ranges (from, until] of window ends for which it speaks.
#[derive(Clone)]
pub struct OwnedFile {
    pub file: Arc<dyn WindowFile>,
    pub ranges_ms: Vec<(i64, i64)>,
}

/// A stretch of time (from_ms, until_ms] that one file speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub file: usize,
    pub from_ms: i64,
    pub until_ms: i64,
    pub window_ms: i64,
}

/// A file's series in the query's numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The number in the query.
    pub series: u32,
    /// The number in the file.
    pub number: u32,
}

/// The matching series of all files.
pub struct Selection {
    pub files: Vec<Arc<dyn WindowFile>>,
    pub runs: Vec<Run>,
    /// For each file, by the query's number; a series whose kind changed comes twice.
    pub entries: Vec<Vec<Entry>>,
    pub labels: LabelTable,
}

/// The runs of `files` that meet (from_ms, until_ms], in time order.
///
/// Errors: Backend where two files speak for one time.
pub fn runs_of(files: &[OwnedFile], (from_ms, until_ms): (i64, i64)) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    for (number, owned) in files.iter().enumerate() {
        let window_ms = owned.file.window_ms();
        for &(from, until) in &owned.ranges_ms {
            let (from_ms, until_ms) = (from.max(from_ms), until.min(until_ms));
            if from_ms < until_ms {
                runs.push(Run { file: number, from_ms, until_ms, window_ms });
            }
        }
    }
    runs.sort_by_key(|run| (run.from_ms, run.file));
    // Cold has a file a metric for the same time: those of one length may share it.
    let meet =
        |pair: &[Run]| pair[1].from_ms < pair[0].until_ms && pair[1].window_ms != pair[0].window_ms;
    if runs.windows(2).any(meet) {
        return Err(KernelError::Backend("two tiers speak for the same time".to_owned()));
    }
    Ok(runs)
}

/// Ends of the windows that the runs want of a file, from the first to past the last; None where
/// they want none.
fn ends_of(runs: &[Run], file: usize) -> Option<Range<i64>> {
    let own = || runs.iter().filter(move |run| run.file == file);
    let from_ms = own().map(|run| run.from_ms).min()?;
    let until_ms = own().map(|run| run.until_ms).max()?;
    Some(from_ms.saturating_add(1)..until_ms.saturating_add(1))
}

impl Selection {
    /// Select in every file that a run reads. `check` is asked between files.
    ///
    /// Errors: of the matchers; `sluiceway-query-series-limit`; what `check` says.
    pub fn of(
        files: &[OwnedFile],
        runs: Vec<Run>,
        matchers: &[Matcher],
        series_max: usize,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<Selection> {
        let mut union = Union::default();
        let mut entries: Vec<Vec<Entry>> = vec![Vec::new(); files.len()];
        for (number, owned) in files.iter().enumerate() {
            let Some(range_ms) = ends_of(&runs, number) else { continue };
            check()?;
            let found = owned.file.select(matchers, series_max)?;
            let found = owned.file.within(found, range_ms)?;
            let series = union.add(&owned.file.labels(&found)?);
            if union.len() > series_max {
                return Err(super::file::too_many(union.len() as u64, series_max));
            }
            let pairs = series.into_iter().zip(found);
            entries[number] = pairs.map(|(series, number)| Entry { series, number }).collect();
            entries[number].sort_unstable();
        }
        let files = files.iter().map(|owned| Arc::clone(&owned.file)).collect();
        let runs = runs.into_iter().filter(|run| !entries[run.file].is_empty()).collect();
        Ok(Selection { files, runs, entries, labels: union.finish() })
    }

    /// The entries of a run's file whose series are in `series`.
    pub fn entries_of(&self, run: &Run, series: &Range<usize>) -> &[Entry] {
        let all = &self.entries[run.file];
        let from = all.partition_point(|entry| (entry.series as usize) < series.start);
        let until = all.partition_point(|entry| (entry.series as usize) < series.end);
        &all[from..until]
    }

    /// Windows that reading all of it comes to at most.
    pub fn windows_max(&self) -> u64 {
        let of_run = |run: &Run| {
            let windows = (run.until_ms - run.from_ms).max(0) / run.window_ms.max(1) + 1;
            self.entries[run.file].len() as u64 * windows as u64
        };
        self.runs.iter().map(of_run).sum()
    }
}
