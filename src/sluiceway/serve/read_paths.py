"""Which path of the read side goes where: the admin API's, or the query API's.

Invariant: an admin path without an admin's name is refused here too, whatever the gateway thought
of it. The admin API is imported by the first request that needs it, so that a server without
tenants never waits for it or pays its memory.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from sluiceway.query.api.app import Call, QueryApp, Reply, failure

if TYPE_CHECKING:
    from sluiceway.admin.app import AdminApp

ADMIN_PREFIX = "/admin/v1/"


class ReadPaths:
    """The application of the read side's server. Any thread."""

    def __init__(self, query: QueryApp, make_admin: "Callable[[], AdminApp] | None") -> None:
        """`make_admin` None: this process changes nothing."""
        self._query = query
        self._make_admin = make_admin
        self._admin: AdminApp | None = None
        self._making = threading.Lock()

    def answer(self, call: Call) -> Reply:
        if not call.path.startswith(ADMIN_PREFIX):
            return self._query.answer(call)
        actor = call.headers.get(b"x-sluiceway-actor")
        if actor is None:  # the gateway says it for admins alone, and no client can
            return failure(403, "bad_data", "not an admin's key (sluiceway-key-scope)")
        if self._make_admin is None:
            words = "records are changed at a process that holds them (sluiceway-role)"
            return failure(404, "not_found", words)
        with self._making:
            admin = self._admin = self._admin or self._make_admin()
        name = actor.decode("utf-8", "replace")
        told = admin.answer(call.method, call.path, call.query, call.body, name)
        return Reply(told.status, told.body, retry=told.status == 503)

    def withdraw(self, call: Call) -> None:
        """An act that has begun is finished: it is short, and half of it would be no act."""
        self._query.withdraw(call)
