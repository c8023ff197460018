//! Recovery: state files and blocks of the last manifest, before the journal is replayed.
//!
//! Invariant: what is loaded stands at the manifest's sequence; a file that is not as the manifest
//! says is `Corruption`, never half loaded.

use super::apply::Event;
use super::block::{BlockMeta, BlockOptions};
use super::block_reader::{BlockReader, Kind};
use super::deletion::Order;
use super::freeze::{FileReport, Seal, SealReport, read_checked};
use super::ledger::Ledger;
use super::merge::{MergeReport, merge};
use super::owner::{Committed, Movements, Shard};
use super::page_cache::PageCache;
use super::state_file::{
    self, SECTION_COVERAGE, SECTION_DEDUP, SECTION_DEDUP_NAMELESS, SECTION_DELETED, SECTION_FOLD,
    SECTION_GOVERNANCE, SECTION_LEDGER, SECTION_OPEN_HOUR, SECTION_REGISTRY, SECTION_SEAL,
};
use super::view::HeldBlock;
use crate::codec::Codec;
use crate::disk::Disk;
use crate::error::{KernelError, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// A block as the manifest names it.
#[derive(Debug, Deserialize)]
pub struct BlockEntry {
    pub path: String,
    pub crc32: u32,
    pub first_sequence: u64,
    pub last_sequence: u64,
}

/// What a committed manifest changes for readers.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Publication {
    pub blocks: Vec<BlockEntry>,
    pub blocks_removed: Vec<String>,
    /// The frozen buffer is in `blocks` now.
    pub sealed: bool,
    pub movements: Movements,
    pub deletions: Vec<Order>,
    pub deleted: BTreeMap<String, u64>,
    /// All files of recorded hours, in the order in which they were written.
    pub hours: Vec<HoursEntry>,
}

/// A file of recorded hours as the manifest names it.
#[derive(Clone, Debug, Deserialize)]
pub struct HoursEntry {
    pub path: String,
    pub bytes: u64,
    pub crc32: u32,
}

/// What the state file at `path` says of its seal, and of itself; (report, fence). None where it was
/// written before state files said so. `Corruption` unless it, its block, its letters and its hours are whole.
pub fn read_seal(disk: &dyn Disk, path: &str) -> Result<Option<(SealReport, u64)>> {
    let bytes = disk.read_all(path)?;
    let (header, sections) = state_file::decode(&bytes)?;
    let Some((_, said)) = sections.iter().find(|(tag, _)| *tag == SECTION_SEAL) else {
        return Ok(None);
    };
    let seal: Seal = serde_json::from_slice(said)
        .map_err(|error| KernelError::corruption(format!("{path}: seal: {error}")))?;
    if seal.next_sequence != header.next_sequence {
        return Err(KernelError::corruption(format!("{path}: two next sequences")));
    }
    if let Some(meta) = &seal.block {
        check_block(disk, meta)?;
    }
    if let Some(meta) = &seal.letters {
        read_checked(disk, &meta.path, meta.bytes, meta.crc32)?;
    }
    if let Some(meta) = &seal.hours {
        read_checked(disk, &meta.path, meta.bytes, meta.crc32)?;
    }
    let crc32 = crc32fast::hash(&bytes);
    let state = FileReport { path: path.to_owned(), bytes: bytes.len() as u64, crc32 };
    Ok(Some((SealReport { seal, state }, header.fence)))
}

/// Read a block through, page by page.
fn check_block(disk: &dyn Disk, meta: &BlockMeta) -> Result<()> {
    let reader = BlockReader::open(disk, &meta.path, &PageCache::new(0))?;
    if reader.meta() != meta {
        return Err(KernelError::corruption(format!("{}: not as it was written", meta.path)));
    }
    let mut buffer = Vec::new();
    for kind in [Kind::Floats, Kind::Histograms] {
        for index in 0..reader.pages(kind).len() {
            reader.fill(kind, index, &mut buffer)?;
        }
    }
    Ok(())
}

impl Shard {
    /// Load one state file; in the manifest's order, before the journal is opened.
    pub fn load_state(&self, path: &str, bytes: u64, crc32: u32) -> Result<()> {
        let found = read_checked(&*self.disk, path, bytes, crc32)?;
        let (header, sections) = state_file::decode(&found)?;
        let mut applier = self.applier.lock();
        for (tag, section) in sections {
            let loaded = match tag {
                SECTION_REGISTRY => {
                    let mut registry = self.registry.write();
                    registry.apply_delta(&section)?;
                    *self.registry_mark.lock() = registry.mark();
                    true
                }
                SECTION_DEDUP => applier.dedup.apply(&section),
                SECTION_DEDUP_NAMELESS => applier.dedup.apply_nameless(&section),
                SECTION_LEDGER => {
                    Ledger::from_json(&section).map(|ledger| applier.ledger = ledger).is_some()
                }
                SECTION_GOVERNANCE => {
                    let rows = self.registry.read().row_count();
                    applier.governor.load(&section, rows)?;
                    true
                }
                SECTION_DELETED => {
                    let mut registry = self.registry.write();
                    applier.followed.load(&section, &mut registry).is_some()
                }
                SECTION_FOLD => {
                    applier.fold.load(&section, &self.registry.read())?;
                    true
                }
                SECTION_OPEN_HOUR => {
                    applier.governor.load_open_hour(&section)?;
                    true
                }
                SECTION_COVERAGE => self.coverage.write().load(&section),
                SECTION_SEAL => true,
                _ => false,
            };
            if !loaded {
                return Err(KernelError::corruption(format!("{path}: section {tag}")));
            }
        }
        applier.next_sequence = header.next_sequence;
        applier.frozen_sequence = header.next_sequence;
        let ledger = applier.ledger.clone();
        self.points.write().committed = Committed { next_sequence: header.next_sequence, ledger };
        Ok(())
    }

    /// Show readers what a manifest has committed: all at once.
    pub fn publish(&self, publication: Publication) -> Result<()> {
        let mut added = Vec::with_capacity(publication.blocks.len());
        for entry in publication.blocks {
            let reader = BlockReader::open(&*self.disk, &entry.path, &self.page_cache)?;
            if reader.meta().crc32 != entry.crc32 {
                return Err(KernelError::corruption(format!("{}: checksum", entry.path)));
            }
            added.push(Arc::new(HeldBlock {
                reader: Arc::new(reader),
                first_sequence: entry.first_sequence,
                last_sequence: entry.last_sequence,
            }));
        }
        let removed = &publication.blocks_removed;
        let mut points = self.points.write();
        points.blocks.retain(|block| !removed.contains(&block.reader.meta().path));
        points.blocks.extend(added);
        points.blocks.sort_by_key(|b| (b.last_sequence, b.reader.meta().min_ms));
        if publication.sealed && !points.frozen.is_empty() {
            let sealed = points.frozen.remove(0);
            *self.registry_mark.lock() = sealed.registry;
            let ledger = Ledger::from_json(&sealed.ledger).unwrap_or_default();
            points.committed = Committed { next_sequence: sealed.next_sequence, ledger };
        }
        points.movements = publication.movements;
        points.deleted = publication.deleted;
        points.hours = publication.hours;
        drop(points);
        self.follow(&publication.deletions)
    }

    /// Merge published blocks (paths, oldest data first) into files cut at `cuts_ms`. Blocks for
    /// the whole merge; `erase` leaves out what orders took; changes nothing for readers until `publish`.
    pub fn merge(
        &self,
        inputs: &[String],
        cuts_ms: &[i64],
        paths: &[String],
        codec: Codec,
        erase: bool,
        cancel: &AtomicBool,
    ) -> Result<MergeReport> {
        let tombstones = if erase { self.tombstones_of(inputs) } else { Vec::new() };
        let readers = {
            let points = self.points.read();
            let find = |path: &String| {
                let block = points.blocks.iter().find(|b| b.reader.meta().path == *path);
                block.map(|b| b.reader.clone())
            };
            inputs.iter().map(find).collect::<Option<Vec<_>>>()
        };
        let readers = readers.ok_or_else(|| KernelError::Backend("merge: unknown block".into()))?;
        let mut options = BlockOptions::new(codec);
        options.page_points_max = self.options.page_points_max;
        let report = merge(&*self.disk, &readers, (cuts_ms, paths), options, &tombstones, cancel)?;
        if let Some(path) = paths.first() {
            self.sync_parent(path)?;
        }
        Ok(report)
    }

    /// Replay whatever the journal holds and is durable; for tests and simulation.
    pub fn catch_up(&self) -> Result<Event> {
        loop {
            match self.advance(Duration::ZERO)? {
                Event::Applied => {}
                other => return Ok(other),
            }
        }
    }
}
