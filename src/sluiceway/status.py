"""`sluiceway status`: in ten lines, what is wrong.

Invariant: the judgement (`judge`) is a pure function of figures; the alerts here are those of
docs/operations.md.
"""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from sluiceway.alerts.thresholds import (
    DISK_ERROR,
    JOURNAL_LAG_RECORDS,
    MEMORY_WARNING,
    OBJECTS_STALLED_S,
    PARTS_WARNING,
    SHARE_WARNING,
)

Level = Literal["ok", "warning", "error"]
TIMEOUT_S = 5.0
SHARDS_SHOWN_MAX = 7
OF_MEMBER_MAX = 3
"""Lines of what is wrong with one process of several."""
ASKED_AT_ONCE_MAX = 16


@dataclass(frozen=True)
class Line:
    """One line of the report."""

    level: Level
    text: str


def judge_query(told: Mapping[str, Any]) -> list[Line]:
    """Of a process with the role `query`: whether it answers, and which shards it misses."""
    shards = {name: state for name, state in told["shards"].items() if state != "reached"}
    missing = [Line("error", f"shard {name}: {state}") for name, state in shards.items()]
    reached = Line("ok", f"shards: {len(told['shards']) - len(shards)} reached")
    ready = Line("ok", "ready: answers")
    if not told["ready"]:
        ready = Line("error", f"not ready: {told['missing']}")
    lines = [ready, *missing[:SHARDS_SHOWN_MAX], reached]
    if len(missing) > SHARDS_SHOWN_MAX:
        lines.append(Line("error", f"and {len(missing) - SHARDS_SHOWN_MAX} shards more"))
    return sorted(lines, key=lambda line: line.level == "ok")


def judge_gateway(told: Mapping[str, Any]) -> list[Line]:
    """Of a process with the role `gateway`: whether it acks, and what its outbox holds."""
    waiting = told["metrics"].get("sluiceway_outbox_records", 0)
    ready = Line("ok", "ready: acks")
    if not told["ready"]:
        ready = Line("error", f"not ready: {told['missing']}")
    level: Level = "warning" if waiting else "ok"
    lines = [ready, Line(level, f"outbox: {waiting:,.0f} requests wait for the brokers")]
    if told.get("topic_not_found"):
        lines.append(Line("error", f"nothing reaches the shards: {told['topic_not_found']}"))
    order: list[Level] = ["error", "warning", "ok"]
    return sorted(lines, key=lambda line: order.index(line.level))


def judge_member(told: Mapping[str, Any]) -> list[Line]:
    """Of a member of the shards' group: whether it answers for what the group gave it."""
    ready = Line("ok", "ready: answers for what the group gave it")
    if not told["ready"]:
        ready = Line("error", f"not ready: {told['missing']}")
    running = ", ".join(map(str, told["running"])) or "none, a spare"
    lines = [ready, Line("ok", f"partitions: {running}")]
    if told["not_served"]:
        left = ", ".join(map(str, told["not_served"]))
        words = f"partitions {left} are its own and not served: kafka.member_partitions_max"
        lines.append(Line("error", words))
    return sorted(lines, key=lambda line: line.level == "ok")


def judge(told: Mapping[str, Any]) -> list[Line]:
    """At most ten lines out of the answer of `/admin/v1/status`, one of budgets where there are
    any, one of the rollups' object store where there is one, one of the tenant that is worst off
    where one is in trouble; the worst first. A counter is judged by what it grew by lately: what
    was wrong once and is over is told, and is no alarm."""
    if told.get("role") == "query":
        return judge_query(told)
    if told.get("role") == "gateway":
        return judge_gateway(told)
    if told.get("role") == "shard":
        return judge_member(told)
    figures = told["metrics"]
    recent = told["recent"]
    window = f"in the last {told['recent_s'] / 60:.0f} min"

    def figure(name: str) -> float:
        return float(figures.get(f"sluiceway_{name}", 0))

    def errors(text: str, name: str) -> Line:
        now, ever = recent.get(name, 0), figure(name)
        return Line("error" if now else "ok", f"{text}: {now:.0f} {window}, {ever:.0f} in all")

    lines = [
        Line("ok", "ready: acks and answers")
        if told["ready"]
        else Line("error", f"not ready: {told['missing']}"),
        errors("journal: fdatasync errors", "journal_sync_errors_total"),
        _damage(figure, recent, window),
        _over(
            "journal: records not applied yet",
            figure("journal_lag_records"),
            JOURNAL_LAG_RECORDS,
        ),
        _share("disk", figure("disk_bytes"), figure("disk_bytes_max"), "GiB", DISK_ERROR),
        _share("series in memory", figure("series"), figure("series_max"), "", 1.0),
        _over("blocks waiting for a merge", figure("parts"), PARTS_WARNING),
        _memory(told["memory"]),
        errors("processor errors", "processor_errors_total"),
        _points(told["points"], recent.get("points_rejected", 0), window),
    ]
    if told.get("tier_objects"):
        lines.append(_objects(told["tier_objects"]))
    if told.get("budgets"):
        lines.append(_budgets(told["budgets"], figure("policy_pending")))
    if told.get("worst"):
        lines.append(_worst(told["worst"], window))
    order: list[Level] = ["error", "warning", "ok"]
    return sorted(lines, key=lambda line: order.index(line.level))


def _damage(figure: Callable[[str], float], recent: Mapping[str, float], window: str) -> Line:
    """Damage found lately, or files that still wait for a person, is an error; what the ledger
    remembers is told."""
    records = recent.get("journal_quarantined_records_total", 0)
    pages = recent.get("corrupt_pages_total", 0)
    files = figure("quarantined_files")
    return Line(
        "error" if records or pages or files else "ok",
        f"damage: {records:.0f} records, {pages:.0f} pages {window}; {files:.0f} files set aside; "
        f"{figure('journal_lost_records_total'):.0f} records lost ever",
    )


def _objects(objects: Mapping[str, Any]) -> Line:
    """The rollups' object store: a warning while it fails, or takes nothing of what waits."""
    stalled = objects["stalled_s"] > OBJECTS_STALLED_S
    waiting = f"{objects['waiting_files']:,} files ({_amount(objects['waiting_bytes'], 'GiB')})"
    state = f"does not answer ({objects['error']})" if objects["error"] else "answers"
    since = f", none sent for {objects['stalled_s'] / 3600:.1f} h" if stalled else ""
    level: Level = "warning" if objects["error"] or stalled else "ok"
    return Line(level, f"rollups' object store: {state}; {waiting} wait{since}")


def _budgets(budgets: Sequence[Mapping[str, Any]], pending: float) -> Line:
    """The nearest ones; one that is nearly full is a warning before it bites."""
    told = []
    for budget in budgets:
        refused = budget["refused_series"]
        more = f", {refused:,} series refused ever" if refused else ""
        told.append(f"{budget['tenant']}/{budget['budget']} {budget['share']:.0%}{more}")
    late = "a published policy is not in force yet; " if pending else ""
    near = max(budget["share"] for budget in budgets) >= SHARE_WARNING
    return Line("warning" if near or pending else "ok", f"budgets: {late}{'; '.join(told)}")


TROUBLES = {
    "discarded": "points discarded",
    "rejected": "points rejected",
    "dead_lettered": "points became dead letters",
    "series_refused": "new series refused",
    "refused": "requests answered 429 or 503",
}


def _worst(trouble: Mapping[str, Any], window: str) -> Line:
    """Who it is and why; an error where points are lost for good."""
    counts = [f"{trouble[name]:,} {words}" for name, words in TROUBLES.items() if trouble[name]]
    why = [f"{', '.join(counts)} {window}"] if counts else []
    if trouble["budget"]:
        why.append(f"budget {trouble['budget']} at {trouble['share']:.0%}")
    others = f" (and {trouble['others']:,} others)" if trouble["others"] else ""
    level: Level = "error" if trouble["discarded"] else "warning"
    return Line(level, f"worst tenant: {trouble['tenant']}{others}: {'; '.join(why)}")


def _memory(sides: Mapping[str, Sequence[float]]) -> Line:
    """Both sides together; as bad as the one nearer its limit."""
    used, limit = (sum(side[at] for side in sides.values()) for at in (0, 1))
    shares = [side[0] / side[1] for side in sides.values() if side[1]]
    told = ", ".join(f"{name} {_amount(side[0], 'GiB')}" for name, side in sides.items())
    worst = max(shares, default=0.0)
    level: Level = "error" if worst >= 1 else "warning" if worst >= MEMORY_WARNING else "ok"
    share = f"{used / limit:.0%} of {_amount(limit, 'GiB')}: " if limit else ""
    return Line(level, f"memory: {share}{told}")


def _over(name: str, value: float, limit: float) -> Line:
    return Line("warning" if value > limit else "ok", f"{name}: {value:.0f} (alarm at {limit:.0f})")


def _share(name: str, value: float, limit: float, unit: str, error_share: float) -> Line:
    if not limit:
        return Line("ok", f"{name}: {_amount(value, unit)}")
    share = value / limit
    level: Level = "ok"
    if share >= SHARE_WARNING:
        level = "error" if share >= error_share else "warning"
    return Line(level, f"{name}: {share:.0%} of {_amount(limit, unit)}")


def _amount(value: float, unit: str) -> str:
    return f"{value / (1 << 30):.1f} GiB" if unit == "GiB" else f"{value:,.0f}"


def _points(points: Mapping[str, float], rejected: float, window: str) -> Line:
    told = ", ".join(f"{name} {count:,.0f}" for name, count in points.items() if count)
    if rejected:
        return Line("warning", f"points: {rejected:,.0f} rejected {window}; {told}")
    return Line("ok", f"points: {told or 'none yet'}")


def fetch(address: str, key: str | None, ca_file: str | None) -> dict[str, Any]:
    """The server's own figures. Raises: OSError, ValueError."""
    scheme = "https" if ca_file else "http"
    url = address if "://" in address else f"{scheme}://{address}"
    request = urllib.request.Request(f"{url}/admin/v1/status")
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    context = ssl.create_default_context(cafile=ca_file) if url.startswith("https") else None
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=context) as answer:
            told: dict[str, Any] = json.loads(answer.read(1 << 20))
    except urllib.error.HTTPError as error:
        raise OSError(f"{url} answered {error.code}: {error.read(300).decode()}") from None
    return told


def judged(
    address: str, key: str | None, ca_file: str | None
) -> tuple[list[Line], list[Mapping[str, Any]]]:
    """Of one process, and the owners of partitions that it tells of; that it does not answer is an
    error."""
    try:
        told = fetch(address, key, ca_file)
        return judge(told), told.get("owners", [])
    except (OSError, ValueError) as error:
        return [Line("error", f"no answer from {address}: {error}")], []


def summed(members: Sequence[tuple[str, list[Line]]]) -> list[Line]:
    """Several processes, by name: what is wrong with each, the worst first, and the first line of
    those that are well."""
    lines = []
    for name, told in members:
        wrong = [line for line in told if line.level != "ok"]
        shown = wrong[:OF_MEMBER_MAX] or told[:1]
        lines += [Line(line.level, f"{name}: {line.text}") for line in shown]
        if len(wrong) > OF_MEMBER_MAX:
            more = f"{name}: and {len(wrong) - OF_MEMBER_MAX} lines more"
            lines.append(Line(wrong[OF_MEMBER_MAX].level, more))
    order: list[Level] = ["error", "warning", "ok"]
    return sorted(lines, key=lambda line: order.index(line.level))


def fleet_report(
    members: Sequence[tuple[str, str]], key: str | None, ca_file: str | None
) -> tuple[str, bool]:
    """Of all processes, (name, address) each, asked at once, and of the partitions' that members
    tell of: (the report, whether all is well)."""

    def ask(asked: Sequence[tuple[str, str]]) -> list[tuple[list[Line], list[Mapping[str, Any]]]]:
        with ThreadPoolExecutor(ASKED_AT_ONCE_MAX) as pool:
            return list(pool.map(lambda one: judged(one[1], key, ca_file), asked))

    told = ask(members)
    owners: dict[int, tuple[int, str]] = {}
    for owner in (owner for _, known in told for owner in known):
        newest = owners.get(owner["partition"], (-1, ""))
        owners[owner["partition"]] = max(newest, (owner["term"], owner["http"]))
    named = {address for _, address in members}
    more = [(f"partition {number}", at) for number, (_, at) in sorted(owners.items())]
    more = [(name, address) for name, address in more if address not in named]
    every = zip([*members, *more], [*told, *ask(more)], strict=True)
    return said(summed([(name, lines) for (name, _), (lines, _) in every]))


def report(address: str, key: str | None, ca_file: str | None) -> tuple[str, bool]:
    """(the report, whether all is well)."""
    return said(judged(address, key, ca_file)[0])


def said(lines: Sequence[Line]) -> tuple[str, bool]:
    text = "\n".join(f"{line.level:<8}{line.text}" for line in lines)
    return text, all(line.level == "ok" for line in lines)
