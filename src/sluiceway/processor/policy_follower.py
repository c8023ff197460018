"""The published policy, and the limits of plans, on their way into the shard.

Invariant: what the shard judges by becomes what is published, whatever failed in between; a version
of the shard is never lower than the published one that it stands for. No policy published leaves
the shard's own. An override's end is seen within `LOOK_S`.
"""

import threading
from typing import Protocol

import msgspec
import structlog

from sluiceway.clock import Clock
from sluiceway.errors import SluicewayError
from sluiceway.governance.plans import changes_ms, stated, with_plans
from sluiceway.governance.policy import Policy
from sluiceway.tenants.model import Snapshot

RETRY_S = 1.0
LOOK_S = 0.5
log = structlog.get_logger()


class Judging(Protocol):
    """What judges by a policy: the hot shard."""

    def policy(self) -> tuple[int, Policy]: ...
    def change_policy(self, policy: Policy, version_min: int = 0) -> int: ...


class PolicyFollower:
    """Told of snapshots on any thread; changes the shard's policy on a thread of its own."""

    def __init__(self, shard: Judging, clock: Clock) -> None:
        self._shard = shard
        self._clock = clock
        self._wanted: Snapshot | None = None
        self._until_ms: int | None = None
        self._told = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self.pending = False
        """Published and not in force yet."""

    def take(self, snapshot: Snapshot) -> None:
        """Any thread; never blocks."""
        self._wanted = snapshot
        self.pending = True
        self._told.set()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="sluiceway-policy", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Blocks for a change that has begun."""
        self._stopping = True
        self._told.set()
        if self._thread is not None:
            self._thread.join()

    def step(self) -> int | None:
        """Bring the shard up to date; the version that it then has, None where it had it already.

        Raises: OSError, BackendUnavailable, ValidationError (a policy of a newer build).
        """
        wanted, now_ms = self._wanted, self._clock.now_ms()
        if wanted is None:
            return None
        made, published = None, wanted.policy
        version, held = self._shard.policy()
        version_min = 0 if published is None else published.version
        written = stated(held) if published is None else msgspec.convert(published.policy, Policy)
        policy = with_plans(written, wanted, now_ms)
        if version < version_min or held != policy:
            made = self._shard.change_policy(policy, version_min)
        self._until_ms = changes_ms(wanted, now_ms)
        self.pending = self._wanted is not wanted
        return made

    def _due(self) -> bool:
        """Wait until there is something to do, or a while; is there?"""
        if self._told.wait(LOOK_S):
            return True
        return self._until_ms is not None and self._clock.now_ms() >= self._until_ms

    def _run(self) -> None:
        while True:
            due = self._due()
            if self._stopping:
                return
            if not due:
                continue
            self._told.clear()
            try:
                version = self.step()
                if version is not None:
                    log.info("policy_taken", version=version)
            except (SluicewayError, OSError, msgspec.ValidationError) as error:
                log.error("policy_not_taken", error=str(error))
                threading.Timer(RETRY_S, self._told.set).start()
