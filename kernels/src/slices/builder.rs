//! One partition's rows of a request, in columns, cut where a record would be too long.

use crate::labels::canonical::push_length;
use crate::model::{Batch, FamilyMetadata};
use crate::slices::routing::labels_of;
use crate::wire::columns::{CANONICAL_BIT, HEAD_BYTES, VERSION};

const SERIES_BYTES: usize = 5;
const POINT_BYTES: usize = 20;
const HISTOGRAM_BYTES: usize = 16;

/// A finished record's payload, and how many points it holds.
pub struct Part {
    pub payload: Vec<u8>,
    pub points: u32,
}

/// Where a series stands in the part that is being made.
#[derive(Clone, Copy, Default)]
pub struct Place {
    /// 0: in none yet; else the part's number + 1.
    part: u32,
    index: u32,
}

#[derive(Default)]
pub struct Builder {
    pub parts: Vec<Part>,
    label_ends: Vec<u32>,
    kinds: Vec<u8>,
    point_series: Vec<u32>,
    times_ms: Vec<i64>,
    values: Vec<f64>,
    histogram_series: Vec<u32>,
    histogram_times_ms: Vec<i64>,
    histogram_ends: Vec<u32>,
    labels: Vec<u8>,
    histograms: Vec<u8>,
    families: Vec<u8>,
    family_count: u32,
}

impl Builder {
    fn payload_bytes(&self) -> usize {
        HEAD_BYTES
            + SERIES_BYTES * self.kinds.len()
            + POINT_BYTES * self.values.len()
            + HISTOGRAM_BYTES * self.histogram_ends.len()
            + self.labels.len()
            + self.histograms.len()
            + self.families.len()
    }

    fn is_empty(&self) -> bool {
        self.values.is_empty() && self.histogram_ends.is_empty() && self.family_count == 0
    }

    /// The series' number in this part, in which `row_bytes` of a row of it have room.
    fn series(
        &mut self,
        batch: &Batch,
        index: u32,
        places: &mut [Place],
        row_bytes: usize,
        bytes_max: usize,
    ) -> u32 {
        let series = &batch.series[index as usize];
        let labels = labels_of(batch, series);
        let place = &mut places[index as usize];
        let mut held = place.part == self.parts.len() as u32 + 1;
        let labels_cost = if held { 0 } else { SERIES_BYTES + labels.len() };
        if self.payload_bytes() + labels_cost + row_bytes > bytes_max && !self.is_empty() {
            self.close();
            held = false;
        }
        if !held {
            *place = Place { part: self.parts.len() as u32 + 1, index: self.kinds.len() as u32 };
            self.labels.extend_from_slice(labels);
            self.label_ends.push(self.labels.len() as u32);
            let canonical = if series.canonical { CANONICAL_BIT } else { 0 };
            self.kinds.push(series.series_type as u8 | canonical);
        }
        place.index
    }

    pub fn push_point(&mut self, batch: &Batch, at: usize, places: &mut [Place], bytes_max: usize) {
        let index = batch.point_series_index[at];
        let series = self.series(batch, index, places, POINT_BYTES, bytes_max);
        self.point_series.push(series);
        self.times_ms.push(batch.point_time_ms[at]);
        self.values.push(batch.point_value[at]);
    }

    pub fn push_histogram(
        &mut self,
        batch: &Batch,
        at: usize,
        places: &mut [Place],
        bytes_max: usize,
    ) {
        let histogram = &batch.histograms[at];
        let bytes = &batch.histogram_bytes[histogram.start as usize..histogram.end as usize];
        let row_bytes = HISTOGRAM_BYTES + bytes.len();
        let series = self.series(batch, histogram.series_index, places, row_bytes, bytes_max);
        self.histogram_series.push(series);
        self.histogram_times_ms.push(histogram.time_ms);
        self.histograms.extend_from_slice(bytes);
        self.histogram_ends.push(self.histograms.len() as u32);
    }

    pub fn push_family(&mut self, family: &FamilyMetadata, bytes_max: usize) {
        let texts = [&family.name, &family.help, &family.unit];
        let row_bytes = 1 + texts.iter().map(|text| text.len() + 5).sum::<usize>();
        if self.payload_bytes() + row_bytes > bytes_max && !self.is_empty() {
            self.close();
        }
        self.families.push(family.series_type as u8);
        for text in texts {
            push_length(&mut self.families, text.len());
            self.families.extend_from_slice(text.as_bytes());
        }
        self.family_count += 1;
    }

    /// The last part is whole too.
    pub fn finish(mut self) -> Vec<Part> {
        if !self.is_empty() {
            self.close();
        }
        self.parts
    }

    fn close(&mut self) {
        let mut payload = Vec::with_capacity(self.payload_bytes());
        let head = [
            VERSION,
            self.kinds.len() as u32,
            self.values.len() as u32,
            self.histogram_ends.len() as u32,
            self.family_count,
            self.labels.len() as u32,
            self.histograms.len() as u32,
            0,
        ];
        head.iter().for_each(|number| payload.extend(number.to_le_bytes()));
        let mut numbers = |column: &mut Vec<u32>| {
            column.drain(..).for_each(|number| payload.extend(number.to_le_bytes()));
        };
        numbers(&mut self.label_ends);
        payload.append(&mut self.kinds);
        let points = (self.values.len() + self.histogram_ends.len()) as u32;
        self.point_series.drain(..).for_each(|number| payload.extend(number.to_le_bytes()));
        self.times_ms.drain(..).for_each(|time| payload.extend(time.to_le_bytes()));
        self.values.drain(..).for_each(|value| payload.extend(value.to_bits().to_le_bytes()));
        self.histogram_series.drain(..).for_each(|number| payload.extend(number.to_le_bytes()));
        self.histogram_times_ms.drain(..).for_each(|time| payload.extend(time.to_le_bytes()));
        self.histogram_ends.drain(..).for_each(|number| payload.extend(number.to_le_bytes()));
        payload.append(&mut self.labels);
        payload.append(&mut self.histograms);
        payload.append(&mut self.families);
        self.family_count = 0;
        self.parts.push(Part { payload, points });
    }
}
