"""One warm file of several, and one written anew by rules of the boundary, by the kernel.

Invariant: each part gives the windows of the hours that it owns, and no others; none of them holds
a point that an order to delete takes, where orders are given.
"""

from collections.abc import Sequence

import msgspec

from sluiceway.kernels import Disk, merge_warm, strip_warm_file
from sluiceway.rollup.interface import Rules, StripReport, WindowsReport
from sluiceway.tiers.catalog import Owned
from sluiceway.tiers.manifest import Deletion


class WarmMerger:
    """A Merger over one data directory."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def __call__(
        self,
        tenant: str,
        parts: Sequence[Owned],
        path: str,
        window_ms: int,
        orders: Sequence[Deletion] = (),
    ) -> WindowsReport:
        taken = taken_by(orders)
        request = {
            "tenant": tenant,
            "window_ms": window_ms,
            "path": path,
            "parts": [
                {"path": p.file.path, "owned_ms": p.ranges_ms, "taken": taken} for p in parts
            ],
        }
        text = merge_warm(self._disk, msgspec.json.encode(request).decode())
        return msgspec.json.decode(text, type=WindowsReport)


class WarmStripper:
    """A Stripper over one data directory."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def __call__(self, source: str, path: str, rules: Rules, before: str) -> StripReport:
        request = msgspec.json.encode({"rules": rules, "before": before or None}).decode()
        text = strip_warm_file(self._disk, source, path, request)
        return msgspec.json.decode(text, type=StripReport)


def taken_by(orders: Sequence[Deletion]) -> list[dict[str, object]]:
    """Orders as the kernels go by them."""
    return [{"matchers": order.matchers, "before_ms": order.before_ms} for order in orders]
