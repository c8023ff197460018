"""`/api/v1/query_log`: which queries were asked, newest first.

Invariant: a tenant sees its own; another's, or `*` for everybody's, needs a key of scope admin.
"""

from pathlib import Path

import msgspec

from sluiceway.clock import Clock
from sluiceway.errors import TenantFault
from sluiceway.query.api.parameters import Parameters, invalid
from sluiceway.query.api.prometheus import Data, Request
from sluiceway.query.querylog.reader import LIMIT_MAX, Wanted, read
from sluiceway.query.querylog.writer import QueryLog

LIMIT = 100
EVERYBODY = "*"


class QueryLogApi:
    """The endpoint. Any thread."""

    def __init__(self, root: Path, log: QueryLog | None, clock: Clock) -> None:
        """`log`: the writer of this process, whose newest entries are told as well."""
        self._root = root
        self._log = log
        self._clock = clock

    def queries(self, request: Request) -> Data:
        parameters = request.parameters
        wanted = Wanted(
            tenant=self._tenant(request),
            since_ms=parameters.time_ms("since", 0),
            until_ms=parameters.time_ms("until", 1 << 62),
            metric=parameters.text("metric") or None,
            label=parameters.text("label") or None,
            status=status_of(parameters),
            limit=parameters.count("limit", LIMIT_MAX) if parameters.text("limit") else LIMIT,
        )
        if self._log is not None:
            self._log.flush()
        found = read(self._root, wanted, self._log.pending() if self._log else iter(()))
        told = {"queries": found.entries, "damaged_lines": found.damaged_lines}
        return Data(msgspec.json.encode(told))

    def _tenant(self, request: Request) -> str | None:
        asker = request.asker
        named = request.parameters.text("tenant") or asker.tenant
        if named == asker.tenant:
            return named
        if not asker.sees_all:
            words = "another tenant's queries need a key of scope admin"
            raise TenantFault(403, "sluiceway-key-scope", words)
        return None if named == EVERYBODY else named


def status_of(parameters: Parameters) -> int | None:
    text = parameters.text("status")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) == 3):
        raise invalid("status", "must be an HTTP status")
    return int(text)
