//! Which partition a series is in: a pure function of tenant and labels, the same on all gateways.

use crate::error::{KernelError, Result};
use crate::model::{Batch, BatchSeries, FamilyMetadata};
use crate::shard::metadata::Families;
use crate::wire::{canonical_labels, metric_name};
use std::collections::{BTreeMap, BTreeSet};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

const SPREAD_MAX: usize = 1_000;
/// A row with its labels always fits: the largest histogram and the longest labels are shorter.
pub const RECORD_BYTES_MIN: usize = 900_000;
pub const RECORD_BYTES_MAX: usize = 32 << 20;

/// How a topic's partitions share the series.
#[derive(Debug)]
pub struct Routing {
    partitions: u16,
    /// By (tenant, metric): how many partitions it takes.
    spread: BTreeMap<(String, String), u16>,
    /// Of a record, header and payload.
    pub record_bytes_max: usize,
    /// Stands for all of it but the record's size, in slice keys.
    pub number: u64,
}

impl Routing {
    /// Errors: `Client` 400 where a number is out of its range.
    pub fn new(
        partitions: u16,
        spread: Vec<(String, String, u16)>,
        record_bytes_max: usize,
    ) -> Result<Routing> {
        let refuse = |what: &str| KernelError::client(400, "sluiceway-routing", what);
        if partitions == 0 {
            return Err(refuse("a topic has at least one partition"));
        }
        if !(RECORD_BYTES_MIN..=RECORD_BYTES_MAX).contains(&record_bytes_max) {
            return Err(refuse("record_bytes_max is 900,000 to 33,554,432"));
        }
        if spread.len() > SPREAD_MAX {
            return Err(refuse("at most 1,000 metrics are spread"));
        }
        let mut held = BTreeMap::new();
        for (tenant, metric, width) in spread {
            if !(2..=partitions).contains(&width) {
                return Err(refuse("a metric is spread over 2 partitions at least, all at most"));
            }
            held.insert((tenant, metric), width);
        }
        let mut text = format!("1 {partitions}");
        for ((tenant, metric), width) in &held {
            text.push_str(&format!("\n{tenant}\0{metric}\0{width}"));
        }
        let number = xxh3_64(text.as_bytes());
        Ok(Routing { partitions, spread: held, record_bytes_max, number })
    }

    pub fn partition(&self, tenant: &str, metric: &[u8]) -> u16 {
        let mut hasher = Xxh3Default::new();
        hasher.update(tenant.as_bytes());
        hasher.update(&[0]);
        hasher.update(metric);
        (hasher.digest() % u64::from(self.partitions)) as u16
    }

    /// The partition of each series of a batch. Errors: `Corruption` where labels were not judged.
    pub fn partitions_of(&self, tenant: &str, batch: &Batch) -> Result<Vec<u16>> {
        if self.partitions == 1 {
            return Ok(vec![0; batch.series.len()]);
        }
        let mut canonical = Vec::new();
        // Senders put the series of a metric together.
        let mut last: (&[u8], u16, u16) = (&[], self.partition(tenant, &[]), 0);
        let mut found = Vec::with_capacity(batch.series.len());
        for series in &batch.series {
            let labels = labels_of(batch, series);
            let metric = metric_name(labels, series.canonical)?;
            if metric != last.0 {
                last = (metric, self.partition(tenant, metric), self.width(tenant, metric));
            }
            let (_, mut partition, width) = last;
            if width > 0 {
                canonical.clear();
                if series.canonical {
                    canonical.extend_from_slice(labels);
                } else {
                    canonical_labels(labels, &mut canonical)?;
                }
                let step = (xxh3_64(&canonical) % u64::from(width)) as u16;
                partition = self.step(partition, step);
            }
            found.push(partition);
        }
        Ok(found)
    }

    /// Where a series of the family can be.
    pub fn family_partitions(&self, tenant: &str, family: &FamilyMetadata) -> BTreeSet<u16> {
        let mut found = BTreeSet::new();
        for metric in Families::metrics_of(&family.name) {
            let first = self.partition(tenant, metric.as_bytes());
            let width = self.width(tenant, metric.as_bytes()).max(1);
            found.extend((0..width).map(|step| self.step(first, step)));
        }
        found
    }

    /// 0 where the metric is not spread.
    fn width(&self, tenant: &str, metric: &[u8]) -> u16 {
        if self.spread.is_empty() {
            return 0;
        }
        let Ok(metric) = std::str::from_utf8(metric) else { return 0 };
        self.spread.get(&(tenant.to_owned(), metric.to_owned())).copied().unwrap_or(0)
    }

    fn step(&self, partition: u16, step: u16) -> u16 {
        ((u32::from(partition) + u32::from(step)) % u32::from(self.partitions)) as u16
    }
}

pub fn labels_of<'a>(batch: &'a Batch, series: &BatchSeries) -> &'a [u8] {
    &batch.label_bytes[series.label_start as usize..series.label_end as usize]
}
