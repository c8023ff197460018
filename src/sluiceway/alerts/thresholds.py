"""From where on a figure is an alarm: the same for `sluiceway status` and for the alerts.

Shares are of the limit that the figure has.
"""

JOURNAL_LAG_RECORDS = 10_000
PARTS_WARNING = 64
ROLLUP_LAG_S = 4 * 3600
OBJECTS_STALLED_S = 4 * 3600
SHARE_WARNING = 0.80
MEMORY_WARNING = 0.90
SERIES_WARNING = 0.90
DISK_ERROR = 0.90
READ_SIDE_RESTARTS = 2
"""In Recent's window."""
