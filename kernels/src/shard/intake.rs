//! Intake: a request's body becomes a journal record, and a durable record waits to be applied.
//!
//! Invariant: a ticket is decided only by the committer, after the group's fdatasync; and what
//! stands in the inbox is durable. Decoded batches wait here up to a byte cap; past it they are
//! dropped and the applier reads and decodes the journal instead, so a burst costs disk only.

use crate::error::{KernelError, Result};
use crate::journal::GroupSink;
use crate::journal::record::RecordHeader;
use crate::model::Batch;
use parking_lot::{Condvar, Mutex};
use rustix::event::{EventfdFlags, eventfd};
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// What one request held, for the answer.
#[derive(Clone, Debug, Default)]
pub struct Receipt {
    pub ticket: u64,
    pub points_received: u32,
    /// (reason, count), only reasons that occurred.
    pub rejected: Vec<(&'static str, u32)>,
    pub first_error: Option<String>,
    pub samples: usize,
    pub histograms: usize,
    pub exemplars: u32,
}

/// A decoded batch on its way through the journal.
pub struct Decoded {
    pub batch: Batch,
    pub payload_bytes: usize,
    /// The journal's bytes could not be decoded again: nothing of them can be stored.
    pub undecodable: bool,
}

/// Failed groups that are remembered for `ticket_of`.
const RUNS_MAX: usize = 64;

/// (first ticket, last ticket, error), both ends inclusive.
pub type Failure = (u64, u64, String);

#[derive(Default)]
struct InboxState {
    decoded: VecDeque<(RecordHeader, Decoded)>,
    decoded_bytes: usize,
    /// First sequence that is not known to be durable.
    durable_next: u64,
    /// Every ticket below is durable or among the failures.
    tickets_decided: u64,
    failures: Vec<Failure>,
    /// (first sequence, first ticket) from where on both go up together; the last `RUNS_MAX`.
    ticket_runs: VecDeque<(u64, u64)>,
    interrupted: bool,
    /// Where the next fed record stands; None where records come from our own journal.
    fed_next: Option<u64>,
}

/// Where the committer leaves durable records and decided tickets.
pub struct Inbox {
    state: Mutex<InboxState>,
    arrived: Condvar,
    /// A decoded batch has gone.
    left: Condvar,
    ack_event: OwnedFd,
    decoded_bytes_max: usize,
}

/// What the applier finds. `Decoded` is large and by far the most common: it is not boxed.
#[allow(clippy::large_enum_variant)]
pub enum Next {
    Decoded(RecordHeader, Decoded),
    /// Durable records up to (not with) this sequence are only in the journal.
    Journal(u64),
    /// There are no records before this sequence any more.
    Skipped(u64),
    Nothing,
}

impl Inbox {
    pub fn new(decoded_bytes_max: usize) -> Result<Inbox> {
        let ack_event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(|error| KernelError::Backend(error.to_string()))?;
        Ok(Inbox {
            state: Mutex::new(InboxState::default()),
            arrived: Condvar::new(),
            left: Condvar::new(),
            ack_event,
            decoded_bytes_max,
        })
    }

    /// The journal stands open: records before `durable_next` may be read from it.
    pub fn opened(&self, durable_next: u64) {
        self.state.lock().durable_next = durable_next;
        self.arrived.notify_all();
    }

    /// Records come by `push_fed` from `next` on, and from nowhere else.
    pub fn open_feed(&self, next: u64) {
        let mut state = self.state.lock();
        (state.fed_next, state.durable_next) = (Some(next), next);
        drop(state);
        self.arrived.notify_all();
    }

    /// Where the next fed record stands.
    pub fn fed_next(&self) -> u64 {
        self.state.lock().fed_next.unwrap_or(0)
    }

    /// Is there room for one more decoded batch within `wait`?
    pub fn wait_for_room(&self, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        let mut state = self.state.lock();
        while state.decoded_bytes >= self.decoded_bytes_max {
            if self.left.wait_until(&mut state, deadline).timed_out() {
                return false;
            }
        }
        true
    }

    pub fn push_fed(&self, header: RecordHeader, decoded: Decoded) {
        let mut state = self.state.lock();
        let next = header.sequence + 1;
        state.fed_next = Some(next);
        state.durable_next = state.durable_next.max(next);
        state.decoded_bytes += decoded.batch.memory_bytes();
        state.decoded.push_back((header, decoded));
        drop(state);
        self.arrived.notify_all();
    }

    pub fn skip_fed(&self, next: u64) {
        let mut state = self.state.lock();
        state.fed_next = Some(next);
        state.durable_next = state.durable_next.max(next);
        drop(state);
        self.arrived.notify_all();
    }

    pub fn note_durable(&self, next: u64) {
        let mut state = self.state.lock();
        state.durable_next = state.durable_next.max(next);
    }

    pub fn is_fed(&self) -> bool {
        self.state.lock().fed_next.is_some()
    }

    pub fn ack_fd(&self) -> i32 {
        self.ack_event.as_raw_fd()
    }

    /// Tickets decided so far and the failures among them, each told once. Resets the eventfd.
    pub fn drain_acks(&self) -> (u64, Vec<Failure>) {
        // The counter is reset before the state is read: a group in between wakes us again.
        let _ = rustix::io::read(&self.ack_event, &mut [0_u8; 8]);
        let mut state = self.state.lock();
        (state.tickets_decided, std::mem::take(&mut state.failures))
    }

    pub fn durable_next(&self) -> u64 {
        self.state.lock().durable_next
    }

    pub fn decoded_bytes(&self) -> usize {
        self.state.lock().decoded_bytes
    }

    /// The ticket that became a record; None of an earlier life's.
    pub fn ticket_of(&self, sequence: u64) -> Option<u64> {
        let state = self.state.lock();
        let run = state.ticket_runs.iter().rev().find(|&&(first, _)| first <= sequence);
        run.map(|&(first, ticket)| ticket + (sequence - first))
    }

    /// Make a waiting `next` return at once.
    pub fn interrupt(&self) {
        self.state.lock().interrupted = true;
        self.arrived.notify_all();
    }

    /// The record `sequence` or where to find it; waits at most `wait` for one to become durable.
    pub fn next(&self, sequence: u64, wait: Duration) -> Next {
        let deadline = Instant::now() + wait;
        let mut state = self.state.lock();
        loop {
            while state.decoded.front().is_some_and(|(header, _)| header.sequence < sequence) {
                state.pop();
            }
            match state.decoded.front() {
                Some((header, _)) if header.sequence == sequence || state.fed_next.is_some() => {
                    if let Some((header, decoded)) = state.pop() {
                        self.left.notify_all();
                        return Next::Decoded(header, decoded);
                    }
                }
                Some((header, _)) => return Next::Journal(header.sequence),
                None if state.fed_next.is_some_and(|fed| fed > sequence) => {
                    return Next::Skipped(state.fed_next.unwrap_or(sequence));
                }
                None if state.fed_next.is_some() => {}
                None if state.durable_next > sequence => return Next::Journal(state.durable_next),
                None => {}
            }
            let interrupted = std::mem::take(&mut state.interrupted);
            if interrupted || self.arrived.wait_until(&mut state, deadline).timed_out() {
                return Next::Nothing;
            }
        }
    }

    fn signal(&self) {
        self.arrived.notify_all();
        // A full counter is a signal already given.
        let _ = rustix::io::write(&self.ack_event, &1_u64.to_ne_bytes());
    }
}

impl InboxState {
    /// A failed group's tickets have no sequences: the two part there.
    fn note_run(&mut self, sequence: u64, ticket: u64) {
        let same = |&(s, t): &(u64, u64)| sequence.wrapping_sub(s) == ticket.wrapping_sub(t);
        if self.ticket_runs.back().is_some_and(same) {
            return;
        }
        if self.ticket_runs.len() >= RUNS_MAX {
            self.ticket_runs.pop_front();
        }
        self.ticket_runs.push_back((sequence, ticket));
    }

    fn pop(&mut self) -> Option<(RecordHeader, Decoded)> {
        let popped = self.decoded.pop_front();
        if let Some((_, decoded)) = &popped {
            self.decoded_bytes -= decoded.batch.memory_bytes();
        }
        popped
    }
}

impl GroupSink<Decoded> for Inbox {
    fn committed(&self, records: Vec<(RecordHeader, Decoded)>, last_ticket: u64) {
        let mut state = self.state.lock();
        if let Some((header, _)) = records.first() {
            state.note_run(header.sequence, last_ticket + 1 - records.len() as u64);
        }
        for (header, decoded) in records {
            state.durable_next = header.sequence + 1;
            let bytes = decoded.batch.memory_bytes();
            if state.decoded_bytes + bytes <= self.decoded_bytes_max {
                state.decoded_bytes += bytes;
                state.decoded.push_back((header, decoded));
            }
        }
        state.tickets_decided = last_ticket + 1;
        drop(state);
        self.signal();
    }

    fn failed(&self, first_ticket: u64, last_ticket: u64, error: &str) {
        let mut state = self.state.lock();
        state.failures.push((first_ticket, last_ticket, error.to_owned()));
        state.tickets_decided = last_ticket + 1;
        drop(state);
        self.signal();
    }
}
