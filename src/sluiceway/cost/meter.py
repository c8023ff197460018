"""Reads the meter: an hourly look at disk and counters, summed by day; closes months.

Invariant: only one meter writes a directory's files. What a look cannot tell (the shard is away) is
not guessed: the next look covers the time since the last one. A month is closed by the first look
after its end, and never opened again.
"""

import threading
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import msgspec
import structlog

from sluiceway.clock import Clock
from sluiceway.cost.files import CostFiles
from sluiceway.cost.forecast import forecast
from sluiceway.cost.plans import Plans, noted
from sluiceway.cost.prices import NANO, PriceSheet
from sluiceway.cost.report import Month, Sums, month_end_ms
from sluiceway.cost.spending import Budget, Spend, SpendNote
from sluiceway.cost.usage import Day, Readings, Sample, day_name, days_after
from sluiceway.cost.volumes import note
from sluiceway.errors import SluicewayError

FIRST_LOOK_S = 60.0
RETRY_S = 30.0
"""After a look that failed."""
log = structlog.get_logger()


Settled = tuple[list[tuple[str, tuple[int, int] | None]], Sums | None, list[str]]
"""Days with their files' stamps, their sums, and those among them that are damaged."""


class Looker(Protocol):
    """Takes a look: blocks, may raise SluicewayError and OSError. `since_ms`: of the queries."""

    def __call__(self, since_ms: int) -> Sample: ...


class Meter:
    """Sums looks into the day's file. One thread steps it; `bills` may be asked from any."""

    def __init__(
        self,
        files: CostFiles,
        look: Looker,
        sheet: PriceSheet,
        budgets: Callable[[], Mapping[str, Budget]],
        clock: Clock,
        included: Callable[[], Collection[str]] = tuple,
        plans: Callable[[], Plans] = Plans,
    ) -> None:
        """`included`: tenants whose plan includes a volume."""
        self._files = files
        self._look = look
        self.sheet = sheet
        self._budgets = budgets
        self._clock = clock
        self._included = included
        self._plans = plans
        self._stopping = threading.Event()
        self._adding = threading.Lock()
        self._settled: Settled = ([], None, [])

    def step(self) -> None:
        """One look, its day written, months closed, spending and volumes noted. Raises:
        SluicewayError, OSError."""
        last = self.last_day()
        since_ms = self._clock.now_ms() if last is None else last.until_ms
        sample = self._look(since_ms)
        for day in days_after(last, sample):
            day.plans = noted(day.plans, self._plans())
            self._files.write_day(day)
        self._close_months(sample.at_ms)
        self._files.sweep()
        month = self.month(day_name(sample.at_ms)[:7])
        self._note_spending(month, sample.at_ms)
        self._note_volumes(month, sample.at_ms, sample.readings)

    def last_day(self) -> Day | None:
        """The newest day that can be read."""
        for name in reversed(self._files.days()):
            if (day := self._files.read_day(name)) is not None:
                return day
        return None

    def month(self, name: str, fresh: Sample | None = None) -> Month:
        """A month's bill: the closed one, or of its days so far and of a look just taken."""
        closed = self._files.read_month(name, Month)
        if closed is not None:
            return closed
        with self._adding:
            last = self.last_day()
            sums, damaged = self._settled_days(name, last)
        open_days = {} if last is None else {last.day: last}
        if fresh is not None:
            open_days |= {day.day: day for day in days_after(last, fresh)}
        for _, day in sorted(open_days.items()):
            if day.month == name:
                sums.add(day)
        return sums.bill(damaged)

    def _settled_days(self, month: str, last: Day | None) -> tuple[Sums, list[str]]:
        """The sums of the days before the newest one: they are added up once and remembered, as
        long as their files stay as they are."""
        names = [name for name in self._files.days() if name[:7] == month]
        if last is not None:
            names = [name for name in names if name < last.day]
        stamps = [(name, self._files.stamp_of_day(name)) for name in names]
        known, sums, damaged = self._settled
        if sums is None or sums.month != month or stamps[: len(known)] != known:
            known, sums, damaged = [], Sums(month, self.sheet), []
        for name, stamp in stamps[len(known) :]:
            day = self._files.read_day(name)
            if day is None:
                damaged.append(name)
            else:
                sums.add(day)
            known.append((name, stamp))
        self._settled = (known, sums, damaged)
        return sums.copy(), damaged.copy()

    def months(self) -> list[str]:
        """Months that there is something of, ascending."""
        return sorted({*self._files.months(), *(day[:7] for day in self._files.days())})

    def _close_months(self, now_ms: int) -> None:
        this, closed = day_name(now_ms)[:7], set(self._files.months())
        for name in sorted({day[:7] for day in self._files.days()} - closed):
            if name < this:
                month = msgspec.structs.replace(self.month(name), closed_ms=now_ms)
                if self._files.close_month(name, month):
                    log.info("month_closed", month=name, money=month.nano / NANO)

    def _note_volumes(self, month: Month, now_ms: int, readings: Readings) -> None:
        told = note(month.month, now_ms, month.volumes, readings, self._included())
        self._files.write_volumes(told)

    def _note_spending(self, month: Month, now_ms: int) -> None:
        name, budgets = month.month, self._budgets()
        spent: dict[str, int] = {}
        for line in month.lines:
            spent[line.tenant] = spent.get(line.tenant, 0) + line.nano
        told = {}
        for tenant, budget in budgets.items():
            so_far = spent.get(tenant, 0) / NANO
            ahead = forecast(
                month.days,
                so_far,
                month.until_ms,
                month_end_ms(name),
                lambda day, tenant=tenant: day.by_tenant.get(tenant, 0.0),  # type: ignore[misc]
            )
            told[tenant] = Spend(so_far, ahead.money, budget.soft, budget.hard)
        self._files.write_spend(SpendNote(name, month.currency, now_ms, told))

    def start(self, interval_s: float) -> None:
        """Step on a thread of its own until `stop`."""
        threading.Thread(target=self._run, args=(interval_s,), name="cost", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def _run(self, interval_s: float) -> None:
        # Not at once: the first look of a life reads pages of many blocks, and a start is busy.
        self._stopping.wait(min(interval_s, FIRST_LOOK_S))
        while not self._stopping.is_set():
            try:
                self.step()
                wait_s = interval_s
            except (SluicewayError, OSError) as error:
                log.warning("meter_not_read", error=str(error))
                wait_s = min(interval_s, RETRY_S)
            self._stopping.wait(wait_s)
