//! When a kernel that works for Python must give up: its query's deadline, or the asker gone.

use super::evaluate::CancelToken;
use crate::error::{KernelError, Result};
use crate::evaluate::client;
use pyo3::prelude::*;
use std::time::{Duration, Instant};

pub struct Stop<'a> {
    deadline: Option<Instant>,
    cancel: Option<&'a client::CancelToken>,
}

impl<'a> Stop<'a> {
    pub fn new(timeout_s: Option<f64>, cancel: Option<&'a Bound<'_, CancelToken>>) -> Stop<'a> {
        let left = |s: f64| Duration::try_from_secs_f64(s.max(0.0)).unwrap_or(Duration::MAX);
        Stop {
            deadline: timeout_s.and_then(|s| Instant::now().checked_add(left(s))),
            cancel: cancel.map(|token| &token.get().inner),
        }
    }

    /// Errors: Cancelled, Deadline.
    pub fn check(&self) -> Result<()> {
        if self.cancel.is_some_and(client::CancelToken::cancelled) {
            return Err(KernelError::Cancelled(
                "query was canceled in expression evaluation".into(),
            ));
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(KernelError::Deadline("query timed out in expression evaluation".into()));
        }
        Ok(())
    }
}
