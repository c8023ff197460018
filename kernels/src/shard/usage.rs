//! Usage: what each metric of each tenant takes in the blocks, in bytes, points and series.
//!
//! Invariant: the parts of a block sum to its bytes. A page belongs to the metric of its series; one
//! that holds several metrics is split by their points. What stands beside the pages (header,
//! directory, trailer) is told as index and split evenly over the pages. What is damaged, or a
//! deleted tenant's, has no owner. A block is looked at once: it never changes.

use super::block_reader::{BlockReader, Kind};
use super::cardinality::Check;
use super::owner::Shard;
use super::view::HeldBlock;
use crate::codec::page::Extent;
use crate::error::{KernelError, Result};
use crate::model::{Symbol, TenantNumber};
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use serde::Serialize;
use std::cmp::Reverse;
use std::sync::Arc;

/// Parts of blocks that are remembered, over all blocks: 40 MiB. Blocks past it are looked at anew.
const PARTS_MAX: usize = 1 << 20;
/// Metrics that one answer tells, whoever asks for more; a tenant's others are one row.
pub const ROWS_MAX: usize = 100_000;
/// Owner of what nobody can be named for.
const NOBODY: (TenantNumber, Symbol) = (u32::MAX, u32::MAX);

/// What one metric has in a block, or in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amounts {
    /// Of pages.
    pub data_bytes: u64,
    /// Of what finds them.
    pub index_bytes: u64,
    pub points: u64,
    pub series: u64,
}

impl Amounts {
    pub(super) fn add(&mut self, other: &Amounts) {
        self.data_bytes += other.data_bytes;
        self.index_bytes += other.index_bytes;
        self.points += other.points;
        self.series += other.series;
    }
}

type Part = ((TenantNumber, Symbol), Amounts);

/// Blocks by path.
#[derive(Default)]
pub struct BlockParts {
    by_path: HashMap<String, Arc<Vec<Part>>>,
    count: usize,
}

pub(super) type ByMetric = HashMap<(TenantNumber, Symbol), Amounts, FxBuildHasher>;

#[derive(Debug, Serialize)]
pub struct MetricUsage {
    pub tenant: String,
    pub metric: String,
    #[serde(flatten)]
    pub amounts: Amounts,
}

/// Metrics with most bytes first; `rest`: of each tenant those that were left off, `metric` empty.
#[derive(Debug, Serialize)]
pub struct Usage {
    pub metrics: Vec<MetricUsage>,
    pub rest: Vec<MetricUsage>,
    /// Damaged pages, and what deleted tenants still hold.
    pub unassigned: Amounts,
    /// The blocks that were looked at, with their bytes.
    pub blocks: Vec<(String, u64)>,
    pub registry_memory_bytes: usize,
}

impl Shard {
    /// Every metric that has a series, a byte or both.
    pub fn usage(&self, rows_max: usize, check: Check<'_>) -> Result<Usage> {
        let blocks = self.points.read().blocks.clone();
        let mut by_metric = self.amounts_by_metric(&blocks, check)?;
        let registry = self.registry.read();
        for (number, tenant) in registry.tenants.iter().enumerate() {
            for (metric, rows) in tenant.index.values(registry.metric_name) {
                by_metric.entry((number as TenantNumber, metric)).or_default().series =
                    rows.count();
            }
        }
        let mut unassigned = Amounts::default();
        let mut named = Vec::with_capacity(by_metric.len());
        for (owner, amounts) in by_metric {
            let known = registry.tenants.get(owner.0 as usize);
            if known.is_some_and(|tenant| tenant.retired.is_none()) {
                named.push((owner, amounts));
            } else {
                unassigned.add(&Amounts { series: 0, ..amounts });
            }
        }
        let order = |&(owner, amounts): &Part| {
            (Reverse(amounts.data_bytes + amounts.index_bytes), Reverse(amounts.series), owner)
        };
        named.sort_unstable_by_key(order);
        let rest = named.split_off(named.len().min(rows_max.min(ROWS_MAX)));
        let mut left_off: HashMap<TenantNumber, Amounts> = HashMap::new();
        rest.iter().for_each(|(owner, amounts)| left_off.entry(owner.0).or_default().add(amounts));
        let row = |tenant: TenantNumber, metric: &str, amounts: Amounts| MetricUsage {
            tenant: registry.tenants[tenant as usize].name.clone(),
            metric: metric.to_owned(),
            amounts,
        };
        let told = named
            .iter()
            .map(|&((tenant, metric), amounts)| row(tenant, registry.strings.get(metric), amounts));
        let mut rest: Vec<MetricUsage> =
            left_off.iter().map(|(&tenant, &amounts)| row(tenant, "", amounts)).collect();
        rest.sort_unstable_by(|a, b| a.tenant.cmp(&b.tenant));
        Ok(Usage {
            metrics: told.collect(),
            rest,
            unassigned,
            blocks: blocks.iter().map(|block| block_size(&block.reader)).collect(),
            registry_memory_bytes: registry.memory_bytes(),
        })
    }

    /// What blocks hold of each metric; series are not counted here.
    pub(super) fn amounts_by_metric(
        &self,
        blocks: &[Arc<HeldBlock>],
        check: Check<'_>,
    ) -> Result<ByMetric> {
        let mut by_metric = ByMetric::default();
        for block in blocks {
            for (owner, amounts) in self.parts_of(&block.reader, check)?.iter() {
                by_metric.entry(*owner).or_default().add(amounts);
            }
        }
        self.block_parts.lock().keep(blocks);
        Ok(by_metric)
    }

    fn parts_of(&self, reader: &BlockReader, check: Check<'_>) -> Result<Arc<Vec<Part>>> {
        let path = &reader.meta().path;
        if let Some(known) = self.block_parts.lock().by_path.get(path) {
            return Ok(known.clone());
        }
        let parts = Arc::new(parts(reader, check)?);
        self.block_parts.lock().remember(path, &parts);
        Ok(parts)
    }
}

impl BlockParts {
    fn remember(&mut self, path: &str, parts: &Arc<Vec<Part>>) {
        if self.count + parts.len() <= PARTS_MAX
            && self.by_path.insert(path.to_owned(), parts.clone()).is_none()
        {
            self.count += parts.len();
        }
    }

    /// Forget all blocks but these.
    fn keep(&mut self, blocks: &[Arc<HeldBlock>]) {
        let paths: hashbrown::HashSet<&str> =
            blocks.iter().map(|block| block.reader.meta().path.as_str()).collect();
        self.by_path.retain(|path, _| paths.contains(path.as_str()));
        self.count = self.by_path.values().map(|parts| parts.len()).sum();
    }
}

fn block_size(reader: &BlockReader) -> (String, u64) {
    (reader.meta().path.clone(), reader.meta().bytes)
}

/// What a block is made of, in the order of its pages.
fn parts(reader: &BlockReader, check: Check<'_>) -> Result<Vec<Part>> {
    let kinds = [Kind::Floats, Kind::Histograms];
    let pages = || kinds.into_iter().flat_map(|kind| reader.pages(kind));
    let page_bytes: u64 = pages().map(|page| u64::from(page.length)).sum();
    let beside = reader.meta().bytes - page_bytes;
    let mut parts: Vec<Part> = Vec::new();
    let count = pages().count() as u64;
    if count == 0 {
        add(&mut parts, NOBODY, Amounts { index_bytes: beside, ..Amounts::default() });
        return Ok(parts);
    }
    let (each, mut left) = (beside / count, beside % count);
    let mut buffer = Vec::new();
    for kind in kinds {
        for (index, page) in reader.pages(kind).iter().enumerate() {
            let whole = Amounts {
                data_bytes: u64::from(page.length),
                index_bytes: each + std::mem::take(&mut left),
                points: u64::from(page.points),
                series: 0,
            };
            let tenant = page.first.tenant;
            if page.first.metric == page.last.metric {
                add(&mut parts, (tenant, page.first.metric), whole);
                continue;
            }
            check()?;
            match reader.extents(kind, index, &mut buffer) {
                Ok(extents) => split(&mut parts, tenant, &extents, whole),
                Err(KernelError::Corruption(_)) => add(&mut parts, NOBODY, whole),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(parts)
}

/// Split a page over its metrics by their points; what does not divide is the last one's.
fn split(parts: &mut Vec<Part>, tenant: TenantNumber, extents: &[Extent], whole: Amounts) {
    let mut left = whole;
    let mut runs = extents.chunk_by(|a, b| a.metric == b.metric).peekable();
    while let Some(run) = runs.next() {
        let points = run.iter().map(|extent| u64::from(extent.points)).sum();
        let of = |bytes: u64| (u128::from(bytes) * u128::from(points)) / u128::from(whole.points);
        let own = if runs.peek().is_some() {
            Amounts {
                data_bytes: of(whole.data_bytes) as u64,
                index_bytes: of(whole.index_bytes) as u64,
                points,
                series: 0,
            }
        } else {
            left
        };
        left.data_bytes -= own.data_bytes;
        left.index_bytes -= own.index_bytes;
        left.points -= own.points;
        add(parts, (tenant, run[0].metric), own);
    }
}

fn add(parts: &mut Vec<Part>, owner: (TenantNumber, Symbol), amounts: Amounts) {
    match parts.last_mut() {
        Some((last, sum)) if *last == owner => sum.add(&amounts),
        _ => parts.push((owner, amounts)),
    }
}
