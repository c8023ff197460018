//! `Shard`: owns everything a shard is made of, and the order in which it is locked.
//!
//! Locks, outer to inner: `applier` > `registry` > `points`. Queries take `registry` or `points`
//! for reading, shortly, never both. Invariant: a reader of `points` sees whole records, and each
//! point exactly once in buffer, frozen buffer or block.

use super::apply::{Applier, Policy};
use super::budget::Table;
use super::buffer::Buffer;
use super::coverage::Coverage;
use super::deletion::{Order, Tombstone};
use super::freeze::Frozen;
use super::horizon::{AgeDays, refuse_old};
use super::intake::{Decoded, Inbox, Receipt};
use super::ledger::Ledger;
use super::page_cache::PageCache;
use super::recover::HoursEntry;
use super::registry::Registry;
use super::registry_state::Mark;
use super::reread::decode_again;
use super::usage::BlockParts;
use super::view::HeldBlock;
use crate::disk::Disk;
use crate::error::{KernelError, Result};
use crate::journal::record::RecordHeader;
use crate::journal::{Journal, JournalConfig, OpenReport};
use crate::model::{Batch, PayloadEncoding, PayloadFormat, REJECT_REASON_NAMES, Signal};
use crate::slices::{self, Routing, Slice};
use crate::wire::{self, Decoder};
use parking_lot::{Condvar, Mutex, RwLock};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

/// Room is made by retention, or by people: not in a moment.
const REFUSED_RETRY_S: f64 = 10.0;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    pub journal_directory: String,
    pub segment_bytes: u64,
    pub journal_bytes_max: u64,
    pub group_bytes_max: u64,
    pub queue_bytes_max: u64,
    /// Decoded batches kept between the committer and the applier.
    pub decoded_bytes_max: usize,
    /// Points in the buffer past which nothing is applied until a seal was published.
    pub buffer_points_max: u64,
    pub dedup_keys_max: usize,
    pub page_cache_bytes_max: usize,
    /// Of label hashes; must be unpredictable to clients.
    pub hash_seed: u64,
    pub page_points_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            journal_directory: "journal/metrics".to_owned(),
            segment_bytes: 64 << 20,
            journal_bytes_max: 16 << 30,
            group_bytes_max: 8 << 20,
            queue_bytes_max: 64 << 20,
            decoded_bytes_max: 64 << 20,
            buffer_points_max: 8_000_000,
            dedup_keys_max: super::dedup::DEDUP_KEYS_MAX,
            page_cache_bytes_max: 64 << 20,
            hash_seed: 0,
            page_points_max: 16 * 1024,
        }
    }
}

/// Points by where they are. Blocks stand oldest data first; so do frozen buffers.
#[derive(Default)]
pub struct Points {
    pub buffer: Buffer,
    pub frozen: Vec<Arc<Frozen>>,
    pub blocks: Vec<Arc<HeldBlock>>,
    /// Points that left or entered the stock, as the last manifest counts them.
    pub movements: Movements,
    /// Orders to delete that the manifest names, and those of them that are pending.
    pub orders: Vec<Order>,
    pub tombstones: Vec<Arc<Tombstone>>,
    /// Points deleted since the beginning, by tenant.
    pub deleted: BTreeMap<String, u64>,
    /// The ledger as of the last manifest.
    pub committed: Committed,
    /// Files of recorded hours, oldest first.
    pub hours: Vec<HoursEntry>,
}

/// Outcomes of all records before `next_sequence`, which a manifest covers.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    pub next_sequence: u64,
    pub ledger: Ledger,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Movements {
    pub superseded: u64,
    pub expired: u64,
    pub deleted: u64,
    pub derived: u64,
    pub replayed: u64,
}

/// The sequence up to which records are visible, and who waits for it. None while registry and
/// blocks are being loaded: nothing is visible then.
#[derive(Default)]
pub struct Applied {
    next: Mutex<Option<u64>>,
    moved: Condvar,
}

impl Applied {
    pub fn set(&self, next: u64) {
        *self.next.lock() = Some(next);
        self.moved.notify_all();
    }

    pub fn get(&self) -> Option<u64> {
        *self.next.lock()
    }

    /// Wait until `target` is reached; returns what is missing when `wait_max` is over.
    pub fn wait(&self, target: u64, wait_max: Duration) -> u64 {
        let deadline = Instant::now() + wait_max;
        let missing = |next: Option<u64>| next.map_or(target.max(1), |n| target.saturating_sub(n));
        let mut next = self.next.lock();
        while missing(*next) > 0 {
            if self.moved.wait_until(&mut next, deadline).timed_out() {
                break;
            }
        }
        missing(*next)
    }
}

pub struct Shard {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) options: Options,
    pub(super) decoder: Arc<Decoder>,
    pub(super) inbox: Arc<Inbox>,
    journal: OnceLock<Arc<Journal<Decoded>>>,
    pub(super) applier: Mutex<Applier>,
    pub(super) registry: RwLock<Registry>,
    /// What of the registry the last committed state file took along.
    pub(super) registry_mark: Mutex<Mark>,
    pub(super) points: RwLock<Points>,
    pub(super) applied: Applied,
    pub(super) page_cache: Arc<PageCache>,
    /// What is rolled up, and what came after. A lock of its own, within the others.
    pub(super) coverage: RwLock<Coverage>,
    pub(super) age_days: RwLock<AgeDays>,
    policy_version: AtomicU32,
    /// Hours that a seal could not write (docs/formats/sketches.md).
    pub(super) hours_not_recorded: AtomicU64,
    /// What blocks that were looked at are made of.
    pub(super) block_parts: Mutex<BlockParts>,
    /// Why no request is taken; empty while they are.
    refusing: RwLock<String>,
}

impl Shard {
    /// An empty shard; the journal is not opened yet.
    pub fn new(disk: Arc<dyn Disk>, options: Options) -> Result<Shard> {
        Ok(Shard {
            decoder: Arc::new(Decoder::new(options.hash_seed)),
            inbox: Arc::new(Inbox::new(options.decoded_bytes_max)?),
            journal: OnceLock::new(),
            applier: Mutex::new(Applier::new(options.dedup_keys_max)),
            registry: RwLock::new(Registry::new(options.hash_seed.rotate_left(32))),
            registry_mark: Mutex::default(),
            points: RwLock::new(Points::default()),
            applied: Applied::default(),
            page_cache: PageCache::new(options.page_cache_bytes_max),
            coverage: RwLock::default(),
            age_days: RwLock::default(),
            policy_version: AtomicU32::new(0),
            hours_not_recorded: AtomicU64::new(0),
            block_parts: Mutex::default(),
            refusing: RwLock::default(),
            disk,
            options,
        })
    }

    /// Open the journal after the state files and blocks were loaded; records from
    /// `next_sequence` on are replayed by `advance`. From here on requests are taken.
    pub fn open_journal(&self, next_sequence: u64, fence: u64) -> Result<OpenReport> {
        let options = &self.options;
        let config = JournalConfig {
            directory: options.journal_directory.clone(),
            segment_bytes: options.segment_bytes,
            bytes_max: options.journal_bytes_max,
            group_bytes_max: options.group_bytes_max,
            queue_bytes_max: options.queue_bytes_max,
            // Another number than the label hashes' seed: neither tells the other.
            salt: xxh3_64_with_seed(b"journal", options.hash_seed),
        };
        let (journal, report) =
            Journal::open(self.disk.clone(), config, next_sequence, fence, self.inbox.clone())?;
        let mut applier = self.applier.lock();
        (applier.next_sequence, applier.frozen_sequence) = (next_sequence, next_sequence);
        drop(applier);
        self.inbox.opened(report.next_sequence);
        let fresh = self.journal.set(Arc::new(journal)).is_ok();
        assert!(fresh, "the journal is opened once");
        Ok(report)
    }

    pub fn journal(&self) -> Result<&Arc<Journal<Decoded>>> {
        self.journal.get().ok_or_else(|| KernelError::Backend("the journal is not open".into()))
    }

    /// Registry and blocks are loaded: `advance` may begin, and queries find what there is.
    pub fn loaded(&self) {
        let next_sequence = self.applier.lock().next_sequence;
        self.applied.set(next_sequence);
    }

    /// Versions that records may name, and the one that new records will; `refusing` says why
    /// no request is taken at all, or is empty.
    pub fn set_policies(&self, policies: &[Policy], current: u32, refusing: &str) {
        refusing.clone_into(&mut self.refusing.write());
        let table = policies.iter().map(|policy| (policy.version, *policy)).collect();
        self.applier.lock().policies = table;
        self.policy_version.store(current, Ordering::Release);
    }

    /// Compiled policies that `set_policies` names: all of them, before it names them.
    pub fn set_tables(&self, tables: Vec<Table>) {
        self.applier.lock().governor.set_tables(tables);
    }

    /// Decode, validate and hand to the committer. Never waits for the disk.
    pub fn receive(
        &self,
        body: &[u8],
        tenant: &str,
        format: PayloadFormat,
        encoding: PayloadEncoding,
        received_ms: i64,
    ) -> Result<Receipt> {
        let journal = self.journal()?;
        let (header, batch, mut receipt) =
            self.decode_request(body, tenant, format, encoding, received_ms)?;
        let empty = batch.points_good() == 0 && batch.metadata.is_empty();
        let payload = if empty { Vec::new() } else { body.to_vec() };
        let decoded = Decoded { batch, payload_bytes: payload.len(), undecodable: false };
        receipt.ticket = journal.append(header, payload, decoded)?;
        Ok(receipt)
    }

    /// A request's header, good rows and receipt, by the policies and ages in force.
    fn decode_request(
        &self,
        body: &[u8],
        tenant: &str,
        format: PayloadFormat,
        encoding: PayloadEncoding,
        received_ms: i64,
    ) -> Result<(RecordHeader, Batch, Receipt)> {
        let refusing = self.refusing.read();
        if !refusing.is_empty() {
            let message = refusing.clone();
            return Err(KernelError::Overloaded { retry_after_s: REFUSED_RETRY_S, message });
        }
        drop(refusing);
        let mut batch = wire::decode(body, format, encoding, received_ms, &self.decoder)?;
        let age_days = self.age_days_of(tenant);
        refuse_old(&mut batch, received_ms, age_days);
        let header = RecordHeader {
            signal: Signal::Metrics as u8,
            format: format as u8,
            encoding: encoding as u8,
            decoder_version: wire::DECODER_VERSION,
            policy_version: self.policy_version.load(Ordering::Acquire),
            age_days,
            received_ms,
            dedup_key: dedup_key(body, tenant, format, encoding),
            points_received: batch.points_received,
            points_rejected: batch.points_rejected,
            tenant: tenant.to_owned(),
            ..RecordHeader::default()
        };
        let receipt = Receipt {
            ticket: 0,
            points_received: batch.points_received,
            rejected: REJECT_REASON_NAMES
                .iter()
                .zip(batch.points_rejected)
                .filter(|(_, count)| *count > 0)
                .map(|(reason, count)| (*reason, count))
                .collect(),
            first_error: batch.first_error.clone(),
            samples: batch.point_value.len(),
            histograms: batch.histograms.len(),
            exemplars: batch.exemplars_received,
        };
        Ok((header, batch, receipt))
    }

    /// As `receive`, for a log that others keep: the request's header, its receipt, and its slices.
    /// Nothing is queued.
    pub fn slice(
        &self,
        body: &[u8],
        tenant: &str,
        (format, encoding): (PayloadFormat, PayloadEncoding),
        received_ms: i64,
        routing: &Routing,
    ) -> Result<(RecordHeader, Receipt, Vec<Slice>)> {
        let (header, batch, receipt) =
            self.decode_request(body, tenant, format, encoding, received_ms)?;
        let slices = slices::cut(&header, &batch, routing)?;
        self.decoder.recycle(batch);
        Ok((header, receipt, slices))
    }

    /// The slices of a request that was kept as it came: the same ones, with the same keys.
    pub fn slice_again(
        &self,
        header: &RecordHeader,
        body: &[u8],
        routing: &Routing,
    ) -> Result<Vec<Slice>> {
        let decoded = decode_again(&self.decoder, header, body);
        if decoded.undecodable {
            return Err(KernelError::corruption("a kept request cannot be decoded"));
        }
        let slices = slices::cut(header, &decoded.batch, routing)?;
        self.decoder.recycle(decoded.batch);
        Ok(slices)
    }

    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }
}

/// A batch's identity: its tenant and bytes. Every row carries a client's time, so equal bytes are
/// equal points. Zero is kept for "no key".
fn dedup_key(body: &[u8], tenant: &str, format: PayloadFormat, encoding: PayloadEncoding) -> u128 {
    let door = u64::from(format as u8) << 8 | u64::from(encoding as u8);
    let seed = xxh3_128_with_seed(tenant.as_bytes(), door) as u64;
    xxh3_128_with_seed(body, seed).max(1)
}
