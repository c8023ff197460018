//! Step columns of disjoint steps made one: rows of equal label sets become one row.
//!
//! Invariant: rows stand in the order of first appearance, segment after segment, so the same
//! segments give the same rows.

use super::table::LabelTable;
use super::union::Union;
use crate::error::{KernelError, Result, room_for};
use std::ops::Range;

/// The columns of some steps of a query: rows of `steps.len()` values, series after series.
#[derive(Clone, Debug)]
pub struct StepRows<'a> {
    pub labels: &'a LabelTable,
    pub values: &'a [f64],
    pub present: &'a [bool],
    /// Which of the query's steps these are.
    pub steps: Range<usize>,
}

/// One table and its [S, T] values (0 where absent) and presence over all `step_count` steps.
///
/// Errors: Backend where a segment does not fit its labels or the steps.
pub fn stitch(
    segments: &[StepRows<'_>],
    step_count: usize,
) -> Result<(LabelTable, Vec<f64>, Vec<bool>)> {
    let mut union = Union::default();
    let mut rows = Vec::with_capacity(segments.len());
    for segment in segments {
        let cells = segment.labels.len() * segment.steps.len();
        if segment.steps.end > step_count
            || segment.values.len() != cells
            || segment.present.len() != cells
        {
            return Err(KernelError::Backend("a segment does not fit its steps".to_owned()));
        }
        rows.push(union.add(segment.labels));
    }
    let cells = union.len() * step_count;
    let (mut values, mut present) = (room_for(cells, "columns")?, room_for(cells, "columns")?);
    values.resize(cells, 0.0);
    present.resize(cells, false);
    for (segment, rows) in segments.iter().zip(rows) {
        let width = segment.steps.len();
        for (from, row) in rows.into_iter().enumerate() {
            let to = row as usize * step_count + segment.steps.start;
            let theirs = from * width..(from + 1) * width;
            values[to..to + width].copy_from_slice(&segment.values[theirs.clone()]);
            present[to..to + width].copy_from_slice(&segment.present[theirs]);
        }
    }
    Ok((union.finish(), values, present))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_meet_by_their_labels() {
        let table = |names: &[&str]| {
            let lists: Vec<_> = names.iter().map(|&name| vec![("i", name)]).collect();
            LabelTable::from_lists(&lists)
        };
        let (early, late) = (table(&["a", "b"]), table(&["c", "a"]));
        let segments = [
            StepRows {
                labels: &early,
                values: &[1.0, 2.0, 3.0, 0.0],
                present: &[true, true, true, false],
                steps: 0..2,
            },
            StepRows { labels: &late, values: &[9.0, 4.0], present: &[true, true], steps: 3..4 },
        ];
        let (labels, values, present) = stitch(&segments, 4).expect("stitched");
        assert_eq!(labels.values_of("i"), ["a", "b", "c"]);
        assert_eq!(values, [1.0, 2.0, 0.0, 4.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0]);
        let shown: Vec<u8> = present.into_iter().map(u8::from).collect();
        assert_eq!(shown, [1, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1]);
        assert!(stitch(&segments, 3).is_err(), "a step past the end");
    }
}
