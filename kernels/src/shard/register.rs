//! Registering series: canonical labels -> symbols, shape, row, postings, type.
//!
//! Invariant: a row is there with all that hangs on it, or not at all; what fails, fails before
//! the first change that a reader could see.

use super::registry::{Registry, Row, halves};
use crate::error::{KernelError, Result};
use crate::labels::canonical;
use crate::model::{SeriesRow, SeriesType, Symbol, TenantNumber};
use xxhash_rust::xxh3::xxh3_128;

/// A label of the series registered last: the next one mostly differs in one or two labels, and
/// comparing twenty bytes costs less than three look-ups.
#[derive(Clone, Copy, Default)]
pub(super) struct Recent {
    start: u32,
    end: u32,
    name: Symbol,
    value: Symbol,
    pair: u32,
}

#[derive(Default)]
pub(super) struct Memory {
    tenant: TenantNumber,
    bytes: Vec<u8>,
    labels: Vec<Recent>,
    shape: u32,
    metric: Symbol,
    declared: SeriesType,
    families_changes: Option<u64>,
}

impl Registry {
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
        let (id, known) = self.look_up(tenant, labels);
        match known {
            Some(row) => Ok(row),
            None => self.register_new(tenant, labels, id, declared, now_ms),
        }
    }

    /// As `register`, for labels that `look_up` has just not found, with their id.
    pub fn register_new(
        &mut self,
        tenant: TenantNumber,
        labels: &[u8],
        id: u128,
        declared: SeriesType,
        now_ms: i64,
    ) -> Result<SeriesRow> {
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
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| KernelError::corruption("a label is not UTF-8"))
}
