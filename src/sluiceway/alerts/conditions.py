"""What each rule looks for: small functions from what was judged to findings.

Invariant: pure; findings of what belongs to a tenant carry the label `tenant`, the others are the
installation's and for admins only.
"""

from collections.abc import Callable, Iterable

from sluiceway.alerts.facts import Explanation, Exploding, Judged, TenantCounter
from sluiceway.alerts.state import Finding
from sluiceway.governance.nearness import BudgetRow
from sluiceway.governance.policy import Limit

Condition = Callable[[Judged], Iterable[Finding]]
WORD_MAX = 100
SUMMARY_MAX = 1_000


def finding(value: float, summary: str, **labels: str) -> Finding:
    return Finding(tuple(sorted(labels.items())), value, summary[:SUMMARY_MAX])


def not_ready(judged: Judged) -> Iterable[Finding]:
    if not judged.facts.ready:
        yield finding(0.0, f"not ready: {judged.facts.missing}")


def over(name: str, limit: float, words: str) -> Condition:
    """A figure past a limit; `words` says which with {0}."""

    def condition(judged: Judged) -> Iterable[Finding]:
        value = float(judged.facts.figures.get(name, 0))
        if value > limit:
            yield finding(value, words.format(f"{value:,.0f}"))

    return condition


def grew(name: str, words: str, by: float = 0) -> Condition:
    """A counter of the house that grew by more than `by` lately."""

    def condition(judged: Judged) -> Iterable[Finding]:
        value = float(judged.facts.recent.get(name, 0))
        if value > by:
            yield finding(value, words.format(f"{value:,.0f}"))

    return condition


def share(name: str, of: str, limit: float, words: str) -> Condition:
    """A figure past a share of another; nothing where that is 0, for then there is no limit."""

    def condition(judged: Judged) -> Iterable[Finding]:
        figures = judged.facts.figures
        most = float(figures.get(of, 0))
        value = float(figures.get(name, 0)) / most if most else 0.0
        if value > limit:
            yield finding(value, words.format(f"{value:.0%}"))

    return condition


def memory(limit: float) -> Condition:
    def condition(judged: Judged) -> Iterable[Finding]:
        for side, (used, most) in judged.facts.memory.items():
            if most and used / most > limit:
                words = f"the {side} side's memory: {used / most:.0%} of its limit"
                yield finding(used / most, words, side=side)

    return condition


def ledger_gap(judged: Judged) -> Iterable[Finding]:
    for equation, gap in judged.facts.ledger_gaps.items():
        if gap:
            words = f"the ledger's equation {equation} misses {gap:,.0f} points"
            yield finding(gap, words, equation=equation)


def tenant_grew(what: str, words: str) -> Condition:
    """A tenant's counter that grew lately; by reason, where it is counted by one."""

    def condition(judged: Judged) -> Iterable[Finding]:
        found = [(key, grown) for key, grown in judged.grown.items() if key[0] == what and grown]
        for key, grown in sorted(found, key=lambda item: (-item[1], item[0])):
            told = f"{key[1]}: {words.format(f'{grown:,.0f}')}{culprit_words(judged, key)}"
            yield finding(grown, told, **named(key))

    return condition


def named(key: TenantCounter) -> dict[str, str]:
    names = ("tenant", "reason") if key[0] == "refused" else ("tenant", "budget")
    return dict(zip(names, key[1:], strict=False))


def budgets(judge: Callable[[str, int, Limit], float | None], words: str) -> Condition:
    """Budgets of which a part, `active` or `new`, is as `judge` says, with the value to tell."""

    def condition(judged: Judged) -> Iterable[Finding]:
        for row in judged.facts.budgets.budgets:
            for of, count, limit in parts(row):
                value = judge(of, count, limit)
                if value is not None:
                    told = words.format(of=of, count=f"{count:,}", soft=limit.soft, hard=limit.hard)
                    summary = f"{row.tenant}: budget {row.budget}: {told}"
                    summary += culprit_words(judged, ("", row.tenant, row.budget))
                    yield finding(value, summary, tenant=row.tenant, budget=row.budget, of=of)

    return condition


def parts(row: BudgetRow) -> tuple[tuple[str, int, Limit], ...]:
    return (
        ("active", row.active_series, row.active_limit),
        ("new", row.new_series, row.new_limit),
    )


def past_soft(of: str, count: int, limit: Limit) -> float | None:
    return float(count) if limit.soft is not None and count > limit.soft else None


def near_hard(nearness: float) -> Callable[[str, int, Limit], float | None]:
    def judge(of: str, count: int, limit: Limit) -> float | None:
        if limit.hard is None:
            return None
        value = count / limit.hard if limit.hard else float(count)
        return value if value > nearness else None

    return judge


def spend(of: str, level: str, words: str) -> Condition:
    """Tenants whose month, `spent` or `forecast`, is past a `soft` or `hard` limit."""

    def condition(judged: Judged) -> Iterable[Finding]:
        note = judged.facts.spending
        for tenant, money in note.tenants.items():
            value, limit = getattr(money, of), getattr(money, level)
            if limit is not None and value > limit:
                told = words.format(f"{value:,.2f}", f"{limit:,.0f}", note.currency)
                yield finding(value, f"{tenant}: {told}", tenant=tenant)

    return condition


def exploding(judged: Judged) -> Iterable[Finding]:
    for tenant in judged.exploding:
        why = judged.explanations.get(tenant.tenant, Explanation())
        words = explosion_words(tenant, why)
        yield finding(tenant.series_per_min, words, tenant=tenant.tenant)


def explosion_words(of: Exploding, why: Explanation) -> str:
    usual = f"{of.usual_per_min:,.0f}" if of.usual_per_min else "hardly any"
    words = f"{of.tenant}: {of.series_per_min:,.0f} new series in a minute, usual are {usual}"
    if not why.metric:
        return words
    words = f"{words}; {cut(why.metric)} has {why.new:,} new in this hour"
    return f"{words}, most by its tag {cut(why.tag)} ({cut(why.example)})" if why.tag else words


def culprit_words(judged: Judged, key: TenantCounter) -> str:
    """Which metric, tag and first writer pass this tenant's budget, where the shard tells."""
    why = judged.explanations.get(key[1], Explanation())
    for culprit in why.culprits:
        if key[2:] == (culprit.budget,):
            tag = f", most by its tag {cut(culprit.tag)} ({culprit.values:,} values)"
            writer = f", first sent by {cut(culprit.writer)}" if culprit.writer else ""
            return f"; {cut(culprit.metric)}{tag if culprit.tag else ''}{writer}"
    return ""


def cut(text: str) -> str:
    """A name or a value that a client chose."""
    return text if len(text) <= WORD_MAX else f"{text[:WORD_MAX]}…"
