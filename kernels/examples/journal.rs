//! How fast the journal acks on this disk: `cargo run --release --no-default-features --example
//! journal -- DIRECTORY [payload bytes] [in flight] [seconds]`. Prints one line of JSON.

use _kernels::disk::RealDisk;
use _kernels::error::Result;
use _kernels::journal::{GroupSink, Journal, JournalConfig, RecordHeader};
use crossbeam_channel::{Sender, bounded};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Gives every ack's latency, and with it the permit to append the next.
struct Sink(Sender<f64>);

impl GroupSink<Instant> for Sink {
    fn committed(&self, records: Vec<(RecordHeader, Instant)>, _last_ticket: u64) {
        for (_, started) in records {
            let _ = self.0.send(started.elapsed().as_secs_f64());
        }
    }
    fn failed(&self, _first_ticket: u64, _last_ticket: u64, error: &str) {
        eprintln!("failed: {error}");
        std::process::exit(1);
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| {
        arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let root = arguments.first().cloned().unwrap_or_else(|| "journal-bench".to_owned());
    let (payload_bytes, in_flight, seconds) = (number(1, 46_000), number(2, 8), number(3, 3));
    let (sender, acks) = bounded(in_flight);
    let disk = Arc::new(RealDisk::new(&root)?);
    let sink = Arc::new(Sink(sender));
    let (journal, _) = Journal::open(disk, JournalConfig::default(), 0, 1, sink)?;
    let payload: Vec<u8> = (0..payload_bytes).map(|at| (at * 31 % 251) as u8).collect();
    let append = || journal.append(RecordHeader::default(), payload.clone(), Instant::now());
    let (started, until) = (Instant::now(), Duration::from_secs(seconds as u64));
    for _ in 0..in_flight {
        append()?;
    }
    let mut latencies = Vec::new();
    while started.elapsed() < until {
        if let Ok(seconds) = acks.recv() {
            latencies.push(seconds * 1e3);
        }
        append()?;
        if latencies.len() % 1000 == 0 {
            journal.truncate_before(journal.durable_sequence().saturating_sub(2000))?;
        }
    }
    let elapsed = started.elapsed().as_secs_f64();
    let stats = journal.stats();
    latencies.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    let records = latencies.len() as f64;
    println!(
        "{{\"acks_per_second\": {:.0}, \"megabytes_per_second\": {:.0}, \"records_per_group\": {:.1}, \
         \"fsync_ms_mean\": {:.3}, \"ack_ms_p50\": {:.3}, \"ack_ms_p99\": {:.3}}}",
        records / elapsed,
        records * payload_bytes as f64 / elapsed / 1e6,
        stats.records as f64 / stats.groups as f64,
        stats.fsync_seconds_sum / stats.groups as f64 * 1e3,
        at(0.5),
        at(0.99),
    );
    drop(acks);
    drop(journal);
    Ok(std::fs::remove_dir_all(root)?)
}
