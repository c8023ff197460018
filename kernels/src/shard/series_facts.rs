//! What is known of a series beside its labels: type and generation, metadata of its family, the
//! days it was alive, when it was registered.

use super::metadata::Families;
use super::registry::Registry;
use crate::model::{FamilyMetadata, SeriesRow, SeriesType, TenantNumber};

impl Registry {
    /// The first row registered in the hour of `time_ms` or later.
    pub fn first_row_since(&self, time_ms: i64) -> SeriesRow {
        let hour = time_ms.div_euclid(3_600_000);
        let at = self.hours.partition_point(|&(known, _)| known < hour);
        self.hours.get(at).map_or(self.rows.len() as SeriesRow, |&(_, row)| row)
    }

    /// The value of the row's `__name__`.
    pub fn metric_text(&self, row: SeriesRow) -> &str {
        self.strings.get(self.rows[row as usize].metric)
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
        self.show(rows);
        if self.alive.note(day, rows, self.version + 1) {
            self.version += 1;
        }
    }

    /// Points before this day are gone.
    pub fn forget_days_before(&mut self, day: i32) {
        self.alive.forget_before(day);
    }
}
