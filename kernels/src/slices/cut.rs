//! A request's rows to their partitions, and a record's header with its key for each part.

use super::builder::{Builder, Part, Place};
use super::routing::Routing;
use crate::error::Result;
use crate::journal::record::RecordHeader;
use crate::model::{Batch, PayloadEncoding, PayloadFormat, REJECT_REASON_COUNT};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_128;

/// A record as it goes into its partition.
pub struct Slice {
    pub partition: u16,
    pub value: Vec<u8>,
}

/// The slices of a request: `header` as the gateway made it, with the request's key and counts.
/// Lowest partition first; never none. Errors: `Corruption` where labels were not judged.
pub fn cut(header: &RecordHeader, batch: &Batch, routing: &Routing) -> Result<Vec<Slice>> {
    let bytes_max = routing.record_bytes_max - header.encoded_bytes();
    let partitions = routing.partitions_of(&header.tenant, batch)?;
    let mut builders: BTreeMap<u16, Builder> = BTreeMap::new();
    let mut places = vec![Place::default(); batch.series.len()];
    if partitions.iter().all(|partition| Some(partition) == partitions.first()) {
        // One partition, which is the common case: no look-up a row.
        if let Some(&partition) = partitions.first() {
            let builder = builders.entry(partition).or_default();
            for at in 0..batch.point_value.len() {
                builder.push_point(batch, at, &mut places, bytes_max);
            }
            for at in 0..batch.histograms.len() {
                builder.push_histogram(batch, at, &mut places, bytes_max);
            }
        }
    } else {
        for (at, &index) in batch.point_series_index.iter().enumerate() {
            let builder = builders.entry(partitions[index as usize]).or_default();
            builder.push_point(batch, at, &mut places, bytes_max);
        }
        for (at, histogram) in batch.histograms.iter().enumerate() {
            let builder = builders.entry(partitions[histogram.series_index as usize]).or_default();
            builder.push_histogram(batch, at, &mut places, bytes_max);
        }
    }
    for family in &batch.metadata {
        for partition in routing.family_partitions(&header.tenant, family) {
            builders.entry(partition).or_default().push_family(family, bytes_max);
        }
    }
    let mut slices = Vec::with_capacity(builders.len());
    for (partition, builder) in builders {
        for (number, part) in builder.finish().iter().enumerate() {
            let first = slices.is_empty();
            slices.push(slice(header, routing, (partition, number as u32), part, first));
        }
    }
    if slices.is_empty() {
        let nothing = Part { payload: Vec::new(), points: 0 };
        let partition = routing.partition(&header.tenant, &[]);
        slices.push(slice(header, routing, (partition, 0), &nothing, true));
    }
    Ok(slices)
}

fn slice(
    request: &RecordHeader,
    routing: &Routing,
    (partition, number): (u16, u32),
    part: &Part,
    first: bool,
) -> Slice {
    let points_rejected = if first { request.points_rejected } else { [0; REJECT_REASON_COUNT] };
    let header = RecordHeader {
        sequence: 0,
        fence: 0,
        place_in_group: 0,
        partition,
        format: PayloadFormat::Columns as u8,
        encoding: PayloadEncoding::Identity as u8,
        dedup_key: slice_key(request, routing.number, partition, number),
        points_received: part.points + points_rejected.iter().sum::<u32>(),
        points_rejected,
        ..request.clone()
    };
    let mut value = Vec::with_capacity(header.encoded_bytes() + part.payload.len());
    header.encode(0, part.payload.len(), crc32fast::hash(&part.payload), &mut value);
    value.extend_from_slice(&part.payload);
    Slice { partition, value }
}

fn slice_key(request: &RecordHeader, routing: u64, partition: u16, part: u32) -> u128 {
    let mut text = Vec::with_capacity(96);
    text.extend(request.dedup_key.to_le_bytes());
    text.extend(routing.to_le_bytes());
    text.extend(partition.to_le_bytes());
    text.extend(part.to_le_bytes());
    text.extend(request.points_received.to_le_bytes());
    request.points_rejected.iter().for_each(|count| text.extend(count.to_le_bytes()));
    xxh3_128(&text).max(1)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
