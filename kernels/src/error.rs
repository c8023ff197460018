//! Errors of the kernels, split by who must act. `python/errors.rs` maps them to the Python tree.

use std::fmt;
use std::io;

pub type Result<T> = std::result::Result<T, KernelError>;

#[derive(Debug)]
pub enum KernelError {
    /// The client must change something: a 4xx with a stable id that names the limit.
    Client { status: u16, id: &'static str, message: String },
    /// We have too much to do: 429/503 with Retry-After.
    Overloaded { retry_after_s: f64, message: String },
    /// A backend (disk, socket) failed; the caller may try again.
    Backend(String),
    /// Bytes at rest are not what was written: quarantine and report.
    Corruption(String),
    /// A query passed its deadline.
    Deadline(String),
    /// The asker is gone.
    Cancelled(String),
}

impl KernelError {
    pub fn client(status: u16, id: &'static str, message: impl Into<String>) -> KernelError {
        KernelError::Client { status, id, message: message.into() }
    }
    pub fn out_of_memory(message: &str) -> KernelError {
        KernelError::Overloaded { retry_after_s: 1.0, message: format!("out of memory: {message}") }
    }
    pub fn corruption(message: impl Into<String>) -> KernelError {
        KernelError::Corruption(message.into())
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KernelError::Client { id, message, .. } => write!(f, "{message} ({id})"),
            KernelError::Overloaded { message, .. } => write!(f, "overloaded: {message}"),
            KernelError::Backend(m) => write!(f, "backend: {m}"),
            KernelError::Corruption(m) => write!(f, "corruption: {m}"),
            KernelError::Deadline(m) => write!(f, "deadline: {m}"),
            KernelError::Cancelled(m) => write!(f, "cancelled: {m}"),
        }
    }
}

impl std::error::Error for KernelError {}

/// Room for `count` values, or an error where a `Vec` of its own would end the process.
pub fn room_for<T>(count: usize, what: &str) -> Result<Vec<T>> {
    let mut room = Vec::new();
    match room.try_reserve_exact(count) {
        Ok(()) => Ok(room),
        Err(_) => Err(KernelError::out_of_memory(what)),
    }
}

impl From<io::Error> for KernelError {
    fn from(error: io::Error) -> KernelError {
        KernelError::Backend(error.to_string())
    }
}
