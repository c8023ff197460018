"""Settings of the tiers: `[tiers]` in the configuration file, SLUICEWAY_TIERS__... in the
environment.

Invariant: nothing is rolled, and no raw point goes, for a tenant whose plan has no retention of
minutes or hours; these settings say when and how for those that have one.
"""

from dataclasses import dataclass, field

from sluiceway.rollup.cron import parse_cron
from sluiceway.tiers.paths import DAY_MS

CONTINUOUS = "continuous"
AGE_DAYS_MAX = 255
"""As the journal's records hold it."""


@dataclass(frozen=True)
class TiersConfig:
    """How raw points move on."""

    raw_ms: int = 15 * DAY_MS
    """Raw points of tenants with tiers are kept for at least so long, and then until they are
    rolled up; older ones are refused as `too_old`. Whole days."""
    delay_s: float = 600.0
    """After an hour's end, before it is rolled: points that come later are rolled again."""
    grace_s: float = 900.0
    """Between the commit that makes a file or a raw block superfluous and its unlink: longer than
    any query takes."""
    reroll_s_min: float = 3_600.0
    """Hours of a day that got late points are rolled again at most so often."""
    schedule: str = CONTINUOUS
    """`continuous`, or when to begin, as five fields of cron in UTC: minute hour day month
    weekday. Once begun, it goes on until nothing is left to do."""

    objects_url: str | None = None
    """Where settled files go: `s3://bucket/prefix`, `file:///directory`, ...; no other data
    directory may write there. None: they stay here."""
    objects_options: dict[str, str] = field(default_factory=dict)
    """Of the store, as obstore names them: endpoint, region, access_key_id ..."""
    local_bytes_max: int = 4 << 30
    """Copies of files on the store that the rollup keeps here."""
    cache_bytes_max: int = 4 << 30
    """Files of the store that queries have fetched."""

    def check(self) -> None:
        """Raises: ValueError."""
        if self.raw_ms < DAY_MS or self.raw_ms % DAY_MS:
            raise ValueError("tiers.raw_ms: whole days, in milliseconds")
        if self.raw_ms > AGE_DAYS_MAX * DAY_MS:
            raise ValueError(f"tiers.raw_ms: at most {AGE_DAYS_MAX} days")
        for name in ("delay_s", "grace_s", "reroll_s_min"):
            if getattr(self, name) < 0:
                raise ValueError(f"tiers.{name}: not below 0")
        if self.schedule != CONTINUOUS:
            parse_cron(self.schedule)

    @property
    def age_days(self) -> int:
        return self.raw_ms // DAY_MS
