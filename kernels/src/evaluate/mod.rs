//! Evaluation at the shard: range functions and aggregations over columns, and the protocol that
//! carries plans in and step columns out.
//!
//! `access` what a shard must offer · `window`, `functions`, `fold`,
//! `extended`, `extrapolate` a series' steps ·
//! `aggregate` groups · `plan` what is asked · `cost` what it will take · `execute` a plan over a shard, in
//! parallel · `states` a plan's unfinished states · `frame`, `server`, `client` the socket.

pub mod access;
pub mod aggregate;
pub mod budget;
pub mod client;
pub mod cost;
pub mod execute;
mod extended;
pub(crate) mod extrapolate;
pub(crate) mod fold;
pub mod frame;
pub mod functions;
pub mod memory;
pub(crate) mod numeric;
pub mod permits;
pub mod plan;
pub mod server;
pub mod states;
pub mod subquery;
pub mod window;
