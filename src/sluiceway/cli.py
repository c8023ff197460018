"""The `sluiceway` command.

Invariant: a command imports what it needs when it runs, so that `--help` stays quick.
"""

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

app = typer.Typer(
    name="sluiceway",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
keys_app = typer.Typer(help="Keys that clients show.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")

# Every option of `serve` that stands in a file or the environment as well is None here: not given.
Text = Optional[str]  # noqa: UP045  (typer reads the annotation when it runs)
File = Optional[Path]  # noqa: UP045


def fail(message: str) -> typer.Exit:
    """Say what is wrong, in one line, and end with status 1."""
    print(f"sluiceway: {message}", file=sys.stderr)
    return typer.Exit(1)


def show_version(asked: bool) -> None:
    if asked:
        from sluiceway import __version__

        print(f"sluiceway {__version__}")
        raise typer.Exit


@app.callback()
def sluiceway(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Say it, end.")
    ] = False,
) -> None:
    """An ingestion pipeline for metrics: durable, one command, PromQL."""


@app.command()
def serve(
    data_dir: Annotated[File, typer.Option(help="Where everything is kept.")] = None,
    http: Annotated[Text, typer.Option(help="HOST:PORT of the public address.")] = None,
    otlp_grpc: Annotated[Text, typer.Option(help="HOST:PORT for OTLP over gRPC.")] = None,
    tls_cert: Annotated[File, typer.Option(help="Certificate chain, PEM.")] = None,
    tls_key: Annotated[File, typer.Option(help="Its private key, PEM.")] = None,
    tls_client_ca: Annotated[File, typer.Option(help="Clients must show one of its.")] = None,
    auth: Annotated[Text, typer.Option(help="off, or keys: every request shows a key.")] = None,
    auth_keys: Annotated[File, typer.Option(help="Key file; DATA_DIR/keys.toml.")] = None,
    allow_insecure: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option("--allow-insecure", help="Serve off loopback without TLS or keys."),
    ] = None,
    config: Annotated[File, typer.Option(help="Settings in TOML.")] = None,
    roles: Annotated[Text, typer.Option(help="all, gateway, shard or query.")] = None,
    memory_max: Annotated[Text, typer.Option(help="As 8GiB; 60 % of what there is.")] = None,
    series_max: Annotated[Text, typer.Option(help="Series in memory.")] = None,
    disk_max: Annotated[Text, typer.Option(help="Bytes of the data directory.")] = None,
    log_level: Annotated[Text, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Take writes and answer queries until SIGTERM."""
    flags = {name: value for name, value in locals().items() if name != "config"}
    from sluiceway.serve.quick_start import quick_start

    quick_start()
    from pydantic import ValidationError

    from sluiceway import config as configuration
    from sluiceway.errors import SluicewayError

    try:
        loaded = configuration.load(config, **flags)
    except ValidationError as error:
        problems = [
            ": ".join(filter(None, (".".join(map(str, e["loc"])), e["msg"]))).removeprefix(
                "Value error, "
            )
            for e in error.errors()
        ]
        raise fail("; ".join(problems)) from None
    except (OSError, ValueError) as error:
        raise fail(str(error)) from None

    try:
        if loaded.roles == "query":
            from sluiceway.wiring_query import serve_queries

            serve_queries(loaded)
        elif loaded.roles == "gateway":
            from sluiceway.wiring_gateway import serve_gateway

            serve_gateway(loaded)
        elif loaded.roles == "shard" and loaded.kafka.group:
            from sluiceway.wiring_member import serve_member

            serve_member(loaded)
        else:
            from sluiceway.wiring import serve as run

            run(loaded)
    except OSError as error:
        about = f"{error.filename}: " if error.filename else ""
        raise fail(f"{about}{error.strerror or error}") from None
    except SluicewayError as error:
        fail(str(error))
        raise typer.Exit(error.exit_status) from None


@app.command()
def status(
    http: Annotated[str, typer.Option(help="HOST:PORT or URL of the server.")] = "127.0.0.1:9090",
    key: Annotated[Text, typer.Option(envvar="SLUICEWAY_KEY", help="A key that may read.")] = None,
    tls_ca: Annotated[Text, typer.Option(help="Certificate authority to trust.")] = None,
    config: Annotated[File, typer.Option(help="Settings with `fleet`: ask all of it.")] = None,
) -> None:
    """Say in ten lines what is wrong; with --config of every process of the fleet."""
    from sluiceway.status import fleet_report, report

    if config is None:
        text, well = report(http, key, tls_ca)
    else:
        from sluiceway import config as configuration

        try:
            members = configuration.load(config).fleet_addresses()
        except (OSError, ValueError) as error:
            raise fail(str(error)) from None
        if not members:
            raise fail(f'{config}: no fleet = ["NAME=HOST:PORT", ...]')
        text, well = fleet_report(members, key, tls_ca)
    print(text)
    if not well:
        raise typer.Exit(1)


@app.command()
def demo(
    data_dir: Annotated[File, typer.Option(help="Where to keep it; a temporary one.")] = None,
    port: Annotated[Optional[int], typer.Option(help="Of the server; a free one.")] = None,  # noqa: UP045
    keep: Annotated[bool, typer.Option("--keep", help="Leave the data behind.")] = False,
) -> None:
    """Start a server, push a small fleet's life with a deploy that explodes, show the answers."""
    from sluiceway.demo.run import run

    raise typer.Exit(run(data_dir, port, keep))


@keys_app.command("new")
def keys_new(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    data_dir: Annotated[Path, typer.Option(help="Data directory of the server.")] = Path(
        "sluiceway-data"
    ),
    file: Annotated[File, typer.Option(help="Key file; DATA_DIR/keys.toml.")] = None,
    scopes: Annotated[str, typer.Option(help="Of write, read, admin, by comma.")] = "write,read",
    tenant: Annotated[str, typer.Option(help="Whom the key stands for.")] = "default",
) -> None:
    """Make a key, add its hash to the key file and print the key, once."""
    from sluiceway.gateway.keys import SCOPES, new_key

    chosen = tuple(scope for scope in SCOPES if scope in scopes.split(","))
    if len(chosen) != len(set(scopes.split(","))):
        raise fail(f"scopes are {', '.join(SCOPES)}")
    try:
        key, text = new_key(tenant, name, chosen)
        path = file or data_dir / "keys.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with path.open("a") as keys:
            keys.write(text)
    except (OSError, ValueError) as error:
        raise fail(str(error)) from None
    print(key)


def add_commands() -> None:
    """The commands that ask a running server. `serve` starts without them: they cost it 8 ms."""
    from sluiceway.commands.backup import backup, restore
    from sluiceway.commands.cardinality import cardinality
    from sluiceway.commands.check import check
    from sluiceway.commands.cost import cost
    from sluiceway.commands.deadletters import deadletters_app
    from sluiceway.commands.export import export
    from sluiceway.commands.importing import import_
    from sluiceway.commands.ledger import ledger
    from sluiceway.commands.plan import apply, plan_app
    from sluiceway.commands.policy import policy_app
    from sluiceway.commands.queries import queries
    from sluiceway.commands.rollup import rollup_app
    from sluiceway.commands.series import series_app
    from sluiceway.commands.shard import shard_app
    from sluiceway.commands.sql import sql
    from sluiceway.commands.tenant import tenant_app

    app.add_typer(tenant_app, name="tenant")
    app.add_typer(rollup_app, name="rollup")
    app.add_typer(series_app, name="series")
    app.add_typer(shard_app, name="shard")
    app.add_typer(plan_app, name="plan")
    app.add_typer(policy_app, name="policy")
    app.add_typer(deadletters_app, name="deadletters")
    app.command()(apply)
    app.command()(ledger)
    app.command()(cardinality)
    app.command()(queries)
    app.command()(cost)
    app.command()(sql)
    app.command()(backup)
    app.command()(restore)
    app.command()(check)
    app.command()(export)
    app.command("import")(import_)


def main() -> None:
    if sys.argv[1:2] != ["serve"]:
        add_commands()
    app()


if __name__ == "__main__":
    main()
