"""The published policy on its way into the shard.

Invariant: what the shard judges by becomes what is published, whatever failed in between; a version
of the shard is never lower than the published one that it stands for. No policy published leaves
the shard's own.
"""

import threading
from typing import Protocol

import msgspec
import structlog

from sluiceway.errors import SluicewayError
from sluiceway.governance.policy import Policy
from sluiceway.tenants.model import PolicyInForce, Snapshot

RETRY_S = 1.0
log = structlog.get_logger()


class Judging(Protocol):
    """What judges by a policy: the hot shard."""

    def policy(self) -> tuple[int, Policy]: ...
    def change_policy(self, policy: Policy, version_min: int = 0) -> int: ...


class PolicyFollower:
    """Told of snapshots on any thread; changes the shard's policy on a thread of its own."""

    def __init__(self, shard: Judging) -> None:
        self._shard = shard
        self._wanted: PolicyInForce | None = None
        self._told = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self.pending = False
        """Published and not in force yet."""

    def take(self, snapshot: Snapshot) -> None:
        """Any thread; never blocks."""
        if snapshot.policy is not None and snapshot.policy != self._wanted:
            self._wanted = snapshot.policy
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
        wanted = self._wanted
        made = None
        if wanted is not None:
            policy = msgspec.convert(wanted.policy, Policy)
            version, held = self._shard.policy()
            if version < wanted.version or held != policy:
                made = self._shard.change_policy(policy, wanted.version)
            self.pending = self._wanted is not wanted
        return made

    def _run(self) -> None:
        while True:
            self._told.wait()
            if self._stopping:
                return
            self._told.clear()
            try:
                version = self.step()
                if version is not None:
                    log.info("policy_taken", version=version)
            except (SluicewayError, OSError, msgspec.ValidationError) as error:
                log.error("policy_not_taken", error=str(error))
                threading.Timer(RETRY_S, self._told.set).start()
