//! What queries see: pinned points of a shard, and the index behind them.
//!
//! A snapshot takes the `points` lock for a moment, copies what is unsorted and keeps `Arc`s of the
//! rest. Sources stand oldest first, so of equal times the last one appended wins.

use super::block_reader::{BlockReader, HistogramSink, Kind, LostPages, PageCursor};
use super::buffer::{BufferedHistogram, RowSet, Run, append_newer};
use super::coverage::CoverageAnswer;
use super::deletion::{Tombstone, kept_from};
use super::estimate::{block_points, run_points};
use super::matcher::Matcher;
use super::owner::Shard;
use super::usage::Usage;
use super::usage_tags::{self, TagsUsage};
use super::whatif;
use super::whatif_report::Report;
use crate::error::Result;
use crate::evaluate::access::{CardinalityStats, Lag, PointSource, ShardAccess};
use crate::labels::LabelTable;
use crate::model::{FamilyMetadata, PointColumns, SeriesKey, SeriesRow};
use serde_json::json;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// A published block and the records it may hold.
pub struct HeldBlock {
    pub reader: Arc<BlockReader>,
    pub first_sequence: u64,
    pub last_sequence: u64,
}

impl HeldBlock {
    fn overlaps(&self, range_ms: &Range<i64>) -> bool {
        let meta = self.reader.meta();
        meta.min_ms < range_ms.end && range_ms.start <= meta.max_ms
    }
}

/// Points of `keys` in a range, as they were at one moment.
pub struct Snapshot {
    keys: Vec<SeriesKey>,
    range_ms: Range<i64>,
    blocks: Vec<Arc<HeldBlock>>,
    tombstones: Vec<Arc<Tombstone>>,
    runs: Vec<Arc<Run>>,
    /// Rows with a buffered histogram in the range.
    histogram_rows: BTreeSet<SeriesRow>,
}

impl ShardAccess for Shard {
    fn coverage(&self, tenant: &str) -> CoverageAnswer {
        Shard::coverage(self, tenant)
    }

    fn whatif_bytes(&self) -> usize {
        Shard::whatif_bytes(self)
    }

    fn usage(&self, rows_max: usize, check: &dyn Fn() -> Result<()>) -> Result<Usage> {
        Shard::usage(self, rows_max, check)
    }

    fn usage_tags(
        &self,
        request: &usage_tags::Request,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<TagsUsage> {
        Shard::usage_tags(self, request, check)
    }

    fn whatif(&self, request: &whatif::Request, check: &dyn Fn() -> Result<()>) -> Result<Report> {
        Shard::whatif(self, request, check)
    }

    fn wait_visible(&self, wait_max: Duration) -> Lag {
        let durable = self.inbox.durable_next();
        Lag { records: self.applied.wait(durable, wait_max) }
    }

    fn select(
        &self,
        tenant: &str,
        matchers: &[Matcher],
        range_ms: Range<i64>,
        series_max: usize,
    ) -> Result<Vec<SeriesKey>> {
        let registry = self.registry.read();
        let Some(tenant) = registry.tenant_number(tenant) else { return Ok(Vec::new()) };
        let range = Some((range_ms.start, range_ms.end));
        let rows = registry.select(tenant, matchers, range, series_max)?;
        Ok(rows.into_iter().map(|row| registry.key(row)).collect())
    }

    fn labels(&self, keys: &[SeriesKey]) -> LabelTable {
        self.registry.read().label_table(&rows_of(keys))
    }

    fn group(&self, keys: &[SeriesKey], names: &[String], without: bool) -> (Vec<u32>, LabelTable) {
        self.registry.read().group_rows(&rows_of(keys), names, without)
    }

    fn snapshot(&self, keys: &[SeriesKey], range_ms: Range<i64>) -> Result<Arc<dyn PointSource>> {
        Ok(Arc::new(self.pin(keys, range_ms)))
    }

    fn label_names(
        &self,
        tenant: &str,
        matchers: &[Matcher],
        range_ms: Range<i64>,
    ) -> Result<Vec<String>> {
        let registry = self.registry.read();
        let Some(tenant) = registry.tenant_number(tenant) else { return Ok(Vec::new()) };
        registry.label_names(tenant, matchers, Some((range_ms.start, range_ms.end)))
    }

    fn label_values(
        &self,
        tenant: &str,
        name: &str,
        matchers: &[Matcher],
        range_ms: Range<i64>,
    ) -> Result<Vec<String>> {
        let registry = self.registry.read();
        let Some(tenant) = registry.tenant_number(tenant) else { return Ok(Vec::new()) };
        registry.label_values(tenant, name, matchers, Some((range_ms.start, range_ms.end)))
    }

    fn metadata(&self, tenant: &str, metric: Option<&str>, limit: usize) -> Vec<FamilyMetadata> {
        let registry = self.registry.read();
        match registry.tenant_number(tenant) {
            Some(tenant) => registry.metadata(tenant, metric, limit),
            None => Vec::new(),
        }
    }

    fn cardinality(&self, tenant: &str, top: usize) -> CardinalityStats {
        let mut stats = {
            let registry = self.registry.read();
            match registry.tenant_number(tenant) {
                Some(tenant) => {
                    let largest = registry.largest(tenant, top);
                    CardinalityStats {
                        series_count: registry.series_count(tenant),
                        label_name_count: largest.label_name_count,
                        series_by_metric: largest.series_by_metric,
                        values_by_label: largest.values_by_label,
                        series_by_pair: largest.series_by_pair,
                        ..CardinalityStats::default()
                    }
                }
                None => CardinalityStats::default(),
            }
        };
        if let Some((min_ms, max_ms)) = self.time_range_ms() {
            (stats.min_time_ms, stats.max_time_ms) = (min_ms, max_ms);
        }
        stats
    }

    fn explain(
        &self,
        tenant: &str,
        metric: Option<&str>,
        top: usize,
        since_ms: Option<i64>,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<String> {
        self.explain_json(tenant, metric, top, since_ms, check)
    }

    fn ledger(&self, raw_scan: bool) -> Result<String> {
        self.ledger_json(raw_scan)
    }
}

impl Shard {
    /// The points of `keys` (sorted) in the range, as they are now.
    pub fn pin(&self, keys: &[SeriesKey], range_ms: Range<i64>) -> Snapshot {
        let rows = RowSet::new(keys.iter().map(|key| key.row));
        let (mut runs, mut histograms) = (Vec::new(), Vec::new());
        let points = self.points.read();
        let blocks = points.blocks.iter().filter(|block| block.overlaps(&range_ms)).cloned();
        let blocks = blocks.collect();
        for frozen in &points.frozen {
            runs.extend(frozen.runs.iter().cloned());
            histograms.extend(matching(&frozen.histograms, &rows, &range_ms));
        }
        runs.extend(points.buffer.runs.iter().cloned());
        histograms.extend(matching(&points.buffer.histograms, &rows, &range_ms));
        let tail = points.buffer.tail_copy(Some(&rows));
        let tombstones = points.tombstones.clone();
        drop(points);
        runs.push(Arc::new(Run::build(&tail.0, &tail.1, &tail.2)));
        runs.retain(|run| run.overlaps(range_ms.start, range_ms.end));
        Snapshot {
            keys: keys.to_vec(),
            range_ms,
            blocks,
            tombstones,
            runs,
            histogram_rows: histograms.into_iter().collect(),
        }
    }

    /// First and last time held, of all tenants.
    fn time_range_ms(&self) -> Option<(i64, i64)> {
        let points = self.points.read();
        let blocks = points.blocks.iter().map(|block| {
            let meta = block.reader.meta();
            (meta.min_ms, meta.max_ms)
        });
        let frozen = points.frozen.iter().flat_map(|frozen| &frozen.runs);
        let runs = points.buffer.runs.iter().chain(frozen).filter_map(|run| run.time_range_ms());
        let tail = points.buffer.tail_times_ms.iter().map(|&time_ms| (time_ms, time_ms));
        blocks.chain(runs).chain(tail).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    /// Flow per tenant, movements, and the stock equation: rows at rest + buffer = stored +
    /// derived - superseded - expired - deleted. A raw scan counts the rows instead of believing
    /// the blocks' directories.
    pub fn ledger_json(&self, raw_scan: bool) -> Result<String> {
        let applier = self.applier.lock();
        let points = self.points.read();
        let (ledger, sequence) = (applier.ledger.clone(), applier.next_sequence);
        let blocks = points.blocks.clone();
        let (movements, committed) = (points.movements, points.committed.clone());
        let (deleted, orders) = (points.deleted.clone(), points.orders.clone());
        let frozen_rows: u64 = points.frozen.iter().map(|frozen| frozen.row_points()).sum();
        let frozen_added: u64 = points.frozen.iter().map(|frozen| frozen.points_added).sum();
        let buffer_rows = frozen_rows + points.buffer.row_points();
        let buffer_superseded = frozen_added + points.buffer.points_added - buffer_rows;
        drop((points, applier));
        let declared: u64 = blocks
            .iter()
            .map(|block| block.reader.meta().points + block.reader.meta().histogram_points)
            .sum();
        let scanned = if raw_scan {
            let mut rows = 0;
            for block in &blocks {
                block.reader.scan(&mut |_, times_ms, _| {
                    rows += times_ms.len() as u64;
                    Ok(())
                })?;
                block.reader.scan_histograms(&mut |_, _, _| {
                    rows += 1;
                    Ok(())
                })?;
            }
            Some(rows)
        } else {
            None
        };
        let brought = ledger.brought();
        let superseded = movements.superseded + buffer_superseded;
        let gone = superseded + movements.expired + movements.deleted;
        let expected = (brought + movements.derived) as i128 - gone as i128;
        let block_rows = scanned.unwrap_or(declared);
        let flow_balanced = ledger.tenants.values().all(super::ledger::Outcomes::balanced);
        let balanced = i128::from(block_rows + buffer_rows) == expected && flow_balanced;
        let answer = json!({
            "next_sequence": sequence,
            "tenants": ledger.tenants,
            "lost_records": ledger.lost_records,
            "committed": {
                "next_sequence": committed.next_sequence,
                "tenants": committed.ledger.tenants,
            },
            "movements": {
                "superseded": superseded,
                "expired": movements.expired,
                "deleted": movements.deleted,
                "derived": movements.derived,
                "replayed": movements.replayed,
            },
            "stock": {
                "block_rows": block_rows,
                "buffer_rows": buffer_rows,
                "expected_rows": expected as i64,
                "raw_scan": raw_scan,
            },
            "balanced": balanced,
            "deleted": deleted,
            "deletions": orders,
        });
        Ok(answer.to_string())
    }
}

impl Snapshot {
    /// Append the float points of `keys`, which ascend and are among those pinned. With `lost`,
    /// damaged pages are noted there and passed over.
    pub(super) fn read_keys(
        &self,
        keys: &[SeriesKey],
        lost: Option<&LostPages>,
        out: &mut PointColumns,
    ) -> Result<u64> {
        let before = out.times_ms.len();
        let (from_ms, until_ms) = (self.range_ms.start, self.range_ms.end);
        let cursors = self.blocks.iter().map(|block| {
            let cursor = match lost {
                None => block.reader.cursor(Kind::Floats),
                Some(lost) => block.reader.cursor_past(Kind::Floats, lost),
            };
            (cursor, block.last_sequence)
        });
        let mut blocks: Vec<(PageCursor<'_>, u64)> = cursors.collect();
        let mut run_cursors = vec![0_usize; self.runs.len()];
        for key in keys {
            let start = out.times_ms.len();
            for (block, last_sequence) in &mut blocks {
                let (kept_ms, _) = kept_from(&self.tombstones, key.row, *last_sequence);
                block.series(*key, from_ms.max(kept_ms), until_ms, &mut |page, series, part| {
                    let times_ms = &page.times(series)[part.clone()];
                    let values = &page.values(series)[part];
                    append_newer(&mut out.times_ms, &mut out.values, start, times_ms, values);
                    Ok(())
                })?;
            }
            for (run, cursor) in self.runs.iter().zip(&mut run_cursors) {
                let (times_ms, values) = run.seek(cursor, key.row, from_ms, until_ms);
                append_newer(&mut out.times_ms, &mut out.values, start, times_ms, values);
            }
            out.end_series();
        }
        Ok((out.times_ms.len() - before) as u64)
    }
}

impl Snapshot {
    /// Hand the native histograms of the series `range` that stand in blocks to `sink`.
    pub fn sealed_histograms(&self, range: Range<usize>, sink: &mut HistogramSink) -> Result<()> {
        let keys = &self.keys[range];
        let (from_ms, until_ms) = (self.range_ms.start, self.range_ms.end);
        for block in self.blocks.iter().filter(|b| b.reader.meta().histogram_points > 0) {
            block.reader.read_histograms(
                keys,
                from_ms,
                until_ms,
                &mut |index, time_ms, bytes| {
                    let kept = kept_from(&self.tombstones, keys[index].row, block.last_sequence);
                    if time_ms >= kept.0 { sink(index, time_ms, bytes) } else { Ok(()) }
                },
            )?;
        }
        Ok(())
    }
}

impl PointSource for Snapshot {
    fn read(&self, range: Range<usize>, out: &mut PointColumns) -> Result<u64> {
        self.read_keys(&self.keys[range], None, out)
    }

    fn estimate(&self) -> u64 {
        let (keys, range_ms) = (&self.keys, &self.range_ms);
        let blocks = self.blocks.iter().map(|block| block_points(&block.reader, keys, range_ms));
        let runs = self.runs.iter().map(|run| run_points(run, keys, range_ms));
        blocks.chain(runs).fold(0, u64::saturating_add)
    }

    fn histogram_series_count(&self, range: Range<usize>) -> Result<u64> {
        let keys = &self.keys[range.clone()];
        let mut found: BTreeSet<usize> = keys
            .iter()
            .enumerate()
            .filter(|(_, key)| self.histogram_rows.contains(&key.row))
            .map(|(index, _)| index)
            .collect();
        self.sealed_histograms(range, &mut |index, _, _| {
            found.insert(index);
            Ok(())
        })?;
        Ok(found.len() as u64)
    }
}

fn rows_of(keys: &[SeriesKey]) -> Vec<SeriesRow> {
    keys.iter().map(|key| key.row).collect()
}

fn matching<'a>(
    histograms: &'a [BufferedHistogram],
    rows: &'a RowSet,
    range_ms: &'a Range<i64>,
) -> impl Iterator<Item = SeriesRow> + 'a {
    histograms
        .iter()
        .filter(|h| range_ms.contains(&h.time_ms) && rows.contains(h.row))
        .map(|h| h.row)
}
