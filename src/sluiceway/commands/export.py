"""`sluiceway export`: a tenant's points and windows into a file, from a running server."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Optional

import typer

from sluiceway.commands.options import HERE, Authority, Http, Text

if TYPE_CHECKING:
    from sluiceway.services.transfer.export import Totals
    from sluiceway.services.transfer.peer import Peer

ReadKey = Annotated[Text, typer.Option(envvar="SLUICEWAY_KEY", help="A key of scope read.")]
REQUEST_S_MAX = 300.0
SPAN_MS_MAX = 100 * 366 * 86_400_000


def export(
    begin: Annotated[str, typer.Option("--from", help="RFC 3339 or Unix seconds; later than it.")],
    to: Annotated[Text, typer.Option("--to", help="Up to and with it; now.")] = None,
    match: Annotated[str, typer.Option(help="A selector, as '{job=\"api\"}'; all series.")] = "",
    tenant: Annotated[Text, typer.Option(help="Whose, for a key that reads several.")] = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045  (typer reads the annotation when it runs)
        typer.Option("--out", "-o", help="A new file; standard output."),
    ] = None,
    form: Annotated[str, typer.Option("--format", help="native or openmetrics.")] = "native",
    http: Http = HERE,
    key: ReadKey = None,
    tls_ca: Authority = None,
) -> None:
    """Write points, and windows where raw points are gone, of a range of time; docs/import.md."""
    from sluiceway.clock import SystemClock
    from sluiceway.commands.backup import failures
    from sluiceway.query.api.parameters import parse_time
    from sluiceway.services.transfer.export import (
        Wanted,
        export_native,
        export_openmetrics,
    )

    with failures():
        if form not in ("native", "openmetrics"):
            raise ValueError("--format is native or openmetrics")
        clock = SystemClock()
        from_ms = parse_time("from", begin)
        until_ms = clock.now_ms() if to is None else parse_time("to", to)
        if until_ms <= from_ms:
            raise ValueError("--to must be after --from")
        if until_ms - from_ms > SPAN_MS_MAX:
            raise ValueError("--from and --to: at most 100 years apart, it is asked day by day")
        peer = open_peer(http, key, tls_ca, tenant)
        wanted = Wanted(tenant or "default", match, from_ms, until_ms)
        with target(out) as file:
            if form == "native":
                totals = export_native(peer, wanted, file, clock.now_ms(), say_time)
            else:
                totals = export_openmetrics(peer, wanted, file, say_time)
        print(summary(totals), file=sys.stderr)


def open_peer(http: str, key: Text, tls_ca: Text, tenant: Text) -> "Peer":
    """The server that the options name."""
    import ssl

    from sluiceway.client.transport import HttpTransport
    from sluiceway.clock import SystemClock, jitter
    from sluiceway.services.transfer.peer import Peer

    url = http if "://" in http else f"{'https' if tls_ca else 'http'}://{http}"
    tls = None if tls_ca is None else ssl.create_default_context(cafile=tls_ca)
    headers = {} if tenant is None else {"X-Scope-OrgID": tenant}
    transport = HttpTransport(url, key, REQUEST_S_MAX, tls)
    return Peer(transport, SystemClock(), jitter(), headers)


def target(out: Path | None) -> BinaryIO:
    """Raises: FileExistsError."""
    return sys.stdout.buffer if out is None else out.open("xb")


def say_time(until_ms: int) -> None:
    from sluiceway.commands.tables import moment

    if sys.stderr.isatty():
        print(f"\rup to {moment(until_ms)}", end="\r", file=sys.stderr, flush=True)


def summary(totals: "Totals") -> str:
    tiers = ", ".join(
        f"{rows:,} {'points' if tier == 'raw' else 'windows'} of {tier}"
        for tier, rows in totals.tiers.items()
    )
    return f"{totals.points:,} points and {totals.windows:,} windows ({tiers or 'nothing'})"
