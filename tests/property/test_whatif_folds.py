"""What-if of policies that fold says what enforcement then does on the same records: which series
are kept, refused, and folded into which output, and what new series that makes."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import event, given, settings
from hypothesis import strategies as st

from fakes.governance import HOUR_MS, Labels, Series
from fakes.hot import acked, opened
from fakes.remote_write import body
from property.test_governance import ACTIONS, START_MS, TENANTS, labels_of, registered, told_letters
from sluiceway.deadletters.embedded import EmbeddedDeadLetters
from sluiceway.governance.compile import compile_policy
from sluiceway.governance.policy import (
    Action,
    Budget,
    Fold,
    GaugeFunction,
    LetterQuota,
    Limit,
    Match,
    Policy,
    Stage,
)
from sluiceway.kernels import ENCODING_IDENTITY, FORMAT_REMOTE_WRITE_1, Disk
from sluiceway.tiers.hot import HotConfig

CONFIG = HotConfig(seal_points_max=40, merge_fan_in=2, state_files_max=3, day_points_min=20)
ENVS = ("", "prod", "test")
HOURS_MAX = 24 * 300
PLAIN = (Action.DROP, Action.OBSERVE)
Into = dict[tuple[str, Labels], set[Series]]

folds = st.builds(
    Fold,
    gauge=st.just(GaugeFunction.SUM),
    inputs_max=st.sampled_from([2, 100_000, 100_000, 100_000]),
    outputs_max=st.sampled_from([1, 2, 1_000, 1_000, 1_000]),
)
actions = st.sampled_from(
    [
        {"action": Action.DROP},
        {"action": Action.OBSERVE},
        {"action": Action.STRIP, "drop_labels": ("id",)},
        {"action": Action.STRIP, "drop_labels": ("id", "env")},
        {"action": Action.AGGREGATE, "keep": ("env",)},
        {"action": Action.AGGREGATE},
        {"action": Action.OVERFLOW, "overflow_label": "id"},
        {"action": Action.OVERFLOW},
    ]
)
limit = st.builds(Limit, hard=st.none() | st.integers(0, 5))
chosen = st.tuples(
    actions,
    folds,
    st.sampled_from(["*", "*", *TENANTS]),
    st.sampled_from([(None, Match.NAME), ("http_", Match.PREFIX), ("up", Match.NAME)]),
    st.sampled_from([{}, {}, {"env": "prod"}]),
    st.tuples(limit, limit),
    st.sampled_from([False, False, False, True]),
)
row = st.tuples(
    st.sampled_from(["up", "http_a", "http_b"]), st.sampled_from(ENVS), st.integers(0, 8)
)
record = st.tuples(
    st.sampled_from(TENANTS),
    st.lists(row, min_size=1, max_size=8, unique=True),
    st.sampled_from([0] * 4 + [20 * 60_000, HOUR_MS, HOUR_MS, 3 * HOUR_MS, 30 * HOUR_MS]),
)
steps = st.lists(st.one_of(record, record, record, st.sampled_from(ACTIONS)), max_size=40)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    budgets = []
    for place, one in enumerate(draw(st.lists(chosen, min_size=1, max_size=3))):
        action, fold, tenant, (metric, match), labels, limits, standing = one
        standing = standing and action["action"] not in PLAIN
        active, new = limits
        if not standing and active.hard is None and new.hard is None:
            active = Limit(hard=3)
        budgets.append(
            Budget(
                f"budget-{place}",
                tenant=tenant,
                metric=metric,
                match=match,
                labels=labels,
                active_series=Limit() if standing else active,
                new_series_per_hour=Limit() if standing else new,
                standing=standing,
                fold=Fold() if action["action"] in PLAIN else fold,
                **action,
            )
        )
    return Policy(Stage.ENFORCE, tuple(budgets), LetterQuota(64 << 20, 7))


@dataclass
class Life:
    """A shard and what was sent to it."""

    disk: Disk = field(default_factory=Disk.memory)
    now_ms: int = START_MS
    sent: list[tuple[str, int, list[Series]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hot = opened(self.disk, CONFIG)

    def push(self, tenant: str, series: list[Series], received_ms: int) -> None:
        # At its own time, so that no body is taken for a retry.
        points = [(received_ms + len(self.sent), 0.0)]
        rows = [(dict(labels), [(points[0][0], float(1 << bit(labels)))]) for _, labels in series]
        sent = body(rows)
        ticket = self.hot.shard.receive(
            sent, tenant, FORMAT_REMOTE_WRITE_1, ENCODING_IDENTITY, received_ms
        ).ticket
        assert acked(self.hot, ticket)
        self.sent.append((tenant, received_ms, series))
        self.now_ms = received_ms

    def live(self, steps: list[Any]) -> None:
        for step in steps:
            if isinstance(step, Policy):
                self.hot.change_policy(step)
            elif isinstance(step, str):
                self.do(step)
            else:
                tenant, rows, later_ms = step
                self.push(tenant, [(tenant, labels_of(*r)) for r in rows], self.now_ms + later_ms)

    def do(self, action: str) -> None:
        if action == "apply":
            self.hot.step()
        elif action == "kill":
            self.hot.shard.close()
            self.hot = opened(self.disk, CONFIG)
        elif action == "merge":
            self.hot.merge_step()
        else:
            if action in ("freeze", "seal"):
                self.hot._worker.ask_seal(0)
                self.hot.step()
            if action in ("write", "seal"):
                self.hot.seal_step()

    def close(self) -> None:
        """A record far ahead, so that what came before is recorded; then all is sealed."""
        self.push("z", [("z", labels_of("closing", "", 0))], self.now_ms + 5 * HOUR_MS)
        while self.hot.step() == "applied" or self.hot.seal_step():
            pass
        self.do("seal")

    def whatif(self, policy: Policy, hours: int = HOURS_MAX) -> Any:
        table = compile_policy(policy, 1).decode()
        request = {"table": table, "hours": hours, "list_max": 10_000}
        return msgspec.json.decode(self.hot.shard.whatif(msgspec.json.encode(request).decode()))


def bit(labels: Labels) -> int:
    """Of a series among those of its metric: sums of powers of two say which were added."""
    of = dict(labels)
    return ENVS.index(of.get("env", "")) * 9 + int(of["id"])


@dataclass
class Enforced:
    """What a shard did to the records: series that have a row, and the hours of the others."""

    kept: set[Series]
    outputs: set[Series]
    refused: dict[Series, set[int]]
    folded: dict[Series, set[int]]
    into: Into
    turned_away: bool
    """An output or input was one too many: an output may be a series without points."""
    points_refused: int
    points_folded: int


def enforce(life: Life, policy: Policy, from_record: int = 0) -> Enforced:
    """The same records at a fresh shard, the policy in force from one on."""
    again = Life()
    for number, (tenant, received_ms, series) in enumerate(life.sent):
        if number == from_record:
            again.live([policy])
        again.push(tenant, series, received_ms)
    while again.hot.step() == "applied" or again.hot.seal_step():
        pass
    again.do("seal")
    hours = [received_ms // HOUR_MS for _, received_ms, _ in life.sent]
    refused: dict[Series, set[int]] = defaultdict(set)
    letters = told_letters(EmbeddedDeadLetters(again.disk, again.hot.version))
    gone = set()
    for sequence, series, *_ in letters:
        if series[0] != "z":
            gone.add((sequence, series))
            refused[series].add(hours[sequence])
    stored, into = points_of(again)
    folded: dict[Series, set[int]] = defaultdict(set)
    points_folded = 0
    for number, (tenant, received_ms, sent) in enumerate(life.sent):
        for series in sent if tenant != "z" else []:
            if (number, series) not in gone and received_ms + number not in stored[series]:
                folded[series].add(hours[number])
                points_folded += 1
    rows = registered(again.hot)
    again.hot.shard.close()
    outputs = {series for series in rows if "folded_by" in dict(series[1])}
    turned_away = any(letter[3] == "fold_full" for letter in letters)
    counts = (len(gone), points_folded)
    return Enforced(rows - outputs, outputs, refused, folded, into, turned_away, *counts)


def points_of(life: Life) -> tuple[dict[Series, set[int]], Into]:
    """Times that each series has points at, and which series' values each output has added."""
    stored: dict[Series, set[int]] = defaultdict(set)
    into: Into = defaultdict(set)
    for tenant in TENANTS:
        labels, offsets, times, values = life.hot.shard.points(tenant, -(1 << 62), 1 << 62)
        for place, of in enumerate(labels.to_list()):
            series = (tenant, tuple(sorted(of.items())))
            mine = slice(offsets[place], offsets[place + 1])
            stored[series].update(times[mine].tolist())
            if "folded_by" not in of:
                continue
            for value in values[mine].astype(int).tolist():
                for env in ENVS:
                    for number in range(9):
                        labels_in = labels_of(of["__name__"], env, number)
                        if value >> bit(labels_in) & 1:
                            into[series].add((tenant, labels_in))
    return stored, into


def listed(report: Any) -> tuple[dict[Series, set[int]], dict[Series, set[int]], Into, set[Series]]:
    """(hours refused, hours folded, who went into which output, who never came in)."""
    outputs = [series_of(one) for one in report["outputs"]]
    refused: dict[Series, set[int]] = {}
    folded: dict[Series, set[int]] = {}
    into: Into = defaultdict(set)
    lost = set()
    for one in report["refused"]:
        series = series_of(one)
        if one["hours"]:
            refused[series] = set(one["hours"])
        for output in one["folded"]:
            folded.setdefault(series, set()).update(output["hours"])
            into[outputs[output["output"]]].add(series)
        if not one["came_in"]:
            lost.add(series)
    return refused, folded, into, lost


def series_of(told: Any) -> Series:
    return told["tenant"], tuple(sorted(told["labels"].items()))


def before(hours: dict[Series, set[int]], end: int) -> dict[Series, set[int]]:
    cut = {series: {hour for hour in of if hour < end} for series, of in hours.items()}
    return {series: of for series, of in cut.items() if of}


def known(life: Life) -> set[Series]:
    return {series for tenant, _, sent in life.sent if tenant != "z" for series in sent}


def same(report: Any, found: Enforced, life: Life) -> None:
    """All that is told is what was found, up to where the answer is an estimate."""
    refused, folded, into, lost = listed(report)
    end = report["estimate_from_hour"]
    event(f"exact: {end is None}, folds: {bool(folded)}")
    if end is not None:
        assert before(refused, end) == before(found.refused, end)
        assert before(folded, end) == before(found.folded, end)
        return
    assert (refused, folded) == (found.refused, found.folded)
    assert into == found.into
    assert known(life) - lost == found.kept
    assert {series_of(one) for one in report["outputs"]} == found.outputs
    counts = (report["points_refused"], report["points_folded"], report["outputs_made"])
    assert counts == (found.points_refused, found.points_folded, len(found.outputs))


@settings(max_examples=250, deadline=None)
@given(policies(), steps)
def test_what_if_of_folds_is_what_enforcement_does(candidate: Policy, steps: list[Any]) -> None:
    life = Life()
    life.live(steps)
    life.close()
    report = life.whatif(candidate)
    life.hot.shard.close()
    if report["from_hour"] is not None:
        same(report, enforce(life, candidate), life)


@settings(max_examples=150, deadline=None)
@given(policies(), steps, st.integers(1, 30))
def test_a_later_beginning_is_a_policy_that_comes_into_force(
    candidate: Policy, steps: list[Any], count: int
) -> None:
    life = Life()
    life.live(steps)
    life.close()
    report = life.whatif(candidate, count)
    life.hot.shard.close()
    if report["from_hour"] is None:
        return
    hours = [received_ms // HOUR_MS for _, received_ms, _ in life.sent]
    same(report, enforce(life, candidate, hours.index(report["from_hour"])), life)


@settings(max_examples=250, deadline=None)
@given(policies(), policies(), st.booleans(), steps)
def test_after_folds_what_is_told_to_be_exact_is(
    in_force: Policy, other: Policy, tighter: bool, steps: list[Any]
) -> None:
    """The policy in force itself is always exact; another one where it says so."""
    candidate = tightened(in_force) if tighter else other
    life = Life()
    life.live([in_force, *steps])
    life.close()
    same_again, report = life.whatif(in_force), life.whatif(candidate)
    life.hot.shard.close()
    assert same_again["estimate_from_hour"] is None
    assert (same_again["series_refused"], same_again["series_folded"]) == (0, 0)
    now = enforce(life, in_force)
    check_outputs(same_again, now)
    event(f"tighter: {tighter}, exact: {report['estimate_from_hour'] is None}")
    if report["from_hour"] is None or report["estimate_from_hour"] is not None:
        return
    found = enforce(life, candidate)
    refused, folded, into, lost = listed(report)
    assert now.kept - lost == found.kept
    check_outputs(report, found)

    def told(of: dict[Series, set[int]]) -> dict[Series, set[int]]:
        """Without the hours of which nobody recorded which series were folded or refused."""
        gone = {series: now.refused[series] | now.folded[series] for series in of}
        left = {series: hours - gone[series] for series, hours in of.items()}
        return {series: hours for series, hours in left.items() if hours}

    assert (refused, folded) == (told(found.refused), told(found.folded))
    for output, series in into.items():
        assert series <= found.into[output]


def check_outputs(report: Any, found: Enforced) -> None:
    told = {series_of(one) for one in report["outputs"]}
    assert found.outputs <= told
    assert found.turned_away or told == found.outputs


def tightened(policy: Policy) -> Policy:
    """No looser: what folded folds into fewer, what dropped drops, all a little earlier."""

    def tighter(budget: Budget) -> Budget:
        changes: dict[str, Any] = {}
        if budget.action is Action.STRIP:
            changes["drop_labels"] = ("env", "id")
        if budget.action is Action.AGGREGATE:
            changes["keep"] = ()
        for name in ("active_series", "new_series_per_hour"):
            hard = getattr(budget, name).hard
            changes[name] = Limit(hard=None if hard is None else max(0, hard - 1))
        return msgspec.structs.replace(budget, **changes)

    return msgspec.structs.replace(policy, budgets=tuple(map(tighter, policy.budgets)))
