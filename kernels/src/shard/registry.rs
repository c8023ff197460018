//! The registry: which series a shard knows. Row numbers are dense, persistent and never reused.
//!
//! One writer (`&mut self`), many readers (`&self`); the shard owns the lock. Invariants: rows of
//! all tenants share one numbering, a row's labels never change, and equal label sets of a tenant
//! have one row. The id is only a way to find the row: labels are compared before it is believed.

use super::aliases::Aliases;
use super::alive::AliveDays;
use super::metadata::{Families, RowTypes};
use super::postings::TenantIndex;
use super::register::{Memory, Recent};
use crate::labels::canonical;
use crate::labels::{Interner, METRIC_NAME, Shapes};
use crate::model::{SeriesKey, SeriesRow, Symbol, TenantNumber};
use hashbrown::{HashMap, HashTable};
use parking_lot::Mutex;
use roaring::RoaringBitmap;
use xxhash_rust::xxh3::xxh3_128;

/// What every row has; its values are `Registry::values[value_start..]`, one a name of its shape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub value_start: u32,
    pub shape: u32,
    pub tenant: TenantNumber,
    pub metric: Symbol,
}

pub(super) struct Tenant {
    pub name: String,
    /// The order that deleted it: no name leads to it.
    pub retired: Option<u64>,
    pub index: TenantIndex,
}

pub struct Registry {
    pub(super) strings: Interner,
    pub(super) shapes: Shapes,
    pub(super) tenants: Vec<Tenant>,
    pub(super) tenant_numbers: HashMap<String, TenantNumber>,
    pub(super) rows: Vec<Row>,
    pub(super) values: Vec<Symbol>,
    /// Series id of each row, in halves.
    pub(super) ids: Vec<[u64; 2]>,
    pub(super) by_id: HashTable<SeriesRow>,
    aliases: Aliases,
    pub(super) types: RowTypes,
    pub(super) families: Families,
    pub(super) alive: AliveDays,
    /// Rows without a point since an order took them all (retire.rs).
    pub(super) gone: RoaringBitmap,
    /// (hour since 1970, first row registered in it): rows ascend with time.
    pub(super) hours: Vec<(i64, SeriesRow)>,
    /// Grows with every change of something that exists; new things are told by their number.
    pub(super) version: u64,
    pub(super) metric_name: Symbol,
    /// (rows, bytes) when the postings were last walked.
    measured: Mutex<(usize, usize)>,
    pub(super) recent: Memory,
    pub(super) next: Vec<Recent>,
    pub(super) scratch: Vec<u8>,
}

/// The series id: XXH3-128 of `varint(tenant length) tenant` and the canonical labels.
pub fn series_id(tenant: &str, labels: &[u8]) -> u128 {
    let mut bytes = Vec::with_capacity(tenant.len() + labels.len() + 4);
    series_id_with(tenant, labels, &mut bytes)
}

pub(super) fn series_id_with(tenant: &str, labels: &[u8], scratch: &mut Vec<u8>) -> u128 {
    scratch.clear();
    canonical::push_length(scratch, tenant.len());
    scratch.extend_from_slice(tenant.as_bytes());
    scratch.extend_from_slice(labels);
    xxh3_128(scratch)
}

pub(super) fn halves(id: u128) -> [u64; 2] {
    [id as u64, (id >> 64) as u64]
}

impl Registry {
    /// `seed` keys the hash tables; it is never persisted and never shows in an answer.
    pub fn new(seed: u64) -> Registry {
        let mut strings = Interner::new(seed);
        let metric_name = strings.intern(METRIC_NAME);
        Registry {
            strings,
            shapes: Shapes::default(),
            tenants: Vec::new(),
            tenant_numbers: HashMap::new(),
            rows: Vec::new(),
            values: Vec::new(),
            ids: Vec::new(),
            by_id: HashTable::new(),
            aliases: Aliases::default(),
            types: RowTypes::default(),
            families: Families::default(),
            alive: AliveDays::default(),
            gone: RoaringBitmap::new(),
            hours: Vec::new(),
            version: 1,
            metric_name,
            measured: Mutex::new((0, 0)),
            recent: Memory::default(),
            next: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// The tenant's number, made if new.
    pub fn tenant(&mut self, name: &str) -> TenantNumber {
        if let Some(number) = self.tenant_number(name) {
            return number;
        }
        let number = self.tenants.len() as TenantNumber;
        self.tenants.push(Tenant::new(name, None));
        self.tenant_numbers.insert(name.to_owned(), number);
        number
    }

    pub fn tenant_number(&self, name: &str) -> Option<TenantNumber> {
        self.tenant_numbers.get(name).copied()
    }

    pub fn tenant_name(&self, tenant: TenantNumber) -> &str {
        &self.tenants[tenant as usize].name
    }

    pub fn tenant_count(&self) -> usize {
        self.tenants.len()
    }

    /// Series of a tenant, dead ones included.
    pub fn series_count(&self, tenant: TenantNumber) -> u64 {
        self.tenants.get(tenant as usize).map_or(0, |tenant| tenant.index.rows().len())
    }

    /// Rows of all tenants.
    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// The row of labels seen before, by the decoder's hash of their bytes. `register` or `find`
    /// on a miss, then `remember_alias`.
    #[inline]
    pub fn resolve(&self, tenant: TenantNumber, label_hash: u128) -> Option<SeriesRow> {
        self.aliases.resolve(tenant, label_hash)
    }

    pub fn remember_alias(&mut self, tenant: TenantNumber, label_hash: u128, row: SeriesRow) {
        self.aliases.remember(tenant, label_hash, row, self.rows.len());
    }

    /// The series id of canonical labels, and their row if they have one.
    pub fn look_up(&mut self, tenant: TenantNumber, labels: &[u8]) -> (u128, Option<SeriesRow>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let id = series_id_with(self.tenant_name(tenant), labels, &mut scratch);
        self.scratch = scratch;
        (id, self.find_id(tenant, labels, id))
    }

    /// The series id of canonical labels; `scratch` is overwritten.
    pub(super) fn id_of(&self, tenant: TenantNumber, labels: &[u8], scratch: &mut Vec<u8>) -> u128 {
        series_id_with(self.tenant_name(tenant), labels, scratch)
    }

    /// Has some series this id? Labels that are not compared may be others'.
    #[inline]
    pub(super) fn has_id(&self, id: u128) -> bool {
        let id = halves(id);
        self.by_id.find(id[0], |&row| self.ids[row as usize] == id).is_some()
    }

    /// The row of canonical labels.
    pub fn find(&self, tenant: TenantNumber, labels: &[u8]) -> Option<SeriesRow> {
        self.find_id(tenant, labels, series_id(self.tenant_name(tenant), labels))
    }

    pub(super) fn find_id(
        &self,
        tenant: TenantNumber,
        labels: &[u8],
        id: u128,
    ) -> Option<SeriesRow> {
        let id = halves(id);
        let same =
            |&row: &SeriesRow| self.ids[row as usize] == id && self.has_labels(row, tenant, labels);
        self.by_id.find(id[0], same).copied()
    }

    fn has_labels(&self, row: SeriesRow, tenant: TenantNumber, labels: &[u8]) -> bool {
        let mut known = self.symbols(row);
        let same = canonical::labels(labels).all(|label| {
            let (Ok((name, value, _)), Some((n, v))) = (label, known.next()) else { return false };
            self.strings.bytes(v) == value && self.strings.bytes(n) == name
        });
        same && known.next().is_none() && self.rows[row as usize].tenant == tenant
    }

    /// Name and value symbols of a row.
    pub(super) fn symbols(&self, row: SeriesRow) -> impl Iterator<Item = (Symbol, Symbol)> {
        let (_, names, values) = self.parts(row);
        names.iter().copied().zip(values.iter().copied())
    }

    /// Shape, names and values of a row.
    pub(super) fn parts(&self, row: SeriesRow) -> (u32, &[Symbol], &[Symbol]) {
        let Row { value_start, shape, .. } = self.rows[row as usize];
        let names = self.shapes.get(shape);
        let start = value_start as usize;
        (shape, names, &self.values[start..start + names.len()])
    }

    /// The row's value of a label, empty where it has none.
    pub(super) fn value_of(&self, row: SeriesRow, name: &str) -> &[u8] {
        let (_, names, values) = self.parts(row);
        let at = names.iter().position(|&known| self.strings.bytes(known) == name.as_bytes());
        at.map_or(&[], |at| self.strings.bytes(values[at]))
    }

    /// Where the row stands in seals and blocks.
    pub fn key(&self, row: SeriesRow) -> SeriesKey {
        let Row { tenant, metric, .. } = self.rows[row as usize];
        SeriesKey { tenant, metric, row }
    }

    /// Labels of a row, ascending by name.
    pub fn labels(&self, row: SeriesRow) -> Vec<(&str, &str)> {
        self.symbols(row).map(|(n, v)| (self.strings.get(n), self.strings.get(v))).collect()
    }

    /// Bytes of the postings. They are walked anew when the rows have grown by a sixteenth.
    fn index_bytes(&self) -> usize {
        let rows = self.rows.len();
        let mut measured = self.measured.lock();
        if measured.0 == 0 || rows - measured.0 > measured.0 / 16 {
            let bytes = self.tenants.iter().map(|tenant| tenant.index.memory_bytes()).sum();
            *measured = (rows, bytes);
        }
        measured.1 + (rows - measured.0) * measured.1 / measured.0.max(1)
    }

    /// Cheap enough for every record; the postings' part is within a few percent.
    pub fn memory_bytes(&self) -> usize {
        self.strings.memory_bytes()
            + self.shapes.memory_bytes()
            + self.index_bytes()
            + self.rows.capacity() * size_of::<Row>()
            + self.values.capacity() * 4
            + self.ids.capacity() * 16
            + self.by_id.allocation_size()
            + self.aliases.memory_bytes()
            + self.types.memory_bytes()
            + self.families.memory_bytes()
            + self.alive.memory_bytes()
    }
}
