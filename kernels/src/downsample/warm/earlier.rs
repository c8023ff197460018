//! The file before a file: where its counters stood, for the folds of this one.

use super::reader::WarmFile;
use crate::disk::Disk;
use crate::downsample::columns::{Fields, Kind, WindowColumns};
use crate::downsample::file::{WindowFile, compare_labels};
use crate::error::Result;
use crate::labels::LabelTable;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::Range;

/// Series of which labels are held at once.
const BATCH_SERIES: usize = 4_096;

pub(super) struct EarlierFile {
    file: WarmFile,
    metrics: HashMap<String, Range<u32>>,
}

impl EarlierFile {
    pub fn open(disk: &dyn Disk, path: &str) -> Result<EarlierFile> {
        let file = WarmFile::open(disk, path)?;
        let metrics = file.dictionary.metric_ranges()?.into_iter().collect();
        Ok(EarlierFile { file, metrics })
    }

    /// Of a metric's series, asked for in the order of files.
    pub fn search(&self, metric: &str) -> Search<'_> {
        Search {
            file: &self.file,
            rest: self.metrics.get(metric).cloned().unwrap_or_default(),
            numbers: Vec::new(),
            labels: LabelTable::from_lists::<&str>(&[]),
            kinds: Vec::new(),
            at: 0,
        }
    }

    /// The windows of these series.
    pub fn read(&self, series: &[u32]) -> Result<WindowColumns> {
        let mut windows = WindowColumns::default();
        self.file.read(series, i64::MIN..i64::MAX, Fields::ALL, &mut windows)?;
        Ok(windows)
    }
}

/// Goes through a metric once, beside another file.
pub(super) struct Search<'a> {
    file: &'a WarmFile,
    rest: Range<u32>,
    numbers: Vec<u32>,
    labels: LabelTable,
    kinds: Vec<Kind>,
    at: usize,
}

impl Search<'_> {
    /// The number of the counter that has these labels.
    pub fn counter(&mut self, labels: &LabelTable, series: usize) -> Result<Option<u32>> {
        loop {
            if self.at == self.numbers.len() && !self.go_on()? {
                return Ok(None);
            }
            match compare_labels(&self.labels, self.at, labels, series) {
                Ordering::Greater => return Ok(None),
                Ordering::Equal if self.kinds[self.at] == Kind::Counter => {
                    return Ok(Some(self.numbers[self.at]));
                }
                Ordering::Less | Ordering::Equal => self.at += 1,
            }
        }
    }

    fn go_on(&mut self) -> Result<bool> {
        self.numbers = self.rest.by_ref().take(BATCH_SERIES).collect();
        self.labels = self.file.labels(&self.numbers)?;
        let mut windows = WindowColumns::default();
        self.file.read(&self.numbers, i64::MIN..i64::MAX, Fields::NONE, &mut windows)?;
        (self.kinds, self.at) = (windows.kinds, 0);
        Ok(!self.numbers.is_empty())
    }
}
