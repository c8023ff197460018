"""Points in, durable batches out, from one background thread.

Invariant: a point that was added is acked, rejected, refused, dropped or waiting, and counted so.
Batches go one at a time, in order, and a batch sent again has the same bytes, so that the server
stores none twice; with a spool, closed batches outlive the process.

    add -> open batch -> closed by points, bytes, age -> queue or spool -> thread -> server
"""

import random
import ssl
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from sluiceway.client.batch import Batch, BatchQueue, MemoryQueue, OpenBatch
from sluiceway.client.config import WriterConfig
from sluiceway.client.delivery import Delivery, Outcome, Verdict
from sluiceway.client.encode import Series, compressor, write_request
from sluiceway.client.errors import ClientError, Closed, Refused, Undelivered
from sluiceway.client.figures import Statistics
from sluiceway.client.spool import Spool
from sluiceway.client.transport import HttpTransport, Transport
from sluiceway.clock import Clock, SystemClock, jitter

ABORTED_S_MAX = 5.0
"""How long `close` waits for the thread once its request was ended."""


class Writer:
    """Takes points and sees to it that they arrive. Any thread may call any method."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        config: WriterConfig | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        transport: Transport | None = None,
        clock: Clock | None = None,
        source: random.Random | None = None,
    ) -> None:
        """Opens the spool, whose batches go first, and starts the thread.

        Raises: OSError, ClientError (the spool), ImportError, ValueError.
        """
        config, clock, source = config or WriterConfig(), clock or SystemClock(), source or jitter()
        transport = transport or HttpTransport(url, key, config.request_s_max, tls)
        self._transport, self._config, self._clock = transport, config, clock
        self._encoding, self._compress = compressor(config.compression)
        self._name = b"client %032x" % source.getrandbits(128)
        self._batch_number = 0
        self._delivery = Delivery(transport, config.retry, clock, source)
        self._spool: Spool | None = None
        self._queue: BatchQueue = MemoryQueue(config.queue_bytes_max)
        if config.spool_directory is not None:
            directory = Path(config.spool_directory)
            self._spool = Spool(directory, config.spool_bytes_max, config.spool_sync)
            self._queue = self._spool
        self._counts: Counter[str] = Counter(points_found=self._queue.points)
        self._rejected: Counter[str] = Counter()
        self._last_error = ""
        self._refusal: Refused | None = None
        self._held: Refused | None = None
        self._broken: ClientError | None = None
        self._closed = self._ended = False
        self._changed = threading.Condition()
        self._open = self._new_batch()
        self._thread = threading.Thread(target=self._run, name="sluiceway-client", daemon=True)
        self._thread.start()

    def add(self, series: Series, value: float, time_ms: int | None = None) -> None:
        """Take a point, at the wall clock's time unless told. Blocks only with `wait`.

        Raises: Closed.
        """
        self.add_many(((series, value),), time_ms)

    def add_many(self, points: Iterable[tuple[Series, float]], time_ms: int | None = None) -> None:
        """As `add`, of points at one time."""
        stamp = self._clock.now_ms() if time_ms is None else time_ms
        with self._changed:
            for series, value in points:
                if self._closed or self._broken is not None:
                    raise self._broken or Closed("the client is closed")
                if not self._open.points:
                    self._open.started_s = self._clock.monotonic_s()
                    self._changed.notify_all()
                self._counts["points_added"] += 1
                if self._open.add(series, value, stamp):
                    self._close_batch(None)

    def flush(self, timeout_s: float) -> bool:
        """Send what was added so far; True once all of it is decided, False where time was over.

        Raises: Refused: the first batch refused since the last call, or a key that is not taken.
        """
        until_s = self._clock.monotonic_s() + timeout_s
        with self._changed:
            decided = self._close_batch(until_s) and self._wait_decided(until_s)
            refusal, self._refusal = self._refusal or self._held, None
            failure = self._broken or refusal
        if failure is not None:
            raise failure
        return decided

    def statistics(self) -> Statistics:
        with self._changed:
            queue, spool, counts = self._queue, self._spool, self._counts
            waiting = self._open.points + queue.points
            return Statistics(
                **counts,
                rejected=dict(self._rejected),
                points_damaged=spool.damaged_points if spool else 0,
                points_waiting=waiting,
                batches_waiting=queue.batch_count,
                bytes_waiting=queue.byte_size,
                spool_bytes=spool.used_bytes if spool else 0,
                spool_torn_bytes=spool.torn_bytes if spool else 0,
                spool_write_errors=spool.write_errors if spool else 0,
                last_error=self._last_error,
            )

    def close(self, timeout_s: float | None = None) -> None:
        """Send what is there, for at most `timeout_s` (`close_s_max`), and end.

        Raises: Refused as `flush`; Undelivered where points are lost with the process.
        """
        refusal: ClientError | None = None
        if self._ended:
            return
        limit_s = self._config.close_s_max if timeout_s is None else timeout_s
        try:
            self.flush(limit_s)
        except ClientError as error:
            refusal = error
        with self._changed:
            self._closed = True
            self._close_batch(self._clock.monotonic_s())
            self._changed.notify_all()
        self._transport.abort()
        self._thread.join(ABORTED_S_MAX)
        with self._changed:
            if not self._ended:
                self._ended = True
                self._queue.close()
            left = self._open.points + (0 if self._spool else self._queue.points)
        if refusal is None and left:
            refusal = Undelivered(left)
        if refusal is not None:
            raise refusal

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except ClientError:
            if error is None:
                raise

    def _run(self) -> None:
        try:
            self._send_all()
        except BaseException as error:
            # A bug, or memory is out: whoever adds or flushes must hear that nothing is sent.
            with self._changed:
                self._broken = ClientError(f"the sending thread ended: {error!r}")
                self._changed.notify_all()
            raise

    def _send_all(self) -> None:
        while True:
            with self._changed:
                batch = self._next()
            if batch is None:
                self._transport.close()
                return
            outcome = self._delivery.send(batch)
            with self._changed:
                if self._ended:
                    return
                self._settle(batch, outcome)
                self._changed.notify_all()

    # All below: with the lock held.
    def _new_batch(self) -> OpenBatch:
        return OpenBatch(self._config.batch_points_max, self._config.batch_bytes_max)

    def _next(self) -> Batch | None:
        """Wait for a batch whose time has come; None at the end."""
        while not self._closed:
            now_s = self._clock.monotonic_s()
            pauses = [self._delivery.next_s - now_s]
            if self._open.points:
                pauses.append(self._open.started_s + self._config.batch_s_max - now_s)
                if pauses[-1] <= 0:
                    self._close_batch(now_s)
            if pauses[0] <= 0:
                batch = self._queue.head()
                if batch is not None:
                    return batch
            # What is due and cannot go waits for room, which is notified.
            self._changed.wait(min((pause for pause in pauses if pause > 0), default=None))
        return None

    def _settle(self, batch: Batch, outcome: Outcome) -> None:
        counts = self._counts
        counts["requests"] += 1
        self._last_error = outcome.words
        if outcome.verdict is Verdict.TAKEN:
            self._held = None
            counts["points_acked"] += outcome.points_acked
            counts["points_rejected"] += batch.points - outcome.points_acked
            counts["batches_acked"] += 1
            counts["bytes_acked"] += len(batch.body)
            self._rejected.update(dict(outcome.rejected))
            self._queue.done(batch.sequence)
        elif outcome.verdict is Verdict.REFUSED:
            counts["points_refused"] += batch.points
            self._refusal = self._refusal or outcome.refusal
            self._queue.done(batch.sequence)
        else:
            counts["retries"] += 1
            self._held = outcome.refusal if outcome.verdict is Verdict.HELD else None

    def _close_batch(self, until_s: float | None) -> bool:
        """Encode the open batch and queue it; False where it stays open for want of room."""
        if self._config.when_full == "wait" and not self._wait_room(until_s):
            return False
        batch = self._open
        if batch.points:
            self._open = self._new_batch()
            identity = b"%b %d" % (self._name, self._batch_number)
            self._batch_number += 1
            body = self._compress(write_request(batch.series.items(), identity))
            self._put(body, batch.points)
            self._changed.notify_all()
        return True

    def _wait_room(self, until_s: float | None) -> bool:
        while not self._queue.has_room(self._open.body_bytes_max()):
            late = until_s is not None and self._left_s(until_s) == 0
            if self._closed or self._broken is not None or late:
                return False
            self._changed.wait(None if until_s is None else self._left_s(until_s))
        return True

    def _put(self, body: bytes, points: int) -> None:
        if self._config.when_full == "oldest":
            while not self._queue.has_room(len(body)):
                dropped = self._queue.drop_oldest()
                if dropped is None:
                    break
                self._counts["points_dropped"] += dropped[1]
        if self._queue.put(self._encoding, points, body) is None:
            self._counts["points_dropped"] += points

    def _wait_decided(self, until_s: float) -> bool:
        last = self._queue.last_sequence()
        while last is not None:
            first = self._queue.first_sequence()
            if first is None or first > last:
                return True
            if self._held or self._broken or self._left_s(until_s) == 0:
                return False
            self._changed.wait(self._left_s(until_s))
        return True

    def _left_s(self, until_s: float) -> float:
        return max(0.0, until_s - self._clock.monotonic_s())
