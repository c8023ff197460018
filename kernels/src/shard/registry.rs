//! The registry: which series a shard knows. Row numbers are dense, persistent and never reused.
//!
//! One writer (`&mut self`), many readers (`&self`); the shard owns the lock. Invariants: rows of
//! all tenants share one numbering, a row's labels never change, and equal label sets of a tenant
//! have one row. The id is only a way to find the row: labels are compared before it is believed.

use super::aliases::Aliases;
use super::alive::AliveDays;
use super::metadata::{Families, RowTypes};
use super::postings::TenantIndex;
use crate::error::{KernelError, Result};
use crate::labels::canonical;
use crate::labels::{Interner, METRIC_NAME, Shapes};
use crate::model::{FamilyMetadata, SeriesKey, SeriesRow, SeriesType, Symbol, TenantNumber};
use hashbrown::{HashMap, HashTable};
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
    pub index: TenantIndex,
}

/// A label of the series registered last: the next one mostly differs in one or two labels, and
/// comparing twenty bytes costs less than three look-ups.
#[derive(Clone, Copy, Default)]
struct Recent {
    start: u32,
    end: u32,
    name: Symbol,
    value: Symbol,
    pair: u32,
}

#[derive(Default)]
struct Memory {
    tenant: TenantNumber,
    bytes: Vec<u8>,
    labels: Vec<Recent>,
    shape: u32,
    metric: Symbol,
    declared: SeriesType,
    families_changes: Option<u64>,
}

pub struct Registry {
    pub(super) strings: Interner,
    pub(super) shapes: Shapes,
    pub(super) tenants: Vec<Tenant>,
    tenant_numbers: HashMap<String, TenantNumber>,
    pub(super) rows: Vec<Row>,
    pub(super) values: Vec<Symbol>,
    /// Series id of each row, in halves.
    ids: Vec<[u64; 2]>,
    by_id: HashTable<SeriesRow>,
    aliases: Aliases,
    pub(super) types: RowTypes,
    pub(super) families: Families,
    pub(super) alive: AliveDays,
    /// (hour since 1970, first row registered in it): rows ascend with time.
    pub(super) hours: Vec<(i64, SeriesRow)>,
    /// Grows with every change of something that exists; new things are told by their number.
    pub(super) version: u64,
    metric_name: Symbol,
    recent: Memory,
    next: Vec<Recent>,
    scratch: Vec<u8>,
}

/// The series id: XXH3-128 of `varint(tenant length) tenant` and the canonical labels.
pub fn series_id(tenant: &str, labels: &[u8]) -> u128 {
    let mut bytes = Vec::with_capacity(tenant.len() + labels.len() + 4);
    series_id_with(tenant, labels, &mut bytes)
}

fn series_id_with(tenant: &str, labels: &[u8], scratch: &mut Vec<u8>) -> u128 {
    scratch.clear();
    canonical::push_length(scratch, tenant.len());
    scratch.extend_from_slice(tenant.as_bytes());
    scratch.extend_from_slice(labels);
    xxh3_128(scratch)
}

fn halves(id: u128) -> [u64; 2] {
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
            hours: Vec::new(),
            version: 1,
            metric_name,
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
        self.tenants.push(Tenant { name: name.to_owned(), index: TenantIndex::default() });
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

    /// The row of canonical labels.
    pub fn find(&self, tenant: TenantNumber, labels: &[u8]) -> Option<SeriesRow> {
        self.find_id(tenant, labels, series_id(self.tenant_name(tenant), labels))
    }

    fn find_id(&self, tenant: TenantNumber, labels: &[u8], id: u128) -> Option<SeriesRow> {
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
    fn symbols(&self, row: SeriesRow) -> impl Iterator<Item = (Symbol, Symbol)> {
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

    /// The row of canonical labels, made if new: registered, indexed, typed (`declared`, else what
    /// its family's metadata says, else the suffix of its name).
    ///
    /// Errors: `Corruption` where the bytes are not canonical labels, `Overloaded` where the
    /// registry's numbers are used up; nothing is registered then.
    pub fn register(
        &mut self,
        tenant: TenantNumber,
        labels: &[u8],
        declared: SeriesType,
        now_ms: i64,
    ) -> Result<SeriesRow> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let id = series_id_with(self.tenant_name(tenant), labels, &mut scratch);
        self.scratch = scratch;
        if let Some(row) = self.find_id(tenant, labels, id) {
            return Ok(row);
        }
        self.check_space(labels.len())?;
        let same_tenant = self.recent.tenant == tenant;
        let known_labels = if same_tenant { self.recent.labels.len() } else { 0 };
        self.next.clear();
        let (mut same_names, mut previous): (bool, &[u8]) = (true, &[]);
        for (position, label) in canonical::labels(labels).enumerate() {
            let (name, value, whole) = label?;
            if value.is_empty() || (position > 0 && name <= previous) {
                return Err(KernelError::corruption("labels are not canonical"));
            }
            previous = name;
            let end = self.next.last().map_or(0, |label| label.end) + whole.len() as u32;
            let mut label = Recent { start: end - whole.len() as u32, end, ..Recent::default() };
            match self.recent.labels[..known_labels].get(position) {
                Some(&old) if self.recent.bytes[old.start as usize..old.end as usize] == *whole => {
                    (label.name, label.value, label.pair) = (old.name, old.value, old.pair);
                }
                old => {
                    let known = old.filter(|old| self.strings.bytes(old.name) == name);
                    label.name = match known {
                        Some(old) => old.name,
                        None => self.strings.intern(text(name)?),
                    };
                    same_names &= known.is_some();
                    label.value = self.strings.intern(text(value)?);
                    label.pair = u32::MAX;
                }
            }
            self.next.push(label);
        }
        let shape = if same_tenant && same_names && self.next.len() == known_labels {
            self.recent.shape
        } else {
            let names: Vec<Symbol> = self.next.iter().map(|label| label.name).collect();
            self.shapes.intern(&names)
        };
        let metric = self.next.iter().find(|label| label.name == self.metric_name);
        let metric = metric.map_or(0, |label| label.value);
        let declared = self.declared_type(tenant, metric, declared);

        let mut labels_next = std::mem::take(&mut self.next);
        let row = self.append(tenant, id, shape, metric, &mut labels_next);
        self.types.push(declared, self.strings.get(metric));
        self.note_hour(now_ms, row);
        self.next = std::mem::replace(&mut self.recent.labels, labels_next);
        self.recent.bytes.clear();
        self.recent.bytes.extend_from_slice(labels);
        (self.recent.tenant, self.recent.shape) = (tenant, shape);
        Ok(row)
    }

    fn check_space(&self, label_bytes: usize) -> Result<()> {
        let used = [
            self.strings.byte_size() + label_bytes,
            self.values.len() + label_bytes,
            self.rows.len() + 1,
        ];
        if used.iter().any(|&count| count >= u32::MAX as usize) {
            let message = "the registry's numbers are used up".to_owned();
            return Err(KernelError::Overloaded { retry_after_s: 60.0, message });
        }
        Ok(())
    }

    fn append(
        &mut self,
        tenant: TenantNumber,
        id: u128,
        shape: u32,
        metric: Symbol,
        labels: &mut [Recent],
    ) -> SeriesRow {
        let row = self.rows.len() as SeriesRow;
        let value_start = self.values.len() as u32;
        let index = &mut self.tenants[tenant as usize].index;
        for label in labels {
            self.values.push(label.value);
            if label.pair == u32::MAX {
                label.pair = index.add(label.name, label.value, row);
            } else {
                index.add_known(label.pair, row);
            }
        }
        index.add_row(shape, row);
        self.rows.push(Row { value_start, shape, tenant, metric });
        self.ids.push(halves(id));
        let ids = &self.ids;
        self.by_id.insert_unique(id as u64, row, |&row| ids[row as usize][0]);
        self.alive.add_row();
        row
    }

    /// Put a row back from a state file; the caller gives it its type.
    pub(super) fn restore(&mut self, tenant: TenantNumber, shape: u32, values: &[Symbol]) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let name = self.tenants[tenant as usize].name.as_bytes();
        canonical::push_length(&mut scratch, name.len());
        scratch.extend_from_slice(name);
        let mut labels = std::mem::take(&mut self.next);
        let recent = if self.recent.tenant == tenant { &self.recent.labels[..] } else { &[] };
        labels.clear();
        let mut metric = 0;
        for (position, (&name, &value)) in self.shapes.get(shape).iter().zip(values).enumerate() {
            canonical::push_label(
                &mut scratch,
                self.strings.bytes(name),
                self.strings.bytes(value),
            );
            if name == self.metric_name {
                metric = value;
            }
            let known = recent.get(position).filter(|old| (old.name, old.value) == (name, value));
            let pair = known.map_or(u32::MAX, |old| old.pair);
            labels.push(Recent { name, value, pair, ..Recent::default() });
        }
        self.append(tenant, xxh3_128(&scratch), shape, metric, &mut labels);
        self.next = std::mem::replace(&mut self.recent.labels, labels);
        // No label of the next series may match bytes that were never kept.
        self.recent.bytes.clear();
        self.recent.tenant = tenant;
        self.recent.shape = shape;
        self.scratch = scratch;
    }

    /// After the last `restore`: what is remembered of the row before holds no longer.
    pub(super) fn end_restore(&mut self) {
        self.recent = Memory::default();
    }

    fn declared_type(
        &mut self,
        tenant: TenantNumber,
        metric: Symbol,
        declared: SeriesType,
    ) -> SeriesType {
        if declared != SeriesType::Unknown {
            return declared;
        }
        let recent = &self.recent;
        let changes = Some(self.families.changes());
        let fresh =
            (recent.tenant, recent.metric, recent.families_changes) == (tenant, metric, changes);
        if !fresh {
            let declared = self.families.type_of(tenant, self.strings.get(metric));
            self.recent.declared = declared;
            (self.recent.metric, self.recent.families_changes) = (metric, changes);
        }
        self.recent.declared
    }

    fn note_hour(&mut self, now_ms: i64, row: SeriesRow) {
        let hour = now_ms.div_euclid(3_600_000);
        if self.hours.last().is_none_or(|&(last, _)| hour > last) {
            self.hours.push((hour, row));
        }
    }

    /// The first row registered in the hour of `time_ms` or later.
    pub fn first_row_since(&self, time_ms: i64) -> SeriesRow {
        let hour = time_ms.div_euclid(3_600_000);
        let at = self.hours.partition_point(|&(known, _)| known < hour);
        self.hours.get(at).map_or(self.rows.len() as SeriesRow, |&(_, row)| row)
    }

    /// Where the row stands in seals and blocks.
    pub fn key(&self, row: SeriesRow) -> SeriesKey {
        let Row { tenant, metric, .. } = self.rows[row as usize];
        SeriesKey { tenant, metric, row }
    }

    pub fn series_type(&self, row: SeriesRow) -> SeriesType {
        self.types.get(row)
    }

    /// Grows when the row's type changes after it was known.
    pub fn generation(&self, row: SeriesRow) -> u32 {
        self.types.generation(row)
    }

    /// What a client says the row is; Unknown says nothing.
    pub fn declare_type(&mut self, row: SeriesRow, declared: SeriesType) {
        if self.types.declare(row, declared, self.version + 1) {
            self.version += 1;
        }
    }

    /// Store a family's metadata and give its series the declared type.
    pub fn note_metadata(&mut self, tenant: TenantNumber, metadata: &FamilyMetadata) {
        if !self.families.note(tenant, metadata, self.version + 1) {
            return;
        }
        self.version += 1;
        for metric in Families::metrics_of(&metadata.name) {
            let Some(value) = self.strings.find(metric.as_bytes()) else { continue };
            let index = &self.tenants[tenant as usize].index;
            let Some(pair) = index.find(self.metric_name, value) else { continue };
            for row in index.posting(pair).to_bitmap() {
                self.types.declare(row, metadata.series_type, self.version);
            }
        }
    }

    /// Families of a tenant, ascending by name: at most `limit`, of one name where given.
    pub fn metadata(
        &self,
        tenant: TenantNumber,
        metric: Option<&str>,
        limit: usize,
    ) -> Vec<FamilyMetadata> {
        self.families.list(tenant, metric, limit)
    }

    /// These rows have points on this UTC day (`alive::day_of`). Call it before the points can be
    /// asked for; a row noted before for the same day costs a nanosecond.
    pub fn note_alive(&mut self, day: i32, rows: &[SeriesRow]) {
        if self.alive.note(day, rows, self.version + 1) {
            self.version += 1;
        }
    }

    /// Points before this day are gone.
    pub fn forget_days_before(&mut self, day: i32) {
        self.alive.forget_before(day);
    }

    /// Labels of a row, ascending by name.
    pub fn labels(&self, row: SeriesRow) -> Vec<(&str, &str)> {
        self.symbols(row).map(|(n, v)| (self.strings.get(n), self.strings.get(v))).collect()
    }

    /// Walks all postings: for status, not for every record.
    pub fn memory_bytes(&self) -> usize {
        self.strings.memory_bytes()
            + self.shapes.memory_bytes()
            + self.tenants.iter().map(|tenant| tenant.index.memory_bytes()).sum::<usize>()
            + self.rows.capacity() * size_of::<Row>()
            + self.values.capacity() * 4
            + self.ids.capacity() * 16
            + self.by_id.allocation_size()
            + self.aliases.memory_bytes()
            + self.types.memory_bytes()
            + self.families.memory_bytes()
            + self.alive.memory_bytes()
    }

    pub(super) fn metric_name(&self) -> Symbol {
        self.metric_name
    }
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| KernelError::corruption("a label is not UTF-8"))
}
