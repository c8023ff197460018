//! Buffers of an evaluation over windows, and who may stop it.

use super::columns::WindowColumns;
use super::folds::Folds;
use super::state::State;
use crate::evaluate::functions;
use crate::evaluate::window::FreshPoints;

/// What evaluation reuses from series to series.
pub struct Scratch<'a> {
    pub(super) points: functions::Scratch<'a>,
    pub(super) folds: Folds,
    pub(super) copy: WindowColumns,
    pub(super) states: Vec<State>,
    pub(super) times_ms: Vec<i64>,
    pub(super) values: Vec<f64>,
    pub(super) fresh: FreshPoints,
}

impl<'a> Scratch<'a> {
    /// `stop` is asked every 64 Ki windows and steps.
    pub fn new(stop: &'a dyn Fn() -> bool) -> Scratch<'a> {
        Scratch {
            points: functions::Scratch::new(stop),
            folds: Folds::default(),
            copy: WindowColumns::default(),
            states: Vec::new(),
            times_ms: Vec::new(),
            values: Vec::new(),
            fresh: FreshPoints::default(),
        }
    }

    /// Was a run cut short? Its answer is worthless then.
    pub fn stopped(&self) -> bool {
        self.points.stopped()
    }
}
