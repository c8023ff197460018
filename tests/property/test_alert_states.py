"""The book of alerts against the whole history judged anew: what is pending, firing, resolved."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sluiceway.alerts.state import RESOLVED_KEPT_S, AlertBook, Finding, State

RULES = {"at_once": 0.0, "after_30": 30.0, "after_300": 300.0}
KEYS = [(rule, tenant) for rule in RULES for tenant in ("acme", "globex")]
STEPS_S = (1, 15, 29, 30, 299, 300, 899, 900)
LOOK = st.tuples(st.sampled_from(STEPS_S), st.sets(st.sampled_from(KEYS)))


def oracle(times: list[int], present: list[bool], for_s: float) -> State | None:
    """By definition, over everything that was seen of one alert."""
    state, since, ended = None, 0, 0
    for now, found in zip(times, present, strict=True):
        if state is State.RESOLVED and now - ended >= RESOLVED_KEPT_S:
            state = None
        if found and state not in (State.PENDING, State.FIRING):
            state, since = State.PENDING, now
        if not found and state is State.PENDING:
            state = None
        if not found and state is State.FIRING:
            state, ended = State.RESOLVED, now
        if state is State.PENDING and now - since >= for_s:
            state = State.FIRING
    return state


@settings(deadline=None)
@given(st.lists(LOOK, max_size=40))
def test_states_are_those_of_the_whole_history(
    looks: list[tuple[int, set[tuple[str, str]]]],
) -> None:
    book, now, times = AlertBook(), 0, list[int]()
    history: dict[tuple[str, str], list[bool]] = {key: [] for key in KEYS}
    before: dict[tuple[str, str], State | None] = dict.fromkeys(KEYS)
    for step_s, found in looks:
        now += step_s
        times.append(now)
        findings = {
            rule: [Finding((("tenant", t),), 1.0, "") for r, t in sorted(found) if r == rule]
            for rule in RULES
        }
        changes = book.take(findings, RULES, now, now * 1000)
        for key in KEYS:
            history[key].append(key in found)
        expected = {key: oracle(times, history[key], RULES[key[0]]) for key in KEYS}
        held = {(a.rule, a.labels[0][1]): a.state for a in book.alerts}
        assert held == {key: state for key, state in expected.items() if state is not None}
        fired = {(a.rule, a.labels[0][1]) for a in changes.fired}
        firing = State.FIRING
        assert fired == {k for k in KEYS if expected[k] is firing and before[k] is not firing}
        resolved = {(a.rule, a.labels[0][1]) for a in changes.resolved}
        assert resolved == {k for k in KEYS if before[k] is firing and expected[k] is not firing}
        before = expected


@given(st.lists(st.sets(st.integers(0, 30)), max_size=12), st.integers(1, 8), st.integers(1, 8))
def test_the_book_is_bounded_and_those_known_stay(
    looks: list[set[int]], alerts_max: int, of_rule_max: int
) -> None:
    book = AlertBook(alerts_max, of_rule_max)
    for at, found in enumerate(looks):
        before = {a.labels for a in book.alerts if a.state is not State.RESOLVED}
        findings = [Finding((("i", str(i)),), 1.0, "") for i in sorted(found)]
        changes = book.take({"rule": findings}, {"rule": 0.0}, at, at)
        held = {a.labels for a in book.alerts if a.state is not State.RESOLVED}
        assert len(book.alerts) <= min(alerts_max, of_rule_max)
        assert before & {finding.labels for finding in findings} <= held
        assert len(held) + changes.untracked == len(findings)
