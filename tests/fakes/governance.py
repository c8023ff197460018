"""An oracle of governance: sets of series and brute force, and the letters' bytes by the document.

Says what docs/formats/policy.md says, in another way than the kernel: nothing is counted ahead.
"""

import struct
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from sluiceway.governance.policy import Action, Budget, Match, Policy, Stage

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
REASONS = {"active_series": 1, "new_series_per_hour": 2}
Labels = tuple[tuple[str, str], ...]
Series = tuple[str, Labels]
"""Tenant and labels, ascending by name."""


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def zigzag(number: int) -> bytes:
    return varint(number * 2 if number >= 0 else -number * 2 - 1)


def sized(data: bytes) -> bytes:
    return varint(len(data)) + data


def canonical(labels: Labels) -> bytes:
    return b"".join(sized(name.encode()) + sized(value.encode()) for name, value in labels)


@dataclass
class Refusal:
    """A letter, as the oracle knows it."""

    series: Series
    received_ms: int
    sequence: int
    version: int
    reason: str
    budget: str
    points: list[tuple[int, float]]

    def frame(self) -> bytes:
        body = zigzag(self.received_ms) + varint(self.sequence) + varint(self.version)
        body += bytes([REASONS[self.reason], 2])
        body += sized(self.budget.encode()) + sized(canonical(self.series[1]))
        body += varint(len(self.points))
        before = 0
        for time_ms, value in self.points:
            body += zigzag(time_ms - before) + struct.pack("<d", value)
            before = time_ms
        return sized(body + varint(0))


@dataclass
class Oracle:
    """Governance of one shard, record by record."""

    policies: dict[int, Policy] = field(default_factory=dict)
    version: int = 0
    hour: int | None = None
    known: set[Series] = field(default_factory=set)
    current: set[Series] = field(default_factory=set)
    previous: set[Series] = field(default_factory=set)
    new: set[Series] = field(default_factory=set)
    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    letters: list[Refusal] = field(default_factory=list)
    kept_bytes: Counter[tuple[str, int]] = field(default_factory=Counter)

    def record(
        self,
        sequence: int,
        tenant: str,
        received_ms: int,
        version: int,
        rows: list[tuple[Labels, list[tuple[int, float]]]],
    ) -> None:
        self.roll(received_ms // HOUR_MS)
        self.version = max(self.version, version)
        accepted: list[Series] = []
        for labels, points in rows:
            series = (tenant, labels)
            outcome = self.outcomes[tenant]
            outcome["received"] += len(points)
            verdict = None if series in self.known else self.judge(series)
            if verdict is None:
                if series not in self.known:
                    for each in (self.known, self.current, self.new):
                        each.add(series)
                accepted.append(series)
                outcome["stored"] += len(points)
                continue
            reason, budget = verdict
            letter = Refusal(series, received_ms, sequence, self.version, reason, budget, points)
            outcome[self.keep(tenant, letter)] += len(points)
        self.current |= set(accepted)
        self.previous -= self.current

    def roll(self, hour: int) -> None:
        if self.hour is None or hour not in (self.hour, self.hour - 1):
            next_one = self.hour is not None and hour == self.hour + 1
            self.previous = self.current if next_one else set()
            self.current, self.new, self.hour = set(), set(), hour

    def judge(self, series: Series) -> tuple[str, str] | None:
        policy = self.policies.get(self.version, Policy())
        for budget in policy.budgets:
            if budget.action is not Action.DROP or policy.stage is not Stage.ENFORCE:
                continue
            if not counts(budget, series):
                continue
            mine = [
                {s for s in some if s[0] == series[0] and counts(budget, s)}
                for some in (self.current | self.previous, self.new)
            ]
            limits = (budget.active_series.hard, budget.new_series_per_hour.hard)
            for reason, held, hard in zip(REASONS, mine, limits, strict=True):
                if hard is not None and len(held) + 1 > hard:
                    return reason, budget.name
        return None

    def keep(self, tenant: str, letter: Refusal) -> str:
        quota = self.policies[self.version].dead_letters
        today, size = letter.received_ms // DAY_MS, len(letter.frame())
        held = sum(
            bytes_
            for (of, day), bytes_ in self.kept_bytes.items()
            if of == tenant and day > today - quota.days
        )
        if not letter.points or held + size > quota.bytes_max_per_tenant:
            return "discarded"
        self.kept_bytes[tenant, today] += size
        self.letters.append(letter)
        return "dead_lettered"


def counts(budget: Budget, series: Series) -> bool:
    """Is the series one of the budget's?"""
    tenant, labels = series
    of = dict(labels)
    name = of.get("__name__", "")
    if budget.metric is None:
        fits = True
    elif budget.match is Match.PREFIX:
        fits = name.startswith(budget.metric)
    else:
        fits = name == budget.metric
    wanted = budget.labels.items()
    return fits and budget.tenant in ("*", tenant) and all(of.get(k, "") == v for k, v in wanted)
