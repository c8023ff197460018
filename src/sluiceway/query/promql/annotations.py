"""Warnings and infos of one query, in Prometheus' words, each with its place in the text.

Invariant: every annotation is told once, however many series or steps cause it; at most
`ANNOTATIONS_MAX` of a kind are kept.
"""

from sluiceway.query.promql.faults import line_and_column

ANNOTATIONS_MAX = 50


class Annotations:
    def __init__(self, text: str) -> None:
        self._text = text
        self._warnings: dict[str, None] = {}
        self._infos: dict[str, None] = {}
        # Apart: that an answer lags must be told, however much else is.
        self._passed_on: dict[str, None] = {}
        self._told: dict[str, None] = {}

    @property
    def warnings(self) -> list[str]:
        return [*self._passed_on, *self._warnings]

    @property
    def infos(self) -> list[str]:
        return [*self._told, *self._infos]

    def warn(self, message: str, start: int) -> None:
        """A warning about what stands at `start` in the text."""
        if len(self._warnings) < ANNOTATIONS_MAX:
            where = line_and_column(self._text, start)
            self._warnings[f"PromQL warning: {message} ({where})"] = None

    def inform(self, message: str, start: int) -> None:
        """An info about what stands at `start` in the text."""
        if len(self._infos) < ANNOTATIONS_MAX:
            where = line_and_column(self._text, start)
            self._infos[f"PromQL info: {message} ({where})"] = None

    def pass_on(self, message: str) -> None:
        """A warning of the shard, as it is."""
        if len(self._passed_on) < ANNOTATIONS_MAX:
            self._passed_on[message] = None

    def tell(self, message: str) -> None:
        """An info of the tiers, as it is."""
        if len(self._told) < ANNOTATIONS_MAX:
            self._told[message] = None
