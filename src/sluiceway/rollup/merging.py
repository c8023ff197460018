"""One warm file of several, and one written anew by rules of the boundary, by the kernel.

Invariant: each part gives the windows of the hours that it owns, and no others.
"""

from collections.abc import Sequence

import msgspec

from sluiceway.kernels import Disk, merge_warm, strip_warm_file
from sluiceway.rollup.interface import Rules, StripReport, WindowsReport
from sluiceway.tiers.catalog import Owned


class WarmMerger:
    """A Merger over one data directory."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def __call__(
        self, tenant: str, parts: Sequence[Owned], path: str, window_ms: int
    ) -> WindowsReport:
        request = {
            "tenant": tenant,
            "window_ms": window_ms,
            "path": path,
            "parts": [{"path": p.file.path, "owned_ms": p.ranges_ms} for p in parts],
        }
        text = merge_warm(self._disk, msgspec.json.encode(request).decode())
        return msgspec.json.decode(text, type=WindowsReport)


class WarmStripper:
    """A Stripper over one data directory."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def __call__(self, source: str, path: str, rules: Rules) -> StripReport:
        request = msgspec.json.encode({"rules": rules}).decode()
        text = strip_warm_file(self._disk, source, path, request)
        return msgspec.json.decode(text, type=StripReport)
