//! Series that a file holds without a label that the query asks for.
//!
//! Invariant: where a file says nothing of a series because a label was taken from it, no answer
//! is called exact: silence is not absence.

use super::file::WindowFile;
use crate::error::Result;
use crate::labels::LabelTable;
use crate::shard::matcher::{CompiledMatcher, Matcher};

/// Could a series that lost a label have passed these matchers?
pub fn hides(file: &dyn WindowFile, matchers: &[Matcher]) -> Result<bool> {
    let taken = file.taken();
    let (about, rest): (Vec<Matcher>, Vec<Matcher>) =
        matchers.iter().cloned().partition(|matcher| taken.contains(&matcher.name));
    if about.is_empty() {
        return Ok(false);
    }
    let found = file.select(&rest, usize::MAX)?;
    let marks = file.marks(&found)?;
    let folds: Vec<u32> =
        found.iter().zip(marks).filter(|(_, mark)| mark.folded).map(|(&n, _)| n).collect();
    let compiled = about.iter().map(Matcher::compile).collect::<Result<Vec<_>>>()?;
    let labels = file.labels(&folds)?;
    Ok((0..folds.len()).any(|series| may_pass(&labels, series, &about, &compiled)))
}

fn may_pass(
    labels: &LabelTable,
    series: usize,
    about: &[Matcher],
    compiled: &[CompiledMatcher],
) -> bool {
    about.iter().zip(compiled).all(|(matcher, compiled)| {
        let value = labels.value(series, &matcher.name);
        value.is_empty() || compiled.matches(value)
    })
}
