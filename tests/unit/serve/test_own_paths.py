"""What the write side answers itself: figures by name, two expositions as one."""

from sluiceway.serve.own_paths import merge_texts, set_worker_figures
from sluiceway.telemetry import Metrics


def test_expositions_are_merged_by_name() -> None:
    first = b'# HELP a A.\n# TYPE a gauge\na{side="w"} 1\n# TYPE b gauge\nb 2\n'
    second = b'# HELP a A.\n# TYPE a gauge\na{side="r"} 3\n# TYPE c gauge\nc 4\n'
    assert merge_texts(first, second).decode().splitlines() == [
        "# HELP a A.",
        "# TYPE a gauge",
        'a{side="w"} 1',
        'a{side="r"} 3',
        "# TYPE b gauge",
        "b 2",
        "# TYPE c gauge",
        "c 4",
    ]


def test_only_listed_figures_become_metrics() -> None:
    metrics = Metrics()
    stats = {
        "series": 7,
        "shard": {"series": 9},
        "failure": None,
        "other": 3,
        "points": {"stored": 5, "rejected": 1},
    }
    set_worker_figures(metrics, stats)
    assert metrics.value("sluiceway_series") == 7
    assert metrics.value("sluiceway_points_total", ("stored",)) == 5
    assert b"other" not in metrics.render()
