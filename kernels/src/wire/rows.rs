//! A batch under construction: points first, then the verdict over their series.
//!
//! Invariant (docs/formats/batch.md): `points_received = points + histograms + rejected`, whatever
//! the client sends.

use super::decoder::Decoder;
use super::histogram::Draft;
use super::labels::{Fault, Refused, judge_canonical, judge_raw};
use super::limits::{
    FUTURE_MAX_MS, HELP_BYTES_MAX, LABEL_BYTES_MAX, LABEL_NAME_BYTES_MAX, METADATA_MAX, POINTS_MAX,
    TIME_MIN_MS,
};
use super::proto::{Cursor, Malformed};
use crate::error::{KernelError, Result};
use crate::model::{Batch, BatchSeries, FamilyMetadata, HistogramPoint, RejectReason, SeriesType};
use std::ops::Range;

pub struct Rows<'d> {
    pub batch: Batch,
    pub decoder: &'d Decoder,
    time_max_ms: i64,
    /// Canonical labels made here; `finish` puts them behind `body_bytes` of the body.
    made: Vec<u8>,
    body_bytes: usize,
    /// Points and histograms at the start of the series being read.
    mark: (usize, usize),
}

impl<'d> Rows<'d> {
    /// `body_bytes` = length of the body that will stand first in `label_bytes` (0 for none).
    pub fn new(decoder: &'d Decoder, received_ms: i64, body_bytes: usize) -> Rows<'d> {
        Rows {
            batch: Batch::default(),
            decoder,
            time_max_ms: received_ms.saturating_add(FUTURE_MAX_MS),
            made: Vec::new(),
            body_bytes,
            mark: (0, 0),
        }
    }

    pub fn reserve(&mut self, points: usize) {
        let points = points.min(POINTS_MAX);
        self.batch.series.reserve(points);
        self.batch.point_series_index.reserve(points);
        self.batch.point_time_ms.reserve(points);
        self.batch.point_value.reserve(points);
    }

    #[inline(always)]
    pub fn begin_series(&mut self) {
        self.mark = (self.batch.point_value.len(), self.batch.histograms.len());
    }

    /// Read a `Sample` message (the same in remote write 1.0 and 2.0).
    #[inline(always)]
    pub fn read_sample(&mut self, mut cursor: Cursor) -> Result<()> {
        let (mut value, mut time_ms) = (0.0, 0);
        while let Some(tag) = cursor.next_tag()? {
            match tag {
                0x09 => value = cursor.double()?,
                0x10 => time_ms = cursor.varint()? as i64,
                _ => cursor.skip(tag)?,
            }
        }
        self.push_sample(time_ms, value)
    }

    /// One more sample of the series being read.
    #[inline(always)]
    pub fn push_sample(&mut self, time_ms: i64, value: f64) -> Result<()> {
        self.receive()?;
        if let Some(refused) = self.time_refusal(time_ms) {
            self.refuse(&refused, 1);
            return Ok(());
        }
        self.batch.point_series_index.push(self.batch.series.len() as u32);
        self.batch.point_time_ms.push(time_ms);
        self.batch.point_value.push(value);
        Ok(())
    }

    pub fn push_histogram(&mut self, draft: Draft) -> Result<()> {
        self.receive()?;
        let time_ms = draft.time_ms;
        if let Some(refused) = self.time_refusal(time_ms) {
            self.refuse(&refused, 1);
            return Ok(());
        }
        let start = self.batch.histogram_bytes.len() as u32;
        match draft.encode(&mut self.batch.histogram_bytes) {
            Ok(()) => self.batch.histograms.push(HistogramPoint {
                series_index: self.batch.series.len() as u32,
                time_ms,
                start,
                end: self.batch.histogram_bytes.len() as u32,
            }),
            Err(refused) => self.refuse(&refused, 1),
        }
        Ok(())
    }

    #[inline(always)]
    fn receive(&mut self) -> Result<()> {
        self.batch.points_received += 1;
        if self.batch.points_received as usize > POINTS_MAX {
            return Err(too_many("points", POINTS_MAX));
        }
        Ok(())
    }

    /// Does the series being read have a good point? A series without one is not in the batch.
    #[inline(always)]
    pub fn series_has_points(&self) -> bool {
        self.mark != (self.batch.point_value.len(), self.batch.histograms.len())
    }

    /// Close the series: its labels are the body's bytes in `range`, not canonical.
    #[inline(always)]
    pub fn end_series_raw(&mut self, range: Range<usize>, label_hash: u128) {
        self.batch.series.push(BatchSeries {
            label_hash,
            label_start: range.start as u32,
            label_end: range.end as u32,
            canonical: false,
            series_type: SeriesType::Unknown,
        });
    }

    /// Close the series with labels that `write` appends in canonical form.
    pub fn end_series_canonical(
        &mut self,
        series_type: SeriesType,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<()> {
        let start = self.made.len();
        write(&mut self.made);
        if self.made.len() > LABEL_BYTES_MAX {
            return Err(too_many("bytes of labels", LABEL_BYTES_MAX));
        }
        self.batch.series.push(BatchSeries {
            label_hash: self.decoder.hash_canonical(&self.made[start..]),
            label_start: (self.body_bytes + start) as u32,
            label_end: (self.body_bytes + self.made.len()) as u32,
            canonical: true,
            series_type,
        });
        Ok(())
    }

    /// Close the series: it is refused, and its points with it.
    #[cold]
    pub fn refuse_series(&mut self, refused: &Refused) {
        let points = self.batch.point_value.len() - self.mark.0;
        let histograms = self.batch.histograms.len() - self.mark.1;
        self.batch.point_series_index.truncate(self.mark.0);
        self.batch.point_time_ms.truncate(self.mark.0);
        self.batch.point_value.truncate(self.mark.0);
        if let Some(first) = self.batch.histograms.get(self.mark.1) {
            self.batch.histogram_bytes.truncate(first.start as usize);
            self.batch.histograms.truncate(self.mark.1);
        }
        self.refuse(refused, (points + histograms) as u32);
    }

    /// Count rows received that have no place in the batch.
    pub fn refuse_received(&mut self, refused: &Refused) -> Result<()> {
        self.receive()?;
        self.refuse(refused, 1);
        Ok(())
    }

    fn refuse(&mut self, refused: &Refused, points: u32) {
        self.batch.points_rejected[refused.reason as usize] += points;
        if self.batch.first_error.is_none() {
            self.batch.first_error = Some(refused.message.clone());
        }
    }

    /// Why a time is not taken.
    #[inline(always)]
    pub fn time_refusal(&self, time_ms: i64) -> Option<Refused> {
        let good = (TIME_MIN_MS..=self.time_max_ms).contains(&time_ms);
        if good { None } else { Some(refuse_time(time_ms)) }
    }

    /// Keep a family's metadata; entries without a usable name are dropped, as they bind nothing.
    pub fn push_metadata(
        &mut self,
        name: &[u8],
        series_type: SeriesType,
        help: &[u8],
        unit: &[u8],
    ) -> Result<()> {
        if self.batch.metadata.len() >= METADATA_MAX {
            return Err(too_many("metadata entries", METADATA_MAX));
        }
        let Ok(name) = std::str::from_utf8(name) else {
            return Ok(());
        };
        if name.is_empty() || name.len() > LABEL_NAME_BYTES_MAX {
            return Ok(());
        }
        let text = |bytes: &[u8]| {
            String::from_utf8_lossy(&bytes[..bytes.len().min(HELP_BYTES_MAX)]).into_owned()
        };
        let (name, help, unit) = (name.to_owned(), text(help), text(unit));
        self.batch.metadata.push(FamilyMetadata { name, series_type, help, unit });
        Ok(())
    }

    /// The batch, with `body` (as long as `new` was told) and the labels made here behind it.
    /// Labels whose hash is not known yet are judged now, refused series and their points removed.
    pub fn finish(mut self, body: Vec<u8>) -> Result<Batch> {
        self.join(body);
        // All look-ups stand in one loop, where their cache misses overlap; one by one they would
        // cost more than all the rest of a sample.
        let known = |series: &BatchSeries| self.decoder.is_known(series.label_hash);
        let unknown: Vec<usize> =
            (0..self.batch.series.len()).filter(|i| !known(&self.batch.series[*i])).collect();
        let mut refused = Vec::new();
        for i in unknown {
            let series = self.batch.series[i];
            let range = series.label_start as usize..series.label_end as usize;
            let labels = &self.batch.label_bytes[range];
            match if series.canonical { judge_canonical(labels) } else { judge_raw(labels) } {
                Ok(()) => self.decoder.remember(series.label_hash),
                Err(Fault::Malformed) => return Err(Malformed.into()),
                Err(Fault::Refused(why)) => refused.push((i, why)),
            }
        }
        if !refused.is_empty() {
            self.remove_series(&refused);
        }
        Ok(self.batch)
    }

    /// As `finish`, where every series was judged before it was closed.
    pub fn finish_judged(mut self, body: Vec<u8>) -> Batch {
        self.join(body);
        self.batch
    }

    fn join(&mut self, mut body: Vec<u8>) {
        body.extend_from_slice(&self.made);
        self.batch.label_bytes = body;
    }

    /// Take series out, ascending in `refused`, and count their points as rejected.
    #[cold]
    fn remove_series(&mut self, refused: &[(usize, Refused)]) {
        let mut points = vec![0u32; self.batch.series.len()];
        let indexes = self.batch.point_series_index.iter();
        indexes.for_each(|series| points[*series as usize] += 1);
        self.batch.histograms.iter().for_each(|h| points[h.series_index as usize] += 1);
        let mut place: Vec<Option<u32>> = vec![Some(0); self.batch.series.len()];
        for (series, why) in refused {
            place[*series] = None;
            self.refuse(why, points[*series]);
        }
        let kept = place.iter_mut().flatten();
        kept.enumerate().for_each(|(new, place)| *place = new as u32);
        let batch = &mut self.batch;
        let mut good = place.iter();
        batch.series.retain(|_| good.next().is_some_and(Option::is_some));
        batch.histograms.retain_mut(|histogram| match place[histogram.series_index as usize] {
            Some(new) => {
                histogram.series_index = new;
                true
            }
            None => false,
        });
        let mut kept = 0;
        for i in 0..batch.point_value.len() {
            if let Some(new) = place[batch.point_series_index[i] as usize] {
                batch.point_series_index[kept] = new;
                batch.point_time_ms[kept] = batch.point_time_ms[i];
                batch.point_value[kept] = batch.point_value[i];
                kept += 1;
            }
        }
        batch.point_series_index.truncate(kept);
        batch.point_time_ms.truncate(kept);
        batch.point_value.truncate(kept);
    }
}

#[cold]
pub fn too_many(what: &str, max: usize) -> KernelError {
    let message = format!("the request holds more than {max} {what}: send smaller requests");
    KernelError::client(413, "sluiceway-request-rows-limit", message)
}

#[cold]
fn refuse_time(time_ms: i64) -> Refused {
    if time_ms < TIME_MIN_MS {
        let message = format!("time {time_ms} ms is earlier than {TIME_MIN_MS} ms");
        return Refused::new(RejectReason::Unsupported, message);
    }
    let message = format!("time {time_ms} ms is more than {FUTURE_MAX_MS} ms ahead of the server");
    Refused::new(RejectReason::TooFarInFuture, message)
}
