//! Figures of a shard for metrics, status and the decisions of its driver. Cheap: short locks.

use super::owner::Shard;
use crate::error::{KernelError, Result};
use crate::journal::JournalStats;
use serde::Serialize;
use std::sync::atomic::Ordering;

/// What the decision to seal goes by.
pub struct Pressure {
    pub points_buffered: u64,
    pub payload_bytes: u64,
    pub next_sequence: u64,
}

#[derive(Serialize)]
struct Figures {
    journal: Option<JournalStats>,
    durable_next: u64,
    applied_next: u64,
    /// Durable records that queries do not see yet.
    lag_records: u64,
    decoded_bytes: usize,
    points_buffered: u64,
    buffer_bytes: usize,
    frozen_points: u64,
    blocks: usize,
    block_bytes: u64,
    block_points: u64,
    series: u64,
    registry_bytes: usize,
    dedup_keys: usize,
    /// What is folded among it.
    governor_bytes: usize,
    /// Past hours of which the cardinality could not be written.
    hours_not_recorded: u64,
    /// Dead letters that no seal has written yet.
    letter_bytes: usize,
    page_cache_bytes: usize,
    page_cache_hits: u64,
    page_cache_misses: u64,
    corrupt_pages: u64,
}

impl Shard {
    pub fn pressure(&self) -> Pressure {
        let (payload_bytes, next_sequence) = {
            let applier = self.applier.lock();
            (applier.payload_bytes, applier.next_sequence)
        };
        let points_buffered = self.points_waiting();
        Pressure { points_buffered, payload_bytes, next_sequence }
    }

    /// (first sequence that is not durable, first that queries do not see).
    pub fn sequences(&self) -> (u64, u64) {
        (self.inbox.durable_next(), self.applied.get().unwrap_or(0))
    }

    pub fn stats_json(&self) -> Result<String> {
        let (durable_next, applied_next) = self.sequences();
        let (dedup_keys, governor_bytes, letter_bytes) = {
            let applier = self.applier.lock();
            let letters = applier.letters.memory_bytes();
            let governor = applier.governor.memory_bytes()
                + applier.fold.memory_bytes()
                + applier.judged.memory_bytes();
            (applier.dedup.len(), governor, letters)
        };
        let (series, registry_bytes) = {
            let registry = self.registry.read();
            (registry.row_count() as u64, registry.memory_bytes())
        };
        let (page_cache_hits, page_cache_misses) = self.page_cache.counts();
        let points = self.points.read();
        let metas = || points.blocks.iter().map(|block| block.reader.meta());
        let figures = Figures {
            journal: self.journal().ok().map(|journal| journal.stats()).or_else(|| {
                let elsewhere = JournalStats { alive: true, ..JournalStats::default() };
                self.inbox.is_fed().then_some(elsewhere)
            }),
            durable_next,
            applied_next,
            lag_records: durable_next.saturating_sub(applied_next),
            decoded_bytes: self.inbox.decoded_bytes(),
            points_buffered: points.buffer.points_added,
            buffer_bytes: points.buffer.memory_bytes(),
            frozen_points: points.frozen.iter().map(|frozen| frozen.points_added).sum(),
            blocks: points.blocks.len(),
            block_bytes: metas().map(|meta| meta.bytes).sum(),
            block_points: metas().map(|meta| meta.points + meta.histogram_points).sum(),
            series,
            registry_bytes,
            dedup_keys,
            governor_bytes,
            hours_not_recorded: self.hours_not_recorded.load(Ordering::Relaxed),
            letter_bytes,
            page_cache_bytes: self.page_cache.memory_bytes(),
            page_cache_hits,
            page_cache_misses,
            corrupt_pages: self.page_cache.damaged(),
        };
        serde_json::to_string(&figures).map_err(|error| KernelError::Backend(error.to_string()))
    }

    /// The version in force, its meters and all tallies, as of the last record applied.
    pub fn governance_json(&self) -> String {
        let applier = self.applier.lock();
        let registry = self.registry.read();
        let governor = &applier.governor;
        serde_json::json!({
            "version": governor.version,
            "meters": governor.readings(&registry),
            "tallies": governor.tallies(&registry),
            "letter_bytes": governor.letter_bytes,
        })
        .to_string()
    }

    /// Explosions of all tenants that nobody is named for, each with the ticket of its first record.
    pub fn explosions_json(&self) -> String {
        let told = self.applier.lock().governor.explosions.told(None);
        let unnamed = told.into_iter().filter(|explosion| explosion.writer.is_none());
        let with_ticket = unnamed.map(|explosion| {
            let ticket = self.inbox.ticket_of(explosion.first_sequence);
            serde_json::json!({"explosion": explosion, "ticket": ticket})
        });
        serde_json::Value::from(with_ticket.collect::<Vec<_>>()).to_string()
    }

    /// (number, received last) of explosions whose writer is named.
    pub fn named_explosions(&self) -> Vec<(u64, i64)> {
        self.applier.lock().governor.explosions.named()
    }

    /// Name who sent the first record of an explosion; false where it is forgotten.
    pub fn name_writer(&self, explosion: u64, writer: &str) -> bool {
        self.applier.lock().governor.explosions.name_writer(explosion, writer)
    }

    /// Forget records that a checkpoint covers; whoever keeps the log that feeds us does it itself.
    pub fn truncate_journal(&self, sequence: u64) -> Result<()> {
        if self.inbox.is_fed() {
            return Ok(());
        }
        self.journal()?.truncate_before(sequence)
    }

    /// Stop taking requests; what was appended is still decided.
    pub fn close(&self) -> Result<()> {
        self.inbox.interrupt();
        if let Ok(journal) = self.journal() {
            journal.close();
        }
        Ok(())
    }
}
