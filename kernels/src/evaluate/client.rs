//! The read side's end of the evaluate protocol: pooled connections, blocking calls.
//!
//! Invariant: a connection goes back to the pool only after a whole answer; a cancelled or failed
//! call closes its connection, which stops the shard's work.

use super::frame::{self, AnswerHead, Column, Kind, WireError};
use crate::error::{KernelError, Result};
use parking_lot::Mutex;
use std::io::{BufReader, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A small answer comes in one read; longer frames pass the buffer by.
const BUFFER_BYTES: usize = 16 << 10;
/// Idle connections kept.
const POOL_MAX: usize = 64;
/// How much longer than the shard's deadline a reader waits.
const GRACE: Duration = Duration::from_secs(5);

pub struct Client {
    path: PathBuf,
    pool: Mutex<Vec<Arc<UnixStream>>>,
    next_id: AtomicU64,
}

/// Stops calls from another thread.
#[derive(Default)]
pub struct CancelToken {
    cancelled: AtomicBool,
    /// Connections of the calls that run under this token.
    running: Mutex<Vec<(u64, Arc<UnixStream>)>>,
}

impl CancelToken {
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        for (_, stream) in self.running.lock().iter() {
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    pub fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
pub struct Reply {
    pub head: AnswerHead,
    columns: Vec<(String, Column)>,
}

impl Reply {
    /// Take a column out; None where the answer has none of that name.
    pub fn take(&mut self, name: &str) -> Option<Column> {
        let at = self.columns.iter().position(|(known, _)| known == name)?;
        Some(self.columns.swap_remove(at).1)
    }

    pub fn bytes(&mut self, name: &str) -> Result<Vec<u8>> {
        match self.take(name) {
            Some(Column::Bytes(bytes)) => Ok(bytes),
            _ => Err(KernelError::corruption(format!("evaluate answer: no column {name}"))),
        }
    }
}

impl Client {
    pub fn new(path: impl Into<PathBuf>) -> Client {
        Client { path: path.into(), pool: Mutex::new(Vec::new()), next_id: AtomicU64::new(1) }
    }

    /// Send a request (JSON) and wait for the answer.
    pub fn call(
        &self,
        request: &[u8],
        timeout: Duration,
        cancel: Option<&CancelToken>,
    ) -> Result<Reply> {
        loop {
            let pooled = self.pool.lock().pop();
            let fresh = pooled.is_none();
            let stream = match pooled {
                Some(stream) => stream,
                None => Arc::new(UnixStream::connect(&self.path).map_err(|error| {
                    KernelError::Backend(format!("the shard does not answer: {error}"))
                })?),
            };
            stream.set_read_timeout(Some(timeout + GRACE))?;
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            if let Some(cancel) = cancel {
                cancel.running.lock().push((id, Arc::clone(&stream)));
            }
            let cancelled = || cancel.is_some_and(CancelToken::cancelled);
            let outcome = if cancelled() { Ok(None) } else { exchange(&stream, id, request) };
            if let Some(cancel) = cancel {
                cancel.running.lock().retain(|(running, _)| *running != id);
            }
            if cancelled() {
                return Err(KernelError::Cancelled("the query was cancelled".to_owned()));
            }
            match outcome {
                Ok(Some(answer)) => {
                    let mut pool = self.pool.lock();
                    if pool.len() < POOL_MAX {
                        pool.push(stream);
                    }
                    return answer.map_err(KernelError::from);
                }
                // The shard closed a connection that lay in the pool: it was started anew.
                Ok(None) if !fresh => {}
                Ok(None) => {
                    return Err(KernelError::Backend("the shard closed the connection".to_owned()));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

type Outcome = std::result::Result<Reply, WireError>;

/// One request and its answer; None where the connection ended before the answer began.
fn exchange(mut stream: &UnixStream, id: u64, request: &[u8]) -> Result<Option<Outcome>> {
    if frame::write(&mut stream, Kind::Request, id, request).is_err() {
        return Ok(None);
    }
    // The shard sends nothing after the answer, so nothing of another one is lost in here.
    let stream = &mut BufReader::with_capacity(BUFFER_BYTES, stream);
    let Some(head) = read_head(stream)? else { return Ok(None) };
    let mut payload = Vec::new();
    frame::read_payload(stream, &head, &mut payload)?;
    if head.request_id != id {
        return Err(KernelError::corruption("evaluate answer: to another request"));
    }
    let broken = |error: serde_json::Error| KernelError::corruption(format!("evaluate: {error}"));
    if head.kind == Kind::Error {
        return Ok(Some(Err(serde_json::from_slice(&payload).map_err(broken)?)));
    }
    let answer: AnswerHead = serde_json::from_slice(&payload).map_err(broken)?;
    let mut columns = Vec::with_capacity(answer.columns.len());
    for (name, kind, bytes) in &answer.columns {
        let mut column = Column::with_room(*kind, *bytes)?;
        let mut left = *bytes;
        while left > 0 {
            let ended = || KernelError::Backend("the answer ended early".to_owned());
            let head = read_head(stream)?.ok_or_else(ended)?;
            frame::read_payload(stream, &head, &mut payload)?;
            left = match left.checked_sub(payload.len()) {
                Some(left) if head.kind == Kind::Piece && head.request_id == id => left,
                _ => return Err(KernelError::corruption("evaluate answer: wrong piece")),
            };
            column.push(&payload)?;
        }
        columns.push((name.clone(), column));
    }
    Ok(Some(Ok(Reply { head: answer, columns })))
}

/// A frame's head; None where the peer is gone.
fn read_head(stream: &mut impl Read) -> Result<Option<frame::Head>> {
    match frame::read_head(stream) {
        Err(KernelError::Backend(message)) => {
            let late = message.contains("temporarily unavailable") || message.contains("timed out");
            if late { Err(KernelError::Deadline("the shard is late".to_owned())) } else { Ok(None) }
        }
        other => other,
    }
}
