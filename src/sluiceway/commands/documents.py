"""Plans and tenants declared in YAML, read from a file or a directory.

Invariant: what does not say `kind: plan` or `kind: tenant` is refused by file and number, never
passed over; so is a key that is given twice, of which the last would have held, and a number that
YAML 1.1 reads in another base.
"""

from pathlib import Path
from typing import Any

from sluiceway.commands.amounts import limits_of

FILE_BYTES_MAX = 4 << 20
SUFFIXES = {".yaml", ".yml"}
KINDS = ("plan", "tenant")
MERGE = "<<"
Documents = dict[str, list[dict[str, Any]]]


def read_documents(place: Path) -> Documents:
    """{"plans": [...], "tenants": [...]}, in the order of paths. Raises: OSError, ValueError."""
    if place.is_dir():
        files = sorted(file for file in place.rglob("*") if file.suffix in SUFFIXES)
    else:
        files = [place]
    if not files:
        raise ValueError(f"no .yaml file under {place}")
    found: Documents = {"plans": [], "tenants": []}
    for file in files:
        for number, document in enumerate(_documents(file), 1):
            try:
                kind, body = _checked(document)
            except ValueError as error:
                raise ValueError(f"{file}, document {number}: {error}") from None
            found[f"{kind}s"].append(body)
    return found


def _documents(file: Path) -> list[Any]:
    # Imported here: no other command reads YAML.
    import yaml

    if file.stat().st_size > FILE_BYTES_MAX:
        raise ValueError(f"{file} is longer than {FILE_BYTES_MAX} bytes")
    try:
        data = file.read_bytes()
        for node in yaml.compose_all(data, Loader=yaml.SafeLoader):
            _refuse_twice(file, node, set())
        return [document for document in yaml.safe_load_all(data) if document is not None]
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{file}: {error}") from None


def _refuse_twice(file: Path, node: Any, seen: set[int]) -> None:
    """Raises: ValueError. `seen`: an alias leads to a node that was looked at, or is being."""
    if node is None or id(node) in seen:
        return
    if node.id == "scalar":
        _refuse_trap(file, node)
        return
    seen.add(id(node))
    keys: set[str] = set()
    for part in node.value:
        key, value = part if node.id == "mapping" else (None, part)
        if key is not None and key.id == "scalar":
            if key.value in keys and key.value != MERGE:
                place = f"line {key.start_mark.line + 1}"
                raise ValueError(f"{file}, {place}: {key.value!r} is given twice")
            keys.add(key.value)
        _refuse_twice(file, value, seen)


def _refuse_trap(file: Path, node: Any) -> None:
    from sluiceway.governance.document import trap_of

    trap = trap_of(node)
    if trap is not None:
        raise ValueError(f"{file}, line {node.start_mark.line + 1}: {trap}")


def _checked(document: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(document, dict) or document.get("kind") not in KINDS:
        raise ValueError("not a mapping with `kind: plan` or `kind: tenant`")
    body = {name: value for name, value in document.items() if name != "kind"}
    if "limits" in body:
        if not isinstance(body["limits"], dict):
            raise ValueError("limits is not a mapping")
        body["limits"] = limits_of(body["limits"])
    if isinstance(body.get("prices"), dict):
        # YAML reads 0.10 as a float: money must be written as text, and stays as it is written.
        for name, price in body["prices"].items():
            if not isinstance(price, str):
                raise ValueError(f'prices.{name}: write it in quotes, as "0.10"')
    return document["kind"], body
