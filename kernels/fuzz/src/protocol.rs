//! Both ends of the evaluate protocol over a real socket: any bytes to the shard, any answer to
//! the reader, any plan evaluated. A panic within the shard ends the run as any other does.

use _kernels::evaluate::client::Client;
use _kernels::evaluate::execute::EvaluateOptions;
use _kernels::evaluate::frame::{self, Kind};
use _kernels::evaluate::memory::{MemorySeries, MemoryShard};
use _kernels::evaluate::plan::Limits;
use _kernels::evaluate::server::Server;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_millis(500);

fn socket(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("sluiceway-fuzz-{name}-{}", std::process::id()))
}

struct Shard {
    path: PathBuf,
    client: Client,
    _server: Server,
}

static SHARD: LazyLock<Shard> = LazyLock::new(|| {
    let one = |number: i64| MemorySeries {
        labels: [("__name__", "m"), ("job", "fuzz"), ("i", &number.to_string())]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        times_ms: (0..50).map(|at| at * 15_000 + number).collect(),
        values: (0..50).map(|at| (at * number) as f64).collect(),
    };
    let shard = MemoryShard::new((0..20).map(one).collect()).expect("sound series");
    let options = EvaluateOptions {
        query_bytes_max: 64 << 20,
        limits: Limits { series_max: 1000, points_max: 1_000_000, bytes_max: 32 << 20 },
        timeout_max: TIMEOUT,
        ..EvaluateOptions::default()
    };
    let path = socket("shard");
    let server = Server::start(Arc::new(shard), &path, options).expect("a socket");
    Shard { client: Client::new(&path), path, _server: server }
});

/// A request's JSON, as it crosses the socket.
pub fn plan(input: &[u8]) {
    if let Ok(mut reply) = SHARD.client.call(input, TIMEOUT, None) {
        let labels = reply.bytes("labels").ok();
        if let Some(bytes) = labels {
            _kernels::labels::LabelTable::from_bytes(&bytes).expect("a shard's own table");
        }
    }
}

pub fn frames(input: &[u8]) {
    let [kind, rest @ ..] = input else { return };
    if kind % 2 == 0 { to_the_shard(rest) } else { to_the_reader(rest) }
}

fn to_the_shard(bytes: &[u8]) {
    let mut stream = UnixStream::connect(&SHARD.path).expect("the shard listens");
    if stream.write_all(bytes).is_ok() && stream.shutdown(Shutdown::Write).is_ok() {
        drop(stream.read_to_end(&mut Vec::new()));
    }
}

/// What the peer answers next: an answer's JSON, or its columns' bytes, as framed here.
static ANSWER: Mutex<Vec<u8>> = Mutex::new(Vec::new());

static PEER: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = socket("peer");
    drop(std::fs::remove_file(&path));
    let listener = UnixListener::bind(&path).expect("a socket");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let head = frame::read_head(&mut stream).ok().flatten().expect("a request");
            frame::read_payload(&mut stream, &head, &mut Vec::new()).expect("its payload");
            let answer = ANSWER.lock().expect("no panic").clone();
            drop(reply(&mut stream, head.request_id, &answer));
        }
    });
    path
});

/// Frames parted by 0xff; the first is the answer's head, or an error where it begins with `!`.
fn reply(stream: &mut UnixStream, id: u64, answer: &[u8]) -> _kernels::error::Result<()> {
    for (number, part) in answer.split(|byte| *byte == 0xff).enumerate() {
        let kind = match (number, part.first()) {
            (0, Some(b'!')) => Kind::Error,
            (0, _) => Kind::Answer,
            _ => Kind::Piece,
        };
        frame::write(stream, kind, id, part.strip_prefix(b"!").unwrap_or(part))?;
    }
    Ok(())
}

fn to_the_reader(answer: &[u8]) {
    *ANSWER.lock().expect("no panic") = answer.to_vec();
    // A client each, for the peer closes its connection after the answer.
    if let Ok(mut reply) = Client::new(&*PEER).call(b"{}", TIMEOUT, None) {
        drop(reply.bytes("labels"));
    }
}
