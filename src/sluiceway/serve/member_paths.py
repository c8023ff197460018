"""What a member of the shards' group says of itself.

Invariant: it is ready while every partition that the group gave it is answered for; a spare member,
without any, is ready as soon as it has joined.
"""

import json
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from sluiceway.errors import TenantFault
from sluiceway.gateway.app import JSON, Own
from sluiceway.gateway.doors.interface import Answer
from sluiceway.gateway.keys import Scope as KeyScope
from sluiceway.gateway.receive import Scope
from sluiceway.journal.owners import Owner
from sluiceway.serve.member import Partitions
from sluiceway.serve.role_paths import RolePaths
from sluiceway.telemetry import Metrics


class Member(Protocol):
    """What journal/kafka/membership.py says and does."""

    @property
    def failure(self) -> str: ...

    def assigned(self) -> frozenset[int] | None: ...

    def leave(self) -> None: ...

    def join(self) -> None: ...


class MemberPaths(RolePaths):
    """See RolePaths."""

    role = "shard"

    def __init__(
        self,
        name: str,
        member: Member,
        partitions: Partitions,
        owners: Callable[[], list[Owner]],
        metrics: Metrics,
    ) -> None:
        super().__init__(metrics)
        self._name = name
        self._member = member
        self._partitions = partitions
        self._owners = owners

    def table(self) -> dict[str, tuple[Own, KeyScope | None]]:
        own: dict[str, tuple[Own, KeyScope | None]] = {
            "/admin/v1/shard/leave": (self.leave, "admin"),
            "/admin/v1/shard/join": (self.join, "admin"),
        }
        return {**super().table(), **own}

    async def leave(self, scope: Scope) -> Answer:
        """Have the others take our partitions; we stay as a spare that is given none."""
        return self._told(scope, self._member.leave)

    async def join(self, scope: Scope) -> Answer:
        """Take part again."""
        return self._told(scope, self._member.join)

    def _told(self, scope: Scope, act: Callable[[], None]) -> Answer:
        if scope["method"] != "POST":
            raise TenantFault(405, "sluiceway-method", "only POST is taken here")
        act()
        return Answer(200, JSON, json.dumps({"status": "success", "data": self.more()}).encode())

    def answered(self) -> frozenset[int]:
        """Partitions that this member's processes answer for."""
        own = (owner.partition for owner in self._owners() if owner.member == self._name)
        return frozenset(own) & frozenset(self._partitions.running())

    async def missing(self) -> str:
        assigned = self._member.assigned()
        if assigned is None:
            return self._member.failure or "the group is asked what is ours"
        if left := sorted(assigned - self.answered()):
            return f"partitions {left} are not answered for yet"
        return ""

    def collect(self) -> None:
        assigned = self._member.assigned() or frozenset()
        self.metrics.set("sluiceway_partitions_assigned", len(assigned))
        self.metrics.set("sluiceway_partitions_answered", len(self.answered() & assigned))
        self.metrics.set("sluiceway_partitions_leaving", len(self._partitions.leaving()))
        self.metrics.set("sluiceway_partition_starts_total", self._partitions.starts)

    def more(self) -> dict[str, Any]:
        assigned = self._member.assigned()
        return {
            "member": self._name,
            "assigned": None if assigned is None else sorted(assigned),
            "running": self._partitions.running(),
            "leaving": self._partitions.leaving(),
            "not_served": self._partitions.too_many(),
            "owners": msgspec.to_builtins(self._owners()),
        }
