//! What past hours tell of a tenant: one hour's counts, and the distinct series of all since.
//!
//! Invariant: counts are exact, of one hour; `series_since` and tags are estimates of 1.6 % standard
//! error. An hour that is absent or damaged is left out, never guessed.

use super::cardinality::Check;
use super::hour_file;
use super::hour_sketches::MetricHour;
use super::owner::Shard;
use super::registry::Registry;
use crate::error::Result;
use crate::model::SeriesRow;
use crate::sketch::HyperLogLog;
use serde::Serialize;
use std::collections::BTreeMap;

const HOUR_MS: i64 = 3_600_000;
/// Hours that are merged for one answer, the newest: a month.
const MERGED_HOURS_MAX: usize = 744;

#[derive(Serialize)]
pub struct PastMetric {
    metric: String,
    active: u64,
    new: u64,
    gone: u64,
    /// Distinct series from that hour on, the current one not among them.
    series_since: u64,
}

#[derive(Serialize)]
pub struct PastTag {
    tag: String,
    values: u64,
    values_since: u64,
}

/// A recorded hour, as it was, and the hours recorded since.
#[derive(Serialize)]
pub struct Past {
    hour_ms: i64,
    hours: u64,
    active: u64,
    new: u64,
    gone: u64,
    metric_count: u64,
    metrics: Vec<PastMetric>,
    /// Of the one metric, where one is named; else over all metrics that are recorded.
    tags: Vec<PastTag>,
}

impl Shard {
    /// The last recorded hour at or before a time, else the first one after it.
    pub(super) fn past_of(
        &self,
        tenant: &str,
        metric: Option<&str>,
        since_ms: i64,
        check: Check<'_>,
    ) -> Result<Option<Past>> {
        let (disk, wanted) = (&*self.disk, since_ms.div_euclid(HOUR_MS));
        let mut recorded = hour_file::hours(disk)?;
        let Some(first_hour) = self.registry.read().first_hour_of(tenant) else { return Ok(None) };
        recorded.retain(|&hour| hour >= first_hour);
        let before = recorded.partition_point(|&hour| hour <= wanted);
        let Some(&hour) = recorded.get(before.saturating_sub(1)) else { return Ok(None) };
        let mut found = hour_file::read(disk, hour)?;
        let mut then = found.tenants.remove(tenant).unwrap_or_default();
        let hours = hour..=i64::MAX;
        let mut since = hour_file::merged(disk, tenant, hours, MERGED_HOURS_MAX, check)?;
        if let Some(metric) = metric {
            then.metrics.retain(|name, _| name == metric);
            since.tenant.metrics.retain(|name, _| name == metric);
        }
        let estimate = |sketch: &HyperLogLog| sketch.estimate().round() as u64;
        let (tags, tags_since) = (tags_of(&then.metrics), tags_of(&since.tenant.metrics));
        let mut metrics = Vec::new();
        for (name, all) in &since.tenant.metrics {
            let counts = then.metrics.get(name).map(|metric| metric.counts).unwrap_or_default();
            metrics.push(PastMetric {
                metric: name.clone(),
                active: counts.active,
                new: counts.new,
                gone: counts.gone,
                series_since: estimate(&all.series),
            });
        }
        metrics.sort_by(|a, b| b.active.cmp(&a.active).then_with(|| a.metric.cmp(&b.metric)));
        let of_tag = |(tag, all): (&String, &HyperLogLog)| PastTag {
            values: tags.get(tag).map_or(0, estimate),
            values_since: estimate(all),
            tag: tag.clone(),
        };
        let mut tags: Vec<PastTag> = tags_since.iter().map(of_tag).collect();
        tags.sort_by(|a, b| b.values.cmp(&a.values).then_with(|| a.tag.cmp(&b.tag)));
        Ok(Some(Past {
            hour_ms: hour.saturating_mul(HOUR_MS),
            hours: since.hours,
            active: then.counts.active,
            new: then.counts.new,
            gone: then.counts.gone,
            metric_count: then.metric_count,
            metrics,
            tags,
        }))
    }
}

impl Registry {
    /// The first hour that is a tenant's own: where one of its name was deleted, what was recorded
    /// up to its first series is the other's.
    fn first_hour_of(&self, name: &str) -> Option<i64> {
        let number = self.tenant_number(name)?;
        let row = self.rows.iter().position(|row| row.tenant == number)? as SeriesRow;
        let at = self.hours.partition_point(|&(_, first)| first <= row);
        let hour = self.hours[..at].last().map_or(i64::MIN, |&(hour, _)| hour);
        let reused = self.tenants.iter().any(|t| t.retired.is_some() && t.name == name);
        Some(if reused { hour.saturating_add(1) } else { i64::MIN })
    }
}

/// Each tag's values over all of some metrics.
fn tags_of(metrics: &BTreeMap<String, MetricHour>) -> BTreeMap<String, HyperLogLog> {
    let mut tags: BTreeMap<String, HyperLogLog> = BTreeMap::new();
    for (name, sketch) in metrics.values().flat_map(|metric| &metric.tags) {
        match tags.get_mut(name) {
            Some(own) => drop(own.merge(sketch)),
            None => drop(tags.insert(name.clone(), sketch.clone())),
        }
    }
    tags
}
