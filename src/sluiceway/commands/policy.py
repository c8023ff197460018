"""`sluiceway policy ...`: budgets as code, in versions that never change.

Invariant: as options.py says; a policy is read strictly here before it is sent, so that a fault is
told with its line.
"""

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from sluiceway.commands.options import HERE, AsJson, Authority, Http, Key, ask, refusals, tell

policy_app = typer.Typer(help="Budgets of series, in versions.", no_args_is_help=True)
PAGE = 100
File = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A policy, in YAML.")]
Version = Annotated[int, typer.Argument(min=1, help="A version of the policy.")]
IfVersion = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=0, help="Only if this version is the newest; 0: if there is none."),
]


@policy_app.command("list")
def policy_list(
    http: Http = HERE, key: Key = None, tls_ca: Authority = None, as_json: AsJson = False
) -> None:
    """Versions, the newest first: that one is in force."""
    from sluiceway.commands.policy_tables import policy_rows

    versions: list[dict[str, Any]] = []
    while True:
        query = {"before": str(versions[-1]["version"])} if versions else {}
        page = ask(http, key, tls_ca, "GET", "/policies", **query)
        versions += page
        if len(page) < PAGE:
            break
    tell(versions, as_json, policy_rows(versions))


@policy_app.command("show")
def policy_show(
    version: Annotated[
        Optional[int],  # noqa: UP045
        typer.Argument(min=1, help="The newest where none is given."),
    ] = None,
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
    as_json: AsJson = False,
) -> None:
    """A version as it was written."""
    from sluiceway.commands.policy_tables import policy_lines

    if version is None:
        newest = ask(http, key, tls_ca, "GET", "/policies", limit="1")
        with refusals():
            if not newest:
                raise ValueError("there is no policy yet: every series is let in")
        version = newest[0]["version"]
    told = ask(http, key, tls_ca, "GET", f"/policies/{version}")
    tell(told, as_json, policy_lines(told))


@policy_app.command("apply")
def policy_apply(
    file: File,
    if_version: IfVersion = None,
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
) -> None:
    """Make a new version of what the file says; in force within 5 s. None if nothing changed."""
    body = read(file)[0].encode()
    told = ask(http, key, tls_ca, "POST", "/policies", body, **guard(if_version))
    policy = told["policy"]
    count, rules = len(policy["budgets"]), len(policy["boundary"])
    more = f", {rules} rules of the boundary" if rules else ""
    more += f", {named} rules of sketches" if (named := len(policy["sketches"])) else ""
    more += ", in force already: unchanged" if told["unchanged"] else ""
    print(f"version {told['version']}: stage {policy['stage']}, {count} budgets{more}")


@policy_app.command("rollback")
def policy_rollback(
    version: Version,
    if_version: IfVersion = None,
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
) -> None:
    """Make a new version that says what an older one said."""
    told = ask(http, key, tls_ca, "POST", f"/policies/{version}/rollback", **guard(if_version))
    print(f"version {told['version']} says what version {version} said")


@policy_app.command("diff")
def policy_diff(
    before: Version,
    after: Version,
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
    as_json: AsJson = False,
) -> None:
    """What version AFTER says differently from BEFORE."""
    from sluiceway.commands.policy_tables import policy_diff_lines

    told = ask(http, key, tls_ca, "GET", f"/policies/{before}/diff/{after}")
    tell(told, as_json, policy_diff_lines(told))


@policy_app.command("test")
def policy_test(
    file: File,
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
    as_json: AsJson = False,
) -> None:
    """Read and compile a file, and say which of its budgets are full right now. Changes nothing."""
    import msgspec

    from sluiceway.commands.policy_tables import standing_lines
    from sluiceway.governance.nearness import Nearness
    from sluiceway.governance.policy import Policy
    from sluiceway.governance.standing import standings

    policy = read(file)[1]
    near = msgspec.convert(ask(http, key, tls_ca, "GET", "/budgets"), Nearness)
    found = standings(policy, near.policy or Policy(), near)
    tell(msgspec.to_builtins(found), as_json, standing_lines(policy, near, found))


@policy_app.command("whatif")
def policy_whatif(
    file: File,
    days: Annotated[int, typer.Option(min=1, help="Back from the newest recorded hour.")] = 7,
    refused: Annotated[int, typer.Option(min=0, help="Refused series to name, at most.")] = 0,
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
    as_json: AsJson = False,
) -> None:
    """What a file would have done in the last days, if enforced. Changes nothing."""
    from sluiceway.commands.whatif_tables import whatif_lines

    query = {"days": str(days)} | ({"refused": str(refused)} if refused else {})
    body = read(file)[0].encode()
    told = ask(http, key, tls_ca, "POST", "/policies/whatif", body, **query)
    tell(told, as_json, whatif_lines(told))


def guard(if_version: int | None) -> dict[str, str]:
    return {} if if_version is None else {"if_version": str(if_version)}


def read(file: Path) -> tuple[str, Any]:
    """(the text, the policy), or the end of the command with line and column."""
    from sluiceway.errors import TenantFault
    from sluiceway.governance.compile import compile_policy
    from sluiceway.governance.document import parse_policy

    with refusals():
        text = file.read_text()
        try:
            policy = parse_policy(text)
            compile_policy(policy, 1)
        except TenantFault as fault:
            raise ValueError(f"{file}: {fault.message} ({fault.id})") from None
    return text, policy
