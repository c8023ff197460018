"""The boundary between tiers: what windows lose on their way, by the policy in force.

Invariant: what was read is what should be stripped, counted series by series and point by point;
the file that is made was read back. Nothing rests on it until the catalog names it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec
import structlog

from sluiceway.errors import Corruption
from sluiceway.governance.boundary import rules_of, sketches_of
from sluiceway.governance.policy import Policy
from sluiceway.kernels import Disk
from sluiceway.rollup.interface import Rules, Sketched, Stripper
from sluiceway.tiers.catalog import Tier, TierFile


@dataclass(frozen=True, slots=True)
class Boundary:
    """Of one data directory."""

    disk: Disk
    policy: Callable[[], tuple[int, Policy]]
    strip: Stripper

    def rules(self, tenant: str, tier: Tier) -> Rules:
        """What a tenant's windows lose when they move to a tier."""
        return rules_of(self.policy()[1], tenant, tier)

    def sketched(self, tenant: str) -> Sketched:
        """Series of a tenant of which windows get sketches."""
        return sketches_of(self.policy()[1], tenant)

    def stripped(self, tenants: Iterable[str]) -> frozenset[str]:
        """Those whose windows lose something on their way to warm."""
        policy = self.policy()[1]
        return frozenset(name for name in tenants if rules_of(policy, name, "warm"))

    def pass_file(self, source: TierFile, path: str, rules: Rules, before: str = "") -> TierFile:
        """The file anew at `path`, which is free; its folds count on from the warm file `before`,
        if that is given. Raises: Corruption; it is gone then."""
        report = self.strip(source.path, path, rules, before)
        if (report.series_before, report.points_before) != (source.series, source.points):
            self.disk.remove(path)
            raise Corruption(f"{source.path}: {source} was to be stripped, {report} was read")
        told = {"series_before": report.series_before, "series": report.file.series}
        structlog.get_logger("rollup").info(
            "boundary_passed", tenant=source.tenant, path=path, **told
        )
        return msgspec.structs.replace(
            source,
            path=path,
            bytes=report.file.bytes,
            crc32=report.file.crc32,
            series=report.file.series,
            windows=report.file.windows,
            points=report.file.points,
            folded=report.file.folded,
            sketches=report.file.sketches,
            remote=False,
            object="",
        )


def unstripped(path: str) -> str:
    """Beside a file, one that no catalog ever names: gone with the task, or at the next open."""
    return f"{path}.part"
