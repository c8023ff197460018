//! The shard's end of the evaluate protocol: a Unix socket, a thread a connection.
//!
//! Invariant: a connection serves one request at a time and looks at its socket while it works, so
//! a reader that goes away stops its query; a panic answers one request with an error.

use super::access::ShardAccess;
use super::budget::Interrupt;
use super::execute::{Answer, EvaluateOptions, Evaluator};
use super::frame::{self, AnswerHead, Column, Kind, WireError};
use super::plan::{Request, bad_plan, inclusive_range};
use crate::error::{KernelError, Result};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io::{BufReader, BufWriter, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A reader that takes nothing for so long has its answer dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// A small answer fits; longer frames pass the buffer by.
const BUFFER_BYTES: usize = 16 << 10;

pub struct Server {
    shared: Arc<Shared>,
    path: PathBuf,
    listening: Option<JoinHandle<()>>,
}

struct Shared {
    evaluator: Evaluator,
    stopping: AtomicBool,
    /// Open connections by number, to shut them down.
    connections: Mutex<HashMap<u64, UnixStream>>,
}

impl Server {
    /// Listen at `path`; what was there before is replaced.
    pub fn start(
        shard: Arc<dyn ShardAccess>,
        path: &Path,
        options: EvaluateOptions,
    ) -> Result<Server> {
        if path.exists() {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let shared = Arc::new(Shared {
            evaluator: Evaluator::new(shard, options),
            stopping: AtomicBool::new(false),
            connections: Mutex::new(HashMap::new()),
        });
        let accepting = Arc::clone(&shared);
        let listening = std::thread::Builder::new()
            .name("evaluate-accept".to_owned())
            .spawn(move || accept(&accepting, &listener))?;
        Ok(Server { shared, path: path.to_owned(), listening: Some(listening) })
    }

    /// Stop accepting, cancel what runs, wait for the threads (bounded).
    pub fn stop(&mut self) {
        let Some(listening) = self.listening.take() else { return };
        self.shared.stopping.store(true, Ordering::SeqCst);
        // The accepting thread waits in accept: a connection wakes it.
        drop(UnixStream::connect(&self.path));
        drop(listening.join());
        for stream in self.shared.connections.lock().values() {
            drop(stream.shutdown(Shutdown::Both));
        }
        for _ in 0..500 {
            if self.shared.connections.lock().is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(std::fs::remove_file(&self.path));
    }

    /// (open connections, bytes held by queries).
    pub fn load(&self) -> (usize, usize) {
        (self.shared.connections.lock().len(), self.shared.evaluator.memory_used())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept(shared: &Arc<Shared>, listener: &UnixListener) {
    for number in 0.. {
        let accepted = listener.accept();
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, most likely: let some connection end.
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        let Ok(known) = stream.try_clone() else { continue };
        {
            let mut connections = shared.connections.lock();
            if connections.len() >= shared.evaluator.options.connections_max {
                continue;
            }
            connections.insert(number, known);
        }
        let serving = Arc::clone(shared);
        let spawned = std::thread::Builder::new().name("evaluate".to_owned()).spawn(move || {
            // The connection ends, well or badly; its reader sees that.
            drop(serve(&serving, &Arc::new(stream)));
            serving.connections.lock().remove(&number);
        });
        if spawned.is_err() {
            shared.connections.lock().remove(&number);
        }
    }
}

/// Serve one connection until its end.
fn serve(shared: &Shared, stream: &Arc<UnixStream>) -> Result<()> {
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    // Buffered both ways: a small answer's frames leave together and wake its reader once.
    let mut input = BufReader::with_capacity(BUFFER_BYTES, &**stream);
    let mut output = BufWriter::with_capacity(BUFFER_BYTES, &**stream);
    let mut payload = Vec::new();
    while let Some(head) = frame::read_head(&mut input)? {
        frame::read_payload(&mut input, &head, &mut payload)?;
        if head.kind != Kind::Request {
            return Err(KernelError::corruption("evaluate frame: a request was due"));
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| answer(shared, stream, &payload)))
            .unwrap_or_else(|_| Err(KernelError::Backend("evaluation panicked".to_owned())));
        match outcome {
            Ok(reply) => reply.send(&mut output, head.request_id)?,
            Err(error) => {
                let json = json(&WireError::from(&error))?;
                frame::write(&mut output, Kind::Error, head.request_id, &json)?;
            }
        }
        output.flush()?;
    }
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| KernelError::Backend(error.to_string()))
}

/// An answer in columns; `_keep` holds what must live until it is sent.
struct Reply {
    head: AnswerHead,
    columns: Vec<Column>,
    _keep: Option<Box<dyn std::any::Any>>,
}

impl Reply {
    fn new(columns: Vec<(&str, Column)>, lag_records: u64) -> Reply {
        let lagging =
            format!("the answer lags: {lag_records} durable requests are not applied yet");
        let head = AnswerHead {
            columns: columns.iter().map(|(name, column)| column.head(name)).collect(),
            series: 0,
            steps: 0,
            stats: serde_json::Value::Null,
            warnings: if lag_records > 0 { vec![lagging] } else { Vec::new() },
        };
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        Reply { head, columns, _keep: None }
    }

    fn json(value: &impl serde::Serialize, lag_records: u64) -> Result<Reply> {
        Ok(Reply::new(vec![("json", Column::Bytes(json(value)?))], lag_records))
    }

    fn send(self, stream: &mut impl Write, request_id: u64) -> Result<()> {
        frame::write(stream, Kind::Answer, request_id, &json(&self.head)?)?;
        for column in &self.columns {
            column.pieces(|piece| frame::write(stream, Kind::Piece, request_id, piece))?;
        }
        Ok(())
    }
}

#[derive(serde::Deserialize)]
struct Envelope {
    timeout_ms: Option<u64>,
    #[serde(flatten)]
    request: Request,
}

fn answer(shared: &Shared, stream: &Arc<UnixStream>, payload: &[u8]) -> Result<Reply> {
    let evaluator = &shared.evaluator;
    let (options, shard) = (&evaluator.options, &evaluator.shard);
    let envelope: Envelope =
        serde_json::from_slice(payload).map_err(|error| bad_plan(error.to_string()))?;
    let asked = envelope.timeout_ms.map_or(options.timeout_max, Duration::from_millis);
    let interrupt = Interrupt::new(asked.min(options.timeout_max), Some(Arc::clone(stream)));
    let waits = !matches!(envelope.request, Request::Metadata(_) | Request::Ledger(_));
    let wait =
        if waits { options.visibility_wait_max.min(interrupt.remaining()) } else { Duration::ZERO };
    let lag_records = if waits { shard.wait_visible(wait).records } else { 0 };
    match envelope.request {
        Request::Evaluate(plan) => {
            let mut answer = evaluator.evaluate(&plan, &interrupt)?;
            answer.stats.lag_records = lag_records;
            columns(answer)
        }
        Request::States(plan) => {
            let mut answer = evaluator.states(&plan, &interrupt)?;
            answer.stats.lag_records = lag_records;
            let mut columns = vec![("labels", Column::Bytes(answer.states.labels.to_bytes()))];
            columns.append(&mut answer.states.to_columns(answer.fields));
            let mut reply = Reply::new(columns, lag_records);
            reply.head.series = answer.states.labels.len();
            reply.head.steps = answer.states.step_count;
            reply.head.stats = serde_json::to_value(&answer.stats).unwrap_or_default();
            reply._keep = Some(Box::new(answer));
            Ok(reply)
        }
        Request::Points(plan) => {
            let mut answer = evaluator.points(&plan, &interrupt)?;
            answer.stats.lag_records = lag_records;
            let mut reply = Reply::new(
                vec![
                    ("labels", Column::Bytes(answer.labels.to_bytes())),
                    ("offsets", Column::I64(std::mem::take(&mut answer.offsets))),
                    ("times", Column::I64(std::mem::take(&mut answer.times_ms))),
                    ("values", Column::F64(std::mem::take(&mut answer.values))),
                ],
                lag_records,
            );
            reply.head.series = answer.labels.len();
            reply.head.stats = serde_json::to_value(&answer.stats).unwrap_or_default();
            reply._keep = Some(Box::new(answer));
            Ok(reply)
        }
        Request::LabelNames(plan) => {
            let range_ms = inclusive_range(plan.start_ms, plan.end_ms);
            let names = shard.label_names(&plan.tenant, &plan.matchers, range_ms)?;
            Reply::json(&names, lag_records)
        }
        Request::LabelValues(plan) => {
            let range_ms = inclusive_range(plan.start_ms, plan.end_ms);
            let values = shard.label_values(&plan.tenant, &plan.name, &plan.matchers, range_ms)?;
            Reply::json(&values, lag_records)
        }
        Request::Series(plan) => {
            let range_ms = inclusive_range(plan.start_ms, plan.end_ms);
            let limits = options.limits.lowered(&plan.limits);
            let keys = shard.select(&plan.tenant, &plan.matchers, range_ms, limits.series_max)?;
            let labels = shard.labels(&keys);
            let mut reply =
                Reply::new(vec![("labels", Column::Bytes(labels.to_bytes()))], lag_records);
            reply.head.series = labels.len();
            Ok(reply)
        }
        Request::Metadata(plan) => {
            let limit = plan.limit.unwrap_or(usize::MAX);
            let families = shard.metadata(&plan.tenant, plan.metric.as_deref(), limit);
            let families = families.into_iter().map(|family| {
                serde_json::json!({
                    "name": family.name, "type": family.series_type.name(),
                    "help": family.help, "unit": family.unit,
                })
            });
            Reply::json(&families.collect::<Vec<_>>(), lag_records)
        }
        Request::Stats(plan) => {
            Reply::json(&shard.cardinality(&plan.tenant, plan.top), lag_records)
        }
        Request::Cardinality(plan) => {
            let metric = plan.metric.as_deref();
            let check = || interrupt.check();
            let text = shard.explain(&plan.tenant, metric, plan.top, plan.since_ms, &check)?;
            Ok(Reply::new(vec![("json", Column::Bytes(text.into_bytes()))], lag_records))
        }
        Request::Ledger(plan) => {
            let text = shard.ledger(plan.raw_scan)?;
            Ok(Reply::new(vec![("json", Column::Bytes(text.into_bytes()))], lag_records))
        }
        Request::Usage(plan) => {
            Reply::json(&shard.usage(plan.rows_max, &|| interrupt.check())?, lag_records)
        }
        Request::UsageTags(request) => {
            Reply::json(&shard.usage_tags(&request, &|| interrupt.check())?, lag_records)
        }
        Request::Coverage(plan) => Reply::json(&shard.coverage(&plan.tenant), lag_records),
        Request::WhatIf(request) => {
            Reply::json(&evaluator.whatif(&request, &interrupt)?, lag_records)
        }
    }
}

fn columns(mut answer: Answer) -> Result<Reply> {
    let lag_records = answer.stats.lag_records;
    let mut columns = vec![
        ("labels", Column::Bytes(answer.labels.to_bytes())),
        ("values", Column::F64(std::mem::take(&mut answer.values))),
    ];
    if answer.present.contains(&false) {
        columns.push(("present", Column::Bits(std::mem::take(&mut answer.present))));
    }
    let mut reply = Reply::new(columns, lag_records);
    reply.head.series = answer.labels.len();
    reply.head.steps = answer.step_count;
    reply.head.stats = serde_json::to_value(&answer.stats).unwrap_or_default();
    reply._keep = Some(Box::new(answer));
    Ok(reply)
}
