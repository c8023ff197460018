//! Rolling: raw points of one tenant and range become a file of windows.
//!
//! Invariant: the file is a function of the points that were visible at one moment and of what the
//! registry says of their series; locks are held for moments, memory for one batch of series.

use super::block_reader::LostPages;
use super::matcher::Matcher;
use super::owner::Shard;
use super::view::{HeldBlock, Snapshot};
use crate::downsample::columns::{Kind, WindowColumns, window_end_ms};
use crate::downsample::file::compare_labels;
use crate::downsample::sketches::sketch_points;
use crate::downsample::warm::{WarmFile, WarmOptions, WarmReport, WarmWriter};
use crate::downsample::window::downsample;
use crate::error::{KernelError, Result};
use crate::evaluate::access::PointSource;
use crate::labels::LabelTable;
use crate::model::{PointColumns, STALE_BITS, SeriesKey, SeriesRow, SeriesType};
use crate::shard::registry::Registry;
use crate::sketch::quantiles::Sketch;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Of one batch: what its points and its windows may come to, about.
const POINTS_BATCH_MAX: u64 = 4 << 20;
const WINDOWS_BATCH_MAX: u64 = 1 << 20;
/// Series of which labels are copied under one lock.
const LABELS_SLICE: usize = 4_096;

/// Windows of `tenant` with an end in (from_ms, until_ms], and the file to put them into.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollRequest {
    pub tenant: String,
    pub from_ms: i64,
    pub until_ms: i64,
    pub window_ms: i64,
    pub path: String,
    /// Go past damaged pages, and tell what was in them.
    #[serde(default)]
    pub past_damage: bool,
    /// Each rule's matchers: windows of series that one names get sketches.
    #[serde(default)]
    pub sketches: Vec<Vec<Matcher>>,
}

/// What the raw points came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rolled {
    pub series: u64,
    pub windows: u64,
    /// Raw points read, stale markers left out.
    pub points: u64,
    /// Stale markers read.
    pub stale: u64,
    /// Every record before it was seen.
    pub through_sequence: u64,
    /// Every order to delete up to it was followed.
    pub orders: u64,
    /// Points of damaged pages that may belong here, and those pages.
    pub lost_points: u64,
    pub lost_pages: Vec<String>,
}

/// What went in, and the file as it was read back.
#[derive(Debug, Serialize)]
pub struct RollReport {
    #[serde(flatten)]
    pub rolled: Rolled,
    pub file: WarmReport,
}

/// Is handed series by metric name and labels, batch by batch, and their windows.
pub type WindowSink<'a> = dyn FnMut(&LabelTable, &WindowColumns) -> Result<()> + 'a;

impl Shard {
    /// Write the windows of `request` to its file, make it durable and read it back.
    ///
    /// On an error no file stays behind.
    pub fn roll_file(&self, request: &RollRequest, cancel: &AtomicBool) -> Result<RollReport> {
        let options = WarmOptions::new(&request.tenant, request.window_ms);
        let mut writer = WarmWriter::create(&*self.disk, &request.path, &options)?;
        let rolled =
            self.roll(request, cancel, &mut |labels, windows| writer.push(labels, windows));
        let report = rolled.and_then(|rolled| {
            writer.finish()?;
            self.sync_parent(&request.path)?;
            let file = WarmFile::open(&*self.disk, &request.path)?.verify()?;
            Ok(RollReport { rolled, file })
        });
        if report.is_err() {
            // Best effort: what cannot be removed is a stray that no catalog names.
            let _ = self.disk.remove(&request.path);
        }
        report
    }

    /// First and last time of the points that no block holds yet.
    pub fn buffered_range_ms(&self) -> Option<(i64, i64)> {
        let points = self.points.read();
        let frozen = points.frozen.iter().flat_map(|frozen| &frozen.runs);
        let runs = points.buffer.runs.iter().chain(frozen).filter_map(|run| run.time_range_ms());
        let tail = points.buffer.tail_times_ms.iter().map(|&time_ms| (time_ms, time_ms));
        runs.chain(tail).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    /// Names of the tenants whose points each block holds, by its path.
    pub fn block_tenants(&self) -> HashMap<String, Vec<String>> {
        let blocks = self.points.read().blocks.clone();
        let registry = self.registry.read();
        let names = |block: &Arc<HeldBlock>| {
            let tenants = block.reader.tenants();
            tenants.into_iter().map(|tenant| registry.tenant_name(tenant).to_owned()).collect()
        };
        blocks.iter().map(|block| (block.reader.meta().path.clone(), names(block))).collect()
    }

    /// Hand the windows of `request` to `sink`. Series without a window are left out.
    ///
    /// Errors: `Cancelled` soon after `cancel` is set; Corruption of a block; what `sink` gives.
    pub fn roll(
        &self,
        request: &RollRequest,
        cancel: &AtomicBool,
        sink: &mut WindowSink,
    ) -> Result<Rolled> {
        let RollRequest { from_ms, until_ms, window_ms, .. } = *request;
        let whole = |ms: i64| window_ms > 0 && window_end_ms(ms, window_ms) == ms;
        if from_ms >= until_ms || !whole(from_ms) || !whole(until_ms) {
            return Err(KernelError::Backend(format!("roll: no windows: {request:?}")));
        }
        // Before the points are pinned: all that it counts is among them.
        let Some(through_sequence) = self.applied.get() else {
            return Err(KernelError::Backend("the shard is being loaded".into()));
        };
        let orders = self.newest_order();
        let range_ms = from_ms + 1..until_ms + 1;
        let keys = self.keys_alive(&request.tenant, &range_ms)?;
        let sketched = self.sketched_rows(request, &range_ms)?;
        let snapshot = self.pin(&keys, range_ms);
        let order = self.by_labels(&keys);
        let mut rolled = Rolled { through_sequence, orders, ..Rolled::default() };
        let lost = LostPages::default();
        let past = request.past_damage.then_some(&lost);
        let mut batch = Batch::default();
        let series_max = batch_series_max(&snapshot, order.len(), (until_ms - from_ms) / window_ms);
        for keys in order.chunks(series_max) {
            if cancel.load(Ordering::Relaxed) {
                return Err(KernelError::Cancelled("roll".into()));
            }
            let asked =
                BatchAsked { keys, kinds: &self.kinds(keys), sketched: &sketched, window_ms };
            let (points, stale) = batch.fill(&snapshot, &asked, past)?;
            rolled.points += points;
            rolled.stale += stale;
            if batch.kept.is_empty() {
                continue;
            }
            rolled.series += batch.kept.len() as u64;
            rolled.windows += batch.windows.window_count() as u64;
            let rows: Vec<SeriesRow> = batch.kept.iter().map(|key| key.row).collect();
            let labels = self.registry.read().label_table(&rows);
            sink(&labels, &batch.windows)?;
        }
        (rolled.lost_points, rolled.lost_pages) = lost.told();
        Ok(rolled)
    }

    /// The highest number of an order to delete that was followed.
    pub fn newest_order(&self) -> u64 {
        self.points.read().newest_order()
    }

    fn keys_alive(&self, tenant: &str, range_ms: &Range<i64>) -> Result<Vec<SeriesKey>> {
        let registry = self.registry.read();
        let Some(tenant) = registry.tenant_number(tenant) else { return Ok(Vec::new()) };
        let everything: &[Matcher] = &[];
        let range = Some((range_ms.start, range_ms.end));
        let rows = registry.select(tenant, everything, range, usize::MAX)?;
        Ok(rows.into_iter().map(|row| registry.key(row)).collect())
    }

    /// Series of which the windows get sketches.
    fn sketched_rows(
        &self,
        request: &RollRequest,
        range_ms: &Range<i64>,
    ) -> Result<HashSet<SeriesRow>> {
        let mut found = HashSet::new();
        let registry = self.registry.read();
        let Some(tenant) = registry.tenant_number(&request.tenant) else { return Ok(found) };
        let range = Some((range_ms.start, range_ms.end));
        for rule in &request.sketches {
            found.extend(registry.select(tenant, rule, range, usize::MAX)?);
        }
        Ok(found)
    }

    /// The keys (of one tenant, ascending) in the order of files: by metric name, then by labels.
    fn by_labels(&self, keys: &[SeriesKey]) -> Vec<SeriesKey> {
        let mut metrics: Vec<(String, &[SeriesKey])> = Vec::new();
        for group in keys.chunk_by(|a, b| a.metric == b.metric) {
            let registry = self.registry.read();
            metrics.push((registry.metric_text(group[0].row).to_owned(), group));
        }
        metrics.sort_unstable();
        let mut order = Vec::with_capacity(keys.len());
        for (_, group) in metrics {
            let tables: Vec<LabelTable> = group
                .chunks(LABELS_SLICE)
                .map(|slice| {
                    let rows: Vec<SeriesRow> = slice.iter().map(|key| key.row).collect();
                    self.registry.read().label_table(&rows)
                })
                .collect();
            let mut places: Vec<usize> = (0..group.len()).collect();
            places.sort_unstable_by(|&a, &b| {
                let (left, right) = (&tables[a / LABELS_SLICE], &tables[b / LABELS_SLICE]);
                compare_labels(left, a % LABELS_SLICE, right, b % LABELS_SLICE)
            });
            order.extend(places.into_iter().map(|place| group[place]));
        }
        order
    }

    fn kinds(&self, keys: &[SeriesKey]) -> Vec<Kind> {
        let registry = self.registry.read();
        keys.iter().map(|key| kind_of(&registry, key.row)).collect()
    }
}

/// What a series' windows are to keep, as far as is known.
fn kind_of(registry: &Registry, row: SeriesRow) -> Kind {
    match registry.series_type(row) {
        SeriesType::Counter => Kind::Counter,
        SeriesType::Gauge
        | SeriesType::GaugeHistogram
        | SeriesType::Info
        | SeriesType::StateSet => Kind::Gauge,
        SeriesType::Unknown => Kind::Unknown,
        declared @ (SeriesType::Histogram | SeriesType::Summary) => {
            let name = registry.metric_text(row);
            if ["_bucket", "_count", "_sum"].iter().any(|suffix| name.ends_with(suffix)) {
                Kind::Counter
            } else if declared == SeriesType::Summary {
                Kind::Gauge
            } else {
                Kind::Unknown
            }
        }
    }
}

/// How many series a batch takes, so that its points and windows stay within their bounds.
fn batch_series_max(snapshot: &Snapshot, series: usize, windows_each: i64) -> usize {
    let points_each = snapshot.estimate() / (series as u64).max(1) + 1;
    let windows_each = points_each.min(windows_each.max(1) as u64);
    let fit = (POINTS_BATCH_MAX / points_each).min(WINDOWS_BATCH_MAX / windows_each);
    usize::try_from(fit).unwrap_or(usize::MAX).clamp(16, 65_536)
}

/// One batch on its way; its buffers are used again.
#[derive(Default)]
struct Batch {
    points: PointColumns,
    windows: WindowColumns,
    /// The series that have windows.
    kept: Vec<SeriesKey>,
    sketch: Sketch,
}

/// The series of a batch, and what their windows are to keep.
struct BatchAsked<'a> {
    keys: &'a [SeriesKey],
    kinds: &'a [Kind],
    sketched: &'a HashSet<SeriesRow>,
    window_ms: i64,
}

impl Batch {
    /// Read the points of the keys and make windows of them, in that order; returns how many
    /// points, and stale markers.
    fn fill(
        &mut self,
        snapshot: &Snapshot,
        asked: &BatchAsked<'_>,
        past: Option<&LostPages>,
    ) -> Result<(u64, u64)> {
        let keys = asked.keys;
        // Blocks are read along their keys, each page once.
        let mut places: Vec<usize> = (0..keys.len()).collect();
        places.sort_unstable_by_key(|&place| keys[place]);
        let sorted: Vec<SeriesKey> = places.iter().map(|&place| keys[place]).collect();
        let mut stands = vec![0; keys.len()];
        for (index, &place) in places.iter().enumerate() {
            stands[place] = index;
        }
        self.points.clear();
        snapshot.read_keys(&sorted, past, &mut self.points)?;
        self.windows.clear();
        self.kept.clear();
        let (mut count, mut stale) = (0, 0);
        for (place, key) in keys.iter().enumerate() {
            let part = self.points.offsets[stands[place]]..self.points.offsets[stands[place] + 1];
            if part.is_empty() {
                continue;
            }
            let (times_ms, values) =
                (&self.points.times_ms[part.clone()], &self.points.values[part]);
            let markers = values.iter().filter(|value| value.to_bits() == STALE_BITS).count();
            count += (values.len() - markers) as u64;
            stale += markers as u64;
            let made = self.windows.window_count();
            downsample(times_ms, values, asked.window_ms, asked.kinds[place], &mut self.windows);
            if asked.sketched.contains(&key.row) {
                let made = made..self.windows.window_count();
                sketch_points(values, made, &mut self.sketch, &mut self.windows);
            }
            self.kept.push(*key);
        }
        Ok((count, stale))
    }
}
