//! A window file in memory, without an index: every matcher is asked of every series. What the
//! other kinds of files are tested against.

use super::columns::{Fields, WindowColumns};
use super::file::{WindowFile, compare_labels, too_many, unknown_series};
use crate::error::Result;
use crate::labels::LabelTable;
use crate::shard::matcher::Matcher;
use std::collections::BTreeSet;
use std::ops::Range;

#[derive(Debug, Default)]
pub struct MemoryFile {
    window_ms: i64,
    labels: LabelTable,
    windows: WindowColumns,
}

impl MemoryFile {
    /// Of series in any order, one a label set and kind.
    pub fn new(window_ms: i64, labels: &LabelTable, windows: &WindowColumns) -> Result<MemoryFile> {
        assert_eq!(labels.len(), windows.series_count(), "one label set a series");
        let mut order: Vec<usize> = (0..labels.len()).collect();
        order.sort_by(|&i, &j| {
            compare_labels(labels, i, labels, j)
                .then_with(|| windows.kinds[i].cmp(&windows.kinds[j]))
        });
        let mut sorted = WindowColumns::default();
        for &i in &order {
            sorted.append(windows, windows.series(i));
            sorted.end_series(windows.kinds[i]);
        }
        Ok(MemoryFile { window_ms, labels: labels.take(&order)?, windows: sorted })
    }

    fn matching(&self, matchers: &[Matcher]) -> Result<Vec<usize>> {
        let compiled = matchers.iter().map(Matcher::compile).collect::<Result<Vec<_>>>()?;
        let passes = |i: &usize| compiled.iter().all(|m| m.matches(self.labels.value(*i, &m.name)));
        Ok((0..self.labels.len()).filter(passes).collect())
    }
}

impl WindowFile for MemoryFile {
    fn window_ms(&self) -> i64 {
        self.window_ms
    }

    fn series_count(&self) -> usize {
        self.labels.len()
    }

    fn select(&self, matchers: &[Matcher], series_max: usize) -> Result<Vec<u32>> {
        let found = self.matching(matchers)?;
        if found.len() > series_max {
            return Err(too_many(found.len() as u64, series_max));
        }
        Ok(found.into_iter().map(|i| i as u32).collect())
    }

    fn labels(&self, series: &[u32]) -> Result<LabelTable> {
        let numbers: Vec<usize> = series.iter().map(|&number| number as usize).collect();
        self.labels.take(&numbers)
    }

    fn label_names(&self, matchers: &[Matcher]) -> Result<Vec<String>> {
        Ok(self.labels.take(&self.matching(matchers)?)?.names())
    }

    fn label_values(&self, name: &str, matchers: &[Matcher]) -> Result<Vec<String>> {
        let found = self.matching(matchers)?;
        let values: BTreeSet<&str> = found.iter().map(|&i| self.labels.value(i, name)).collect();
        Ok(values.into_iter().filter(|value| !value.is_empty()).map(str::to_owned).collect())
    }

    fn read(
        &self,
        series: &[u32],
        range_ms: Range<i64>,
        _fields: Fields,
        out: &mut WindowColumns,
    ) -> Result<u64> {
        for &number in series {
            let i = number as usize;
            if i >= self.labels.len() {
                return Err(unknown_series(number, self.labels.len()));
            }
            for at in self.windows.series(i) {
                if range_ms.contains(&self.windows.end_ms[at]) {
                    out.append(&self.windows, at..at + 1);
                }
            }
            out.end_series(self.windows.kinds[i]);
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::downsample::columns::{Kind, Window};
    use crate::shard::matcher::MatchOp;

    #[test]
    fn series_stand_by_metric_and_labels_whatever_order_they_came_in() {
        let labels = LabelTable::from_lists(&[
            vec![("__name__", "up"), ("job", "b")],
            vec![("__name__", "up"), ("job", "a")],
            vec![("__name__", "cpu"), ("zone", "z")],
        ]);
        let mut windows = WindowColumns::default();
        for end_ms in [60_000, 120_000, 180_000] {
            windows.push(&Window { end_ms, count: 1, ..Window::default() });
            windows.end_series(Kind::Gauge);
        }
        let file = MemoryFile::new(60_000, &labels, &windows).expect("a file");
        let up = [Matcher::new("__name__", MatchOp::Equal, "up")];
        assert_eq!(file.select(&up, 2).expect("found"), [1, 2]);
        assert!(file.select(&up, 1).is_err(), "over the limit");
        assert_eq!(file.label_values("job", &[]).expect("values"), ["a", "b"]);
        assert_eq!(file.label_names(&up).expect("names"), ["__name__", "job"]);
        assert_eq!(file.labels(&[1]).expect("labels").value(0, "job"), "a");
        let mut out = WindowColumns::default();
        file.read(&[1, 2], 60_001..180_000, Fields::ALL, &mut out).expect("read");
        assert_eq!(out.end_ms, [120_000]);
        assert_eq!(out.offsets, [0, 1, 1]);
    }
}
