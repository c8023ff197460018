//! What clients say about metric families (type, help, unit), and the type of each series:
//! declared beats the suffix of the name, which beats unknown.

use crate::model::{FamilyMetadata, SeriesRow, SeriesType, TenantNumber};
use hashbrown::HashMap;
use std::collections::BTreeMap;

/// Families kept per shard; further ones are not stored.
const FAMILIES_MAX: usize = 200_000;
/// Bytes kept of a help text.
const HELP_BYTES_MAX: usize = 4096;

const DECLARED: u8 = 0x80;

/// Names a family's series have beside its own.
const SUFFIXES: [&str; 6] = ["_total", "_bucket", "_sum", "_count", "_created", "_info"];

struct Family {
    metadata: FamilyMetadata,
    version: u64,
}

/// Families by tenant and name. A delta lists those changed after a version.
#[derive(Default)]
pub struct Families {
    families: BTreeMap<(TenantNumber, String), Family>,
    /// How many declarations changed something.
    changes: u64,
}

impl Families {
    /// Store a declaration; false where nothing changed. An empty text does not undo an earlier one.
    pub fn note(&mut self, tenant: TenantNumber, given: &FamilyMetadata, version: u64) -> bool {
        let mut given = given.clone();
        let fits = |end: &usize| given.help.is_char_boundary(*end);
        let end = (0..=HELP_BYTES_MAX.min(given.help.len())).rev().find(fits).unwrap_or(0);
        given.help.truncate(end);
        let full = self.families.len() >= FAMILIES_MAX;
        match self.families.get_mut(&(tenant, given.name.clone())) {
            Some(family) => {
                let known = &family.metadata;
                if given.series_type == SeriesType::Unknown {
                    given.series_type = known.series_type;
                }
                if given.help.is_empty() {
                    given.help.clone_from(&known.help);
                }
                if given.unit.is_empty() {
                    given.unit.clone_from(&known.unit);
                }
                if *known == given {
                    return false;
                }
                *family = Family { metadata: given, version };
            }
            None if full => return false,
            None => {
                let key = (tenant, given.name.clone());
                self.families.insert(key, Family { metadata: given, version });
            }
        }
        self.changes += 1;
        true
    }

    /// How many declarations changed something: what was asked before this moved still holds.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    fn get(&self, tenant: TenantNumber, name: &str) -> Option<&FamilyMetadata> {
        self.families.get(&(tenant, name.to_owned())).map(|family| &family.metadata)
    }

    /// The declared type of a metric, by its own name or its family's.
    pub fn type_of(&self, tenant: TenantNumber, metric: &str) -> SeriesType {
        if self.families.is_empty() {
            return SeriesType::Unknown;
        }
        let family = || SUFFIXES.iter().find_map(|suffix| metric.strip_suffix(suffix));
        let found =
            self.get(tenant, metric).or_else(|| family().and_then(|name| self.get(tenant, name)));
        found.map_or(SeriesType::Unknown, |family| family.series_type)
    }

    /// The metric names a family may have.
    pub fn metrics_of(name: &str) -> impl Iterator<Item = String> {
        std::iter::once("").chain(SUFFIXES).map(move |suffix| format!("{name}{suffix}"))
    }

    /// Families of a tenant, ascending by name: at most `limit`, of one name where given.
    pub fn list(
        &self,
        tenant: TenantNumber,
        metric: Option<&str>,
        limit: usize,
    ) -> Vec<FamilyMetadata> {
        if let Some(metric) = metric {
            return self.get(tenant, metric).into_iter().take(limit).cloned().collect();
        }
        let all = self.families.range((tenant, String::new())..);
        let mine = all.take_while(|((owner, _), _)| *owner == tenant);
        mine.take(limit).map(|(_, family)| family.metadata.clone()).collect()
    }

    /// Families changed after `version`.
    pub fn changed(&self, version: u64) -> Vec<(TenantNumber, &FamilyMetadata)> {
        let changed = self.families.iter().filter(|(_, family)| family.version > version);
        changed.map(|((tenant, _), family)| (*tenant, &family.metadata)).collect()
    }

    pub fn memory_bytes(&self) -> usize {
        let text = |f: &Family| {
            2 * f.metadata.name.capacity() + f.metadata.help.capacity() + f.metadata.unit.capacity()
        };
        self.families.values().map(|family| text(family) + 160).sum()
    }
}

/// The type a metric's name suggests.
pub fn type_of_suffix(metric: &str) -> SeriesType {
    if metric.ends_with("_total") {
        SeriesType::Counter
    } else if ["_bucket", "_sum", "_count"].iter().any(|suffix| metric.ends_with(suffix)) {
        SeriesType::Histogram
    } else if metric.ends_with("_info") {
        SeriesType::Info
    } else {
        SeriesType::Unknown
    }
}

/// The type of every row.
#[derive(Default)]
pub struct RowTypes {
    /// Type, and whether it was declared.
    codes: Vec<u8>,
    /// Rows whose type changed after they were registered: how often, and the version.
    changed: HashMap<SeriesRow, (u32, u64)>,
}

impl RowTypes {
    pub fn push(&mut self, declared: SeriesType, metric: &str) {
        self.codes.push(match declared {
            SeriesType::Unknown => type_of_suffix(metric) as u8,
            known => known as u8 | DECLARED,
        });
    }

    pub fn push_code(&mut self, code: u8) {
        self.codes.push(code);
    }

    pub fn get(&self, row: SeriesRow) -> SeriesType {
        SeriesType::from_u8(self.codes[row as usize] & !DECLARED)
    }

    /// How often the row's type has changed: what is derived from the row starts anew with it.
    pub fn generation(&self, row: SeriesRow) -> u32 {
        self.changed.get(&row).map_or(0, |&(generation, _)| generation)
    }

    /// Declare a type; false where nothing changed.
    pub fn declare(&mut self, row: SeriesRow, declared: SeriesType, version: u64) -> bool {
        let code = declared as u8 | DECLARED;
        let known = &mut self.codes[row as usize];
        if declared == SeriesType::Unknown || *known == code {
            return false;
        }
        let other = *known & !DECLARED != declared as u8;
        *known = code;
        let change = self.changed.entry(row).or_insert((0, version));
        *change = (change.0 + u32::from(other), version);
        true
    }

    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// (row, code, generation) of rows changed after `version`, ascending.
    pub fn changed(&self, version: u64) -> Vec<(SeriesRow, u8, u32)> {
        let changed = self.changed.iter().filter(|(_, change)| change.1 > version);
        let mut changed: Vec<(SeriesRow, u8, u32)> =
            changed.map(|(&row, &(n, _))| (row, self.codes[row as usize], n)).collect();
        changed.sort_unstable();
        changed
    }

    pub fn restore(&mut self, row: SeriesRow, code: u8, generation: u32, version: u64) {
        self.codes[row as usize] = code;
        self.changed.insert(row, (generation, version));
    }

    pub fn memory_bytes(&self) -> usize {
        self.codes.capacity() + self.changed.allocation_size()
    }
}
