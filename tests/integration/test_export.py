"""Export at a real server: every raw point to the bit, and what they came to once raw has gone."""

import math
import struct
import time
from pathlib import Path

from fakes.transfer import (
    DAY_MS,
    bits,
    frames_of,
    give_tiers,
    key_of,
    last_points_in,
    points_in,
    roll,
    run,
    tiered_server,
)

STALE: float = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
NOW_MS = int(time.time() * 1000)
TODAY_MS = NOW_MS // DAY_MS * DAY_MS
FIRST_MS = TODAY_MS - 3 * DAY_MS
SCRAPE_MS = 120_000
LABELS = {"__name__": "export_jobs_total", "job": 'a "b"\\'}


def points() -> list[tuple[int, float]]:
    times = range(FIRST_MS + 1, NOW_MS, SCRAPE_MS)
    told = [(t, math.pi * (k % 97)) for k, t in enumerate(times)]
    told[5] = (told[5][0], STALE)
    return told


def test_points_and_then_windows_are_exported(tmp_path: Path) -> None:
    held = points()
    with tiered_server(tmp_path / "data") as server:
        gauges = [({"__name__": "export_up", "i": str(i)}, [(NOW_MS, float(i))]) for i in range(20)]
        assert server.write([(LABELS, held), *gauges]) == 204
        http = f"127.0.0.1:{server.port}"
        asked = ("--http", http, "--from", str(FIRST_MS // 1000))
        status, told = run("export", *asked, "-o", str(tmp_path / "raw"))
        assert status == 0 and f"{len(held) + 20:,} points and 0 windows" in told, told
        frames = frames_of(tmp_path / "raw")
        assert [frame.kind for frame in frames[:2]] == ["head", "metadata"]
        assert frames[-1].kind == "end" and frames[-1].header["points"] == len(held) + 20
        exported = points_in(frames)
        assert bits({key_of(LABELS): held}) == bits(
            {k: v for k, v in exported.items() if len(v) > 1}
        )
        assert len(exported) == 21
        assert run("export", *asked, "-o", str(tmp_path / "raw"))[0] == 1  # never written over

        status, text = run(
            "export", *asked, "--format", "openmetrics", "--match", "export_jobs_total"
        )
        lines = [line for line in text.splitlines() if line.startswith("export_jobs")]
        assert status == 0 and "# TYPE export_jobs counter" in text and "# EOF" in text, text[-500:]
        values = [(line.rsplit(" ", 2)[1], line.rsplit(" ", 1)[1]) for line in lines]
        assert [(float(t), float(v)) for v, t in values] == [
            (t / 1000, v) for t, v in held if not math.isnan(v)
        ]
        assert lines[0].startswith('export_jobs_total{job="a \\"b\\"\\\\"} ')

        give_tiers(server)
        raw_from_ms = roll(server, FIRST_MS + DAY_MS)["raw_from_ms"]
        status, told = run("export", *asked, "-o", str(tmp_path / "rolled"))
        assert status == 0 and "windows of warm" in told, told
        frames = frames_of(tmp_path / "rolled")
        late = [(t, v) for t, v in held if t > raw_from_ms]
        assert points_in(frames)[key_of(LABELS)] == late
        # One point a window: its last is the point, but for the stale marker's.
        early = [(t, v) for t, v in held if t <= raw_from_ms and not math.isnan(v)]
        windows = last_points_in(frames)[key_of(LABELS)]
        assert [(t, v) for t, v in windows if t] == early
        assert frames[-1].header["window_points"] == len(early)
        kinds = {int(k) for f in frames if f.kind == "windows" for k in f.columns["kinds"]}
        assert kinds == {1}

        # From 1970 on: what nobody holds is passed over, and nothing else.
        ever = ("--http", http, "--from", "0", "-o", str(tmp_path / "ever"))
        began_s = time.monotonic()
        status, told = run("export", *ever)
        assert status == 0 and time.monotonic() - began_s < 15, told
        whole = frames_of(tmp_path / "ever")
        counts = ("points", "windows", "window_points")
        assert [whole[-1].header[c] for c in counts] == [frames[-1].header[c] for c in counts]

        slice_ = f"/api/v1/export?start={FIRST_MS / 1000}&end={FIRST_MS / 1000 + 2 * 86400}"
        status, body = server.call("GET", slice_)
        assert status == 400 and b"one UTC day" in body
