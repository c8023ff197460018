//! Aggregations fused into the scan: a state per (group, step), fed row by row.
//!
//! Invariant: states merge, and merging in a fixed order gives the same bits however many threads
//! made them. Rows are steps of one series, so a feed is a loop over neighbouring memory.

use super::numeric::{Mean, add, total};

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aggregation {
    Sum,
    Avg,
    Count,
    Min,
    Max,
    Group,
    Stddev,
    Stdvar,
}

impl Aggregation {
    /// Bytes of the state of one (group, step), and of its answer.
    pub fn state_bytes(self) -> usize {
        let state = match self {
            Aggregation::Sum => size_of::<(f64, f64)>() + 1,
            Aggregation::Avg => size_of::<Mean>(),
            Aggregation::Count | Aggregation::Group => size_of::<f64>(),
            Aggregation::Min | Aggregation::Max => size_of::<f64>() + 1,
            Aggregation::Stddev | Aggregation::Stdvar => size_of::<(f64, f64, f64)>(),
        };
        state + size_of::<f64>() + 1
    }
}

/// The states of `group_count` groups over `step_count` steps.
#[derive(Clone)]
pub struct Aggregate {
    op: Aggregation,
    step_count: usize,
    columns: Columns,
}

#[derive(Clone)]
enum Columns {
    /// sum: (sum, compensation); the first value starts the sum, so that -0 stays -0.
    Sum {
        pairs: Vec<(f64, f64)>,
        seen: Vec<bool>,
    },
    Mean(Vec<Mean>),
    /// count, group: how many.
    Count(Vec<f64>),
    /// min, max.
    Extreme {
        best: Vec<f64>,
        seen: Vec<bool>,
    },
    /// stddev, stdvar: (count, mean, sum of squared distances).
    Spread(Vec<(f64, f64, f64)>),
}

impl Aggregate {
    pub fn new(op: Aggregation, group_count: usize, step_count: usize) -> Aggregate {
        let cells = group_count * step_count;
        let columns = match op {
            Aggregation::Sum => {
                Columns::Sum { pairs: vec![(0.0, 0.0); cells], seen: vec![false; cells] }
            }
            Aggregation::Avg => Columns::Mean(vec![Mean::default(); cells]),
            Aggregation::Count | Aggregation::Group => Columns::Count(vec![0.0; cells]),
            Aggregation::Min | Aggregation::Max => {
                Columns::Extreme { best: vec![f64::NAN; cells], seen: vec![false; cells] }
            }
            Aggregation::Stddev | Aggregation::Stdvar => {
                Columns::Spread(vec![(0.0, 0.0, 0.0); cells])
            }
        };
        Aggregate { op, step_count, columns }
    }

    /// Take in one series: its values and presence, a step each.
    pub fn feed(&mut self, group: usize, values: &[f64], present: &[bool]) {
        let cells = group * self.step_count..(group + 1) * self.step_count;
        let rows = values.iter().zip(present);
        match &mut self.columns {
            Columns::Sum { pairs, seen } => {
                let states = pairs[cells.clone()].iter_mut().zip(&mut seen[cells]);
                for ((pair, seen), (&value, &present)) in states.zip(rows) {
                    if present {
                        *pair = if *seen { add(value, pair.0, pair.1) } else { (value, 0.0) };
                        *seen = true;
                    }
                }
            }
            Columns::Mean(means) => {
                for (mean, (&value, &present)) in means[cells].iter_mut().zip(rows) {
                    if present {
                        mean.push(value);
                    }
                }
            }
            Columns::Count(counts) => {
                for (count, &present) in counts[cells].iter_mut().zip(present) {
                    *count += f64::from(u8::from(present));
                }
            }
            Columns::Extreme { best, seen } => {
                let maximum = self.op == Aggregation::Max;
                let states = best[cells.clone()].iter_mut().zip(&mut seen[cells]);
                for ((best, seen), (&value, &present)) in states.zip(rows) {
                    if present {
                        *seen = true;
                        take_better(best, value, maximum);
                    }
                }
            }
            Columns::Spread(states) => {
                for (state, (&value, &present)) in states[cells].iter_mut().zip(rows) {
                    if present {
                        let count = state.0 + 1.0;
                        let distance = value - state.1;
                        let mean = state.1 + distance / count;
                        *state = (count, mean, state.2 + distance * (value - mean));
                    }
                }
            }
        }
    }

    /// Take in the states of later series: group `i` of `later` is our group `groups[i]`.
    pub fn merge(&mut self, groups: &[u32], later: &Aggregate) {
        let (steps, maximum) = (self.step_count, self.op == Aggregation::Max);
        for (theirs, &ours) in groups.iter().enumerate() {
            let theirs = theirs * steps..(theirs + 1) * steps;
            let ours = ours as usize * steps..(ours as usize + 1) * steps;
            match (&mut self.columns, &later.columns) {
                (Columns::Sum { pairs, seen }, Columns::Sum { pairs: other, seen: other_seen }) => {
                    let states = pairs[ours.clone()].iter_mut().zip(&mut seen[ours]);
                    let later = other[theirs.clone()].iter().zip(&other_seen[theirs]);
                    for ((pair, seen), (other, &present)) in states.zip(later) {
                        if present && *seen {
                            let (sum, compensation) = add(other.0, pair.0, pair.1);
                            *pair = (sum, compensation + other.1);
                        } else if present {
                            (*pair, *seen) = (*other, true);
                        }
                    }
                }
                (Columns::Mean(means), Columns::Mean(other)) => {
                    let states = means[ours].iter_mut().zip(&other[theirs]);
                    states.for_each(|(mean, other)| mean.merge(*other));
                }
                (Columns::Count(counts), Columns::Count(other)) => {
                    let states = counts[ours].iter_mut().zip(&other[theirs]);
                    states.for_each(|(count, other)| *count += other);
                }
                (
                    Columns::Extreme { best, seen },
                    Columns::Extreme { best: other, seen: other_seen },
                ) => {
                    let states = best[ours.clone()].iter_mut().zip(&mut seen[ours]);
                    let later = other[theirs.clone()].iter().zip(&other_seen[theirs]);
                    for ((best, seen), (&other, &present)) in states.zip(later) {
                        if present {
                            *seen = true;
                            take_better(best, other, maximum);
                        }
                    }
                }
                (Columns::Spread(states), Columns::Spread(other)) => {
                    let states = states[ours].iter_mut().zip(&other[theirs]);
                    states.for_each(|(state, other)| merge_spread(state, *other));
                }
                _ => debug_assert!(false, "states of two aggregations never meet"),
            }
        }
    }

    /// Values and presence, group by group.
    pub fn finish(self) -> (Vec<f64>, Vec<bool>) {
        match self.columns {
            Columns::Sum { pairs, seen } => {
                (pairs.into_iter().map(|(sum, c)| total(sum, c)).collect(), seen)
            }
            Columns::Mean(means) => {
                let present = means.iter().map(|mean| mean.count > 0.0).collect();
                (means.iter().map(Mean::value).collect(), present)
            }
            Columns::Count(mut counts) => {
                let present = counts.iter().map(|&count| count > 0.0).collect();
                if self.op == Aggregation::Group {
                    counts.iter_mut().for_each(|count| *count = count.min(1.0));
                }
                (counts, present)
            }
            Columns::Extreme { best, seen } => (best, seen),
            Columns::Spread(states) => {
                let root = self.op == Aggregation::Stddev;
                let value = |&(count, _, squares): &(f64, f64, f64)| {
                    let variance = squares / count;
                    if root { variance.sqrt() } else { variance }
                };
                let present = states.iter().map(|state| state.0 > 0.0).collect();
                (states.iter().map(value).collect(), present)
            }
        }
    }
}

/// NaN stays only where there is nothing else.
#[inline(always)]
fn take_better(best: &mut f64, value: f64, maximum: bool) {
    let better = if maximum { value > *best } else { value < *best };
    if better || best.is_nan() {
        *best = value;
    }
}

fn merge_spread(state: &mut (f64, f64, f64), other: (f64, f64, f64)) {
    if state.0 == 0.0 || other.0 == 0.0 {
        if state.0 == 0.0 {
            *state = other;
        }
        return;
    }
    let count = state.0 + other.0;
    let distance = other.1 - state.1;
    let squares = state.2 + other.2 + distance * distance * (state.0 * other.0 / count);
    *state = (count, state.1 + distance * (other.0 / count), squares);
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPS: [Aggregation; 8] = [
        Aggregation::Sum,
        Aggregation::Avg,
        Aggregation::Count,
        Aggregation::Min,
        Aggregation::Max,
        Aggregation::Group,
        Aggregation::Stddev,
        Aggregation::Stdvar,
    ];

    proptest::proptest! {
        /// However the series are split over states, the merged answer is that of one state.
        #[test]
        fn merged_states_equal_one_state(
            rows in proptest::collection::vec(
                (0usize..3, proptest::collection::vec(proptest::option::of(-1e6f64..1e6), 4)), 0..40),
            cut in 0usize..40,
        ) {
            for op in OPS {
                let feed = |rows: &[(usize, Vec<Option<f64>>)]| {
                    let mut state = Aggregate::new(op, 3, 4);
                    for (group, row) in rows {
                        let values: Vec<f64> = row.iter().map(|v| v.unwrap_or(7e7)).collect();
                        let present: Vec<bool> = row.iter().map(Option::is_some).collect();
                        state.feed(*group, &values, &present);
                    }
                    state
                };
                let cut = cut.min(rows.len());
                let mut merged = feed(&rows[..cut]);
                merged.merge(&[0, 1, 2], &feed(&rows[cut..]));
                let ((got, here), (want, there)) = (merged.finish(), feed(&rows).finish());
                proptest::prop_assert_eq!(&here, &there);
                for i in (0..got.len()).filter(|&i| here[i]) {
                    let close = (got[i] - want[i]).abs() <= 1e-9 * want[i].abs().max(1e-3);
                    proptest::prop_assert!(close, "{op:?}: {} and {}", got[i], want[i]);
                }
            }
        }
    }
}
