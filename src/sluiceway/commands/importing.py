"""`sluiceway import`: points and windows from a file or a Prometheus into a running server."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from sluiceway.commands.export import REQUEST_S_MAX, open_peer
from sluiceway.commands.options import HERE, AsJson, Authority, Http, Text

if TYPE_CHECKING:
    from sluiceway.services.transfer.importing import Report
    from sluiceway.services.transfer.sources import Source

ImportKey = Annotated[
    Text, typer.Option(envvar="SLUICEWAY_KEY", help="A key of scopes write and admin.")
]


def import_(
    file: Annotated[
        Optional[Path],  # noqa: UP045  (typer reads the annotation when it runs)
        typer.Argument(help="A native export, or OpenMetrics text."),
    ] = None,
    from_prometheus: Annotated[Text, typer.Option(help="URL of a Prometheus instead.")] = None,
    match: Annotated[str, typer.Option(help="Its series, as '{job=\"api\"}'.")] = "",
    begin: Annotated[Text, typer.Option("--from", help="Later than it.")] = None,
    to: Annotated[Text, typer.Option("--to", help="Up to and with it; now.")] = None,
    prometheus_token: Annotated[
        Text, typer.Option(envvar="SLUICEWAY_PROMETHEUS_TOKEN", help="It wants a bearer token.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="Into which tenant: the key's.")] = "default",
    work: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Directory to gather in, and to go on from; a temporary one."),
    ] = None,
    http: Http = HERE,
    key: ImportKey = None,
    tls_ca: Authority = None,
    as_json: AsJson = False,
) -> None:
    """Old points become windows of the right tier, young ones are written: docs/import.md."""
    from sluiceway.clock import SystemClock
    from sluiceway.commands.backup import failures
    from sluiceway.services.transfer.importing import Importer
    from sluiceway.services.transfer.stage import Stage

    with failures(), working(work) as directory:
        peer = open_peer(http, key, tls_ca, None)
        stage = Stage(directory, tenant, SystemClock())
        try:
            with source_of(file, from_prometheus, prometheus_token, match, begin, to) as source:
                report = Importer(peer, stage, tenant, directory, say).run(source)
        finally:
            stage.close()
        print("\n".join(lines_of(report, as_json)))


@contextmanager
def source_of(
    file: Path | None, url: Text, token: Text, match: str, begin: Text, to: Text
) -> "Iterator[Source]":
    from sluiceway.clock import SystemClock, jitter
    from sluiceway.query.api.parameters import parse_time
    from sluiceway.query.api.prometheus import matchers_in
    from sluiceway.services.transfer.sources import Prometheus, open_file

    if (file is None) == (url is None):
        raise ValueError("name a file, or --from-prometheus")
    if file is not None:
        with file.open("rb") as opened:
            yield open_file(opened)
        return
    if begin is None or not match:
        raise ValueError("--from-prometheus needs --match and --from")
    from sluiceway.client.transport import HttpTransport
    from sluiceway.services.transfer.peer import Peer

    clock = SystemClock()
    until_ms = clock.now_ms() if to is None else parse_time("to", to)
    transport = HttpTransport(url or "", token, REQUEST_S_MAX)
    peer = Peer(transport, clock, jitter(), {})
    yield Prometheus(peer, matchers_in(match), parse_time("from", begin), until_ms)


@contextmanager
def working(work: Path | None) -> Iterator[Path]:
    if work is not None:
        yield work
        return
    with tempfile.TemporaryDirectory(prefix="sluiceway-import-") as directory:
        yield Path(directory)


def say(words: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{words:70}", end="\r", file=sys.stderr, flush=True)


def lines_of(report: "Report", as_json: bool) -> list[str]:
    import json
    from dataclasses import asdict

    if as_json:
        return [json.dumps(asdict(report), indent=2)]
    days = ", ".join(f"{count} in {tier}" for tier, count in report.days.items())
    lines = [
        f"{report.points:,} points: {report.ingested:,} written, {report.rolled:,} in windows"
        f" with {report.stale:,} stale markers, {report.repeated:,} repeated",
        f"{report.windows:,} windows of {report.window_points:,} points as they came",
        f"days: {days or 'none'}; windows replaced: {report.replaced_windows:,}",
    ]
    lines += [f"refused, {reason}: {count:,}" for reason, count in sorted(report.refused.items())]
    if report.histograms_left_out:
        lines.append(f"native histograms left out: {report.histograms_left_out:,}")
    return lines
