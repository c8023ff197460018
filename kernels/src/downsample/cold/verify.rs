//! An object read back whole: its windows come to the checksum that its writer computed, and what
//! other engines read as labels is what our index says.

use super::content::Content;
use super::reader::ColdFile;
use super::rows::json;
use super::schema::{KIND, LABELS, METRIC_NAME as METRIC_COLUMN, kind_name};
use crate::downsample::columns::{Fields, WindowColumns};
use crate::downsample::file::WindowFile;
use crate::error::{KernelError, Result};
use crate::labels::METRIC_NAME;

/// Series read at once: memory.
const BATCH_SERIES: usize = 256;

pub fn verify_cold(file: &ColdFile) -> Result<()> {
    verify_windows(file)?;
    verify_texts(file)
}

fn corrupt(why: &str) -> KernelError {
    KernelError::corruption(format!("cold object read back: {why}"))
}

fn verify_windows(file: &ColdFile) -> Result<()> {
    let index = file.index()?;
    let mut content = Content::default();
    let (mut windows, mut points) = (0, 0);
    let mut batch = WindowColumns::default();
    let numbers: Vec<u32> = (0..index.series_count() as u32).collect();
    for series in numbers.chunks(BATCH_SERIES) {
        batch.clear();
        file.read(series, i64::MIN..i64::MAX, Fields::ALL, &mut batch)?;
        for (i, &number) in series.iter().enumerate() {
            let rows = batch.series(i);
            content.add((&index.labels, number as usize), batch.kinds[i], &batch, rows);
        }
        windows += batch.window_count() as u64;
        points += batch.count.iter().map(|&count| u64::from(count)).sum::<u64>();
    }
    let facts = file.facts();
    if (windows, points) != (facts.windows, facts.points) {
        return Err(corrupt("counts"));
    }
    if content.sum() != facts.content {
        return Err(corrupt("content"));
    }
    Ok(())
}

fn verify_texts(file: &ColdFile) -> Result<()> {
    let index = file.index()?;
    let (mut group_from, mut series) = (0, 0);
    for (group, rows) in file.group_rows().into_iter().enumerate() {
        let [metrics, labels, kinds] =
            [METRIC_COLUMN, LABELS, KIND].map(|column| file.texts(group, column));
        let (metrics, labels, kinds) = (metrics?, labels?, kinds?);
        while series < index.series_count() && index.rows(series).end <= group_from + rows {
            let expected = json(&index.labels, series)?;
            let metric = index.labels.value(series, METRIC_NAME);
            let kind = kind_name(index.kinds[series]);
            for row in index.rows(series) {
                let at = (row - group_from) as usize;
                if metrics[at] != metric || labels[at] != expected || kinds[at] != kind {
                    return Err(corrupt("labels"));
                }
            }
            series += 1;
        }
        group_from += rows;
    }
    if series < index.series_count() {
        return Err(corrupt("rows"));
    }
    Ok(())
}
