"""Bodies that no decoder could read, kept raw for people: what did that agent send?

Invariant: noting never blocks and never fails a request; what is on the disk stays within the
limits, of all and of each tenant, and nobody but its sender's tenant and admins is told of it.
Layout: docs/formats/deadletters.md.
"""

import queue
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import msgspec
import structlog

from sluiceway.clock import Clock
from sluiceway.errors import TenantFault
from sluiceway.tenants.model import directory_name

SUFFIX = ".body"
WAITING_MAX = 32
"""Bodies on their way to the disk; more are passed over, and counted."""
TEXT_MAX = 500
DAY_MS = 86_400_000
HEAD_BYTES_MAX = 16 << 10
log = structlog.get_logger()


@dataclass(frozen=True)
class BodyLimits:
    """How much is kept."""

    bytes_max: int = 16 << 20
    tenant_bytes_max: int = 4 << 20
    body_bytes_max: int = 256 << 10
    """Of a longer body the beginning is kept."""
    tenant_per_minute_max: int = 10
    days_max: int = 7


class UnreadBody(msgspec.Struct, frozen=True):
    """What is known of one. `number` names it."""

    number: int
    time_ms: int
    tenant: str
    door: str
    id: str
    """The stable id that the sender was told, and `message` the words."""
    message: str
    bytes: int
    kept_bytes: int
    key: str = ""
    address: str = ""
    agent: str = ""
    content_type: str = ""
    content_encoding: str = ""


@dataclass(slots=True)
class _Held:
    """What lies on the disk: bytes by number, by tenant, oldest first."""

    sizes: dict[str, dict[int, int]] = field(default_factory=dict)

    def of(self, tenant: str) -> int:
        return sum(self.sizes.get(tenant, {}).values())

    def all(self) -> int:
        return sum(map(self.of, self.sizes))

    def largest(self) -> str:
        """Whose oldest goes; of those that hold about as much, who has the oldest."""
        return max(self.sizes, key=lambda tenant: (self.of(tenant) >> 12, -min(self.sizes[tenant])))


class UnreadableBodies:
    """The bodies below a directory. `note` is any thread's; files are written on one of its own."""

    def __init__(self, root: Path, limits: BodyLimits, clock: Clock) -> None:
        """Reads the directory's names. Raises: OSError."""
        self._root = root
        self._limits = limits
        self._clock = clock
        self._waiting: queue.Queue[tuple[UnreadBody, bytes] | None] = queue.Queue(WAITING_MAX)
        self._counting = threading.Lock()
        self._minute = 0
        self._noted: Counter[str] = Counter()
        self._held = _Held()
        self._newest = 0
        self.passed_over = 0
        self._thread: threading.Thread | None = None
        for place in sorted(root.glob(f"*/*{SUFFIX}")):
            sizes = self._held.sizes.setdefault(unquote(place.parent.name), {})
            sizes[int(place.stem)] = place.stat().st_size
            self._newest = max(self._newest, int(place.stem))

    def note(self, body: bytes, facts: UnreadBody) -> None:
        """Keep a body, if there is room; `facts` without number, time and sizes."""
        now_ms = self._clock.now_ms()
        with self._counting:
            if now_ms // 60_000 != self._minute:
                self._minute = now_ms // 60_000
                self._noted.clear()
            self._noted[facts.tenant] += 1
            if self._noted[facts.tenant] > self._limits.tenant_per_minute_max:
                self.passed_over += 1
                return
            self._newest += 1
            number = self._newest
        kept = body[: self._limits.body_bytes_max]
        whole = msgspec.structs.replace(
            facts,
            number=number,
            time_ms=now_ms,
            bytes=len(body),
            kept_bytes=len(kept),
            message=facts.message[:TEXT_MAX],
        )
        try:
            self._waiting.put_nowait((whole, kept))
        except queue.Full:
            self.passed_over += 1

    # --- the writer's thread --------------------------------------------------------------------

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="unreadable-bodies", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, and end. Blocks."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(5.0)

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            self.write(*item)

    def write(self, facts: UnreadBody, kept: bytes) -> None:
        """One file, and room for it. Never raises: nobody depends on it."""
        place = self._place(facts.tenant, facts.number)
        data = msgspec.json.encode(facts) + b"\n" + kept
        try:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.write_bytes(data)
            place.chmod(0o600)
            self._held.sizes.setdefault(facts.tenant, {})[facts.number] = len(data)
            self._make_room(facts.tenant)
            self._forget_old()
        except OSError as error:
            self.passed_over += 1
            log.warning("unreadable_body_not_kept", error=str(error))

    def _make_room(self, tenant: str) -> None:
        while self._held.of(tenant) > self._limits.tenant_bytes_max:
            self._remove_oldest(tenant)
        while self._held.all() > self._limits.bytes_max:
            self._remove_oldest(self._held.largest())

    def _forget_old(self) -> None:
        horizon_s = (self._clock.now_ms() - self._limits.days_max * DAY_MS) / 1000
        for tenant in list(self._held.sizes):
            while numbers := self._held.sizes.get(tenant):
                oldest = self._place(tenant, min(numbers))
                if oldest.exists() and oldest.stat().st_mtime >= horizon_s:
                    break
                self._remove_oldest(tenant)

    def _remove_oldest(self, tenant: str) -> None:
        numbers = self._held.sizes[tenant]
        number = min(numbers)
        self._place(tenant, number).unlink(missing_ok=True)
        del numbers[number]
        if not numbers:
            del self._held.sizes[tenant]

    def forget(self, tenant: str) -> None:
        """All of a tenant's: it is being deleted. Any thread; blocks. Raises: OSError."""
        for place in (self._root / directory_name(tenant)).glob(f"*{SUFFIX}"):
            place.unlink(missing_ok=True)

    # --- telling --------------------------------------------------------------------------------

    def told(self, tenant: str | None, limit: int) -> list[UnreadBody]:
        """The newest, of one tenant or of all. Blocks."""
        folder = "*" if tenant is None else directory_name(tenant)
        places = sorted(self._root.glob(f"{folder}/*{SUFFIX}"), key=lambda p: -int(p.stem))
        found = (_read(place) for place in places[:limit])
        return [one[0] for one in found if one is not None]

    def read(self, tenant: str | None, number: int) -> bytes:
        """The bytes that were kept of one. Blocks. Raises: TenantFault 404."""
        folder = "*" if tenant is None else directory_name(tenant)
        for place in self._root.glob(f"{folder}/{number:012d}{SUFFIX}"):
            found = _read(place)
            if found is not None:
                return found[1]
        raise TenantFault(404, "sluiceway-deadletters-body", f"there is no body {number}")

    def _place(self, tenant: str, number: int) -> Path:
        return self._root / directory_name(tenant) / f"{number:012d}{SUFFIX}"


def _read(place: Path) -> tuple[UnreadBody, bytes] | None:
    """None where it went meanwhile, or is no file of ours."""
    try:
        head, _, body = place.read_bytes().partition(b"\n")
        return msgspec.json.decode(head, type=UnreadBody), body
    except (OSError, msgspec.MsgspecError):
        return None
