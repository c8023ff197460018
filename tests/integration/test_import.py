"""Import at a real server: an export's points and windows come to the same answers, text and a
Prometheus' too; what is taken again changes nothing, other series stay."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from fakes.server import Server
from fakes.transfer import (
    DAY_MS,
    frames_of,
    give_tiers,
    key_of,
    last_points_in,
    points_in,
    roll,
    run,
    tiered_server,
)

NOW_MS = int(time.time() * 1000)
TODAY_MS = NOW_MS // DAY_MS * DAY_MS
FIRST_MS = TODAY_MS - 4 * DAY_MS
SCRAPE_MS = 90_000
ASKED = (
    "sum by (s) (rate(import_requests_total[1h]))",
    "max by (s) (max_over_time(import_heat[2h]))",
    "count_over_time(import_requests_total[1h])",
    "import_heat",
)


def points(number: int, counter: bool) -> list[tuple[int, float]]:
    told, total = [], 0
    for k, time_ms in enumerate(range(FIRST_MS + 1, NOW_MS, SCRAPE_MS)):
        noise = (k * 7919 + number * 104_729) % 97
        total = 0 if noise == 13 else total + noise
        told.append((time_ms, float(total if counter else noise)))
    return told


def labels(name: str, number: int) -> dict[str, str]:
    return {"__name__": name, "i": str(number), "s": str(number % 2)}


SERIES = [
    (labels(name, number), points(number, name.endswith("total")))
    for number in range(3)
    for name in ("import_requests_total", "import_heat")
]
COUNT = sum(len(told) for _, told in SERIES)


def answers(server: Server) -> dict[str, Any]:
    told = {}
    for query in ASKED:
        span = {"start": FIRST_MS // 1000 + 7200, "end": TODAY_MS // 1000, "step": 3600}
        result = server.get("query_range", query=query, **span)["result"]
        told[query] = {json.dumps(row["metric"], sort_keys=True): row["values"] for row in result}
    return told


def test_only_the_keys_own_tenant_and_whole_texts_are_imported(tmp_path: Path) -> None:
    text, now_s = tmp_path / "some.om", NOW_MS // 1000
    text.write_text(f"some 1 {now_s - 60}\n# EOF\n")
    with Server(tmp_path / "server") as server:
        http = f"127.0.0.1:{server.port}"
        status, told = run("import", str(text), "--tenant", "neighbour", "--http", http)
        assert status == 1 and "--tenant neighbour: X-Scope-OrgID is not" in told, told
        # A time that was cut is another time.
        text.write_text(f"some 1 {now_s - 60}\nsome 2 {str(now_s - 30)[:-1]}")
        status, told = run("import", str(text), "--http", http)
        assert status == 1 and "cut off" in told, told
        text.write_text(f"some 1 {now_s - 60}\n# EOF\nsome 2 {now_s - 30}\n")
        status, told = run("import", str(text), "--http", http)
        assert status == 1 and "more behind" in told, told
        assert server.get("query", query="some", time=now_s)["result"] == []


def imported(server: Server, *arguments: str) -> dict[str, Any]:
    http = f"127.0.0.1:{server.port}"
    status, told = run("import", *arguments, "--http", http, "--json")
    assert status == 0, told
    return dict(json.loads(told[told.index("{") :]))


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Exports of a server while it had raw points, and after, and what it answered."""
    place = tmp_path_factory.mktemp("exports")
    with tiered_server(place / "data") as server:
        assert server.write(SERIES) == 204
        http, begin = f"127.0.0.1:{server.port}", str(FIRST_MS // 1000)
        assert run("export", "--http", http, "--from", begin, "-o", str(place / "raw"))[0] == 0
        text = ("--format", "openmetrics", "-o", str(place / "text"))
        assert run("export", "--http", http, "--from", begin, *text)[0] == 0
        told = answers(server)
        give_tiers(server)
        roll(server, FIRST_MS + 2 * DAY_MS)
        assert run("export", "--http", http, "--from", begin, "-o", str(place / "rolled"))[0] == 0
        assert answers(server) == told
    return place, told


@pytest.mark.parametrize("kind", ["raw", "text", "rolled"])
def test_an_import_answers_as_its_source_did(
    exports: tuple[Path, dict[str, Any]], tmp_path: Path, kind: str
) -> None:
    place, expected = exports
    with tiered_server(tmp_path / "data") as server:
        give_tiers(server)
        told = imported(server, str(place / kind))
        assert told["refused"] == {} and told["repeated"] == 0
        if kind == "rolled":
            assert told["windows"] > 1000 and told["points"] + told["window_points"] == COUNT
        else:
            assert told["points"] == COUNT == told["ingested"] + told["rolled"]
            assert told["days"]["warm"] == 4 and told["rolled"] > COUNT // 2
        assert answers(server) == expected
        # Again, and with others' series beside it: nothing changes but their own.
        other = tmp_path / "other"
        at_s = FIRST_MS // 1000 + 3600
        other.write_text(f"# TYPE o counter\no_total 1 {at_s}\no_total 5 {at_s + 60}\n# EOF\n")
        told = imported(server, str(other))
        assert (told["rolled"], told["replaced_windows"]) == (2, 0)
        again = imported(server, str(place / kind))
        assert again["replaced_windows"] > 1000
        assert answers(server) == expected
        grown = server.get("query", query="increase(o_total[1h])", time=at_s + 600)["result"]
        assert len(grown) == 1
        ledger = json.loads(server.call("GET", "/api/v1/ledger?raw_scan=1")[1])["data"]
        assert ledger["balanced"]
        # What was imported is what it exports.
        http, begin = f"127.0.0.1:{server.port}", str(FIRST_MS // 1000)
        match = ("--match", '{__name__=~"import_.*"}')
        back = ("--from", begin, *match, "-o", str(tmp_path / "back"))
        assert run("export", "--http", http, *back)[0] == 0
        frames = frames_of(tmp_path / "back")
        windows, young = last_points_in(frames), points_in(frames)
        # No window has two points, so these are all of them.
        assert {key_of(own): told for own, told in SERIES} == {
            key: windows[key] + young[key] for key in windows
        }


def test_old_days_go_to_the_tier_that_keeps_them(tmp_path: Path) -> None:
    """Minutes are kept for two days: older ones become hours alone, much older ones are refused."""
    retention = {"minute_ms": 2 * DAY_MS, "hour_ms": 30 * DAY_MS}
    lines, days = [], (1, 2, 3, 4, 40)
    for days_ago in sorted(days, reverse=True):
        start_s = (TODAY_MS - days_ago * DAY_MS) // 1000
        lines += [f"old_total {k} {start_s + 60 * k + 1}" for k in range(600)]
    text = tmp_path / "text"
    text.write_text("\n".join(["# TYPE old counter", *lines, "# EOF"]) + "\n")
    with tiered_server(tmp_path / "data") as server:
        give_tiers(server, retention)
        for again in range(2):
            told = imported(server, str(text))
            assert told["refused"] == {"not_kept": 600}, again
            assert set(told["days"]) == {"warm", "cold"}
            assert sum(told["days"].values()) in (3, 4)
            spans = {"start": (TODAY_MS - 4 * DAY_MS) // 1000, "end": TODAY_MS // 1000}
            query = "sum_over_time(count_over_time(old_total[1d])[4d:1d])"
            count = server.get("query", query=query, time=spans["end"])["result"]
            assert float(count[0]["value"][1]) == 2400, (again, count)
        hours = server.get(
            "query", query="increase(old_total[10h])", time=(TODAY_MS - 4 * DAY_MS) // 1000 + 36000
        )
        assert float(hours["result"][0]["value"][1]) == pytest.approx(599, rel=0.01)


def test_without_tiers_all_goes_through_ingest(tmp_path: Path) -> None:
    text = tmp_path / "text"
    lines = [f't{{i="a"}} {k} {k * 10}' for k in range(50)]
    text.write_text("\n".join(["# TYPE t gauge", *lines, "# EOF"]))
    with Server(tmp_path / "data") as server:
        told = imported(server, str(text))
        assert told["ingested"] == 50 and told["days"] == {}
        assert server.values("sum_over_time(t[1h])", 500) == {"a": float(sum(range(50)))}
        assert server.get("metadata", metric="t")["t"][0]["type"] == "gauge"
        bad = tmp_path / "bad"
        bad.write_text("t 1 2\nt one 3\n")
        status, words = run("import", str(bad), "--http", f"127.0.0.1:{server.port}")
        assert status == 1 and "line 2: not a number" in words
        # A file that was cut off is not taken for the whole.
        http, cut = f"127.0.0.1:{server.port}", tmp_path / "cut"
        assert run("export", "--http", http, "--from", "-1", "--to", "1000", "-o", str(cut))[0] == 0
        cut.write_bytes(cut.read_bytes()[:-100])
        status, words = run("import", str(cut), "--http", http)
        assert status == 1 and "cut off" in words
