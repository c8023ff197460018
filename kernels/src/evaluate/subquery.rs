//! A range function over columns that are already evaluated: the read side's subqueries.
//!
//! Invariant: the same kernels as over stored points, so a subquery and a selector agree.

use super::functions::{Call, Scratch};
use super::window::Steps;
use crate::error::{Result, room_for};

const SERIES_A_LOOK: usize = 64;

/// Columns of S series: `values` and `present` are [S, N] by rows, `times_ms` [N] ascending.
/// Returns [S, T] values (0 where absent) and presence. `check` is asked between series and within
/// them; its error ends the work.
pub fn range_columns(
    call: &Call,
    times_ms: &[i64],
    values: &[f64],
    present: &[bool],
    steps: &Steps<'_>,
    check: &dyn Fn() -> Result<()>,
) -> Result<(Vec<f64>, Vec<bool>)> {
    let (points, step_count) = (times_ms.len(), steps.count());
    let series_count = values.len().checked_div(points).unwrap_or(0);
    let cells = series_count * step_count;
    let (mut out, mut out_present) = (room_for(cells, "subquery")?, room_for(cells, "subquery")?);
    out.resize(cells, 0.0);
    out_present.resize(cells, false);
    let (mut row_times, mut row_values) = (Vec::new(), Vec::new());
    let stop = || check().is_err();
    let mut scratch = Scratch::new(&stop);
    for series in 0..series_count {
        // The meter counts what windows look at; many series of few points add up elsewhere.
        if series % SERIES_A_LOOK == 0 || scratch.stopped() {
            check()?;
        }
        let row = series * points..(series + 1) * points;
        let (row_in, here) = (&values[row.clone()], &present[row]);
        let cells = series * step_count..(series + 1) * step_count;
        let (out, out_present) = (&mut out[cells.clone()], &mut out_present[cells]);
        if here.iter().all(|&here| here) {
            call.run(times_ms, row_in, steps, &mut scratch, out, out_present);
            continue;
        }
        row_times.clear();
        row_values.clear();
        for i in (0..points).filter(|&i| here[i]) {
            row_times.push(times_ms[i]);
            row_values.push(row_in[i]);
        }
        call.run(&row_times, &row_values, steps, &mut scratch, out, out_present);
    }
    if scratch.stopped() {
        check()?;
    }
    Ok((out, out_present))
}
