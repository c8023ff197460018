//! Partition slices: a decoded request cut into the records that a topic's partitions get.
//!
//! Invariant: the slices of a request hold each of its good rows once, and their headers' counts add
//! up to the request's; what they are follows from (header, batch, routing) alone. The format is
//! docs/formats/kafka.md; `wire::columns` reads it.

mod builder;
mod cut;
mod routing;

pub use cut::{Slice, cut};
pub use routing::Routing;
