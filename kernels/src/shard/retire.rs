//! What deletion does to the registry: rows without points are told no more, a deleted tenant's name
//! leads nowhere.
//!
//! Invariant: rows keep their numbers, and labels in memory and state files stay as they are: what
//! goes is every way to them. A row that gets a point is told again.

use super::postings::TenantIndex;
use super::registry::{Registry, Tenant};
use crate::model::{SeriesRow, TenantNumber};
use roaring::RoaringBitmap;

/// Between a retired tenant's name and its order: in no name.
const MARK: char = '\0';

impl Tenant {
    pub fn new(name: &str, retired: Option<u64>) -> Tenant {
        Tenant { name: name.to_owned(), retired, index: TenantIndex::default() }
    }

    /// The name in a state file: another one than that of a tenant which comes later.
    pub fn written(&self) -> String {
        self.retired.map_or_else(|| self.name.clone(), |by| format!("{}{MARK}{by}", self.name))
    }
}

impl Registry {
    /// Take the tenant's name away from its rows.
    pub fn retire(&mut self, name: &str, order: u64) {
        if let Some(number) = self.tenant_numbers.remove(name) {
            self.tenants[number as usize].retired = Some(order);
        }
    }

    pub fn is_retired(&self, tenant: TenantNumber) -> bool {
        self.tenants[tenant as usize].retired.is_some()
    }

    /// The tenant that an order retired.
    pub fn retired_by(&self, order: u64) -> Option<TenantNumber> {
        let at = self.tenants.iter().position(|tenant| tenant.retired == Some(order));
        at.map(|number| number as TenantNumber)
    }

    /// (tenant, order) of all that are retired.
    pub fn retired(&self) -> Vec<(TenantNumber, u64)> {
        let tenants = self.tenants.iter().enumerate();
        tenants.filter_map(|(number, t)| Some((number as TenantNumber, t.retired?))).collect()
    }

    /// A tenant as a state file names it, where it is a retired one.
    pub(super) fn restore_retired(&mut self, written: &str) -> bool {
        let parts = written.split_once(MARK).map(|(name, order)| (name, order.parse().ok()));
        if let Some((name, order @ Some(_))) = parts {
            self.tenants.push(Tenant::new(name, order));
        }
        matches!(parts, Some((_, Some(_))))
    }

    /// These rows have no points any more.
    pub fn hide(&mut self, rows: RoaringBitmap) {
        self.gone |= rows;
    }

    /// These rows get points.
    pub fn show(&mut self, rows: &[SeriesRow]) {
        if !self.gone.is_empty() {
            rows.iter().for_each(|&row| {
                self.gone.remove(row);
            });
        }
    }

    pub fn gone(&self) -> &RoaringBitmap {
        &self.gone
    }

    /// Before the rows and tenants of the same state file come: those of it are as they should be.
    pub fn restore_gone(&mut self, gone: RoaringBitmap, retired: &[(TenantNumber, u64)]) {
        self.gone = gone;
        for &(number, order) in retired {
            if let Some(name) = self.tenants.get(number as usize).map(|t| t.name.clone())
                && self.tenant_number(&name) == Some(number)
            {
                self.retire(&name, order);
            }
        }
    }
}
