//! What bounds a query: its deadline and its asker, and the memory it takes.
//!
//! Invariant: memory is counted before it is taken and given back when the answer is sent.

use crate::error::{KernelError, Result};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Why a query should stop, looked at between batches.
pub struct Interrupt {
    deadline: Instant,
    /// The asker's socket: end of file there means that nobody waits for the answer.
    peer: Option<Arc<UnixStream>>,
    cancelled: AtomicBool,
}

impl Interrupt {
    pub fn new(timeout: Duration, peer: Option<Arc<UnixStream>>) -> Interrupt {
        Interrupt { deadline: Instant::now() + timeout, peer, cancelled: AtomicBool::new(false) }
    }

    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Errors: Cancelled, Deadline.
    pub fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) || self.peer_is_gone() {
            self.cancelled.store(true, Ordering::Relaxed);
            return Err(KernelError::Cancelled("the asker is gone".to_owned()));
        }
        if Instant::now() >= self.deadline {
            return Err(KernelError::Deadline("query timed out in evaluation".to_owned()));
        }
        Ok(())
    }

    fn peer_is_gone(&self) -> bool {
        use rustix::net::{RecvFlags, recv};
        let Some(peer) = &self.peer else { return false };
        let mut byte = [0u8; 1];
        match recv(peer, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((read, _)) => read == 0,
            Err(error) => error != rustix::io::Errno::AGAIN && error != rustix::io::Errno::INTR,
        }
    }
}

/// Bytes that all queries together may hold.
pub struct Memory {
    used: AtomicUsize,
    bytes_max: usize,
}

/// Counted bytes; given back on drop.
pub struct Reservation {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Memory {
    pub fn new(bytes_max: usize) -> Arc<Memory> {
        Arc::new(Memory { used: AtomicUsize::new(0), bytes_max })
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Count `bytes` for a query that may take `query_max`.
    ///
    /// Errors: `sluiceway-query-bytes-limit` where the query alone is too large, Overloaded where
    /// others hold the memory.
    pub fn reserve(self: &Arc<Memory>, bytes: usize, query_max: usize) -> Result<Reservation> {
        let allowed = query_max.min(self.bytes_max);
        if bytes > allowed {
            let message = format!("the query needs {bytes} bytes of memory, limit {allowed}");
            return Err(KernelError::client(422, "sluiceway-query-bytes-limit", message));
        }
        if self.used.fetch_add(bytes, Ordering::Relaxed) + bytes > self.bytes_max {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(KernelError::Overloaded {
                retry_after_s: 1.0,
                message: "other queries hold the query memory".to_owned(),
            });
        }
        Ok(Reservation { memory: Arc::clone(self), bytes })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_and_given_back() {
        let memory = Memory::new(100);
        let held = memory.reserve(60, 80);
        assert!(held.is_ok());
        assert!(matches!(memory.reserve(81, 80), Err(KernelError::Client { status: 422, .. })));
        assert!(matches!(memory.reserve(60, 80), Err(KernelError::Overloaded { .. })));
        drop(held);
        assert_eq!(memory.used(), 0);
    }
}
