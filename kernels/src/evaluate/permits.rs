//! Who may evaluate now: so many threads at once, shared by tenant.
//!
//! Invariant: a free permit goes to the waiter whose tenant holds fewest, of equals to the one that
//! waits longest. Nobody who comes overtakes those who wait, so a query that gives its permit back
//! after each batch cannot take it again before a small one has had its turn.

use crate::error::Result;
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a waiter sleeps before it looks whether its query should stop.
const LOOK: Duration = Duration::from_millis(20);

/// A tenant, as a number that is the same for all of its queries.
pub type TenantHash = u64;

pub struct Permits {
    state: Mutex<State>,
}

struct State {
    free: usize,
    /// Permits held, of the tenants that hold any.
    held: HashMap<TenantHash, usize>,
    waiting: VecDeque<Arc<Waiter>>,
}

struct Waiter {
    tenant: TenantHash,
    granted: AtomicBool,
    bell: Condvar,
}

pub struct Permit<'a> {
    permits: &'a Permits,
    tenant: TenantHash,
}

impl Permits {
    pub fn new(count: usize) -> Permits {
        let state = State { free: count.max(1), held: HashMap::new(), waiting: VecDeque::new() };
        Permits { state: Mutex::new(state) }
    }

    /// Wait for a turn, until `check` says that the query must stop. Errors: those of `check`.
    pub fn acquire(
        &self,
        tenant: TenantHash,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<Permit<'_>> {
        check()?;
        let mut state = self.state.lock();
        if state.free > 0 && state.waiting.is_empty() {
            state.give(tenant);
            return Ok(Permit { permits: self, tenant });
        }
        let waiter =
            Arc::new(Waiter { tenant, granted: AtomicBool::new(false), bell: Condvar::new() });
        state.waiting.push_back(Arc::clone(&waiter));
        loop {
            waiter.bell.wait_for(&mut state, LOOK);
            // `granted` changes under the lock alone.
            if waiter.granted.load(Ordering::Relaxed) {
                return Ok(Permit { permits: self, tenant });
            }
            if let Err(error) = check() {
                state.waiting.retain(|other| !Arc::ptr_eq(other, &waiter));
                return Err(error);
            }
        }
    }
}

impl State {
    fn give(&mut self, tenant: TenantHash) {
        self.free -= 1;
        *self.held.entry(tenant).or_default() += 1;
    }

    fn hand_out(&mut self) {
        while self.free > 0 {
            let held = |waiter: &Arc<Waiter>| self.held.get(&waiter.tenant).copied().unwrap_or(0);
            let next = self.waiting.iter().enumerate().min_by_key(|(_, waiter)| held(waiter));
            let Some(at) = next.map(|(at, _)| at) else { return };
            let Some(waiter) = self.waiting.remove(at) else { return };
            self.give(waiter.tenant);
            waiter.granted.store(true, Ordering::Relaxed);
            waiter.bell.notify_one();
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.permits.state.lock();
        state.free += 1;
        if let Some(held) = state.held.get_mut(&self.tenant) {
            *held -= 1;
            if *held == 0 {
                state.held.remove(&self.tenant);
            }
        }
        state.hand_out();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::KernelError;
    use crate::evaluate::budget::Interrupt;

    fn patient() -> Result<()> {
        Ok(())
    }

    #[test]
    fn waiting_for_a_turn_ends_with_the_deadline() {
        let permits = Permits::new(1);
        let held = permits.acquire(1, &patient);
        let hasty = Interrupt::new(Duration::from_millis(1), None);
        assert!(matches!(permits.acquire(1, &|| hasty.check()), Err(KernelError::Deadline(_))));
        drop(held);
        assert!(permits.acquire(1, &patient).is_ok());
    }

    #[test]
    fn who_holds_fewest_is_next() -> Result<()> {
        let permits = Permits::new(2);
        let (first, second) = (permits.acquire(1, &patient)?, permits.acquire(1, &patient)?);
        let order = Mutex::new(Vec::new());
        let waits = |count: usize| {
            while permits.state.lock().waiting.len() < count {
                std::thread::yield_now();
            }
        };
        std::thread::scope(|scope| {
            for (count, tenant) in [(1, 1), (2, 1), (3, 2)] {
                let (permits, order) = (&permits, &order);
                scope.spawn(move || {
                    let held = permits.acquire(tenant, &patient);
                    order.lock().push(tenant);
                    drop(held);
                });
                waits(count);
            }
            drop(first);
        });
        drop(second);
        let order = order.into_inner();
        assert_eq!(order, [2, 1, 1], "the tenant that held none came last and went first");
        assert!(permits.state.lock().held.is_empty());
        assert_eq!(permits.state.lock().free, 2);
        Ok(())
    }
}
