//! Orders to delete: what queries see no more, and what a merge leaves out.
//!
//! An order takes points of records before its `end_sequence`: all of them were in blocks when it
//! was committed, and while it is pending no block holds points from both sides. Invariant: an order
//! is followed once, under the applier's lock, and the state file says that it was; so after a crash
//! what the manifest names and the state does not is followed again.

use super::block_reader::{BlockReader, Kind};
use super::coverage::PendingOrder;
use super::matcher::Matcher;
use super::owner::{Points, Shard};
use super::registry::Registry;
use crate::error::{KernelError, Result};
use crate::model::{SeriesKey, SeriesRow};
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// An order as the manifest has it (docs/formats/manifest.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub number: u64,
    pub tenant: String,
    /// The tenant with all it has, its name too; `matchers` is empty then.
    pub whole: bool,
    pub matchers: Vec<Matcher>,
    /// Points before; None: of any time.
    pub before_ms: Option<i64>,
    pub end_sequence: u64,
    /// Points past their tenant's retention: windows of them stay.
    #[serde(default)]
    pub raw_only: bool,
    pub asked_ms: i64,
    pub actor: String,
    pub series: u64,
    pub points: u64,
    /// Points of dead letters.
    pub letter_points: u64,
    /// Windows of the warm and cold tiers.
    #[serde(default)]
    pub windows: u64,
    pub done_ms: Option<i64>,
}

/// A pending order, as reads and merges go by it.
pub struct Tombstone {
    pub number: u64,
    end_sequence: u64,
    /// No door takes a point of the last time there is, so it stands for "any".
    before_ms: i64,
    rows: RoaringBitmap,
    /// Those of `rows`, ascending.
    keys: Vec<SeriesKey>,
}

/// Time from which points of `row` in a block of records up to `last_sequence` are there, and the
/// order that took those before; `i64::MIN` where none did.
pub fn kept_from(
    tombstones: &[Arc<Tombstone>],
    row: SeriesRow,
    last_sequence: u64,
) -> (i64, Option<u64>) {
    let hiding = tombstones.iter().filter(|t| last_sequence < t.end_sequence);
    let hiding = hiding.filter(|t| t.rows.contains(row));
    hiding.map(|t| (t.before_ms, Some(t.number))).max().unwrap_or((i64::MIN, None))
}

impl Tombstone {
    fn new(order: &Order, rows: RoaringBitmap, registry: &Registry) -> Tombstone {
        let mut keys: Vec<SeriesKey> = rows.iter().map(|row| registry.key(row)).collect();
        keys.sort_unstable();
        let before_ms = order.before_ms.unwrap_or(i64::MAX);
        let Order { number, end_sequence, .. } = *order;
        Tombstone { number, end_sequence, before_ms, rows, keys }
    }

    /// May the block hold a point that has to go? By its pages' ends.
    fn touches(&self, reader: &BlockReader) -> bool {
        [Kind::Floats, Kind::Histograms].into_iter().flat_map(|kind| reader.pages(kind)).any(
            |page| {
                let at = self.keys.partition_point(|key| *key < page.first);
                page.min_ms < self.before_ms && self.keys.get(at).is_some_and(|k| *k <= page.last)
            },
        )
    }
}

/// Orders that were followed: a section of the state file.
#[derive(Clone, Debug, Default)]
pub struct Followed(pub BTreeSet<u64>);

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    followed: BTreeSet<u64>,
    /// (tenant's number, order's number).
    retired: Vec<(u32, u64)>,
}

impl Followed {
    /// `u32 length, JSON, roaring bitmap`.
    pub fn encode(&self, registry: &Registry) -> Vec<u8> {
        let head = Head { followed: self.0.clone(), retired: registry.retired() };
        let json = serde_json::to_vec(&head).unwrap_or_default();
        let mut bytes = (json.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(&json);
        let gone = registry.gone();
        gone.serialize_into(&mut bytes).expect("a vector takes all bytes");
        bytes
    }

    /// Stands before the registry's section, so tenants are retired before their names come again.
    pub fn load(&mut self, bytes: &[u8], registry: &mut Registry) -> Option<()> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (json, gone) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let head: Head = serde_json::from_slice(json).ok()?;
        let gone = RoaringBitmap::deserialize_from(gone).ok()?;
        self.0 = head.followed;
        registry.restore_gone(gone, &head.retired);
        Some(())
    }
}

impl Shard {
    /// Follow orders that were not yet, and hide what those that are pending take.
    pub(super) fn follow(&self, orders: &[Order]) -> Result<()> {
        let mut applier = self.applier.lock();
        if orders.is_empty() && applier.followed.0.is_empty() {
            return Ok(());
        }
        let mut registry = self.registry.write();
        let followed = applier.followed.0.clone();
        for order in orders.iter().filter(|order| !followed.contains(&order.number)) {
            if order.whole {
                registry.retire(&order.tenant, order.number);
                registry.retired_by(order.number).into_iter().for_each(|tenant| {
                    applier.fold.forget_tenant(tenant);
                });
                applier.governor.explosions.forget(&order.tenant);
            } else if order.before_ms.is_some() {
                self.mark_cut(order, applier.next_sequence.saturating_sub(1));
            } else {
                // A damaged block leaves series told that have no point: no reason to stop here.
                if let Ok(later) = self.points.read().rows_from(order.end_sequence) {
                    let rows = registry.ordered_rows(order)? - later;
                    applier.forget_days(&rows);
                    registry.hide(rows);
                }
            }
        }
        applier.followed.0 = orders.iter().map(|order| order.number).collect();
        let mut points = self.points.write();
        let before = std::mem::take(&mut points.tombstones);
        for order in orders.iter().filter(|order| order.done_ms.is_none()) {
            let known = before.iter().find(|tombstone| tombstone.number == order.number);
            let tombstone = match known {
                Some(known) => known.clone(),
                None => {
                    let rows = registry.ordered_rows(order)?;
                    Arc::new(Tombstone::new(order, rows, &registry))
                }
            };
            points.tombstones.push(tombstone);
        }
        points.orders = orders.to_vec();
        Ok(())
    }

    /// How many series an order would take. Errors: a matcher's regular expression (400).
    pub fn count_ordered(&self, tenant: &str, matchers: &[Matcher]) -> Result<u64> {
        let registry = self.registry.read();
        let Some(tenant) = registry.tenant_number(tenant) else { return Ok(0) };
        Ok(registry.find_rows(tenant, matchers, None)?.len())
    }

    /// Does the registry know the tenant by its name? One whose points are all gone too.
    pub fn knows_tenant(&self, tenant: &str) -> bool {
        self.registry.read().tenant_number(tenant).is_some()
    }

    /// (order, series that it takes) of those pending, and the blocks that may hold their points.
    pub fn erasing(&self) -> (Vec<(u64, u64)>, Vec<String>) {
        let points = self.points.read();
        let orders = points.tombstones.iter().map(|t| (t.number, t.rows.len())).collect();
        let touched = points.blocks.iter().filter(|block| {
            points.tombstones.iter().any(|tombstone| {
                block.last_sequence < tombstone.end_sequence && tombstone.touches(&block.reader)
            })
        });
        (orders, touched.map(|block| block.reader.meta().path.clone()).collect())
    }

    /// The tombstones that take points of all of these blocks.
    pub(super) fn tombstones_of(&self, inputs: &[String]) -> Vec<Arc<Tombstone>> {
        let points = self.points.read();
        let of = |path: &String| points.blocks.iter().find(|b| b.reader.meta().path == *path);
        let last = inputs.iter().filter_map(of).map(|block| block.last_sequence).max();
        let hides = |t: &&Arc<Tombstone>| last.is_some_and(|last| last < t.end_sequence);
        points.tombstones.iter().filter(hides).cloned().collect()
    }
}

impl Registry {
    fn ordered_rows(&self, order: &Order) -> Result<RoaringBitmap> {
        let tenant = if order.whole {
            self.retired_by(order.number)
        } else {
            self.tenant_number(&order.tenant)
        };
        let Some(tenant) = tenant else { return Ok(RoaringBitmap::new()) };
        self.matching_rows(tenant, &order.matchers, None)
    }
}

impl Points {
    /// The highest number of an order that was followed: points that are pinned from here on are
    /// without what it takes.
    pub(super) fn newest_order(&self) -> u64 {
        self.orders.iter().map(|order| order.number).max().unwrap_or(0)
    }

    pub(super) fn pending_orders(&self, tenant: &str) -> Vec<PendingOrder> {
        let takes_windows = |order: &&Order| order.done_ms.is_none() && !order.raw_only;
        let pending = |order: &&Order| takes_windows(order) && order.tenant == tenant;
        let told = |order: &Order| PendingOrder {
            number: order.number,
            matchers: order.matchers.clone(),
            before_ms: order.before_ms,
        };
        self.orders.iter().filter(pending).map(told).collect()
    }

    /// Rows with points of records from `sequence` on: those of buffers, which begin there or
    /// later, and of later blocks.
    fn rows_from(&self, sequence: u64) -> Result<RoaringBitmap> {
        let mut rows = RoaringBitmap::new();
        let frozen = self.frozen.iter();
        for run in self.buffer.runs.iter().chain(frozen.clone().flat_map(|frozen| &frozen.runs)) {
            rows.extend(run.rows());
        }
        rows.extend(&self.buffer.tail_rows);
        let histograms = frozen.flat_map(|frozen| &frozen.histograms);
        rows.extend(self.buffer.histograms.iter().chain(histograms).map(|h| h.row));
        for block in self.blocks.iter().filter(|block| block.last_sequence >= sequence) {
            let mut add = |key: SeriesKey| {
                rows.insert(key.row);
                Ok::<(), KernelError>(())
            };
            block.reader.scan(&mut |key, _, _| add(key))?;
            block.reader.scan_histograms(&mut |key, _, _| add(key))?;
        }
        Ok(rows)
    }
}
