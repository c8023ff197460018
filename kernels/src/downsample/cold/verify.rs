//! An object read back whole: its windows come to the checksum that its writer computed, and what
//! other engines read as labels is what our index says.

use super::content::Content;
use super::reader::ColdFile;
use super::rows::json;
use super::schema::{KIND, LABELS, METRIC_NAME as METRIC_COLUMN, kind_name};
use crate::downsample::columns::{Fields, WindowColumns};
use crate::downsample::file::WindowFile;
use crate::downsample::mark::Marked;
use crate::error::{KernelError, Result};
use crate::labels::{LabelTable, METRIC_NAME};
use crate::sketch::quantiles;

/// Series read at once: memory.
const BATCH_SERIES: usize = 256;

pub fn verify_cold(file: &ColdFile) -> Result<()> {
    file.index().dictionary.verify()?;
    verify_windows(file)?;
    verify_texts(file)
}

fn corrupt(why: &str) -> KernelError {
    KernelError::corruption(format!("cold object read back: {why}"))
}

fn verify_windows(file: &ColdFile) -> Result<()> {
    let mut content = Content::default();
    let (mut windows, mut points, mut sketches) = (0, 0, 0);
    let mut marked = Marked::default();
    let mut batch = WindowColumns::default();
    let numbers: Vec<u32> = (0..file.series_count() as u32).collect();
    for series in numbers.chunks(BATCH_SERIES) {
        batch.clear();
        file.read(series, i64::MIN..i64::MAX, Fields::ALL, &mut batch)?;
        let labels = file.labels(series)?;
        for i in 0..series.len() {
            content.add((&labels, i), batch.kinds[i], &batch, batch.series(i));
        }
        file.index().dictionary.marks(series)?.into_iter().for_each(|mark| marked.add(mark));
        windows += batch.window_count() as u64;
        sketches += batch.sketches.len() as u64;
        for (place, sketch) in batch.sketches.iter() {
            if quantiles::points(sketch)? != u64::from(batch.count[place]) {
                return Err(corrupt("points of a sketch"));
            }
        }
        points += batch.count.iter().map(|&count| u64::from(count)).sum::<u64>();
    }
    let facts = file.facts();
    if (windows, points, sketches) != (facts.windows, facts.points, facts.sketches) {
        return Err(corrupt("counts"));
    }
    if marked != file.marked() {
        return Err(corrupt("marks"));
    }
    if content.sum() != facts.content {
        return Err(corrupt("content"));
    }
    Ok(())
}

fn verify_texts(file: &ColdFile) -> Result<()> {
    let numbers: Vec<u32> = (0..file.series_count() as u32).collect();
    let mut batches = numbers.chunks(BATCH_SERIES);
    let (mut placed, mut at, mut labels) = (Vec::new(), 0, LabelTable::default());
    let mut group_from = 0;
    for (group, rows) in file.group_rows().into_iter().enumerate() {
        let [metrics, texts, kinds] =
            [METRIC_COLUMN, LABELS, KIND].map(|column| file.texts(group, column));
        let (metrics, texts, kinds) = (metrics?, texts?, kinds?);
        loop {
            if at == placed.len() {
                let Some(batch) = batches.next() else { break };
                (placed, at, labels) = (file.index().placed(batch)?, 0, file.labels(batch)?);
            }
            let series = &placed[at];
            if series.rows.end > group_from + rows {
                break;
            }
            let expected = json(&labels, at)?;
            let (metric, kind) = (labels.value(at, METRIC_NAME), kind_name(series.kind));
            for row in series.rows.clone() {
                let row = (row - group_from) as usize;
                if metrics[row] != metric || texts[row] != expected || kinds[row] != kind {
                    return Err(corrupt("labels"));
                }
            }
            at += 1;
        }
        group_from += rows;
    }
    if at < placed.len() || batches.next().is_some() {
        return Err(corrupt("rows"));
    }
    Ok(())
}
