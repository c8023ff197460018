"""What the commands share: where the server is, how it is asked, how an answer is told.

Invariant: a command asks a running server; none touches a data directory. Modules are imported
when a command runs, so that `--help` stays quick.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Optional

import typer

Text = Optional[str]  # noqa: UP045  (typer reads the annotation when it runs)
Http = Annotated[str, typer.Option(help="HOST:PORT or URL of the server.")]
Key = Annotated[Text, typer.Option(envvar="SLUICEWAY_KEY", help="A key of scope admin.")]
Authority = Annotated[Text, typer.Option(help="Certificate authority to trust.")]
AsJson = Annotated[bool, typer.Option("--json", help="The API's answer as it came.")]
Tenant = Annotated[str, typer.Argument(help="The tenant.")]
HERE = "127.0.0.1:9090"


@contextmanager
def refusals() -> Iterator[None]:
    """One line and status 1 for whatever the server or the text refuses."""
    try:
        yield
    except (OSError, ValueError) as error:
        print(f"sluiceway: {error}", file=sys.stderr)
        raise typer.Exit(1) from None


def ask(
    http: str, key: Text, tls_ca: Text, method: str, path: str, body: Any = None, **query: str
) -> Any:
    """`data` of the answer, or the end of the command."""
    from sluiceway.commands.server import Server

    with refusals():
        return Server(http, key, tls_ca).ask(method, path, body, **query)


def ask_api(http: str, key: Text, tls_ca: Text, method: str, path: str, **query: str) -> Any:
    """As `ask`, of what is not the admin API's: paths under /api/v1."""
    from sluiceway.commands.server import Server

    with refusals():
        return Server(http, key, tls_ca).ask(method, path, prefix="/api/v1", **query)


def tell(told: Any, as_json: bool, lines: list[str]) -> None:
    if as_json:
        import json

        print(json.dumps(told, indent=2))
    else:
        print("\n".join(lines))
