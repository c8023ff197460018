//! Usage by tag: what the series with a tag, or with each of its values, take, and what would be
//! saved without the tag.
//!
//! Invariant: a series' bytes are its metric's, by its share of the points that were looked at (of
//! the index: of the series), so the values of a tag and the series without it sum to the tenant's
//! bytes. Blocks are looked at newest first up to a limit; how much that was is told. A saving is
//! an estimate: series that are one without the tag are taken to be folded into one that has as
//! many points as the longest of them.

use super::block_reader::Kind;
use super::cardinality::{Check, EXAMINED_MAX, SLICE, TOP_MAX, mixed};
use super::owner::Shard;
use super::usage::Amounts;
use super::view::HeldBlock;
use crate::error::{KernelError, Result};
use crate::model::{SeriesRow, Symbol, TenantNumber};
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Bytes of pages that are read for the shares of series.
const EXAMINED_BYTES_MAX: u64 = 1 << 30;
/// Distinct values of a tag that are told apart; further ones are summed.
const VALUES_MAX: usize = 1 << 20;

fn default_tenant() -> String {
    "default".to_owned()
}
fn default_top() -> usize {
    10
}

#[derive(Debug, Deserialize)]
pub struct Request {
    #[serde(default = "default_tenant")]
    pub tenant: String,
    /// Its values are told; without it all tags are.
    pub label: Option<String>,
    #[serde(default = "default_top")]
    pub top: usize,
}

/// Sums over series. Fractions of a byte are kept until they are told.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    data_bytes: f64,
    index_bytes: f64,
    points: f64,
    series: u64,
}

#[derive(Debug, Default, Serialize)]
pub struct ValueUsage {
    pub value: String,
    #[serde(flatten)]
    pub amounts: Amounts,
}

#[derive(Debug, Default, Serialize)]
pub struct TagUsage {
    pub tag: String,
    /// Distinct ones of all known series.
    pub values: u64,
    /// Of the series that have it.
    #[serde(flatten)]
    pub amounts: Amounts,
    /// What would be there less without it.
    pub saved: Amounts,
}

#[derive(Debug, Default, Serialize)]
pub struct TagsUsage {
    pub whole: Amounts,
    /// Of the points on disk, those whose series were looked at.
    pub points_examined: u64,
    /// Most bytes first.
    pub tags: Vec<TagUsage>,
    pub tags_left_off: u64,
    pub values: Vec<ValueUsage>,
    pub values_left_off: u64,
    pub other: Amounts,
    pub without: Amounts,
}

/// One metric of the tenant: what it takes, its rows and the points of each that were seen.
struct Metric {
    amounts: Amounts,
    rows: Vec<SeriesRow>,
    seen: Vec<u64>,
    seen_all: u64,
}

impl Shard {
    pub fn usage_tags(&self, request: &Request, check: Check<'_>) -> Result<TagsUsage> {
        let top = request.top.min(TOP_MAX);
        let tenant = self.registry.read().tenant_number(&request.tenant);
        let Some(tenant) = tenant else { return Ok(TagsUsage::default()) };
        let blocks = self.points.read().blocks.clone();
        let points = self.points_by_row(tenant, &blocks, check)?;
        let metrics = self.metrics_of(tenant, &blocks, &points, check)?;
        let mut told = TagsUsage::default();
        for metric in &metrics {
            told.whole.add(&metric.amounts);
            told.points_examined += metric.seen_all;
        }
        match &request.label {
            Some(label) => self.values_usage(&metrics, label, top, check, &mut told)?,
            None => self.all_tags(tenant, &metrics, top, check, &mut told)?,
        }
        Ok(told)
    }

    /// Points of each row of a tenant in the newest blocks.
    fn points_by_row(
        &self,
        tenant: TenantNumber,
        blocks: &[Arc<HeldBlock>],
        check: Check<'_>,
    ) -> Result<Vec<u64>> {
        let rows = self.registry.read().row_count();
        let mut points = Vec::new();
        points.try_reserve_exact(rows).map_err(|_| KernelError::Overloaded {
            retry_after_s: 1.0,
            message: "no memory to look at so many series".to_owned(),
        })?;
        points.resize(rows, 0);
        let (mut buffer, mut bytes) = (Vec::new(), 0);
        for block in blocks.iter().rev() {
            for kind in [Kind::Floats, Kind::Histograms] {
                for (index, page) in block.reader.pages(kind).iter().enumerate() {
                    if page.first.tenant != tenant {
                        continue;
                    }
                    check()?;
                    bytes += u64::from(page.length);
                    if page.first.row == page.last.row && page.first.metric == page.last.metric {
                        add_points(&mut points, page.first.row, page.points);
                        continue;
                    }
                    match block.reader.extents(kind, index, &mut buffer) {
                        Ok(extents) => extents
                            .iter()
                            .for_each(|extent| add_points(&mut points, extent.row, extent.points)),
                        Err(KernelError::Corruption(_)) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            if bytes > EXAMINED_BYTES_MAX {
                break;
            }
        }
        Ok(points)
    }

    fn metrics_of(
        &self,
        tenant: TenantNumber,
        blocks: &[Arc<HeldBlock>],
        points: &[u64],
        check: Check<'_>,
    ) -> Result<Vec<Metric>> {
        let by_metric = self.amounts_by_metric(blocks, check)?;
        let names: Vec<Symbol> = {
            let registry = self.registry.read();
            let index = &registry.tenants[tenant as usize].index;
            index.values(registry.metric_name).map(|(metric, _)| metric).collect()
        };
        let mut metrics = Vec::with_capacity(names.len());
        for name in names {
            check()?;
            let rows = self.registry.read().rows_of(tenant, name);
            let mut amounts = by_metric.get(&(tenant, name)).copied().unwrap_or_default();
            amounts.series = rows.len();
            // Ascending; the newest are the last ones.
            let skipped = (rows.len() as usize).saturating_sub(EXAMINED_MAX);
            let known = rows.iter().skip(skipped).filter(|&row| (row as usize) < points.len());
            let rows: Vec<SeriesRow> = known.collect();
            let seen: Vec<u64> = rows.iter().map(|&row| points[row as usize]).collect();
            let seen_all = seen.iter().sum();
            metrics.push(Metric { amounts, rows, seen, seen_all });
        }
        Ok(metrics)
    }

    /// Each value of one tag.
    fn values_usage(
        &self,
        metrics: &[Metric],
        label: &str,
        top: usize,
        check: Check<'_>,
        told: &mut TagsUsage,
    ) -> Result<()> {
        let name = self.registry.read().strings.find(label.as_bytes());
        let mut by_value: HashMap<Symbol, Sum, FxBuildHasher> = HashMap::default();
        let (mut without, mut other) = (Sum::default(), Sum::default());
        for metric in metrics {
            for start in (0..metric.rows.len()).step_by(SLICE) {
                check()?;
                let registry = self.registry.read();
                let end = (start + SLICE).min(metric.rows.len());
                for at in start..end {
                    let found =
                        registry.symbols(metric.rows[at]).find(|&(known, _)| Some(known) == name);
                    let full = by_value.len() >= VALUES_MAX;
                    match found {
                        None => without.add(metric, at),
                        Some((_, value)) if full && !by_value.contains_key(&value) => {
                            other.add(metric, at);
                        }
                        Some((_, value)) => by_value.entry(value).or_default().add(metric, at),
                    }
                }
            }
        }
        let mut values: Vec<(Symbol, Sum)> = by_value.into_iter().collect();
        values.sort_unstable_by(|a, b| {
            b.1.bytes()
                .total_cmp(&a.1.bytes())
                .then(b.1.series.cmp(&a.1.series))
                .then(a.0.cmp(&b.0))
        });
        let left_off = values.split_off(values.len().min(top));
        told.values_left_off = left_off.len() as u64;
        left_off.iter().for_each(|(_, sum)| other.merge(sum));
        (told.other, told.without) = (other.told(), without.told());
        let registry = self.registry.read();
        told.values = values
            .iter()
            .map(|(value, sum)| ValueUsage {
                value: registry.strings.get(*value).to_owned(),
                amounts: sum.told(),
            })
            .collect();
        Ok(())
    }

    /// Every tag over all metrics, with what would be saved without it.
    fn all_tags(
        &self,
        tenant: TenantNumber,
        metrics: &[Metric],
        top: usize,
        check: Check<'_>,
        told: &mut TagsUsage,
    ) -> Result<()> {
        let mut tags: HashMap<Symbol, (Sum, Sum), FxBuildHasher> = HashMap::default();
        for metric in metrics {
            let (sums, names, left_off) = self.sums_and_names(&metric.rows, check)?;
            told.tags_left_off = told.tags_left_off.max(left_off);
            for name in names {
                let (with, saved) = self.one_tag_usage(metric, &sums, name, check)?;
                let tag = tags.entry(name).or_default();
                tag.0.merge(&with);
                tag.1.merge(&saved);
            }
        }
        let mut tags: Vec<(Symbol, (Sum, Sum))> = tags.into_iter().collect();
        tags.sort_unstable_by(|a, b| {
            let (a_saved, b_saved) = (a.1.1.bytes(), b.1.1.bytes());
            b_saved.total_cmp(&a_saved).then(b.1.0.bytes().total_cmp(&a.1.0.bytes()))
        });
        told.tags_left_off += tags.len().saturating_sub(top) as u64;
        tags.truncate(top);
        let registry = self.registry.read();
        let counts: HashMap<Symbol, usize> =
            registry.tenants[tenant as usize].index.names().collect();
        told.tags = tags
            .iter()
            .map(|(name, (with, saved))| TagUsage {
                tag: registry.strings.get(*name).to_owned(),
                values: counts.get(name).copied().unwrap_or(0) as u64,
                amounts: with.told(),
                saved: saved.told(),
            })
            .collect();
        Ok(())
    }

    /// (what series with the tag take, what would be saved without it) of one metric.
    fn one_tag_usage(
        &self,
        metric: &Metric,
        sums: &[u64],
        name: Symbol,
        check: Check<'_>,
    ) -> Result<(Sum, Sum)> {
        let mut with = Sum::default();
        let mut rests = Vec::with_capacity(sums.len());
        for (slice, sums) in sums.chunks(SLICE).enumerate() {
            check()?;
            let registry = self.registry.read();
            for (&sum, at) in sums.iter().zip(slice * SLICE..) {
                let mut symbols = registry.symbols(metric.rows[at]);
                let rest = match symbols.find(|&(known, _)| known == name) {
                    None => sum,
                    Some((_, value)) => {
                        with.add(metric, at);
                        sum.wrapping_sub(mixed(name, value))
                    }
                };
                rests.push((rest, metric.seen[at]));
            }
        }
        rests.sort_unstable();
        let (mut series, mut points) = (0_u64, 0_u64);
        for one in rests.chunk_by(|a, b| a.0 == b.0) {
            series += 1;
            // Sorted: the last has most points.
            points += one[one.len() - 1].1;
        }
        let lost = metric.rows.len() as u64 - series;
        let share = |part: u64, of: u64| if of == 0 { 0.0 } else { part as f64 / of as f64 };
        let points_lost = if metric.seen_all == 0 {
            share(lost, metric.rows.len() as u64)
        } else {
            share(metric.seen_all - points, metric.seen_all)
        };
        let saved = Sum {
            data_bytes: metric.amounts.data_bytes as f64 * points_lost,
            index_bytes: metric.amounts.index_bytes as f64 * share(lost, metric.rows.len() as u64),
            points: metric.amounts.points as f64 * points_lost,
            series: lost,
        };
        Ok((with, saved))
    }
}

fn add_points(points: &mut [u64], row: SeriesRow, count: u32) {
    // A row that was registered since the table was made has no part in it.
    if let Some(sum) = points.get_mut(row as usize) {
        *sum += u64::from(count);
    }
}

impl Sum {
    /// Take in the series `at` of a metric.
    fn add(&mut self, metric: &Metric, at: usize) {
        let even = 1.0 / metric.rows.len() as f64;
        let of_points = if metric.seen_all == 0 {
            even
        } else {
            metric.seen[at] as f64 / metric.seen_all as f64
        };
        self.data_bytes += metric.amounts.data_bytes as f64 * of_points;
        self.points += metric.amounts.points as f64 * of_points;
        self.index_bytes += metric.amounts.index_bytes as f64 * even;
        self.series += 1;
    }

    fn merge(&mut self, other: &Sum) {
        self.data_bytes += other.data_bytes;
        self.index_bytes += other.index_bytes;
        self.points += other.points;
        self.series += other.series;
    }

    fn bytes(&self) -> f64 {
        self.data_bytes + self.index_bytes
    }

    fn told(&self) -> Amounts {
        Amounts {
            data_bytes: self.data_bytes.round() as u64,
            index_bytes: self.index_bytes.round() as u64,
            points: self.points.round() as u64,
            series: self.series,
        }
    }
}
