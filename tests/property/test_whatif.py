"""What-if over recorded hours says what enforcement then does on the same records, by series."""

from collections import defaultdict
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.governance import HOUR_MS, Series
from property.test_governance import (
    ACTIONS,
    Life,
    Policy,
    labels_of,
    live,
    policies,
    record,
    row,
    told_letters,
)
from sluiceway.deadletters.embedded import EmbeddedDeadLetters
from sluiceway.governance.compile import compile_policy
from sluiceway.governance.policy import LetterQuota, Stage

ROOMY = LetterQuota(64 << 20, 7)
HOURS_MAX = 24 * 300
onward = st.tuples(
    st.sampled_from(["a", "b"]),
    st.lists(row, min_size=1, max_size=8, unique_by=lambda r: r[:3]),
    st.sampled_from([0] * 4 + [20 * 60_000, HOUR_MS, HOUR_MS, 3 * HOUR_MS]),
)
Refused = dict[Series, set[int]]


def enforced(policy: Policy) -> Policy:
    return msgspec.structs.replace(policy, stage=Stage.ENFORCE, dead_letters=ROOMY)


def close_hour(life: Life) -> None:
    """A record far ahead, so that what came before is recorded; then all is sealed."""
    life.push("z", [("closing", "", 0, 1)], 5 * HOUR_MS)
    life.settle()


def whatif(life: Life, policy: Policy, hours: int = HOURS_MAX) -> Any:
    request = {"table": compile_policy(policy, 1).decode(), "hours": hours, "list_max": 10_000}
    return msgspec.json.decode(life.hot.shard.whatif(msgspec.json.encode(request).decode()))


def known(life: Life) -> set[Series]:
    """But for the series of the record that closed the hour."""
    return {series for series in life.oracle.known if series[0] != "z"}


def listed(report: Any) -> dict[Series, Any]:
    return {(one["tenant"], tuple(sorted(one["labels"].items()))): one for one in report["refused"]}


def journal_hours(life: Life) -> list[int]:
    """Of each record, as docs/formats/policy.md has it."""
    hours: list[int] = []
    for _, _, received_ms, _, _ in life.pushed:
        hour = received_ms // HOUR_MS
        late = bool(hours) and hour == hours[-1] - 1
        hours.append(hours[-1] if late else hour)
    return hours


def enforce(life: Life, policy: Policy, from_record: int) -> tuple[Life, Refused, int]:
    """A fresh shard that is sent the same records but the last, the policy in force from one on:
    (it, what it refused in which journal hour, points refused)."""
    again, hours = Life(), journal_hours(life)
    for number, (_, tenant, received_ms, _, sent) in enumerate(life.pushed[:-1]):
        if number == from_record:
            live(again, [policy])
        rows = [
            (dict(labels)["__name__"], dict(labels).get("env", ""), dict(labels)["id"], points)
            for labels, points in sent
        ]
        assert [labels_of(m, e, int(n)) for m, e, n, _ in rows] == [labels for labels, _ in sent]
        counted = [(metric, env, int(number), len(points)) for metric, env, number, points in rows]
        again.push(tenant, counted, received_ms - again.now_ms)
    again.settle()
    refused: Refused = defaultdict(set)
    points = 0
    for letter in told_letters(EmbeddedDeadLetters(again.disk, again.hot.version)):
        refused[letter[1]].add(hours[letter[0]])
        points += len(letter[5])
    again.hot.shard.close()
    return again, refused, points


@settings(max_examples=120, deadline=None)
@given(policies(), st.lists(st.one_of(record, record, st.sampled_from(ACTIONS)), max_size=40))
def test_what_if_is_what_enforcement_does(drawn: Policy, steps: list[Any]) -> None:
    candidate = enforced(drawn)
    life = Life()
    live(life, steps)
    close_hour(life)
    report = whatif(life, candidate)
    life.hot.shard.close()
    again, refused, points = enforce(life, candidate, 0)
    found = listed(report)
    assert {series: set(one["hours"]) for series, one in found.items()} == refused
    lost = {series for series, one in found.items() if not one["came_in"]}
    assert known(life) - lost == known(again)
    assert (report["points_refused"], report["series_lost"]) == (points, len(lost))
    assert report["estimate_from_hour"] is None
    if report["from_hour"] is not None:
        assert report["series_made"] == len(known(again))
        sent = sum(len(p) for record in life.pushed[:-1] for _, p in record[4])
        assert report["points"] == sent


@settings(max_examples=80, deadline=None)
@given(
    policies(),
    st.lists(st.one_of(onward, onward, onward, st.sampled_from(ACTIONS)), max_size=40),
    st.integers(1, 6),
)
def test_a_later_beginning_is_a_policy_that_comes_into_force(
    drawn: Policy, steps: list[Any], count: int
) -> None:
    candidate = enforced(drawn)
    life = Life()
    live(life, steps)
    close_hour(life)
    report = whatif(life, candidate, count)
    life.hot.shard.close()
    hours = journal_hours(life)
    if report["from_hour"] is None:
        assert len(life.pushed) == 1
        return
    begin = hours.index(report["from_hour"])
    again, refused, points = enforce(life, candidate, begin)
    assert {series: set(one["hours"]) for series, one in listed(report).items()} == refused
    lost = {series for series, one in listed(report).items() if not one["came_in"]}
    assert known(life) - lost == known(again)
    assert report["points_refused"] == points


@settings(max_examples=80, deadline=None)
@given(
    policies(),
    policies(),
    st.lists(st.one_of(onward, onward, st.sampled_from(ACTIONS)), max_size=40),
)
def test_after_refusals_what_is_told_to_be_exact_is(
    drawn: Policy, other: Policy, steps: list[Any]
) -> None:
    """The policy in force itself is always exact; another one where it says so."""
    in_force, candidate = enforced(drawn), enforced(other)
    life = Life()
    live(life, [in_force, *steps])
    close_hour(life)
    same, report = whatif(life, in_force), whatif(life, candidate)
    life.hot.shard.close()
    assert (same["estimate_from_hour"], same["refused_unknown"]) == (None, 0)
    assert (same["series_refused"], same["points_refused"]) == (0, 0)
    if report["from_hour"] is None or report["estimate_from_hour"] is not None:
        return
    again, refused, _ = enforce(life, candidate, 0)
    lost = {series for series, one in listed(report).items() if not one["came_in"]}
    assert known(life) - lost == known(again)
    # Which series were refused when it was recorded is not recorded.
    hours = journal_hours(life)
    then: Refused = defaultdict(set)
    for letter in life.oracle.letters:
        then[letter.series].add(hours[letter.sequence])
    told = {s: of - then[s] for s, of in refused.items() if s in known(life) and of - then[s]}
    assert {series: set(one["hours"]) for series, one in listed(report).items()} == told
