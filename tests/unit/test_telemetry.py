"""Our own metrics: the list, and the text that Prometheus reads."""

from typing import get_args

import pytest

from sluiceway.telemetry import DEFINITIONS, MetricName, Metrics, TenantLabels


def test_every_name_has_a_definition() -> None:
    assert set(get_args(MetricName)) == set(DEFINITIONS)
    for name, definition in DEFINITIONS.items():
        assert name.startswith("sluiceway_")
        assert (definition.kind == "counter") == name.endswith("_total")


def test_text() -> None:
    metrics = Metrics()
    metrics.count("sluiceway_write_refused_unread_total", ('a"\\\n',))
    metrics.count("sluiceway_write_refused_unread_total", ('a"\\\n',), 2)
    metrics.observe("sluiceway_write_ack_seconds", 0.003)
    text = metrics.render().decode()
    assert 'sluiceway_write_refused_unread_total{reason="a\\"\\\\\\n"} 3\n' in text
    assert 'sluiceway_write_ack_seconds_bucket{le="0.002"} 0\n' in text
    assert 'sluiceway_write_ack_seconds_bucket{le="0.005"} 1\n' in text
    assert "sluiceway_write_ack_seconds_count 1\n" in text
    assert "# TYPE sluiceway_write_ack_seconds histogram" in text


def test_an_unlisted_name_or_label_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        Metrics().count("sluiceway_other_total")  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        Metrics().count("sluiceway_write_refused_unread_total")


def test_tenants_as_labels_are_bounded() -> None:
    labels = TenantLabels(2)
    assert [labels.of(t) for t in ("a", "b", "c", "a", "d")] == [
        "a",
        "b",
        "(other)",
        "a",
        "(other)",
    ]
