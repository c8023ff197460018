//! The objects of one tenant's day or month: one a large metric, the small ones pooled.

use super::writer::{ColdReport, ColdWriter};
use crate::disk::Disk;
use crate::downsample::columns::WindowColumns;
use crate::downsample::file::compare_labels;
use crate::downsample::mark::Mark;
use crate::error::Result;
use crate::labels::{LabelTable, METRIC_NAME};
use crate::shard::matcher::Matcher;
use serde::Deserialize;
use std::ops::Range;

/// A metric has an object of its own from here on: about a megabyte.
const OWN_ROWS_MIN: usize = 100_000;
/// A pool past this goes on in another object, so that none takes long to fetch.
const POOL_ROWS_MAX: u64 = 4_194_304;

/// What is written: windows of a tenant that end in (from_ms, until_ms].
#[derive(Clone, Debug, Deserialize)]
pub struct ColdUnit {
    /// Under which the objects lie, in the disk.
    pub directory: String,
    pub tenant: String,
    pub window_ms: i64,
    pub from_ms: i64,
    pub until_ms: i64,
    /// Its generation: of two objects that cover an hour, the higher owns it.
    pub number: u64,
    #[serde(default = "own_rows_min")]
    pub own_rows_min: usize,
    /// The order to delete up to which it was written anew; 0: it was not.
    #[serde(default)]
    pub erased: u64,
    /// Each rule's matchers: series that one names get sketches, where their minutes say enough.
    #[serde(default)]
    pub sketches: Vec<Vec<Matcher>>,
    /// The objects have the column of sketches.
    #[serde(skip)]
    pub sketched: bool,
}

fn own_rows_min() -> usize {
    OWN_ROWS_MIN
}

impl ColdUnit {
    pub fn new(directory: &str, tenant: &str, range_ms: (i64, i64), number: u64) -> ColdUnit {
        ColdUnit {
            directory: directory.to_owned(),
            tenant: tenant.to_owned(),
            window_ms: crate::downsample::columns::COLD_WINDOW_MS,
            from_ms: range_ms.0,
            until_ms: range_ms.1,
            number,
            own_rows_min: OWN_ROWS_MIN,
            erased: 0,
            sketches: Vec::new(),
            sketched: false,
        }
    }

    /// An object's path as it is while no order has changed it, with the order that has.
    pub fn edition(&self, path: &str) -> String {
        match path.strip_suffix(".parquet") {
            Some(stem) if self.erased > 0 => format!("{stem}-e{:06}.parquet", self.erased),
            _ => path.to_owned(),
        }
    }

    /// A path below the cold directory as the disk knows it.
    pub fn whole_path(&self, path: &str) -> String {
        if self.directory.is_empty() {
            return path.to_owned();
        }
        format!("{}/{path}", self.directory)
    }
}

/// Write the objects of series in any order, one a label set and kind. Reports ascend by metric,
/// pools last.
pub fn write_cold(
    disk: &dyn Disk,
    unit: &ColdUnit,
    labels: &LabelTable,
    windows: &WindowColumns,
) -> Result<Vec<ColdReport>> {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by(|&i, &j| {
        compare_labels(labels, i, labels, j).then_with(|| windows.kinds[i].cmp(&windows.kinds[j]))
    });
    let sorted = labels.take(&order)?;
    let unit = &ColdUnit { sketched: !windows.sketches.is_empty(), ..unit.clone() };
    let mut writer = ColdUnitWriter::new(disk, unit, &[]);
    let mut from = 0;
    while from < order.len() {
        // In pieces, so that the sorted copy stays small.
        let mut piece = WindowColumns::default();
        let mut until = from;
        while until < order.len() && piece.window_count() < unit.own_rows_min.max(1) {
            append(windows, order[until], &mut piece);
            until += 1;
        }
        let numbers: Vec<usize> = (from..until).collect();
        writer.push(&sorted.take(&numbers)?, &piece, &vec![Mark::NONE; numbers.len()])?;
        from = until;
    }
    writer.finish()
}

/// Copy one series' windows to the end of `out`.
fn append(windows: &WindowColumns, i: usize, out: &mut WindowColumns) {
    out.append(windows, windows.series(i));
    out.end_series(windows.kinds[i]);
}

/// Takes series in order, batch by batch, and decides metric by metric where they go. Holds at
/// most the rows that make a metric large, a row group, and the labels of the open objects.
pub struct ColdUnitWriter<'d> {
    disk: &'d dyn Disk,
    unit: ColdUnit,
    /// Labels that series lost on the way here.
    taken: Vec<String>,
    metric: String,
    /// Of the metric at hand, while it may be small.
    held: Vec<(LabelTable, WindowColumns, Vec<Mark>)>,
    held_rows: usize,
    own: Option<ColdWriter<'d>>,
    pool: Option<ColdWriter<'d>>,
    pools: usize,
    reports: Vec<ColdReport>,
    pool_reports: Vec<ColdReport>,
}

impl<'d> ColdUnitWriter<'d> {
    /// `taken`: labels that series lost on the way here, ascending.
    pub fn new(disk: &'d dyn Disk, unit: &ColdUnit, taken: &[String]) -> ColdUnitWriter<'d> {
        ColdUnitWriter {
            disk,
            unit: unit.clone(),
            taken: taken.to_vec(),
            metric: String::new(),
            held: Vec::new(),
            held_rows: 0,
            own: None,
            pool: None,
            pools: 0,
            reports: Vec::new(),
            pool_reports: Vec::new(),
        }
    }

    /// Series ascending by `compare_labels` and kind, also over calls, and what was done to each.
    pub fn push(
        &mut self,
        labels: &LabelTable,
        windows: &WindowColumns,
        marks: &[Mark],
    ) -> Result<()> {
        let metrics = labels.values_of(METRIC_NAME);
        let mut from = 0;
        for run in metrics.chunk_by(|a, b| a == b) {
            let until = from + run.len();
            if self.metric != run[0] {
                self.end_metric()?;
                run[0].clone_into(&mut self.metric);
            }
            self.push_run(labels, windows, marks, from..until)?;
            from = until;
        }
        Ok(())
    }

    fn push_run(
        &mut self,
        labels: &LabelTable,
        windows: &WindowColumns,
        marks: &[Mark],
        series: Range<usize>,
    ) -> Result<()> {
        let mut piece = WindowColumns::default();
        series.clone().for_each(|i| append(windows, i, &mut piece));
        let marks = marks[series.clone()].to_vec();
        let labels = labels.take(&series.collect::<Vec<_>>())?;
        if let Some(own) = &mut self.own {
            return own.push(&labels, &piece, &marks);
        }
        self.held_rows += piece.window_count();
        self.held.push((labels, piece, marks));
        if self.held_rows >= self.unit.own_rows_min {
            let mut own =
                ColdWriter::create(self.disk, &self.unit, Some(&self.metric), 0, &self.taken)?;
            self.drain(&mut own)?;
            self.own = Some(own);
        }
        Ok(())
    }

    fn drain(&mut self, into: &mut ColdWriter<'d>) -> Result<()> {
        self.held_rows = 0;
        self.held
            .drain(..)
            .try_for_each(|(labels, windows, marks)| into.push(&labels, &windows, &marks))
    }

    fn end_metric(&mut self) -> Result<()> {
        if let Some(own) = self.own.take() {
            self.reports.extend(own.finish()?);
        }
        if self.held.is_empty() {
            return Ok(());
        }
        let full = |pool: &ColdWriter<'_>| pool.row_count() + self.held_rows as u64 > POOL_ROWS_MAX;
        if let Some(pool) = self.pool.take_if(|pool| full(pool)) {
            self.pool_reports.extend(pool.finish()?);
        }
        let mut pool = match self.pool.take() {
            Some(pool) => pool,
            None => {
                self.pools += 1;
                ColdWriter::create(self.disk, &self.unit, None, self.pools - 1, &self.taken)?
            }
        };
        self.drain(&mut pool)?;
        self.pool = Some(pool);
        Ok(())
    }

    pub fn finish(mut self) -> Result<Vec<ColdReport>> {
        self.end_metric()?;
        if let Some(pool) = self.pool.take() {
            self.pool_reports.extend(pool.finish()?);
        }
        self.reports.append(&mut self.pool_reports);
        Ok(self.reports)
    }
}
