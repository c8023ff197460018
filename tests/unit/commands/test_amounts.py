"""Limits and documents as people write them, and differences as people read them."""

from pathlib import Path

import pytest

from sluiceway.commands.amounts import amount, assignments, duration_ms
from sluiceway.commands.documents import read_documents
from sluiceway.commands.tables import diff_lines, tenant_lines


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("write.points_per_s", "100k", 100_000),
        ("write.points_per_s", "1.5M", 1_500_000),
        ("write.points_per_s", "1_000", 1_000),
        ("write.points_per_s", "unlimited", None),
        ("write.body_bytes_max", "16MiB", 16 << 20),
        ("write.body_bytes_max", "16MB", None),
        ("retention.raw_ms", "15d", 15 * 86_400_000),
        ("query.timeout_ms_max", "1m30s", 90_000),
        ("query.timeout_ms_max", "250", 250),
        ("write.over_rate", "refuse", "refuse"),
    ],
)
def test_amounts(name: str, text: str, value: object) -> None:
    if text == "16MB":  # neither 10**6 nor 2**20: said in full or not at all
        with pytest.raises(ValueError):
            amount(name, text)
    else:
        assert amount(name, text) == value


def test_assignments() -> None:
    patch, inherited, scale = assignments(
        ["write.points_per_s=100k", "query.series_max=inherit", "write.bytes_per_s=+50%"]
    )
    assert patch == {"write": {"points_per_s": 100_000}}
    assert (inherited, scale) == (["query.series_max"], {"write.bytes_per_s": 1.5})
    for text in ("points_per_s=1", "write.points_per_s", "write.points_per_s=many"):
        with pytest.raises(ValueError):
            assignments([text])
    for text in ("", "1x", "d", "1d1", "-1d"):
        with pytest.raises(ValueError):
            duration_ms(text)


def test_documents_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "gold.yaml").write_text(
        "kind: plan\nname: gold\nlimits: {retention: {raw_ms: 15d}}\n"
        'prices: {points_million: "0.1"}\n'
    )
    (tmp_path / "tenants.yml").write_text(
        "kind: tenant\nname: a\nplan: gold\n---\n"
        "kind: tenant\nname: b\nlimits: {write: {points_per_s: 5}}\n"
    )
    (tmp_path / "README.md").write_text("kind: nothing")
    found = read_documents(tmp_path)
    assert found["plans"][0]["limits"] == {"retention": {"raw_ms": 15 * 86_400_000}}
    assert [tenant["name"] for tenant in found["tenants"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: a", "kind"),
        ("- a", "kind"),
        ("kind: tenant\nlimits: 5", "limits"),
        ("kind: tenant\nlimits: {write: 5}", "limits.write"),
        ("kind: plan\nprices: {points_million: 0.1}", "quotes"),
        ("kind: [", "while parsing"),
        ("kind: tenant\nname: a\nname: b", "line 3: 'name' is given twice"),
        ("kind: plan\nlimits: {write: {}, write: {}}", "'write' is given twice"),
        ("kind: tenant\nname: a\n---\n- {a: 1, a: 2}", "line 4: 'a' is given twice"),
        (
            "kind: tenant\nlimits: {write: {points_per_s: 010}}",
            "line 2: 010 is not read as it looks",
        ),
        ("kind: tenant\nlimits: {write: {points_per_s: 1:30}}", "line 2: 1:30 is not read"),
        ("!!python/object/apply:os.system [true]", "constructor"),
    ],
)
def test_a_bad_document_is_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        read_documents(tmp_path)
    assert "bad.yaml" in str(caught.value)


def test_anchors_and_merges_are_yaml(tmp_path: Path) -> None:
    text = "kind: plan\nname: a\nlimits: {write: &w {points_per_s: 5}, query: {<<: [*w, *w]}}"
    (tmp_path / "a.yaml").write_text(text)
    assert read_documents(tmp_path)["plans"][0]["limits"]["query"] == {"points_per_s": 5}


def test_a_diff_reads_as_one() -> None:
    fields = [
        {"name": "limits.write.points_per_s", "before": 100_000, "after": None},
        {"name": "limits.query.series_max", "after": 5},
    ]
    changes = [{"subject": "tenant/a", "creates": False, "fields": fields}]
    lines = diff_lines({"changes": changes, "unmanaged": ["tenant/b"], "applied": True})
    assert lines == [
        "~ tenant/a",
        "    limits.write.points_per_s: 100,000 -> unlimited",
        "    limits.query.series_max: inherit -> 5",
        "left alone: tenant/b",
    ]


def test_a_tenant_says_where_a_limit_comes_from() -> None:
    told = {
        "name": "a",
        "plan": "gold",
        "status": "active",
        "limits": {"write": {"points_per_s": 5}},
        "effective": {"write": {"points_per_s": 5, "bytes_per_s": 10, "requests_per_s": None}},
        "overrides": [],
        "keys": [],
    }
    lines = "\n".join(tenant_lines(told))
    assert "write.points_per_s  5    own" in lines
    assert "write.bytes_per_s   10   plan" in lines
    assert "requests_per_s" not in lines
