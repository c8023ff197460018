"""What answers mean, and when the client comes back."""

import pytest

from fakes.answering import Answering, answer
from sluiceway.client.batch import Batch
from sluiceway.client.delivery import Delivery, Outcome, Verdict, judge
from sluiceway.client.encode import ENCODING_ZSTD
from sluiceway.client.retry import RetryLimits, pause_s, retry_after_s
from sluiceway.clock import ManualClock, jitter

LIMITS = RetryLimits(backoff_base_s=1.0, backoff_s_max=8.0, failures_max=3)
BATCH = Batch(0, ENCODING_ZSTD, 10, b"body")
PARTLY = "4 of 10 points refused (invalid_labels: 3, too_far_in_future: 1); first: a label"


def test_a_partial_success_says_what_was_rejected() -> None:
    outcome = judge(answer(400, PARTLY), 10)
    assert (outcome.verdict, outcome.points_acked) == (Verdict.TAKEN, 6)
    assert outcome.rejected == (("invalid_labels", 3), ("too_far_in_future", 1))
    cut = judge(answer(400, "4 of 10 points refused (invalid_labels: 3)"), 10)
    assert cut.rejected == (("invalid_labels", 3), ("other", 1))


@pytest.mark.parametrize(
    ("status", "text", "verdict", "stable_id"),
    [
        (204, "", Verdict.TAKEN, None),
        (200, "", Verdict.TAKEN, None),
        (400, "zstd: bad (sluiceway-body-malformed)", Verdict.REFUSED, "sluiceway-body-malformed"),
        (413, "long (sluiceway-body-bytes-limit)", Verdict.REFUSED, "sluiceway-body-bytes-limit"),
        (302, "elsewhere", Verdict.REFUSED, ""),
        (401, "no (sluiceway-key)", Verdict.HELD, "sluiceway-key"),
        (403, "no (sluiceway-scope)", Verdict.HELD, "sluiceway-scope"),
        (408, "slow", Verdict.LATER, ""),
        (429, "rate (sluiceway-over-rate)", Verdict.LATER, "sluiceway-over-rate"),
        (503, "full (sluiceway-overloaded)", Verdict.LATER, "sluiceway-overloaded"),
        (500, "oops", Verdict.FAILED, ""),
    ],
)
def test_every_status_has_one_meaning(
    status: int, text: str, verdict: Verdict, stable_id: str | None
) -> None:
    outcome = judge(answer(status, text), 10)
    assert outcome.verdict is verdict
    assert (outcome.refusal.id if outcome.refusal else None) == stable_id


def test_it_never_comes_back_before_retry_after_and_spreads_behind_it() -> None:
    clock, source = ManualClock(0), jitter(1)
    transport = Answering(answer(503, retry_after="7"))
    pauses = []
    for _ in range(200):
        delivery = Delivery(transport, LIMITS, clock, source)
        delivery.send(BATCH)
        pauses.append(delivery.next_s - clock.monotonic_s())
    assert min(pauses) >= 7.0
    assert max(pauses) <= 8.0
    assert max(pauses) - min(pauses) > 0.8, "full jitter over the first pause"


def test_pauses_double_up_to_their_limit_and_start_again_once_taken() -> None:
    widest = [max(pause_s(n, 0.0, 1.0, 8.0, jitter(i)) for i in range(300)) for n in range(6)]
    for pause, limit in zip(widest, (1, 2, 4, 8, 8, 8), strict=True):
        assert 0.9 * limit < pause <= limit
    clock = ManualClock(0)
    transport = Answering(None, None, None, answer(204), None)
    delivery = Delivery(transport, LIMITS, clock, jitter(1))
    assert [delivery.send(BATCH).verdict for _ in range(3)] == [Verdict.LATER] * 3
    assert delivery.send(BATCH).verdict is Verdict.TAKEN
    assert delivery.next_s == 0.0
    delivery.send(BATCH)
    assert delivery.next_s <= 1.0
    assert set(transport.bodies) == {b"body"}
    assert transport.headers[0]["Content-Encoding"] == "zstd"


def test_a_batch_that_breaks_the_server_is_given_up() -> None:
    delivery = Delivery(Answering(answer(500, "oops")), LIMITS, ManualClock(0), jitter(1))
    outcomes: list[Outcome] = [delivery.send(BATCH) for _ in range(3)]
    assert [o.verdict for o in outcomes] == [Verdict.FAILED, Verdict.FAILED, Verdict.REFUSED]
    refusal = outcomes[-1].refusal
    assert refusal is not None and refusal.status == 500


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0.0),
        ("12", 12.0),
        (" 1.5 ", 1.5),
        ("100000", 300.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
        ("soon", 0.0),
        ("-3", 0.0),
        ("nan", 0.0),
    ],
)
def test_retry_after_as_seconds_or_a_date(header: str | None, seconds: float) -> None:
    assert retry_after_s(header, 60_000, 300.0) == seconds
