//! A shard held in memory, whole: the peer that tests of the engine and of the protocol ask.

use super::access::{CardinalityStats, Lag, PointSource, ShardAccess};
use crate::error::{KernelError, Result};
use crate::labels::LabelTable;
use crate::model::{FamilyMetadata, PointColumns, SeriesKey};
use crate::shard::matcher::Matcher;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

pub struct MemorySeries {
    pub labels: Vec<(String, String)>,
    pub times_ms: Vec<i64>,
    pub values: Vec<f64>,
}

/// Series of the one tenant `default`; a series' row is its number. Never changes.
pub struct MemoryShard {
    series: Arc<Vec<MemorySeries>>,
    labels: LabelTable,
    pub metadata: Vec<FamilyMetadata>,
}

impl MemoryShard {
    /// Labels get sorted; times must ascend.
    pub fn new(mut series: Vec<MemorySeries>) -> Result<MemoryShard> {
        for one in &mut series {
            one.labels.retain(|(_, value)| !value.is_empty());
            one.labels.sort();
            if one.times_ms.len() != one.values.len() || !one.times_ms.is_sorted_by(|a, b| a < b) {
                let message = "times must ascend and have a value each";
                return Err(KernelError::client(400, "sluiceway-bad-series", message));
            }
        }
        let lists: Vec<_> = series.iter().map(|one| one.labels.clone()).collect();
        let labels = LabelTable::from_lists(&lists);
        Ok(MemoryShard { series: Arc::new(series), labels, metadata: Vec::new() })
    }

    fn of(&self, key: &SeriesKey) -> &MemorySeries {
        &self.series[key.row as usize]
    }

    fn selected(
        &self,
        tenant: &str,
        matchers: &[Matcher],
        range_ms: &Range<i64>,
    ) -> Result<Vec<SeriesKey>> {
        let matchers = matchers.iter().map(Matcher::compile).collect::<Result<Vec<_>>>()?;
        let alive = |one: &MemorySeries| {
            one.times_ms.first().is_some_and(|&first| first < range_ms.end)
                && one.times_ms.last().is_some_and(|&last| last >= range_ms.start)
        };
        let matches = |one: &MemorySeries| {
            matchers.iter().all(|matcher| {
                let label = one.labels.iter().find(|(name, _)| *name == matcher.name);
                matcher.matches(label.map_or("", |(_, value)| value))
            })
        };
        let rows = self.series.iter().enumerate();
        let rows = rows.filter(|(_, one)| tenant == "default" && alive(one) && matches(one));
        Ok(rows.map(|(row, _)| SeriesKey { tenant: 0, metric: 0, row: row as u32 }).collect())
    }
}

impl ShardAccess for MemoryShard {
    fn wait_visible(&self, _wait_max: Duration) -> Lag {
        Lag::default()
    }

    fn select(
        &self,
        tenant: &str,
        matchers: &[Matcher],
        range_ms: Range<i64>,
        series_max: usize,
    ) -> Result<Vec<SeriesKey>> {
        let keys = self.selected(tenant, matchers, &range_ms)?;
        if keys.len() > series_max {
            let message = format!("the query selects more than {series_max} series");
            return Err(KernelError::client(422, "sluiceway-query-series-limit", message));
        }
        Ok(keys)
    }

    fn labels(&self, keys: &[SeriesKey]) -> LabelTable {
        let rows: Vec<usize> = keys.iter().map(|key| key.row as usize).collect();
        self.labels.take(&rows).unwrap_or_default()
    }

    fn group(&self, keys: &[SeriesKey], names: &[String], without: bool) -> (Vec<u32>, LabelTable) {
        self.labels(keys).group(names, without)
    }

    fn snapshot(&self, keys: &[SeriesKey], range_ms: Range<i64>) -> Result<Arc<dyn PointSource>> {
        Ok(Arc::new(Pinned { series: Arc::clone(&self.series), keys: keys.to_vec(), range_ms }))
    }

    fn label_names(
        &self,
        tenant: &str,
        matchers: &[Matcher],
        range_ms: Range<i64>,
    ) -> Result<Vec<String>> {
        let keys = self.selected(tenant, matchers, &range_ms)?;
        let names = keys.iter().flat_map(|key| self.of(key).labels.iter().map(|(name, _)| name));
        Ok(names.cloned().collect::<BTreeSet<_>>().into_iter().collect())
    }

    fn label_values(
        &self,
        tenant: &str,
        name: &str,
        matchers: &[Matcher],
        range_ms: Range<i64>,
    ) -> Result<Vec<String>> {
        let keys = self.selected(tenant, matchers, &range_ms)?;
        let labels = keys.iter().flat_map(|key| &self.of(key).labels);
        let values = labels.filter(|(n, _)| n == name).map(|(_, value)| value.clone());
        Ok(values.collect::<BTreeSet<_>>().into_iter().collect())
    }

    fn metadata(&self, _tenant: &str, metric: Option<&str>, limit: usize) -> Vec<FamilyMetadata> {
        let wanted = |family: &&FamilyMetadata| metric.is_none_or(|metric| family.name == metric);
        self.metadata.iter().filter(wanted).take(limit).cloned().collect()
    }

    fn cardinality(&self, _tenant: &str, _top: usize) -> CardinalityStats {
        CardinalityStats { series_count: self.series.len() as u64, ..Default::default() }
    }

    fn ledger(&self, _raw_scan: bool) -> Result<String> {
        Ok("{}".to_owned())
    }
}

struct Pinned {
    series: Arc<Vec<MemorySeries>>,
    keys: Vec<SeriesKey>,
    range_ms: Range<i64>,
}

impl PointSource for Pinned {
    fn read(&self, range: Range<usize>, out: &mut PointColumns) -> Result<u64> {
        let before = out.times_ms.len();
        for key in &self.keys[range] {
            let one = &self.series[key.row as usize];
            let from = one.times_ms.partition_point(|t| *t < self.range_ms.start);
            let until = one.times_ms.partition_point(|t| *t < self.range_ms.end);
            out.times_ms.extend_from_slice(&one.times_ms[from..until]);
            out.values.extend_from_slice(&one.values[from..until]);
            out.end_series();
        }
        Ok((out.times_ms.len() - before) as u64)
    }

    fn estimate(&self) -> u64 {
        let held = |key: &SeriesKey| {
            let times_ms = &self.series[key.row as usize].times_ms;
            times_ms.iter().filter(|time| self.range_ms.contains(time)).count() as u64
        };
        self.keys.iter().map(held).sum()
    }
}
