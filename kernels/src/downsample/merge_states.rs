//! States of several tiers for the same steps: merged series for series in time order, finished,
//! aggregated.
//!
//! Invariant: series are the same where their label sets are, whichever part they stand in; a
//! part's states are later than those of the parts before it.

use super::state::{State, has_state};
use super::state_rows::StateRows;
use crate::error::{KernelError, Result, room_for};
use crate::evaluate::aggregate::Aggregate;
use crate::evaluate::execute::drop_empty_rows;
use crate::evaluate::plan::{Evaluation, Grouping, Plan, bad_plan};
use crate::labels::{LabelTable, Union};

/// Step columns: rows of values and presence, series (or groups) that have none left out.
#[derive(Debug)]
pub struct Merged {
    pub labels: LabelTable,
    pub step_count: usize,
    pub values: Vec<f64>,
    pub present: Vec<bool>,
}

/// The answer to `plan` from its parts, the oldest first. `check` is asked between parts.
///
/// Errors: `sluiceway-query-bad-plan` (400) where parts and plan do not fit;
/// `sluiceway-query-bytes-limit` (422) by the plan's `bytes_max`.
pub fn merge_states(
    plan: &Plan,
    parts: &[&StateRows],
    check: &dyn Fn() -> Result<()>,
) -> Result<Merged> {
    let evaluation = Evaluation::of(plan)?;
    let function = evaluation.call.function;
    let width = evaluation.end_ms.len();
    let fits = parts.iter().all(|part| part.step_count == width);
    if !fits || !has_state(function) || evaluation.call.extension.is_some() {
        return Err(bad_plan(format!("states do not fit {}", function.name())));
    }
    let mut union = Union::default();
    let numbers: Vec<Vec<u32>> = parts.iter().map(|part| union.add(&part.labels)).collect();
    let labels = union.finish();
    let cells = labels.len().saturating_mul(width);
    allow(cells.saturating_mul(size_of::<State>() + 9), plan.limits.bytes_max)?;
    let mut states: Vec<State> = room_for(cells, "states")?;
    states.resize(cells, State::EMPTY);
    for (part, numbers) in parts.iter().zip(&numbers) {
        check()?;
        for (i, &number) in numbers.iter().enumerate() {
            let ours = number as usize * width..(number as usize + 1) * width;
            let pairs = states[ours].iter_mut().zip(part.row(i));
            pairs
                .filter(|(_, later)| !later.is_empty())
                .for_each(|(ours, later)| ours.merge(later));
        }
    }
    check()?;
    let finish =
        |(state, &end_ms): (&State, &i64)| state.finish(function, end_ms, evaluation.range_ms);
    let ends = evaluation.end_ms.iter().cycle();
    let (mut values, mut present) = (room_for(cells, "states")?, room_for(cells, "states")?);
    for answer in states.iter().zip(ends).map(finish) {
        values.push(answer.unwrap_or(0.0));
        present.push(answer.is_some());
    }
    let merged = Merged { labels, step_count: width, values, present };
    match &plan.aggregate {
        None => merged.without_empty_rows(),
        Some(grouping) => merged.aggregated(grouping)?.without_empty_rows(),
    }
}

fn allow(bytes: usize, bytes_max: Option<usize>) -> Result<()> {
    match bytes_max {
        Some(most) if bytes > most => {
            let message = format!("the query needs {bytes} bytes of memory, limit {most}");
            Err(KernelError::client(422, "sluiceway-query-bytes-limit", message))
        }
        _ => Ok(()),
    }
}

impl Merged {
    fn aggregated(self, grouping: &Grouping) -> Result<Merged> {
        let (names, without) = match (&grouping.by, &grouping.without) {
            (Some(_), Some(_)) => return Err(bad_plan("by and without")),
            (by, None) => (by.as_deref().unwrap_or_default(), false),
            (None, Some(without)) => (without.as_slice(), true),
        };
        let (group_of, labels) = self.labels.group(names, without);
        let width = self.step_count;
        let mut state = Aggregate::new(grouping.op, labels.len(), width);
        for (i, &group) in group_of.iter().enumerate() {
            let row = i * width..(i + 1) * width;
            state.feed(group as usize, &self.values[row.clone()], &self.present[row]);
        }
        let (values, present) = state.finish();
        Ok(Merged { labels, step_count: width, values, present })
    }

    fn without_empty_rows(mut self) -> Result<Merged> {
        if let Some(kept) = drop_empty_rows(&mut self.values, &mut self.present, self.step_count) {
            self.labels = self.labels.take(&kept)?;
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(series: &[(&str, Vec<State>)]) -> StateRows {
        let lists: Vec<Vec<(&str, &str)>> =
            series.iter().map(|(name, _)| vec![("__name__", "m"), ("i", *name)]).collect();
        let states: Vec<State> = series.iter().flat_map(|(_, states)| states.clone()).collect();
        StateRows { labels: LabelTable::from_lists(&lists), step_count: 2, states }
    }

    fn plan(more: &str) -> Plan {
        let text = format!(
            r#"{{"matchers": [], "start_ms": 60, "end_ms": 120, "step_ms": 60,
                "function": "sum_over_time", "range_ms": 60{more}}}"#
        );
        serde_json::from_str(&text).expect("a plan")
    }

    fn state(points: &[(i64, f64)]) -> State {
        let (times_ms, values): (Vec<i64>, Vec<f64>) = points.iter().copied().unzip();
        State::of_points(&times_ms, &values)
    }

    #[test]
    fn series_meet_by_their_labels_and_are_finished() -> Result<()> {
        let older = rows(&[
            ("a", vec![state(&[(1, 2.0)]), state(&[(61, 1.0)])]),
            ("b", vec![State::EMPTY, state(&[(70, 5.0)])]),
            ("gone", vec![State::EMPTY; 2]),
        ]);
        let newer = rows(&[
            ("b", vec![State::EMPTY, state(&[(80, 7.0)])]),
            ("a", vec![state(&[(50, 3.0)]), State::EMPTY]),
        ]);
        let check = || Ok(());
        let merged = merge_states(&plan(""), &[&older, &newer], &check)?;
        assert_eq!(merged.labels.values_of("i"), ["a", "b"]);
        assert_eq!(merged.values, [5.0, 1.0, 0.0, 12.0]);
        assert_eq!(merged.present, [true, true, false, true]);
        let grouped = plan(r#", "aggregate": {"op": "max", "by": ["__name__"]}"#);
        let merged = merge_states(&grouped, &[&older, &newer], &check)?;
        assert_eq!((merged.labels.len(), merged.values), (1, vec![5.0, 12.0]));
        let small = plan(r#", "limits": {"bytes_max": 100}"#);
        assert!(merge_states(&small, &[&older], &check).is_err());
        Ok(())
    }
}
